#!/usr/bin/env python
"""How wrong chaos estimate is on this machine: calibrates, then holds predictions to measurements made apart from that.

For anyone who wants to check the README's figures, on a quiet machine. Each network and batch size is measured several times
with one and with two workers; all errors are listed. Exit status 1 if one exceeds the limit.
"""

import argparse
import json
import sys

from chaos import bench, perfmodel
from chaos.models import MODELS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="networks (default: all)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="images per update (default: 1 8)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements that predictions are held to (default: 3)")
    parser.add_argument("--seconds", type=float, default=0.4, help="length of one repeat of a measurement (default: 0.4)")
    parser.add_argument("--limit", type=float, default=0.10, help="largest error (default: 0.10)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    record = bench.machine()
    calibration = perfmodel.Calibration(seconds=args.seconds, say=lambda line: print(line, file=sys.stderr, flush=True))
    rows = []
    print(f"{'model':10}{'batch':>6}{'workers':>9}{'measured':>10}{'predicted':>11}{'error':>8}   us/image")
    for attempt in range(args.rounds):
        for size in args.batch_sizes:
            for model in args.models:
                if attempt:
                    calibration.check(model, size, again=True)
                found = perfmodel.estimate(model, [1], batch_size=size, calibration=calibration, calibrate=not rows)
                for error in found["errors"]:
                    rows.append({"model": model, "batch_size": size, "round": attempt, **error})
                    print(f"{model:10}{size:6}{error['workers']:9}{error['measured_us']:10.2f}{error['predicted_us']:11.2f}"
                          f"{error['error']:+8.1%}", flush=True)
    worst = max(rows, key=lambda row: abs(row["error"]))
    lines = ", ".join(f"{name} {ns:.1f}" for name, ns in calibration.found["machine"]["transfer_ns"].items())
    print(f"largest error {worst['error']:+.1%} ({worst['model']}, batch size {worst['batch_size']}, {worst['workers']} "
          f"workers); cost of a line of weights: {lines}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"calibration": calibration.found["machine"], "errors": rows, "limit": args.limit, "machine": record},
                      file, indent=1)
            file.write("\n")
    return abs(worst["error"]) > args.limit


if __name__ == "__main__":
    sys.exit(main())
