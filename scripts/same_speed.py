#!/usr/bin/env python
"""Whether two installations of chaos are as fast: scripts/same_speed.py OLD_PYTHON NEW_PYTHON [--json FILE]

For anyone who rebuilds something that must not become slower, on a quiet machine. Three networks x 1, 2 workers x batch
sizes 1, 8: a process of each installation trains in turns (A B B A ...), each turn one epoch; the figures are medians of
microseconds per image, the median over pairs of turns of new / old with its 95 % bootstrap interval, and new / old of the
fastest turns. Before that, one epoch with one worker must give the same weights with both; where it does not, the table says
so. Turns that took more than twice the median are told about, not left out. The exit status says nothing about speed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from turns import Side, extra, pairs  # noqa: E402


def measure(sides, net, workers, batch_size, args):
    """The figures of one row."""
    case = {"net": net, "workers": workers, "batch_size": batch_size}
    digests = [side.ask(do="digest", net=net, batch_size=batch_size) for side in sides]
    images = 200
    for _ in range(8):  # until a turn is as long as asked for
        sides[0].ask(do="case", **case, images=images)
        took = min(sides[0].ask(do="turn") for _ in range(2))
        if took > 0.7 * args.seconds:
            break
        images = int(images * min(10, args.seconds / took)) + 1
    for side in sides:
        side.ask(do="case", **case, images=images)
        side.ask(do="turn")
    found = [
        (new / images * 1e6, old / images * 1e6)
        for new, old in pairs((sides[1], sides[0]), args.rounds, lambda side: side.ask(do="turn"))
    ]
    ratio = [1 + part for part in extra(found)]
    us = {name: [pair[place] for pair in found] for place, name in ((1, "old"), (0, "new"))}
    return case | {
        "images": images,
        "same_bits": digests[0] == digests[1],
        **{name: statistics.median(values) for name, values in us.items()},
        "ratio": dict(zip(("median", "low", "high"), ratio, strict=True)),
        "fastest": min(us["new"]) / min(us["old"]),
        "outliers": sum(one > 2 * statistics.median(values) for values in us.values() for one in values),
        "us_per_image": us,
    }


def table(rows, limit):
    """Markdown."""
    lines = ["| network | workers | batch | old, us/image | new | new / old | 95 % interval | of the fastest | same bits |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        ratio = row["ratio"]
        shown = f"{ratio['median']:.3f}"
        lines.append(
            f"| {row['net']} | {row['workers']} | {row['batch_size']} | {row['old']:.2f} | {row['new']:.2f} | "
            f"{f'**{shown}**' if abs(ratio['median'] - 1) > limit else shown} | {ratio['low']:.3f} .. {ratio['high']:.3f} | "
            f"{row['fastest']:.3f} | {'yes' if row['same_bits'] else '**no**'} |"
        )
    return "\n".join(lines)


def main(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD_PYTHON", help="Python of the environment with the old installation")
    parser.add_argument("new", metavar="NEW_PYTHON", help="Python of the one with the new installation")
    parser.add_argument("--models", nargs="+", default=["small", "medium", "large"], help="default: small medium large")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="default: 1 8")
    parser.add_argument("--strategy", default="chaos", help="default: chaos")
    parser.add_argument("--isa", metavar="NAME", help="instruction set (default: the best one here)")
    parser.add_argument("--rounds", type=int, default=40, help="pairs of turns (default: 40)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn (default: 0.2)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args(given)
    pythons = [os.path.abspath(python) if os.sep in python else python for python in (args.old, args.new)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env |= {"CHAOS_ISA": args.isa} if args.isa else {}
    load, rows = os.getloadavg(), []
    with tempfile.TemporaryDirectory() as elsewhere:  # where no folder is called chaos
        words = ["-P", HERE / "same_turns.py", args.strategy]
        with (
            Side([pythons[0], *words], cwd=elsewhere, env=env) as old,
            Side([pythons[1], *words], cwd=elsewhere, env=env) as new,
        ):
            facts = {name: side.ask(do="describe") for name, side in (("old", old), ("new", new))}
            for net in args.models:
                for workers in args.workers:
                    for batch_size in args.batch_sizes:
                        rows.append(measure((old, new), net, workers, batch_size, args))
                        print(table(rows[-1:], 0.02).splitlines()[-1], file=sys.stderr, flush=True)
    told = facts["new"]
    names = {name: f"{one['chaos']} ({one['commit'] or 'no commit'}, {one['isa']})" for name, one in facts.items()}
    print(
        f"Old: chaos {names['old']}, new: chaos {names['new']}; {told['cpu']}, {told['cores']} cores, "
        f"{' '.join(f'{key}={value}' for key, value in told['threads'].items()) or 'threads as they are by default'}, "
        f"load before {load[0]:.2f}; strategy `{args.strategy}`, {args.rounds} pairs of turns of about {args.seconds:g} s "
        f"(A B B A ...), {sum(row['outliers'] for row in rows)} of them more than twice as long as the median.\n"
    )
    print(table(rows, 0.02))
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        date = datetime.now(UTC).isoformat(timespec="seconds")
        found = {"facts": facts, "load_average": load, "date": date, "settings": settings, "rows": rows}
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
