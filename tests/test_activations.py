"""Activations beyond what runs over all kinds (tests/test_layers.py): against PyTorch, at the ends of the numbers, NaN, and
options that make no sense."""

import dataclasses

import numpy as np
import pytest
from nets import one_layer

import chaos
from chaos import _core
from chaos.layers import LAYERS
from chaos.layers.activations import Activation

ROWS = [(kind, options) for kind in LAYERS.values() if issubclass(kind, Activation) for options in kind.options_to_try]
SPREAD = np.concatenate([np.linspace(-12, 12, 4001), np.geomspace(1e-6, 80, 400), -np.geomspace(1e-6, 80, 400)])


def away_from_kinks(layer, x):
    return x[[min([abs(v - kink) for kink in layer.kinks()], default=1) > 1e-4 for v in x]]


def gradient(net, x):
    """dy/dx of a layer behind a Linear with the weight 1, from the gradient of its bias under the loss `mse` to y - 1/2."""
    bias = np.empty(len(x), np.float32)
    for i, value in enumerate(x):
        y = net.forward(np.array([[value]], np.float32))
        target = (y - 0.5).astype(np.float32)
        _, found = net.loss_and_gradients(np.array([[value]], np.float32), target, loss="mse")
        bias[i] = found["0.bias"][0] / (2 * (y - target)[0, 0])
    return bias


@pytest.mark.parametrize("kind, options", ROWS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_values_are_the_definitions(isa, kind, options):
    """To 16 units of the last place of x or y, whichever is larger: sums such as x - tanh x cancel."""
    layer = kind(*options)
    x = away_from_kinks(layer, SPREAD.astype(np.float32))
    got = one_layer((len(x),), layer).forward(x[None])[0]
    want = layer.f(x.astype(np.float64))
    size = np.maximum(np.abs(want), np.minimum(np.abs(x), 1))
    assert np.abs(got - want).max() < 1e-3 and (np.abs(got - want) <= 16 * 2.0**-24 * size + 1e-30).all()


@pytest.mark.parametrize("kind, options", ROWS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_as_pytorch(kind, options):
    torch = pytest.importorskip("torch")
    if kind in (chaos.ScaledTanh, chaos.Affine, chaos.Abs):
        pytest.skip("PyTorch has no module of it; tests/test_structure.py has the functions")
    layer = kind(*options)
    module = getattr(torch.nn, kind.__name__)(**dict(zip(names(kind), options, strict=False)))
    x = away_from_kinks(layer, SPREAD[::7])
    there = torch.tensor(x, requires_grad=True)
    y = module(there)
    y.sum().backward()
    np.testing.assert_allclose(layer.f(x), y.detach().numpy(), rtol=1e-12, atol=1e-14 if kind is not chaos.CELU else 1e-7)
    # PyTorch's Hardsigmoid takes 1/6 in single precision, CELU 1 / alpha, with which it multiplies exponents of up to 40
    single = 2.0**-24 * (40 if kind is chaos.CELU else 1)
    np.testing.assert_allclose(layer.derivative(x, layer.f(x)), there.grad.numpy(), rtol=single, atol=1e-12)


def names(kind):
    return [field.name for field in dataclasses.fields(kind) if field.name != "name"]


@pytest.mark.parametrize("kind, options", ROWS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_nan_stays_and_large_numbers_are_no_nan(isa, kind, options):
    net = one_layer((5,), kind(*options))
    engine_input = np.array([[np.nan, 1, 2, 3, 4]], np.float32)
    y = np.empty((1, 5), np.float32)
    _core.Engine(net.plan, net.weights).run("forward", inputs=[engine_input.reshape(-1)], out=y)
    assert np.isnan(y[0, 0]) and np.isfinite(y[0, 1:]).all()
    ends = net.forward(np.array([[-3e38, -1e4, 0, 1e4, 3e38]], np.float32))
    assert not np.isnan(ends).any()


@pytest.mark.parametrize("kind, options", ROWS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_derivatives_in_the_core(kind, options):
    layer = kind(*options)
    x = chaos.Input((1,))
    net = chaos.Network(x, layer(chaos.Linear(1)(x)))
    net.load_state_dict({"0.weight": [[1.0]], "0.bias": [0.0]})
    points = away_from_kinks(
        layer, np.float32([-20, -7, -3.5, -2, -1.2, -0.6, -0.3, -0.05, 0.04, 0.3, 0.7, 1.5, 2.5, 3.5, 7, 25])
    )
    want = layer.derivative(points.astype(np.float64), layer.f(points.astype(np.float64)))
    np.testing.assert_allclose(gradient(net, points), want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: chaos.LeakyReLU("steep"), "LeakyReLU: negative_slope must be a finite number, not 'steep'"),
        (lambda: chaos.LeakyReLU(True), "negative_slope must be a finite number, not True"),
        (lambda: chaos.ELU(float("nan")), "ELU: alpha must be a finite number"),
        (lambda: chaos.CELU(0), "CELU: alpha must be above 0, not 0"),
        (lambda: chaos.Softplus(-1), "Softplus: beta must be above 0, not -1"),
        (lambda: chaos.Hardtanh(1, 1), "Hardtanh: min_val must be below max_val, not 1 and 1"),
        (lambda: chaos.Softshrink(-0.1), "Softshrink: lambd must be at least 0"),
        (lambda: chaos.GELU("erf"), "GELU: approximate must be 'none' or 'tanh', not 'erf'"),
    ],
)
def test_options_that_make_no_sense(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_files_keep_options(tmp_path):
    net = chaos.Network((3,), [kind(*options) for kind, options in ROWS])
    net.save(tmp_path / "net.safetensors")
    again = chaos.load(tmp_path / "net.safetensors")
    assert again.config() == net.config() and str(again) == str(net)
