"""What the training loop decides across ranks: held-out images, metrics, the best epoch and the early end are the same
everywhere, and the command line needs no strategy where the mode has only one."""

import json
import os

import mpi
import numpy as np
import pytest
from test_cluster import library, run  # noqa: F401, a fixture

import chaos
from chaos.training import BEST, CONFIG, METRICS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="jobs are started with POSIX launchers")

SCRIPT = """
train, test = chaos.data.load("digits", size=29)
net = chaos.models.small(seed=1)
def share(targets, outputs):
    return float(rank()) + (outputs.argmax(1) == targets).mean()
how = dict(cluster="local", cluster_options={"every": 20}, lr=0.2, lr_schedule="constant", batch_size=4, workers=1,
           validation_split=0.25, patience=2, restore_best=True, metrics=["accuracy", "confusion_matrix", share],
           class_weight="balanced", progress=False, stall_timeout=30, run_dir=folder / "run", resume=True)
first = chaos.train(net, train[:301], test[:51], epochs=1, **how)
net = chaos.models.small(seed=1)
run = chaos.train(net, train[:301], test[:51], epochs=25, **how)
tell([digest(net), run.history, run.best_epoch, {name: float(value.sum()) for name, value in run.best_weights.items()}])
"""


def test_ranks_agree_about_the_best_epoch(library, tmp_path):  # noqa: F811
    (first, second), _ = run(library, 2, SCRIPT, tmp_path, timeout=120)
    assert first == second
    digest, history, best, _ = first
    losses = [record["validation_loss"] for record in history]
    assert best == 1 + int(np.argmin(losses)) and len(losses) < 25
    net = chaos.load(tmp_path / "run" / BEST)
    data, test = chaos.data.load("digits", size=29)
    _, held = chaos.training.parts.split(data.labels[:301], 301, 0.25, 0)
    for name, images in (("validation", data[held]), ("test", test[:51])):
        record, found = history[best - 1], chaos.evaluate(net, images, workers=1, metrics=["confusion_matrix"])
        assert record[f"{name}_confusion_matrix"] == found["confusion_matrix"] and record[f"{name}_error"] == found["error"]
        assert record[f"{name}_accuracy"] == pytest.approx(record[f"{name}_share"])  # rank 0's
    assert sum(history[0]["worker_images"]) == 301 - len(held)


def test_allreduce_needs_no_strategy_and_workers_their_reason(library, tmp_path):  # noqa: F811
    words = "-m chaos train small --data digits --subset 60 --epochs 1 --batch-size 6 --cluster allreduce --run-dir".split()
    done = mpi.job(library, 2, *words, tmp_path / "a", timeout=60)
    assert done.code == 0, done
    assert json.loads((tmp_path / "a" / CONFIG).read_text())["strategy"] == "synchronous"
    assert len((tmp_path / "a" / METRICS).read_text().splitlines()) == 1
    assert "(limit: share of 2 ranks " in done.err and "argument" not in done.err
