#!/usr/bin/env python
"""Speed against error on a machine with many cores, strategy by strategy: trainings with virtual workers.

For anyone who asks which strategy a machine is to train with. Each entry is trained with the same seeds (seed s sets initial
weights, order of images and the clock) beside `sequential` on one worker of the same machine; told are images per second of
the virtual machine over sequential's, the error after every epoch, and the speed-up of the time until the error is at
most sequential's last one plus a margin: epochs of sequential / epochs needed x the ratio of speeds, None where it is not
reached.

A strategy is named NAME or NAME:OPTION=VALUE,OPTION=VALUE, and ";lr=0.005", ";epochs=9", ";workers=64", ";batch_size=4"
behind that say what is different for it alone. With --json what was found is written after every training, and what is there
of the same question is continued: more entries, more seeds, or what --budget left. --table tells, of several such files,
what is the soonest at sequential's error.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

import chaos
from chaos import perfmodel, virtual
from chaos.bench._common import machine
from chaos.errors import ChaosError
from chaos.formats.atomic import write_atomically
from chaos.models import MODELS
from chaos.options import unknown

STRIPES = "stripe_bytes=1024"
ENTRIES = (
    f"chaos:{STRIPES}",
    f"chaos:read=publication,{STRIPES}",
    f"replicated:group=8,{STRIPES}",
    f"elastic:period=32,{STRIPES}",
    f"averaging:period=32,{STRIPES}",
    f"domains:group=8,period=8,mix=0.3,{STRIPES}",
    f"domains:group=8,period=16,mix=0.3,{STRIPES}",
    f"domains:group=8,period=32,mix=0.3,{STRIPES}",
    f"domains:group=8,period=16,mix=0.15,{STRIPES}",
    f"domains:group=8,period=16,mix=0.5,{STRIPES}",
)


SAME = ("model", "machine", "workers", "data", "subset", "normalise", "epochs", "lr")  # what rows of one file have in common


def mlp(seed=0):
    """784-256-128-10 with ReLU, which is not in the zoo."""
    layers = [chaos.Flatten(), chaos.Linear(256), chaos.ReLU(), chaos.Linear(128), chaos.ReLU(), chaos.Linear(10)]
    return chaos.Network((1, 28, 28), layers, seed=seed)


IMAGES = 60_000  # of MNIST
NETWORKS = {"mlp": mlp, **MODELS}


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("entries", metavar="STRATEGY", nargs="*", default=ENTRIES, help="by default a selection of all")
    parser.add_argument("--model", default="small", help="mlp (784-256-128-10), or of the zoo (default: small)")
    parser.add_argument("--machine", default="epyc-9654-2s", help="as chaos estimate knows it (default: epyc-9654-2s)")
    parser.add_argument("--workers", type=int, default=192)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--subset", type=int, help="only the first N training images")
    parser.add_argument("--normalise", action="store_true", help="images to mean 0 and deviation 1 (chaos.normalise)")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--margin", type=float, default=0.002, help="of the error (default: 0.002, 0.2 points)")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no training later than this")
    parser.add_argument("--table", nargs="+", metavar="FILE", help="print these, and train nothing")
    parser.add_argument("--json", metavar="FILE", help="write what was found there, and continue what is")
    return parser.parse_args(argv)


def parse_entry(arguments, text):
    """The strategy as text, and {lr, epochs, workers, batch_size} of an entry."""
    strategy, *own = text.split(";")
    how = {"lr": arguments.lr, "epochs": arguments.epochs, "workers": arguments.workers, "batch_size": 1}
    for one in own:
        name, _, value = one.partition("=")
        if name not in how:
            raise ValueError(unknown(f"unknown setting of {text!r}", name, how))
        how[name] = type(how[name])(value)
    return strategy, how | ({"workers": 1} if strategy == "sequential" else {})


def train(arguments, data, text, seed):
    """The errors of one training after each epoch, and its images per second."""
    strategy, how = parse_entry(arguments, text)
    name, options = perfmodel.parse_text(strategy)
    net, workers = NETWORKS[arguments.model](seed=seed), how["workers"]
    if arguments.normalise:
        net = chaos.normalise(net, *data[0].mean_std())
    times = virtual.nominal(net)
    there = perfmodel.machine_of(perfmodel.read_machine(arguments.machine), times.gflops, workers)
    run = chaos.train(
        net,
        *data,
        strategy=name,
        strategy_options=options,
        **how,
        seed=seed,
        progress=False,
        runner=virtual.Virtual(there, times),
    )
    return [record["test_error"] for record in run.history], run.history[-1]["images_per_second"]


def complete(arguments, data, row, save):
    """Trains what `row` lacks of the seeds that were asked for."""
    for seed in range(len(row.setdefault("errors", [])), arguments.seeds):
        if "diverged" in row or time.monotonic() > arguments.end:
            return
        try:
            errors, speed = train(arguments, data, row["strategy"], seed)
        except chaos.DivergedError as error:
            row["diverged"] = f"seed {seed}: {error}"
        else:
            row["errors"].append(errors)
            row["images_per_second"] = (row.get("images_per_second", 0.0) * seed + speed) / (seed + 1)  # the mean
        save()


def compare(row, base, margin):
    """Adds speed-ups over `base`, of images and of the time to its last error plus the margin (means over seeds of both)."""
    seeds = min(len(row["errors"]), len(base["errors"]))
    if "diverged" in row or not seeds:
        return
    alone, mean = (np.mean(found["errors"][:seeds], axis=0) for found in (base, row))
    goal = alone[-1] + margin
    ratio = row["images_per_second"] / base["images_per_second"]
    reached, first = np.flatnonzero(mean <= goal), np.flatnonzero(alone <= goal)[0]
    to_error = None if not len(reached) else float(ratio * (first + 1) / (reached[0] + 1))
    row |= {"speedup": float(ratio), "last_error": float(mean[-1]), "speedup_to_error": to_error, "seeds": seeds}


def earlier(path, asked, same=SAME):
    """The rows in a file, if it answers the same question; ValueError otherwise."""
    if not path or not Path(path).exists():
        return []
    found = json.loads(Path(path).read_text())
    if different := [name for name in same if found["asked"].get(name, False) != asked[name]]:
        name = different[0]
        raise ValueError(f"{path} was made with {name} {found['asked'].get(name)}, not {asked[name]}: name another file")
    return found["rows"]


def write(path, document):
    """If there is a path."""
    if path:
        write_atomically(path, json.dumps(document, indent=1).encode() + b"\n")


def predict(arguments, asked, rows):
    """What chaos estimate --plan says of the same question, strategy by strategy, those that are trained among them."""
    net = NETWORKS[arguments.model]()
    found = perfmodel.Predictor(net, arguments.machine, "nominal", arguments.subset or IMAGES, name=arguments.model)
    texts = {text.partition(";")[0] for text in (*arguments.entries, *(row["strategy"] for row in rows))}
    known = {"asked": asked, "rows": [{"strategy": text, "last_error": None} for text in texts]}
    keys = ("strategy", "batch_size", "speedup", "images_behind", "staleness", "shares", "best")
    rows = [{key: row[key] for key in keys} for row in perfmodel.plan(found, arguments.workers, known)["rows"]]
    for row in rows:
        row["strategy"] += f";batch_size={row['batch_size']}" if row["batch_size"] > 1 else ""
    return rows


def show(row):
    if "diverged" in row:
        print(f"{row['strategy']:78} {row['diverged']}", flush=True)
    elif "speedup" in row:
        reached = "never" if row["speedup_to_error"] is None else f"{row['speedup_to_error']:.1f}x"
        error = f"{100 * row['last_error']:8.2f}%"
        print(f"{row['strategy']:78}{row['speedup']:8.1f}x{error}{reached:>10}{row['seeds']:6}", flush=True)


def table(files):
    """Markdown: of each file the row that reaches the error soonest, or that comes nearest to it."""
    heads = ("", "images", "seeds", "`sequential`", "what is soonest", "images/s, over one worker", "error", "to the error")
    print(f"| {' | '.join(heads)} |\n|---|---:|---:|---|---|---:|---:|---:|")
    for path in files:
        found = json.loads(Path(path).read_text())
        asked, (base, *rows) = found["asked"], (row for row in found["rows"] if "speedup" in row)
        best = max(rows, key=lambda row: (row["speedup_to_error"] or 0, -row["last_error"]))
        strategy, how = parse_entry(argparse.Namespace(**asked), best["strategy"])
        told = [f"{how['workers']} workers", f"learning rate {how['lr']:g}"]
        told += [f"{how['batch_size']} images an update"] * (how["batch_size"] > 1) + [f"{how['epochs']} epochs"]
        goal = 100 * (base["last_error"] + asked["margin"])
        reached = best["speedup_to_error"]
        cells = [
            asked["model"] + (", normalised" if asked.get("normalise") else ""),
            f"{asked['subset'] or IMAGES:,}",
            str(min(len(best["errors"]), len(base["errors"]))),
            f"{100 * base['last_error']:.2f} % after {asked['epochs']} epochs",
            f"`{strategy}`, {', '.join(told)}",
            f"{best['speedup']:.0f}",
            f"{100 * best['last_error']:.2f} %",
            f"never {goal:.2f} %" if reached is None else f"{reached:.0f} times as fast",
        ]
        print(f"| {' | '.join(cells)} |")


def main(argv=None):
    arguments = parse(argv)
    if arguments.table:
        return table(arguments.table)
    arguments.end = time.monotonic() + (float("inf") if arguments.budget is None else arguments.budget)
    for text in arguments.entries:
        perfmodel.parse_text(parse_entry(arguments, text)[0])
    if arguments.model not in NETWORKS:
        raise ValueError(unknown("unknown model", arguments.model, NETWORKS))
    asked = {name: getattr(arguments, name) for name in (*SAME, "seeds", "margin")}
    rows = earlier(arguments.json, asked)
    train_set, test = chaos.data.load(arguments.data, size=NETWORKS[arguments.model]().input_shape[1])
    data = (train_set[: arguments.subset] if arguments.subset else train_set, test)

    expected = predict(arguments, asked, rows)

    def save():
        for row in rows:
            compare(row, rows[0], arguments.margin)
        write(arguments.json, {"asked": asked, "about": machine(), "rows": rows, "plan": expected})

    print(f"{'strategy':78}{'images/s':>9}{'error':>9}{'to error':>10}{'seeds':>6}")
    for text in ("sequential", *arguments.entries):
        row = next((row for row in rows if row["strategy"] == text), None)
        if row is None:
            rows.append(row := {"strategy": text})
        complete(arguments, data, row, save)
        save()
        show(row)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ChaosError) as error:
        sys.exit(f"front: {error}")
