"""Pooling beyond what runs over all kinds (tests/test_layers.py): against PyTorch, and where options make no sense."""

import numpy as np
import pytest
from nets import one_layer

import chaos
from chaos.layers.examples import Picker

SLIDING = ["MaxPool1d", "MaxPool2d"]
ADAPTIVE = ["AdaptiveMaxPool1d", "AdaptiveMaxPool2d"]


def core_output(layer, x):
    """Of the core, in the shape of the layer's output."""
    return one_layer(x.shape[1:], layer).forward(x.astype(np.float32)).reshape(len(x), *layer.output_shape(x.shape[1:]))


def check_against_pytorch(torch, layer, module, x, dy_seed=1, tolerance=1e-12):
    """The definition in float64, forward and backward; the core's output."""
    leaf = torch.tensor(x, requires_grad=True)
    wanted = module(leaf)
    assert tuple(wanted.shape[1:]) == layer.output_shape(x.shape[1:]), repr(layer)
    y = layer.forward([x], {})
    np.testing.assert_allclose(y, wanted.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=repr(layer))
    dy = np.random.default_rng(dy_seed).standard_normal(y.shape)
    wanted.backward(torch.tensor(dy))
    (dx,), _ = layer.backward([x], {}, y, dy)
    np.testing.assert_allclose(dx, leaf.grad.numpy(), rtol=tolerance, atol=tolerance, err_msg=repr(layer))
    # sums of at most 81 entries and some products, each rounded once: below 100 roundings of the largest number
    scale = np.abs(x).max() * 81
    np.testing.assert_allclose(core_output(layer, x), y, rtol=0, atol=100 * 2.0**-24 * scale, err_msg=repr(layer))


def geometries(kind, count=150):
    """(layer, random images that fit it), as many of them."""
    pick = Picker(np.random.default_rng(7))
    for _ in range(count):
        layer, (shape,) = getattr(chaos, kind).example(pick)
        yield layer, pick.rng.standard_normal((2, *shape))


@pytest.mark.parametrize("kind", [*SLIDING, *ADAPTIVE])
def test_random_geometries_are_pytorchs(kind):
    torch = pytest.importorskip("torch")
    for layer, x in geometries(kind):
        check_against_pytorch(torch, layer, getattr(torch.nn, kind)(**layer.config()), x)


def test_arguments_have_pytorchs_order():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 11))
    for args in [(3,), (3, 2), (3, 2, 1), ((3, 4), (2, 1), (1, 2), (2, 1))]:
        check_against_pytorch(torch, chaos.MaxPool2d(*args), torch.nn.MaxPool2d(*args), x)


def test_options_are_kept():
    layers = [chaos.MaxPool2d((3, 2), 2, (1, 0), (1, 2), ceil_mode=True), chaos.AdaptiveMaxPool2d((None, 2))]
    net = chaos.Network((3, 9, 9), layers)
    again = chaos.Network.from_config(net.config())
    assert again.config() == net.config() and again.output_shape == net.output_shape == (3, 5, 2)


@pytest.mark.parametrize("layer", [chaos.MaxPool2d(3, 2, 1), chaos.AdaptiveMaxPool2d(3)], ids=repr)
def test_nan_is_not_lost(isa, layer):
    x = np.random.default_rng(0).standard_normal((2, 20, 8, 8)).astype(np.float32)
    x[1, ::3, 4, 5] = np.nan
    with np.errstate(invalid="ignore"):
        wanted = layer.forward([x], {})
    net, found = one_layer(x.shape[1:], layer), np.empty((2, wanted[0].size), np.float32)
    chaos._core.Engine(net.plan, net.weights).run("forward", inputs=[x.reshape(-1)], out=found)
    assert np.isnan(wanted).any()
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: chaos.MaxPool2d(3, padding=2), "MaxPool2d: padding=2 must be at most half of the kernel size 3"),
        (lambda: chaos.MaxPool2d(2, padding=-1), "MaxPool2d: padding must be a whole number of at least 0, not -1"),
        (lambda: chaos.MaxPool2d(2, dilation=0), "MaxPool2d: dilation must be a whole number of at least 1, not 0"),
        (lambda: chaos.MaxPool2d(2, ceil_mode=1), "MaxPool2d: ceil_mode must be True or False, not 1"),
        (lambda: chaos.MaxPool1d((2, 2)), r"MaxPool1d: kernel_size must be a whole number of at least 1, not \(2, 2\)"),
        (lambda: chaos.AdaptiveMaxPool2d(0), "AdaptiveMaxPool2d: output_size must be a whole number of at least 1, not 0"),
        (lambda: chaos.AdaptiveMaxPool2d((1, 2, 3)), r"output_size must be one number or \(height, width\)"),
    ],
)
def test_options_that_make_no_sense(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "layer, shape, words",
    [
        (chaos.MaxPool2d(5, padding=1), (2, 9, 2), r"does not fit .*\(2, 9, 2\): floor\(\(2 \+ 2 - 5\) / 5\) \+ 1 < 1"),
        (chaos.MaxPool2d(7, 2, ceil_mode=True), (2, 9, 4), r"ceil\(\(4 - 7\) / 2\) \+ 1 < 1"),
        (chaos.MaxPool2d(2, padding=1, dilation=2), (1, 1, 5), "a window would hold nothing but padding"),
        (chaos.MaxPool1d(2), (2, 9, 2), r"needs sequences \(c, l\), its input has shape \(2, 9, 2\)"),
        (chaos.AdaptiveMaxPool2d(2), (5,), r"needs images \(c, h, w\), its input has shape \(5,\)"),
    ],
)
def test_impossible_geometry(layer, shape, words):
    with pytest.raises(ValueError, match=words):
        chaos.Network(shape, [layer])


def test_indices_are_not_returned():
    with pytest.raises(TypeError, match="return_indices"):
        chaos.MaxPool2d(2, return_indices=True)
