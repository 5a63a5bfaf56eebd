"""Every layer: its NumPy definition against finite differences, the core against the definition, for odd geometries and
every instruction set. Runs over the list of layers: a new kind needs a strategy in `layer_on` and nothing else."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import Oracle, close, graph, images, one_layer

import chaos
from chaos import _core
from chaos.layers import LAYERS
from chaos.losses import LOSSES

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def layer_on(draw, kind):
    """(layer, input shape) with odd sizes around the widths of the vectors."""
    channels, many = st.integers(1, 5), st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 33, 48, 65, 70])
    if kind == "conv2d":
        kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
        dilation = draw(st.sampled_from([1, 1, 1, 2, (1, 3), (2, 1)]))
        if draw(st.booleans()):
            padding, stride = draw(st.sampled_from(["same", "valid"])), 1
        else:
            padding, stride = (
                draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
                draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            )
        depthwise = groups > 1 and draw(st.booleans())
        c, o = draw(st.one_of(channels, st.sampled_from([16, 17, 20]))), draw(many)
        shape = (c * groups, draw(st.integers(5, 11)), draw(st.integers(5, 11)))
        if depthwise:
            groups = o = shape[0]
        layer = chaos.Conv2d(
            o * groups if not depthwise else o, kernel, stride, padding, dilation, groups, bias=draw(st.booleans())
        )
        try:
            layer.output_shape(shape)
        except ValueError:  # the dilated kernel is too large
            return chaos.Conv2d(o, (1, 2), groups=o if depthwise else 1), shape
        return layer, shape
    if kind == "max_pool2d":
        kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        stride = draw(st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(1, 4))))
        return chaos.MaxPool2d(kernel, stride), (draw(many), draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    if kind == "linear":
        return chaos.Linear(draw(st.one_of(many, st.sampled_from([150, 300]))), draw(st.booleans())), (draw(many),)
    shape = draw(st.one_of(st.tuples(many), st.tuples(channels, st.integers(1, 7), st.integers(1, 7))))
    return LAYERS[kind](), shape


def test_every_kind_has_a_core_half():
    assert sorted(LAYERS) == sorted(_core.layer_kinds())
    assert {k: len(v.parameters) for k, v in LAYERS.items()} == _core.layer_kinds()


@pytest.mark.parametrize("kind", LAYERS)
@given(data=st.data())
@QUICK
def test_definition_against_finite_differences(kind, data):
    layer, shape = data.draw(layer_on(kind))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    inputs = [rng.standard_normal((2, *shape)) for _ in range(1 if layer.one_input else 2)]
    # central differences of a piecewise function are wrong across a kink: keep ReLU's away and max-pooling's apart
    inputs = [np.where(np.abs(x) < 1e-3, 0.5, x) if kind == "relu" else x for x in inputs]
    params = {k: v.astype(float) for k, v in layer.initial_values(rng, *([shape] * len(inputs))).items()}
    y = layer.forward(inputs, params)
    assert y.shape == (2, *layer.output_shape(*([shape] * len(inputs))))
    dy = rng.standard_normal(y.shape)
    into, own = layer.backward(inputs, params, y, dy)
    assert own.keys() == params.keys()
    step = 1e-6
    for array, gradient in [*zip(inputs, into, strict=True), *((params[k], own[k]) for k in params)]:
        assert gradient.shape == array.shape
        for at in map(tuple, rng.integers(0, array.shape, (8, array.ndim))):
            keep = array[at]
            array[at] = keep + step
            up = layer.forward(inputs, params).copy()
            array[at] = keep - step
            down = layer.forward(inputs, params).copy()
            array[at] = keep
            # truncation step^2, cancellation 2^-52 / step of the summed magnitudes: both below 1e-7 of them
            numeric = ((up - down) * dy).sum() / (2 * step)
            assert abs(numeric - gradient[at]) < 1e-6 * (1 + np.abs((up - down) * dy).sum() / (2 * step))


@pytest.mark.parametrize("kind", LAYERS)
@given(data=st.data())
@QUICK
def test_core_against_definition(isa, kind, data):
    layer, shape = data.draw(layer_on(kind))
    n = data.draw(st.sampled_from([1, 2, 3, 9, 17]))
    before = chaos.Linear(int(np.prod(shape))) if len(shape) == 1 else chaos.Conv2d(shape[0], 1)
    x = chaos.Input(shape)
    inner = before(x)  # so that the layer's data gradient is used
    out = layer(inner) if layer.one_input else layer(inner, x, inner)
    net = chaos.Network(x, chaos.Flatten()(out) if len(out.shape) == 3 else out, seed=1)
    pixels, labels = images(n, shape, data.draw(st.integers(0, 99)), classes=int(np.prod(out.shape)))
    Oracle(net, pixels, labels, data.draw(st.sampled_from(sorted(LOSSES)))).check(pixels)


@given(data=st.data())
@settings(QUICK, max_examples=80)
def test_convolution_before_pooling(isa, data):
    """The core hands the winners of a max-pooling to the convolution before it: all geometries of the pair, as a first layer
    (no data gradient, one channel, strips) and behind another one, with and without an activation in between."""
    first = data.draw(st.booleans())
    size = st.one_of(st.integers(8, 24), st.sampled_from([45, 85]))  # narrow outputs fill a vector with many pixels
    shape = (1 if first else data.draw(st.integers(1, 3)), data.draw(st.integers(8, 24)), data.draw(size))
    groups = 1 if first else data.draw(st.sampled_from([1, 1, 2, 16]))
    layers = [] if first else [chaos.Conv2d(groups * data.draw(st.sampled_from([1, 2, 5, 17])), 1)]
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = data.draw(st.sampled_from([1, 1, 1, (2, 1), 2]))
    outputs = groups * data.draw(st.sampled_from([1, 1, 2, 3, 5, 8, 9, 16, 20, 33] if groups < 16 else [1, 1, 3]))
    layers += [chaos.Conv2d(outputs, kernel, stride, data.draw(st.sampled_from([0, 0, 1, (0, 2)])), groups=groups)]
    layers += data.draw(st.sampled_from([[], [chaos.Tanh()], [chaos.ReLU()]]))
    pool = data.draw(st.sampled_from([2, 3, (2, 3), (1, 3), (1, 2), (4, 1), 1]))
    layers += [chaos.MaxPool2d(pool, data.draw(st.sampled_from([None, None, 2, 3]))), chaos.Flatten(), chaos.Linear(4)]
    try:
        net = chaos.Network(shape, layers, seed=1)
    except ValueError:
        return  # the window does not fit
    pixels, labels = images(data.draw(st.sampled_from([1, 3, 9])), shape, data.draw(st.integers(0, 99)), classes=4)
    Oracle(net, pixels, labels).check(pixels)


# Channels that are padded (60, 15) or whole vectors already (32), and others in narrow vectors: two copies (20, 36, 12; rows
# of 15 * 12 floats are rounded up), aligned anyway (24), never aligned (17). Windows for several blocks of them, or one.
@pytest.mark.parametrize(
    "channels, outputs, kernel, height, width, padding, pool",
    [
        (60, 20, 3, 11, 11, 0, 2),
        (60, 17, (1, 6), 7, 13, 0, 2),
        (15, 17, 4, 12, 9, (0, 2), 2),
        (32, 5, 3, 10, 10, 1, 3),
        (20, 40, 5, 13, 13, 0, 3),
        (20, 33, 5, 27, 27, 0, 2),
        (36, 10, 5, 24, 20, 1, 2),
        (12, 70, (2, 5), 14, 15, 0, 2),
        (24, 18, 3, 12, 11, 0, 2),
        (17, 33, 3, 14, 14, 0, 2),
    ],
)
def test_inputs_of_convolution_before_pooling(isa, channels, outputs, kernel, height, width, padding, pool):
    shape = 2, height, width
    net = chaos.Network(
        shape,
        [
            chaos.Conv2d(channels, 1),
            chaos.Conv2d(outputs, kernel, padding=padding),
            chaos.Tanh(),
            chaos.MaxPool2d(pool),
            chaos.Flatten(),
            chaos.Linear(4),
        ],
        seed=1,
    )
    pixels, labels = images(3, shape, 5, classes=4)
    Oracle(net, pixels, labels).check(pixels)


# One of a kind for every instance of the loop: one or two parts, with one input channel each kernel width and the general
# loop, up to four rows at once with all remainders.
@pytest.mark.parametrize(
    "channels, outputs, kernel, height, width",
    [
        (1, 5, 3, 13, 29),
        (1, 5, 4, 29, 29),
        (1, 5, 5, 9, 27),
        (1, 5, (2, 6), 12, 29),
        (1, 10, 3, 10, 17),
        (1, 10, 4, 29, 29),
        (1, 10, 5, 8, 16),
        (1, 2, 5, 7, 60),
        (5, 10, 5, 13, 13),
        (5, 5, 3, 6, 12),
        (4, 8, 3, 9, 17),
        (8, 8, 2, 7, 9),
        (3, 6, 1, 5, 20),
        (2, 7, (5, 1), 11, 6),
        (1, 7, (1, 4), 4, 10),
    ],
)
def test_few_channels(isa, channels, outputs, kernel, height, width):
    shape = channels, height, width
    net = chaos.Network(shape, [chaos.Conv2d(outputs, kernel), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Linear(4)], seed=1)
    if isa == "avx512":
        assert _core.Bench(_core.Engine(net.plan, net.weights)).loop(1, "forward") == "several pixels a vector"
    pixels, labels = images(3, shape, classes=4)
    Oracle(net, pixels, labels).check(pixels)


@pytest.mark.parametrize(
    "shape, conv, pool",
    [
        ((1, 24, 12), chaos.Conv2d(6, (2, 1), dilation=(9, 954437177)), chaos.MaxPool2d((2, 2))),
        ((16, 4, 16), chaos.Conv2d(6, (1, 5), stride=(2**30, 1)), chaos.MaxPool2d((1, 3), stride=(2**30, 3))),
        ((1, 9, 40), chaos.Conv2d(6, 3, stride=(1, 2**30)), chaos.MaxPool2d((3, 1), stride=(3, 2**30))),
        ((2, 9, 20), chaos.Conv2d(6, (1, 3), dilation=(2**31 - 1, 1)), chaos.MaxPool2d(2)),
    ],
)
def test_huge_numbers_without_effect(isa, shape, conv, pool):
    """A stride of one output, a dilation of one tap."""
    net = chaos.Network(shape, [conv, pool, chaos.Flatten(), chaos.Linear(4)], seed=1)
    pixels, labels = images(3, shape, classes=4)
    Oracle(net, pixels, labels).check(pixels)


@pytest.mark.parametrize("channels", [1, 3, 5, 8, 20])
def test_pooling_of_equals_and_nan(isa, channels):
    """The first of equal entries wins, a NaN wins over numbers."""
    x = np.random.default_rng(0).integers(0, 3, (4, channels, 7, 13)).astype(np.float32)
    x[2:][np.random.default_rng(1).random(x[2:].shape) < 0.1] = np.nan
    net = chaos.Network((channels, 7, 13), [chaos.MaxPool2d(2), chaos.Flatten()])
    with np.errstate(invalid="ignore"):
        windows = x[:, :, :6, :12].reshape(4, channels, 3, 2, 6, 2).max((3, 5)).reshape(4, -1)
    out = np.empty_like(windows)
    _core.Engine(net.plan, net.weights).run("forward", values=x.reshape(-1), out=out)
    np.testing.assert_array_equal(out, windows)


@pytest.mark.parametrize("make", [chaos.models.small, chaos.models.medium, chaos.models.large, graph])
def test_networks_against_definition(isa, make):
    net = make(seed=3)
    pixels, labels = images(3, net.input_shape, classes=net.output_shape[0], bytes=True)
    Oracle(net, pixels, labels).check(pixels)


@pytest.mark.parametrize(
    "kind, function",
    [("tanh", np.tanh), ("sigmoid", lambda x: 1 / (1 + np.exp(-x))), ("scaled_tanh", lambda x: 1.7159 * np.tanh(x * 2 / 3))],
)
def test_accuracy_of_activations(isa, kind, function):
    ends = np.geomspace(1e-30, 87, 300_000)
    x = np.unique(np.concatenate([np.linspace(-12, 12, 400_000), ends, -ends, [0.0]]).astype(np.float32))
    net = one_layer((len(x),), LAYERS[kind]())
    exact = function(x.astype(np.longdouble))
    error = np.abs(net.forward(x[None])[0] - exact) / np.spacing(np.abs(exact).astype(np.float32))
    # roundings, each half a unit: the reduced argument, exp - 1, the sum, the quotient make about 2; the sigmoid takes
    # exp at arguments up to 87, where its relative error is a unit more; scaled_tanh has two multiplications and two
    # constants
    assert error.max() < {"tanh": 2.5, "sigmoid": 3.0, "scaled_tanh": 4.0}[kind]


@pytest.mark.parametrize("kind", ["tanh", "scaled_tanh", "sigmoid"])
def test_activations_at_the_ends(isa, kind):
    limit = {"tanh": (-1, 1), "scaled_tanh": (-1.7159, 1.7159), "sigmoid": (0, 1)}[kind]
    net = one_layer((4,), LAYERS[kind]())
    y = net.forward(np.array([[-3e38, -100, 100, 3e38]], np.float32))[0]
    close(y, [limit[0], limit[0], limit[1], limit[1]], 2.0**-23)


def test_losses_against_finite_differences():
    rng = np.random.default_rng(0)
    y, labels = rng.standard_normal((4, 6)), np.array([0, 5, 2, 2])
    for loss in LOSSES.values():
        gradient = loss.gradient(y, labels)
        for at in np.ndindex(y.shape):
            up, down = y.copy(), y.copy()
            up[at] += 1e-6
            down[at] -= 1e-6
            numeric = (loss.value(up, labels) - loss.value(down, labels)) / 2e-6
            assert abs(numeric - gradient[at]) < 1e-8
    assert sorted(LOSSES) == sorted(_core.losses())


@pytest.mark.parametrize(
    "layer, shape, words",
    [
        (
            chaos.Conv2d(4, 7),
            (1, 5, 5),
            ["Conv2d(out_channels=4, kernel_size=7)", "(1, 5, 5)", "floor((5 + 0 - 7) / 1) + 1"],
        ),
        (chaos.Conv2d(4, 3), (9,), ["needs images", "(9,)"]),
        (chaos.MaxPool2d(3), (1, 2, 9), ["floor((2 - 3) / 3) + 1"]),
        (chaos.Linear(3), (1, 4, 4), ["Flatten()"]),
    ],
)
def test_impossible_geometry(layer, shape, words):
    with pytest.raises(ValueError) as error:
        chaos.Network(shape, [layer])
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "make",
    [
        lambda: chaos.Conv2d(0, 3),
        lambda: chaos.Conv2d(4, (3,)),
        lambda: chaos.Conv2d(4, 3, stride=0),
        lambda: chaos.Conv2d(4, 3, padding="half"),
        lambda: chaos.Conv2d(4, 3, 2, "same"),
        lambda: chaos.Conv2d(4, 3, padding=-1),
        lambda: chaos.Linear(2.5),
        lambda: chaos.MaxPool2d(True),
        lambda: chaos.Tanh(name="a.b"),
        lambda: chaos.Tanh(name="3"),
        lambda: chaos.Input((1, 2)),
        lambda: chaos.Input((0, 2, 2)),
        lambda: chaos.Add()(),
        lambda: chaos.Linear(3)(chaos.Input((4,)), chaos.Input((4,))),
    ],
)
def test_bad_options(make):
    with pytest.raises(ValueError):
        make()
