"""Wrong commands and calls: each answer is one line that helps, exit code 2, no traceback, and nothing is left behind."""

import numpy as np
import pytest

import chaos
from chaos.cli import main

TRAIN = "train small --data digits --subset 100 --epochs 1 --quiet "

COMMANDS = [
    # what was typed, what the line says
    ("trian small", "did you mean train?"),
    ("--helpp", "there is no option --helpp; did you mean --help?"),
    ("train", "a MODEL is needed: small, medium, large"),
    ("train lage --data digits", "did you mean large?"),
    ("train small --epoch 3", "there is no option --epoch; did you mean --epochs?"),
    ("train small --data nist", "did you mean mnist?"),
    ("train small --data mine.csv.npz", "mine.csv.npz: cannot be read: No such file"),
    (TRAIN + "--strategy caos", "did you mean chaos?"),
    (TRAIN + "--update adamm", "did you mean adam"),
    (TRAIN + "--loss cross-entropy", "did you mean cross_entropy?"),
    (TRAIN + "--lr-schedule cosin", "did you mean cosine?"),
    (TRAIN + "--cluster allredcue", "did you mean allreduce?"),
    (TRAIN + "--pin compct", "did you mean compact?"),
    (TRAIN + "--momentum 0.9", "--update momentum has it"),
    (TRAIN + "--strategy-option perod=3 --strategy averaging", "did you mean period?"),
    (TRAIN + "--strategy-option period=3", "--strategy averaging has it"),
    (TRAIN + "--update-option momentum --update momentum", "needs a value: momentum=VALUE"),
    (TRAIN + "--lr ten", "--lr: invalid float value: 'ten'"),
    (TRAIN + "--lr -1", "lr must be a number of more than 0, not -1.0"),
    (TRAIN + "--epochs 1.5", "--epochs: invalid int value: '1.5'"),
    (TRAIN + "--workers 0", "must be a whole number of workers from 1 to 4096"),
    (TRAIN + "--strategy sequential --workers 2", "runs with one worker, not 2"),
    ("train resnet20 --data digits --epochs 1 --quiet", "a network for 1 channels takes them: input_shape=(1, 32, 32)"),
    ("train unet --data digits --epochs 1 --quiet", "wants a target for each pixel"),
    (TRAIN + "--normalize", "did you mean --normalise?"),
    (TRAIN + "--label digit", "label='digit' names the column of a table, and digits is none"),
    (TRAIN + "--sample-weight w.npy", "w.npy: cannot be read: No such file"),
    ("evaluate small.safetensors --best", "--best is of a run directory"),
    ("train --resume", "--resume needs --run-dir"),
    ("train --resume --run-dir nowhere", "nowhere holds no run"),
    ("train job.tml --data digits", "unknown model 'job.tml'"),
    ("train job.toml", "job.toml: No such file"),
    ("train mynet.py --data digits", "mynet.py:build"),
    ("train . --data digits", "is a directory"),
    ("evaluate small", "is a model without training"),
    ("evaluate nowhere.safetensors", "nowhere.safetensors"),
    ("predict nowhere.safetensors picture.npy", "nowhere.safetensors"),
    ("plot nowhere", "nowhere"),
    ("summary resnet", "unknown model 'resnet'"),
    ("replay nothing.trace", "nothing.trace: No such file"),
    ("bench kernel", "did you mean kernels?"),
    ("bench scaling --model smal --workers 1", "did you mean small?"),
    ("bench throughput --strategy hogwildd", "did you mean hogwild?"),
    ("estimate small --machine xeon-phi", "did you mean xeon-phi-7120p?"),
    ("export small net.onnx", "is a model without training"),
    ("export nowhere net.h5", "there is no format '.h5'"),
    ("data check nothing.npz", "nothing.npz: cannot be read"),
    ("data chek mnist", "did you mean check?"),
    ("completion powershell", "known: bash, zsh, fish"),
    ("launch --mpi slrum -- train small", "did you mean slurm?"),
    ("launch --", "a COMMAND of chaos is needed"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    for name in ("CHAOS_DATA_DIR", "CHAOS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("command, words", COMMANDS, ids=[command for command, _ in COMMANDS])
def test_commands(command, words, capsys, tmp_path):
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith("chaos: error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    assert out == "" and words in err, err
    assert list(tmp_path.iterdir()) == []


def net():
    return chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(10)])


def digits():
    return chaos.data.load("digits")[0]


CALLS = {
    "strategy": (lambda: chaos.train(net(), digits(), strategy="hogwld"), "did you mean hogwild?"),
    "update": (lambda: chaos.train(net(), digits(), update="Adam"), "did you mean adam?"),
    "loss": (lambda: chaos.train(net(), digits(), loss="crossentropy"), "did you mean cross_entropy?"),
    "hidden": (lambda: chaos.train(net(), digits(), loss="none"), "unknown loss 'none'"),
    "schedule": (lambda: chaos.train(net(), digits(), lr_schedule="exp"), "did you mean step?|known: exponential"),
    "cluster": (lambda: chaos.train(net(), digits(), cluster="easdg"), "did you mean easgd?"),
    "option": (lambda: chaos.train(net(), digits(), update_options={"momentum": 0.9}), "update=momentum has it"),
    "misspelt": (
        lambda: chaos.train(net(), digits(), update="momentum", update_options={"momentun": 0.9}),
        "did you mean momentum?",
    ),
    "data": (lambda: chaos.data.load("digitz"), "did you mean digits?"),
    "file": (lambda: chaos.load("nothing.safetensors"), "nothing.safetensors"),
    "directory": (lambda: chaos.load("."), ". is a directory that holds no .safetensors file"),
    "arrays": (lambda: chaos.data.Dataset(np.zeros((3, 8, 8)), [0, 1]), "2 labels for 3 images"),
    "rows": (lambda: net().predict(np.zeros((5, 64), np.float32)), "x.reshape(-1, 1, 8, 8)"),
    "one": (lambda: net().predict(np.zeros((8, 8), np.float32)), "is a batch of one: x[None]"),
    "larger": (
        lambda: net().predict(np.zeros((5, 1, 9, 8), np.uint8)),
        "chaos.data.fit(x, (8, 8)) brings them to that size",
    ),
    "generator": (lambda: chaos.train(net(), (one for one in [])), "chaos.data.Stream(function) takes"),
    "epochs": (lambda: chaos.train(net(), digits(), epochs=-1), "epochs must be a whole number of at least 0"),
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS.keys())
def test_calls(call, words):
    with pytest.raises((ValueError, OSError)) as found:
        call()
    text = str(found.value)
    assert any(one in text for one in words.split("|")) and "\n" not in text and "score" not in text, text


def test_a_layer_alone_is_no_network():
    with pytest.raises(TypeError, match=r"layers must be a list, such as \[Linear\(out_features=10\)\]"):
        chaos.Network((64,), chaos.Linear(10))


def test_a_run_directory_names_its_files(tmp_path):
    net().save(tmp_path / "model.safetensors")
    with pytest.raises(chaos.CheckpointError, match="is a directory; name a file in it: model.safetensors"):
        chaos.load(tmp_path)


def test_a_folder_of_runs_names_the_newest(capsys, tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "model.safetensors").write_bytes(b"")
    assert main(["evaluate", "runs"]) == 2
    assert "runs holds 1 runs and is none; the newest is runs/first" in capsys.readouterr().err


def test_a_file_of_no_known_kind(capsys, tmp_path):
    net().save(tmp_path / "net.safetensors")
    (tmp_path / "notes.txt").write_text("hello")
    assert main(["predict", "net.safetensors", "notes.txt"]) == 2
    assert "notes.txt: is no file of a known kind, which are IDX files" in capsys.readouterr().err


def test_no_better_than_guessing_is_said(capsys):
    assert main((TRAIN.replace("--epochs 1", "--epochs 2") + "--lr 1e-9 --strategy sequential").split()) == 0
    err = capsys.readouterr().err
    assert err.startswith("chaos: warning: an error of ") and "no better than always" in err and "--lr" in err
