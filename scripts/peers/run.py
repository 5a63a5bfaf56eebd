"""The run: sides take turns round by round, network by network. For bench_peers and bench_networks."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from .check import Mismatch, check
from .figures import label_of, summarise
from .pipe import SideFailed
from .processes import Process
from .surroundings import has
from .table import noise


def say(text):
    print(text, file=sys.stderr, flush=True)


def needs(args, script):
    """None, or what is missing on this machine for these arguments."""
    if not has("torch"):
        return f"{script} needs PyTorch, which is not installed here: pip install torch"
    if args.plot and not has("matplotlib"):
        return "--plot needs matplotlib, which is not installed here: pip install matplotlib"
    return None


def race(processes, what, job, sides, args, pause=lambda: None):
    """Prepares all sides for one network and lets them take turns; calls `pause` before each round.

    Parameters
    ----------
    processes : dict of (system, threads) to Process
    what : str
        One of SIDES: "training" or "prediction".
    job : dict
        See `side.Side`.
    sides : list of (system, threads, batch sizes)

    Returns
    -------
    list of dict
        Summarised rows, in the order of the turns.
    """
    rows = []
    for system, threads, batches in sides:
        say(f"  warming up {system}, {threads}")
        process = processes[system, threads]
        variants = process.ask("prepare", what, job, batches)
        rows += [
            {
                "system": system,
                "threads": threads,
                "batch": batch,
                "variant": variants[batch],
                "turns": [],
                "process": process,
            }
            for batch in batches
        ]
    for i in range(args.rounds):
        say(f"  round {i + 1} of {args.rounds}")
        pause()
        for row in rows:
            row["turns"].append(row["process"].ask("turn", row["batch"], args.seconds))
    for row in rows:
        row["loss_after_last_turn"] = row.pop("process").ask("loss", row["batch"])
        if not math.isfinite(row["loss_after_last_turn"]):
            raise SideFailed(f"{label_of(row)}: the loss is not finite; the learning rate {args.lr:g} is too large")
    return [summarise(row) for row in rows]


class Field:
    """Files of networks and data, and the processes of all sides, while the block runs."""

    def __init__(self, chaos):
        self.chaos, self.processes, self.stack = chaos, {}, contextlib.ExitStack()

    def __enter__(self):
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="bench_networks")))
        return self

    def __exit__(self, *error):
        self.stack.close()

    def start(self, sides):
        """Starts the processes that are missing."""
        for system, threads, _ in sides:
            if (system, threads) not in self.processes:
                process = self.processes[system, threads] = Process(system, threads)
                self.stack.callback(process.close)

    def put(self, net, x, y, args):
        """The job of a network and its data: files, and what all sides are told."""
        np.save(self.folder / "images.npy", x)
        np.save(self.folder / "labels.npy", y)
        net.save(self.folder / "network.safetensors")
        return {
            "network": str(self.folder / "network.safetensors"),
            "data": str(self.folder),
            "lr": args.lr,
            "compile": args.compile,
            "strategies": ("chaos",),
        }

    def compared(self, name, job, x, y, args, count=64):
        """What `check` found; Mismatch naming the network where a side computes something else."""
        say(f"{name}: comparing outputs, loss, gradients and a step")
        # In a process of its own, so that no other system is ever loaded into this one.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                return pool.submit(check, job["network"], x, y, args.lr, count).result()
            except Mismatch as error:
                raise Mismatch(f"{name}: {error}; nothing was timed") from None


def tell_surroundings(document):
    """Prints machine and versions."""
    machine, versions = document["machine"], document["versions"]
    tree = "unknown" if document["commit"] is None else document["commit"][:12]
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {document['isa']}; load average "
        f"{' '.join(f'{x:.2f}' for x in machine['load_average'])}; {document['date']}"
    )
    print(
        "; ".join(f"{name} {version}" for name, version in versions.items() if version)
        + f"; commit {tree}{' with changes' if document['dirty'] else ''}"
        + ("" if document["chaos_is_from_this_tree"] else " (chaos itself is an installed one)")
    )


def tell_check(checked):
    """The line that says what was compared before timing."""
    return (
        f"Before timing: outputs agree to {checked['outputs']:.0e}, losses to {checked['loss']:.0e}, gradients to "
        f"{checked['gradient'] * checked['tolerance']:.0e} of the largest entry (tolerated {checked['tolerance']:g}), "
        "one step likewise"
    )


def noise_of(rows, cores):
    """What `table.noise` says of rows."""
    turns = [t for row in rows for t in row["turns"]]
    return noise(rows, cores, sum(t["idle_cpu_seconds"] for t in turns), sum(t["seconds"] for t in turns))
