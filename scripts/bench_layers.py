"""How near the layers that hardly compute are to the time that reading and writing their data takes.

Each is timed in one network with an Abs, in turns; a pass of a layer is told as a multiple of the time in which the Abs
reads and writes as many numbers (on the way back it reads its input too); backward is all of it, gradients of weights
included. `least` is the same multiple for what must be read more than once, where all of it fits in no cache; `computing`
what a function of single numbers takes when its data is in the first-level cache, as a multiple of the same time:
scripts/bench_layers.py [--json FILE] [--isa NAME] [--repeats N] [--layers NAME ...]
scripts/bench_layers.py --table FILE ...    prints files' figures as Markdown
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

import chaos
from chaos import bench

SHAPE = (64, 32, 32)  # 256 KiB: more than a first-level cache, less than a second-level one
NEAR = (64, 8, 8)  # 16 KiB, one image: in a first-level cache
# reads and writes of an image over those of the Abs, 2 forward and 3 backward, of kinds whose sums over all images of a step
# are needed before the first number is written, or that have a weight for each number of an image; what is summed up over
# single images is read twice, too, but from a nearer cache
LEAST = {"BatchNorm2d": {"forward": 3 / 2, "backward": 5 / 3}, "LayerNorm": {"forward": 1, "backward": 5 / 3}}
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
COMPUTES = {"Sigmoid", "Tanh", "SiLU", "GELU", "LocalResponseNorm(5)"}


def times(make, isa, repeats, shape, images):
    """({pass: ns per number read or written} of a layer, of an Abs before it, what the benchmark says of itself)."""
    x = chaos.Input(shape)
    y = chaos.Abs(name="reference")(chaos.Conv2d(shape[0], kernel_size=1, bias=False)(x))
    y = make()(y)
    y = chaos.Flatten()(y) if len(y.shape) > 1 else y
    net = chaos.Network(x, chaos.Linear(4)(y))
    result = bench.kernels(net, isa=isa, batch_size=images, seconds=0.004, repeats=repeats)
    reference, layer = result["layers"][1:3]  # behind the convolution
    assert reference["name"] == "reference"
    found = []
    for row in (layer, reference):
        numbers = int(np.prod(row["input_shapes"][0]) + np.prod(row["output_shape"]))
        parts = {"forward": ("forward",), "backward": ("weight_gradient", "data_gradient")}
        us = {name: sum(row[what]["us_per_image"] for what in passes if row.get(what)) for name, passes in parts.items()}
        found.append({name: 1000 * value / numbers for name, value in us.items()})
    return (*found, result)


def measure(name, make, isa, repeats):
    """(the figures of a layer, what the benchmark says of itself)."""
    layer, reference, result = times(make, isa, repeats, SHAPE, 8)
    figures = {which: round(layer[which] / reference[which], 2) for which in layer}
    if name in LEAST:
        figures["least"] = {which: round(value, 2) for which, value in LEAST[name].items()}
    if name in COMPUTES:
        near, _, _ = times(make, isa, repeats, NEAR, 1)
        figures["computing"] = {which: round(near[which] / reference[which], 2) for which in near}
    return figures, result


def table(files):
    """Markdown: the figures of every file side by side."""
    found = [json.loads(Path(file).read_text()) for file in files]
    heads = [f"{one['isa']}, {which}" for one in found for which in ("forward", "backward")]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name in found[0]["layers"]:
        cells = []
        for one in found:
            row = one["layers"][name]
            for which in ("forward", "backward"):
                beside = [f"{word} {row[word][which]:.2f}" for word in ("least", "computing") if word in row]
                cells.append(f"{row[which]:.2f}" + (f" ({', '.join(beside)})" if beside else ""))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", metavar="FILE", nargs="+", help="measure nothing, print these files' figures as Markdown")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--isa", choices=("generic", "avx2", "avx512"), help="instruction set (default: the best there is)")
    parser.add_argument("--layers", metavar="NAME", nargs="+", choices=LAYERS, help="these alone (default: all)")
    parser.add_argument("--repeats", type=int, default=9, help="medians over so many (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.table))
        return
    rows, result = {}, {}
    print(f"{'layer':22} {'forward':>8} {'backward':>9}   times reading and writing its data, {SHAPE}, 8 images together")
    for name in arguments.layers or LAYERS:
        row, result = measure(name, LAYERS[name], arguments.isa, arguments.repeats)
        rows[name] = row
        beside = {word: row[word] for word in ("least", "computing") if word in row} or ""
        print(f"{name:22} {row['forward']:8.2f} {row['backward']:9.2f}   {beside}", flush=True)
    if arguments.json:
        about = {key: result[key] for key in ("isa", "machine", "repeats", "seconds")}
        Path(arguments.json).write_text(json.dumps({"shape": SHAPE, "layers": rows, **about}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
