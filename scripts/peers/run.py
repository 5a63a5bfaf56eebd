"""The run: sides take turns round by round, network by network. For scripts/bench_peers.py."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from .arguments import parse
from .check import TOLERANCE, Mismatch, check
from .figures import label_of, ratios, summarise
from .pipe import SideFailed
from .plot import plot
from .processes import Process
from .sides import COPYING
from .surroundings import has, peaks, surroundings
from .table import interval, noise, roofline, table

IMAGES = 8192


def competitors(args):
    """[(system, threads, batch sizes)], one process each, in the order of the turns."""
    sides = [("chaos", n, [1]) for n in args.workers]
    if max(args.workers) > 1:
        sides.append((COPYING, max(args.workers), [1]))
    sides += [("PyTorch", n, args.batches) for n in args.workers]
    if max(args.workers) > 1:
        sides.append(("PyTorch Hogwild", max(args.workers), [1]))
    if has("jax"):
        sides.append(("JAX", max(args.workers), [1, 64]))
    return sides


def race(processes, job, sides, args, pause):
    """Prepares all sides for one network and lets them take turns; calls `pause` before each round.

    Returns
    -------
    list of dict
        Summarised rows, in the order of the turns.
    """
    rows = []
    for process, (system, threads, batches) in zip(processes, sides, strict=True):
        say(f"  warming up {system}, {threads}")
        variants = process.ask("prepare", job, batches)
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


def main(words=None):
    args = parse(words)
    if not has("torch"):
        print("bench_peers.py needs PyTorch, which is not installed here: pip install torch", file=sys.stderr)
        return 2
    if args.plot and not has("matplotlib"):
        print("--plot needs matplotlib, which is not installed here: pip install matplotlib", file=sys.stderr)
        return 2

    import chaos

    args.workers = args.workers or sorted({1, chaos.threads.resolve().workers})
    document = surroundings(args, chaos)
    tell_surroundings(document)

    train, _ = chaos.data.load(args.data, size=29)
    share = math.lcm(*args.batches, 64)
    few = min(IMAGES, len(train)) // share * share
    if not few:
        say(f"{len(train)} images do not fill one batch of each of the sizes {args.batches}")
        return 2
    use = np.random.default_rng(0).permutation(len(train))[:few]
    x = np.ascontiguousarray(train.images[use].astype(np.float32) / np.float32(127.5) - 1)
    y = train.labels[use]
    document["settings"]["images"] = few
    nets = {name: getattr(chaos.models, name)(seed=0) for name in args.models}
    jobs = {
        name: {"config": net.config(), "state": net.state_dict(), "lr": args.lr, "compile": args.compile}
        for name, net in nets.items()
    }
    try:
        document["networks"] = results = compared(jobs, x, y, args)
    except Mismatch as error:
        say(f"{error}; nothing was timed")
        return 1
    timed(nets, jobs, x, y, args, document, chaos._core)

    turns = [t for result in results.values() for row in result["rows"] for t in row["turns"]]
    idle = sum(t["idle_cpu_seconds"] for t in turns)
    document["noise"] = noise(results, document["machine"]["cores"], idle, sum(t["seconds"] for t in turns))
    print("\n" + "\n".join(document["noise"]))
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    if args.plot:
        plot(document, args.plot)
    return 0


def say(text):
    print(text, file=sys.stderr, flush=True)


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


def compared(jobs, x, y, args):
    """{network: {"check": see `check`}}; Mismatch naming the network where a side computes something else."""
    results = {}
    # In a process of its own, so that no other system is ever loaded into this one.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for name, job in jobs.items():
            say(f"{name}: comparing loss, gradients and a step")
            try:
                checked = pool.submit(check, job["config"], job["state"], x[:1024], y[:1024], args.lr).result()
            except Mismatch as error:
                raise Mismatch(f"{name}: {error}") from None
            results[name] = {"check": checked}
    return results


def timed(nets, jobs, x, y, args, document, core):
    """Times all sides on all networks; prints the tables, and puts rows and ratios into the document."""
    sides = competitors(args)

    def measure_peaks():
        document["fma_gflops"] = peaks(core, max(args.workers), document["fma_gflops"])

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench_peers"))
        np.save(Path(folder, "images.npy"), x)
        np.save(Path(folder, "labels.npy"), y)
        processes = []
        for system, threads, _ in sides:
            processes.append(Process(system, threads))
            stack.callback(processes[-1].close)
        for name, net in nets.items():
            say(name)
            rows = race(processes, {**jobs[name], "data": folder}, sides, args, measure_peaks)
            flops = 2 * sum(net.macs().values())
            result = document["networks"][name]
            result |= {"parameters": net.n_parameters, "flops_per_image": flops, "rows": rows, "ratios": ratios(rows)}
            tell_network(name, result, document["fma_gflops"])


def tell_network(name, result, fma):
    """Prints what was found on one network."""
    checked, rows = result["check"], result["rows"]
    print(
        f"\n{name}: {result['parameters']:,} parameters. Before timing: losses agree to "
        f"{checked['loss']:.0e}, gradients to {checked['gradient'] * TOLERANCE:.0e} of the largest entry "
        f"(tolerated {TOLERANCE:g}), "
        "one step likewise"
    )
    print("\n".join(table(rows)))
    for ratio in result["ratios"]:
        print(f"{ratio['name']}: {interval(ratio['times'])} times as fast  ({ratio['slow']})")
    lines = roofline(result["flops_per_image"], fma["one_core"], fma["all"], fma["cores"], rows)
    print("\n".join(lines), flush=True)
