#!/usr/bin/env python
"""Speed against error on a machine with many cores, strategy by strategy: trainings with virtual workers.

For anyone who asks which strategy a machine is to train with. Each entry is trained with the same seeds (seed s sets initial
weights, order of images and the clock) beside `sequential` on one worker of the same machine; told are images per second of
the virtual machine over sequential's, the error after every epoch, and the speed-up of the time until the error is at
most sequential's last one plus a margin: epochs of sequential / epochs needed x the ratio of speeds, None where it is not
reached.

A strategy is named NAME or NAME:OPTION=VALUE,OPTION=VALUE.
"""

import argparse
import json
import statistics
import sys

import numpy as np

import chaos
from chaos import perfmodel, virtual
from chaos.bench._common import machine
from chaos.cli.simulate import machine_of
from chaos.errors import ChaosError
from chaos.models import MODELS
from chaos.options import unknown
from chaos.sync import STRATEGIES

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


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("entries", metavar="STRATEGY", nargs="*", default=ENTRIES, help="by default a selection of all")
    parser.add_argument("--model", default="small", help="of the zoo (default: small)")
    parser.add_argument("--machine", default="epyc-9654-2s", help="as chaos estimate knows it (default: epyc-9654-2s)")
    parser.add_argument("--workers", type=int, default=192)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--subset", type=int, help="only the first N training images")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--margin", type=float, default=0.002, help="of the error (default: 0.002, 0.2 points)")
    parser.add_argument("--json", metavar="FILE", help="write what was found there")
    return parser.parse_args(argv)


def train(arguments, data, text, workers):
    """What one entry gives: errors {seed: [...]}, images per second."""
    name, _, rest = text.partition(":")
    options = STRATEGIES[name].parse(filter(None, rest.split(",")))
    errors, speed = [], []
    for seed in range(arguments.seeds):
        net = MODELS[arguments.model](seed=seed)
        times = virtual.nominal(net)
        runner = virtual.Virtual(machine_of(perfmodel.read_machine(arguments.machine), times, workers), times)
        try:
            run = chaos.train(
                net,
                *data,
                strategy=name,
                strategy_options=options,
                workers=workers,
                epochs=arguments.epochs,
                lr=arguments.lr,
                seed=seed,
                progress=False,
                runner=runner,
            )
        except chaos.DivergedError as error:
            return {"strategy": text, "diverged": f"seed {seed}: {error}"}
        errors.append([record["test_error"] for record in run.history])
        speed.append(run.history[-1]["images_per_second"])
    return {"strategy": text, "errors": errors, "images_per_second": statistics.median(speed)}


def compare(found, base, margin):
    """Adds speed-ups over `base`, of images and of the time to its last error plus the margin (means over seeds)."""
    if "diverged" in found:
        return found
    goal = np.mean(base["errors"], axis=0)[-1] + margin
    mean = np.mean(found["errors"], axis=0)
    ratio = found["images_per_second"] / base["images_per_second"]
    reached = np.flatnonzero(mean <= goal)
    first = np.flatnonzero(np.mean(base["errors"], axis=0) <= goal)[0]
    to_error = None if not len(reached) else float(ratio * (first + 1) / (reached[0] + 1))
    return found | {"speedup": float(ratio), "last_error": float(mean[-1]), "speedup_to_error": to_error}


def main(argv=None):
    arguments = parse(argv)
    for text in arguments.entries:
        if (name := text.partition(":")[0]) not in STRATEGIES:
            raise ValueError(unknown("unknown strategy", name, STRATEGIES))
    if arguments.model not in MODELS:
        raise ValueError(unknown("unknown model", arguments.model, MODELS))
    train_set, test = chaos.data.load(arguments.data, size=MODELS[arguments.model]().input_shape[1])
    data = (train_set[: arguments.subset] if arguments.subset else train_set, test)
    base = train(arguments, data, "sequential", 1)
    rows = [compare(base, base, arguments.margin)]
    print(f"{'strategy':62}{'images/s':>9}{'error':>9}{'to error':>10}")
    for text in arguments.entries:
        rows.append(compare(train(arguments, data, text, arguments.workers), base, arguments.margin))
        row = rows[-1]
        if "diverged" in row:
            print(f"{text:62} {row['diverged']}")
            continue
        reached = "never" if row["speedup_to_error"] is None else f"{row['speedup_to_error']:.1f}x"
        print(f"{text:62}{row['speedup']:8.1f}x{100 * row['last_error']:8.2f}%{reached:>10}", flush=True)
    if arguments.json:
        asked = {name: getattr(arguments, name) for name in vars(arguments) if name not in ("json", "entries")}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"asked": asked, "about": machine(), "rows": rows}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ChaosError) as error:
        sys.exit(f"front: {error}")
