"""Layers that move, join and reduce: against PyTorch, and what they refuse."""

import numpy as np
import pytest
from nets import Oracle, close, images

import chaos
from chaos.layers.examples import Picker
from chaos.layers.rearrange import loops_of

SHAPES = ("ChannelShuffle", "Concat", "Expand", "Flip", "Max", "Mean", "Min", "Pad", "Permute", "PixelShuffle",
          "PixelUnshuffle", "Rearrange", "Reshape", "Slice", "Squeeze", "Sum", "Unsqueeze", "Upsample", "Add", "Subtract",
          "Multiply", "Divide", "Maximum", "Minimum", "Identity", "Affine", "Abs")  # fmt: skip


def in_torch(torch, layer, x):
    """What PyTorch computes."""
    F, name = torch.nn.functional, type(layer).__name__
    if name in ("Max", "Min"):
        over = layer._over(x[0].ndim)
        return getattr(x[0], "a" + name.lower())(over, keepdim=layer.keepdim)
    if name in ("Mean", "Sum"):
        over = tuple(range(1, x[0].ndim)) if layer.dim is None else layer.dim
        return getattr(x[0], name.lower())(over, keepdim=layer.keepdim)
    if name == "Pad":
        return F.pad(x[0], layer.padding, layer.mode, layer.value if layer.mode == "constant" else None)
    if name == "Upsample":
        corners = {"align_corners": layer.align_corners} if "linear" in layer.mode else {}
        return F.interpolate(x[0], layer.size, layer.scale_factor, layer.mode, **corners)
    if name == "Slice":
        at = [slice(None)] * x[0].ndim
        if layer.step < 0:
            return x[0].flip(layer.dim)
        at[layer.dim] = slice(layer.start, layer.stop, layer.step)
        return x[0][tuple(at)]
    if name == "Rearrange":
        flat = x[0].reshape(len(x[0]), -1)
        index = torch.tensor(layer.arrange(np.arange(flat.shape[1]).reshape(1, *x[0].shape[1:])))[0]
        return flat[:, index.reshape(-1)].reshape(len(flat), *layer.shape)
    done = {
        "ChannelShuffle": lambda: F.channel_shuffle(x[0], layer.groups),
        "Concat": lambda: torch.cat(x, layer.dim),
        "Expand": lambda: x[0].expand(len(x[0]), *layer.shape),
        "Flip": lambda: x[0].flip(layer.dims),
        "Permute": lambda: x[0].permute(layer.dims),
        "PixelShuffle": lambda: F.pixel_shuffle(x[0], layer.upscale_factor),
        "PixelUnshuffle": lambda: F.pixel_unshuffle(x[0], layer.downscale_factor),
        "Reshape": lambda: x[0].reshape(len(x[0]), *layer.shape),
        "Squeeze": lambda: x[0].squeeze(layer.dim if layer.dim is not None else tuple(range(1, x[0].ndim))),
        "Unsqueeze": lambda: x[0].unsqueeze(layer.dim),
        "Add": lambda: sum(x),
        "Subtract": lambda: x[0] - x[1],
        "Multiply": lambda: x[0] * x[1],
        "Divide": lambda: x[0] / x[1],
        "Maximum": lambda: torch.maximum(*x),
        "Minimum": lambda: torch.minimum(*x),
        "Identity": lambda: x[0].clone(),
        "Affine": lambda: layer.scale * x[0] + layer.shift,
        "Abs": lambda: x[0].abs(),
    }
    return done[name]()


@pytest.mark.parametrize("name", SHAPES)
def test_definition_equals_pytorch(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    pick = Picker(rng)
    for _ in range(60):
        layer, shapes = getattr(chaos, name).example(pick)
        inputs = [rng.standard_normal((3, *shape)) for shape in shapes]
        x = [torch.tensor(a, requires_grad=True) for a in inputs]
        wanted = in_torch(torch, layer, x)
        y = layer.forward(inputs, {})
        if type(layer).__name__ in ("Max", "Mean", "Min", "Sum") and wanted.ndim == 1:
            wanted = wanted[:, None]  # images have a dimension at least
        assert y.shape == tuple(wanted.shape), layer
        dy = rng.standard_normal(y.shape)
        wanted.backward(torch.tensor(dy))
        # places between pixels are computed in single precision by both
        tolerance = 1e-5 if name == "Upsample" else 1e-12
        close(y, wanted.detach().numpy(), tolerance)
        for dx, a in zip(layer.backward(inputs, {}, y, dy)[0], x, strict=True):
            close(dx, a.grad.numpy(), tolerance * 10 * (1 + np.abs(dx).max()))


def test_loops_of_an_order():
    index = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert loops_of(index.reshape(-1)) == ((120, 1),)
    assert loops_of(index.transpose(0, 2, 1, 3).reshape(-1)) == ((2, 60), (4, 5), (3, 20), (5, 1))
    assert loops_of(index[:, ::-1, 1].reshape(-1)) == ((2, 60), (3, -20), (5, 1))
    assert loops_of(np.array([7])) == ((1, 1),)
    assert loops_of(np.array([0, 1, 3])) is None


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda x: chaos.Reshape((5, 5))(x), "does not fit its input of shape"),
        (lambda x: chaos.Permute((1, 0, 2)), "dims must be 0 and a permutation"),
        (lambda x: chaos.Permute((0, 2, 1))(x), "does not fit"),
        (lambda x: chaos.Slice(0, 1), "dimension 0 is the images'"),
        (lambda x: chaos.Slice(1, 9, 12)(x), "no image has"),
        (lambda x: chaos.Slice(4, 1)(x), "there is no dimension 4 of 4"),
        (lambda x: chaos.PixelShuffle(4)(x), "does not fit"),
        (lambda x: chaos.Concat(2)(x, chaos.Input((6, 4, 5))), "equal shapes but for that dimension"),
        (lambda x: chaos.Concat(4)(x), "there is no dimension 4"),
        (lambda x: chaos.Pad((4, 0), "reflect")(x), "widths must be 0 to 3"),
        (lambda x: chaos.Pad((-1, 0), "replicate")(x), "widths must be 0 to any number"),
        (lambda x: chaos.Pad((-2, -2))(x), "leave nothing"),
        (lambda x: chaos.Pad(1, "mirror"), "mode must be one of constant, reflect"),
        (lambda x: chaos.Upsample(), "one of size and scale_factor"),
        (lambda x: chaos.Upsample(scale_factor=0), "must be positive"),
        (lambda x: chaos.Upsample(3, mode="linear")(x), "needs sequences"),
        (lambda x: chaos.Upsample(scale_factor=0.1)(x), "leaves nothing"),
        (lambda x: chaos.Mean(1)(x), "use keepdim=True, then Reshape"),
        (lambda x: chaos.Max(7)(x), "there is no dimension 7"),
        (lambda x: chaos.Multiply()(x, chaos.Input((4, 3, 4))), "equal sizes, or 1"),
        (lambda x: chaos.Multiply()(x), "takes 2 inputs, not 1"),
        (lambda x: chaos.Parameter((2, 0)), "positive sizes"),
        (lambda x: chaos.Constant((2,), fill=float("nan")), "fill must be a finite number"),
    ],
)
def test_what_cannot_be(make, words):
    with pytest.raises(ValueError, match=words):
        make(chaos.Input((6, 3, 4)))


def test_constants_do_not_train():
    """A constant has the same bits after training; a parameter beside it has not."""
    x = chaos.Input((4,))
    y = chaos.Multiply()(chaos.Linear(3)(x), chaos.Constant((3,), fill=2.0, name="fixed")(x))
    net = chaos.Network(x, chaos.Add()(y, chaos.Parameter((3,), name="free")(x)))
    rng = np.random.default_rng(0)
    data = chaos.data.Dataset(rng.standard_normal((40, 4)).astype(np.float32), rng.integers(0, 3, 40))
    before = net.state_dict()
    chaos.train(net, data, epochs=2, lr=0.1, workers=2, progress=False)
    after = net.state_dict()
    np.testing.assert_array_equal(after["fixed"], before["fixed"])
    assert (after["free"] != before["free"]).all()


@pytest.mark.parametrize(
    "layer, shape",
    [
        (chaos.ChannelShuffle(4), (32, 9, 8)),  # vectors from several stretches of memory, and what is left of a line
        (chaos.ChannelShuffle(3), (18, 21, 11)),
        (chaos.PixelShuffle(2), (20, 12, 13)),
        (chaos.PixelUnshuffle(2), (5, 24, 22)),
        (chaos.Permute((0, 1, 3, 2)), (3, 40, 33)),  # stretches that are too many
        (chaos.Flip((1,)), (37, 12, 9)),
        (chaos.Slice(1, 0, 30, 3), (30, 17, 9)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, chaos.layers.Layer) else None,
)
def test_rearranging_of_many_numbers(isa, layer, shape):
    """Images that are longer than a line of the core's table, of which several lie side by side."""
    x, labels = images(8, shape, classes=3)
    net = chaos.Network(shape, [layer, chaos.Flatten()])
    np.testing.assert_array_equal(net.forward(x), layer.forward([x], {}).reshape(8, -1))
    net = chaos.Network(shape, [chaos.PReLU(shape[0]), layer, chaos.Flatten(), chaos.Linear(3)])
    Oracle(net, x, labels).check(x)
