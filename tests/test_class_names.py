"""What a network keeps of its training: names of classes, and the mean and spread of its images."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

import chaos
from chaos import cli
from chaos.data import Dataset
from chaos.errors import CheckpointError, DataError
from chaos.formats import read_tensors, write_tensors

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 1, 6, 6), np.uint8)
PETS = np.array(["bird", "cat", "dog"])[np.arange(30) % 3]
SIX = {"workers": 1, "epochs": 1, "progress": False}


def small():
    return chaos.Network((1, 6, 6), [chaos.Conv2d(2, 3), chaos.Flatten(), chaos.Linear(3)])


@pytest.fixture
def trained():
    net = small()
    chaos.train(net, Dataset(IMAGES, PETS), **SIX)
    return net


def test_names_are_kept(trained, tmp_path):
    names = ("bird", "cat", "dog")
    trained.save(tmp_path / "a.safetensors")
    for net in (trained, chaos.load(tmp_path / "a.safetensors"), pickle.loads(pickle.dumps(trained)), chaos.fold(trained)):
        assert net.class_names == names
    assert small().class_names is None
    small().save(tmp_path / "b.safetensors")
    assert chaos.load(tmp_path / "b.safetensors").class_names is None
    chaos.train(trained, Dataset(IMAGES, np.arange(30) % 3), **SIX)
    assert trained.class_names == names  # which other data knows nothing of
    chaos.train(trained, Dataset(IMAGES, np.char.upper(PETS)), **SIX)
    assert trained.class_names == ("BIRD", "CAT", "DOG")


def test_damaged_names(trained, tmp_path):
    path = tmp_path / "a.safetensors"
    trained.save(path)
    tensors, metadata = read_tensors(path)
    for bad in ("3", '"abc"', "[1]", "{}"):
        write_tensors(path, tensors, metadata | {"class_names": bad})
        with pytest.raises(CheckpointError, match="names of its classes are damaged"):
            chaos.load(path)


def test_labels_that_are_numbered_otherwise(trained):
    train, other = Dataset(IMAGES, PETS), Dataset(IMAGES, PETS, class_names=["dog", "cat", "bird"])
    fewer = Dataset(IMAGES[PETS != "bird"], PETS[PETS != "bird"])
    for data, message in (
        (other, "class 0 is 'dog', and 'bird' in training"),
        (fewer, "class 0 is 'cat', and 'bird' in training"),
    ):
        with pytest.raises(DataError, match=f"^test: {message}; .*class_names=train.class_names"):
            chaos.train(small(), train, data, **SIX)
        with pytest.raises(DataError, match=f"^data: {message}"):
            chaos.evaluate(trained, data, workers=1)
    good = Dataset(fewer.images, PETS[PETS != "bird"], class_names=train.class_names)
    chaos.train(small(), train, good, **SIX)
    chaos.evaluate(trained, good, workers=1)
    chaos.evaluate(trained, Dataset(IMAGES, np.arange(30) % 3), workers=1)


def folder(top):
    for half in ("train", "test"):
        for k, (pixels, pet) in enumerate(zip(IMAGES[:, 0], PETS, strict=True)):
            path = top / half / pet / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return top


def command(capsys, *words):
    code = cli.main([*map(str, words)])
    found = capsys.readouterr()
    assert code in (0, None), found.err
    return found


def test_pictures_in_names_out(tmp_path, capsys):
    """From a folder of pictures to the names that the command line shows."""
    top = folder(tmp_path / "pets")
    small().save(tmp_path / "net.safetensors")
    run = tmp_path / "run"
    options = ["--data", top, "--epochs", 2, "--workers", 1, "--run-dir", run]
    command(capsys, "train", tmp_path / "net.safetensors", *options)
    assert json.loads(command(capsys, "evaluate", run, "--json").out)["images"] == 30
    picture = top / "test" / "cat" / "1.png"
    shown = command(capsys, "predict", run, picture).out
    name = shown.split()[1]
    assert name in PETS
    (one,) = json.loads(command(capsys, "predict", run, picture, "--json").out)
    assert one["name"] == name == sorted(set(PETS))[one["label"]]
    big = chaos.Network((3, 8, 8), [chaos.Flatten(), chaos.Linear(3)])
    big.save(tmp_path / "big.safetensors")
    told = command(capsys, "train", tmp_path / "big.safetensors", "--data", top, "--epochs", 1, "--workers", 1)
    assert "pets: pictures of 6x6 are brought to the network's 8x8 pixels" in told.err


def test_tables_on_the_command_line(tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(IMAGES.reshape(30, -1)).assign(label=PETS)
    table.to_csv(tmp_path / "pets.csv", index=False)
    small().save(tmp_path / "net.safetensors")
    command(capsys, "train", tmp_path / "net.safetensors", "--data", tmp_path / "pets.csv", "--epochs", 1, "--workers", 1)
    chaos.Network((1, 5, 6), [chaos.Flatten(), chaos.Linear(3)]).save(tmp_path / "net.safetensors")
    assert cli.main(["train", str(tmp_path / "net.safetensors"), "--data", str(tmp_path / "pets.csv")]) == 2
    assert "36 columns beside 'label', and 1 x 5 x 6 is 30" in capsys.readouterr().err


# Normalisation


@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 9), (7,)])
def test_normalise_is_its_definition(shape):
    layers = [chaos.Flatten(), chaos.Linear(4), chaos.Tanh(), chaos.Linear(3)] if len(shape) > 1 else [chaos.Linear(3)]
    net = chaos.Network(shape, layers, seed=1)
    pixels = RNG.integers(0, 256, (20, *shape), np.uint8) // np.arange(1, shape[0] + 1, dtype=np.uint8).reshape(
        -1, *[1] * (len(shape) - 1)
    )
    data = Dataset((pixels,), np.arange(20) % 3)
    mean, std = data.mean_std()
    found = chaos.normalise(net, mean, std)
    by_channel = (-1, *[1] * (len(shape) - 1))
    seen = (data.scaled().astype(np.float64) - mean.reshape(by_channel)) / std.reshape(by_channel)
    axes = (0, *range(2, seen.ndim))
    np.testing.assert_allclose(seen.mean(axes), 0, atol=1e-6)  # float32 pixels
    np.testing.assert_allclose(seen.std(axes), 1, atol=1e-6)
    np.testing.assert_allclose(found.forward(pixels), net.forward(seen.astype(np.float32)), rtol=1e-4, atol=1e-5)
    assert found.n_parameters == net.n_parameters + 2 * shape[0]


def test_normalisation_stays_as_it_is_and_is_kept(tmp_path):
    train = Dataset(IMAGES, PETS)
    net = chaos.normalise(small(), *train.mean_std())
    before = {name: net.state_dict()[f"normalise.{name}"] for name in ("weight", "bias")}
    chaos.train(net, train, **SIX, update="adam", update_options={"weight_decay": 0.1})
    net.save(tmp_path / "a.safetensors")
    for one in (net, chaos.load(tmp_path / "a.safetensors")):
        for name, value in before.items():
            assert np.array_equal(one.state_dict()[f"normalise.{name}"], value)
        assert one.frozen == ("normalise.weight", "normalise.bias") and one.trained_on[0].pixels
    assert np.array_equal(chaos.load(tmp_path / "a.safetensors").forward(IMAGES), net.forward(IMAGES))


def test_normalise_keeps_what_the_network_has():
    x = chaos.Input((1, 6, 6))
    shared = chaos.Conv2d(1, 3, padding=1)
    y = chaos.Flatten()(chaos.Add()(shared(shared(x)), x))
    net = chaos.Network(x, [chaos.Linear(3, name="one")(y), chaos.Linear(2)(y)])
    net.freeze("one.*")
    net.class_names = ("a", "b", "c")
    found = chaos.normalise(net, 0.5, 2)
    assert found.frozen == ("normalise.weight", "normalise.bias", "one.weight", "one.bias")
    assert found.class_names == net.class_names and found.n_parameters == net.n_parameters + 2
    seen = (IMAGES / 127.5 - 1 - 0.5) / 2
    for mine, other in zip(found.forward(IMAGES), net.forward(seen.astype(np.float32)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    constant = chaos.normalise(small(), [0.25], [0.0])
    assert constant.state_dict()["normalise.weight"].tolist() == [1]


def test_normalised_networks_are_exported():
    onnxruntime = pytest.importorskip("onnxruntime")
    net = chaos.normalise(small(), *Dataset(IMAGES, PETS).mean_std())
    x = (IMAGES / 127.5 - 1).astype(np.float32)
    session = onnxruntime.InferenceSession(net.to_onnx().SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, net.forward(x), rtol=1e-4, atol=1e-5)


def test_bad_normalisations():
    net = small()
    two = [chaos.Input((1, 6, 6)), chaos.Input((1, 6, 6))]
    several = chaos.Network(two, chaos.Linear(3)(chaos.Flatten()(chaos.Add()(*two))))
    for call, message in (
        (
            lambda: chaos.normalise(net, [0, 0], [1, 1]),
            r"mean must be a number or 1, one for each channel, not of shape \(2,\)",
        ),
        (lambda: chaos.normalise(net, 0, "1"), "std must be a number"),
        (lambda: chaos.normalise(net, np.nan, 1), "mean must be finite"),
        (lambda: chaos.normalise(net, 0, -1), "std must not be negative"),
        (lambda: chaos.normalise(several, 0, 1), "one input, not of 2"),
        (lambda: chaos.normalise(chaos.normalise(net, 0, 1), 0, 1), 'a layer "normalise" already'),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="takes a chaos.Network"):
        chaos.normalise(None, 0, 1)
