"""What a training gives back, shows and writes: tables, pictures, lines, logs, writers; and what is left of one that was
interrupted, or has gone astray."""

import csv
import importlib
import importlib.util
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

import chaos
from chaos import training
from chaos.cli import main
from chaos.training import CONFIG, progress

OPTIONS = dict(lr=0.01, progress=False, workers=1)


@pytest.fixture(scope="module")
def run(digits):
    return chaos.train(
        chaos.models.small(seed=0),
        digits[0][:200],
        digits[1],
        epochs=3,
        validation_split=0.2,
        evaluate_train=True,
        metrics=["f1", "confusion_matrix"],
        **OPTIONS,
    )


# ---- tables, lines, pictures ----


def test_a_run_is_one_line_and_a_table(run, tmp_path):
    last = run.history[-1]
    assert repr(run) == (
        f"<Run: 3 epochs, train_error {last['train_error']:.4g}, train_eval_error {last['train_eval_error']:.4g}, "
        f"validation_error {last['validation_error']:.4g}, test_error {last['test_error']:.4g}; "
        f"best epoch {run.best_epoch}; 1 worker>"
    )
    text = run._repr_html_()
    assert text.startswith("<p>&lt;Run: 3 epochs") and text.count("<tr>") == 4 and "<th>test_f1</th>" in text
    assert f"<strong>{run.best_epoch}</strong>" in text and "histogram" not in text and len(text) < 5000
    empty = chaos.Run(run.network, [], run.workers, tmp_path, stopped=True)
    assert repr(empty) == f"<Run: 0 epochs, stopped; 1 worker; {tmp_path}>" and "<table>" not in empty._repr_html_()


def test_a_run_is_a_data_frame(run):
    pandas = pytest.importorskip("pandas")
    frame = run.to_frame()
    assert isinstance(frame, pandas.DataFrame) and list(frame.index) == [1, 2, 3] and frame.index.name == "epoch"
    assert frame["test_f1"].tolist() == [record["test_f1"] for record in run.history]
    assert frame["staleness_mean"].tolist() == [record["staleness"]["mean"] for record in run.history]
    assert not any("histogram" in name or "confusion" in name or "layers" in name for name in frame.columns)
    assert chaos.Run(run.network, [], run.workers, None).to_frame().empty


@pytest.mark.parametrize("module, call", [("pandas", "to_frame"), ("matplotlib", "plot")])
def test_what_is_not_installed_is_named(run, monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"run.{call}.. needs {module} .pip install"):
        getattr(run, call)()


def test_a_run_is_drawn(run, monkeypatch, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    loss, error = run.plot()
    lines = {line.get_label(): list(line.get_ydata()) for line in loss.get_lines()}
    assert lines["validation"] == [record["validation_loss"] for record in run.history]
    assert list(lines) == ["training", "training, after the epoch", "validation", "test", f"best epoch, {run.best_epoch}"]
    assert error.get_ylabel() == "error" and error.get_xlabel() == "epoch"
    loss.figure.savefig(tmp_path / "run.svg")
    (one,) = run.plot(["validation_f1", "lr"])
    assert [line.get_label() for line in one.get_lines()][:2] == ["validation_f1", "lr"]
    with pytest.raises(ValueError, match="no record has a number 'validation_g1'; what they have: dropped,"):
        run.plot(["validation_g1"])
    with pytest.raises(ValueError, match="nothing to draw"):
        chaos.Run(run.network, [], run.workers, None).plot()
    matplotlib.pyplot.close("all")


# ---- lines, bars, logs ----


def test_lines_tell_metrics(digits, capsys):
    run = little(digits, metrics=["f1", "confusion_matrix"], validation_split=0.2)
    record, line = run.history[0], capsys.readouterr().err.splitlines()[-1]
    assert f" f1 {record['validation_f1']:.4g}  " in line and "confusion" not in line


def lines_of(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.fixture
def log(monkeypatch):
    """The logger as a program finds it, to be set up."""
    logger = logging.getLogger("chaos")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    before = logger.level
    yield logger
    logger.setLevel(before)


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.told = []

    def emit(self, record):
        self.told.append((record.levelname, record.getMessage()))


def little(digits, **options):
    return chaos.train(chaos.models.small(), digits[0][:50], epochs=1, lr=0.01, workers=1, **options)


def test_lines_go_where_the_program_wants_them(digits, capsys, log):
    little(digits)
    assert len(lines_of(capsys)) == 2  # nobody has set up a log: they are printed
    log.setLevel(logging.WARNING)
    little(digits)
    assert not lines_of(capsys)
    handler = Lines()
    log.addHandler(handler)
    little(digits)
    assert not handler.told
    log.setLevel(logging.INFO)
    for shown in (True, False):
        handler.told.clear()
        little(digits, progress=shown)
        assert not lines_of(capsys)
        assert [level for level, _ in handler.told] == ["INFO"] * 2 and handler.told[1][1].startswith(
            "epoch 1/1  train loss"
        )


class Bar:
    made = []

    def __init__(self, **options):
        self.options, self.n = options, options["initial"]
        Bar.made.append(self)

    def update(self, n):
        self.n += n

    def close(self):
        self.closed = True


@pytest.mark.parametrize("widgets", [True, False])
def test_bars_in_notebooks(digits, capsys, monkeypatch, widgets):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find(name) if name != "ipywidgets" else widgets or None)
    made = {"auto": 0, "plain": 0}

    def maker(which):
        def make(**options):
            made[which] += 1
            return Bar(**options)

        return make

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=maker("plain")))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=maker("auto")))
    monkeypatch.setattr(training.callbacks, "POLL", 1e-3)
    Bar.made.clear()
    data = chaos.data.Dataset(np.tile(digits[0].images, (4, 1, 1, 1)), np.tile(digits[0].labels, 4))
    chaos.train(chaos.models.small(), data, epochs=1, lr=0.01, workers=1)
    out = capsys.readouterr()
    assert not out.err and out.out.splitlines()[-1].startswith("epoch 1/1")
    assert made == {"auto": int(widgets), "plain": int(not widgets)} and Bar.made[0].closed
    assert Bar.made[0].options["total"] == len(data)
    chaos.train(chaos.models.small(), digits[0][:50], epochs=1, progress=False)
    assert not any(capsys.readouterr()) and sum(made.values()) == 1


def test_outside_of_notebooks():
    assert not progress.in_notebook()


# ---- writers ----


def test_csv_writer_has_all_epochs_whatever_happens(digits, tmp_path):
    path = tmp_path / "run.csv"
    options = dict(run_dir=tmp_path / "run", resume=True, callbacks=[chaos.callbacks.CSVWriter(path)], **OPTIONS)
    first = chaos.train(chaos.models.small(), digits[0][:50], digits[1][:20], epochs=2, **options)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["test_loss"]) for row in rows] == [record["test_loss"] for record in first.history]
    path.unlink()
    more = dict(options, callbacks=[chaos.callbacks.CSVWriter(path)], metrics=["accuracy"])
    chaos.train(chaos.models.small(), digits[0][:50], digits[1][:20], epochs=4, **more)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["test_accuracy"]) for row in rows] == [False, False, True, True]


def test_tensorboard_writer(digits, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = chaos.callbacks.TensorBoardWriter(tmp_path)
    run = chaos.train(chaos.models.small(), digits[0][:50], digits[1], epochs=2, callbacks=[writer], **OPTIONS)
    events = accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    assert {"loss/train", "error/test", "lr", "staleness_mean"} <= set(events.Tags()["tensors"])
    found = events.Tensors("loss/test")
    assert [event.step for event in found] == [1, 2]
    values = [float(event.tensor_proto.float_val[0]) for event in found]
    np.testing.assert_allclose(values, [record["test_loss"] for record in run.history], rtol=1e-6)


class FakeScalars:
    def __init__(self, where):
        self.where, self.told = where, []

    def add_scalar(self, tag, value, step):
        self.told.append((tag, value, step))

    def flush(self):
        pass

    def close(self):
        self.closed = True


def test_tensorboard_writer_takes_what_there_is(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="TensorBoardWriter needs tensorboard"):
        chaos.callbacks.TensorBoardWriter(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=FakeScalars))
    writer = chaos.callbacks.TensorBoardWriter(tmp_path)
    run = little(digits, progress=False, callbacks=[writer])
    assert ("loss/train", run.history[0]["train_loss"], 1) in writer._to.told and writer._to.closed


class FakeMLflow(types.ModuleType):
    """MLflow's functions with their signatures."""

    def __init__(self, active):
        super().__init__("mlflow")
        self.run, self.told, self.given = active, [], {}

    def active_run(self):
        return self.run

    def start_run(self, run_id=None, experiment_id=None, run_name=None, nested=False):
        self.run = run_name

    def end_run(self, status="FINISHED"):
        self.run, self.status = None, status

    def log_params(self, params, synchronous=None, run_id=None):
        assert all(len(value) <= 500 for value in params.values())
        self.given |= params

    def log_metrics(self, metrics, step=None, synchronous=None):
        assert all(type(value) is float for value in metrics.values())
        self.told.append((step, metrics))


@pytest.mark.parametrize("active", [None, "mine"])
def test_mlflow_writer(digits, monkeypatch, active):
    mlflow = FakeMLflow(active)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    run = little(digits, progress=False, callbacks=[chaos.callbacks.MLflowWriter(run_name="first")], metrics=["accuracy"])
    (step, told), record = mlflow.told[0], run.history[0]
    assert step == 1 and told["train_loss"] == record["train_loss"] and "layers" not in told
    assert mlflow.given["lr"] == "0.01" and mlflow.run == active
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match="this callback needs mlflow .pip install mlflow"):
        chaos.callbacks.MLflowWriter()


class FakeWandb(types.ModuleType):
    """Weights & Biases' functions with their signatures."""

    def __init__(self):
        super().__init__("wandb")
        self.run, self.told, self.config = None, [], self

    def init(self, entity=None, project=None, name=None, config=None, mode=None):
        self.options = project
        self.run = self
        return self

    def update(self, given, allow_val_change=None):
        self.given = given

    def log(self, data, step=None, commit=None):
        self.told.append((step, data))

    def define_metric(self, name, step_metric=None):
        self.axes = {**getattr(self, "axes", {}), name: step_metric}

    def finish(self, exit_code=None):
        self.run, self.code = None, exit_code


class Fails(chaos.Callback):
    def epoch_end(self, event, record):
        raise LookupError("planted")


def test_a_training_that_fails_is_no_success_elsewhere(digits, monkeypatch):
    mlflow, wandb = FakeMLflow(None), FakeWandb()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    writers = [chaos.callbacks.MLflowWriter(run_name="a"), chaos.callbacks.WandbWriter()]
    with pytest.raises(LookupError):
        little(digits, progress=False, callbacks=[*writers, Fails()])
    assert mlflow.status == "FAILED" and wandb.code == 1
    with pytest.raises(KeyboardInterrupt):
        chaos.train(
            chaos.models.small(), digits[0][:50], epochs=9, callbacks=[*writers, Interrupts(signal.SIGINT)], **OPTIONS
        )
    assert mlflow.status == "KILLED" and wandb.code == 1
    little(digits, progress=False, callbacks=writers)
    assert mlflow.status == "FINISHED" and wandb.code == 0


def test_a_run_of_wandb_that_is_under_way_goes_on_with_its_steps(digits, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    wandb.init()
    little(digits, progress=False, callbacks=[chaos.callbacks.WandbWriter()])
    assert [step for step, _ in wandb.told] == [None] and wandb.run is wandb
    assert wandb.axes["train_loss"] == "epoch" and wandb.told[0][1]["epoch"] == 1


@pytest.mark.filterwarnings("ignore")  # theirs
def test_the_real_mlflow(digits, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    run = little(digits, progress=False, callbacks=[chaos.callbacks.MLflowWriter(run_name="first")])
    (kept,) = mlflow.MlflowClient().search_runs(["0"])
    assert mlflow.active_run() is None and (kept.info.run_name, kept.info.status) == ("first", "FINISHED")
    assert kept.data.params["lr"] == "0.01" and kept.data.metrics["train_loss"] == run.history[-1]["train_loss"]


@pytest.mark.filterwarnings("ignore")  # theirs
def test_the_real_wandb(digits, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    options = dict(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True))
    with wandb.init(project="chaos", **options) as own:
        for _ in range(3):
            own.log({"mine": 1})
        run = little(digits, progress=False, callbacks=[chaos.callbacks.WandbWriter()])
        assert wandb.run is own and own.step == 4
        assert own.summary["train_loss"] == run.history[-1]["train_loss"] and own.config["strategy"] == "chaos"
    little(digits, progress=False, callbacks=[chaos.callbacks.WandbWriter(project="chaos", **options)])
    assert wandb.run is None and len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


def test_wandb_writer(digits, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = little(digits, progress=False, callbacks=[chaos.callbacks.WandbWriter(project="chaos")])
    assert wandb.options == "chaos" and wandb.told[0][0] == 1 and wandb.run is None and wandb.given["strategy"] == "chaos"
    assert wandb.told[0][1]["train_loss"] == run.history[0]["train_loss"]


@pytest.mark.parametrize(
    "module, fake, names",
    [
        ("mlflow", FakeMLflow, ("active_run", "start_run", "end_run", "log_params", "log_metrics")),
        ("wandb", FakeWandb, ("init",)),
    ],
)
def test_the_stand_ins_are_like_what_they_stand_for(module, fake, names):
    real = pytest.importorskip(module)
    for name in names:
        theirs = inspect.signature(getattr(real, name)).parameters
        ours = [one for one in inspect.signature(getattr(fake, name)).parameters if one != "self"]
        assert set(ours) <= theirs.keys(), name


# ---- interrupted, or astray ----


class Interrupts(chaos.Callback):
    def __init__(self, number):
        self.number = number

    def epoch_end(self, event, record):
        if record["epoch"] == 2:
            os.kill(os.getpid(), self.number)


def test_an_interrupted_cell_keeps_its_history(digits):
    net = chaos.models.small()
    with pytest.raises(KeyboardInterrupt, match="the network's history has the finished epochs") as caught:
        chaos.train(net, digits[0][:50], epochs=100, callbacks=[Interrupts(signal.SIGINT)], **OPTIONS)
    assert [record["epoch"] for record in net.history] == [1, 2]
    run = caught.value.run
    assert run.history is net.history and run.network is net and repr(run).startswith("<Run: 2 epochs")
    with pytest.raises(chaos.DivergedError) as diverged:
        chaos.train(net, digits[0][:50], epochs=3, **OPTIONS | {"lr": 1e38})
    assert diverged.value.run.history == net.history == []


@pytest.fixture
def hangup():
    """SIGHUP as in a terminal, whatever the tests were started from."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_saves_like_sigterm(digits, tmp_path, hangup):
    options = dict(epochs=100, run_dir=tmp_path, callbacks=[Interrupts(signal.SIGHUP)], **OPTIONS)
    with pytest.raises(SystemExit) as caught:
        chaos.train(chaos.models.small(), digits[0][:50], **options)
    assert caught.value.code == 128 + signal.SIGHUP and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    run = chaos.train(chaos.models.small(), digits[0][:50], epochs=3, run_dir=tmp_path, resume=True, **OPTIONS)
    assert len(run.history) == 3
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    run = chaos.train(chaos.models.small(), digits[0][:50], epochs=3, callbacks=[Interrupts(signal.SIGHUP)], **OPTIONS)
    assert len(run.history) == 3


@pytest.mark.parametrize("when", ["typing", "numpy.linalg", "chaos.threads", "chaos.cli.common", "argparse"])
def test_an_early_interrupt_shows_no_traceback(when):
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules.pop({when!r}, None)
sys.argv = ["/usr/bin/chaos", "info"]
class Interrupts:
    def find_spec(self, name, *others):
        if name == {when!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
from chaos.cli import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.stderr and not done.stdout and done.returncode == -signal.SIGINT


def test_other_programs_keep_their_hooks():
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); hook = sys.excepthook; import chaos; "
        "assert sys.excepthook is hook and signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_absurd_loss_is_told(digits, tmp_path, capsys, caplog):
    run = chaos.train(chaos.models.small(), digits[0][:100], epochs=2, **OPTIONS | {"lr": 1e9})
    assert run.doubt.startswith("train loss ") and "where guessing has 2.3: the learning rate" in run.doubt
    assert caplog.text.count("is most likely too large") == 1  # not after every epoch
    good = chaos.train(chaos.models.small(), digits[0][:100], epochs=1, **OPTIONS)
    assert good.doubt is None
    words = f"train small --data digits --subset 100 --workers 1 --lr 1e9 --epochs 1 --quiet --run-dir {tmp_path / 'a'}"
    assert main(words.split()) == 3
    assert "the learning rate 1e+09 is most likely too large" in capsys.readouterr().err
    flat = chaos.data.Dataset(np.ones((8, 2), np.float32), targets=np.ones((8, 1), np.float32))
    net = chaos.Network((2,), [chaos.Linear(1)])
    net.load_state_dict({name: np.full_like(value, 3e6) for name, value in net.state_dict().items()})
    wild = chaos.train(net, flat, loss="mse", epochs=1, **OPTIONS | {"lr": 1e-9})
    assert "the largest weight after epoch 1 is 3e+06" in wild.doubt


def test_numbers_of_numpy_are_kept(digits, tmp_path):
    own = {"share": np.float32(0.5), "seeds": np.arange(3), "where": tmp_path}
    chaos.train(chaos.models.small(), digits[0][:20], epochs=1, run_dir=tmp_path / "a", config=own, **OPTIONS)
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    assert config["share"] == 0.5 and config["seeds"] == [0, 1, 2] and config["where"] == str(tmp_path)
    with pytest.raises(TypeError, match="which config.json cannot keep"):
        chaos.train(
            chaos.models.small(), digits[0][:20], epochs=1, run_dir=tmp_path / "b", config={"a": object()}, **OPTIONS
        )
