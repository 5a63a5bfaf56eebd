"""`chaos data`: what there is, what a file holds, and what is wrong with it."""

import json

import numpy as np
import pytest

import chaos
from chaos.cli import main
from chaos.data.mnist import FILES


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CHAOS_DATA_DIR", raising=False)


def held(**arrays):
    np.savez("mine.npz", **arrays)
    return arrays


def checked(capsys, code=0):
    assert main(["data", "check", "mine.npz", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def pixels(n, *shape):
    return np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8)


def test_list(capsys):
    assert main(["data", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found.keys() == {*chaos.data.NAMES} and not found["mnist"]["here"]
    assert found["digits"]["here"] and found["digits"]["folder"] is None and "1,437" in found["digits"]["about"]
    assert main(["data", "list"]) == 0
    assert "fashion_mnist" in capsys.readouterr().out


def test_a_list_reads_nothing(tmp_path, monkeypatch, capsys):
    """Files of hundreds of megabytes would be decompressed and checked for a line; damaged ones are there, too."""
    monkeypatch.setenv("CHAOS_DATA_DIR", str(tmp_path))
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in FILES:
        (folder / f"{name}.gz").write_bytes(b"")
    assert main(["data", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["mnist"]["here"] and found["mnist"]["folder"] == str(folder) and not found["kmnist"]["here"]


def test_check_counts_what_is_there(capsys):
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    held(x_train=pixels(10, 3, 6, 5), y_train=labels, x_test=pixels(4, 3, 6, 5), y_test=labels[:4])
    found = checked(capsys)
    about = found["parts"]["training"]
    assert about["images"] == 10 and about["shapes"] == [[3, 6, 5]] and about["type"] == "uint8"
    assert about["classes"] == 3 and about["counts"] == [5, 3, 2] and "pixels" in about["scale"]
    assert found["parts"]["test"]["counts"] == [4, 0, 0] and found["notes"] == []
    assert main(["data", "check", "mine.npz"]) == 0
    out = capsys.readouterr().out
    assert "10 images 3x6x5, uint8" in out and "3 (0: 5, 1: 3, 2: 2)" in out and "--data mine.npz" in out


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: held(x_train=pixels(3, 4, 4), y_train=[0, 1, 3]), ["no training image of class 2", "4 classes"]),
        (lambda: held(x_train=pixels(7, 4, 4), y_train=np.arange(1, 8)), ["labels go from 1 to 7", "8 classes"]),
        (lambda: held(x_train=pixels(40, 4, 4), y_train=np.r_[np.zeros(39, int), 1]), ["class 0 has 39 times"]),
        (lambda: held(x_train=pixels(4, 4, 4) * 1.0, y_train=np.arange(4) % 2), ["floats from", "taken as they are"]),
        (
            lambda: held(x_train=(x := pixels(4, 4, 4)), y_train=np.arange(4), x_test=x[:2], y_test=[0, 1]),
            ["2 of 2 test images (100.00 %) are training images"],
        ),
    ],
)
def test_check_notes_what_is_odd(make, words, capsys):
    make()
    (note,) = checked(capsys)["notes"]
    assert all(word in note for word in words)


@pytest.mark.parametrize("names", [("images", "labels"), ("X", "y")])
def test_check_says_how_to_make_it_right(names, capsys):
    arrays = held(**{names[0]: pixels(6, 4, 4), names[1]: np.arange(6)})
    found = checked(capsys, 2)
    assert "x_train" in found["refused"] and found["arrays"][names[0]] == [[6, 4, 4], "uint8"]
    exec(found["call"], {"np": np})  # which is what a user would do
    train, _ = chaos.data.load("data.npz")
    assert np.array_equal(train.images[:, 0], arrays[names[0]]) and np.array_equal(train.labels, arrays[names[1]])
    assert main(["data", "check", "mine.npz"]) == 2
    out, err = capsys.readouterr()
    assert found["call"] in out and err.startswith("chaos: error: mine.npz: ") and err.count("\n") == 1


def test_check_of_what_is_no_data_set(capsys, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 nothing")
    np.save("one.npy", pixels(3, 4, 4))
    for name in ("none.npz", "bad.npz", "one.npy", "mnst"):
        assert main(["data", "check", name]) == 2
        out, err = capsys.readouterr()
        assert name in err and err.count("\n") == 1 and "Traceback" not in err
        assert ("x_train=np.load" in out) == (name == "one.npy")
    held(x_train=np.full((3, 4, 4), np.nan, np.float32), y_train=np.arange(3))
    assert "is nan" in checked(capsys, 2)["refused"]
