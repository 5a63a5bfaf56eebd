"""Run directories that an earlier version has written (tests/data/old_runs, by commit 41512c2) are continued."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import chaos
from chaos import _core
from chaos.training import METRICS, MODEL

KEPT = Path(__file__).parent / "data" / "old_runs"
RUNS = {
    # the state of an update rule, a schedule with options, an epoch at its end
    "finished": dict(
        strategy="sequential",
        update="adam",
        lr=1e-3,
        lr_schedule="cosine",
        schedule_options={"warmup": 1, "t_max": 5},
        batch_size=4,
        seed=5,
    ),
    # in the middle of an epoch
    "stopped": dict(strategy="chaos", strategy_options={"staleness_step": "inverse"}, workers=1, update="momentum", lr=0.01),
}


@pytest.fixture(autouse=True)
def generic():
    """The instruction set of the runs, which all machines have."""
    before = _core.get_isa()
    _core.set_isa("generic")
    yield
    _core.set_isa(before)


def data(which):
    digits = chaos.data.load("digits", size=29)[0][:200]
    if which == "finished":
        return digits, digits[:50]
    return chaos.data.Dataset(np.tile(digits.images, (50, 1, 1, 1)), np.tile(digits.labels, 50)), None


def network():
    layers = [chaos.Conv2d(2, 6, stride=3), chaos.Tanh(), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Linear(10)]
    return chaos.Network((1, 29, 29), layers, seed=3)


@pytest.mark.parametrize("which", RUNS)
def test_an_old_run_goes_on_as_if_it_had_not_been_stopped(which, tmp_path):
    folder = shutil.copytree(KEPT / which, tmp_path / "run")
    before = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    state = json.loads(chaos.loading.load_with_state(folder / MODEL)[1]["training"])
    assert len(before) == (2 if which == "finished" else 0) and bool(state["partial"]) == (which == "stopped")
    net, whole, options = network(), network(), dict(epochs=3, progress=False, **RUNS[which])
    run = chaos.train(net, *data(which), run_dir=folder, resume=True, **options)
    straight = chaos.train(whole, *data(which), **options)
    assert run.history[: len(before)] == before and len(run.history) == 3
    # other compilers may round otherwise; here the bits are the same
    np.testing.assert_allclose(net.weights, whole.weights, rtol=1e-4, atol=1e-5)
    for one, other in zip(run.history, straight.history, strict=True):
        assert one["updates"] == other["updates"] and one["lr"] == other["lr"]
        np.testing.assert_allclose(one["train_loss"], other["train_loss"], rtol=1e-4)


@pytest.mark.parametrize("change, word", [(dict(seed=1), "seed"), (dict(update_options={"l1": 0.5}), "update_options l1")])
def test_another_run_than_the_old_one_is_refused(change, word, tmp_path):
    folder = shutil.copytree(KEPT / "finished", tmp_path / "run")
    options = dict(epochs=3, progress=False, **RUNS["finished"]) | change
    with pytest.raises(chaos.CheckpointError, match=f"different: {word} \\("):
        chaos.train(network(), *data("finished"), run_dir=folder, resume=True, **options)
