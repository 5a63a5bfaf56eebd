"""Images of another scale than those of the training: pixels for floats, floats for pixels, other units."""

import json
import pickle
import warnings

import numpy as np
import pytest

import chaos
from chaos import cli, virtual
from chaos.errors import CheckpointError, DataError
from chaos.formats import read_tensors, write_tensors
from chaos.scale import Scale

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4), np.uint8)
LABELS = np.arange(40) % 3
UNIT = PIXELS / np.float32(255)
SEEN = PIXELS / np.float32(127.5) - 1
NORMAL = np.random.default_rng(1).standard_normal((40, 1, 4, 4)).astype(np.float32)
TRAINED = {"pixels": PIXELS, "0..1": UNIT, "-1..1": SEEN, "0..255": PIXELS.astype(np.float32), "normal": NORMAL}
# what a network of each training thinks of each: None, the text of a warning, or of an error
FITS = None
REFUSED = {
    ("pixels", "0..255"): r"floats from 0 to 255, but .* trained on pixels .* x / 127\.5 - 1",
    ("pixels", "normal"): r"floats from .* trained on pixels",
    ("0..1", "pixels"): r"pixels \(uint8\), .* trained on floats from 0 to 1: give x / 255",
    ("0..255", "pixels"): r"trained on floats from 0 to 255",
    ("normal", "pixels"): r"trained on floats from -",
}
WARNED = {
    ("pixels", "0..1"): r"floats from 0 to 1, none below 0.* 2 \* x - 1",
    ("0..1", "0..255"): r"floats from 0 to 255, .* trained on floats from 0 to 1",
    ("-1..1", "0..255"): r"floats from 0 to 255, .* trained on floats from -1 to 1",
    ("normal", "0..255"): r"floats from 0 to 255",
    ("0..255", "0..1"): r"floats from 0 to 1, .* trained on floats from 0 to 255",
    ("0..255", "-1..1"): r"floats from -1 to 1",
    ("0..255", "normal"): r"floats from -",
    ("0..1", "-1..1"): r"floats from -1 to 1, .* trained on floats from 0 to 1",
    ("0..1", "normal"): r"floats from -",
}


def trained(kind):
    net = chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(3)])
    chaos.train(net, chaos.data.Dataset(TRAINED[kind], LABELS), epochs=1, workers=1, progress=False)
    return net


def answers(call, case):
    """That `call` does what is to be done about a case, (of the training, what comes)."""
    if case in REFUSED:
        with pytest.raises(DataError, match=REFUSED[case]):
            call()
    elif case in WARNED:
        with pytest.warns(UserWarning, match=WARNED[case]) as caught:
            call()
        assert caught[0].filename == __file__
    else:
        call()  # pytest makes an error of a warning


@pytest.mark.parametrize("comes", TRAINED)
@pytest.mark.parametrize("kind", TRAINED)
def test_every_scale_against_every_other(kind, comes):
    net, x = trained(kind), TRAINED[comes]
    data = chaos.data.Dataset(x, LABELS)
    for call in (
        lambda: net.forward(x),
        lambda: net.predict(x),
        lambda: net.loss_and_gradients(x, LABELS),
        lambda: chaos.evaluate(net, data, workers=1),
    ):
        answers(call, (kind, comes))
    fresh = chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(3)])
    train = chaos.data.Dataset(TRAINED[kind], LABELS)
    answers(lambda: chaos.train(fresh, train, data, epochs=1, workers=1, progress=False), (kind, comes))
    assert fresh.trained_on is None or (kind, comes) not in REFUSED


def test_no_image_alone_is_suspicious():
    """What a single image or a dark one may look like."""
    assert trained("pixels").forward(np.zeros((2, 1, 4, 4), np.float32)).shape == (2, 3)
    for kind in ("0..1", "-1..1", "0..255", "normal"):
        net = trained(kind)
        for x in (np.zeros((1, 1, 4, 4), np.float32), TRAINED[kind] * np.float32(0.1), TRAINED[kind][:1], TRAINED[kind][:0]):
            assert len(net.forward(x)) == len(x)


def test_integers_are_pixels_to_who_was_trained_on_pixels():
    net = trained("pixels")
    wanted = net.forward(PIXELS)
    for dtype in (np.int64, np.int16, np.uint32):
        np.testing.assert_array_equal(net.forward(PIXELS.astype(dtype)), wanted)
    with pytest.raises(DataError, match="integers from -1 to 255; integer pixels must be from 0 to 255"):
        net.forward(PIXELS.astype(int) - (np.arange(16).reshape(4, 4) == 0) * (PIXELS == PIXELS.min()) - (PIXELS == 0))
    np.testing.assert_array_equal(trained("0..255").forward(PIXELS.astype(int)), trained("0..255").forward(PIXELS * 1.0))
    fresh = chaos.Network((2, 1, 3), [chaos.ReLU()])
    np.testing.assert_array_equal(fresh.forward(np.arange(1, 7).reshape(1, 2, 1, 3)).ravel(), np.arange(1, 7))


def test_kept_in_files_and_copies(tmp_path):
    net = trained("0..1")
    assert net.trained_on == (Scale(False, 0.0, 1.0),)
    net.save(tmp_path / "net.safetensors")
    for other in (chaos.load(tmp_path / "net.safetensors"), pickle.loads(pickle.dumps(net))):
        assert other.trained_on == net.trained_on
        with pytest.raises(DataError, match="trained on floats"):
            other.predict(PIXELS)
    fresh = chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(3)])
    fresh.save(tmp_path / "fresh.safetensors")
    assert chaos.load(tmp_path / "fresh.safetensors").trained_on is None
    tensors, metadata = read_tensors(tmp_path / "net.safetensors")
    for bad in ("[]", "[[1]]", '["abc"]', "[[false, NaN, 1]]", "{", "3"):
        write_tensors(tmp_path / "bad.safetensors", tensors, metadata | {"trained_on": bad})
        with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
            chaos.load(tmp_path / "bad.safetensors")


def test_several_inputs_and_other_ways_to_train(tmp_path):
    a, b = chaos.Input((1, 4, 4)), chaos.Input((1, 4, 4))
    layer = chaos.Linear(3)
    net = chaos.Network([a, b], chaos.Add()(layer(chaos.Flatten()(a)), layer(chaos.Flatten()(b))))
    chaos.train(net, chaos.data.Dataset((PIXELS, UNIT), LABELS), epochs=1, workers=1, progress=False)
    assert [scale.pixels for scale in net.trained_on] == [True, False]
    net.forward([PIXELS, UNIT])
    with pytest.raises(DataError, match="trained on floats from 0 to 1"):
        net.forward([PIXELS, PIXELS])
    data = chaos.data.Dataset(PIXELS, LABELS)
    net = chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(3)])
    with virtual.Traced(tmp_path / "trace") as runner:
        chaos.train(net, data, epochs=1, workers=2, runner=runner, progress=False)
    assert virtual.replay(tmp_path / "trace", data).trained_on == net.trained_on == (Scale(True, 0.0, 255.0),)


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("pixels.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    np.savez("unit.npz", x_train=UNIT, y_train=LABELS, x_test=UNIT, y_test=LABELS)
    chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(3)]).save("m.safetensors")
    assert cli.main(["train", "m.safetensors", "--data", "unit.npz", "--epochs", "1", "--run-dir", "run", "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--data", "pixels.npz"]) == 2
    assert "give x / 255" in capsys.readouterr().err
    assert cli.main(["predict", "run", "unit.npz", "pixels.npz"]) == 2
    out, err = capsys.readouterr()
    assert not out and "pixels.npz: images: pixels (uint8)" in err
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        np.save("normal.npy", NORMAL)
        assert cli.main(["predict", "run", "normal.npy", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 40
    assert err.startswith("chaos: warning: images: floats from -") and err.count("\n") == 1
