"""Callbacks: what they hear and when, that they may stop a training and read its weights, and what their errors do."""

import json
import os
import signal
import threading

import numpy as np
import pytest
from test_cluster import library, run  # noqa: F401

import chaos
from chaos import training, virtual
from chaos.training import METRICS, MODEL


@pytest.fixture(scope="module")
def many(digits):
    return chaos.data.Dataset(np.tile(digits[0].images, (20, 1, 1, 1)), np.tile(digits[0].labels, 20))


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(training.callbacks, "POLL", 1e-3)


def train(net, *data, **options):
    return chaos.train(net, *data, **{"lr": 0.01, "progress": False, **options})


class Heard(chaos.Callback):
    """Notes what it hears."""

    def __init__(self, interval=None, **do):
        self.interval, self.do, self.heard, self.steps = interval, do, [], []

    def note(self, name, event, *more):
        self.heard.append((name, event.epoch, *more))
        self.thread = threading.current_thread()
        if name in self.do:
            self.do[name](event)

    def train_begin(self, event):
        self.note("train_begin", event)

    def epoch_begin(self, event):
        self.note("epoch_begin", event)

    def epoch_end(self, event, record):
        assert event.history[-1] is record
        self.note("epoch_end", event, record["epoch"])

    def train_end(self, event):
        self.ending = event.ending
        self.note("train_end", event)

    def step(self, event):
        self.steps.append((event.epoch, event.phase, event.position, event.images))
        if "step" in self.do:
            self.do["step"](event)


def test_the_order_of_events(digits):
    heard = Heard()
    run = train(chaos.models.small(), digits[0][:100], digits[1], epochs=2, callbacks=[heard])
    assert heard.heard == [
        ("train_begin", 0),
        ("epoch_begin", 1),
        ("epoch_end", 1, 1),
        ("epoch_begin", 2),
        ("epoch_end", 2, 2),
        ("train_end", 2),
    ]
    assert heard.thread is threading.main_thread() and heard.ending is None and not run.stopped


@pytest.mark.parametrize("runner", [None, "virtual"])
def test_callbacks_change_no_bit_and_hear_of_all_phases(digits, many, runner):
    def weights(**options):
        net = chaos.models.small(seed=1)
        made = virtual.Virtual() if runner else None
        train(net, many[:6000], many[:6000], epochs=1, strategy="sequential", evaluate_train=True, runner=made, **options)
        return net.weights.tobytes()

    found = []
    heard = Heard(step=lambda event: found.append(event.weights()))
    assert weights(callbacks=[heard]) == weights()
    assert {phase for _, phase, *_ in heard.steps} == {"train", "train_eval", "test"}
    assert {images for *_, images in heard.steps} == {6000} and len(found) == len(heard.steps) > 2
    positions = [position for _, phase, position, _ in heard.steps if phase == "train"]
    assert positions == sorted(positions) and 0 <= positions[0] and positions[-1] <= 6000


def test_intervals(many):
    rare, every = Heard(10000), Heard()
    train(chaos.models.small(), many, epochs=1, workers=1, callbacks=[rare, every])
    positions = [position for *_, position, _ in rare.steps]
    assert len(every.steps) > len(positions) >= 1
    assert all(position >= 10000 for position in positions)
    bins = [position // 10000 for position in positions]
    assert len(set(bins)) == len(bins), "called twice within one interval"
    assert train(chaos.models.small(), many[:10], epochs=1, callbacks=[Heard(np.int64(3))]).history


def test_weights_are_those_of_the_network_when_workers_rest(digits):
    kept = []
    heard = Heard(epoch_end=lambda event: kept.append((event.weights(), event.network.state_dict())))
    train(chaos.models.small(), digits[0][:100], epochs=2, workers=2, callbacks=[heard])
    for read, state in kept:
        assert read.keys() == state.keys() and all((read[name] == state[name]).all() for name in state)


@pytest.mark.parametrize("when", ["train_begin", "epoch_begin", "step", "epoch_end"])
def test_a_stopped_run_is_kept_and_goes_on(many, tmp_path, when):
    data = many[:8000], many[:100]
    whole = chaos.models.small(seed=2)
    options = dict(epochs=2, strategy="sequential")
    history = train(whole, *data, **options).history
    stop = Heard(**{when: lambda event: event.stop()})
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run = train(chaos.models.small(seed=2), *data, run_dir=tmp_path, callbacks=[stop], **options)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert run.stopped and len(run.history) == (1 if when == "epoch_end" else 0)
    assert stop.heard[-1][0] == "train_end" and f"the state is in {tmp_path}" in stop.ending
    state = json.loads(chaos.loading.load_with_state(tmp_path / MODEL)[1]["training"])
    if when == "step":
        assert 0 < state["partial"]["position"] < 8000
    net = chaos.models.small(seed=2)
    run = train(net, *data, run_dir=tmp_path, resume=True, **options)
    assert net.weights.tobytes() == whole.weights.tobytes() and not run.stopped
    assert [one["test_error"] for one in run.history] == [one["test_error"] for one in history]


def test_a_signal_prevails_over_a_stop(many):
    def both(event):
        event.stop()
        os.kill(os.getpid(), signal.SIGINT)

    heard = Heard(step=both)
    with pytest.raises(KeyboardInterrupt):
        train(chaos.models.small(), many, epochs=1000, callbacks=[heard])
    assert heard.heard[-1][0] == "train_end" and heard.ending.startswith("stopped in epoch 1 after")


@pytest.mark.parametrize("when", ["train_begin", "epoch_begin", "step", "epoch_end", "train_end"])
def test_an_exception_ends_the_training(many, tmp_path, when):
    def fail(event):
        raise LookupError("planted")

    heard, beside = Heard(**{when: fail}), Heard()
    threads = threading.active_count()
    net = chaos.models.small()
    with pytest.raises(LookupError, match="planted"):
        train(net, many, epochs=1 if when == "train_end" else 1000, run_dir=tmp_path, callbacks=[beside, heard], workers=2)
    assert threading.active_count() == threads
    assert len(heard.heard) == len([name for name, *_ in heard.heard if name != "train_end"]) + 1
    assert [name for name, *_ in beside.heard].count("train_end") == 1
    done = len((tmp_path / METRICS).read_text().splitlines())
    assert done == (1 if when in ("epoch_end", "train_end") else 0)
    before = net.weights.copy()
    assert train(net, many[:100], epochs=1, workers=2).history  # the workers have stopped, and work again
    assert (net.weights != before).any()


def test_a_second_error_replaces_no_first_one(digits):
    def fail(event):
        raise LookupError("planted")

    with pytest.raises(LookupError, match="planted") as caught:
        train(
            chaos.models.small(),
            digits[0][:50],
            epochs=1,
            callbacks=[Heard(epoch_end=fail, train_end=lambda event: {}["second"])],
        )
    assert caught.value.__notes__ == ["train_end of Heard has failed, too: KeyError: 'second'"]


def test_any_object_will_do_but_not_nothing(digits):
    class Plain:
        def epoch_end(self, event, record):
            self.record = record

    plain = Plain()
    run = train(chaos.models.small(), digits[0][:50], epochs=1, callbacks=(one for one in [plain]))
    assert plain.record is run.history[0]
    for wrong in ([print], [Heard], Heard(), [None]):
        with pytest.raises(TypeError, match="callback"):
            train(chaos.models.small(), digits[0][:50], epochs=1, callbacks=wrong)
    for interval in (0, 1.5, "all"):
        with pytest.raises(ValueError, match="interval of Heard must be a whole number"):
            train(chaos.models.small(), digits[0][:50], epochs=1, callbacks=[Heard(interval)])


JOB = """
train, test = chaos.data.load("digits", size=29)
at, what, mode, when = json.loads(sys.argv[2])
class Ends(chaos.Callback):
    def act(self, event):
        if rank() == at and len(event.history) == 1 and event.ranks == 2 and event.rank == at:
            if what == "raise":
                raise LookupError("planted")
            event.stop()
    def step(self, event):
        if event.phase == "train" and event.epoch == 2 and when == "step":
            self.act(event)
    def epoch_end(self, event, record):
        if when == "epoch_end":
            self.act(event)
net = chaos.models.small(seed=0)
train = chaos.data.Dataset(np.tile(train.images, (20, 1, 1, 1)), np.tile(train.labels, 20)) if when == "step" else train
how = dict(strategy="synchronous", batch_size=32) if mode == "allreduce" else {}
try:
    run = chaos.train(net, train, test[:50], cluster=mode, epochs=100, lr=0.01, workers=1, progress=False, stall_timeout=30,
                      callbacks=[Ends()], run_dir=folder / "run", **how)
    tell([digest(net), len(run.history), run.stopped])
except Exception as error:
    tell([type(error).__name__, str(error)])
"""


def told(library, folder, *arguments):  # noqa: F811
    return run(library, 2, JOB, folder, json.dumps(arguments), timeout=90)[0]


@pytest.mark.parametrize("mode, when, at", [("local", "step", 1), ("allreduce", "step", 0), ("easgd", "epoch_end", 1)])
def test_a_stop_on_one_rank_stops_all(library, tmp_path, mode, when, at):  # noqa: F811
    first, second = told(library, tmp_path, at, "stop", mode, when)
    assert first == second and first[1:] == [1, True]
    state = json.loads(chaos.loading.load_with_state(tmp_path / "run" / MODEL)[1]["training"])
    assert state["epochs"] == 1 and bool(state["partial"]) == (when == "step")


@pytest.mark.parametrize("mode, when, at", [("local", "step", 1), ("allreduce", "step", 1), ("async", "epoch_end", 0)])
def test_an_error_on_one_rank_is_one_on_all(library, tmp_path, mode, when, at):  # noqa: F811
    found = told(library, tmp_path, at, "raise", mode, when)
    assert found[at] == ["LookupError", "'planted'"] or found[at] == ["LookupError", "planted"]
    name, text = found[1 - at]
    assert name == "ClusterError" and f"rank {at} (" in text and "LookupError: planted" in text
    assert len((tmp_path / "run" / METRICS).read_text().splitlines()) == 1


def test_the_bar_of_a_terminal(digits, monkeypatch, capsys):
    bars = []

    class Bar:
        def __init__(self, desc, total, initial, **options):
            self.desc, self.total, self.n = desc, total, initial
            bars.append(self)

        def update(self, n):
            self.n += n

        def close(self):
            self.closed = True

    begin = training.progress.Progress.train_begin

    def train_begin(self, event):
        self.tqdm = Bar
        begin(self, event)

    monkeypatch.setattr(training.progress.Progress, "train_begin", train_begin)
    data = chaos.data.Dataset(np.tile(digits[0].images, (20, 1, 1, 1)), np.tile(digits[0].labels, 20))
    chaos.train(chaos.models.small(), data, data, epochs=2, lr=0.01)
    assert [bar.desc for bar in bars] == [f"epoch {n}/2 {phase}" for n in (1, 2) for phase in ("train", "test")]
    assert all(bar.closed and bar.total == len(data) and 0 < bar.n <= len(data) for bar in bars)
    assert len(capsys.readouterr().err.splitlines()) == 3
