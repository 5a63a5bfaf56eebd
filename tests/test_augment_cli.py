"""Augmentation on the command line: what a run keeps of it, how it goes on, and the pictures of `chaos plot --augment`."""

import json

import numpy as np
import pytest

import chaos
from chaos import augment
from chaos.cli import main
from chaos.training import CONFIG, MODEL

TRAIN = ["train", "small", "--data", "digits", "--subset", "100", "--lr", "0.01", "--strategy", "sequential", "--quiet"]
STEPS = ["--augment", "shift:2", "--augment", "elastic:20,3"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def weights(folder):
    return chaos.load(f"{folder}/{MODEL}").weights


def test_a_run_keeps_its_steps_and_goes_on_with_them(tmp_path, capsys):
    assert main([*TRAIN, *STEPS, "--epochs", "1", "--run-dir", "a"]) == 0
    assert main(["train", "--resume", "--run-dir", "a", "--epochs", "2", "--quiet"]) == 0
    assert main([*TRAIN, *STEPS, "--epochs", "2", "--run-dir", "b"]) == 0
    assert main([*TRAIN, "--epochs", "2", "--run-dir", "c"]) == 0
    kept = json.loads((tmp_path / "a" / CONFIG).read_text())["augment"]
    assert kept == [augment.Shift(2).config(), augment.Elastic(20, 3).config()]
    assert json.loads((tmp_path / "c" / CONFIG).read_text())["augment"] is None
    assert (weights("a") == weights("b")).all() and (weights("a") != weights("c")).any()
    train = chaos.data.load("digits", size=29)[0][:100]
    net = chaos.models.small(seed=0)
    steps = [augment.Shift(2), augment.Elastic(20, 3)]
    chaos.train(net, train, strategy="sequential", lr=0.01, epochs=2, augment=steps, progress=False)
    assert (net.weights == weights("a")).all()
    capsys.readouterr()
    assert main(["train", "--resume", "--run-dir", "a", "--augment", "flip", "--epochs", "3"]) != 0
    assert "augment (" in capsys.readouterr().err


def test_help_and_errors(capsys):
    assert main([*TRAIN, "--augment", "help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {kind}:" in said for kind in augment.KINDS)
    assert main([*TRAIN, "--augment", "turn:3"]) != 0
    assert "unknown augmentation 'turn'" in capsys.readouterr().err


def test_pictures_of_a_data_set_and_of_a_run(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    image = pytest.importorskip("matplotlib.image")
    assert main(["plot", "digits", *STEPS]) == 0
    assert capsys.readouterr().out == "digits-augment.png\n"
    drawn = image.imread(tmp_path / "digits-augment.png")
    assert drawn.ndim == 3 and drawn.std() > 0.1
    assert main([*TRAIN, *STEPS, "--epochs", "1", "--run-dir", "run"]) == 0
    capsys.readouterr()
    assert main(["plot", "run", "--augment"]) == 0
    assert (tmp_path / "run/augment.png").is_file()
    assert main(["plot", "digits", "--augment", "rotation:30", "--out", "x.svg"]) == 0
    assert "Rotation" in (tmp_path / "x.svg").read_text()
    colours = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    np.savez("colours.npz", x_train=colours, y_train=np.arange(3))
    assert main(["plot", "colours.npz", "--augment", "color_jitter:0.5"]) == 0
    capsys.readouterr()
    for wrong, text in (
        (["plot", "digits", "--augment"], "digits tells no augmentation"),
        (["plot", "digits", "--augment", "flip", "--out", "x.pdf"], "images are drawn as .png, .svg"),
        (["plot", "nothing", "--augment", "flip"], "unknown data set"),
    ):
        assert main(wrong) != 0
        assert text in capsys.readouterr().err
