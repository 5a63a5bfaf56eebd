#!/usr/bin/env python
"""What asynchrony costs in accuracy: final test error on MNIST with several workers against sequential training.

For anyone who wants to check the documentation's figures. All sides have the same seeds (seed s sets the initial weights and
the order of the images); told are means, and the mean of the differences to sequential, seed by seed, with its standard
error. As many workers as there are cores are real ones; more are virtual ones of --machine, whose order of events a clock
invents. A strategy is named NAME or NAME:OPTION=VALUE,OPTION=VALUE.

With --json what was found is written after every training, and what is there of the same question is continued. --table
makes the documentation's table of such files.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from front import NETWORKS, earlier, write

import chaos
from chaos import perfmodel, virtual
from chaos.bench._common import machine
from chaos.errors import ChaosError
from chaos.options import unknown
from chaos.perfmodel import parse_text

SAME = ("model", "epochs", "lr", "machine")  # what rows of one file have in common
ENTRIES = ("chaos", "domains:period=16")


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", metavar="STRATEGY", nargs="*", default=ENTRIES, help=f"default: {' '.join(ENTRIES)}")
    parser.add_argument("--model", default="small", help="mlp (784-256-128-10), or of the zoo (default: small)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs per run (default: 4)")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of the first epoch, x 0.9 per epoch (0.01)")
    parser.add_argument("--seeds", type=int, default=3, help="runs per side (default: 3)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8], help="worker counts (default: 2 8)")
    parser.add_argument("--machine", default="epyc-9654-2s", help="of virtual workers (default: epyc-9654-2s)")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no training later than this")
    parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="print these, and train nothing")
    parser.add_argument("--json", metavar="FILE", help="write what was found there, and continue what is")
    arguments = parser.parse_args(argv)
    if arguments.model not in NETWORKS:
        raise ValueError(unknown("unknown model", arguments.model, NETWORKS))
    return arguments


def error(arguments, data, row, seed):
    """The test error after the last epoch of one training."""
    net = NETWORKS[arguments.model](seed=seed)
    name, options = parse_text(row["strategy"])
    runner = None
    if row["virtual"]:
        times = virtual.nominal(net)
        there = perfmodel.machine_of(perfmodel.read_machine(arguments.machine), times.gflops, row["workers"])
        runner = virtual.Virtual(there, times)
    how = dict(epochs=arguments.epochs, lr=arguments.lr, seed=seed, progress=False, runner=runner)
    run = chaos.train(net, *data, strategy=name, strategy_options=options, workers=row["workers"], **how)
    return run.history[-1]["test_error"]


def compare(row, base):
    """Adds means over the seeds that both have, and the mean of the differences."""
    seeds = min(len(row["errors"]), len(base["errors"]))
    if seeds:
        apart = np.subtract(row["errors"][:seeds], base["errors"][:seeds])
        spread = float(apart.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else None
        row |= {"mean": float(np.mean(row["errors"])), "difference": float(apart.mean()), "standard_error": spread}


def show(row):
    if "mean" in row:
        spread = "" if row["standard_error"] is None else f" +- {100 * row['standard_error']:.2f}"
        kind = "virtual" if row["virtual"] else ""
        each = " ".join(f"{100 * found:.2f}" for found in row["errors"])
        about = f"{row['strategy']:34}{row['workers']:4} {kind:8}"
        print(f"{about}{100 * row['mean']:7.2f} % {100 * row['difference']:+6.2f}{spread:9}  {each}", flush=True)


def table(files):
    """Markdown: a line for each network, differences to sequential in points."""
    found = [json.loads(path.read_text()) for path in files]
    sides = [(row["strategy"], row["workers"]) for row in found[0]["rows"][1:]]
    print(f"| | epochs | seeds | `sequential` | {' | '.join(f'`{name}`, {count} workers' for name, count in sides)} |")
    print(f"|---|{'---:|' * (3 + len(sides))}")
    for one in found:
        base, *rows = one["rows"]
        cells = [f"{100 * row['difference']:+.2f} ± {100 * row['standard_error']:.2f}" for row in rows]
        asked = one["asked"]
        seeds = min(len(row["errors"]) for row in one["rows"])
        print(f"| {asked['model']} | {asked['epochs']} | {seeds} | {100 * base['mean']:.2f} % | {' | '.join(cells)} |")


def main(argv=None):
    arguments = parse(argv)
    if arguments.table:
        return table(arguments.table)
    end = time.monotonic() + (float("inf") if arguments.budget is None else arguments.budget)
    cores = machine()["cores"]
    sides = [("sequential", 1), *((text, workers) for text in arguments.entries for workers in arguments.workers)]
    for text, _ in sides:
        parse_text(text)
    asked = {name: getattr(arguments, name) for name in (*SAME, "seeds")}
    rows = earlier(arguments.json, asked, SAME)
    data = chaos.data.load("mnist", size=NETWORKS[arguments.model]().input_shape[1])
    for text, workers in sides:
        if not any((row["strategy"], row["workers"]) == (text, workers) for row in rows):
            rows.append({"strategy": text, "workers": workers, "virtual": workers > cores, "errors": []})
    for seed in range(arguments.seeds):
        for row in rows:
            if len(row["errors"]) <= seed and time.monotonic() < end:
                row["errors"].append(error(arguments, data, row, seed))
                for each in rows:
                    compare(each, rows[0])
                write(arguments.json, {"asked": asked, "about": machine(), "rows": rows})
                print(
                    f"seed {seed}  {row['strategy']} x {row['workers']}: {row['errors'][-1]:.2%}",
                    file=sys.stderr,
                    flush=True,
                )
    print(f"{arguments.model}, {arguments.epochs} epochs, lr {arguments.lr} x 0.9 per epoch: test error on MNIST")
    for row in rows:
        show(row)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ChaosError) as failure:
        sys.exit(f"accuracy: {failure}")
