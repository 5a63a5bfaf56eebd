"""Benchmark of many small trainings: chaos.train_many on one core and on all, and the same loop in PyTorch.

    python scripts/bench_many.py --json many.json               some minutes on two cores; needs `pip install torch`
    python scripts/bench_many.py --quick                        shows that all of it works
    python scripts/bench_many.py --no-torch

A job is the paper's `small` network, from first weights of its own, trained for --epochs on --images images of --data, with
one image per update (--batch-size), plain SGD and float32. Timed is all that is between the list of jobs and the last
trained network: making networks, shuffling, training. PyTorch trains the same jobs in a loop, with one fused update of all
parameters, no DataLoader, denormals flushed, with one thread and with all; --torch-jobs of them, from whose time that of all
is taken. How well the cores of this machine work side by side is told by processes, one per core, that share nothing, each
of which trains its part of the jobs one after the other; they have been started and warmed up before.

Before anything is timed, the networks of all sides are compared: chaos has to give the bits of each job trained alone, and
PyTorch the same weights but for rounding after --checked images. Turns go round, A B C A B C ...; told are medians over
--rounds, and ratios within a round. A turn of PyTorch is in this process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import chaos
from chaos.bench._common import machine

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers.pytorch import descend  # noqa: E402
from peers.surroundings import commit  # noqa: E402

TOLERANCE = 1e-3  # of weights after some images, relative to the largest of their parameter; ties in pooling fall either way


def parse(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, help="trainings (default: 64; --quick: 6)")
    parser.add_argument("--images", type=int, help="images of each (default: 2000; --quick: 60)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--workers", type=int, help="trainings at a time beside one (default: all cores)")
    parser.add_argument("--rounds", type=int, help="turns of each side (default: 5; --quick: 2)")
    parser.add_argument("--torch-jobs", type=int, help="how many of them PyTorch trains in a turn (default: 4; --quick: 1)")
    parser.add_argument("--checked", type=int, default=20, help="images after which PyTorch's weights are compared")
    parser.add_argument("--no-torch", action="store_true", help="without PyTorch")
    parser.add_argument("--quick", action="store_true", help="short turns: to see that it works, not for figures")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data", default="mnist", help="mnist (default; looked for in CHAOS_DATA_DIR) or digits (embedded)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn, machine and versions")
    args = parser.parse_args(words)
    for name, usual, quick in (("jobs", 64, 6), ("images", 2000, 60), ("rounds", 5, 2), ("torch_jobs", 4, 1)):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else usual)
    args.workers = args.workers or chaos.threads.resolve().workers
    args.torch_jobs = min(args.torch_jobs, args.jobs)
    if min(args.jobs, args.images, args.epochs, args.batch_size, args.workers, args.rounds, args.torch_jobs) < 1:
        parser.error("all numbers must be at least 1")
    return args


def jobs_of(args, data):
    settings = {"train": data, "epochs": args.epochs, "lr": 0.01, "lr_schedule": "constant", "batch_size": args.batch_size}
    return [
        {"network": lambda seed=seed: chaos.models.small(seed=seed), "seed": seed, **settings} for seed in range(args.jobs)
    ]


def with_chaos(jobs, workers):
    found = chaos.train_many(jobs, workers=workers, progress=False)
    found.raise_failed()
    return found


class TorchLoop:
    """The same trainings, one after the other."""

    def __init__(self, data, args, threads):
        import torch
        from torch.nn.functional import cross_entropy

        torch.set_flush_denormal(True)
        self.torch, self.cross_entropy, self.threads = torch, cross_entropy, threads
        self.x, self.y = torch.from_numpy(data.scaled().copy()), torch.from_numpy(data.labels.copy())
        self.epochs, self.batch = args.epochs, args.batch_size

    def train(self, seed, images=None):
        """A trained twin of `small`, after so many images."""
        net = chaos.models.small(seed=seed).to_torch()
        parameters, cross_entropy = list(net.parameters()), self.cross_entropy
        for epoch in range(1, self.epochs + 1):
            order = self.torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(self.y))[:images])
            x, y = self.x[order], self.y[order]
            for i in range(0, len(y), self.batch):
                loss = cross_entropy(net(x[i : i + self.batch]), y[i : i + self.batch])
                descend(parameters, self.torch.autograd.grad(loss, parameters), 0.01)
        return net

    def run(self, seeds):
        self.torch.set_num_threads(self.threads)
        for seed in seeds:
            self.train(seed)


class Processes:
    """As many processes as trainings at a time, which train parts of the jobs when a line comes."""

    def __init__(self, args):
        words = [f"--{name}={getattr(args, name)}" for name in ("jobs", "images", "epochs", "data")]
        words += [f"--batch-size={args.batch_size}", f"--workers={args.workers}"]
        self.children = [
            subprocess.Popen(
                [sys.executable, __file__, *words, f"--part={k}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for k in range(args.workers)
        ]
        self._hear()

    def _hear(self):
        for child in self.children:
            if not child.stdout.readline():
                sys.exit("bench_many.py: a process has failed")

    def run(self):
        for child in self.children:
            child.stdin.write("\n")
            child.stdin.flush()
        self._hear()

    def end(self):
        for child in self.children:
            child.stdin.close()
            child.wait()
            child.stdout.close()


def be_part(jobs, args):
    """What such a process does."""
    mine = jobs[args.part :: args.workers]
    with_chaos(mine[:1], 1)
    print("ready", flush=True)
    for _ in sys.stdin:
        with_chaos(mine, 1)
        print("done", flush=True)


def check(args, data, jobs, torch_loop):
    """Exits where a side computes something else."""
    one, several = with_chaos(jobs, 1), with_chaos(jobs, args.workers)
    for job, a, b in zip(jobs[:3], one, several, strict=False):
        net = job["network"]()
        alone = {name: value for name, value in job.items() if name != "network"}
        chaos.train(net, **alone, workers=1, progress=False)
        if not (net.weights == a["network"].weights).all() or not (net.weights == b["network"].weights).all():
            sys.exit("bench_many.py: train_many does not give the bits of chaos.train")
    if any((a["network"].weights != b["network"].weights).any() for a, b in zip(one, several, strict=True)):
        sys.exit("bench_many.py: train_many gives other bits with several workers")
    if torch_loop:
        order = np.random.default_rng([0, 1]).permutation(len(data))[: args.checked]
        net, settings = chaos.models.small(seed=0), {"lr": 0.01, "lr_schedule": "constant", "batch_size": args.batch_size}
        chaos.train(net, data[order], epochs=1, shuffle=False, workers=1, progress=False, **settings)
        epochs, torch_loop.epochs = torch_loop.epochs, 1
        twin = torch_loop.train(0, args.checked)
        torch_loop.epochs = epochs
        for name, value in net.state_dict().items():
            other = twin.state_dict()[name].numpy()
            if np.abs(value - other).max() > TOLERANCE * np.abs(value).max():
                sys.exit(f"bench_many.py: PyTorch and chaos differ in {name} by {np.abs(value - other).max():g}")


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(words=None):
    args = parse(words)
    data = chaos.data.load(args.data, size=29)[0][: args.images]
    args.images = len(data)
    jobs = jobs_of(args, data)
    if args.part is not None:
        return be_part(jobs, args)
    torch_threads = [] if args.no_torch else sorted({1, args.workers})
    try:
        loops = {f"PyTorch, {n} threads": TorchLoop(data, args, n) for n in torch_threads}
    except ImportError:
        sys.exit("bench_many.py: needs PyTorch (pip install torch), or --no-torch")
    check(args, data, jobs, next(iter(loops.values()), None))
    sides = {f"chaos, {n} at a time": (lambda n=n: with_chaos(jobs, n)) for n in sorted({1, args.workers})}
    if args.workers > 1:
        processes = Processes(args)
        sides[f"chaos, {args.workers} processes"] = processes.run
    sides |= {name: (lambda loop=loop: loop.run(range(args.torch_jobs))) for name, loop in loops.items()}
    factor = {name: args.jobs / args.torch_jobs if name in loops else 1.0 for name in sides}
    turns = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            turns[name].append(timed(side) * factor[name])
    if args.workers > 1:
        processes.end()
    result = tell(args, turns)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def tell(args, turns):
    """Prints the table; returns what the file has."""
    first = next(iter(turns))
    images = args.jobs * args.images * args.epochs
    print(f"{args.jobs} trainings of small, {args.epochs} epochs of {args.images} images, batch size {args.batch_size}")
    print(f"{'':22} {'seconds':>9} {'us/image':>9} {'ratio to ' + first:>24}")
    rows = []
    for name, seconds in turns.items():
        ratios = [mine / base for mine, base in zip(seconds, turns[first], strict=True)]
        row = {
            "side": name,
            "seconds": statistics.median(seconds),
            "us_per_image": statistics.median(seconds) / images * 1e6,
            "times_as_long": statistics.median(ratios),
            "turns": seconds,
        }
        rows.append(row)
        spread = f"{row['times_as_long']:.3f} [{min(ratios):.3f}..{max(ratios):.3f}]"
        print(f"{name:22} {row['seconds']:9.3f} {row['us_per_image']:9.2f} {spread:>24}")
    names = ("jobs", "images", "epochs", "batch_size", "workers", "rounds", "torch_jobs", "data")
    torch = sys.modules.get("torch")
    return {
        "rows": rows,
        **{name: getattr(args, name) for name in names},
        "isa": chaos.info()["isa"],
        "machine": {**machine(), **commit()},
        "torch": None if torch is None else torch.__version__,
    }


if __name__ == "__main__":
    main()
