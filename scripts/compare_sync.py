#!/usr/bin/env python
"""Synchronisation strategies side by side: speed, epochs and seconds to a target error, final error, staleness.

For anyone who wants to check the README's figures, on a quiet machine. Two parts, over strategies x workers x networks:

speed     images/s of training, in turns (A B A B), so that a drift of the machine meets all; medians over the rounds, and
          the median of the speeds relative to `chaos` in the same round with the same workers
accuracy  full trainings, the same seeds for all (seed s sets the initial weights and the order of the images): the error
          after every epoch on the test set, hence the epochs and seconds until the target is reached, the final error with a
          95 % bootstrap interval over seeds, its difference from `sequential` seed by seed, and the staleness

Before anything is timed each engine is checked: gradients against the definition in float64, one worker against
`sequential` where the strategy promises the same bits, every image visited, staleness within the promised bound.

A strategy is named NAME or NAME:OPTION=VALUE,OPTION=VALUE; besides its own options there are batch_size and lr.
"""

import argparse
import json
import statistics
import sys

import numpy as np

import chaos
from chaos import _core, bench
from chaos.bench._common import CHECKED_IMAGES, RATE, check, run
from chaos.bench._throughput import Case
from chaos.errors import ChaosError
from chaos.models import MODELS
from chaos.sync import STRATEGIES

RESAMPLES = 10_000


class Entry:
    """A strategy with options, as named on the command line."""

    def __init__(self, text, batch_size, lr):
        name, _, rest = text.partition(":")
        if name not in STRATEGIES:
            raise ValueError(f"unknown strategy {name!r}; known: {', '.join(STRATEGIES)}")
        self.text, self.name, self.strategy = text, name, STRATEGIES[name]
        self.batch_size, self.lr, own = batch_size, lr, []
        for pair in filter(None, rest.split(",")):
            key, _, value = pair.partition("=")
            if key in ("batch_size", "lr"):
                try:
                    setattr(self, key, int(value) if key == "batch_size" else float(value))
                except ValueError:
                    raise ValueError(f"{key} must be a number, not {value!r}") from None
            else:
                own.append(pair)
        self.options = self.strategy.parse(own)
        self.resolved = self.strategy.resolve(self.options)

    def engine(self, net, workers, **others):
        return _core.Engine(
            net.plan,
            net.weights,
            workers=workers,
            strategy=self.name,
            batch_size=self.batch_size,
            stripe_bytes=self.resolved["stripe_bytes"],
            max_staleness=self.resolved.get("max_staleness"),
            strategy_options=self.strategy.core_options(self.resolved),
            **others,
        )

    def fits(self, workers):
        return workers == 1 or not self.strategy.single


class Speed(Case):
    """One strategy's speed, measured as chaos.bench measures."""

    def __init__(self, entry, model, workers, images):
        super().__init__(model, workers, entry.batch_size, entry.name, images=images)
        self.entry = entry
        self.what = f"{entry.text} on {model} with {workers} workers"
        self.engine = entry.engine(self.net, workers)
        self.check()

    def check(self):
        """ChaosError unless the engine does what the strategy promises."""
        images, labels = self.images, self.labels
        check(self.net, self.what, images, labels, self.batch_size)
        n = max(16 * CHECKED_IMAGES, 2 * self.threads.workers * self.batch_size)
        order, arguments = np.arange(n) % len(labels), dict(inputs=[images.reshape(-1)], labels=labels, lr=RATE)
        found, _ = run(self.engine, self.what, "train", n, order=order, **arguments)
        if sum(found["worker_images"]) != n:
            raise ChaosError(f"{self.what}: the workers counted {sum(found['worker_images'])} of {n} images")
        most = self.entry.strategy.most_stale(self.entry.resolved, self.threads.workers)
        if most is not None and found["staleness_max"] > most:
            raise ChaosError(f"{self.what}: staleness {found['staleness_max']}, {most} is promised")
        if not np.isfinite(self.net.weights).all():
            raise ChaosError(f"{self.what}: a weight is not finite")
        if self.entry.strategy.equals_sequential and not self.entry.options:
            weights = []
            for how in (self.entry, Entry("sequential", self.batch_size, self.entry.lr)):
                net = MODELS[self.name](seed=0)
                run(how.engine(net, 1), self.what, "train", n, order=order, **arguments)
                weights.append(net.weights.tobytes())
            if weights[0] != weights[1]:
                raise ChaosError(f"{self.what}: one worker does not equal sequential, which is promised")

    def figures(self):
        found = self.result()
        updates = max(1, sum(counts["updates"] for counts in self.counts))
        return {
            "images_per_second": found["images_per_second"],
            "us_per_image": found["us_per_image"],
            "us_per_image_min": found["us_per_image_min"],
            "us_per_image_max": found["us_per_image_max"],
            "fraction_of_peak": found["fraction_of_peak"],
            "oversubscribed": found["oversubscribed"],
            "images_per_round": found["images_per_repeat"],
            "staleness_mean": sum(counts["staleness_sum"] for counts in self.counts) / updates,
            "lock_failures_per_image": sum(c["lock_failures"] for c in self.counts) / (self.count * len(self.counts)),
            "wait": _share(self.counts, "wait"),
            "publish": _share(self.counts, "publish"),
        }


def _share(counts, part):
    total = sum(c["time"]["total"] for c in counts)
    return sum(c["time"][part] for c in counts) / total if total else None


def interval(values, rng):
    """(mean, lower, upper): 95 % percentile bootstrap of the mean over seeds; None for bounds of a single seed."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), None, None
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
    return float(values.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))


def reached(history, target):
    """(epochs, seconds of training) until the test error is at most the target, (None, None) if it never is."""
    seconds = 0.0
    for record in history:
        seconds += record["seconds"]
        if record["test_error"] <= target:
            return record["epoch"], seconds
    return None, None


def accuracy(histories, base, target, rng):
    """The figures of one row from its histories, one per seed, and those of `sequential`."""
    final = [history[-1]["test_error"] for history in histories]
    there = [reached(history, target) for history in histories]
    epochs, seconds = ([value for value in column if value is not None] for column in zip(*there, strict=True))
    last = [history[-1]["staleness"] for history in histories]
    found = {
        "final_errors": final,
        "reached": len(epochs),
        "seeds": len(final),
        "epochs_to_target": statistics.median(epochs) if epochs else None,
        "seconds_to_target": statistics.median(seconds) if seconds else None,
        "staleness": {
            "mean": float(np.mean([s["mean"] for s in last])),
            "p99": max(s["p99"] for s in last),
            "max": max(s["max"] for s in last),
        },
        "errors_per_epoch": [[record["test_error"] for record in history] for history in histories],
        "seconds_per_epoch": [[record["seconds"] for record in history] for history in histories],
    }
    found["final_error"] = dict(zip(("mean", "low", "high"), interval(final, rng), strict=True))
    differences = np.array(final) - [history[-1]["test_error"] for history in base]
    found["difference"] = dict(zip(("mean", "low", "high"), interval(differences, rng), strict=True))
    return found


def measure_speed(cases, args, say):
    images, speeds = {}, {}
    for key in cases:
        speeds[key] = Speed(key[1], key[0], key[2], images)
        say(f"checked {speeds[key].what}")
    for speed in speeds.values():
        speed.prepare(args.seconds)
    for number in range(args.rounds):
        for speed in speeds.values():
            speed.measure()
        say(f"round {number + 1} of {args.rounds}")
    found = {key: speed.figures() for key, speed in speeds.items()}
    chaos_us = {(key[0], key[2]): speed.us for key, speed in speeds.items() if key[1].text == "chaos"}
    for key, speed in speeds.items():
        base = chaos_us.get((key[0], key[2]))
        found[key]["of_chaos"] = base and statistics.median(a / b for a, b in zip(base, speed.us, strict=True))
    return found


def measure_accuracy(cases, args, say):
    data, histories = {}, {key: [] for key in cases}
    for seed in range(args.seeds):
        for key in cases:  # seeds outermost: a drift of the machine meets all
            model, entry, workers = key
            net = MODELS[model](seed=seed)
            if net.input_shape not in data:
                train, test = chaos.data.load(args.data, size=net.input_shape[1:])
                data[net.input_shape] = train[: args.images], test
            try:
                history = chaos.train(
                    net,
                    *data[net.input_shape],
                    strategy=entry.name,
                    strategy_options=entry.options,
                    workers=workers,
                    epochs=args.epochs,
                    lr=entry.lr,
                    lr_decay=args.lr_decay,
                    batch_size=entry.batch_size,
                    seed=seed,
                    progress=False,
                ).history
            except chaos.DivergedError as error:
                say(f"seed {seed}  {model}  {entry.text}  {workers} workers: {error}")
                history = None
            else:
                say(
                    f"seed {seed}  {model}  {entry.text}  {workers} workers: {history[-1]['test_error']:.2%}, "
                    f"{sum(record['seconds'] for record in history):.1f} s"
                )
            histories[key].append(history)
    rng, rows = np.random.default_rng(0), {}
    bases = {model: histories[model, entry, workers] for model, entry, workers in cases if entry.text == "sequential"}
    for key in cases:
        if None in histories[key] or None in bases[key[0]]:
            rows[key] = {"diverged": sum(history is None for history in histories[key])}
        else:
            rows[key] = accuracy(histories[key], bases[key[0]], args.target, rng)
    return rows


def table(rows, target):
    """The rows as text."""

    def number(value, form):
        return "-" if value is None else format(value, form)

    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        lines += [
            "",
            model,
            f"{'strategy':34}{'workers':>8}{'images/s':>11}{'us/image':>17}{'of chaos':>10}{'wait':>7}"
            f"{'stale':>8}{'p99':>5}{'final error':>23}{'difference':>25}"
            f"{f'to {target:.1%}: epochs':>17}{'s':>8}{'seeds':>7}",
        ]
        for row in (row for row in rows if row["model"] == model):
            s, a = row.get("speed") or {}, row.get("accuracy") or {}
            stale = a["staleness"]["mean"] if "staleness" in a else s.get("staleness_mean")
            span = "-" if not s else f"{s['us_per_image_min']:.1f}..{s['us_per_image_max']:.1f}"
            line = (
                f"{row['strategy']:34}{row['workers']:8}{number(s.get('images_per_second'), ',.0f'):>11}{span:>17}"
                f"{number(s.get('of_chaos'), '.1%'):>10}"
                f"{number(s.get('wait'), '.1%'):>7}{number(stale, '.2f'):>8}"
                f"{number(a['staleness']['p99'] if 'staleness' in a else None, 'd'):>5}"
            )
            if "diverged" in a:
                line += f"{'diverged':>23}" if a["diverged"] else f"{'sequential diverged':>23}"
            elif a:
                for name, form in (("final_error", ".2%"), ("difference", "+.2%")):
                    low, high = (number(a[name][end], form) for end in ("low", "high"))
                    line += f"{format(a[name]['mean'], form) + f' [{low}, {high}]':>{23 if name == 'final_error' else 25}}"
                line += (
                    f"{number(a['epochs_to_target'], '.3g'):>17}{number(a['seconds_to_target'], '.1f'):>8}"
                    f"{a['reached']:>4}/{a['seeds']}"
                )
            lines.append(line + ("  (more workers than cores)" if row["oversubscribed"] else ""))
    return "\n".join(lines[1:])


def plot(rows, path):
    """Speed and final error of each strategy, and errors over the epochs beyond sequential's; .svg, .png or .html."""
    from chaos import report

    report.write(report.measurements_report({"rows": rows}), path)


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--strategies",
        nargs="+",
        metavar="NAME[:OPTION=VALUE,...]",
        default=list(STRATEGIES),
        help="default: all, as they are by default; `sequential` is always there",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["small", "medium", "large"],
        choices=MODELS,
        metavar="MODEL",
        help="networks (default: small medium large)",
    )
    parser.add_argument("--workers", type=int, nargs="+", help="worker counts (default: 1, as many as there are cores, 4)")
    parser.add_argument("--data", default="mnist", help="data set of the trainings (default: mnist)")
    parser.add_argument("--images", type=int, metavar="N", help="train on the first N images only")
    parser.add_argument("--seeds", type=int, default=5, help="trainings per row; 0: no accuracy part (default: 5)")
    parser.add_argument("--epochs", type=int, default=4, help="per training (default: 4)")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of the first epoch (default: 0.01)")
    parser.add_argument("--lr-decay", type=float, default=0.9, help="its factor per epoch (default: 0.9)")
    parser.add_argument("--batch-size", type=int, default=1, help="images per update (default: 1)")
    parser.add_argument("--target", type=float, default=0.03, help="test error to reach (default: 0.03)")
    parser.add_argument("--rounds", type=int, default=7, help="repeats of each timing; 0: no speed part (default: 7)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a repeat (default: 1)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few minutes: small, 2 seeds of 10000 images, 3 short rounds; what is given explicitly stays",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--plot", metavar="FILE", help="draw speed and error over time (.svg, .png, ...; needs matplotlib)")
    if "--quick" in (sys.argv[1:] if given is None else given):
        parser.set_defaults(models=["small"], seeds=2, images=10_000, rounds=3, seconds=0.3, epochs=2)
    args = parser.parse_args(given)
    cores = chaos.info()["topology"]["cores"]
    args.workers = sorted(set(args.workers or (1, cores, 4)))
    try:
        args.entries = [Entry(text, args.batch_size, args.lr) for text in dict.fromkeys(["sequential", *args.strategies])]
    except ValueError as error:
        parser.error(str(error))
    for name, least in (("seeds", 0), ("rounds", 0), ("epochs", 1), ("batch_size", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(args, name)}")
    if min(args.workers) < 1 or not args.seconds > 0:
        parser.error("--workers and --seconds must be more than 0")
    return args


def main(given=None):
    args = arguments(given)

    def say(line):
        print(line, file=sys.stderr, flush=True)

    record = bench.machine()
    cases = [
        (model, entry, workers)
        for model in args.models
        for entry in args.entries
        for workers in ([1] if entry.strategy.single else args.workers)
    ]
    speed = measure_speed(cases, args, say) if args.rounds else {}
    found = measure_accuracy(cases, args, say) if args.seeds else {}
    rows = [
        {
            "model": key[0],
            "strategy": key[1].text,
            "workers": key[2],
            "batch_size": key[1].batch_size,
            "lr": key[1].lr,
            "options": key[1].resolved,
            "oversubscribed": key[2] > record["cores"],
            "speed": speed.get(key),
            "accuracy": found.get(key),
        }
        for key in cases
    ]
    settings = {name: value for name, value in vars(args).items() if name not in ("entries", "json", "plot")}
    print(
        f"{record['cpu']}, {record['cores']} cores, {chaos.info()['isa']}, chaos {record['chaos']} ({record['commit']}), "
        f"load {record['load_average']}"
    )
    print(
        f"final error: {args.epochs} epochs, mean over {args.seeds} seeds [95 % bootstrap interval]; difference from "
        f"sequential, seed by seed"
    )
    print(table(rows, args.target))
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"settings": settings, "isa": chaos.info()["isa"], "machine": record, "rows": rows}, file, indent=1)
            file.write("\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
