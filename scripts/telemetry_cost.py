#!/usr/bin/env python
"""What counting costs: builds the core with and without telemetry and trains with both in turns, on a quiet machine.

For anyone who wants to check the README's figure. Two copies of the tree are built below build/telemetry, one of them with
CHAOS_TELEMETRY=0: no clocks, no staleness, no histograms. A process of each takes turns (A B B A ...), each turn
giving microseconds per image; the figure is the median of the differences within a pair of turns, in percent, with its
95 % bootstrap interval. Exit status 1 if the lower end of an interval is above the limit.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from chaos.bench import machine

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from turns import Side, extra, pairs  # noqa: E402

PLACE = ROOT / "build/telemetry"

WORKER = """
import json, sys
import chaos
from chaos.bench._throughput import Case
model, workers, batch_size, seconds, strategy = sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4]), sys.argv[5]
case = Case(model, workers, batch_size, strategy, images={})
case.prepare(seconds)
print(json.dumps(chaos.__file__), flush=True)
for line in sys.stdin:
    counts, taken = case.train(case.count)
    print(json.dumps([taken / case.count * 1e6, counts["time"]["total"]]), flush=True)
"""


def build(on):
    """The folder of a built copy of the tree."""
    folder = PLACE / ("with" if on else "without")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("chaos", "cext"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -DCHAOS_TELEMETRY={int(on)}"},
    )
    if done.returncode:
        sys.exit(f"the core does not build:\n{done.stderr[-2000:]}")
    return folder


def start(folder, *arguments):
    """A process that trains with the build in a folder when it is told to."""
    side = Side([sys.executable, "-c", WORKER, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)})
    if not side.hear().startswith(str(folder)):
        sys.exit(f"{folder}: another chaos was imported")
    return side


def turn(side, counts):
    """Microseconds per image of one turn."""
    us, clocked = side.ask()
    if (clocked > 0) != counts:
        sys.exit("the build with telemetry does not count, or the one without does")
    return us


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small", "medium", "large"], help="default: small medium large")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--batch-size", type=int, default=1, help="images per update (default: 1)")
    parser.add_argument("--strategy", default="chaos", help="default: chaos")
    parser.add_argument("--pairs", type=int, default=30, help="pairs of turns (default: 30)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn (default: 0.5)")
    parser.add_argument("--limit", type=float, default=0.01, help="allowed cost (default: 0.01)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    folders = {on: build(on) for on in (True, False)}
    rows = []
    print(f"{'model':10}{'workers':>8}{'us/image':>10}{'cost':>9}   95 % interval")
    for model in args.models:
        for workers in args.workers:
            case = (model, workers, args.batch_size, args.seconds, args.strategy)
            with start(folders[True], *case) as on, start(folders[False], *case) as off:
                found = pairs((on, off), args.pairs, lambda side, on=on: turn(side, side is on))
            middle, low, high = extra(found)
            us = float(np.median([b for _, b in found]))
            rows.append(
                {
                    "model": model,
                    "workers": workers,
                    "us_per_image": us,
                    "cost": middle,
                    "low": low,
                    "high": high,
                    "pairs": found,
                }
            )
            print(f"{model:10}{workers:8}{us:10.2f}{middle:+9.2%}   {low:+.2%} .. {high:+.2%}", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(
                {"machine": machine(), "settings": {k: v for k, v in vars(args).items() if k != "json"}, "rows": rows},
                file,
                indent=1,
            )
            file.write("\n")
    return max(row["low"] for row in rows) > args.limit


if __name__ == "__main__":
    sys.exit(main())
