"""What the command lines of the benchmarks have in common. For bench_peers and bench_networks."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def counts(text):
    """Different positive numbers, between commas."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1 or len(set(found)) != len(found):
        raise ValueError
    return found


counts.__name__ = "list of different positive numbers"


def parser(prog, description, epilog, **defaults):
    """A parser with the arguments that all have; `defaults` of seconds, rounds and lr."""
    found = argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "--workers",
        type=counts,
        default=None,
        metavar="LIST",
        help="chaos workers and the peers' threads, the same for both; default: 1 and all cores that chaos would use",
    )
    found.add_argument(
        "--seconds", type=float, default=None, help=f"least length of a turn; default {defaults['seconds']:g} (--quick: 0.1)"
    )
    found.add_argument(
        "--rounds", type=int, default=None, help=f"turns of each side; default {defaults['rounds']} (--quick: 2)"
    )
    found.add_argument("--quick", action="store_true", help="short turns: to see that it works, not for figures")
    found.add_argument("--lr", type=float, default=defaults["lr"], help="learning rate of all sides; default %(default)s")
    found.add_argument("--json", type=Path, metavar="FILE", help="write every turn of every side, machine and versions")
    found.add_argument("--plot", type=Path, metavar="FILE", help="draw dots with ranges; needs matplotlib")
    found.set_defaults(at_leisure=(defaults["seconds"], defaults["rounds"]))
    return found


def choose(parser, what, text, known):
    """The names in a list between commas; an error where one is unknown."""
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown {what} {unknown[0]!r}; known: {', '.join(known)}")
    return names


def finish(parser, args):
    """Fills in what --quick decides, and refuses what is impossible."""
    seconds, rounds = (0.1, 2) if args.quick else args.at_leisure
    args.seconds = seconds if args.seconds is None else args.seconds
    args.rounds = rounds if args.rounds is None else args.rounds
    if not 0 < args.seconds < math.inf or args.rounds < 1 or not 0 < args.lr < math.inf:
        parser.error("--seconds, --rounds and --lr must be positive")
    for path in (args.json, args.plot):
        if path and not path.resolve().parent.is_dir():
            parser.error(f"there is no folder for {path}")
    return args
