"""What the command line and job files say of data beyond their name: a table's column, weights, mean and spread; and which
weights of a run are taken."""

import json

import numpy as np
import pytest

import chaos
from chaos.cli import main
from chaos.normalising import NAME

TRAIN = ["train", "--epochs", "1", "--workers", "1", "--quiet"]


@pytest.fixture
def few(tmp_path):
    """200 of the digits as a file of arrays, and the set in it."""
    train, test = chaos.data.load("digits", size=29)
    path = tmp_path / "few.npz"
    np.savez(path, x_train=train.images[:200], y_train=train.labels[:200], x_test=test.images, y_test=test.labels)
    return path, chaos.data.load(path)[0]


def weights_of(folder):
    return chaos.load(folder / "model.safetensors").weights


def test_sample_weights_are_those_of_chaos_train(few, tmp_path):
    path, train = few
    weights = np.linspace(0, 2, len(train))
    np.save(tmp_path / "w.npy", weights)
    words = ["small", "--data", str(path), "--sample-weight", str(tmp_path / "w.npy"), "--subset", "150"]
    assert main([*TRAIN, *words, "--run-dir", str(tmp_path / "run")]) == 0
    net = chaos.models.small()
    chosen = chaos.data.Dataset(train.images, train.labels, weights=weights, classes=10)[:150]
    chaos.train(net, chosen, epochs=1, workers=1, progress=False)
    np.testing.assert_array_equal(weights_of(tmp_path / "run"), net.weights)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["sample_weight"] == str(tmp_path / "w.npy")
    # a run that is continued has them again
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "run"), "--epochs", "2", "--quiet"]) == 0
    chaos.train(again := chaos.models.small(), chosen, epochs=2, workers=1, progress=False)
    np.testing.assert_array_equal(weights_of(tmp_path / "run"), again.weights)


@pytest.mark.parametrize(
    "content, words",
    [
        (np.ones(7), "weights"),
        (-np.ones(200), "negative"),
        (None, "cannot be read"),
        (b"nothing", "not a readable .npy file"),
    ],
)
def test_sample_weights_that_do_not_fit(few, tmp_path, capsys, content, words):
    path = tmp_path / "w.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    assert main([*TRAIN, "small", "--data", str(few[0]), "--sample-weight", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and words in line


def test_a_traced_run_knows_its_data_by_name_alone(few, tmp_path, capsys):
    np.save(tmp_path / "w.npy", np.ones(200))
    words = ["small", "--data", str(few[0]), "--sample-weight", str(tmp_path / "w.npy"), "--trace", str(tmp_path / "t")]
    assert main([*TRAIN, *words]) == 2
    assert "--trace" in capsys.readouterr().err


def test_normalised_on_the_command_line_as_in_python(few, tmp_path):
    path, train = few
    run = tmp_path / "run"
    words = ["small", "--data", str(path), "--normalise", "--subset", "150", "--run-dir", str(run)]
    assert main([*TRAIN, *words]) == 0
    net = chaos.normalise(chaos.models.small(), *train[:150].mean_std())
    chaos.train(net, train[:150], epochs=1, workers=1, progress=False)
    np.testing.assert_array_equal(weights_of(run), net.weights)
    assert main(["train", "--resume", "--run-dir", str(run), "--epochs", "2", "--quiet"]) == 0
    found = chaos.load(run / "model.safetensors")
    assert [name for _, name in found.nodes()].count(NAME) == 1
    # and once more, by the job file that the run has kept
    assert main(["train", str(run / "job.toml"), "--run-dir", str(tmp_path / "again"), "--quiet"]) == 0
    np.testing.assert_array_equal(weights_of(tmp_path / "again"), found.weights)


def test_the_column_of_labels(tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    train, _ = chaos.data.load("digits", size=29)
    frame = pandas.DataFrame(train.images[:120].reshape(120, -1)).assign(what=train.labels[:120])
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    assert main([*TRAIN, "small", "--data", str(path)]) == 2
    assert "(--label)" in capsys.readouterr().err
    np.save(tmp_path / "w.npy", np.ones(120))
    job = tmp_path / "job.toml"
    table = 'name = "t.csv"\nlabel = "what"\nsample_weight = "w.npy"'
    job.write_text(f'[network]\nname = "small"\n[data]\n{table}\n[training]\nepochs = 1\n')
    for k, words in enumerate((["small", "--data", str(path), "--label", "what"], [str(job)])):
        assert main([*TRAIN, *words, "--validation-data", str(path), "--run-dir", str(tmp_path / str(k))]) == 0
    np.testing.assert_array_equal(weights_of(tmp_path / "0"), weights_of(tmp_path / "1"))
    assert main([*TRAIN, "small", "--data", "digits", "--label", "what"]) == 2
    assert "names the column of a table" in capsys.readouterr().err


def test_the_best_weights_are_evaluated_predicted_and_exported(few, tmp_path, capsys):
    path, train = few
    run = tmp_path / "run"
    words = ["small", "--data", str(path), "--validation-split", "0.2", "--lr", "0.05", "--run-dir", str(run)]
    assert main(["train", "--epochs", "6", "--workers", "1", "--quiet", *words]) == 0
    best = chaos.load(run / "best.safetensors")
    # whichever epoch was the best, the last one's weights are others here
    last = chaos.load(run / "model.safetensors")
    last.weights[:] = 0
    last.save(run / "model.safetensors")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--best", "--json"]) == 0
    test = chaos.data.load(path)[1]
    assert json.loads(capsys.readouterr().out)["error"] == pytest.approx((best.predict(test.images) != test.labels).mean())
    np.save(tmp_path / "one.npy", test.images[:5])
    assert main(["predict", str(run), str(tmp_path / "one.npy"), "--best", "--json"]) == 0
    assert [one["label"] for one in json.loads(capsys.readouterr().out)] == best.predict(test.images[:5]).tolist()
    assert main(["export", str(run), str(tmp_path / "w.npz"), "--best"]) == 0
    with np.load(tmp_path / "w.npz") as found:
        for name, value in best.state_dict().items():
            np.testing.assert_array_equal(found[name], value)


def test_best_weights_that_are_nowhere(few, tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*TRAIN, "small", "--data", str(few[0]), "--run-dir", str(run)]) == 0
    assert main(["evaluate", str(run), "--best"]) == 2
    assert "keeps no best weights" in capsys.readouterr().err
    assert main(["evaluate", str(run / "model.safetensors"), "--best"]) == 2
    assert "--best is of a run directory" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["unet", "pyramid"])
def test_one_class_per_image_is_refused_where_pixels_are_answered(model, capsys):
    assert main([*TRAIN, model, "--data", "digits", "--subset", "20"]) == 2
    assert "wants a target for each pixel" in capsys.readouterr().err
