"""Every layer: its NumPy definition against finite differences, the core against the definition, for the geometries that
the kind gives as examples, every instruction set and every loop. Runs over the list of layers: a new kind is tested without
a new test."""

import copy
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import Oracle, close, drawn, examples, graph, images, one_layer

import chaos
from chaos import _core
from chaos.layers import LAYERS
from chaos.layers.base import Context, State, Trained
from chaos.layers.examples import Picker, lines
from chaos.losses import CLASS, LOSSES, MAP, VALUES
from chaos.options import Flag, Numbers

QUICK = settings(max_examples=examples(6, 30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Pick:
    """What `Layer.example` chooses with, by hypothesis."""

    def __init__(self, data):
        self.draw = data.draw

    def __call__(self, values):
        return self.draw(st.sampled_from(values))

    def whole(self, least, most):
        return self.draw(st.integers(least, most))


def test_examples_of_the_c_driver(tmp_path):
    """The driver's text holds what the kinds give now; written again where it does not: copy it to tests/c."""
    wanted = "\n".join(lines(LAYERS.values())) + "\n"
    (tmp_path / "layers.txt").write_text(wanted)
    kept = Path(__file__).parent / "c/layers.txt"
    assert kept.read_text() == wanted, f"cp {tmp_path / 'layers.txt'} {kept}"


def test_every_kind_has_a_core_half():
    core, rng = _core.layer_kinds(), np.random.default_rng(0)
    used = set()
    for kind, layer in LAYERS.items():
        for _ in range(60):  # some kinds are computed by another one now and then
            example, shapes = layer.example(Picker(rng))
            there = example.core(*shapes).kind
            used.add(there)
            parts = example.parts(*shapes)
            assert set(parts) <= set(layer.part_names) and list(core[there]) == list(layer.part_names), kind
            assert {name: isinstance(part, State) for name, part in parts.items()}.items() <= core[there].items()
    assert used == core.keys()


@pytest.mark.parametrize("kind", LAYERS)
@given(data=st.data())
@QUICK
def test_definition_against_finite_differences(kind, data):
    layer, shapes = LAYERS[kind].example(Pick(data))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    context = Context(True, rng.integers(0, 2**63, 2).astype(np.uint64))
    inputs = [layer.smooth(rng.standard_normal((2, *shape))) for shape in shapes]
    params = {k: v.astype(float) for k, v in layer.initial_values(rng, *shapes).items()}
    trained = {k for k, part in layer.parts(*shapes).items() if isinstance(part, Trained)}
    y = layer.forward(inputs, params, context)
    assert y.shape == (2, *layer.output_shape(*shapes))
    dy = rng.standard_normal(y.shape)
    into, own = layer.backward(inputs, params, y, dy, context)
    assert own.keys() == params.keys()
    step = 1e-6
    assert not any(into[i].any() for i in layer.no_gradient)
    learning = [pair for i, pair in enumerate(zip(inputs, into, strict=True)) if i not in layer.no_gradient]
    for array, gradient in [*learning, *((params[k], own[k]) for k in trained)]:
        assert gradient.shape == array.shape
        for at in map(tuple, rng.integers(0, array.shape, (8, array.ndim))):
            keep = array[at]
            array[at] = keep + step
            up = layer.forward(inputs, params, context).copy()
            array[at] = keep - step
            down = layer.forward(inputs, params, context).copy()
            array[at] = keep
            # truncation step^2, cancellation 2^-52 / step of the summed magnitudes: both below 1e-7 of them
            numeric = ((up - down) * dy).sum() / (2 * step)
            assert abs(numeric - gradient[at]) < 1e-6 * (1 + np.abs((up - down) * dy).sum() / (2 * step))


def around(layer, shapes, *behind):
    """A network in which the layer's data gradients are used: behind layers with weights of their own."""
    first = {1: chaos.Linear, 2: chaos.Conv1d, 3: chaos.Conv2d}
    sources = [chaos.Input(shape) for shape in shapes]
    inner = [first[len(shape)](shape[0], *[1] * (len(shape) > 1))(x) for x, shape in zip(sources, shapes, strict=True)]
    output = layer(*inner)
    for other in behind:
        output = other(output)
    return chaos.Network(sources, output, seed=1)


def check(net, shapes, n, seed, loss="cross_entropy"):
    """Outputs, loss and gradients of the core against the definition, on random images."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((n, *shape), np.float32) for shape in shapes]
    target = rng.integers(0, int(np.prod(net.output_shape)), n)
    if CLASS not in LOSSES[loss].targets:
        target = rng.random((n, *net.output_shape), np.float32)
    x = x if len(x) > 1 else x[0]
    with drawn():
        Oracle(net, x, target, loss).check(x)


@pytest.mark.parametrize("kind", LAYERS)
@given(data=st.data())
@QUICK
def test_core_against_definition(isa, kind, data):
    layer, shapes = LAYERS[kind].example(Pick(data))
    n, seed, loss = data.draw(
        st.tuples(st.sampled_from([1, 2, 3, 9, 17]), st.integers(0, 99), st.sampled_from(sorted(LOSSES)))
    )
    check(around(layer, shapes), shapes, n, seed, loss)


LOOPS = [(kind, what, name) for kind, passes in _core.loops().items() for what, names in passes.items() for name in names]


@pytest.mark.parametrize("kind, what, name", LOOPS)
@given(data=st.data())
@settings(QUICK, max_examples=examples(5, 25))
def test_every_loop_on_every_geometry_it_accepts(isa, kind, what, name, data):
    """A loop is used wherever it says that it can be, also where another one is faster."""
    layer, shapes = LAYERS[kind].example(Pick(data))
    pool = chaos.MaxPool2d(data.draw(st.sampled_from([1, 2, (1, 2), (2, 1)])))
    n, seed = data.draw(st.tuples(st.sampled_from([1, 3, 9]), st.integers(0, 99)))
    _core.set_loops(f"{kind}.{what}={name}")
    try:
        fits = len(shapes[0]) == 3 and min(layer.output_shape(*shapes)[1:]) >= 2
        check(around(layer, shapes, *[pool] * (fits and data.draw(st.booleans()))), shapes, n, seed)
    finally:
        _core.set_loops("")


@given(data=st.data())
@settings(QUICK, max_examples=examples(30, 160))
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
    padding = data.draw(st.sampled_from([0, 0, 1, (0, 2)]))
    layers += [chaos.Conv2d(outputs, kernel, stride=stride, padding=padding, groups=groups)]
    layers += data.draw(st.sampled_from([[], [chaos.Tanh()], [chaos.ReLU()]]))
    pool = data.draw(st.sampled_from([2, 3, (2, 3), (1, 3), (1, 2), (4, 1), 1]))
    layers += [chaos.MaxPool2d(pool, data.draw(st.sampled_from([None, None, 2, 3]))), chaos.Flatten(), chaos.Linear(4)]
    try:
        net = chaos.Network(shape, layers, seed=1)
    except ValueError:
        return  # the window does not fit
    pixels, labels = images(data.draw(st.sampled_from([1, 3, 9])), shape, data.draw(st.integers(0, 99)), classes=4)
    with drawn():
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
    _core.Engine(net.plan, net.weights).run("forward", inputs=[x.reshape(-1)], out=out)
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


def targets_of(loss, shape, n, rng):
    """One target in each form that the loss takes for outputs of that shape, and the form."""
    if CLASS in loss.targets:
        yield rng.integers(0, int(np.prod(shape)), n), CLASS
    if MAP in loss.targets and len(shape) > 1:
        yield rng.integers(0, shape[0], (n, *shape[1:])), MAP
    if VALUES in loss.targets:
        yield rng.random((n, *shape)), VALUES


def options_of(loss, form, shape):
    """The defaults, every option at another value, and all of them."""
    changed = {}
    for name, option in (loss.options | loss.common).items():
        if isinstance(option, Numbers):
            value = np.linspace(0.3, 1.7, loss.classes(form, shape)).tolist()
        elif isinstance(option, Flag):
            value = not option.default
        else:
            value = min(2, option.bounds["most"]) if option.bounds["whole"] else 0.3
        changed[name] = option.check(name, value)
    return [{}, *({name: value} for name, value in changed.items()), changed]


@pytest.mark.parametrize("shape", [(6,), (3, 2, 2)])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_against_finite_differences(kind, shape):
    loss, rng = LOSSES[kind], np.random.default_rng(0)
    y = rng.standard_normal((4, *shape))
    for target, form in targets_of(loss, shape, 4, rng):
        for options in options_of(loss, form, shape):
            gradient = loss.gradient(y, target, **options)
            for at in np.ndindex(y.shape):
                up, down = y.copy(), y.copy()
                up[at] += 1e-6
                down[at] -= 1e-6
                numeric = (loss.value(up, target, **options) - loss.value(down, target, **options)) / 2e-6
                assert abs(numeric - gradient[at]) < 1e-8


def test_losses_of_the_core():
    assert {kind: sorted(loss.targets) for kind, loss in LOSSES.items()} == {
        kind: sorted(forms) for kind, forms in _core.losses().items()
    }


@pytest.mark.parametrize("layers", [[chaos.Conv2d(3, 2), chaos.Flatten(), chaos.Linear(6)], [chaos.Conv2d(3, 2)]])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_against_definition(isa, kind, layers):
    """Targets in every form, options, weights of samples; outputs that are vectors or images."""
    loss, rng = LOSSES[kind], np.random.default_rng(1)
    net = chaos.Network((2, 4, 5), layers, seed=2)
    x = rng.standard_normal((9, 2, 4, 5), np.float32)
    for target, form in targets_of(loss, net.output_shape, 9, rng):
        target = target.astype(np.float32) if target.dtype == float else target
        for options in options_of(loss, form, net.output_shape):
            for weights in (None, rng.random(9).astype(np.float32)):
                Oracle(net, x, target, kind, loss_options=options, weights=weights).check(x)


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
        lambda: chaos.Conv2d(4, 3, stride=2, padding="same"),
        lambda: chaos.Conv2d(4, 3, padding=-1),
        lambda: chaos.Linear(2.5),
        lambda: chaos.MaxPool2d(True),
        lambda: chaos.Tanh(name="a..b"),
        lambda: chaos.Tanh(name=""),
        lambda: chaos.Tanh(name="input"),
        lambda: chaos.Input((1, 2, 3, 4)),
        lambda: chaos.Input((0, 2, 2)),
        lambda: chaos.Add()(),
        lambda: chaos.Linear(3)(chaos.Input((4,)), chaos.Input((4,))),
    ],
)
def test_bad_options(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: chaos.Conv2d(1, 5, 4), r"Conv2d\(1, 5, 4\): .* PyTorch's Conv2d\(1, 5, 4\) is Conv2d\(5, 4\)$"),
        (lambda: chaos.Conv2d(3, 16, 3, 2, 1), r"out_channels and kernel_size may .* is Conv2d\(16, 3\)$"),
        (lambda: chaos.Conv1d(8, 16, 5), r"in_channels is inferred, so PyTorch's .* is Conv1d\(16, 5\)$"),
        (lambda: chaos.Linear(3072, 10), r"out_features may .*; in_features is inferred, .* is Linear\(10\)$"),
        (lambda: chaos.Linear(10, False), "the rest by name"),
        (
            lambda: chaos.MaxPool2d(2, 2, 1, 1, True),
            r"kernel_size and stride and padding and dilation may be given by position",
        ),
        (lambda: chaos.ReLU(True), "nothing may be given by position"),
        (lambda: chaos.Conv2d(in_channels=3, out_channels=16, kernel_size=3), "in_channels is inferred from the input"),
        (lambda: chaos.Linear(in_features=3, out_features=16), "in_features is inferred from the input"),
        (lambda: chaos.Conv2d(16, 3, inplace=True), "inplace"),
        (lambda: chaos.Conv2d(16), "kernel_size"),
    ],
)
def test_another_order_of_arguments_is_refused(make, words):
    """PyTorch's begins with what is inferred here: it would mean other sizes without a word."""
    with pytest.raises(TypeError, match=words):
        make()


def test_every_kind_takes_its_options_by_name():
    pick = Picker(np.random.default_rng(0))
    for kind in LAYERS.values():
        example, _ = kind.example(pick)
        layer = kind(**{f.name: getattr(example, f.name) for f in dataclasses.fields(kind)})
        assert layer.config() == example.config()
        assert copy.deepcopy(layer).config() == pickle.loads(pickle.dumps(layer)).config() == layer.config()
