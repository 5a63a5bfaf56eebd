"""Everything about a run that is not a result: machine, versions, commit, settings, peak. For the run."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = ("seconds", "rounds", "workers", "batches", "lr", "data", "compile", "what")


def has(package):
    return importlib.util.find_spec(package) is not None


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit():
    """{"commit", "dirty"} of the tree around this script; None where git cannot tell."""

    def git(*words):
        try:
            done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain")
    return {"commit": git("rev-parse", "--verify", "HEAD"), "dirty": None if changes is None else bool(changes)}


def peaks(core, cores, before=None):
    """Measured GFLOP/s of fused multiply-adds: {"one_core", "all", "cores"}, the larger of now and `before`.

    A peak is a maximum, so every round of the benchmark gives it another chance to be met undisturbed.
    """
    with ThreadPoolExecutor(cores) as pool:
        together = sum(pool.map(lambda _: core.fma_gflops(seconds=0.05), range(cores)))
    alone = core.fma_gflops(seconds=0.05)
    if before:
        alone, together = max(alone, before["one_core"]), max(together, before["all"])
    return {"one_core": alone, "all": together, "cores": cores}


def surroundings(args, chaos):
    """Everything about the run that is not a result."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": chaos.threads.topology()["cpu"] or platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "architecture": platform.machine(),
            "system": platform.system(),
            "load_average": list(os.getloadavg()),
        },
        "versions": {
            "python": platform.python_version(),
            "chaos": chaos.__version__,
            **{name: version(name) for name in ("numpy", "torch", "onnxruntime", "jax")},
        },
        "isa": chaos._core.get_isa(),
        "build": chaos._core.BUILD_INFO,
        "chaos_is_from_this_tree": Path(chaos.__file__).resolve().parent.parent == ROOT,
        **commit(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("OMP_", "GOMP_", "KMP_", "MKL_", "XLA_")) or name == "CHAOS_ISA"
        },
        "fma_gflops": None,
        "settings": {name: value for name, value in vars(args).items() if name in SETTINGS},
    }
