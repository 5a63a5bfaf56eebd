"""Training: records, schedule, resuming, interruption, divergence, bad input, and that the process is left as found."""

import dataclasses
import inspect
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from nets import images
from threadpoolctl import threadpool_info

import chaos
from chaos import _core, training
from chaos.formats import atomic
from chaos.training import CONFIG, METRICS, MODEL, Settings

QUIET = dict(progress=False)


def train(net, *data, **options):
    return chaos.train(net, *data, **{"lr": 0.01, "progress": False, **options})


def test_learns_and_records(digits, tmp_path):
    net = chaos.models.small(seed=0)
    run = train(net, *digits, epochs=4, workers=2, run_dir=tmp_path / "a", evaluate_train=True)
    assert [r["epoch"] for r in run.history] == [1, 2, 3, 4]
    np.testing.assert_allclose([r["lr"] for r in run.history], [0.01, 0.009, 0.0081, 0.00729])
    last = run.history[-1]
    assert last["train_error"] < run.history[0]["train_error"] and last["test_error"] < 0.15
    assert {
        "epoch",
        "lr",
        "train_loss",
        "train_error",
        "train_eval_error",
        "test_loss",
        "test_error",
        "seconds",
        "images_per_second",
        "workers",
        "strategy",
        "staleness",
    } <= last.keys()
    assert last["workers"] == 2 and last["strategy"] == "chaos" and {"mean", "max", "histogram"} <= last["staleness"].keys()
    lines = (tmp_path / "a" / METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == run.history
    assert json.loads((tmp_path / "a" / CONFIG).read_text())["lr"] == 0.01
    again = chaos.load(tmp_path / "a" / MODEL)
    assert (again.forward(digits[1].images) == net.forward(digits[1].images)).all()
    result = chaos.evaluate(net, digits[1], workers=2)
    assert result["error"] == last["test_error"] == result["wrong"] / 360
    assert result["error"] == (net.predict(digits[1].images) != digits[1].labels).mean()
    assert result["loss"] == last["test_loss"]


@pytest.mark.parametrize("batch_size", [1, 7, 8, 9])
def test_evaluations_take_images_through_the_layers_together(digits, batch_size):
    class Seen(training.Threads):
        def start(self, job):
            self.job, self.evaluator = job, super().start(job)
            return self.evaluator

    seen, net = Seen(), chaos.models.small(seed=1)
    run = chaos.train(net, *digits, workers=1, epochs=1, batch_size=batch_size, lr=0.01, progress=False, runner=seen)
    together = _core.Engine(net.plan, net.weights, batch_size=max(batch_size, 8))
    assert seen.evaluator.worker_bytes == together.worker_bytes and (seen.evaluator is seen.job.engine) == (batch_size >= 8)
    assert run.history[-1]["test_loss"] == chaos.evaluate(net, digits[1], workers=1)["loss"]


def test_vectors(digits, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 12)).astype(np.float32)
    data = chaos.data.Dataset(x, (x[:, 0] > x[:, 1]).astype(int))
    net = chaos.Network((12,), [chaos.Linear(np.int64(16)), chaos.Tanh(), chaos.Linear(2)])
    run = train(net, data[:500], data[500:], epochs=5, lr=0.1, workers=2, run_dir=tmp_path)
    assert run.history[-1]["test_error"] < 0.2 and chaos.load(tmp_path / MODEL).config() == net.config()
    assert "12 float32" in repr(data)


def test_signals_are_not_lost_between_phases(digits):
    """A signal that comes while no phase runs, or when the last one is over, still ends the call."""
    for call in (
        lambda: train(chaos.models.small(), digits[0][:50], epochs=1, workers=1),
        lambda: chaos.evaluate(chaos.models.small(), digits[0][:50], workers=1),
    ):
        timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            for _ in range(10000):
                call()
        timer.join()


def test_without_test_set_and_directory(digits):
    run = train(chaos.models.small(), digits[0][:100], epochs=1, workers=1)
    assert run.run_dir is None and run.history[0]["test_error"] is None
    assert train(chaos.models.small(), digits[0][:100], epochs=0).history == []


@pytest.mark.parametrize("batch_size", [1, 16])
def test_same_seed_same_bits(digits, batch_size):
    def weights(**options):
        net = chaos.models.small(seed=4)
        train(net, digits[0][:500], epochs=2, batch_size=batch_size, **options)
        return net.weights.tobytes()

    reference = weights(strategy="sequential")
    assert weights(strategy="sequential") == reference == weights(strategy="chaos", workers=1)
    assert weights(strategy="sequential", seed=1) != reference
    assert weights(strategy="sequential", shuffle=False) != reference


def test_resume_continues_bit_for_bit(digits, tmp_path):
    part = digits[0][:400], digits[1]
    whole = chaos.models.small(seed=1)
    history = train(whole, *part, epochs=4, strategy="sequential").history
    for _ in range(2):  # the second time there is nothing left to do
        for epochs in (2, 4):
            net = chaos.models.small(seed=1)
            run = train(net, *part, epochs=epochs, strategy="sequential", run_dir=tmp_path, resume=True)
    assert net.weights.tobytes() == whole.weights.tobytes()
    times = "seconds", "images_per_second", "time_split"
    timeless = [{k: v for k, v in r.items() if k not in times} for r in run.history]
    assert timeless == [{k: v for k, v in r.items() if k not in times} for r in history]
    assert len((tmp_path / METRICS).read_text().splitlines()) == 4


def test_metrics_follow_the_checkpoint(digits, tmp_path):
    """Killed between the line and the checkpoint, or between other steps: the files agree again after resuming."""
    part = digits[0][:100], None
    train(chaos.models.small(), *part, epochs=2, workers=1, run_dir=tmp_path)
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"epoch": 3, "half a li')
    run = train(chaos.models.small(), *part, epochs=3, workers=1, run_dir=tmp_path, resume=True)
    assert [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()] == run.history
    assert len(run.history) == 3


def test_keeping_an_epoch_costs_the_same_after_any_number(tmp_path, monkeypatch):
    """Counted in bytes that are written; the numbers in them may have other lengths."""
    written, write = [], atomic._write
    monkeypatch.setattr(atomic, "_write", lambda path, data: (written.append(len(data)), write(path, data)))
    data = chaos.data.Dataset(np.zeros((4, 1, 2, 2), np.uint8), [0, 1, 0, 1], classes=2)
    net = chaos.Network((1, 2, 2), [chaos.Flatten(), chaos.Linear(2)])
    run = train(net, data, epochs=120, workers=1, run_dir=tmp_path)
    config, nothing, *kept = written
    assert config and not nothing and len(kept) == 120
    assert max(kept) - min(kept) < 100
    lines = (tmp_path / METRICS).read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == run.history and max(map(len, lines)) < 1.2 * min(map(len, lines))


def test_metrics_that_have_been_changed_are_refused(digits, tmp_path):
    part, options = (digits[0][:50], None), dict(epochs=2, workers=1, run_dir=tmp_path)
    train(chaos.models.small(), *part, **options)
    good = (tmp_path / METRICS).read_bytes()
    for bad in (b"", good[:-1], good.replace(b'"epoch": 1', b'"epoch": 3'), b"\n" + good):
        (tmp_path / METRICS).write_bytes(bad)
        with pytest.raises(chaos.CheckpointError, match=f"{METRICS}: has been changed; its first 2 lines"):
            train(chaos.models.small(), *part, **options, resume=True)
        assert (tmp_path / METRICS).read_bytes() == bad
    (tmp_path / METRICS).unlink()
    with pytest.raises(chaos.CheckpointError, match=f"{METRICS}: cannot be read .No such file"):
        train(chaos.models.small(), *part, **options, resume=True)
    (tmp_path / METRICS).write_bytes(good)
    assert len(train(chaos.models.small(), *part, **options | {"epochs": 3}, resume=True).history) == 3


def test_metrics_that_are_removed_meanwhile_are_written_again(tmp_path, digits):
    class Removes(chaos.Callback):
        def epoch_end(self, event, record):
            (tmp_path / METRICS).unlink()

        def train_end(self, event):
            assert not (tmp_path / METRICS).exists()

    train(chaos.models.small(), digits[0][:50], epochs=2, workers=1, run_dir=tmp_path, callbacks=[Removes()])
    state = json.loads(chaos.loading.load_with_state(tmp_path / MODEL)[1]["training"])
    assert state["epochs"] == 2
    folder = tmp_path / "other"

    class RemovesOnce(chaos.Callback):
        def epoch_end(self, event, record):
            if record["epoch"] == 1:
                (folder / METRICS).unlink()

    run = train(chaos.models.small(), digits[0][:50], epochs=3, workers=1, run_dir=folder, callbacks=[RemovesOnce()])
    assert [json.loads(line) for line in (folder / METRICS).read_text().splitlines()] == run.history


def test_damaged_training_states_are_refused(digits, tmp_path):
    """Every value of the state replaced by values of every kind."""
    train(chaos.models.small(), digits[0][:50], None, epochs=1, workers=1, run_dir=tmp_path)
    net, metadata, tensors = chaos.loading.load_with_state(tmp_path / MODEL)
    state = json.loads(metadata["training"])
    partial = training.records.no_counts() | {"position": 5, "images": 5}
    bad = [None, True, -1, 1e400, 10**400, "x", [], [1], {}, {"a": 1}, float("nan")]
    damaged = ["[" * 100_000, "1", "[]", "null", "{"]
    for key in state:
        damaged += [json.dumps(state | {key: value}) for value in bad if not (key == "partial" and value is None)]
        damaged.append(json.dumps({k: v for k, v in state.items() if k != key}))
    for key in partial:
        kind = type(partial[key])
        wrong = [value for value in bad if not isinstance(value, kind) or value in (-1, 1e400) or value != value]
        damaged += [json.dumps(state | {"partial": partial | {key: value}}) for value in wrong if value is not True]
    refused = 0
    for text in damaged:
        net.save(tmp_path / MODEL, {"training": text}, tensors)
        try:
            train(chaos.models.small(), digits[0][:50], None, epochs=1, workers=1, run_dir=tmp_path, resume=True)
        except chaos.CheckpointError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{text[:500]} gives {type(error).__name__}: {error}") from error
    assert refused > 0.8 * len(damaged)


@pytest.mark.parametrize("number, outcome", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_interrupted_and_resumed_is_uninterrupted(digits, tmp_path, number, outcome):
    data = chaos.data.Dataset(np.tile(digits[0].images, (20, 1, 1, 1)), np.tile(digits[0].labels, 20))
    whole = chaos.models.small(seed=2)
    history = train(whole, data, epochs=2, strategy="sequential").history
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
    timer.start()
    start = time.perf_counter()
    with pytest.raises(outcome) as caught:
        train(chaos.models.small(seed=2), data, epochs=1000, strategy="sequential", run_dir=tmp_path)
    assert time.perf_counter() - start < 5
    if outcome is SystemExit:
        assert caught.value.code == 143
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert chaos.load(tmp_path / MODEL).n_parameters == 6405
    net = chaos.models.small(seed=2)
    run = train(net, data, epochs=2, strategy="sequential", run_dir=tmp_path, resume=True)
    if len(run.history) == 2:  # on a very fast machine more epochs are done already
        assert net.weights.tobytes() == whole.weights.tobytes()
        for got, want in zip(run.history, history, strict=True):
            assert got["train_error"] == want["train_error"] and got["updates"] == want["updates"]
            np.testing.assert_allclose(got["train_loss"], want["train_loss"], rtol=1e-12)  # summed in two pieces


KILLED = """
import sys, chaos
train, test = chaos.data.load("digits", size=29)
chaos.train(chaos.models.small(seed=0), train[:200], None, epochs=100000, workers=2, lr=0.001, run_dir=sys.argv[1],
            resume=True, progress=False)
"""


def test_sigkill_leaves_a_valid_checkpoint(digits, tmp_path):
    rng = random.Random(0)
    done = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
        while not (tmp_path / MODEL).exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.5 + 0.5 * rng.random())
        process.kill()
        process.wait()
        net = chaos.models.small(seed=0)
        state = train(net, digits[0][:200], None, epochs=0, workers=2, lr=0.001, run_dir=tmp_path, resume=True).history
        assert np.isfinite(net.weights).all() and len(state) >= done
        done = len(state)
    assert done > 0


def test_divergence_names_the_place_and_keeps_the_last_good_weights(digits, tmp_path):
    net = chaos.models.small(seed=0)
    good = train(net, digits[0][:300], None, epochs=1, workers=1, run_dir=tmp_path)
    weights = net.weights.copy()
    with pytest.raises(chaos.DivergedError, match=r"epoch 1 after \d+ of 300 images"):
        chaos.train(net, digits[0][:300], epochs=2, lr=1e38, workers=2, progress=False)
    assert (net.weights == weights).all()
    assert good.history


@pytest.mark.parametrize("what, words", [("weights", "a weight"), ("moments", "update rule's state")])
def test_a_broken_state_replaces_no_good_one(digits, tmp_path, monkeypatch, what, words):
    """Stopped when something has overflowed that no loss has shown yet."""
    options = dict(workers=1, update="adam", lr=1e-3, run_dir=tmp_path)
    net = chaos.models.small(seed=0)
    train(net, digits[0][:100], epochs=1, **options)
    good, phase = net.weights.copy(), training.phases.run_phase

    def breaks(pool, engine, *others, **arguments):
        engine.stop()
        result = phase(pool, engine, *others, **arguments)
        getattr(held, what)[...] = np.inf
        return result

    held = SimpleNamespace()

    class Watched(training.Job):
        def __init__(self, *args, **named):
            super().__init__(*args, **named)
            held.weights, held.moments = self.net.weights, self.moments

    with monkeypatch.context() as patch:
        patch.setattr(training.phases, "run_phase", breaks)
        patch.setattr(training.run, "Job", Watched)
        with pytest.raises(chaos.DivergedError, match=f"epoch 2: .*{words} is not finite .* the last good checkpoint is"):
            train(net, digits[0][:100], epochs=2, resume=True, **options)
    assert (net.weights == good).all()
    assert len(train(chaos.models.small(), digits[0][:100], epochs=2, resume=True, **options).history) == 2


def test_state_of_another_run_is_refused(digits, tmp_path):
    options = dict(epochs=1, workers=1, run_dir=tmp_path)
    train(chaos.models.small(), digits[0][:50], None, **options)
    with pytest.raises(chaos.CheckpointError, match="already holds a run"):
        train(chaos.models.small(), digits[0][:50], None, **options)
    for other, word in ((dict(lr=0.5), "lr"), (dict(seed=9), "seed"), (dict(batch_size=2), "batch_size")):
        with pytest.raises(chaos.CheckpointError, match=word):
            train(chaos.models.small(), digits[0][:50], None, **options, **other, resume=True)
    with pytest.raises(chaos.CheckpointError, match="train"):
        train(chaos.models.small(), digits[0][:51], None, **options, resume=True)
    with pytest.raises(chaos.CheckpointError, match="network"):
        train(chaos.models.medium(), digits[0][:50], None, **options, resume=True)
    (tmp_path / MODEL).write_bytes((tmp_path / MODEL).read_bytes()[:-5])
    with pytest.raises(chaos.CheckpointError, match=MODEL):
        train(chaos.models.small(), digits[0][:50], None, **options, resume=True)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(chaos.CheckpointError, match="is a file"):
        train(chaos.models.small(), digits[0][:50], None, epochs=1, run_dir=file)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(strategy=["chaos"]), r"unknown strategy \['chaos'\]"),
        (dict(resume=True), "resume=True needs run_dir"),
        (dict(strategy_options=["a=1"]), "options of strategy 'chaos' must be a dict, not"),
        (dict(strategy="wild"), "unknown strategy 'wild'; did you mean hogwild. known: averaging, chaos"),
        (dict(loss="l3"), "unknown loss 'l3'"),
        (dict(epochs=-1), "epochs"),
        (dict(epochs=1.5), "epochs"),
        (dict(lr=0), "lr"),
        (dict(lr=float("nan")), "lr"),
        (dict(lr_decay=-1), "lr_decay"),
        (dict(batch_size=0), "batch_size"),
        (dict(seed=-1), "seed"),
        (dict(lr=10**400), "lr must be"),
        (dict(lr=1e-60), "at most 1e-60"),
        (dict(lr_decay=10**400), "lr_decay must be"),
        (dict(update="adagrad", update_options={"lr_decay": 10**400}), "lr_decay of update rule 'adagrad' must be"),
        (dict(workers=0), "workers"),
        (dict(epochs=10**400), "epochs"),
        (dict(lr=1e-300, lr_decay=1e300), "learning rate of"),
        (dict(strategy="sequential", workers=2), "one worker"),
        *(
            (
                {flag: value} | ({"run_dir": "nowhere/run"} if flag == "resume" else {}),
                f"{flag} must be True or False, not {value!r}",
            )
            for flag in ("shuffle", "evaluate_train", "progress", "resume", "rank_details")
            for value in ("no", "False", 0, 1.0, None)
        ),
    ],
)
def test_bad_options(digits, options, words):
    with pytest.raises(ValueError, match=words):
        train(chaos.models.small(), digits[0][:20], **options)


def test_bad_data(digits):
    x, y = images(20, (1, 29, 29))
    with pytest.raises(chaos.DataError, match=r"chaos.data.Dataset\(images, labels\)"):
        train(chaos.models.small(), (x, y))
    with pytest.raises(chaos.DataError, match=r"\(20, 1, 28, 28\)"):
        train(chaos.models.small(), chaos.data.Dataset(x[:, :, :28, :28], y))
    with pytest.raises(chaos.DataError, match=r"label 11 of image 3 is not in 0..9"):
        y = y.copy()
        y[3] = 11
        train(chaos.models.small(), chaos.data.Dataset(x, y))
    with pytest.raises(chaos.DataError, match="NaN"):
        x[2, 0, 3, 3] = np.nan
        chaos.models.small().forward(x)
    with pytest.raises(TypeError, match=r"chaos\.Network"):
        train("small", digits[0])
    with pytest.raises(TypeError, match="run_dir must be the path of a directory, not 3"):
        train(chaos.models.small(), digits[0], run_dir=3)


def test_works_outside_the_main_thread(digits):
    found = []
    thread = threading.Thread(target=lambda: found.append(train(chaos.models.small(), digits[0][:100], epochs=1, workers=2)))
    thread.start()
    thread.join()
    assert found[0].history[0]["epoch"] == 1


def test_blas_threads_are_restored(digits):
    np.ones((50, 50)) @ np.ones((50, 50))
    before = [(p["filepath"], p["num_threads"]) for p in threadpool_info()]
    train(chaos.models.small(), digits[0][:100], epochs=1, workers=2)
    after = {p["filepath"]: p["num_threads"] for p in threadpool_info()}
    assert all(after[path] == n for path, n in before)


def test_lines_when_not_on_a_terminal(digits, capsys):
    chaos.train(chaos.models.small(), digits[0][:100], digits[1], epochs=2, lr=0.01, workers=2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("2 workers (limit: argument 2")
    assert lines[1].startswith("epoch 1/2  train loss ") and "test loss" in lines[1] and "\r" not in "".join(lines)


def test_the_signature_of_train_states_every_setting():
    """What is no setting is an object: data, and who takes part."""
    shown = inspect.signature(chaos.train).parameters
    stated = {field.name: field.default for field in dataclasses.fields(Settings)}
    objects = {
        "net",
        "train",
        "test",
        "validation_data",
        "sample_weight",
        "validate",
        "config",
        "callbacks",
        "comm",
        "link",
        "runner",
    }
    assert {name: one.default for name, one in shown.items() if name not in objects} == stated
    assert objects <= shown.keys() and "cluster" in stated
    assert all(one.kind is one.KEYWORD_ONLY for name, one in shown.items() if name in stated)
    for name in shown:
        assert re.search(rf"^    (\w+, )*{name}(, \w+)* : ", chaos.train.__doc__, re.M), f"{name} is not documented"
