"""Kills trainings at random moments (SIGKILL) and continues them: every time the newest checkpoint has to load, to agree
with metrics.jsonl, and to be no older than the one before, and the run has to go on from it.

    scripts/soak_kill.py --kills 200                        # one process
    scripts/soak_kill.py --kills 50 --ranks 2 --library mpich   # a rank of a job; needs tests/mpi.py

The moments lie from the start of Python to well within an epoch of some seconds, in which the state is kept every 0.2 s.
Exit status 1 where anything was lost or wrong."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soaking

import chaos
from chaos.training import METRICS, MODEL

EVERY = 0.2
CHILD = """
import os, sys
from pathlib import Path
import numpy as np
import chaos
folder, ranks = Path(sys.argv[1]), int(sys.argv[2])
rank = 0
if ranks > 1:
    from mpi4py import MPI
    rank = MPI.COMM_WORLD.rank
(folder / f"pid-{rank}").write_text(str(os.getpid()))
train, test = chaos.data.load("digits", size=29)
many = chaos.data.Dataset(np.tile(train.images, (60, 1, 1, 1)), np.tile(train.labels, 60))
chaos.train(chaos.models.small(seed=0), train if ranks > 1 else many, test, epochs=10**6, lr=1e-4, update="momentum",
            workers=2 if ranks == 1 else 1, cluster="local" if ranks > 1 else None, run_dir=folder / "run", resume=True,
            checkpoint_every=float(sys.argv[3]), progress=False)
"""


def state_of(folder):
    """(epochs, images of the next) of a checkpoint that loads and agrees with the metrics."""
    _, metadata, _ = chaos.loading.load_with_state(folder / MODEL)
    state = json.loads(metadata["training"])
    text = (folder / METRICS).read_bytes()[: state["metrics"]["size"]]
    assert hashlib.sha256(text).hexdigest() == state["metrics"]["sha256"], "metrics.jsonl has been changed"
    epochs = [json.loads(line)["epoch"] for line in text.splitlines()]
    assert epochs == list(range(1, state["epochs"] + 1)), f"epochs {epochs}"
    return state["epochs"], (state["partial"] or {"images": 0})["images"]


def start(folder, ranks, library):
    script = folder / "child.py"
    script.write_text(CHILD)
    if ranks > 1:
        sys.path.insert(0, str(soaking.TREE / "tests"))
        import mpi

        return mpi.start(library, ranks, script, folder, ranks, EVERY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.Popen([sys.executable, script, folder, str(ranks), str(EVERY)], stderr=subprocess.DEVNULL)


def main():
    parser = soaking.parser(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--library", default="mpich")
    parser.add_argument("--longest", type=float, default=2.0, help="seconds from the first checkpoint to the latest moment")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, wrong, ages, before, resumed = random.Random(asked.seed), [], [], (0, 0), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kill in range(asked.kills):
            for file in folder.glob("pid-*"):
                file.unlink()
            model, began = folder / "run" / MODEL, time.monotonic()
            stamp = model.stat().st_mtime_ns if model.exists() else 0
            process = start(folder, asked.ranks, asked.library)
            victim = folder / f"pid-{rng.randrange(asked.ranks)}"
            early = model.exists() and rng.random() < 0.2  # while it starts
            while not (victim.exists() and victim.read_text()) or not (early or _newer(model, stamp)):
                if process.poll() is not None or time.monotonic() - began > 120:
                    wrong.append(f"kill {kill}: the run was not continued (exit status {process.poll()})")
                    break
                time.sleep(0.005)
            time.sleep(rng.random() * (0.5 if early else asked.longest))
            kept = _newer(model, stamp)
            if process.poll() is None:
                ages += [time.time() - model.stat().st_mtime] if kept else []
                os.kill(int(victim.read_text()), signal.SIGKILL)
            process.wait(60)
            if not model.exists():
                continue
            try:
                now = state_of(folder / "run")
            except Exception as error:
                wrong.append(f"kill {kill}: {type(error).__name__}: {error}")
                break
            if now < before:
                wrong.append(f"kill {kill}: {now} is older than {before}")
            resumed += kept
            before = now
    ages.sort()
    results = {
        "kills": asked.kills,
        "ranks": asked.ranks,
        "continued and kept again before the kill": resumed,
        "epochs": before[0],
        "checkpoint_every": EVERY,
        "seconds since the last checkpoint": {"median": ages[len(ages) // 2], "most": ages[-1]} if ages else None,
    }
    return soaking.finish(asked, results, wrong)


def _newer(path, stamp):
    try:
        return path.stat().st_mtime_ns > stamp
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
