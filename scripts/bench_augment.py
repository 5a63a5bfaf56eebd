"""What augmentation costs, in microseconds per image of one core, beside the time in which `medium` trains on an image.

A worker takes images through a network that only hands them on, with and without augmentation, in turns; the difference is
the cost. Before anything is timed the images are compared with the definition:
scripts/bench_augment.py [--json FILE] [--isa NAME] [--repeats N]
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import chaos
from chaos import _core, augment, bench
from chaos.network import run_key

IMAGES = 256
CASES = {  # name: (shape, steps)
    "shift, flip, crop": ((1, 29, 29), ["shift:2", "flip", "crop:4"]),
    "shift, flip, crop, colours": ((3, 32, 32), ["shift:2", "flip", "crop:4"]),
    "rotation, scale, shift": ((1, 28, 28), ["rotation:15", "scale:0.15", "shift:2"]),
    "elastic": ((1, 28, 28), ["elastic:34,4"]),
    "elastic, rotation, scale": ((1, 29, 29), ["elastic:34,4", "rotation:15", "scale:0.15"]),
    "elastic, colours": ((3, 32, 32), ["elastic:34,4"]),
    "cutout": ((3, 32, 32), ["cutout:16"]),
    "colour jitter": ((3, 32, 32), ["color_jitter:0.4,0.4,0.4"]),
    "noise": ((3, 32, 32), ["gaussian_noise:10"]),
    "mixup": ((1, 28, 28), ["mixup:0.2"]),
    "cutmix": ((3, 32, 32), ["crop:4", "flip", "cutmix:1"]),
}


class Case:
    """Images of a shape, and an engine with these steps."""

    def __init__(self, shape, steps):
        self.images = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
        self.net = chaos.Network(shape, [chaos.Flatten()])
        core = [step.core() for step in augment.steps(steps)]
        self.engine = _core.Engine(self.net.plan, self.net.weights, augment=core)
        self.out = np.zeros((IMAGES, self.images[0].size), np.float32)
        self.inputs = self.net.take_images(self.images)["inputs"]
        self.run(True)
        wanted = augment.define(self.images, steps, epoch=1, numbers=range(16)).reshape(16, -1)
        self.error = float(abs(self.out[:16] - wanted).max())
        if not self.error < 1e-3:
            sys.exit(f"{steps}: off by {self.error:.3g} from the definition")

    def run(self, augmented):
        """Seconds of a pass over all images."""
        start = time.perf_counter()
        self.engine.run("forward", self.inputs, out=self.out, key=run_key(0, 1), augmented=augmented)
        return time.perf_counter() - start

    def cost(self, repeats):
        """Microseconds per image: (median, least), each against the least of passes without augmentation."""
        times = [(self.run(True), self.run(False)) for _ in range(repeats)]
        without = min(plain for _, plain in times)
        found = [augmented - without for augmented, _ in times]
        return [1e6 * value / IMAGES for value in (statistics.median(found), min(found))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--isa", choices=("generic", "avx2", "avx512"), help="instruction set (default: the best there is)")
    parser.add_argument("--repeats", type=int, default=40, help="medians over so many (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.isa:
        _core.set_isa(arguments.isa)
    medium = bench.throughput("medium", workers=1, isa=_core.get_isa())["us_per_image"]
    print(f"medium trains on an image in {medium:.1f} us ({_core.get_isa()})")
    print(f"{'':28} {'median us':>9} {'least us':>9} {'of medium':>9}")
    rows = {}
    for name, (shape, steps) in CASES.items():
        case = Case(shape, steps)
        median, least = case.cost(arguments.repeats)
        share = median / medium
        rows[name] = {"shape": shape, "steps": steps, "us": round(median, 2), "least_us": round(least, 2)}
        rows[name] |= {"of_medium": round(share, 3), "error": case.error}
        print(f"{name:28} {median:9.2f} {least:9.2f} {share:9.1%}", flush=True)
    if arguments.json:
        about = {"isa": _core.get_isa(), "repeats": arguments.repeats, "images": IMAGES, "machine": bench.machine()}
        Path(arguments.json).write_text(json.dumps({"medium_us": medium, "rows": rows, **about}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
