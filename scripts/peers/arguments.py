"""The command line, and what its help says of the method. For the run."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

DESCRIPTION = """\
Benchmark of chaos against PyTorch (and JAX, where installed) on this machine's CPU. For whoever wants to
check a claim about speed; needs `pip install torch`, imports chaos as installed, changes nothing."""
EXPLANATION = """\
What is timed: forward, backward and update of every image, in microseconds of wall time per image, on the
three networks of the paper (tanh, softmax cross-entropy, plain SGD, float32). Not timed: reading, converting
and shuffling data, evaluation, start-up.

The same for all sides: initial weights (put back before each turn), images (float32 in memory, shuffled
once, walked through in one order), learning rate. Before anything is timed, loss, gradients and one SGD step
of all sides are compared; a side that computes something else ends the benchmark.

In favour of PyTorch: no DataLoader, no optimizer object (one fused update of all parameters), batches are
views, denormals are flushed, and each setting uses the faster of contiguous and channels_last memory
(--compile: or of torch.compile), found while warming up.

How: one process per side, started and warmed up first, asleep while another has its turn; turns go round,
A B C A B C ... A row shows the median of the rounds and [min..max]. "CPUs" is processor time by wall time: a
side with two threads that always work shows 2.00, less if it waits or if another program has the machine.
Ratios are taken within a round, then their median and [min..max]. A batch of 64 makes 64 times fewer updates
per epoch than per-image training does: time per image is not time to accuracy.
"""


def parse(words=None):
    parser = argparse.ArgumentParser(
        prog="bench_peers.py",
        description=DESCRIPTION,
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def counts(text):
        found = [int(part) for part in text.split(",")]
        if min(found) < 1 or len(set(found)) != len(found):
            raise ValueError
        return found

    counts.__name__ = "list of different positive numbers"
    models = ("small", "medium", "large")
    parser.add_argument("--models", default=",".join(models), metavar="LIST", help="networks; default %(default)s")
    parser.add_argument(
        "--workers",
        type=counts,
        default=None,
        metavar="LIST",
        help="chaos workers and PyTorch threads, the same for both; the largest is also the number of "
        "Hogwild processes; default: 1 and all cores that chaos would use",
    )
    parser.add_argument(
        "--batches",
        type=counts,
        default=[1, 8, 64, 256],
        metavar="LIST",
        help="PyTorch's batch sizes; default 1,8,64,256. chaos always trains per image",
    )
    parser.add_argument("--seconds", type=float, default=None, help="least length of a turn; default 1 (--quick: 0.1)")
    parser.add_argument("--rounds", type=int, default=None, help="turns of each side; default 5 (--quick: 2)")
    parser.add_argument("--quick", action="store_true", help="short turns: to see that it works, not for figures")
    parser.add_argument(
        "--data",
        default="mnist",
        help="mnist (default; looked for in CHAOS_DATA_DIR) or digits (embedded); the choice hardly matters for speed",
    )
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of all sides; default %(default)s")
    parser.add_argument(
        "--compile", action="store_true", help="let PyTorch try torch.compile, too; needs a C++ compiler and some minutes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn of every side, machine and versions")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a bar chart; needs matplotlib")
    args = parser.parse_args(words)
    args.models = args.models.split(",")
    if unknown := [name for name in args.models if name not in models]:
        parser.error(f"unknown network {unknown[0]!r}; known: {', '.join(models)}")
    args.seconds = (0.1 if args.quick else 1.0) if args.seconds is None else args.seconds
    args.rounds = (2 if args.quick else 5) if args.rounds is None else args.rounds
    if not 0 < args.seconds < math.inf or args.rounds < 1 or not 0 < args.lr < math.inf:
        parser.error("--seconds, --rounds and --lr must be positive")
    for path in (args.json, args.plot):
        if path and not path.resolve().parent.is_dir():
            parser.error(f"there is no folder for {path}")
    return args
