"""The zoo: exact numbers of parameters, shapes, one step of training each, and what their papers promise."""

import inspect
import re

import numpy as np
import pytest

import chaos
from chaos import _core, data, models, reference
from chaos.cli import main
from chaos.data import generated
from chaos.layers import Input, Node
from chaos.layers.base import Trained

# As published: by the papers (zipcode, lenet5), torchvision 0.28 (vgg*, resnet18, 34, 50), Caffe (alexnet, googlenet,
# alexnet_cifar: its cifar10_full) and Keras (mobilenet, trainable ones); of the CIFAR residual networks by their well-known
# re-implementation, of all_cnn and lenet5_modern by many. The others are our sizes, added up by hand in `BY_HAND`.
KNOWN = {
    "small": 6_405,
    "medium": 76_040,
    "large": 383_160,
    "zipcode": 9_760,
    "lenet5": 60_000,
    "lenet5_modern": 61_706,
    "mcdnn_column": 76_040,
    "alexnet": 60_965_224,
    "alexnet_cifar": 89_578,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 6_998_552,
    "all_cnn": 1_369_738,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet56": 853_018,
    "resnet20_b": 272_474,
    "preact_resnet20": 269_722,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenet": 4_231_976,
}
BY_HAND = {
    "neocognitron": (25 + 1) * 24 + (9 * 24 + 1) * 24 + (25 * 24 + 1) * 24 + (24 + 1) * 10,
    "cresceptron": (25 + 1) * 24 + (9 * 24 + 1) * 24 + (25 * 24 + 1) * 24 + (24 + 1) * 10,
    "tdnn": (3 * 16 + 1) * 8 + (5 * 8 + 1) * 3,
    "tdnn_modern": (3 * 16 + 2) * 64 + (5 * 64 + 2) * 64 + (64 + 1) * 3,
    "tdnn2d": (15 + 1) * 8 + (25 * 8 + 1) * 3,
    "shift_invariant": (25 + 1) * 8 + (25 * 8 + 1) * 8 + (25 * 8 + 1) * 1,
    "pyramid": sum(
        (
            *((9 + 1) * 4, (16 * 4 + 1) * 8, (16 * 8 + 1) * 16, (49 * 16 + 1) * 32),  # forward
            *(9 * 4 * 4, 9 * 8 * 8, 9 * 16 * 16, 32 * 32),  # lateral
            *(4 * 8 * 4, 4 * 16 * 8, 49 * 32 * 16),  # back
        )
    ),
    "fast_rcnn": (9 + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 64 + (16 * 64 + 1) * 64 + (64 + 1) * 4,
    "unet": sum(
        (
            *((9 + 1) * 16, (9 * 16 + 1) * 16, (9 * 16 + 1) * 32, (9 * 32 + 1) * 32, (9 * 32 + 1) * 64, (9 * 64 + 1) * 64),
            *((4 * 64) * 32 + 32, (9 * 64 + 1) * 32, (9 * 32 + 1) * 32),
            *((4 * 32) * 16 + 16, (9 * 32 + 1) * 16, (9 * 16 + 1) * 16, (16 + 1) * 4),
        )
    ),
    "mobilenet_cifar": sum(
        (
            27 * 32 + 2 * 32,
            *(9 * c + 2 * c + c * m + 2 * m for c, m in ((32, 64), (64, 128), (128, 128), (128, 256), (256, 256))),
            257 * 10,
        )
    ),
}
IMAGENET = ("alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "googlenet", "resnet18", "resnet34", "resnet50", "mobilenet")
SMALL = [name for name in models.MODELS if name not in (*IMAGENET, "resnet32", "resnet56")]


class Graph:
    """What a network is before it has weights: of VGG-19 they are half a gigabyte, and take a while to draw."""

    def __init__(self, inputs, outputs, *, seed=0):
        if not isinstance(inputs, Node):
            node = Input(inputs)
            for layer in outputs:
                node = layer(node)
            outputs = node
        self.ends = outputs if isinstance(outputs, list) else [outputs]

    def initialise(self, *arguments, **options):
        pass

    def layers(self):
        """{layer: shapes of its inputs}"""
        found, stack = {}, list(self.ends)
        seen = set(stack)
        while stack:
            node = stack.pop()
            if node.layer:
                found[node.layer] = [source.shape for source in node.inputs]
            stack += [source for source in node.inputs if source not in seen]
            seen.update(node.inputs)
        return found

    @property
    def n_parameters(self):
        parts = (part for layer, shapes in self.layers().items() for part in layer.parts(*shapes).values())
        return sum(int(np.prod(part.shape)) for part in parts if isinstance(part, Trained))

    def names(self):
        """Of the parameters, and what is observed."""
        return {
            layer.part_name(layer.name, part)
            for layer, shapes in self.layers().items()
            for part in layer.parts(*shapes)
            if layer.name
        }


def graph(name, **options):
    """The graph of a network of ImageNet's size."""
    made = models.MODELS[name]
    inside = inspect.unwrap(made).__globals__
    kept = inside["Network"]
    inside["Network"] = Graph
    try:
        return made(**options)
    finally:
        inside["Network"] = kept


# ---- counts and shapes ----


def test_every_network_has_its_number():
    assert models.MODELS.keys() == KNOWN.keys() | BY_HAND.keys() and not KNOWN.keys() & BY_HAND.keys()
    assert set(models.PAPER) <= models.MODELS.keys() and len(set(models.MODELS.values())) == len(models.MODELS)


@pytest.mark.parametrize("name", [*SMALL, "resnet32", "resnet56"])
def test_parameters(name):
    net = models.MODELS[name]()
    assert net.n_parameters == (KNOWN | BY_HAND)[name]


@pytest.mark.parametrize("name", IMAGENET)
def test_parameters_of_imagenet_size(name):
    found = graph(name)
    assert found.n_parameters == KNOWN[name]
    assert [end.shape for end in found.ends] == [(1000,)]


@pytest.mark.parametrize("name", models.MODELS)
def test_docstrings_say_number_and_source(name):
    text = models.MODELS[name].__doc__
    assert f"{(KNOWN | BY_HAND)[name]:,} parameters" in " ".join(text.split())
    assert name in models.PAPER or re.search(r"\b(19|20)\d\d\b", text) or "`mobilenet`" in text or "today" in text


def test_further_sizes():
    assert {width: graph("mobilenet", width=width).n_parameters for width in (0.75, 0.5, 0.25)} == {
        0.75: 2_585_560,
        0.5: 1_331_592,
        0.25: 470_072,
    }
    assert graph("googlenet", auxiliary=True).n_parameters == 13_378_280
    assert [end.shape for end in graph("googlenet", auxiliary=True).ends] == [(1000,)] * 3
    assert graph("vgg16", batch_norm=True).n_parameters == 138_365_992  # torchvision's vgg16_bn
    assert models.resnet_cifar(56, shortcut="B").n_parameters == 855_770
    assert models.fast_rcnn(regression=True).n_parameters == 89_156 + 65 * 4


def test_paper_shapes():
    shapes = {node.layer.name: node.shape for node, _ in models.lenet5().nodes() if node.layer and node.layer.name}
    assert [shapes[name] for name in ("C1", "S2", "C3", "S4", "C5", "F6", "output")] == [
        *((6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1)),
        *((84,), (10,)),
    ]
    parts = {
        name: sum(part.size for key, part in models.lenet5().state_dict().items() if key.startswith(name)) for name in shapes
    }
    assert parts == {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164, "output": 840}
    zipcode = models.zipcode()
    parts = {
        name: sum(a.size for key, a in zipcode.state_dict().items() if key.startswith(name))
        for name in ("H1", "H2", "H3", "o")
    }
    assert parts == {"H1": 1068, "H2": 2592, "H3": 5790, "o": 310}
    # connections, biases counted: every unit of H1 has 26, of H2 201
    assert zipcode.macs()["forward"] + 12 * 64 + 12 * 16 + 30 + 10 == 64_660
    planes = [node.shape[1:] for node, _ in models.neocognitron().nodes() if len(node.shape) == 3]
    assert list(dict.fromkeys(planes)) == [(16, 16), (10, 10), (8, 8), (6, 6), (2, 2), (1, 1)]
    maps = [node.shape for node, _ in models.all_cnn().nodes() if len(node.shape) == 3]
    assert (192, 6, 6) in maps and (10, 6, 6) in maps


def test_torchvisions_names():
    assert {"layer1.0.conv1.weight", "layer4.1.bn2.running_var", "layer2.0.downsample.1.weight", "fc.bias"} <= graph(
        "resnet18"
    ).names()
    assert {"layer3.5.conv3.weight", "layer1.0.downsample.0.weight", "bn1.bias"} <= graph("resnet50").names()
    assert {"features.0.weight", "features.28.bias", "classifier.0.weight", "classifier.6.bias"} <= graph("vgg16").names()
    torchvision = {
        name for name in graph("vgg16").names() if not re.fullmatch(r"(features|classifier)\.\d+\.(weight|bias)", name)
    }
    assert not torchvision


def test_alexnet_is_that_of_2012():
    layers = {layer.name or layer.kind: layer for layer in graph("alexnet").layers()}
    assert [layers[f"conv{i}"].groups for i in range(1, 6)] == [1, 2, 1, 2, 2]
    norm = layers["local_response_norm"]  # the paper's k = 2, n = 5, alpha = 1e-4, beta = 0.75
    assert (norm.k, norm.size, norm.alpha / norm.size, norm.beta) == (2.0, 5, pytest.approx(1e-4), 0.75)


# ---- one step of training ----


def targets(name, net, n):
    """(targets, settings) that the network is made for."""
    rng = np.random.default_rng(1)
    if name == "shift_invariant":
        return {"targets": rng.integers(0, 2, (n, *net.output_shape)).astype(np.float32)}, {"loss": "binary_cross_entropy"}
    if name == "pyramid":
        return {"targets": rng.uniform(0, 1, (n, *net.output_shape)).astype(np.float32)}, {"loss": "mse"}
    if name in ("unet", "fast_rcnn"):
        return {"targets": rng.integers(0, 4, (n, *net.output_shape[1:]))}, {}
    if name == "lenet5":
        return {"labels": np.arange(n) % 10}, {"loss": "rbf", "loss_options": {"j": 1.0}}
    return {"labels": np.arange(n) % net.output_shape[0]}, {}


def images(net, n):
    rng = np.random.default_rng(0)
    found = [rng.normal(0, 1, (n, *shape)).astype(np.float32) for shape in net.input_shapes]
    if len(found) == 2:  # boxes
        corners = np.sort(rng.uniform(0, 47, (n, net.input_shapes[1][0], 2, 2)), 2)
        found[1] = corners.reshape(n, -1, 4).astype(np.float32)
    return tuple(found)


def step(name, net, n=4):
    """Trains one step; what every parameter was before."""
    wanted, settings = targets(name, net, n)
    before = net.state_dict()
    task = data.Dataset(images(net, n), **wanted)
    run = chaos.train(net, task, workers=1, epochs=1, lr=0.01, batch_size=n, progress=False, **settings)
    assert np.isfinite(run.history[-1]["train_loss"])
    return before


@pytest.mark.parametrize("name", SMALL)
def test_a_step_changes_every_parameter(name):
    net = models.MODELS[name](seed=1)
    # without biases, what is scaled before a normalisation makes no difference, and has no gradient
    net.initialise(bias=chaos.initialisers.uniform(-0.1, 0.1))
    before = step(name, net)
    after = net.state_dict()
    trained = net.unpack(net.weights, trained_only=True)
    same = [key for key in trained if (before[key] == after[key]).all()]
    assert not same, f"left as they were: {same}"
    assert all(np.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize(
    "name", ["zipcode", "lenet5", "tdnn", "tdnn2d", "neocognitron", "pyramid", "fast_rcnn", "unet", "resnet20"]
)
def test_gradients_are_those_of_the_definition(name):
    """In float64, NumPy: graphs with shared layers, several inputs, tables, and reshapes.

    Of hundreds of thousands of units one may be so near the kink of its ReLU that rounding decides on which side it is:
    then all gradients below it differ. With other first weights it is another one, or none."""
    found = {}
    for seed in range(4):
        net = models.pyramid(steps=5, seed=seed) if name == "pyramid" else models.MODELS[name](seed=seed)
        wanted, settings = targets(name, net, 2)
        x, y = images(net, 2), next(iter(wanted.values()))
        x = list(x) if len(x) > 1 else x[0]
        loss, gradients = net.loss_and_gradients(x, y, **settings)
        true_loss, true = reference.loss_and_gradients(net, x, y, **settings)
        assert loss == pytest.approx(true_loss, rel=1e-4)
        off = {k: np.abs(g - true[k]).max() / max(np.abs(true[k]).max(), 1e-3) for k, g in gradients.items()}
        found[seed] = max((value, key) for key, value in off.items())
        if found[seed][0] <= 2e-3:
            return
    raise AssertionError(f"largest difference, and whose, by seed: {found}")


@pytest.mark.parametrize("name", ["cresceptron", "tdnn2d", "alexnet_cifar", "unet", "preact_resnet20", "mobilenet_cifar"])
def test_others_compute_the_same(name):
    """ONNX Runtime, which has all layers of these."""
    onnxruntime = pytest.importorskip("onnxruntime")
    net = models.MODELS[name]()
    (x,) = images(net, 2)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(net.to_onnx().SerializeToString(), options, providers=["CPUExecutionProvider"])
    y, expected = net.forward(x), session.run(None, {session.get_inputs()[0].name: x})[0]
    assert y.shape == expected.shape and np.abs(y - expected).max() <= 1e-4 * np.abs(expected).std()


def test_seeds_and_files(tmp_path):
    for name in ("zipcode", "lenet5", "pyramid", "fast_rcnn", "resnet20"):
        make = models.MODELS[name]
        one, same, other = make(seed=3), make(seed=3), make(seed=4)
        assert (one.weights == same.weights).all() and (one.weights != other.weights).any()
        one.save(tmp_path / "net.safetensors")
        again = chaos.load(tmp_path / "net.safetensors")
        assert again.config() == one.config() and (again.weights == one.weights).all()


def test_several_outputs_are_trained():
    net = models.fast_rcnn(regression=True)
    task = generated.detection(8).dataset(regression=True)
    before = net.state_dict()
    chaos.train(net, task, workers=1, epochs=1, batch_size=4, loss="cross_entropy + smooth_l1@1", progress=False)
    assert all((value != before[key]).any() for key, value in net.state_dict().items())
    net = models.pyramid(steps=5, every_step=True)
    digits = generated.occluded(data.load("digits", size=28)[0].images[:4])
    loss = " + ".join(f"mse@{i}" for i in range(5))
    run = chaos.train(net, digits, workers=1, epochs=1, batch_size=4, loss=loss, progress=False)
    assert np.isfinite(run.history[-1]["train_loss"])


@pytest.mark.slow
def test_a_step_of_googlenet_with_auxiliary_outputs():
    net = models.googlenet(auxiliary=True)
    before = net.state_dict()
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 224, 224)).astype(np.float32)
    loss = "cross_entropy + 0.3*cross_entropy@1 + 0.3*cross_entropy@2"
    run = chaos.train(net, data.Dataset(x, [0, 999]), workers=1, epochs=1, batch_size=2, loss=loss, progress=False)
    assert np.isfinite(run.history[-1]["train_loss"])
    assert all((value != before[key]).any() for key, value in net.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
def test_a_step_of_imagenet_size(name):
    """Of the larger ones: scripts/train_zoo.py --step."""
    net = models.MODELS[name]()
    net.initialise(bias=chaos.initialisers.uniform(-0.1, 0.1))
    summary = net.summary(2)
    assert summary.parameters == KNOWN[name] and 4 * KNOWN[name] <= summary.weight_bytes < 4.4 * KNOWN[name]
    before = step(name, net, 2)
    assert all(
        (value != before[key]).any() for key, value in net.unpack(net.weights, trained_only=True).items() if "weight" in key
    )


# ---- what the papers promise ----


def test_shift_invariance():
    """A shifted image has shifted outputs, as far from the border as windows reach: the same numbers, where each pixel is
    computed by itself (Winograd's algorithm rounds by where a pixel is in its tile)."""
    net = models.shift_invariant()
    x = np.zeros((2, 1, 32, 32), np.float32)
    x[0, 0, 12:18, 10:16] = x[1, 0, 14:20, 13:19] = np.random.default_rng(0).normal(size=(6, 6))
    try:
        _core.set_winograd(False)
        y = net.forward(x)
    finally:
        _core.set_winograd(True)
    assert (y[0, :, 6:24, 6:22] == y[1, :, 8:26, 9:25]).all() and y[0].std() > 0.01


@pytest.mark.parametrize("make", [models.tdnn, models.tdnn2d])
def test_when_something_is_said_makes_no_difference(make):
    net = make(input_shape=(16, 25))
    x = np.zeros((2, 16, 25), np.float32)
    x[0, :, 10:13] = x[1, :, 12:15] = np.random.default_rng(0).normal(size=(16, 3))
    y = net.forward(x)
    assert np.allclose(y[0], y[1], rtol=1e-5) and (y > 0).all()


def test_shortcut_a_takes_every_other_pixel_and_zeros():
    shortcut = inspect.unwrap(models.resnet_cifar).__globals__["_shortcut"]
    x = Input((3, 8, 8))
    net = chaos.Network(x, shortcut("s", x, 6, 2, "A"))
    image = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    y = net.forward(image)
    assert net.n_parameters == 0 and (y[:, :3] == image[:, :, ::2, ::2]).all() and not y[:, 3:].any()


def test_the_pyramid_is_one_network_for_all_steps():
    assert models.pyramid(steps=5).n_parameters == models.pyramid(steps=12).n_parameters == BY_HAND["pyramid"]
    x = np.random.default_rng(0).uniform(0, 1, (1, 1, 28, 28)).astype(np.float32)
    every = models.pyramid(steps=6, every_step=True)
    assert every.output_shape == ((1, 28, 28),) * 6
    outputs = every.forward(x)
    assert np.allclose(models.pyramid(steps=5).forward(x), outputs[4], atol=1e-6)
    assert np.allclose(models.pyramid(steps=6).forward(x), outputs[5], atol=1e-6)
    assert 0 < outputs[5].min() and outputs[5].max() < 1


def test_a_fast_rcnn_sees_each_box_alone():
    net = models.fast_rcnn(regression=True)
    image, boxes = images(net, 2)
    scores, moves = net.forward(image, boxes)
    assert scores.shape == (2, 4, 16) and moves.shape == (2, 4, 16)
    order = np.random.default_rng(0).permutation(16)
    again, moved = net.forward(image, boxes[:, order])
    assert np.allclose(again, scores[:, :, order], atol=1e-5) and np.allclose(moved, moves[:, :, order], atol=1e-5)


def test_digits_at_a_width():
    """Against the definition, pixel by pixel; boxes get the width where the factor allows it, and heights stay."""
    rng = np.random.default_rng(0)
    images = np.zeros((6, 2, 9, 15), np.uint8)
    for image, (first, last) in zip(images, ((3, 8), (0, 14), (6, 6), (2, 12), (1, 4), (9, 14)), strict=True):
        image[:, 2:7, first : last + 1] = rng.integers(100, 256, (2, 5, last - first + 1))
    found = models.at_width(images, 8, most=2.0)
    assert found.dtype == np.uint8 and found.shape == images.shape
    for image, got, (first, last) in zip(images, found, ((3, 8), (0, 14), (6, 6), (2, 12), (1, 4), (9, 14)), strict=True):
        scale = min(max((last - first + 1) / 8, 0.5), 2)
        for column in range(15):
            x = (first + last) / 2 + (column - 7) * scale
            at, part = int(np.floor(x)), x - np.floor(x)
            left, right = (image[..., k] if 0 <= k < 15 else np.zeros((2, 9)) for k in (at, at + 1))
            np.testing.assert_allclose(got[..., column], left * (1 - part) + right * part, atol=0.5001)
    exact = models.at_width(images / 255, 8, most=2.0)
    assert exact.dtype == np.float32 and np.abs(exact - found / 255).max() <= 0.51 / 255
    assert not models.at_width(np.zeros((1, 1, 4, 4)), 2).any()
    for wrong in (
        lambda: models.at_width(images[0], 8),
        lambda: models.at_width(images, 16),
        lambda: models.at_width(images, 0),
    ):
        with pytest.raises(ValueError, match="images must have four|width must be"):
            wrong()


def test_columns():
    found = models.columns(3, seed=5)
    assert len(found) == 3 and (found[1].weights == models.mcdnn_column(seed=6).weights).all()
    x = np.random.default_rng(0).normal(size=(4, 1, 29, 29)).astype(np.float32)
    assert chaos.Committee(found).predict(x).shape == (4,)
    assert [net.n_parameters for net in models.columns(2, column=models.small)] == [6_405, 6_405]
    with pytest.raises(ValueError, match="columns"):
        models.columns(0)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: models.vgg(12), "11, 13, 16, 19"),
        (lambda: models.resnet(101), "18, 34, 50"),
        (lambda: models.resnet_cifar(21), "6n + 2"),
        (lambda: models.resnet_cifar(20, shortcut="C"), "'A' or 'B'"),
        (lambda: models.mobilenet_cifar(input_shape=(3, 32)), "shape"),
        (lambda: models.mobilenet(width=0), "width"),
        (lambda: models.mobilenet(width=0.01), "width"),
        (lambda: models.unet(input_shape=(1, 30, 32)), "multiples of 4"),
        (lambda: models.pyramid(features=(1, 2, 3)), "four numbers"),
        (lambda: models.pyramid(steps=4), "steps must be a whole number of at least 5"),
        (lambda: models.fast_rcnn(proposals=0), "proposals"),
    ],
)
def test_impossible_sizes(make, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


# ---- the command line ----


def test_the_list_of_networks(capsys):
    assert main(["summary"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(models.MODELS)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", SMALL)
def test_tables_fit_the_terminal(name):
    lines = str(models.MODELS[name]().summary(4)).splitlines()
    assert max(map(len, lines)) <= 80


def test_a_network_with_several_inputs_is_not_measured(capsys):
    assert main(["bench", "throughput", "--model", "fast_rcnn", "--seconds", "0.01", "--repeats", "1"]) == 2
    assert "2 inputs" in capsys.readouterr().err


def test_functions_take_seeds_first():
    for name, made in models.MODELS.items():
        assert next(iter(inspect.signature(made).parameters)) == "seed", name
    assert generated.CLASSES[0] == "background"
