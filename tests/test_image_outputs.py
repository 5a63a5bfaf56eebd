"""Networks whose output is an image or a sequence: outputs, labels and hits are in PyTorch's order on every path. Across
ranks: test_cluster.py."""

import json
import pickle

import numpy as np
import pytest
from nets import Oracle

import chaos
from chaos import bench, cli, reference, virtual
from chaos.losses import LOSSES
from chaos.sync import STRATEGIES


def added():
    x = chaos.Input((2, 5, 4))
    y = chaos.Conv2d(3, 3, padding="same")(x)
    return x, chaos.Add()(chaos.Tanh()(y), chaos.Conv2d(3, 1)(x))


NETWORKS = {
    "convolution": ((2, 5, 4), [chaos.Conv2d(4, 3), chaos.Tanh(), chaos.Conv2d(3, 2)]),
    "pooling": ((2, 5, 4), [chaos.Conv2d(3, 2), chaos.MaxPool2d(2, 1)]),
    "activation behind pooling": ((2, 5, 4), [chaos.Conv2d(3, 2), chaos.Tanh(), chaos.MaxPool2d((2, 1)), chaos.ReLU()]),
    "sequence": ((2, 9), [chaos.Conv1d(4, 3), chaos.ReLU(), chaos.Conv1d(3, 2)]),
    "sum": added(),
    "one pixel": ((2, 5, 4), [chaos.Conv2d(3, (5, 4))]),
    "many channels": ((2, 5, 4), [chaos.Conv2d(17, 2)]),
}
OPTIONS = {"progress": False, "lr": 0.05, "epochs": 2}


def network(name, flat=False, seed=3):
    """The network, or the same with its outputs as a vector."""
    inputs, outputs = NETWORKS[name]
    if isinstance(outputs, list):
        return chaos.Network(inputs, outputs + [chaos.Flatten()] * flat, seed=seed)
    return chaos.Network(inputs, chaos.Flatten()(outputs) if flat else outputs, seed=seed)


def data_for(net, n=40):
    """Images with classes that count the outputs in C order."""
    rng = np.random.default_rng(1)
    classes = int(np.prod(net.output_shape))
    return chaos.data.Dataset(
        (rng.standard_normal((n, *net.input_shape), np.float32),), rng.integers(0, classes, n), classes=classes
    )


def targets_of(net, n):
    """{form: targets} that the outputs can be compared with."""
    rng = np.random.default_rng(2)
    return {
        "class": rng.integers(0, int(np.prod(net.output_shape)), n),
        "map": rng.integers(0, net.output_shape[0], (n, *net.output_shape[1:])),
        "values": rng.random((n, *net.output_shape)).astype(np.float32),
    }


CASES = [(loss, form) for loss, kind in LOSSES.items() for form in kind.targets]


def hits(y, form, target):
    """How many answers are right."""
    if form == "class":
        return (y.reshape(len(y), -1).argmax(1) == target).sum()
    return (y.argmax(1) == target).sum() if form == "map" else ((y > 0) == (target > 0.5)).sum()


def test_numbers_stay_where_they_are():
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 2, 1, 3)
    net = chaos.Network((2, 1, 3), [chaos.ReLU()])
    np.testing.assert_array_equal(net.forward(x), x)
    assert net.predict(x[:, ::-1]).tolist() == [[[0, 0, 0]]]
    np.testing.assert_array_equal(chaos.Network((2, 3), [chaos.ReLU()]).forward(x[:, :, 0]), x[:, :, 0])


@pytest.mark.parametrize("loss, form", CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_losses_and_gradients_are_the_definitions(isa, name, loss, form):
    net = network(name)
    x = data_for(net, 11).images
    Oracle(net, x, targets_of(net, 11)[form], loss).check(x)


@pytest.mark.parametrize("name", NETWORKS)
def test_predictions(name):
    net = network(name)
    x = data_for(net).images
    y = reference.forward(net, x)[net.outputs[0]]
    assert net.forward(x).shape == y.shape == (40, *net.output_shape)
    np.testing.assert_array_equal(net.predict(x), y.argmax(1))
    wanted = np.exp(y - y.max(1, keepdims=True))
    np.testing.assert_allclose(net.predict_proba(x), wanted / wanted.sum(1, keepdims=True), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(network(name, flat=True).forward(x), net.forward(x).reshape(40, -1))


@pytest.mark.parametrize("loss, form", CASES)
@pytest.mark.parametrize("name", ["convolution", "sequence"])
def test_loss_and_error_of_an_evaluation(name, loss, form):
    net = network(name)
    x, target = data_for(net).images, targets_of(net, 40)[form]
    data = chaos.data.Dataset((x,), target) if form == "class" else chaos.data.Dataset((x,), targets=target)
    found = chaos.evaluate(net, data, workers=2, loss=loss)
    y = reference.forward(net, x)[net.outputs[0]]
    assert found["loss"] == pytest.approx(LOSSES[loss].value(y, target), rel=1e-5)
    answers = LOSSES[loss].answers(form, net.output_shape)
    if not answers:
        assert found["error"] is None
        return
    assert found["wrong"] == 40 * answers - hits(y, form, target)
    assert found["error"] == found["wrong"] / (40 * answers)


@pytest.mark.parametrize("loss, form", CASES)
def test_a_step_of_training_is_the_definitions(loss, form):
    net, x = network("convolution"), data_for(network("convolution"), 6).images
    target = targets_of(net, 6)[form]
    data = chaos.data.Dataset((x,), target) if form == "class" else chaos.data.Dataset((x,), targets=target)
    value, gradients = reference.loss_and_gradients(net, x, target, loss)
    before = net.state_dict()
    run = chaos.train(net, data, strategy="sequential", batch_size=6, loss=loss, **OPTIONS | {"epochs": 1})
    assert run.history[0]["train_loss"] == pytest.approx(value, rel=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(net.state_dict()[name], before[name] - 0.05 * gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", NETWORKS)
def test_trains_as_with_outputs_in_a_vector(name, strategy):
    """One worker, or where it gives the same bits three: a Flatten at the end changes no bit of weights or counts."""
    found = []
    for flat in (False, True):
        net = network(name, flat)
        data = data_for(net)
        workers = 3 if STRATEGIES[strategy].deterministic and not STRATEGIES[strategy].single else 1
        run = chaos.train(net, data[:30], data[30:], strategy=strategy, workers=workers, batch_size=4, **OPTIONS)
        counts = [[r[key] for key in ("train_loss", "train_error", "test_loss", "test_error")] for r in run.history]
        found.append((list(map(bytes, net.state_dict().values())), counts))
    assert found[0] == found[1]


@pytest.mark.parametrize("form", ["class", "map"])
def test_traced_and_replayed(tmp_path, form):
    net = network("convolution")
    x, target = data_for(net).images, targets_of(net, 40)[form]
    data = chaos.data.Dataset((x,), target) if form == "class" else chaos.data.Dataset((x,), targets=target)
    with virtual.Traced(tmp_path / "trace") as runner:
        chaos.train(net, data, workers=3, runner=runner, **OPTIONS)
    for jobs in (1, 2):
        other = virtual.replay(tmp_path / "trace", data, jobs=jobs)
        np.testing.assert_array_equal(other.forward(x), net.forward(x))


@pytest.mark.parametrize("strategy", ["chaos", "synchronous", "averaging"])
@pytest.mark.parametrize("name", ["convolution", "activation behind pooling", "sequence"])
def test_virtual_workers(name, strategy):
    """One virtual worker has the bits of a real one; of many the evaluation is that of the weights they leave."""
    found = []
    for runner in (None, virtual.Virtual()):
        net = network(name)
        data = data_for(net)
        chaos.train(net, data[:30], data[30:], strategy=strategy, workers=1, batch_size=4, runner=runner, **OPTIONS)
        found.append(net.weights.tobytes())
    assert found[0] == found[1]
    net = network(name)
    run = chaos.train(
        net, data[:30], data[30:], strategy=strategy, workers=5, batch_size=4, runner=virtual.Virtual(), **OPTIONS
    )
    y, last = reference.forward(net, data.images[30:])[net.outputs[0]], run.history[-1]
    assert last["test_error"] == 1 - hits(y, "class", data.labels[30:]) / 10
    assert last["test_loss"] == pytest.approx(LOSSES["cross_entropy"].value(y, data.labels[30:]), rel=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_and_described(tmp_path, name):
    net = network(name)
    x = data_for(net).images
    net.save(tmp_path / "net.safetensors")
    for other in (chaos.load(tmp_path / "net.safetensors"), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other.forward(x), net.forward(x))
    assert len(net.core_layers()) == len(net.nodes()) - 1 and str(net.output_shape) in repr(net)
    # gradients are compared with the definition before anything is timed
    assert len(bench.kernels(net, seconds=1e-5, repeats=1)["layers"]) == len(net.core_layers())


def test_commands(tmp_path, capsys):
    """`chaos predict` shows what belongs to each pixel; `chaos evaluate` counts the outputs in C order."""
    net = chaos.Network((1, 3, 4), [chaos.Conv2d(2, 1), chaos.Tanh(), chaos.Conv2d(5, 2)], seed=1)
    net.save(tmp_path / "net.safetensors")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (6, 3, 4), np.uint8)
    np.save(tmp_path / "x.npy", x)
    assert cli.main(["predict", str(tmp_path / "net.safetensors"), str(tmp_path / "x.npy"), "--json", "--proba"]) == 0
    found = json.loads(capsys.readouterr().out)
    shares = net.predict_proba(x)
    assert [one["label"] for one in found] == net.predict(x).tolist()
    np.testing.assert_allclose([one["probability"] for one in found], shares.max(1))
    np.testing.assert_allclose([one["probabilities"] for one in found], shares)
    assert cli.main(["predict", str(tmp_path / "net.safetensors"), str(tmp_path / "x.npy")]) == 2
    assert "an image of shape (5, 2, 3)" in (said := capsys.readouterr().err) and "--json" in said
    labels = rng.integers(0, 30, 6)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    assert cli.main(["evaluate", str(tmp_path / "net.safetensors"), "--data", str(tmp_path / "d.npz"), "--json"]) == 0
    wrong = (net.forward(x).reshape(6, -1).argmax(1) != labels).sum()
    assert json.loads(capsys.readouterr().out)["wrong"] == wrong
