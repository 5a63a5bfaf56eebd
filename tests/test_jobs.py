"""Job files, and networks that are Python functions: what a training is asked for, kept, and asked for again."""

import json
import shlex
import sys
import tomllib

import mpi
import numpy as np
import pytest

import chaos
from chaos.cli import main
from chaos.cli.jobs import JOB, read_job, tables
from chaos.cli.networks import build_model, layers_of
from chaos.formats.toml_text import to_toml
from chaos.training import ABOUT, CONFIG, METRICS, MODEL, Settings

JOB_TEXT = """
[network]
input = [1, 12, 12]
layers = ["Conv2d(4, kernel_size=3)", "Tanh()", "MaxPool2d(2)", "Flatten", "Linear(10)"]

[data]
name = "digits"
subset = 200

[training]
epochs = 2
lr = 0.02
update = "momentum"
update_options = { momentum = 0.8 }

[strategy]
name = "averaging"
options = { period = 10 }
workers = 2

[run]
progress = false
"""

CODE = """
import chaos
from helper import activation

def build(input_shape, classes, seed, width=3):
    return [chaos.Conv2d(width, 3), activation(), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Linear(classes)]

def whole(seed):
    return chaos.models.small(seed)

def fails(shape):
    return 1 / 0

def number():
    return 3

def asks(colour):
    return []

net = [chaos.Flatten(), chaos.Linear(10)]
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory with a job file and a Python file in a folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("CHAOS_DATA_DIR", "CHAOS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.toml").write_text(JOB_TEXT)
    (tmp_path / "jobs" / "mynet.py").write_text(CODE)
    (tmp_path / "jobs" / "helper.py").write_text("from chaos import Tanh as activation\n")
    yield
    for name in ("helper", "mynet"):
        sys.modules.pop(name, None)


def weights(folder):
    return chaos.load(f"{folder}/{MODEL}").weights


def refused(capsys, *argv):
    """The one line that a command ends with."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("chaos: error: ") and err.count("\n") == 1, err
    return err


# ---- job files ----


def test_a_job_is_what_the_command_line_would_be(tmp_path):
    assert main(["train", "jobs/job.toml", "--run-dir", "job"]) == 0
    net = chaos.Network((1, 12, 12), layers_of(tomllib.loads(JOB_TEXT)["network"]["layers"]))
    net.save("net.safetensors")
    argv = "train net.safetensors --data digits --subset 200 --epochs 2 --lr 0.02 --update momentum --momentum 0.8"
    argv += " --strategy averaging --strategy-option period=10 --workers 2 --quiet --run-dir line"
    assert main(argv.split()) == 0
    assert np.array_equal(weights("job"), weights("line"))
    one, other = (json.loads((tmp_path / name / CONFIG).read_text()) for name in ("job", "line"))
    assert all(one[name] == other[name] for name in ABOUT if name in one)


def test_every_value_is_kept_and_gives_the_same_run_again(tmp_path):
    assert main(["train", "jobs/job.toml", "--run-dir", "first", "--lr", "0.03"]) == 0
    kept = tomllib.loads((tmp_path / "first" / JOB).read_text())
    assert kept["network"] == tomllib.loads(JOB_TEXT)["network"]
    config = json.loads((tmp_path / "first" / CONFIG).read_text())
    assert kept["training"]["lr"] == 0.03 and kept["strategy"]["options"] == config["strategy_options"]
    read = read_job(tmp_path / "first" / JOB).values
    # TOML has no word for none, which is the default where there is one
    settings = {name for name in ABOUT if ABOUT[name].role != "call" and config[name] is not None}
    assert settings | {"data", "subset", "normalise"} == read.keys() and read["normalise"] is False
    assert read["data"] == "digits" and read["subset"] == 200
    resolved = Settings.among(read).resolved()  # what is None has no word in TOML
    assert all(getattr(resolved, name) == config[name] for name in settings)
    again = (tmp_path / "first" / JOB).read_text().splitlines()[0].split("Once more: ")[1]
    assert main([*shlex.split(again.replace("NEW", "second"))[1:], "--quiet"]) == 0
    assert np.array_equal(weights("first"), weights("second"))


def test_what_is_given_comes_before_the_job(tmp_path):
    argv = ["--epochs", "1", "--update-option", "dampening=0.1", "--strategy", "sequential", "--workers", "1"]
    assert main(["train", "jobs/job.toml", "--run-dir", "run", *argv]) == 0
    config = json.loads((tmp_path / "run" / CONFIG).read_text())
    assert config["epochs"] == 1 and config["subset"] == 200 and config["workers"] == 1
    assert config["update_options"]["momentum"] == 0.8 and config["update_options"]["dampening"] == 0.1
    assert config["strategy"] == "sequential" and "period" not in config["strategy_options"]


def test_a_job_is_resumed(tmp_path, capsys):
    assert main(["train", "jobs/job.toml", "--run-dir", "whole", "--epochs", "3"]) == 0
    assert main(["train", "jobs/job.toml", "--run-dir", "parts"]) == 0
    assert main(["train", "jobs/job.toml", "--run-dir", "parts", "--resume", "--epochs", "3"]) == 0
    assert np.array_equal(weights("whole"), weights("parts"))
    assert main(["train", "--run-dir", "parts", "--resume", "--epochs", "4", "--quiet"]) == 0
    kept = tomllib.loads((tmp_path / "parts" / JOB).read_text())
    assert kept["training"]["epochs"] == 4 and kept["network"] == tomllib.loads(JOB_TEXT)["network"]
    capsys.readouterr()
    assert "different: lr (" in refused(capsys, "train", "jobs/job.toml", "--lr", "0.5", "--run-dir", "parts", "--resume")


def test_paths_are_relative_to_the_job(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 12, 12), np.uint8)
    np.savez(tmp_path / "jobs" / "mine.npz", x_train=x, y_train=np.arange(40) % 10)
    (tmp_path / "jobs" / "other.toml").write_text(
        'network = "mynet.py:build"\ndata = "mine.npz"\nepochs = 1\nrun_dir = "run"\nprogress = false\n'
    )
    assert main(["train", "jobs/other.toml"]) == 0
    kept = tomllib.loads((tmp_path / "jobs" / "run" / JOB).read_text())
    assert kept["network"] == {"name": f"{tmp_path}/jobs/mynet.py:build"}
    assert kept["data"]["name"] == str(tmp_path / "jobs" / "mine.npz")


def test_a_module_beside_a_job_file_is_found_by_what_is_kept(tmp_path):
    (tmp_path / "jobs" / "other.toml").write_text('network = "mynet:build"\ndata = "digits"\nepochs = 1\nworkers = 1\n')
    assert main(["train", "jobs/other.toml", "--run-dir", "first"]) == 0
    assert main(["train", f"first/{JOB}", "--run-dir", "second"]) == 0
    assert np.array_equal(weights("first"), weights("second"))


def test_a_model_is_a_network_here(tmp_path, capsys):
    (tmp_path / "jobs" / "other.toml").write_text('model = "small"\n')
    assert "there is no 'model'; did you mean network?" in refused(capsys, "train", "jobs/other.toml")


def test_augmentation_is_asked_for_and_kept(tmp_path):
    text = JOB_TEXT.replace("epochs = 2", 'epochs = 1\naugment = ["shift:2", "flip"]')
    (tmp_path / "jobs" / "job.toml").write_text(text)
    assert main(["train", "jobs/job.toml", "--run-dir", "first"]) == 0
    config = json.loads((tmp_path / "first" / CONFIG).read_text())
    assert len(config["augment"]) == 2
    assert main(["train", f"first/{JOB}", "--run-dir", "second", "--quiet"]) == 0
    assert json.loads((tmp_path / "second" / CONFIG).read_text())["augment"] == config["augment"]
    assert np.array_equal(weights("first"), weights("second"))


def test_simulate_takes_jobs_too(tmp_path):
    job = JOB_TEXT.replace("workers = 2", "workers = 4")
    (tmp_path / "jobs" / "job.toml").write_text(job)
    assert main(["simulate", "jobs/job.toml", "--run-dir", "run", "--epochs", "1"]) == 0
    assert json.loads((tmp_path / "run" / CONFIG).read_text())["workers"] == 4


def test_every_setting_has_one_place():
    names = [name for table in tables().values() for name in table]
    assert sorted(names) == sorted({*names}) and {*ABOUT, "data", "subset"} <= {*names}


@pytest.mark.parametrize(
    "text, words",
    [
        ("learning_rat = 1", ["there is no 'learning_rat'"]),
        ("[training]\nlearnig_rate = 1\nlr = 1", ["there is no 'learnig_rate' in [training]"]),
        ("[training]\nepoch = 3", ["there is no 'epoch' in [training]; did you mean epochs?"]),
        ("[training]\nworkers = 3", ["workers belongs in [strategy], not in [training]"]),
        ("[strategy]\nstrateg = 'chaos'", ["did you mean strategy?"]),
        ("[trainin]\nlr = 1", ["there is no 'trainin'; did you mean training?"]),
        ("[augmentation]\nflip = true", ["there is no 'augmentation'"]),
        ("[network]\nnam = 'small'", ["'nam' in [network]; did you mean name?"]),
        ("network = 'smal'", ["[network]", "did you mean small?"]),
        ("network = 3", ["network must be a name or a table"]),
        ("[network]\nname = 'small'\nlayers = []", ["either name or layers"]),
        ("[network]\nname = 'small'\ninput = [1]", ["input in [network] goes with layers"]),
        (
            "[network]\nlayers = ['Conv2D(3, 3)']",
            ["layer 1, 'Conv2D(3, 3)': there is no layer Conv2D; did you mean Conv2d?"],
        ),
        ("[network]\nlayers = ['Conv2d(3, kernel=3)']", ["layer 1", "kernel"]),
        ("[network]\nlayers = ['Conv2d(open(3))']", ["layer 1", "is no layer such as Conv2d(20, 4)"]),
        ('[network]\nlayers = [\'__import__("os").system("true")\']', ["layer 1", "is no layer such as"]),
        ("[network]\nlayers = ['Tanh', 3]", ["layer 2 must be a text"]),
        ("[network]\nlayers = 'Tanh'", ["layers must be a list"]),
        ("network = 'small'\n[network2]", ["there is no 'network2'; did you mean network?"]),
        ("lr = 0.1\n[training]\nlr = 0.2", ["lr is given twice"]),
        ("lr = '0.1'", ["lr must be a number", "'0.1'"]),
        ("epochs = 1.5", ["epochs must be a whole number", "1.5"]),
        ("shuffle = 'no'", ["shuffle must be True or False, not 'no'"]),
        ("strategy = 'caos'", ["unknown strategy 'caos'; did you mean chaos?"]),
        ("update_options = { momentum = 0.9 }", ["'sgd' has no option 'momentum'", "update=momentum has it"]),
        ("update_options = [1]", ["update_options must be a table"]),
        ("[data]\nname = 3", ["data must be a text"]),
        ("subset = 0", ["subset"]),
        ("[cluster]\nname = 'locl'", ["unknown cluster mode 'locl'; did you mean local?"]),
        ("lr =\nepochs = 1", ["no TOML", "line 1"]),
        ("epochs = 1", ["says nothing of the network"]),
    ],
)
def test_a_wrong_job_is_told_in_one_line(tmp_path, capsys, text, words):
    (tmp_path / "bad.toml").write_text(text)
    err = refused(capsys, "train", "bad.toml")
    assert "bad.toml: " in err and all(word in err for word in words), err
    assert not (tmp_path / "runs").exists()


def test_jobs_that_cannot_be_read(tmp_path, capsys):
    assert "none.toml" in refused(capsys, "train", "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    assert "bytes.toml: no TOML" in refused(capsys, "train", "bytes.toml")
    assert "is a job file" in refused(capsys, "summary", "jobs/job.toml")


def test_layers_are_read_and_not_executed():
    found = layers_of(["Conv2d(4, (3, 2), padding=1)", "Tanh", "Linear(10, bias=False)"])
    assert [repr(one) for one in found] == [
        repr(one) for one in (chaos.Conv2d(4, (3, 2), padding=1), chaos.Tanh(), chaos.Linear(10, bias=False))
    ]


@pytest.mark.parametrize(
    "value",
    [
        {
            "a": 1,
            "b": -0.1,
            "c": 1e-30,
            "d": True,
            "e": 'x " \\ \n \x7f é 😀',
            "f": [1, [2.5, "z"]],
            "g": {"h": {}, "i j": 1},
        },
        {"list": [f"Conv2d({k}, 3)" for k in range(20)], "inf": float("inf")},
        {},
    ],
)
def test_toml_is_read_again(value):
    assert tomllib.loads(to_toml({"one": value, "a b": {"x": 1, "none": None}})) == {"one": value, "a b": {"x": 1}}


def test_toml_has_no_word_for_everything():
    with pytest.raises(TypeError, match="set"):
        to_toml({"a": {"b": {1}}})


# ---- functions ----


def test_a_function_makes_the_network(tmp_path):
    argv = ["train", "jobs/mynet.py:build", "--data", "digits", "--subset", "100", "--epochs", "1", "--seed", "3", "--quiet"]
    assert main([*argv, "--strategy", "sequential"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("mynet-")
    config = json.loads((folder / CONFIG).read_text())
    assert config["model"] == f"{tmp_path}/jobs/mynet.py:build" and config["network"]["input"] == [1, 8, 8]
    layers = [chaos.Conv2d(3, 3), chaos.Tanh(), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Linear(10)]
    net, (train, _) = chaos.Network((1, 8, 8), layers, seed=3), chaos.data.load("digits")
    chaos.train(net, train[:100], epochs=1, seed=3, strategy="sequential", progress=False)
    assert np.array_equal(weights(folder), net.weights)


def test_a_run_of_a_function_is_resumed_without_it(tmp_path):
    for folder, epochs in (("whole", "2"), ("parts", "1")):
        argv = f"train jobs/mynet.py:build --data digits --strategy sequential --epochs {epochs} --quiet --run-dir {folder}"
        assert main(argv.split()) == 0
    (tmp_path / "jobs" / "mynet.py").write_text("raise SystemExit('executed')")
    assert main("train --resume --run-dir parts --epochs 2 --quiet".split()) == 0
    assert np.array_equal(weights("whole"), weights("parts"))


def test_a_directory_executes_nothing(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG).write_text(json.dumps({"model": f"{tmp_path}/jobs/mynet.py:build", "data": "digits"}))
    assert "name the MODEL again" in refused(capsys, "train", "--resume", "--run-dir", "run")


def test_options_of_a_function(tmp_path, capsys):
    job = '[network]\nname = "mynet.py:build"\noptions = { width = 5 }\n[data]\nname = "digits"\n[training]\nepochs = 0\n'
    (tmp_path / "jobs" / "wide.toml").write_text(job)
    assert main(["train", "jobs/wide.toml", "--run-dir", "run", "--quiet"]) == 0
    config = json.loads((tmp_path / "run" / CONFIG).read_text())
    assert config["network"]["layers"][0]["out_channels"] == 5
    assert tomllib.loads((tmp_path / "run" / JOB).read_text())["network"]["options"] == {"width": 5}
    capsys.readouterr()
    (tmp_path / "jobs" / "wide.toml").write_text(job.replace("width", "widht"))
    assert "takes no option 'widht'; did you mean width?" in refused(capsys, "train", "jobs/wide.toml")


def test_what_a_function_may_give(monkeypatch):
    def data():
        return (1, 8, 8), 10

    assert build_model("jobs/mynet.py:whole", seed=2).config() == chaos.models.small().config()
    assert build_model("jobs/mynet.py:net", 0, data).input_shape == (1, 8, 8)
    monkeypatch.syspath_prepend("jobs")
    assert build_model("mynet:build", 0, data).input_shape == (1, 8, 8)
    assert build_model("chaos.models:small").config() == chaos.models.small().config()


@pytest.mark.parametrize(
    "name, words",
    [
        ("jobs/mynet.py:fails", "ZeroDivisionError: division by zero (line 12 of mynet.py)"),
        ("jobs/mynet.py:number", "must be, or give, a chaos.Network, a list of layers or a torch.nn.Module, not int"),
        ("jobs/mynet.py:asks", "wants 'colour'"),
        ("jobs/mynet.py:buid", "has no 'buid'; did you mean build?"),
        ("jobs/mynet.py", "name the function in it"),
        ("jobs/none.py:build", "none.py: no such file"),
        ("no_such_module_of_mine:build", "ModuleNotFoundError"),
        ("jobs/damaged.py:build", "SyntaxError"),
    ],
)
def test_functions_that_fail(tmp_path, capsys, name, words):
    (tmp_path / "jobs" / "damaged.py").write_text("def build(:\n")
    assert words in refused(capsys, "train", name, "--data", "digits")


def test_a_function_that_needs_data_has_none_elsewhere(capsys):
    assert "depends on the shape of the data" in refused(capsys, "summary", "jobs/mynet.py:build")


@pytest.mark.parametrize("library", mpi.LIBRARIES[:1])
def test_a_job_of_several_processes(library, tmp_path):
    """The mode is the job file's, and so is the function; a resumed run knows both."""
    mpi.need(library)
    text = JOB_TEXT.split("[data]")[1].replace('"averaging"\noptions = { period = 10 }\nworkers = 2', '"chaos"\nworkers = 1')
    text = f'network = "mynet.py:build"\n[data]{text}\n[cluster]\nname = "easgd"\noptions = {{ every = 32 }}\n'
    (tmp_path / "jobs" / "job.toml").write_text(text)
    done = mpi.job(library, 2, "-m", "chaos", "train", "jobs/job.toml", "--run-dir", "run", "--epochs", 1)
    assert done.code == 0, done
    kept = tomllib.loads((tmp_path / "run" / JOB).read_text())
    assert kept["cluster"]["name"] == "easgd" and kept["cluster"]["options"]["every"] == 32
    (tmp_path / "jobs" / "mynet.py").unlink()
    done = mpi.job(library, 2, "-m", "chaos", "train", "--resume", "--run-dir", "run", "--epochs", 2)
    assert done.code == 0, done
    lines = (tmp_path / "run" / METRICS).read_text().splitlines()
    kept = [json.loads(line)["cluster"]["options"]["every"] for line in lines]
    assert kept == [32, 32]
