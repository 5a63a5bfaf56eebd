"""`chaos export`: what other programs read is what the network is."""

import numpy as np
import pytest

import chaos
from chaos.cli import main
from chaos.training import MODEL


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory, and its network."""
    folder = tmp_path_factory.mktemp("export")
    layers = [chaos.Conv2d(4, 3, bias=False), chaos.BatchNorm2d(), chaos.ReLU(), chaos.Flatten(), chaos.Linear(10)]
    train, _ = chaos.data.load("digits")
    net = chaos.Network((1, 8, 8), layers)
    chaos.train(net, train[:64], epochs=1, batch_size=8, run_dir=folder / "run", strategy="sequential", progress=False)
    return folder / "run", net


def images():
    return chaos.data.load("digits")[1].images[:20]


def same(found, state):
    return found.keys() == state.keys() and all(np.array_equal(found[name], state[name]) for name in state)


def test_npz(run, tmp_path, capsys):
    folder, net = run
    assert main(["export", str(folder), str(tmp_path / "net.npz")]) == 0
    with np.load(tmp_path / "net.npz") as found:
        assert same(dict(found), net.state_dict())
    assert "pixels" in capsys.readouterr().out


def test_safetensors_has_no_training_state(run, tmp_path):
    from safetensors.numpy import load_file

    folder, net = run
    assert main(["export", str(folder / MODEL), str(tmp_path / "net.safetensors")]) == 0
    assert same(load_file(tmp_path / "net.safetensors"), net.state_dict())
    again = chaos.load(tmp_path / "net.safetensors")
    assert np.array_equal(again.predict_proba(images()), net.predict_proba(images()))


def test_onnx(run, tmp_path, capsys):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    folder, net = run
    assert main(["export", str(folder), str(tmp_path / "net.onnx"), "--fold"]) == 0
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert "x / 127.5 - 1" in capsys.readouterr().out
    seen = (images().astype(np.float32) / 127.5 - 1).astype(np.float32)
    (scores,) = session.run(None, {"input": seen})
    # folding multiplies weights with a factor once more: a few roundings of 2**-24 of sums of 10 terms
    np.testing.assert_allclose(scores, net.forward(images()), rtol=1e-4, atol=1e-5)
    assert main(["export", str(tmp_path / "net.onnx"), str(tmp_path / "back.npz")]) == 0


def test_torch(run, tmp_path):
    torch = pytest.importorskip("torch")
    folder, net = run
    assert main(["export", str(folder), str(tmp_path / "net.pt")]) == 0
    found = torch.load(tmp_path / "net.pt", weights_only=True)
    assert same({name: value.numpy() for name, value in found.items()}, net.state_dict())
    net.to_torch().load_state_dict(found)


@pytest.mark.parametrize(
    "model, file, words",
    [
        ("RUN", "net.onx", "did you mean .onnx?"),
        ("RUN", "none/net.onnx", "there is no directory"),
        ("RUN", f"RUN/{MODEL}", "is what is to be exported"),
        ("small", "net.onnx", "is a model without training"),
        ("nothing.safetensors", "net.onnx", "nothing.safetensors"),
    ],
)
def test_refused(run, tmp_path, monkeypatch, capsys, model, file, words):
    monkeypatch.chdir(tmp_path)
    before = (run[0] / MODEL).read_bytes()
    assert main(["export", model.replace("RUN", str(run[0])), file.replace("RUN", str(run[0]))]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert (run[0] / MODEL).read_bytes() == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize("package, ending", [("torch", ".pt"), ("onnx", ".onnx")])
def test_without_the_package(run, tmp_path, monkeypatch, capsys, package, ending):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(run[0]), str(tmp_path / f"net{ending}")]) == 2
    assert f"chaos-sgd[{package}]" in capsys.readouterr().err
