"""The command line: help, errors in one line, every command, resuming, signals, pipes."""

import contextlib
import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import chaos
import chaos.data.mnist
from chaos.cli import main
from chaos.cli.train import quantile
from chaos.training import ABOUT, CONFIG, METRICS, MODEL

COMMANDS = [
    "",
    "train",
    "evaluate",
    "predict",
    "bench",
    "bench throughput",
    "bench kernels",
    "bench scaling",
    "info",
    "doctor",
    "launch",
    "plot",
    "summary",
    "simulate",
    "replay",
    "reproduce",
    "estimate",
    "export",
    "data",
    "data list",
    "data check",
    "completion",
]
TRAIN = ["train", "small", "--data", "digits", "--subset", "200", "--lr", "0.01", "--strategy", "sequential"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory of its own, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("CHAOS_DATA_DIR", "CHAOS_NUM_THREADS", "OMP_NUM_THREADS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No MNIST anywhere, and none to be downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(chaos.data.mnist, "MIRRORS", ("http://127.0.0.1:9/",))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with two epochs."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TRAIN, "--epochs", "2", "--run-dir", str(folder), "--quiet"]) == 0
    return folder


def refused(capsys, *argv, code=2):
    """The one line that a command ends with."""
    assert main(list(argv)) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("chaos: error: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@contextlib.contextmanager
def child(*argv, **options):
    """`python -m chaos` as a process; its Ctrl-C works also where this process ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "chaos", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


# ---- help and usage ----


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert out.split()[: 2 + len(command.split())] == ["usage:", "chaos", *command.split()]
    assert "examples:" in out and max(map(len, out.splitlines())) <= width


def test_examples_in_help_are_commands_that_parse(capsys, monkeypatch):
    from chaos.cli import _parser

    monkeypatch.setenv("COLUMNS", "40")
    for command in COMMANDS:
        main([*command.split(), "--help"])
        text = capsys.readouterr().out.replace("\\\n", " ")
        examples = re.findall(r"^  (?:[A-Z_]+=\S+ +)*chaos +(\S.*)", text, re.M)
        assert examples
        for example in examples:
            assert _parser().parse_known_args(example.split())[1] == []


def test_train_asks_for_every_setting():
    """With options that argparse gives no value of its own, so that a continued run's are taken where none is given."""
    from chaos.cli import _parser

    asked = vars(_parser().parse_args(["train", "small"]))
    assert {name: asked[name] for name in ABOUT} == dict.fromkeys(ABOUT)
    changed = vars(_parser().parse_args("train small --lr 2 --quiet --resume --run-dir r --no-shuffle --momentum 3".split()))
    changed = {name: value for name, value in changed.items() if name in ABOUT and value is not None}
    assert changed == {
        "lr": 2,
        "progress": False,
        "resume": True,
        "run_dir": "r",
        "shuffle": False,
        "update_options": ["momentum=3"],
    }


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"chaos {chaos.__version__}\n"


def test_usage_errors_name_the_help(capsys):
    assert "'chaos --help'" in refused(capsys)
    assert "'chaos --help'" in refused(capsys, "trian")
    assert "'chaos train --help'" in refused(capsys, "train")
    assert "'chaos train --help'" in refused(capsys, "train", "small", "--epochs", "many")
    assert "'chaos train --help'" in refused(capsys, "train", "small", "--epoch", "1")  # no abbreviations
    assert "'chaos bench throughput --help'" in refused(capsys, "bench", "throughput", "--workers", "1,x")


def test_entry_point_is_the_same_program():
    with child("--version") as process:
        assert process.communicate()[0] == f"chaos {chaos.__version__}\n" and process.returncode == 0


# ---- errors ----


def test_unknown_names_list_the_known_ones(capsys):
    err = refused(capsys, "train", "lage", "--data", "digits")
    assert "did you mean large?" in err and all(name in err for name in chaos.models.MODELS)
    err = refused(capsys, "train", "small", "--data", "nist")
    assert "mnist" in err and "digits" in err and ".npz" in err
    assert "sequential" in refused(capsys, "train", "small", "--strategy", "hogwash")
    assert "mse" in refused(capsys, "train", "small", "--loss", "hinge")
    err = refused(capsys, "bench", "throughput", "--model", "tiny")
    assert "small" in err
    assert (
        "avx2" in refused(capsys, "bench", "throughput", "--model", "small", "--isa", "mmx")
        or "avx2" not in chaos.info()["isa_supported"]
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--workers", "0"],
        ["--epochs", "-1"],
        ["--lr", "0"],
        ["--lr", "nan"],
        ["--batch-size", "0"],
        ["--seed", "-1"],
        ["--subset", "0"],
        ["--strategy", "sequential", "--workers", "2"],
    ],
)
def test_impossible_numbers_leave_nothing_behind(options, capsys, tmp_path):
    assert options[0].strip("-").replace("-", "_") in refused(
        capsys, "train", "small", "--data", "digits", *options
    ).replace("-", "_")
    assert list(tmp_path.iterdir()) == []


def test_bench_refuses_impossible_numbers(capsys):
    for options in (
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--repeats", "0"],
        ["--batch-size", "0"],
        ["--batch-size", "99999999999"],
        ["--workers", "0"],
        ["--workers", "99999"],
    ):
        refused(capsys, "bench", "throughput", "--model", "small", *options)


def test_missing_and_damaged_files(capsys, tmp_path, trained):
    (tmp_path / "bad.safetensors").write_bytes((trained / MODEL).read_bytes()[:500])
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 nothing")
    (tmp_path / "empty").mkdir()
    for command in (
        "train none.safetensors",
        "train bad.safetensors",
        "train small --data none.npz",
        "train small --data bad.npz",
        "evaluate none",
        "evaluate none.safetensors",
        "evaluate bad.safetensors",
        "evaluate empty",
        "predict RUN none.npy",
        "predict RUN none",
        "predict RUN bad.npz",
    ):
        (name,) = re.findall(r"none\S*|bad\S*|empty", command)
        assert name in refused(capsys, *(str(trained) if word == "RUN" else word for word in command.split()))
    assert "no test images" in refused(capsys, "evaluate", str(trained), "--data", only_training(tmp_path))


def only_training(folder):
    path = folder / "train.npz"
    np.savez(path, x_train=np.zeros((4, 29, 29), np.uint8), y_train=np.arange(4))
    return str(path)


def test_run_directories(capsys, tmp_path, trained):
    assert "already holds a run" in refused(capsys, *TRAIN, "--run-dir", str(trained))
    assert "--run-dir" in refused(capsys, "train", "small", "--resume")
    assert "holds no run" in refused(capsys, "train", "--resume", "--run-dir", "nowhere")
    assert "lr (" in refused(capsys, "train", "--resume", "--run-dir", str(trained), "--lr", "0.5")
    assert "network" in refused(capsys, "train", "medium", "--resume", "--run-dir", str(trained))
    assert "--resume --run-dir" in refused(capsys, "train", str(trained), "--data", "digits")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / CONFIG).write_text("{")
    assert CONFIG in refused(capsys, "train", "--resume", "--run-dir", "broken")
    (tmp_path / "file").write_text("")
    refused(capsys, "train", "small", "--data", "digits", "--run-dir", "file")


@pytest.mark.parametrize(
    "argv",
    [
        ["--debug", "train", "smal"],
        ["train", "smal", "--debug"],
        ["--debug", "bench", "throughput", "--model", "smal"],
        ["bench", "throughput", "--debug", "--model", "smal"],
    ],
)
def test_debug_shows_the_traceback(argv, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.splitlines()[-1].startswith("chaos: error: unknown model")


def test_a_bug_is_not_an_error_of_the_user(monkeypatch):
    monkeypatch.setattr(chaos.training, "train", lambda *a, **b: {}["missing"])
    with pytest.raises(KeyError):
        main(TRAIN)


def test_divergence_has_its_own_exit_code(capsys):
    assert "diverged" in refused(capsys, *TRAIN, "--lr", "1e38", "--epochs", "1", "--quiet", code=3)


def test_bad_environment(capsys, monkeypatch):
    monkeypatch.setenv("CHAOS_NUM_THREADS", "two")
    assert "CHAOS_NUM_THREADS" in refused(capsys, "info")


# ---- train ----


def test_train_writes_a_run(capsys, tmp_path):
    argv = ["train", "small", "--data", "digits", "--epochs", "1", "--subset", "200", "--workers", "2"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"small-\d{8}-\d{6}", folder.name)
    assert {p.name for p in folder.iterdir()} == {CONFIG, METRICS, MODEL, "job.toml"}
    (record,) = map(json.loads, (folder / METRICS).read_text().splitlines())
    assert {
        "epoch",
        "lr",
        "train_loss",
        "train_error",
        "test_loss",
        "test_error",
        "seconds",
        "images_per_second",
        "workers",
        "strategy",
        "staleness",
    } <= record.keys()
    assert {"mean", "max", "histogram"} <= record["staleness"].keys()
    config = json.loads((folder / CONFIG).read_text())
    assert config["model"] == "small" and config["data"] == "digits" and config["subset"] == 200
    assert config["argv"] == ["chaos", *argv] and config["seed"] == 0
    wrong = round(record["test_error"] * 360)
    assert f"({wrong} of 360)" in out and "images/s" in out and "p99" in out and f"runs/{folder.name}" in out
    assert "epoch 1/1" in err


def test_run_names_do_not_collide(tmp_path, monkeypatch):
    import datetime

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2025, 1, 31, 12, 0, 0, tzinfo=tz)

    monkeypatch.setattr(chaos.cli.train, "datetime", Frozen)
    for _ in range(3):
        assert main([*TRAIN, "--epochs", "0"]) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "small-20250131-120000",
        "small-20250131-120000-2",
        "small-20250131-120000-3",
    ]


def test_quiet_prints_only_the_summary(capsys):
    assert main([*TRAIN, "--epochs", "1", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("test error")


def test_seed_subset_and_order_reach_the_training(tmp_path, capsys):
    argv = [*TRAIN, "--epochs", "1", "--quiet", "--run-dir"]
    for name, options in {"a": [], "b": [], "c": ["--seed", "1"], "d": ["--no-shuffle"]}.items():
        assert main([*argv, name, *options]) == 0
    a, b, c, d = (chaos.load(tmp_path / name / MODEL).weights for name in "abcd")
    assert (a == b).all() and (a != c).any() and (a != d).any()
    train, test = chaos.data.load("digits", size=29)
    net = chaos.models.small(seed=0)
    chaos.train(net, train[:200], test, strategy="sequential", lr=0.01, epochs=1, progress=False)
    assert (net.weights == a).all()
    assert main(["train", "small", "--data", "digits", "--subset", "99999", "--epochs", "0"]) == 0


def test_resume_continues_exactly(tmp_path, trained, capsys):
    assert main([*TRAIN, "--epochs", "1", "--evaluate-train", "--run-dir", "a"]) == 0
    assert main(["train", "--resume", "--run-dir", "a", "--epochs", "2"]) == 0
    assert main([*TRAIN, "--epochs", "2", "--evaluate-train", "--run-dir", "b"]) == 0
    a, b = (chaos.load(tmp_path / name / MODEL).weights for name in "ab")
    assert (a == b).all()
    lines = [(tmp_path / name / METRICS).read_text().splitlines() for name in "ab"]
    assert [json.loads(line)["train_eval_loss"] for line in lines[0]] == [
        json.loads(line)["train_eval_loss"] for line in lines[1]
    ]
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    assert [config[key] for key in ("model", "subset", "epochs", "evaluate_train")] == ["small", 200, 2, True]
    # Nothing is left to do now, with or without the model's name.
    capsys.readouterr()
    assert main(["train", "small", "--resume", "--run-dir", "a"]) == 0
    assert capsys.readouterr().out.startswith("test error")
    assert (chaos.load(tmp_path / "a" / MODEL).weights == a).all()


def test_resume_starts_a_run_that_is_not_there(tmp_path):
    assert main([*TRAIN, "--epochs", "1", "--resume", "--run-dir", "new"]) == 0
    assert (tmp_path / "new" / MODEL).exists()
    (tmp_path / "new" / MODEL).unlink()  # as if killed before the first checkpoint
    assert main(["train", "--resume", "--run-dir", "new"]) == 0
    assert (tmp_path / "new" / MODEL).exists()


def test_workers_are_kept_only_if_asked_for(tmp_path):
    argv = ["train", "small", "--data", "digits", "--subset", "50", "--epochs", "1", "--run-dir"]
    assert main([*argv, "asked", "--workers", "3"]) == main([*argv, "open"]) == 0
    for name, wanted in (("asked", 3), ("open", chaos.threads.resolve().workers)):
        assert main(["train", "--resume", "--run-dir", name, "--epochs", "2"]) == 0
        assert json.loads((tmp_path / name / METRICS).read_text().splitlines()[-1])["workers"] == wanted


def test_train_from_weights_and_npz(tmp_path, trained):
    train, test = chaos.data.load("digits")
    np.savez("mine.npz", x_train=train.images[:60], y_train=train.labels[:60], x_test=test.images, y_test=test.labels)
    model = str(trained / MODEL)
    assert main(["train", model, "--data", "mine.npz", "--epochs", "0", "--run-dir", "a"]) == 0
    assert main(["train", model, "--data", "mine.npz", "--epochs", "1", "--run-dir", "b"]) == 0
    config = json.loads((tmp_path / "b" / CONFIG).read_text())
    assert config["data"] == str(tmp_path / "mine.npz") and config["model"] == model
    assert (chaos.load(tmp_path / "b" / MODEL).weights != chaos.load(model).weights).any()
    assert main(["evaluate", "b"]) == 0


def test_resizing_of_own_images_is_said(tmp_path, trained, capsys):
    x = np.zeros((20, 29, 33), np.uint8)
    for name, images in (("right", x[..., :29]), ("wrong", x)):
        np.savez(f"{name}.npz", x_train=images, y_train=np.arange(20) % 10, x_test=images, y_test=np.arange(20) % 10)
    for name in ("right", "wrong"):
        for words in (["evaluate", str(trained)], ["train", "small", "--epochs", "1", "--quiet", "--run-dir", name]):
            assert main([*words, "--data", f"{name}.npz"]) == 0
            err = capsys.readouterr().err
            said = "wrong.npz: images of 29x33 pixels are brought to the network's 29x29"
            assert (said in err) == (name == "wrong"), err
    wanted, _ = chaos.data.load("wrong.npz", size=29)
    assert chaos.data.load("wrong.npz")[0].sized(29).fingerprint() == wanted.fingerprint()


def test_without_mnist_auto_takes_the_digits(capsys, offline, tmp_path):
    assert main(["train", "small", "--epochs", "1", "--subset", "100", "--quiet", "--run-dir", "a"]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "mnist" in err and "digits" in err
    assert json.loads((tmp_path / "a" / CONFIG).read_text())["data"] == "digits"
    assert "mnist" in refused(capsys, "train", "small", "--data", "mnist")


def test_auto_takes_mnist_where_it_is(capsys, offline, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 20)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
            body = np.random.default_rng(0).integers(0, 10, shape, np.uint8).tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + body))
    monkeypatch.setenv("CHAOS_DATA_DIR", str(tmp_path / "data"))
    assert main(["train", "small", "--epochs", "1", "--quiet", "--run-dir", "a"]) == 0
    assert json.loads((tmp_path / "a" / CONFIG).read_text())["data"] == "mnist"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "staleness, q, wanted",
    [
        ({"histogram": [5, 3, 2], "max": 2}, 0.5, "0"),
        ({"histogram": [5, 3, 2], "max": 2}, 0.8, "1"),
        ({"histogram": [5, 3, 2], "max": 2}, 0.99, "2"),
        ({"histogram": [5, 3, 2], "max": 9}, 0.99, "2 or more"),
        ({"histogram": [], "max": 0}, 0.5, "0"),
    ],
)
def test_quantile(staleness, q, wanted):
    assert quantile(staleness, q) == wanted


# ---- evaluate, predict, info ----


def test_evaluate(trained, capsys):
    last = json.loads((trained / METRICS).read_text().splitlines()[-1])
    assert main(["evaluate", str(trained), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["error"] == last["test_error"] and result["images"] == 360 and result["data"] == "digits"
    assert main(["evaluate", str(trained / MODEL), "--data", "digits", "--workers", "1"]) == 0
    assert f"({result['wrong']} of 360)" in capsys.readouterr().out


def test_evaluate_takes_the_runs_loss_with_its_options(tmp_path, capsys):
    words = ["--epochs", "1", "--loss-option", "label_smoothing=0.4", "--workers", "1", "--run-dir", str(tmp_path / "run")]
    assert main([*TRAIN, *words, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--workers", "1", "--json"]) == 0
    last = json.loads((tmp_path / "run" / METRICS).read_text())
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(last["test_loss"], rel=1e-12)


def test_predict(trained, capsys, tmp_path):
    _, test = chaos.data.load("digits")
    images = test.images[:5, 0]
    wanted = chaos.load(trained / MODEL).predict(chaos.data.fit(test.images[:5], 29)).tolist()
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in images.shape)
    Path("a-idx3-ubyte").write_bytes(header + images.tobytes())
    Path("b.gz").write_bytes(gzip.compress(header + images.tobytes()))
    np.save("c.npy", images)
    np.savez("d.npz", y_test=wanted, x_test=images[:, None])
    np.savez("e.npz", images[..., None].astype(np.int32))
    np.save("f.npy", images[0])
    np.save("g.npy", images.astype(np.float64) / 127.5 - 1)
    for path in ("a-idx3-ubyte", "b.gz", "c.npy", "d.npz", "e.npz", "g.npy"):
        assert main(["predict", str(trained), path]) == 0
        rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
        assert [row[0] for row in rows] == [f"{path}[{i}]" for i in range(5)]
        assert path == "g.npy" or [int(row[1]) for row in rows] == wanted
        assert all(0.1 <= float(row[2]) <= 1 for row in rows)
    assert main(["predict", str(trained), "f.npy", "c.npy", "--json", "--proba"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["file"], one["index"]) for one in found] == [("f.npy", 0)] + [("c.npy", i) for i in range(5)]
    assert found[0]["label"] == wanted[0] == int(np.argmax(found[0]["probabilities"]))
    assert main(["predict", str(trained), "f.npy", "--proba"]) == 0
    assert len(capsys.readouterr().out.split()) == 12


def test_predict_says_what_it_does_to_images(trained, capsys, tmp_path):
    pytest.importorskip("PIL")
    from PIL import Image

    np.save("right.npy", np.zeros((2, 29, 29), np.uint8))
    for i in range(4):
        np.save(f"{i}.npy", np.zeros((2, 40 + i, 30), np.uint8))
    assert main(["predict", str(trained), "right.npy"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["predict", str(trained), "right.npy", "0.npy"]) == 0
    said = "chaos: 1 file of another size brought to the network's 29x29 pixels: 0.npy of 40x30\n"
    assert capsys.readouterr().err == said
    assert main(["predict", str(trained), *(f"{i}.npy" for i in range(4)), "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 8 and err.count("\n") == 1
    assert "4 files of another size" in err and "0.npy of 40x30, 1.npy of 41x30, 2.npy of 42x30, ..." in err
    frames = [Image.new("L", (31, 29), grey) for grey in (0, 255, 90)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    frames[0].save("b.png")
    assert main(["predict", str(trained), "a.gif", "b.png"]) == 0
    out, err = capsys.readouterr()
    assert "2 files of another size" in err and "a.gif of 29x31, b.png of 29x31" in err
    assert "1 file with several frames, of which the first is taken: a.gif of 3" in err
    first, other = (line.split()[1:] for line in out.splitlines())
    assert first == other


def test_predict_takes_vectors_sequences_and_no_tables_for_pictures(trained, capsys, tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"vector": ((12,), [chaos.Linear(3)]), "sequence": ((2, 6), [chaos.Flatten(), chaos.Linear(3)])}
    for name, (shape, layers) in shapes.items():
        net = chaos.Network(shape, layers, seed=1)
        net.save(f"{name}.safetensors")
        x = rng.standard_normal((3, *shape)).astype(np.float32)
        np.save("several.npy", x)
        np.save("one.npy", x[0])
        assert main(["predict", f"{name}.safetensors", "several.npy", "one.npy", "--json"]) == 0
        labels = [one["label"] for one in json.loads(capsys.readouterr().out)]
        assert labels == [*net.predict(x), net.predict(x)[0]]
        np.save("wrong.npy", x[..., 1:])
        assert "wrong.npy" in refused(capsys, "predict", f"{name}.safetensors", "wrong.npy")
    np.save("picture.npy", rng.random((3, 4), np.float32))
    assert main(["predict", "vector.safetensors", "picture.npy"]) == 0
    capsys.readouterr()
    np.save("table.npy", rng.integers(0, 256, (5, 29 * 29), np.uint8))
    err = refused(capsys, "predict", str(trained), "table.npy")
    assert "a table of 5 rows of 841 numbers" in err and "reshape(-1, 1, 29, 29)" in err
    for name, bad in (("scalar.npy", np.float32(3)), ("void.npy", np.zeros((0, 29, 29)))):
        np.save(name, bad)
        assert "holds no images" in refused(capsys, "predict", str(trained), name)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_predict_executes_nothing(trained, capsys, ending, tmp_path):
    """Objects in NumPy files are pickles, which are programs."""
    path, mark = tmp_path / f"x.{ending}", tmp_path / "executed"
    content = np.array([Payload(str(mark))], object)
    np.save(path, content) if ending == "npy" else np.savez(path, x_test=content)
    assert main(["predict", str(trained), str(path)]) == 2
    words = "Object arrays cannot be loaded" if ending == "npy" else "holds Python objects"
    assert words in capsys.readouterr().err and not mark.exists()


def test_predict_refuses_what_is_no_image(trained, capsys):
    np.save("nan.npy", np.full((2, 29, 29), np.nan))
    np.save("colour.npy", np.zeros((2, 3, 29, 29), np.uint8))
    np.save("text.npy", np.array(["a"]))
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    np.savez("none.npz")
    Path("cut.npy").write_bytes(b"\x93NUMPY\1\0v\0{'descr'")
    Path("void.npy").write_bytes(b"")
    for name in ("nan.npy", "colour.npy", "text.npy", "objects.npy", "none.npz", "cut.npy", "void.npy"):
        assert name in refused(capsys, "predict", str(trained), name)


def test_pictures_without_pillow(trained, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    Path("a.png").write_bytes(b"")
    err = refused(capsys, "predict", str(trained), "a.png")
    assert "pillow" in err and ".npy" in err and "IDX" in err


def test_info(capsys, monkeypatch):
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chaos"] == chaos.__version__
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^chaos +{re.escape(chaos.__version__)}$", out, re.M) and "{" not in out


# ---- bench ----

KEYS = {
    "model",
    "us_per_image",
    "images_per_second",
    "gflops",
    "peak_gflops",
    "fraction_of_peak",
    "isa",
    "workers",
    "batch_size",
    "oversubscribed",
    "check",
    "machine",
}


def test_bench_throughput(capsys):
    argv = ["bench", "throughput", "--model", "small", "--seconds", "0.02", "--repeats", "2"]
    assert main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.keys() >= KEYS and result["model"] == "small" and result["workers"] == 1
    assert result["images_per_second"] == pytest.approx(1e6 / result["us_per_image"])
    macs = sum(chaos.models.small().macs().values())
    assert result["gflops"] == pytest.approx(2 * macs / result["us_per_image"] * 1e-3)
    assert result["fraction_of_peak"] == pytest.approx(result["gflops"] / result["peak_gflops"])
    assert 0 < result["us_per_image_min"] <= result["us_per_image"] <= result["us_per_image_max"]
    assert result["check"]["gradient_error"] <= result["check"]["tolerance"]
    assert {"cpu", "cores", "commit", "date", "python", "numpy"} <= result["machine"].keys()

    isa = chaos.info()["isa"]
    assert main([*argv, "--workers", "1,2", "--batch-size", "4", "--isa", "generic", "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert (one["workers"], one["batch_size"], one["isa"]) == (1, 4, "generic")
    assert (two["workers"], two["batch_size"], two["isa"]) == (2, 4, "generic")
    assert chaos.info()["isa"] == isa

    assert main(argv) == 0
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "model" and row.split()[0] == "small" and len(header) == len(row)


def test_bench_is_a_library_and_leaves_the_network_alone():
    from chaos.bench import throughput

    net = chaos.Network((6,), [chaos.Linear(4), chaos.Tanh(), chaos.Linear(3)])
    before = net.weights.copy()
    cores = chaos.threads.resolve().limits["physical cores"]
    result = throughput(net, workers=cores + 1, seconds=0.01, repeats=1)
    assert result["oversubscribed"] and result["peak_cores"] <= cores and result["data"] == "random"
    assert (net.weights == before).all()


def test_bench_refuses_to_time_wrong_results(capsys, monkeypatch):
    right = chaos.Network.loss_and_gradients

    def wrong(self, *args, **options):
        loss, gradients = right(self, *args, **options)
        name, *_ = gradients
        gradients[name] = gradients[name] * 1.001
        return loss, gradients

    monkeypatch.setattr(chaos.Network, "loss_and_gradients", wrong)
    assert "no time was taken" in refused(capsys, "bench", "throughput", "--model", "small")


# ---- processes: signals, pipes, files ----


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_and_resume_completes(number, code, tmp_path):
    with child(*TRAIN, "--epochs", "1000000", "--run-dir", "run with space") as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "run with space" / MODEL).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        start = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - start < 5 and process.returncode == code, err
    assert out == "" and "Traceback" not in err
    assert err.splitlines()[-1] == "continue with: chaos train small --resume --run-dir 'run with space'"
    folder = tmp_path / "run with space"
    done = len((folder / METRICS).read_text().splitlines())
    assert np.isfinite(chaos.load(folder / MODEL).weights).all()
    assert main(["train", "--resume", "--run-dir", str(folder), "--epochs", str(done + 2)]) == 0
    assert main([*TRAIN, "--epochs", str(done + 2), "--run-dir", "whole"]) == 0
    assert (chaos.load(folder / MODEL).weights == chaos.load("whole/" + MODEL).weights).all()


def test_output_in_files_has_no_control_characters(tmp_path):
    with child(*TRAIN, "--epochs", "2") as process:
        text = "".join(process.communicate(timeout=60))
    assert process.returncode == 0 and text.count("epoch") >= 2
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("argv", [["--help"], ["info"], ["train", "--help"]])
def test_a_reader_that_has_gone_is_no_error(argv):
    with child(*argv) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 141)


def test_a_full_disk_is_told_in_one_line():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "chaos", "info"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("chaos: error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("where", ["full", "closed"])
def test_a_log_that_cannot_be_written_costs_no_training(where, tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    redirection = {"full": "2>/dev/full", "closed": "2>&-"}[where]
    line = f"exec {sys.executable} -m chaos {{}} {redirection}"
    train = " ".join([*TRAIN, "--epochs", "2", "--run-dir", "run"])
    assert subprocess.run(["sh", "-c", line.format(train)], stdout=subprocess.PIPE).returncode == 0
    assert len((tmp_path / "run" / METRICS).read_text().splitlines()) == 2 and (tmp_path / "run" / MODEL).exists()
    assert subprocess.run(["sh", "-c", line.format("train small --epochs x")]).returncode == 2


def test_options_are_listed(capsys):
    for argv, words in (
        (["--strategy", "replicated", "--strategy-option", "help"], ["group=1", "period=64", "(mix, sum)"]),
        (["--update", "adam", "--update-option", "help"], ["beta2=0.999", "clip_norm=none"]),
        (["--lr-schedule", "cosine", "--schedule-option", "help"], ["t_max=none", "warmup=0"]),
        (["--cluster", "easgd", "--cluster-option", "help"], ["timing=sync", "(sync, async)"]),
    ):
        assert main(["train", *argv]) == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words), out
    assert "help" in refused(capsys, "train", "small", "--strategy-option", "help=1")


def test_a_finished_run_says_that_nothing_is_left(trained, tmp_path, capsys):
    shutil.copytree(trained, "run")
    before = (tmp_path / "run" / MODEL).read_bytes()
    assert main(["train", "--resume", "--run-dir", "run", "--epochs", "1"]) == 0
    assert "nothing to train: the run has 2 epochs already, epochs is 1\n" in capsys.readouterr().err
    assert (tmp_path / "run" / MODEL).read_bytes() == before


@pytest.mark.parametrize(
    "config, words",
    [
        ('{"strategy": {}}', "strategy must be a name, not {}"),
        ('{"update_options": [1]}', "update_options must be an object"),
        ('{"virtual": 3}', "virtual must be an object, not 3"),
        ('{"data": 3}', "data must be a name, not 3"),
        ('{"shuffle": "no"}', "shuffle must be true or false, not 'no'"),
    ],
)
def test_settings_of_another_kind_are_damage(trained, capsys, config, words):
    shutil.copytree(trained, "run")
    Path("run", CONFIG).write_text(config)
    for argv in (["train", "--resume"], ["simulate", "--resume"]):
        err = refused(capsys, *argv, "--run-dir", "run", "--strategy-option", "stripe-bytes=4096")
        assert "run/config.json: damaged: " + words in err
    Path("run", CONFIG).write_text('{"strategy": "later"}')
    err = refused(capsys, "train", "--resume", "--run-dir", "run", "--strategy-option", "a=1")
    assert "unknown name 'later'; known: averaging, chaos" in err
    Path("run", CONFIG).write_text('{"virtual": {"times": 3}}')
    err = refused(capsys, "simulate", "--resume", "--run-dir", "run", "--data", "digits")
    assert "the times in its config.json are damaged" in err


def test_what_cannot_be_written_is_named(trained, capsys, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shutil.copytree(trained, "run")
    before = Path("run", MODEL).read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    err = refused(capsys, "train", "--resume", "--run-dir", "run", "--epochs", "3", "--quiet")
    assert err == f"chaos: error: run/config.json: {os.strerror(errno.ENOSPC)}\n"
    assert Path("run", MODEL).read_bytes() == before and not list(Path("run").glob(".*"))


def test_another_run_is_told_apart_without_noise(trained, capsys):
    shutil.copytree(trained, "run")
    found = [
        refused(capsys, "train", "--resume", "--run-dir", "run", "--epochs", "3", *more, "--quiet")
        for more in (["--update", "adam", "--lr", "0.5"], ["--subset", "100"], ["--update-option", "weight-decay=1"])
    ]
    assert found[0].endswith("different: update ('sgd' there, 'adam' now), lr (0.01 there, 0.5 now)\n")
    assert found[1].endswith("different: train (other training images)\n")
    assert found[2].endswith("different: update_options weight_decay (0.0 there, 1.0 now)\n")


def test_train_script_adds_its_defaults_unless_a_run_is_resumed(tmp_path):
    script = Path(__file__).resolve().parent.parent / "scripts" / "train.sh"
    if not script.exists():
        pytest.skip("the source tree is not beside the tests")
    (tmp_path / "train.sh").write_text(script.read_text())
    (tmp_path / "setup_env.sh").write_text(f"root={tmp_path}\nensure_env() {{ :; }}\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "chaos").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / ".venv" / "bin" / "chaos").chmod(0o755)
    for given, wanted in {
        "": "small --epochs 8 --lr 0.01",
        "large --lr 1": "large --epochs 8 --lr 0.01 --lr 1",
        "--lr 1": "small --epochs 8 --lr 0.01 --lr 1",
        "--resume --run-dir a": "--resume --run-dir a",
        "large --run-dir a --resume": "large --run-dir a --resume",
    }.items():
        done = subprocess.run(
            ["bash", "train.sh", *given.split()],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.stdout.strip() == f"train {wanted}"
