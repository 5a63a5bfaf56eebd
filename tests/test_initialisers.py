"""First values of weights: distributions by their moments and bounds, fans, orthogonality, seeds, names.

The mean of n independent draws strays from its expectation by more than 6 standard errors with probability 2e-9, whatever
the distribution (n is large); likewise their variance, whose standard error is std^2 * sqrt((kurtosis - 1) / n), kurtosis
being that of the distribution: 3 of the normal, 9/5 of the uniform one.
"""

import math

import numpy as np
import pytest
from nets import graph

import chaos
from chaos import initialisers as init
from chaos.initialisers import INITIALISERS, fans, gain, resolve

N = 200_000
NORMAL, UNIFORM = 3.0, 9 / 5


def moments_agree(values, mean, std, kurtosis):
    values = values.astype(np.float64).ravel()
    assert abs(values.mean() - mean) <= 6 * std / math.sqrt(values.size)
    assert abs(values.var() - std**2) <= 6 * std**2 * math.sqrt((kurtosis - 1) / values.size)


def is_uniform(values, bound, middle=0.0):
    """Also that the ends are reached: of n draws the largest is below bound * (1 - 40 / n) with probability exp(-20)."""
    moments_agree(values, middle, bound / math.sqrt(3), UNIFORM)
    for end in (values.max() - middle, middle - values.min()):
        assert bound * (1 - 40 / values.size) <= end <= bound * (1 + 2.0**-23)


def is_normal(values, std, mean=0.0):
    """Also its tails: a share p of n draws strays by at most 6 * sqrt(p (1 - p) / n)."""
    moments_agree(values, mean, std, NORMAL)
    for k in (1, 2, 3):
        p = math.erfc(k / math.sqrt(2))
        share = (np.abs(values.astype(np.float64) - mean) > k * std).mean()
        assert abs(share - p) <= 6 * math.sqrt(p * (1 - p) / values.size)


def drawn(initialiser, shape=(500, 400), seed=0):
    values = initialiser(np.random.default_rng(seed), shape)
    assert values.dtype == np.float32 and values.shape == shape
    return values


SHAPE = (400, 50, 5, 2)  # fan_in 500, fan_out 4000


@pytest.mark.parametrize(
    "made, std",
    [
        (init.xavier_normal(), math.sqrt(2 / 4500)),
        (init.xavier_normal(gain=2.5), 2.5 * math.sqrt(2 / 4500)),
        (init.kaiming_normal(), math.sqrt(2 / 500)),
        (init.kaiming_normal(mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 4000)),
        (init.kaiming_normal(a=0.3), math.sqrt(2 / 1.09 / 500)),
        (init.kaiming_normal(nonlinearity="tanh"), 5 / 3 / math.sqrt(500)),
        (init.kaiming_normal(a=0.7, nonlinearity="selu"), 3 / 4 / math.sqrt(500)),
        (init.lecun_normal(), math.sqrt(1 / 500)),
    ],
    ids=repr,
)
def test_normal_by_fans(made, std):
    is_normal(drawn(made, SHAPE), std)


@pytest.mark.parametrize(
    "made, bound",
    [
        (init.xavier_uniform(), math.sqrt(6 / 4500)),
        (init.xavier_uniform(gain=0.5), 0.5 * math.sqrt(6 / 4500)),
        (init.kaiming_uniform(), math.sqrt(6 / 500)),
        (init.kaiming_uniform(a=math.sqrt(5)), math.sqrt(1 / 500)),  # PyTorch's default for layers
        (init.kaiming_uniform(mode="fan_out", nonlinearity="linear"), math.sqrt(3 / 4000)),
        (init.lecun_uniform(), math.sqrt(3 / 500)),
    ],
    ids=repr,
)
def test_uniform_by_fans(made, bound):
    is_uniform(drawn(made, SHAPE), bound)


def test_plain_distributions():
    is_uniform(drawn(init.uniform()), 0.05)
    is_uniform(drawn(init.uniform(1, 4)), 1.5, 2.5)
    is_normal(drawn(init.normal()), 1)
    is_normal(drawn(init.normal(-3, 0.25)), 0.25, -3)
    assert (drawn(init.constant(0.3)) == np.float32(0.3)).all()
    assert not drawn(init.zeros()).any() and (drawn(init.ones()) == 1).all()
    assert (drawn(init.uniform(2, 2)) == 2).all() and (drawn(init.normal(3, 0)) == 3).all()


@pytest.mark.parametrize("mean, std, a, b", [(0, 1, -2, 2), (0.5, 0.1, 0.45, 2), (1, 2, -1, 0), (0, 1, 1.5, 9)])
def test_truncated_normal(mean, std, a, b):
    """Moments of the truncated distribution by integrating its density; the fourth one bounds the variance's error."""
    values = drawn(init.trunc_normal(mean, std, a, b)).astype(np.float64)
    assert np.float32(a) <= values.min() and values.max() <= np.float32(b)
    x = np.linspace(a, b, 200_001)
    density = np.exp(-(((x - mean) / std) ** 2) / 2)
    density /= density.sum()
    middle = (x * density).sum()
    spread = math.sqrt(((x - middle) ** 2 * density).sum())
    moments_agree(values, middle, spread, ((x - middle) ** 4 * density).sum() / spread**4)
    for q in (0.1, 0.5, 0.9):  # the distribution function
        at = x[np.searchsorted(np.cumsum(density), q)]
        assert abs((values <= at).mean() - q) <= 6 * math.sqrt(q * (1 - q) / values.size) + 1e-4


@pytest.mark.parametrize("shape", [(7, 7), (40, 9), (9, 40), (8, 3, 2, 2), (30, 2, 3, 3), (1, 5), (5, 1)])
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_orthogonal(shape, scale):
    """To the rounding of its float32 numbers: each of the up to 40 products of a scalar product is off by 2^-23 of it."""
    q = drawn(init.orthogonal(gain=scale), shape).astype(np.float64).reshape(shape[0], -1)
    product = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(product, scale**2 * np.eye(len(product)), atol=scale**2 * 2.0**-22, rtol=0)


def test_orthogonal_prefers_no_sign():
    """The entries of a uniform orthogonal matrix have mean 0 and variance 1/n: over 2000 matrices, of each entry."""
    made = np.stack([drawn(init.orthogonal(), (4, 4), seed) for seed in range(2000)]).astype(np.float64)
    assert np.abs(made.mean(0)).max() <= 6 * 0.5 / math.sqrt(2000)
    assert (np.linalg.det(made) > 0).mean() == pytest.approx(0.5, abs=6 * 0.5 / math.sqrt(2000))


def test_fans_are_those_of_pytorch():
    assert fans((150, 40)) == (40, 150)
    assert fans((32, 3, 5, 4)) == (60, 640)
    for layer, shape, wanted in (
        (chaos.Conv2d(12, (3, 2), groups=4), (8, 9, 9), (12, 72)),
        (chaos.Conv2d(8, 3, groups=8), (8, 9, 9), (9, 72)),  # depthwise
        (chaos.Conv1d(6, 5), (4, 20), (20, 30)),
    ):
        assert fans(layer.parts(shape)["weight"].shape) == wanted
    with pytest.raises(ValueError, match=r"at least 2 dimensions, not of shape \(3,\)"):
        fans((3,))


def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    for name, slope in (
        *((name, None) for name in ("linear", "conv1d", "conv2d", "sigmoid", "tanh", "relu", "selu", "leaky_relu")),
        ("leaky_relu", 0.3),
    ):
        assert gain(name, slope) == torch.nn.init.calculate_gain(name, slope)
    for shape in ((150, 40), (32, 3, 5, 4), (8, 1, 3, 3), (6, 4, 5)):
        assert fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    made = torch.empty(SHAPE)
    for ours, theirs in (
        (init.kaiming_normal(mode="fan_out", nonlinearity="relu"), torch.nn.init.kaiming_normal_),
        (init.kaiming_uniform(mode="fan_out", nonlinearity="relu"), torch.nn.init.kaiming_uniform_),
    ):
        theirs(made, mode="fan_out", nonlinearity="relu")
        moments_agree(made.numpy(), 0, math.sqrt(2 / 4000), NORMAL)  # the same numbers that `ours` is held to
        moments_agree(drawn(ours, SHAPE), 0, math.sqrt(2 / 4000), NORMAL)


def network():
    layers = [
        chaos.Conv2d(64, 3, groups=2),
        chaos.BatchNorm2d(),
        chaos.ReLU(),
        chaos.Flatten(),
        chaos.Linear(40, name="head"),
    ]
    return chaos.Network((2, 12, 12), layers, seed=3)


def test_networks_are_initialised_by_name():
    net, before = network(), network().state_dict()
    assert net.initialise("kaiming_normal", "zeros", seed=1) == ["0.weight", "0.bias", "1.bias", "head.weight", "head.bias"]
    after = net.state_dict()
    is_normal(after["head.weight"], math.sqrt(2 / 6400))
    assert not after["0.bias"].any() and not after["head.bias"].any() and (after["1.weight"] == 1).all()
    padding = np.ones(net.plan.weight_size, bool)
    for places in net.unpack(np.arange(net.plan.weight_size)).values():
        padding[places] = False
    assert not net.weights[padding].any()
    net.initialise(init.constant(0.5), pattern="1.*")
    assert (net.state_dict()["1.weight"] == 0.5).all()
    assert (net.state_dict()["0.weight"] == after["0.weight"]).all()
    net.initialise("default", "default")
    default = net.state_dict()
    assert (default["1.weight"] == 1).all() and not default["1.bias"].any()
    assert np.abs(default["0.weight"]).max() <= 1 / 3 and np.abs(default["head.bias"]).max() <= 1 / 80
    is_uniform(default["head.weight"], 1 / 80)
    assert all((default[name] == before[name]).all() for name in default if "running" in name)


def test_values_depend_on_seed_and_name_only():
    """Not on what else is initialised, nor on where the layer stands."""
    net, other = network(), network()
    net.initialise("orthogonal", "normal", seed=4)
    other.initialise("orthogonal", pattern="head.*", seed=4)
    assert (net.state_dict()["head.weight"] == other.state_dict()["head.weight"]).all()
    assert (net.state_dict()["0.bias"] != net.state_dict()["head.bias"][:1]).all()
    other.initialise("orthogonal", pattern="head.*", seed=5)
    assert (net.state_dict()["head.weight"] != other.state_dict()["head.weight"]).any()
    net.initialise("orthogonal_", "normal_", seed=4)  # PyTorch's spelling
    again = network()
    again.initialise("orthogonal", "normal", seed=4)
    assert (net.weights == again.weights).all()


def test_frozen_parameters_keep_their_values():
    net = graph()
    net.freeze("stem.weight")
    before = net.state_dict()
    assert "stem.weight" not in net.initialise("xavier_uniform", "uniform")
    after = net.state_dict()
    assert (after["stem.weight"] == before["stem.weight"]).all() and (after["stem.bias"] != before["stem.bias"]).all()


@pytest.mark.parametrize("name", [name for name in INITIALISERS if name != "constant"])
def test_every_initialiser_by_name(name):
    net = network()
    names = net.initialise(name, pattern="head.*")
    assert names == ["head.weight"] and np.isfinite(net.weights).all()
    made = resolve(name)
    assert repr(made).startswith(f"{name}(") and made is resolve(made)
    assert (net.state_dict()["head.weight"] == made(np.random.default_rng([0, *b"head.weight"]), (40, 6400))).all()


def test_mistakes_are_told():
    net = network()
    before = net.weights.copy()
    for call, error, text in (
        (lambda: net.initialise("xavier"), ValueError, "unknown initialiser 'xavier'; known: constant, "),
        (lambda: net.initialise("constant"), ValueError, r"needs its number: chaos.initialisers.constant\(0.1\)"),
        (lambda: net.initialise(init.zeros), TypeError, r"call it: zeros\(\)"),
        (lambda: net.initialise(3), TypeError, "must be a name"),
        (lambda: net.initialise(), ValueError, "initialise nothing among 0.weight, "),
        (lambda: net.initialise("orthogonal", pattern="1.*"), ValueError, "initialise nothing among 1.weight, 1.bias"),
        (lambda: net.initialise("zeros", pattern="tail.*"), ValueError, "no parameter is named like 'tail"),
        (lambda: net.initialise("zeros", seed=-1), ValueError, "seed must be a whole number of at least 0"),
        (lambda: init.kaiming_normal(mode="fan_avg"), ValueError, "mode must be 'fan_in' or 'fan_out', not 'fan_avg'"),
        (lambda: init.kaiming_normal(nonlinearity="gelu"), ValueError, "unknown nonlinearity 'gelu'; known: linear, "),
        (lambda: init.uniform(2, 1), ValueError, "a must be at most b"),
        (lambda: init.normal(std=-1), ValueError, "std must be at least 0, not -1"),
        (lambda: init.normal(mean=math.nan), ValueError, "mean must be a finite number"),
        (lambda: init.trunc_normal(0, 1, 5, 6), ValueError, r"trunc_normal\(0, 1, 5, 6\): a .. b holds 2.9e-07"),
        (lambda: init.trunc_normal(0, 1, 1, -1), ValueError, "a .. b holds -0.68"),
        (lambda: init.orthogonal()(np.random.default_rng(), (4,)), ValueError, "at least 2 dimensions"),
    ):
        with pytest.raises(error, match=text):
            call()
    assert (net.weights == before).all()
