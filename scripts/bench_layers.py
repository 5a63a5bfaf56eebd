"""How near the layers that hardly compute are to the time that reading and writing their data takes.

Each is timed in one network with an Abs, in turns; a pass of a layer is told as a multiple of the time in which the Abs
reads and writes as many numbers (on the way back it reads its input too); backward is all of it, gradients of weights
included:
scripts/bench_layers.py [--json FILE] [--isa NAME] [--repeats N]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

import chaos
from chaos import bench

SHAPE = (64, 32, 32)  # 256 KiB: more than a first-level cache, less than a second-level one
LAYERS = {
    "ReLU": lambda: chaos.ReLU(),
    "LeakyReLU": lambda: chaos.LeakyReLU(),
    "Hardswish": lambda: chaos.Hardswish(),
    "Sigmoid": lambda: chaos.Sigmoid(),
    "Tanh": lambda: chaos.Tanh(),
    "SiLU": lambda: chaos.SiLU(),
    "GELU": lambda: chaos.GELU(),
    "PReLU(64)": lambda: chaos.PReLU(64),
    "MaxPool2d(2)": lambda: chaos.MaxPool2d(2),
    "MaxPool2d(3, 2, 1)": lambda: chaos.MaxPool2d(3, 2, 1),
    "AvgPool2d(2)": lambda: chaos.AvgPool2d(2),
    "AvgPool2d(3, 2, 1)": lambda: chaos.AvgPool2d(3, 2, 1),
    "AdaptiveAvgPool2d(1)": lambda: chaos.AdaptiveAvgPool2d(1),
    "Mean((2, 3))": lambda: chaos.Mean((2, 3)),
    "BatchNorm2d": lambda: chaos.BatchNorm2d(),
    "GroupNorm(8)": lambda: chaos.GroupNorm(8),
    "LayerNorm": lambda: chaos.LayerNorm(),
    "LocalResponseNorm(5)": lambda: chaos.LocalResponseNorm(5),
    "Dropout": lambda: chaos.Dropout(),
    "Pad(1)": lambda: chaos.Pad(1),
    "Upsample(2)": lambda: chaos.Upsample(scale_factor=2),
    "ChannelShuffle(4)": lambda: chaos.ChannelShuffle(4),
    "Slice": lambda: chaos.Slice(1, 0, 32),
    "PixelShuffle(2)": lambda: chaos.PixelShuffle(2),
}


def measure(make, isa, repeats):
    """(forward, backward) of a layer as multiples of the Abs's time for as many numbers."""
    x = chaos.Input(SHAPE)
    y = chaos.Abs(name="reference")(chaos.Conv2d(SHAPE[0], kernel_size=1, bias=False)(x))
    y = make()(y)
    y = chaos.Flatten()(y) if len(y.shape) > 1 else y
    result = bench.kernels(chaos.Network(x, chaos.Linear(4)(y)), isa=isa, batch_size=8, seconds=0.004, repeats=repeats)
    reference, layer = result["layers"][1:3]  # behind the convolution
    assert reference["name"] == "reference"
    found = []
    for passes in (("forward",), ("weight_gradient", "data_gradient")):
        per_float = []
        for row in (layer, reference):
            us = sum(row[what]["us_per_image"] for what in passes if row.get(what))
            per_float.append(us / int(np.prod(row["input_shapes"][0]) + np.prod(row["output_shape"])))
        found.append(per_float[0] / per_float[1])
    return found, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--isa", choices=("generic", "avx2", "avx512"), help="instruction set (default: the best there is)")
    parser.add_argument("--repeats", type=int, default=9, help="medians over so many (default: %(default)s)")
    arguments = parser.parse_args()
    rows, result = {}, {}
    print(f"{'layer':22} {'forward':>8} {'backward':>9}   times reading and writing its data, {SHAPE}, 8 images together")
    for name, make in LAYERS.items():
        (forward, backward), result = measure(make, arguments.isa, arguments.repeats)
        rows[name] = {"forward": round(forward, 2), "backward": round(backward, 2)}
        print(f"{name:22} {forward:8.2f} {backward:9.2f}", flush=True)
    if arguments.json:
        about = {key: result[key] for key in ("isa", "machine", "repeats", "seconds")}
        Path(arguments.json).write_text(json.dumps({"shape": SHAPE, "layers": rows, **about}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
