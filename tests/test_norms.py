"""Normalisation of single images, noise and lost connections beyond what runs over all kinds (tests/test_layers.py): against
PyTorch, against what the numbers' distribution must be, and where they make no sense."""

import numpy as np
import pytest
from nets import close as near

import chaos
from chaos import sync
from chaos.layers.random import normal
from chaos.network import run_key
from chaos.reference import forward


def data(n=40, shape=(3, 6, 6), seed=0):
    rng = np.random.default_rng(seed)
    return chaos.data.Dataset(rng.standard_normal((n, *shape), np.float32), rng.integers(0, 5, n), classes=5)


def channels_last(torch, norm):
    """A module that moves the channels to the end for `norm`, and back."""

    class Moved(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return self.norm(x.movedim(1, -1)).movedim(-1, 1)

    return Moved()


def pairs(rng):
    """A layer, its input's shape, and what makes PyTorch's of the same name: torch -> module."""
    c, h, w = (int(i) for i in rng.integers(1, 40, 3))
    h, w, eps = min(h, 9), 2 + min(w, 9), float(rng.choice([1e-5, 1e-2]))
    on = bool(rng.integers(2))
    groups = int(rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    size, beta = int(rng.integers(1, 9)), float(rng.choice([0.75, 0.5, 1.0, 0.4]))
    several = c + 1
    rms = float(rng.choice([1e-6, 0.1]))
    return [
        (chaos.GroupNorm(groups, eps=eps, affine=on), (c, h, w), lambda t: t.nn.GroupNorm(groups, c, eps, on)),
        (chaos.GroupNorm(groups, eps=eps), (c, w), lambda t: t.nn.GroupNorm(groups, c, eps)),
        (chaos.InstanceNorm2d(eps=eps, affine=on), (c, h, w), lambda t: t.nn.InstanceNorm2d(c, eps, affine=on)),
        (chaos.InstanceNorm1d(eps=eps, affine=on), (c, w), lambda t: t.nn.InstanceNorm1d(c, eps, affine=on)),
        (chaos.LayerNorm(eps=eps, elementwise_affine=on), (c, h, w), lambda t: t.nn.LayerNorm((c, h, w), eps, on)),
        (chaos.LayerNorm(eps=eps, bias=on), (c, w), lambda t: t.nn.LayerNorm((c, w), eps, bias=on)),
        (chaos.LayerNorm(eps=eps), (several,), lambda t: t.nn.LayerNorm((several,), eps)),
        (
            chaos.LayerNorm(eps=eps, channels_only=True, bias=on),
            (several, h, w),
            lambda t: channels_last(t, t.nn.LayerNorm((several,), eps, bias=on)),
        ),
        (chaos.RMSNorm(eps=rms, elementwise_affine=on), (c, h, w), lambda t: t.nn.RMSNorm((c, h, w), rms, on)),
        (chaos.RMSNorm(eps=rms, channels_only=True), (c, w), lambda t: channels_last(t, t.nn.RMSNorm((c,), rms))),
        (chaos.LocalResponseNorm(size, 0.3, beta, 2.0), (c, h, w), lambda t: t.nn.LocalResponseNorm(size, 0.3, beta, 2.0)),
        (chaos.LocalResponseNorm(size), (c, w), lambda t: t.nn.LocalResponseNorm(size)),
    ]


@pytest.mark.parametrize("seed", range(6))
def test_outputs_and_gradients_are_pytorchs(isa, seed):
    """Random geometries and weights: the core's outputs, the gradients of the weights, and those of the inputs, as the
    gradients of numbers that are added to them. `close` says how near."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    for layer, shape, module in pairs(rng):
        node = chaos.Input(shape)
        net = chaos.Network(node, layer(chaos.Add()(node, chaos.Parameter(shape, name="moved")(node))))
        state = {name: rng.standard_normal(value.shape, np.float32) for name, value in net.state_dict().items()}
        state["moved"][...] = 0
        net.load_state_dict(state)
        like = module(torch).double()
        parameters = {name.split(".")[-1]: parameter for name, parameter in like.named_parameters()}
        assert parameters.keys() == {name.split(".")[-1] for name in state} - {"moved"}, layer
        for name, value in state.items():
            if name != "moved":
                parameter = parameters[name.split(".")[-1]]
                assert tuple(parameter.shape) == value.shape, layer
                parameter.data = torch.tensor(value).double()
        x = rng.standard_normal((3, *shape), np.float32)
        target = rng.standard_normal((3, *shape), np.float32)
        seen = torch.tensor(x).double().requires_grad_()
        y = like(seen)
        close(net.forward(x), y.detach().numpy(), layer)
        torch.nn.functional.mse_loss(y, torch.tensor(target).double()).backward()
        _, gradients = net.loss_and_gradients(x, target, "mse")
        close(gradients.pop("moved"), seen.grad.sum(0).numpy(), layer)
        for name, value in gradients.items():
            close(value, parameters[name.split(".")[-1]].grad.numpy(), (layer, name))


def close(found, wanted, what):
    """Up to 2^9 roundings of 2^-24 of the largest value: sums are of double precision, and what is left are a few operations
    of values that 1 / sqrt(var + eps), at most some 2^6 here, has made larger."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2.0**-15 * max(np.abs(wanted).max(), 1e-3), err_msg=str(what))


def test_images_do_not_depend_on_each_other():
    """The same bits alone and in a step, and large means take nothing away."""
    layers = [chaos.GroupNorm(3), chaos.InstanceNorm2d(), chaos.LayerNorm(), chaos.LayerNorm(channels_only=True)]
    x = np.random.default_rng(1).standard_normal((9, 6, 5, 4), np.float32)
    for layer in layers:
        net = chaos.Network((6, 5, 4), [layer])
        together = net.forward(x)
        assert all((net.forward(x[i : i + 1])[0] == together[i]).all() for i in range(9)), layer
        # of 1000 + x the normalised values are those of x as rounded to multiples of 2^-14, 2^-15 off at most
        np.testing.assert_allclose(net.forward(x + 1000), together, rtol=0, atol=2.0**-15 * 32)


@pytest.mark.parametrize("strategy", sorted(sync.STRATEGIES))
@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_strategy_trains_them(strategy, batch_size):
    layers = [chaos.Conv2d(6, 3), chaos.GroupNorm(2), chaos.ReLU(), chaos.LocalResponseNorm(3), chaos.GaussianNoise(0.1)]
    layers += [chaos.Flatten(), chaos.LayerNorm(), chaos.DropConnectLinear(12), chaos.RMSNorm(), chaos.Linear(5)]
    net, train = chaos.Network((3, 6, 6), layers, seed=2), data(80)
    options = dict(strategy=strategy, workers=1 if strategy == "sequential" else 2, batch_size=batch_size)
    run = chaos.train(net, train, epochs=3, lr=0.05, progress=False, **options)
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_noise_is_normal_and_of_the_image():
    """60,000 numbers: mean, variance, third and fourth moments within 5 standard errors of a normal distribution's, and the
    core's the same as the definition's (whose logarithm and cosine are better by some roundings)."""
    z = normal(np.arange(1, 61).astype(np.uint64), 1000)
    for power, wanted, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - wanted) < 5 * np.sqrt(spread / z.size), power
    node = chaos.Input((7, 6, 5))
    net = chaos.Network(node, chaos.GaussianNoise(2.0)(chaos.Add()(node, chaos.Parameter((7, 6, 5), name="p")(node))))
    x, target = np.zeros((4, 7, 6, 5), np.float32), np.zeros((4, 7, 6, 5), np.float32)
    y = forward(net, x, training=True, key=run_key(4, 1))[net.outputs[0]]
    loss, gradients = net.loss_and_gradients(x, target, "mse", seed=4, epoch=1)
    assert abs(loss - (y**2).mean()) < 1e-5 * loss
    np.testing.assert_allclose(gradients["p"], 2 * y.sum(0) / y.size, rtol=0, atol=1e-6 * np.abs(y).max())
    assert (net.forward(x) == 0).all()
    assert net.loss_and_gradients(x, target, "mse", seed=5, epoch=1)[0] != loss
    assert len({image.tobytes() for image in y}) == 4


def test_connections_are_lost_per_image():
    """The share within 5 standard errors; each image loses others; evaluation is that of a Linear."""
    p, n = 0.3, 20
    net = chaos.Network((40,), [chaos.DropConnectLinear(50, p, bias=False)], seed=1)
    linear = chaos.Network((40,), [chaos.Linear(50, bias=False)])
    linear.load_state_dict(net.state_dict())
    x = np.random.default_rng(0).standard_normal((n, 40), np.float32)
    np.testing.assert_allclose(net.forward(x), linear.forward(x), rtol=0, atol=1e-5)
    state = {"0.weight": np.ones((50, 40))}
    kept = np.concatenate(
        [
            forward(net, np.tile(np.eye(40)[i], (n, 1)), state=state, training=True, key=run_key(1, 1))[net.outputs[0]]
            for i in range(40)
        ]
    )
    assert set(np.unique(kept)) == {0.0, 1 / (1 - p)}
    assert abs((kept == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / kept.size)
    assert len({row.tobytes() for row in kept}) == len(kept)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: chaos.GroupNorm(0), "GroupNorm: num_groups must be a whole number of at least 1, not 0"),
        (lambda: chaos.GroupNorm(3)(chaos.Input((4, 2, 2))), r"\(4, 2, 2\): the channels are no multiple of num_groups=3"),
        (lambda: chaos.GroupNorm(4)(chaos.Input((4, 1, 1))), "each group has one value, and one value has no variance"),
        (lambda: chaos.GroupNorm(2, eps=-1), "GroupNorm: eps must be a number of at least 0, not -1"),
        (lambda: chaos.GroupNorm(2, affine=1), "GroupNorm: affine must be True or False, not 1"),
        (
            lambda: chaos.InstanceNorm2d()(chaos.Input((4, 3))),
            r"InstanceNorm2d\(\) needs inputs \(channels, height, width\)",
        ),
        (lambda: chaos.InstanceNorm1d()(chaos.Input((4, 1))), "each channel has one value"),
        (lambda: chaos.LayerNorm(channels_only=True)(chaos.Input((1, 3, 3))), "one value has no variance"),
        (lambda: chaos.LayerNorm(bias="no"), "LayerNorm: bias must be True or False, not 'no'"),
        (lambda: chaos.LocalResponseNorm(0), "size must be a whole number of at least 1, not 0"),
        (lambda: chaos.LocalResponseNorm(5, k=0), "k must be a number greater than 0, not 0"),
        (lambda: chaos.LocalResponseNorm(5)(chaos.Input((4,))), r"needs inputs \(channels, height, width\) or"),
        (lambda: chaos.GaussianNoise(-0.1), "sigma must be a number of at least 0, not -0.1"),
        (lambda: chaos.DropConnectLinear(5, 1.5), "p must be a probability in 0..1, not 1.5"),
        (lambda: chaos.DropConnectLinear(5)(chaos.Input((4, 2, 2))), r"put Flatten\(\) before it"),
    ],
)
def test_options_that_make_no_sense(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_pytorchs_order_of_arguments_is_told():
    with pytest.raises(TypeError, match=r"PyTorch's LayerNorm\(64\) is LayerNorm\(\)"):
        chaos.LayerNorm(64)
    with pytest.raises(TypeError, match=r"GroupNorm\(8, 32\): num_groups may be given by position, the rest by name"):
        chaos.GroupNorm(8, 32)


@pytest.mark.parametrize("affine", [True, False])
def test_over_the_last_dimensions(affine):
    """PyTorch's LayerNorm and RMSNorm of the last dimensions, as after a permutation in ConvNeXt; weights load both ways."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(5, elementwise_affine=affine)
            self.root = nn.RMSNorm(7, elementwise_affine=affine)
            self.plain = nn.LayerNorm((6, 7), elementwise_affine=False)

        def forward(self, x):
            x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.plain(self.root(x) + x)

    module = Last()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    net = chaos.from_torch(module, (5, 6, 7))
    x = np.random.default_rng(0).standard_normal((3, 5, 6, 7)).astype(np.float32)
    near(net.forward(x), module(torch.from_numpy(x)).detach().numpy(), 2e-5)
    state = {name: torch.from_numpy(value) for name, value in net.state_dict().items()}
    module.load_state_dict(state)
    with pytest.raises(chaos.UnsupportedError, match="weights of more than one dimension"):
        chaos.from_torch(nn.LayerNorm((6, 7)), (5, 6, 7))


def test_a_module_in_another_precision_is_the_same_function():
    """Values near 0, where eps decides: None would be the spacing of that precision in PyTorch."""
    torch = pytest.importorskip("torch")
    net = chaos.Network((5,), [chaos.RMSNorm()], seed=0)
    x = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32) * 1e-4
    got = net.to_torch().double()(torch.from_numpy(x).double()).detach().numpy()
    near(got, x / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 2.0**-23), 1e-6)
