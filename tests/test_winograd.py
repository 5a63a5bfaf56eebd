"""Winograd's algorithm in the core: where it is used, and that its rounding errors stay within the bound that follows from
its matrices, which are derived here once more."""

import os
import subprocess
import sys

import numpy as np
import pytest
from nets import Oracle, close, images, one_layer

import chaos
from chaos import _core, reference

POINTS = {6: (0, 1, -1, 2, -2), 8: (0, 1, -1, 2, -2, 1 / 2, -1 / 2)}
# (tile, kernel, output size for which the rule takes this tile for 20 -> 37 channels)
CASES = [(6, 3, 8), (6, 4, 9), (6, 5, 6), (8, 3, 17), (8, 4, 10), (8, 5, 9), (8, 6, 7)]


def matrices(tile, kernel):
    """A, U, V of y = A ((U g) * (V d)) for correlation, by interpolation (Toom-Cook, transposed) at POINTS and infinity."""
    points, m = POINTS[tile], tile + 1 - kernel

    def values(n):  # of a polynomial of n coefficients at the points
        return np.array([[point**i for i in range(n)] for point in points] + [[0] * (n - 1) + [1]], float)

    # multiplying polynomials a, g: coefficients = inverse(values(tile)) @ ((values(m) @ a) * (values(kernel) @ g));
    # correlation is its transpose
    return values(m).T, values(kernel), np.linalg.inv(values(tile)).T


def scaled(u, v):
    """Rows of U as the core has them: what V is multiplied by, U is divided by."""
    factor = {6: [4, -6, -6, 24, 24, 1], 8: [1, -9 / 2, -9 / 2, 90, 90, 45 / 32, 45 / 32, 1]}[len(v)]
    return u / np.array(factor)[:, None], v * np.array(factor)[:, None]


def loop_of(net):
    return _core.Bench(_core.Engine(net.plan, net.weights)).loop(1, "forward")


@pytest.mark.parametrize("tile, kernel, size", CASES)
def test_error_bound(isa, tile, kernel, size):
    m, channels = tile + 1 - kernel, 20
    net = one_layer((channels, size + kernel - 1, size + kernel - 1), chaos.Conv2d(37, kernel), seed=3)
    assert loop_of(net) == f"Winograd, {tile}x{tile}"
    x, _ = images(2, net.input_shape, 5)
    a, u, v = matrices(tile, kernel)
    u, v = scaled(u, v)
    g = net.state_dict()["0.weight"].astype(float)
    d = np.random.default_rng(0).standard_normal((tile, tile))
    np.testing.assert_allclose(
        a @ ((u @ g[0, 0] @ u.T) * (v @ d @ v.T)) @ a.T,  # the matrices are right
        [[(d[i : i + kernel, j : j + kernel] * g[0, 0]).sum() for j in range(m)] for i in range(m)],
    )
    # First order: every rounding on the way to an output changes it by at most 2^-24 of the sum of the magnitudes that it
    # stands for. A value of V or U takes part in at most tile + 1 roundings per dimension (products, sums, constants), the
    # sum over channels in `channels`, A in tile + 1 per dimension, the bias in one.
    u, v, a = abs(u), abs(v), abs(a)
    weights = np.einsum("fi,ocij,gj->fgoc", u, abs(g), u)
    wanted = reference.forward(net, x)[net.nodes()[1][0]]
    bound = np.empty_like(wanted)
    starts = [min(i, size - m) for i in range(0, size, m)]
    for i in starts:
        for j in starts:
            patch = abs(x[:, :, i : i + tile, j : j + tile].astype(float))
            sums = np.einsum("fgoc,fi,ncij,gj->nofg", weights, v, patch, v, optimize=True)
            bound[:, :, i : i + m, j : j + m] = np.einsum("pf,nofg,qg->nopq", a, sums, a)
    bound = 2.0**-24 * (6 * (tile + 1) + channels + 1) * (bound + abs(net.state_dict()["0.bias"])[None, :, None, None])
    got = net.forward(x).reshape(wanted.shape)
    assert (abs(got - wanted) <= bound).all()
    # Roundings are as good as random, so what they come to is far less: 40 times what direct sums have.
    direct = 2.0**-24 * np.sqrt(channels) * kernel * wanted.std()
    assert np.sqrt(((got - wanted) ** 2).mean()) < 40 * direct


@pytest.mark.parametrize(
    "shape, outputs, kernel, padding",
    [
        ((20, 26, 26), 33, 5, 0),
        ((16, 16, 16), 24, 3, "same"),
        ((19, 12, 11), 33, 4, "same"),
        ((12, 17, 17), 20, 3, 1),
        ((20, 13, 13), 9, 5, (2, 0)),
        ((20, 13, 13), 40, 5, 4),
        ((64, 16, 16), 64, 3, "same"),
        ((20, 12, 12), 37, 6, 0),
        ((17, 9, 22), 70, 4, (3, 2)),
        ((90, 12, 12), 110, 3, "same"),
    ],
)
def test_gradients(isa, shape, outputs, kernel, padding):
    """Of a convolution whose dy is dense: all three passes, blocks of channels and of tiles, overlapping tiles,
    frames."""
    net = chaos.Network(
        shape,
        [
            chaos.Conv2d(shape[0], 1),
            chaos.Conv2d(outputs, kernel, padding=padding),
            chaos.Tanh(),
            chaos.Flatten(),
            chaos.Linear(5),
        ],
        seed=1,
    )
    engine = _core.Engine(net.plan, net.weights)
    loops = [_core.Bench(engine).loop(2, what) for what in ("forward", "weight_gradient", "backward")]
    assert all(loop.startswith("Winograd, ") for loop in loops)
    pixels, labels = images(3, shape, classes=5)
    Oracle(net, pixels, labels).check(pixels)


def test_samples_do_not_depend_on_their_batch(isa):
    net = one_layer((9, 12, 11), chaos.Conv2d(70, 5, padding="same"), seed=1)
    assert loop_of(net).startswith("Winograd")
    x, _ = images(9, net.input_shape)
    np.testing.assert_array_equal(net.forward(x), np.concatenate([net.forward(x[i : i + 1]) for i in range(9)]))


def test_what_lies_beyond_the_image_does_not_matter(isa):
    """Tiles at the border overlap others: a NaN reaches no output that does not see it in its own tile's pixels."""
    net = one_layer((16, 12, 12), chaos.Conv2d(24, 5), seed=1)
    assert loop_of(net) == "Winograd, 8x8"
    x, _ = images(1, net.input_shape)
    clean, spoilt = net.forward(x).reshape(24, 8, 8), np.empty((1, 24 * 64), np.float32)
    x[0, 0, 11, 11] = np.nan
    _core.Engine(net.plan, net.weights).run("forward", inputs=[x.reshape(-1)], out=spoilt)
    spoilt = spoilt.reshape(24, 8, 8)
    assert np.isnan(spoilt[:, 7, 7]).all()
    np.testing.assert_array_equal(spoilt[:, :4], clean[:, :4])


def test_switched_off():
    net = one_layer((20, 13, 13), chaos.Conv2d(40, 5), seed=1)
    x, _ = images(2, net.input_shape)
    assert loop_of(net) == "Winograd, 8x8"
    fast = net.forward(x)
    _core.set_winograd(False)
    try:
        assert loop_of(net) == "panels"
        direct = net.forward(x)
        assert chaos.info()["winograd"] is False
    finally:
        _core.set_winograd(True)
    close(direct, fast, 1e-4 * np.abs(fast).max())
    assert not np.array_equal(direct, fast)


@pytest.mark.parametrize("value, out", [("0", "False"), ("1", "True"), ("", "True"), ("yes", "neither 0 nor 1")])
def test_environment(value, out):
    done = subprocess.run(
        [sys.executable, "-c", "import chaos; print(chaos.info()['winograd'])"],
        capture_output=True,
        text=True,
        env={**os.environ, "CHAOS_WINOGRAD": value},
        timeout=60,
    )
    assert out in done.stdout + done.stderr


@pytest.mark.parametrize("shape, outputs, kernel, padding", [((20, 13, 13), 9, 5, (2, 0)), ((16, 16, 16), 24, 3, "same")])
def test_gradients_of_more_images_than_go_together(isa, shape, outputs, kernel, padding):
    """The weights' gradient of later images is added to that of those before them."""
    layers = [
        chaos.Conv2d(shape[0], 1),
        chaos.Conv2d(outputs, kernel, padding=padding),
        chaos.Tanh(),
        chaos.Flatten(),
        chaos.Linear(5),
    ]
    net = chaos.Network(shape, layers, seed=1)
    assert _core.Bench(_core.Engine(net.plan, net.weights)).loop(2, "weight_gradient").startswith("Winograd, ")
    pixels, labels = images(2 * _core.TOGETHER + 3, shape, classes=5)
    Oracle(net, pixels, labels).check(pixels)
