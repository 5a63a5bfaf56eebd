"""Normalisation and dropout beyond what runs over all kinds (tests/test_layers.py) and what the contract promises of such
kinds (tests/kinds/check_contract.py): against PyTorch, and where they make no sense."""

import numpy as np
import pytest

import chaos
from chaos import virtual
from chaos.network import run_key
from chaos.reference import forward, loss_and_gradients
from chaos.sync import STRATEGIES


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


def by_running_statistics(momentum=0.2):
    layers = [chaos.Conv2d(20, 3), chaos.BatchNorm2d(momentum=momentum, use_running_stats=True, name="images"), chaos.ReLU()]
    layers += [chaos.Flatten(), chaos.Linear(12)]
    layers += [chaos.BatchNorm1d(momentum=momentum, use_running_stats=True, name="vectors"), chaos.Tanh(), chaos.Linear(5)]
    return chaos.Network((3, 6, 6), layers, seed=2)


def trained(make=by_running_statistics, **options):
    net = make()
    chaos.train(net, data(), **({"epochs": 2, "lr": 0.05, "workers": 1, "shuffle": False, "progress": False} | options))
    return net.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def in_groups(of=3):
    layers = [chaos.Conv2d(20, 3), chaos.BatchNorm2d(momentum=0.2, groups_of=of, name="images"), chaos.ReLU()]
    layers += [chaos.Flatten(), chaos.Linear(12), chaos.BatchNorm1d(momentum=0.2, groups_of=of, name="vectors")]
    return chaos.Network((3, 6, 6), [*layers, chaos.Tanh(), chaos.Linear(5)], seed=2)


@pytest.mark.parametrize("make, batch_size", [(by_running_statistics, 1), (by_running_statistics, 10), (in_groups, 17)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_running_statistics_are_the_definition_step_by_step(strategy, make, batch_size):
    """One worker, every strategy, also those that cut a step into lanes: plain descent, and statistics by their rate. Steps
    of 17, 17 and 6 images in groups of 3 have some of 2. Where `elastic` draws to a centre it draws statistics too."""
    net = make()
    state = {name: value.astype(float) for name, value in net.state_dict().items()}
    train = data()
    for begin in range(0, len(train), batch_size):
        some = slice(begin, begin + batch_size)
        _, gradients = loss_and_gradients(net, train.images[some], train.labels[some], state=state)
        for name, value in gradients.items():
            rate = 0.2 * (value - state[name]) if "running" in name else -0.05 * value
            state[name] = state[name] + rate
    found = trained(make, epochs=1, batch_size=batch_size, strategy=strategy)
    if strategy == "elastic":
        assert all(np.isfinite(value).all() for value in found.values())
        return
    for name, value in found.items():
        np.testing.assert_allclose(value, state[name], rtol=0, atol=1e-4, err_msg=name)
    assert np.abs(found["vectors.running_mean"]).max() > 0.01


@pytest.mark.parametrize("lanes", [0, 2, 3, 40])
@pytest.mark.parametrize("make", [by_running_statistics, in_groups, lambda: in_groups(9), lambda: in_groups(20)])
@pytest.mark.parametrize("strategy", ["synchronous", "hybrid"])
def test_running_statistics_do_not_depend_on_the_number_of_workers(strategy, make, lanes):
    """Steps of 17, 17 and 6 images; however they are cut, groups are the same, and the rest is rounding."""
    options = dict(batch_size=17, strategy=strategy, strategy_options={"lanes": lanes or None}) | {"make": make}
    one = trained(**options, workers=1)
    assert same(one, trained(**options, workers=3))
    for name, value in trained(make, batch_size=17, strategy="sequential").items():
        np.testing.assert_allclose(one[name], value, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("strategy", ["synchronous", "hybrid", "chaos"])
def test_groups_of_virtual_workers(strategy):
    """The virtual workers of a strategy with the same bits for any number of workers have those, and cut steps likewise."""
    options = dict(batch_size=17, strategy=strategy)
    found = trained(in_groups, **options, workers=5, runner=virtual.Virtual())
    assert all(np.isfinite(value).all() for value in found.values())
    if strategy != "chaos":
        assert same(found, trained(in_groups, **options))


def test_groups_are_ghost_batches():
    """A step in groups of k has the mean of the gradients of steps of k images."""
    net, train = in_groups(5), data()
    loss, gradients = net.loss_and_gradients(train.images, train.labels)
    whole = chaos.Network.from_config(in_groups(40).config())
    whole.load_state_dict(net.state_dict())
    parts = [whole.loss_and_gradients(train.images[i : i + 5], train.labels[i : i + 5]) for i in range(0, 40, 5)]
    assert abs(loss - np.mean([part for part, _ in parts])) < 1e-5
    for name, value in gradients.items():
        np.testing.assert_allclose(value, np.mean([part[name] for _, part in parts], 0), rtol=0, atol=1e-5, err_msg=name)
    other, _ = whole.loss_and_gradients(train.images, train.labels)
    assert abs(other - loss) > 1e-4


def test_groups_of_different_sizes():
    """Steps are cut where the groups of all layers end: every 12 images, of layers with groups of 4 and 6."""
    layers = [chaos.Conv2d(6, 3), chaos.BatchNorm2d(groups_of=4), chaos.Flatten(), chaos.Linear(8)]
    net = chaos.Network((3, 6, 6), [*layers, chaos.BatchNorm1d(groups_of=6), chaos.Linear(5)], seed=1)
    assert net.plan.group == 12 and net.plan.groups == {2: 4, 5: 6}
    train = data()
    loss, gradients = net.loss_and_gradients(train.images[:33], train.labels[:33])
    wanted, exact = loss_and_gradients(net, train.images[:33], train.labels[:33])
    assert abs(loss - wanted) < 1e-5
    for name, value in gradients.items():
        np.testing.assert_allclose(value, exact[name], rtol=0, atol=2e-5, err_msg=name)


def test_a_last_group_of_one_value():
    with pytest.raises(ValueError, match="groups of at least 2 images to train; a step of 10 images leaves 1 for the last"):
        trained(in_groups, batch_size=10)
    with pytest.raises(ValueError, match="use_running_stats=True images are in no groups"):
        chaos.BatchNorm2d(use_running_stats=True, groups_of=4)
    with pytest.raises(ValueError, match="groups_of must be a whole number of at least 1, not 2.5"):
        chaos.BatchNorm2d(groups_of=2.5)
    with pytest.raises(ValueError, match="one value has no variance; groups_of must be at least 2"):
        chaos.BatchNorm1d(groups_of=1)(chaos.Input((5,)))


@pytest.mark.parametrize("make, batch_size", [(by_running_statistics, 2), (in_groups, 5)])
@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"sequential"}))
def test_running_statistics_stay_sound_with_several_workers(strategy, make, batch_size):
    found = trained(make, strategy=strategy, workers=3, batch_size=batch_size, epochs=3)
    assert all(np.isfinite(value).all() for value in found.values())
    assert (found["images.running_var"] > 0).all() and (found["vectors.running_var"] > 0).all()
    assert np.abs(found["images.running_mean"]).max() > 0


def test_frozen_statistics_stay():
    """With momentum 0 they are constants, and the training is that of the folded network's function."""
    found, before = trained(lambda: by_running_statistics(0.0)), by_running_statistics(0.0).state_dict()
    assert all(np.array_equal(found[name], before[name]) for name in found if "running" in name)
    assert not np.array_equal(found["images.weight"], before["images.weight"])


def observed(layers, shape, seed=3):
    """A network with running statistics, weights and biases that are not what they were at first."""
    net, rng = chaos.Network(shape, layers, seed=seed) if isinstance(layers, list) else layers, np.random.default_rng(seed)
    state = {name: value + rng.normal(0, 0.3, value.shape) for name, value in net.state_dict().items()}
    state |= {name: rng.uniform(0.2, 3, value.shape) for name, value in state.items() if name.endswith("running_var")}
    net.load_state_dict(state)
    return net


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"use_running_stats": True}, {"eps": 0.1}], ids=str)
def test_folding_leaves_the_outputs(options):
    layers = [chaos.Conv2d(12, 3, bias=False, groups=3, stride=2, padding=1, name="first"), chaos.BatchNorm2d(**options)]
    layers += [chaos.ReLU(), chaos.Conv2d(9, 2), chaos.BatchNorm2d(**options), chaos.Flatten(), chaos.Linear(7)]
    layers += [chaos.BatchNorm1d(**options), chaos.Tanh(), chaos.Reshape((7, 1)), chaos.Conv1d(4, 1)]
    net = observed([*layers, chaos.BatchNorm1d(**options), chaos.Flatten(), chaos.Linear(5)], (3, 7, 8))
    x = np.random.default_rng(0).standard_normal((9, 3, 7, 8), np.float32)
    before, state = net.forward(x), net.state_dict()
    folded = chaos.fold(net)
    assert not [node for node, _ in folded.nodes() if "BatchNorm" in type(node.layer).__name__]
    assert "first.bias" in folded.state_dict() and same(net.state_dict(), state) and folded.weights is not net.weights
    np.testing.assert_allclose(folded.forward(x), before, rtol=0, atol=2e-5 * np.abs(before).max())
    assert not np.array_equal(chaos.fold(observed([*layers[:2], chaos.Flatten()], (3, 7, 8), 4)).forward(x), before)


def test_folding_takes_only_what_nobody_else_reads():
    x = chaos.Input((3, 5, 5))
    read = chaos.Conv2d(4, 3, name="read twice")(x)
    shown = chaos.Conv2d(4, 3, name="an output")(x)
    shared = chaos.Conv2d(4, 3, name="in two places")
    folded = chaos.BatchNorm2d(name="goes")(chaos.Conv2d(4, 3, name="taken")(x))
    parts = [read, chaos.BatchNorm2d(name="a")(read), chaos.BatchNorm2d(name="b")(shown), folded]
    parts += [chaos.BatchNorm2d(name="c")(shared(x)), chaos.BatchNorm2d(name="d")(shared(x))]
    parts += [chaos.BatchNorm2d(name="e")(chaos.ReLU()(read))]
    net = observed(chaos.Network(x, [chaos.Add()(*parts), shown]), None)
    found = chaos.fold(net)
    assert net.state_dict().keys() - found.state_dict().keys() == {
        f"goes.{part}" for part in ("weight", "bias", "running_mean", "running_var")
    }
    images = np.random.default_rng(0).standard_normal((5, 3, 5, 5), np.float32)
    for one, other in zip(found.forward(images), net.forward(images), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * np.abs(other).max())


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


@pytest.mark.parametrize("shape", [(3, 31, 9), (20, 12, 12), (70, 6, 6), (1, 40, 40), (5, 2, 2)])
@pytest.mark.parametrize("values", ["noise", "offset", "ramp", "first", "steps"])
def test_statistics_are_off_by_what_was_derived(isa, shape, values):
    """cext/layers/columns.h: the variance by 5 * 34 * 2^-24 of itself at most, the mean by that part of the deviation (and
    roundings of single precision, of the results), also where the mean is 1000 deviations, the values ascend, the first
    pixels are far from all others or every image is elsewhere."""
    n, rng = 6, np.random.default_rng(0)
    x = rng.standard_normal((n, *shape))
    ramp = np.arange(x[0, 0].size).reshape(shape[1:]) / x[0, 0].size
    x = {
        "noise": x,
        "offset": x + 1000,
        "ramp": 1e-3 * x + ramp + np.arange(n)[:, None, None, None],
        "first": x + 1e4 * (ramp == 0) * (np.arange(n) == 0)[:, None, None, None],
        "steps": x + 50 * np.arange(n)[:, None, None, None],
    }[values].astype(np.float32)
    net = chaos.Network(shape, [chaos.BatchNorm2d(name="norm"), chaos.Flatten(), chaos.Linear(2)], seed=0)
    _, vector = net._gradients(x, np.zeros(n, int), "cross_entropy")
    found = net.unpack(vector)
    exact = x.astype(np.float64)
    mean, var = exact.mean((0, 2, 3)), exact.var((0, 2, 3), ddof=1)
    assert (abs(found["norm.running_var"] - var) <= (5 * 34 + 2) * 2.0**-24 * var).all()
    assert (abs(found["norm.running_mean"] - mean) <= 34 * 2.0**-24 * np.sqrt(var) + 2.0**-24 * abs(mean)).all()
