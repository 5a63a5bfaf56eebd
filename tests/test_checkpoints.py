"""The state of a run is kept by time as well as by epoch, beside the workers, whatever the disk does; and a training that
diverges can be taken back."""

import errno
import itertools
import json
import os
import shutil
import threading

import numpy as np
import pytest

import chaos
from chaos import training
from chaos.formats import atomic
from chaos.training import METRICS, MODEL
from chaos.training.store import KEPT, Store


@pytest.fixture
def often(monkeypatch):
    """The state is kept as often as possible; the number of times that was done within epochs, and what `then` is to do."""
    monkeypatch.setattr(training.phases, "POLL", 1e-3)
    monkeypatch.setattr(training.callbacks, "POLL", 1e-3)
    before, times = Store.save_beside, []

    def save_beside(store):
        before(store)
        store._writing.result()
        times.append(json.loads(chaos.loading.load_with_state(store.folder / MODEL)[1]["training"]))
        if times.then:
            times.then(store)

    class Times(list):
        then = None

    times = Times()
    monkeypatch.setattr(Store, "save_beside", save_beside)
    return times


def network():
    return chaos.Network(
        (1, 29, 29),
        [
            chaos.Conv2d(4, 4, stride=2),
            chaos.BatchNorm2d(groups_of=4),
            chaos.ReLU(),
            chaos.MaxPool2d(2),
            chaos.Flatten(),
            chaos.Dropout(0.3),
            chaos.Linear(10),
        ],
        seed=1,
    )


EXACT = [
    dict(strategy="sequential", batch_size=4, update="momentum", update_options={"momentum": 0.9}),
    dict(strategy="synchronous", batch_size=16, workers=2, update="adam"),
    dict(strategy="chaos", batch_size=4, workers=1),
]


@pytest.mark.parametrize("how", EXACT, ids=lambda how: how["strategy"])
def test_no_bit_changes_and_none_is_lost(digits, often, how, tmp_path):
    """Cut as often as possible; and, as if the process had been killed then, continued from what was kept in the middle of
    an epoch: weights, state of the update rule, running statistics, random numbers of layers, order of images, counts."""
    data = chaos.data.Dataset(np.tile(digits[0].images, (2, 1, 1, 1)), np.tile(digits[0].labels, 2))
    how = dict(epochs=2, lr=0.01, progress=False, **how)
    whole = network()
    history = chaos.train(whole, data, **how).history

    def copy(store):
        if not (tmp_path / "killed").exists() and store.job.history:
            shutil.copytree(store.folder, tmp_path / "killed", ignore=shutil.ignore_patterns(".lock"))

    often.then = copy
    cut = network()
    run = chaos.train(cut, data, **how, run_dir=tmp_path / "run", checkpoint_every=1e-9)
    assert often and all(0 < one["partial"]["position"] <= len(data) for one in often)
    often.then = None
    resumed = network()
    again = chaos.train(resumed, data, **how, run_dir=tmp_path / "killed", resume=True, checkpoint_every=0)
    for net, found in ((cut, run.history), (resumed, again.history)):
        assert net.weights.tobytes() == whole.weights.tobytes()
        for mine, wanted in zip(found, history, strict=True):
            assert [mine[k] for k in ("train_error", "updates")] == [wanted[k] for k in ("train_error", "updates")]


@pytest.mark.parametrize("strategy, workers, cut", [("chaos", 2, True), ("delayed", 2, False), ("averaging", 2, False)])
def test_strategies_that_an_interruption_would_change_are_not_interrupted(digits, often, strategy, workers, cut, tmp_path):
    data = chaos.data.Dataset(np.tile(digits[0].images, (2, 1, 1, 1)), np.tile(digits[0].labels, 2))
    options = dict(strategy=strategy, workers=workers, epochs=1, progress=False, run_dir=tmp_path, checkpoint_every=1e-9)
    (record,) = chaos.train(chaos.models.small(), data, **options).history
    assert bool(often) == cut and sum(record["worker_images"]) == len(data)


def fails(code, when):
    def call(*_):
        if when():
            raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("name", ["_flush", "_check"])
def test_a_disk_that_fails_for_a_while_loses_nothing(few_digits, monkeypatch, capsys, code, name, tmp_path):
    """In epochs 2 and 3 nothing can be written: it is told once, what was kept is still there, and the next time all is."""
    kept, epochs, before = [], [], getattr(atomic, name)
    bad = fails(code, lambda: epochs and epochs[-1] in (2, 3))
    monkeypatch.setattr(atomic, name, lambda *arguments: bad() or before(*arguments))

    class Watch(chaos.Callback):
        def epoch_begin(self, event):
            epochs.append(event.epoch)

        def epoch_end(self, event, record):
            kept.append(json.loads(chaos.loading.load_with_state(tmp_path / MODEL)[1]["training"])["epochs"])

    run = chaos.train(
        chaos.models.small(), *few_digits, epochs=5, workers=1, run_dir=tmp_path, progress=False, callbacks=[Watch()]
    )
    assert kept == [1, 1, 1, 4, 5] and len(run.history) == 5
    assert [json.loads(line)["epoch"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 2, 3, 4, 5]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and os.strerror(code) in told[0] and "goes on" in told[0] and "kept again" in told[1]
    assert not [one for one in os.listdir(tmp_path) if one.startswith(".")]


def test_a_disk_that_stays_full_is_an_error_at_the_end(few_digits, monkeypatch, tmp_path):
    """The epochs that were kept are there, and the network has been trained."""
    begun, before = [], atomic._flush
    monkeypatch.setattr(atomic, "_flush", lambda handle: fails(errno.ENOSPC, lambda: len(begun) > 1)() or before(handle))

    class Watch(chaos.Callback):
        def epoch_begin(self, event):
            begun.append(event.network.weights.copy())

    net = chaos.models.small()
    with pytest.raises(OSError, match="No space left"):
        chaos.train(net, *few_digits, epochs=3, workers=1, run_dir=tmp_path, progress=False, callbacks=[Watch()])
    assert (chaos.load(tmp_path / MODEL).weights == begun[1]).all() and (net.weights != begun[2]).any()


def test_what_is_not_read_back_as_written_is_not_kept(monkeypatch, tmp_path):
    path = tmp_path / "x"
    atomic.write_atomically(path, b"good")
    monkeypatch.setattr(os, "pread", lambda handle, size, at: b"fals"[at : at + size])
    with pytest.raises(OSError, match="not what is read back, from byte 0 on") as caught:
        atomic.write_atomically(path, b"true")
    assert caught.value.filename == str(path) and path.read_bytes() == b"good" and os.listdir(tmp_path) == ["x"]


def test_short_reads_and_writes_and_interruptions_are_continued(monkeypatch, tmp_path):
    """The system may do less than it is asked for, and be interrupted by signals (PEP 475: Python goes on)."""
    path, pread = tmp_path / "x", os.pread
    monkeypatch.setattr(os, "pread", lambda handle, size, at: pread(handle, min(size, 3), at))
    atomic.write_atomically(path, bytes(range(256)))
    assert path.read_bytes() == bytes(range(256))
    monkeypatch.setattr(os, "pread", lambda handle, size, at: b"")
    with pytest.raises(OSError, match="from byte 0 on"):
        atomic.write_atomically(path, b"cut off")
    assert path.read_bytes() == bytes(range(256))


def test_states_of_earlier_epochs(few_digits, tmp_path):
    """As many as are asked for; any can be put into the place of the last, and the run goes on from there."""
    options = dict(workers=1, run_dir=tmp_path, progress=False, keep_checkpoints=3)
    whole = chaos.models.small()
    chaos.train(whole, *few_digits, epochs=5, **options)
    assert sorted(os.listdir(tmp_path / KEPT)) == [f"epoch-{n:06}.safetensors" for n in (3, 4, 5)]
    assert (tmp_path / KEPT / "epoch-000005.safetensors").samefile(tmp_path / MODEL)
    (tmp_path / MODEL).write_bytes(b"damaged")
    with pytest.raises(chaos.CheckpointError, match="epoch-000005.safetensors is an earlier state"):
        chaos.train(chaos.models.small(), *few_digits, epochs=5, resume=True, **options)
    shutil.copy(tmp_path / KEPT / "epoch-000003.safetensors", tmp_path / MODEL)
    net = chaos.models.small()
    run = chaos.train(net, *few_digits, epochs=5, resume=True, **options)
    assert net.weights.tobytes() == whole.weights.tobytes() and len(run.history) == 5
    assert len((tmp_path / METRICS).read_text().splitlines()) == 5


def steep(update):
    """Least squares on one number: steps with a learning rate above 2 / 16 grow, by so much that they overflow soon."""
    x = np.full((400, 1, 4, 4), 1, np.float32)
    data = chaos.data.Dataset((x,), targets=np.zeros((400, 1), np.float32))
    net = chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(1)], seed=3)
    return net, data, dict(loss="mse", lr_decay=1.0, update=update, workers=1, progress=False, epochs=3)


@pytest.mark.parametrize("update", ["sgd", "momentum"])
def test_a_training_that_diverges_is_taken_back(update, capsys, tmp_path):
    net, data, how = steep(update)
    run = chaos.train(net, data, lr=1.0, on_diverge="rollback", run_dir=tmp_path, **how)
    rates = [record["lr"] for record in run.history]
    cuts = round(-np.log2(rates[-1]))
    assert cuts > 0 and rates[-1] == 0.5**cuts and np.isfinite(net.weights).all()
    told = [line for line in capsys.readouterr().err.splitlines() if "goes back to its state of epoch" in line]
    assert len(told) == cuts and "learning rate of 0.5" in told[0]
    assert run.history[-1]["train_loss"] < 1e-3
    # what comes of it is a training with that learning rate from where it was taken back, and it is continued with it
    if rates[0] == rates[-1]:
        plain, data, how = steep(update)
        chaos.train(plain, data, lr=rates[0], **how)
        assert plain.weights.tobytes() == net.weights.tobytes()
    again, data, how = steep(update)
    more = chaos.train(again, data, lr=1.0, on_diverge="rollback", run_dir=tmp_path, resume=True, **how | {"epochs": 4})
    assert more.history[-1]["lr"] == rates[-1]


def test_a_training_that_cannot_be_saved_is_given_up():
    net, data, how = steep("sgd")
    before = net.weights.copy()
    with pytest.raises(chaos.DivergedError, match="epoch 1"):
        chaos.train(net, data, lr=1e30, on_diverge="rollback", **how)
    assert (net.weights == before).all()
    with pytest.raises(ValueError, match="unknown on_diverge 'retry'; known: stop, rollback"):
        chaos.train(net, data, lr=1.0, on_diverge="retry", **how)


def test_clocks_that_jump_change_nothing(few_digits, monkeypatch, tmp_path):
    """The time of day is not what intervals are measured with."""
    jumps = itertools.cycle([0.0, 1e9, -1e9])
    monkeypatch.setattr("time.time", lambda: next(jumps))
    net, straight = chaos.models.small(), chaos.models.small()
    (record,) = chaos.train(net, *few_digits, epochs=1, workers=1, run_dir=tmp_path, progress=False).history
    chaos.train(straight, *few_digits, epochs=1, workers=1, progress=False)
    assert net.weights.tobytes() == straight.weights.tobytes() and 0 < record["seconds"] < 100


def test_where_no_thread_can_be_started_the_state_is_kept_without_one(few_digits, monkeypatch, tmp_path):
    monkeypatch.setattr(training.phases, "POLL", 1e-3)
    monkeypatch.setattr(training.callbacks, "POLL", 1e-3)
    start, refused = threading.Thread.start, []

    def starts(thread):
        if thread.name.startswith("chaos-store"):
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    data = chaos.data.Dataset(np.tile(few_digits[0].images, (10, 1, 1, 1)), np.tile(few_digits[0].labels, 10))
    run = chaos.train(
        chaos.models.small(), data, epochs=1, workers=1, run_dir=tmp_path, progress=False, checkpoint_every=1e-9
    )
    assert refused and len(run.history) == 1 and run.history[0]["updates"]
    assert chaos.load(tmp_path / MODEL).n_parameters == 6405
