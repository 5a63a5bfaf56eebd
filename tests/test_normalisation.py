"""Normalisation and dropout beyond what runs over all kinds (tests/test_layers.py) and what the contract promises of such
kinds (tests/kinds/check_contract.py): against PyTorch, and where they make no sense."""

import numpy as np
import pytest

import chaos
from chaos.network import run_key
from chaos.reference import forward


def data(n=40, shape=(3, 6, 6), seed=0):
    rng = np.random.default_rng(seed)
    return chaos.data.Dataset(rng.standard_normal((n, *shape), np.float32), rng.integers(0, 5, n), classes=5)


def network(**options):
    layers = [chaos.Conv2d(20, 3), chaos.BatchNorm2d(**options), chaos.ReLU(), chaos.Flatten(), chaos.Linear(12)]
    return chaos.Network((3, 6, 6), [*layers, chaos.BatchNorm1d(**options), chaos.Tanh(), chaos.Linear(5)], seed=2)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.3, "eps": 1e-3}, {"affine": False}], ids=str)
@pytest.mark.parametrize("batch_size", [8, 20])
def test_steps_are_pytorchs(options, batch_size):
    """Five steps with momentum: weights, running statistics, and outputs in evaluation."""
    torch = pytest.importorskip("torch")
    net, train = network(**options), data()
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 20, 3),
        torch.nn.BatchNorm2d(20, **options),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(320, 12),
        torch.nn.BatchNorm1d(12, **options),
        torch.nn.Tanh(),
        torch.nn.Linear(12, 5),
    ).double()
    state = {name: torch.tensor(value).double() for name, value in net.state_dict().items()}
    module.load_state_dict(state, strict=False)
    rule = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for begin in range(0, len(train), batch_size):
        some = slice(begin, begin + batch_size)
        rule.zero_grad()
        x, y = torch.tensor(train.images[some]).double(), torch.tensor(train.labels[some])
        torch.nn.functional.cross_entropy(module(x), y).backward()
        rule.step()
    chaos.train(net, train, epochs=1, lr=0.1, update="momentum", batch_size=batch_size, workers=1, shuffle=False,
                strategy="sequential", progress=False)  # fmt: skip
    wanted = {name: value.numpy() for name, value in module.state_dict().items() if not name.endswith("tracked")}
    found = net.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()), err_msg=name)
    module.eval()
    outputs = module(torch.tensor(train.images).double()).detach().numpy()
    np.testing.assert_allclose(net.forward(train.images), outputs, rtol=0, atol=5e-5)


def test_one_value_has_no_variance():
    net = network()
    for batch_size, words in ((1, "leave 1 for each"), (13, "40 images in steps of batch_size=13 leave 1 for the last")):
        with pytest.raises(ValueError, match=f"BatchNorm1d.* needs steps of at least 2 images to train; .*{words}"):
            chaos.train(net, data(), epochs=1, batch_size=batch_size, workers=1, progress=False)
    images = chaos.Network((3, 6, 6), [chaos.Conv2d(4, 3), chaos.BatchNorm2d(), chaos.Flatten(), chaos.Linear(5)])
    chaos.train(images, data(), epochs=1, batch_size=1, workers=1, progress=False)
    assert np.isfinite(images.weights).all()


@pytest.mark.parametrize("strategy", ["synchronous", "hybrid"])
def test_lanes_are_refused(strategy):
    with pytest.raises(ValueError, match="BatchNorm2d.* sees the whole batch"):
        chaos.train(network(), data(), epochs=1, batch_size=8, workers=1, strategy=strategy, progress=False)


def test_names_are_pytorchs():
    names = list(network().state_dict())
    assert names[2:6] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert list(network(affine=False).state_dict())[2:4] == ["1.running_mean", "1.running_var"]


@pytest.mark.parametrize("kind", [chaos.Dropout, chaos.Dropout1d, chaos.Dropout2d, chaos.AlphaDropout])
def test_dropout_keeps_mean_and_drops_its_share(kind):
    """50,000 draws: shares within 5 standard errors. AlphaDropout keeps mean and variance of normal numbers."""
    shape = {chaos.Dropout1d: (500, 3), chaos.Dropout2d: (500, 3, 2)}.get(kind, (500,))
    p, n, net = 0.3, 100, chaos.Network(shape, [kind(0.3)])
    x = np.random.default_rng(1).standard_normal((n, *shape))
    y = forward(net, x, training=True, key=run_key(4, 1))[net.outputs[0]]
    rest = 1 / (1 - p)
    if kind is chaos.AlphaDropout:
        assert abs(y.mean()) < 5 / np.sqrt(y.size) and abs(y.var() - 1) < 0.05
        return
    dropped = (y == 0).reshape(n, shape[0], -1)
    assert (dropped.all(2) == dropped.any(2)).all(), "whole channels" if len(shape) > 1 else ""
    share = dropped.all(2).mean()
    assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / dropped.all(2).size)
    np.testing.assert_allclose(y[y != 0], (x * rest)[y != 0], rtol=1e-12)
    assert (net.forward(x.astype(np.float32)) == x.astype(np.float32)).all(), "nothing happens in evaluation"


def test_the_masks_of_epochs_images_and_layers_differ():
    net = chaos.Network((64,), [chaos.Dropout(), chaos.Dropout()])
    x = np.ones((2, 64))
    found = []
    for seed, epoch in ((1, 1), (1, 2), (2, 1)):
        values = forward(net, x, training=True, key=run_key(seed, epoch))
        found += [values[node][i] > 0 for node, _ in net.nodes()[1:] for i in (0, 1)]
    assert len({mask.tobytes() for mask in found}) == 12


def test_pytorchs_order_of_arguments_is_told():
    with pytest.raises(TypeError, match=r"num_features is inferred, so PyTorch's BatchNorm2d\(64\) is BatchNorm2d\(\)"):
        chaos.BatchNorm2d(64)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: chaos.Dropout(1.5), r"Dropout: p must be a probability in 0..1, not 1.5"),
        (lambda: chaos.Dropout(True), "p must be a probability"),
        (lambda: chaos.Dropout2d()(chaos.Input((5,))), r"Dropout2d\(\) needs inputs \(channels, height, width\)"),
        (lambda: chaos.BatchNorm2d()(chaos.Input((5,))), r"BatchNorm2d\(\) needs inputs \(channels, height, width\)"),
        (lambda: chaos.BatchNorm1d()(chaos.Input((5, 2, 2))), r"needs inputs \(features,\) or \(channels, length\)"),
        (lambda: chaos.BatchNorm2d(eps=-1), "eps must be a number of at least 0, not -1"),
        (lambda: chaos.BatchNorm2d(momentum=None), "momentum must be a number in 0..1, not None"),
        (lambda: chaos.BatchNorm2d(affine="no"), "affine must be True or False, not 'no'"),
    ],
)
def test_options_that_make_no_sense(make, words):
    with pytest.raises(ValueError, match=words):
        make()
