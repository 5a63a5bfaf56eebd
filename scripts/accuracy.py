#!/usr/bin/env python
"""What asynchrony costs in accuracy: final test error on MNIST, chaos with several workers against sequential.

For anyone who wants to check the README's figures: the same seeds for all sides (seed s sets the initial weights and the
order of the images), errors listed seed by seed, mean and standard error. Workers beyond the cores of the machine are fine
here, since no time is measured.
"""

import argparse
import json
import sys

import numpy as np

import chaos


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", choices=chaos.models.MODELS, help="network (default: small)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs per run (default: 4)")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of the first epoch, x 0.9 per epoch (0.01)")
    parser.add_argument("--seeds", type=int, default=3, help="runs per side (default: 3)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8], help="worker counts of chaos (default: 2 8)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    train, test = chaos.data.load("mnist", size=29)
    sides = [("sequential", 1), *(("chaos", workers) for workers in args.workers)]
    errors = {side: [] for side in sides}
    for seed in range(args.seeds):
        for side in sides:
            net = chaos.models.MODELS[args.model](seed=seed)
            run = chaos.train(
                net,
                train,
                test,
                strategy=side[0],
                workers=side[1],
                epochs=args.epochs,
                lr=args.lr,
                seed=seed,
                progress=False,
            )
            errors[side].append(run.history[-1]["test_error"])
            print(f"seed {seed}  {side[0]:10} {side[1]:3} workers  {errors[side][-1]:.2%}", file=sys.stderr, flush=True)
    base = np.mean(errors[sides[0]])
    print(f"{args.model}, {args.epochs} epochs, lr {args.lr} x 0.9 per epoch, {args.seeds} seeds: test error on MNIST")
    print(f"{'strategy':12}{'workers':>8}{'mean':>9}{'std err':>9}{'difference':>12}  per seed")
    rows = []
    for side in sides:
        found = np.array(errors[side])
        spread = found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else float("nan")
        print(
            f"{side[0]:12}{side[1]:8}{found.mean():9.2%}{spread:9.2%}{found.mean() - base:+12.2%}  "
            + " ".join(f"{e:.2%}" for e in found)
        )
        rows.append(
            {
                "strategy": side[0],
                "workers": side[1],
                "errors": list(found),
                "mean": found.mean(),
                "standard_error": spread,
                "difference": found.mean() - base,
            }
        )
    if args.json:
        with open(args.json, "w") as file:
            json.dump(
                {"settings": vars(args), "chaos": chaos.__version__, "isa": chaos.info()["isa"], "rows": rows},
                file,
                indent=2,
            )


if __name__ == "__main__":
    main()
