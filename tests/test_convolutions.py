"""Convolutions and the small kinds with weights, beyond what runs over all kinds (tests/test_layers.py): against PyTorch,
and what they refuse."""

import numpy as np
import pytest
from nets import Oracle, close, images

import chaos
from chaos import _core
from chaos.layers import LENET5_TABLE
from chaos.layers.examples import Picker


def padded(torch, layer, x):
    """What the convolution sees, padded by PyTorch."""
    top, bottom, left, right = layer._pads()
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return torch.nn.functional.pad(x, (left, right, top, bottom), mode)


def dense(torch, layer, x, weight):
    """The weight of all connections, zeros where there are none."""
    table = getattr(layer, "connection_table", None)
    if table is None:
        return weight
    outputs, inputs = zip(*((o, i) for o, seen in enumerate(table) for i in sorted(seen)), strict=True)
    found = torch.zeros(layer.out_channels, x.shape[1], *weight.shape[1:], dtype=weight.dtype)
    return found.index_put((torch.tensor(outputs), torch.tensor(inputs)), weight)


def convolution(torch, layer, x, p):
    if type(layer) is chaos.Conv1d:
        _, _, left, right = layer._rows()._pads()
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x, run = torch.nn.functional.pad(x, (left, right), mode), torch.nn.functional.conv1d
    else:
        x, run = padded(torch, layer, x), torch.nn.functional.conv2d
    return run(x, dense(torch, layer, x, p["weight"]), p.get("bias"), layer.stride, 0, layer.dilation, layer.groups)


def transposed(torch, layer, x, p):
    run = getattr(torch.nn.functional, "conv_transpose" + type(layer).__name__[-2:])
    return run(
        x, p["weight"], p.get("bias"), layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
    )


def local(torch, layer, x, p):
    """The patches of every pixel times its own kernel."""
    shared = layer._shared()
    (kh, kw), (sh, sw) = (value if isinstance(value, tuple) else (value,) * 2 for value in (layer.kernel_size, layer.stride))
    patches = padded(torch, shared, x).unfold(2, kh, sh).unfold(3, kw, sw)
    y = torch.einsum("ncijab,ocijab->noij", patches, p["weight"])
    return y + p["bias"] if "bias" in p else y


def scaled(x, weight, bias=None):
    by_channel = (-1, *[1] * (x.ndim - 2))
    y = x * weight.reshape(by_channel)
    return y if bias is None else y + bias.reshape(by_channel)


IN_TORCH = {
    "Conv1d": convolution,
    "Conv2d": convolution,
    "ConvTranspose1d": transposed,
    "ConvTranspose2d": transposed,
    "LocallyConnected2d": local,
    "PReLU": lambda torch, layer, x, p: torch.nn.functional.prelu(x, p["weight"]),
    "ChannelScale": lambda torch, layer, x, p: scaled(x, **p),
    "Softmax": lambda torch, layer, x, p: x.softmax(1),
    "LogSoftmax": lambda torch, layer, x, p: x.log_softmax(1),
    "Maxout": lambda torch, layer, x, p: x.unflatten(1, (-1, layer.pieces)).amax(2),
}


@pytest.mark.parametrize("name", IN_TORCH)
def test_definition_equals_pytorch(name):
    """Outputs and all gradients, of 60 examples."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    pick = Picker(rng)
    for _ in range(60):
        layer, (shape,) = getattr(chaos, name).example(pick)
        x = rng.standard_normal((3, *shape))
        parts = {k: rng.standard_normal(part.shape) for k, part in layer.parts(shape).items()}
        there = torch.tensor(x, requires_grad=True)
        own = {k: torch.tensor(v, requires_grad=True) for k, v in parts.items()}
        wanted = IN_TORCH[name](torch, layer, there, own)
        y = layer.forward([x], parts)
        assert y.shape == tuple(wanted.shape), layer
        dy = rng.standard_normal(y.shape)
        wanted.backward(torch.tensor(dy))
        into, gradients = layer.backward([x], parts, y, dy)
        pairs = [(y, wanted.detach()), (into[0], there.grad), *((gradients[k], own[k].grad) for k in parts)]
        for got, want in pairs:
            close(got, want.numpy(), 1e-11 * (1 + np.abs(got).max()))


@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda x: chaos.Conv2d(4, 3, padding=(1, 2, 3)),
            "one number, .vertical, horizontal. or .top, bottom, left, right.",
        ),
        (lambda x: chaos.Conv2d(4, 3, padding=(1, 2, 3, -1)), "padding must be a whole number of at least 0, not -1"),
        (lambda x: chaos.Conv2d(4, 3, padding_mode="mirror"), "padding_mode must be one of zeros, reflect"),
        (
            lambda x: chaos.Conv2d(4, 3, padding=(3, 0), padding_mode="reflect")(x),
            "padding of 3 is wider than its height of 3",
        ),
        (
            lambda x: chaos.Conv2d(4, 3, padding=(0, 5), padding_mode="circular")(x),
            "padding of 5 is wider than its width of 4",
        ),
        (
            lambda x: chaos.Conv2d(2, 3, connection_table=[[0], []]),
            "for each of the 2 output channels, one or more different",
        ),
        (lambda x: chaos.Conv2d(2, 3, connection_table=[[0], [1, 1]]), "one or more different numbers"),
        (lambda x: chaos.Conv2d(2, 3, connection_table=[[0], [-1]]), "one or more different numbers"),
        (lambda x: chaos.Conv2d(2, 3, groups=2, connection_table=[[0], [1]]), "connection_table needs groups=1, not 2"),
        (lambda x: chaos.Conv2d(2, 3, connection_table=[[0], [6]])(x), "names more than 6 channels"),
        (lambda x: chaos.Conv2d(300, 3, connection_table=[[0]] * 300)(x), "may have 1457 places, not 300 x 6"),
        (lambda x: chaos.LocallyConnected2d(2, 5)(x), r"LocallyConnected2d\(.*does not fit its input"),
        (lambda x: chaos.LocallyConnected2d(2, 5, padding=-1), "LocallyConnected2d: padding must be"),
        (lambda x: chaos.Conv1d(4, 3, padding=(1, 2, 3)), "one number or .before, behind."),
        (lambda x: chaos.ConvTranspose2d(4, 3, output_padding=1), "output_padding must be smaller than stride or dilation"),
        (lambda x: chaos.ConvTranspose2d(4, 3, padding=4)(x), "output height = .3 - 1. . 1 - 2 . 4"),
        (lambda x: chaos.ConvTranspose2d(4, 3, groups=3), "out_channels=4 is no multiple of groups=3"),
        (lambda x: chaos.ConvTranspose1d(4, 3)(x), "needs sequences"),
        (lambda x: chaos.ConvTranspose1d(4, (3,)), "kernel_size must be a whole number"),
        (lambda x: chaos.PReLU(3)(x), "num_parameters must be 1 or its channels, 6"),
        (lambda x: chaos.PReLU(init=float("nan")), "init must be a finite number"),
        (lambda x: chaos.Softmax(2)(x), "dim must be 1 .or -3., the channels"),
        (lambda x: chaos.LogSoftmax("c"), "dim must be 1"),
        (lambda x: chaos.Maxout(4)(x), "its 6 channels are no multiple of 4"),
        (lambda x: chaos.Maxout(0), "pieces must be a whole number"),
        (lambda x: chaos.ChannelScale("yes"), "bias must be True or False"),
    ],
)
def test_what_cannot_be(make, words):
    with pytest.raises(ValueError, match=words):
        make(chaos.Input((6, 3, 4)))


def lenet_layer(**options):
    """LeNet-5's layer C3 behind a convolution of six maps."""
    table = {"connection_table": LENET5_TABLE}
    layers = [chaos.Conv2d(6, 3), chaos.Conv2d(16, 5, **table, **options), chaos.Tanh(), chaos.Flatten(), chaos.Linear(4)]
    return chaos.Network((1, 9, 9), layers, seed=1)


@pytest.mark.parametrize("strategy", ["sequential", "chaos"])
@pytest.mark.parametrize("update", ["sgd", "momentum", "adam"])
def test_what_is_not_connected_stays_so(strategy, update):
    """Training moves no weight that is not there: a pass of the core gives what the definition gives of those that are."""
    net, rng = lenet_layer(), np.random.default_rng(0)
    assert net.state_dict()["1.weight"].shape == (60, 5, 5)
    assert net.n_parameters == 60 + (60 * 25 + 16) + (16 * 9 * 4 + 4)
    data = chaos.data.Dataset(rng.standard_normal((60, 1, 9, 9), np.float32), rng.integers(0, 4, 60))
    before = net.state_dict()["1.weight"]
    chaos.train(net, data, epochs=2, lr=0.01, workers=2 if strategy == "chaos" else 1, strategy=strategy, update=update,
                progress=False)  # fmt: skip
    assert (net.state_dict()["1.weight"] != before).any(axis=(1, 2)).all()
    Oracle(net, data.images[:5], data.labels[:5]).check(data.images[:5])


def test_a_table_in_files(tmp_path):
    net = lenet_layer()
    net.save(tmp_path / "net.safetensors")
    again = chaos.load(tmp_path / "net.safetensors")
    assert again.config() == net.config()
    np.testing.assert_array_equal(again.weights, net.weights)


@pytest.mark.parametrize("channels", [1, 3, 16, 21])
def test_softmax_at_the_ends(isa, channels):
    """No overflow, and zeros far below the largest."""
    x = np.zeros((1, channels, 2, 3), np.float32)
    x[0, :, 0, 0], x[0, 0, 0, 1], x[0, 0, 1, 1] = 3e38, -3e38, 200
    for kind in (chaos.Softmax, chaos.LogSoftmax):
        got = chaos.Network(x.shape[1:], [kind()]).forward(x)
        np.testing.assert_allclose(got, kind().forward([x.astype(float)], {}), rtol=1e-6, atol=1e-6)
        if kind is chaos.Softmax and channels > 1:
            assert (got[0, 1:, 1, 1] == 0).all() and got[0, 0, 0, 1] == 0


@pytest.mark.parametrize("channels", [1, 5, 17])
def test_maxout_of_equals_and_nan(isa, channels):
    """The first of equals has the gradient, a NaN wins over numbers."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (6, channels * 5, 3, 2)).astype(np.float32)
    x[3:][rng.random(x[3:].shape) < 0.1] = np.nan
    net = chaos.Network(x.shape[1:], [chaos.Maxout(5), chaos.Flatten()])
    out = np.empty((len(x), channels * 6), np.float32)
    _core.Engine(net.plan, net.weights).run("forward", inputs=[x.reshape(-1)], out=out)
    np.testing.assert_array_equal(out, x.reshape(6, channels, 5, 3, 2).max(2).reshape(6, -1))


@pytest.mark.parametrize("vectors", range(1, 25))
def test_rows_of_every_length_are_gathered(vectors):
    """Behind pooling the weights' gradient is a sum of rows of the input, in as many vectors as a row of the kernel is
    long: there is a loop for each number, up to 24 of AVX-512."""
    net = chaos.Network(
        (2, 6, 6),
        [
            chaos.Conv2d(4 * vectors, 1),
            chaos.Conv2d(3, 4, padding=1),
            chaos.MaxPool2d(2),
            chaos.Tanh(),
            chaos.Flatten(),
            chaos.Linear(4),
        ],
        seed=vectors,
    )
    pixels, labels = images(3, net.input_shape, vectors, classes=4)
    Oracle(net, pixels, labels).check(pixels)


DENSE = "conv2d.forward=panels;conv2d.weight_gradient=blocks;conv2d.data_gradient=panels"


@pytest.mark.parametrize(
    "shape, outputs, kernel, options",
    [
        ((40, 30, 31), 60, 3, {"padding": 1}),
        ((33, 21, 20), 50, 3, {"padding": 1, "stride": 2}),
        ((9, 41, 38), 20, (7, 5), {"padding": (3, 2), "stride": (3, 2)}),
        ((20, 30, 29), 30, 3, {"padding": 2, "stride": (2, 1), "dilation": 2}),
        ((20, 22, 23), 30, 3, {"padding": 2, "stride": (2, 3), "dilation": (3, 2)}),
        ((20, 22, 23), 30, 3, {"padding": 2, "stride": 2, "dilation": 2}),
        ((20, 1, 30), 30, (1, 3), {"padding": (0, 0, 1, 2), "stride": 2, "dilation": 2, "padding_mode": "replicate"}),
        ((48, 15, 16), 130, 1, {}),
        ((64, 15, 15), 40, 1, {"stride": 2}),
        ((24, 14, 14), 36, 3, {"padding": (2, 1), "groups": 2}),
        ((64, 7, 7), 70, 3, {"padding": 1, "padding_mode": "circular"}),
        ((20, 1, 300), 24, (1, 9), {"stride": (1, 4)}),
    ],
)
def test_products_of_matrices_in_pieces(isa, shape, outputs, kernel, options):
    """Dense passes in several panels of weights, bands of rows and blocks of pixels, phases of a stride, frames around dy:
    against the definition, and the same bits whatever images are together."""
    layers = [chaos.ChannelScale(), chaos.Conv2d(outputs, kernel, **options), chaos.Tanh(), chaos.Flatten(), chaos.Linear(4)]
    _core.set_loops(DENSE)
    try:
        net = chaos.Network(shape, layers, seed=1)
        bench = _core.Bench(_core.Engine(net.plan, net.weights))
        assert [bench.loop(2, what) for what in ("forward", "weight_gradient", "backward")] == ["panels", "blocks", "panels"]
        x, labels = images(9, shape, classes=4)
        Oracle(net, x[:3], labels[:3]).check(x[:3])
        together = net.forward(x)
        np.testing.assert_array_equal(together, np.concatenate([net.forward(x[i : i + 1]) for i in range(9)]))
    finally:
        _core.set_loops("")


@pytest.mark.parametrize("channels", [5, 24, 37])
@pytest.mark.parametrize(
    "kernel, options",
    [
        (3, {"padding": 1}),
        (3, {"padding": 1, "stride": 2}),
        (3, {"padding": (2, 0, 1, 3), "stride": (1, 3)}),
        (5, {"padding": 2}),
        (3, {"padding": 4, "dilation": 3}),
        (3, {"padding": 2, "stride": 2, "dilation": 2}),
        ((1, 2), {"stride": 3}),
        (3, {"padding": 2, "padding_mode": "reflect"}),
    ],
)
def test_single_channels(isa, channels, kernel, options):
    """Rows longer than some pixels at a time, borders on all sides, pixels that no tap reaches."""
    layers = [chaos.ChannelScale(), chaos.Conv2d(channels, kernel, groups=channels, **options)]
    net = chaos.Network((channels, 13, 22), [*layers, chaos.Tanh(), chaos.Flatten(), chaos.Linear(4)], seed=1)
    x, labels = images(3, net.input_shape, classes=4)
    Oracle(net, x, labels).check(x)
