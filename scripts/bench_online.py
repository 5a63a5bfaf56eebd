"""Benchmark of networks in use: a step of `net.update` and a prediction of one sample, and predictions from many threads.

    python scripts/bench_online.py --json online.json
    python scripts/bench_online.py --quick          shows that all of it works

Per network: microseconds of `net.update(x, y)` and `net.predict(x)` of one sample, and of those the part that is not
computing, told by a network of two weights, whose computing is next to none. Then the predictions per second of 1, 2, 4, ...
threads that call `net.predict` of one sample and of 64 with the same network. Before anything is timed, updates have to give
the bits of `chaos.train`, and predictions in threads those of one thread. Turns go round; medians over --rounds.
"""

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import chaos
from chaos.bench._common import machine

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers.surroundings import commit  # noqa: E402


def parse(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="small,medium", help="of the zoo, for MNIST's images (default: small,medium)")
    parser.add_argument("--calls", type=int, help="of a turn (default: 2000; --quick: 20)")
    parser.add_argument("--rounds", type=int, help="turns of each (default: 7; --quick: 2)")
    parser.add_argument("--threads", default="1,2,4,8", help="that predict at a time (default: 1,2,4,8)")
    parser.add_argument("--quick", action="store_true", help="short turns: to see that it works, not for figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn, machine and versions")
    args = parser.parse_args(words)
    args.calls = args.calls or (20 if args.quick else 2000)
    args.rounds = args.rounds or (2 if args.quick else 7)
    args.threads = [int(n) for n in args.threads.split(",")]
    return args


def check(data):
    """Exits where single steps are another training, or threads another prediction."""
    one, other = chaos.models.small(seed=0), chaos.models.small(seed=0)
    settings = {"epochs": 1, "lr": 0.01, "lr_schedule": "constant", "shuffle": False, "workers": 1, "progress": False}
    chaos.train(one, data[:100], **settings)
    for x, y in zip(data.images[:100], data.labels[:100], strict=True):
        other.update(x, y, lr=0.01)
    if (one.weights != other.weights).any():
        sys.exit("bench_online.py: updates do not give the bits of chaos.train")
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(one.forward, [data.images[i : i + 10] for i in range(0, 200, 10)]))
    if (np.concatenate(parts) != one.forward(data.images[:200], workers=1)).any():
        sys.exit("bench_online.py: predictions in threads differ")


def two_weights():
    return chaos.Network((1,), [chaos.Linear(2, bias=False)])


def calls(net, samples, how):
    """Seconds of a call, over all samples."""
    start = time.perf_counter()
    for x, y in samples:
        if how == "update":
            net.update(x, y, lr=1e-4)
        else:
            net.predict(x[None])
    return (time.perf_counter() - start) / len(samples)


def together(net, images, threads, each):
    """Images per second of so many threads, each of which predicts all batches."""

    def one(_):
        for x in each:
            net.predict(images[x], workers=1)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads)))  # warm: the pool's threads are there, each has had an engine
        start = time.perf_counter()
        list(pool.map(one, range(threads)))
        seconds = time.perf_counter() - start
    return threads * sum(len(images[x]) for x in each) / seconds


def main(words=None):
    args = parse(words)
    data = chaos.data.load("digits", size=29)[0]
    check(data)
    picks = [(data.images[i % len(data)], int(data.labels[i % len(data)])) for i in range(args.calls)]
    numbers = [(np.ones(1, np.float32), i % 2) for i in range(args.calls)]
    nets = {"two weights": (two_weights(), numbers)}
    nets |= {name: (chaos.models.MODELS[name](seed=0), picks) for name in args.models.split(",")}
    sides = {
        (name, how): (lambda net=net, samples=samples, how=how: calls(net, samples, how) * 1e6)
        for name, (net, samples) in nets.items()
        for how in ("update", "predict")
    }
    net = next(net for name, (net, _) in nets.items() if name != "two weights")
    ones = [slice(i % len(data), i % len(data) + 1) for i in range(max(args.calls // 4, 4))]
    batches = [slice(i * 64 % 1024, i * 64 % 1024 + 64) for i in range(max(args.calls // 50, 2))]
    for threads in args.threads:
        for size, each in ((1, ones), (64, batches)):
            sides[f"{threads} threads", size] = lambda n=threads, e=each: together(net, data.images, n, e)
    turns = {side: [] for side in sides}
    for side in sides.values():
        side()
    for _ in range(args.rounds):
        for name, side in sides.items():
            turns[name].append(side())
    rows = []
    for (what, how), found in turns.items():
        unit = "us_per_call" if isinstance(how, str) else "images_per_second"
        rows.append({"what": what, "of": how, unit: statistics.median(found), "turns": found})
        shown = f"{how} of one" if isinstance(how, str) else f"predict batches of {how}"
        print(f"{what:12} {shown:24} {statistics.median(found):12,.2f} {unit} [{min(found):,.2f}..{max(found):,.2f}]")
    if args.json:
        about = {
            "isa": chaos.info()["isa"],
            "machine": {**machine(), **commit()},
            "calls": args.calls,
            "rounds": args.rounds,
        }
        args.json.write_text(json.dumps({"rows": rows, "models": args.models, **about}, indent=1) + "\n")


if __name__ == "__main__":
    main()
