#!/usr/bin/env python
"""How wrong chaos estimate is on this machine: calibrates, then holds predictions to measurements made apart from that.

For anyone who wants to check the README's figures, on a quiet machine. Each network and batch size is measured several times
with one and with two workers; before each measurement it is found out how far the cores are from each other, which a virtual
machine may change, and what a line of weights costs at a distance that is new is calibrated. All errors are listed, then the
median of each row's rounds. Exit status 1 if a median, of rounds that nothing disturbed, exceeds the limit, or rounds are
missing.

With --json the figures are written after every measurement, and those that are there are continued until there are as many
rounds as wanted; --budget ends a run early, so that it can be done in parts. --calibrate begins anew, which has to be done
when the core has changed.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from chaos import bench, perfmodel
from chaos.formats.atomic import write_atomically
from chaos.models import MODELS
from chaos.perfmodel.estimate import errors, where

ROW = ("model", "batch_size", "workers")
ATTEMPTS = 3  # per wanted round, on a machine that is not quiet


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="networks (default: all)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="images per update (default: 1 8)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements that predictions are held to (default: 3)")
    parser.add_argument("--seconds", type=float, default=0.4, help="length of one repeat of a measurement (default: 0.4)")
    parser.add_argument("--limit", type=float, default=0.10, help="largest error (default: 0.10)")
    parser.add_argument("--calibrate", action="store_true", help="measure everything again, whatever is known")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="begin no measurement later than this; a part of 25 takes a minute at most on a quiet machine",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE, and continue those that are there")
    args = parser.parse_args()
    end = time.monotonic() + (args.budget or float("inf"))
    path = args.json and Path(args.json)
    calibration = perfmodel.Calibration(seconds=args.seconds, say=lambda line: print(line, file=sys.stderr, flush=True))
    rows = []
    if args.calibrate:
        calibration.forget()
    else:
        calibration.load()
        if path and path.exists():
            rows = json.loads(path.read_text())["errors"]
    record = bench.machine()
    print(f"{'model':8}{'batch':>6}{'workers':>8}{'measured':>10}{'predicted':>11}{'error':>8}   us/image; the cores then")
    cases = [(model, size) for size in args.batch_sizes for model in args.models]
    for _ in range(ATTEMPTS * args.rounds):
        for model, size in cases:
            if not missing(rows, model, size, args.rounds) or not prepare(calibration, model, size, end):
                continue
            found = errors(calibration, model, size, again=True)
            quiet = calibration.quiet(model, size) and all(error["quiet"] for error in found)
            for error in found:
                rows.append(
                    {
                        "model": model,
                        "batch_size": size,
                        **error,
                        "quiet": quiet,
                        "where": where("within_domain_ns", error["hop_ns"]),
                    }
                )
                show(rows[-1])
            if path:
                save(path, calibration, record, rows, args.limit)
            calibration.load()  # without what was spoiled
    print("\nmedians over rounds that nothing disturbed, by where the cores were")
    worst = 0.0
    for row in summary(rows):
        show(row)
        worst = max(worst, abs(row["error"]))
    left = sum(missing(rows, *case, args.rounds) for case in cases)
    print(
        f"largest error of a median: {worst:.1%}"
        + (f"; {left} rounds are missing: once more, without --calibrate" if left else "")
    )
    return worst > args.limit or left > 0


def prepare(calibration, model, size, end):
    """Measures what the prediction needs; whether that, and time to hold it to something, was possible before the end."""
    for measure in (
        lambda: calibration.figures(model, size),
        lambda: calibration.figures(model),
        lambda: calibration.transfer(model),
    ):
        if time.monotonic() > end:
            return False
        measure()
    return time.monotonic() <= end


def missing(rows, model, size, wanted):
    """How many rounds are still wanted."""
    return max(
        0,
        wanted
        - sum(row["quiet"] for row in rows if (row["model"], row["batch_size"]) == (model, size) and row["workers"] == 1),
    )


def show(row):
    """One line."""
    notes = [row["where"]]
    if row["workers"] > 1 and row["hop_ns"]:
        notes[0] += f", {row['hop_ns']:.0f} ns to hand over a line, {row['line_ns']:.3g} ns per line of weights"
    if row["workers"] > 1 and row["rescaled"] != 1:
        notes.append(f"rescaled by {row['rescaled']:.2f}")
    if not row["quiet"]:
        notes.append("disturbed")
    if "rounds" in row:
        notes.append(f"{row['rounds']} rounds, {row['error_min']:+.1%} to {row['error_max']:+.1%}")
    print(
        f"{row['model']:8}{row['batch_size']:6}{row['workers']:8}{row['measured_us']:10.2f}{row['predicted_us']:11.2f}"
        f"{row['error']:+8.1%}   {'; '.join(notes)}",
        flush=True,
    )


def summary(rows):
    """For each network, batch size, number of workers and, of two, place of the cores: the round of the median error."""
    groups = {}
    for row in rows:
        if row["quiet"]:
            place = row["where"] if row["workers"] > 1 else "any"
            groups.setdefault((*(row[key] for key in ROW), place), []).append(row)
    found = []
    for key, group in sorted(groups.items(), key=lambda item: (list(MODELS).index(item[0][0]), item[0][1:])):
        middle = sorted(group, key=lambda row: row["error"])[(len(group) - 1) // 2]
        found.append(
            {
                **middle,
                "where": key[-1],
                "rounds": len(group),
                "error_min": min(row["error"] for row in group),
                "error_max": max(row["error"] for row in group),
                "measured_us": statistics.median(row["measured_us"] for row in group),
            }
        )
        found[-1]["error"] = found[-1]["predicted_us"] / found[-1]["measured_us"] - 1
    return found


def save(path, calibration, record, rows, limit):
    """The calibration, all errors and the table of medians."""
    document = {"machine": record, "limit": limit, "table": summary(rows), "errors": rows, "calibration": calibration.found}
    write_atomically(path, json.dumps(document, indent=1).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
