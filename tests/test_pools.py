"""Pooling beyond what runs over all kinds (tests/test_layers.py): against PyTorch, and where options make no sense."""

import numpy as np
import pytest
from nets import Oracle, one_layer

import chaos
from chaos.layers.examples import Picker
from chaos.network import run_key
from chaos.reference import forward

KINDS = [
    *("MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d", "LPPool1d", "LPPool2d"),
    *("AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d"),
]


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


@pytest.mark.parametrize("kind", KINDS)
def test_random_geometries_are_pytorchs(kind):
    torch = pytest.importorskip("torch")
    for layer, x in geometries(kind):
        check_against_pytorch(torch, layer, getattr(torch.nn, kind)(**layer.config()), x)


@pytest.mark.parametrize(
    "kind, arguments",
    [
        ("MaxPool1d", [(3,), (3, 2), (3, 2, 1), (3, 1, 1, 2)]),
        ("MaxPool2d", [(3,), (3, 2), (3, 2, 1), ((3, 4), (2, 1), (1, 2), (2, 1))]),
        ("AvgPool1d", [(3,), (3, 2, 1), (4, 3, 2, True, False)]),
        ("AvgPool2d", [(3,), (3, 2, 1), ((3, 4), (2, 3), (1, 2), True, False, 5)]),
        ("LPPool1d", [(2, 3), (1, 3, 2, True)]),
        ("LPPool2d", [(2, 3), (4, (3, 2), 3, True)]),
        ("AdaptiveMaxPool2d", [(1,), ((None, 4),)]),
        ("AdaptiveAvgPool2d", [(1,), ((None, 4),)]),
    ],
)
def test_arguments_have_pytorchs_order(kind, arguments):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 11) if kind.endswith("2d") else (2, 3, 11))
    for args in arguments:
        check_against_pytorch(torch, getattr(chaos, kind)(*args), getattr(torch.nn, kind)(*args), x)


@pytest.mark.parametrize("norm", [1.5, 3, 2.75, 5, 40])
def test_norms_of_positive_numbers(isa, norm):
    """The core's powers: of numbers, and of sums of up to 12 of them. Nothing in a window, no gradient."""
    x = np.random.default_rng(0).uniform(0.1, 1.6, (2, 21, 9, 10)) ** 2
    layer = chaos.LPPool2d(norm, (3, 4), (2, 3), ceil_mode=True)
    first = chaos.Conv2d(21, 1, groups=21, bias=False)
    net = chaos.Network(x.shape[1:], [first, layer, chaos.Flatten(), chaos.Linear(3)])
    state = net.state_dict()
    state["0.weight"][:] = 1
    net.load_state_dict(state)
    Oracle(net, x, np.array([0, 2])).check(x.astype(np.float32))
    _, gradients = net.loss_and_gradients(np.zeros((1, *x.shape[1:]), np.float32), [0])
    assert not gradients["0.weight"].any() and gradients["3.bias"].all()


@pytest.mark.parametrize("norm", [1.5, 3])
def test_norms_are_pytorchs(norm):
    """Also where they are not defined: of negative numbers and sums, and the gradient at 0."""
    torch = pytest.importorskip("torch")
    for x in (np.random.default_rng(0).uniform(0, 2, (2, 3, 6, 7)), np.zeros((1, 1, 2, 2))):
        check_against_pytorch(torch, chaos.LPPool2d(norm, 2), torch.nn.LPPool2d(norm, 2), x)
    x = np.array([[[[-1.0, -2, 3, 1], [-3, 0.5, 0, 2]]]], np.float32)
    wanted = torch.nn.LPPool2d(norm, 2)(torch.tensor(x)).numpy()
    net, found = one_layer((1, 2, 4), chaos.LPPool2d(norm, 2)), np.empty((1, 2), np.float32)
    chaos._core.Engine(net.plan, net.weights).run("forward", inputs=[x.reshape(-1)], out=found)
    np.testing.assert_allclose(found, wanted.reshape(1, 2), rtol=1e-6)
    assert np.isnan(found[0, 0])


def test_subsampling_is_the_definition_of_lenet():
    """Four pixels of a map are added, times a coefficient, plus a bias; begins as their mean."""
    x = np.random.default_rng(0).standard_normal((3, 6, 4, 8)).astype(np.float32)
    net = chaos.Network((6, 4, 8), [chaos.Subsampling2d(2)])
    sums = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
    np.testing.assert_allclose(net.forward(x), sums / 4, rtol=0, atol=1e-6)
    assert net.n_parameters == 12 and list(net.state_dict()) == ["0.weight", "0.bias"]
    coefficient, bias = np.arange(6, dtype=np.float32), np.arange(6, dtype=np.float32) - 3
    net.load_state_dict({"0.weight": coefficient, "0.bias": bias})
    wanted = sums / 4 * coefficient[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(net.forward(x), wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
def test_blur_is_a_convolution_of_each_channel(kernel, mode):
    """As the paper's code has it: padding, then a convolution of each channel with the binomial filter."""
    torch = pytest.importorskip("torch")
    row = torch.tensor(np.poly1d([0.5, 0.5]).__pow__(kernel - 1).coeffs if kernel > 1 else np.ones(1))

    def module(x):
        before, behind = (kernel - 1) // 2, kernel // 2
        pad = "constant" if mode == "zeros" else mode
        padded = torch.nn.functional.pad(x, (before, behind, before, behind), pad)
        return torch.nn.functional.conv2d(padded, torch.outer(row, row).expand(5, 1, -1, -1), stride=(2, 3), groups=5)

    x = np.random.default_rng(0).standard_normal((2, 5, 9, 12))
    check_against_pytorch(torch, chaos.BlurPool2d(kernel, (2, 3), padding_mode=mode), module, x)


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_pyramids_are_adaptive_pools(mode):
    torch = pytest.importorskip("torch")
    pool = {"max": torch.nn.functional.adaptive_max_pool2d, "avg": torch.nn.functional.adaptive_avg_pool2d}[mode]
    rng = np.random.default_rng(0)
    for levels in [(1,), (3, 2, 1), (4, 4, 1, 6)]:
        for size in [(1, 1), (3, 5), (13, 13)]:
            x = rng.standard_normal((2, 18, *size))
            layer = chaos.SpatialPyramidPool2d(levels, mode)
            check_against_pytorch(torch, layer, lambda x, n=levels: torch.cat([pool(x, k).flatten(1) for k in n], 1), x)


def test_what_is_drawn_has_its_probability():
    """20,000 windows of 1, 0, 2, -4, 5: the drawn shares within 5 standard errors; what is expected is the evaluation."""
    window = np.array([1.0, 0, 2, -4, 5])
    x = np.tile(window, (20, 1000, 1, 1))
    net = chaos.Network((1000, 1, 5), [chaos.StochasticPool2d((1, 5))])
    y = forward(net, x, training=True, key=run_key(4, 1))[net.nodes()[-1][0]]
    for value in window:
        p = max(value, 0) / 8
        assert abs((y == value).mean() - p) <= 5 * np.sqrt(p * (1 - p) / y.size)
    np.testing.assert_allclose(net.forward(x.astype(np.float32)), (1 + 4 + 25) / 8, rtol=1e-6)
    assert not net.forward(-np.abs(x.astype(np.float32))).any()


def test_the_draws_of_epochs_images_and_layers_differ():
    x = np.tile(np.arange(1.0, 5).reshape(2, 2), (2, 64, 1, 1))
    a = chaos.Input((64, 2, 2))
    net = chaos.Network(a, chaos.Add()(chaos.StochasticPool2d(2)(a), chaos.StochasticPool2d(2)(a)))
    found = set()
    for seed, epoch in ((1, 1), (1, 2), (2, 1)):
        values = forward(net, x, training=True, key=run_key(seed, epoch))
        found |= {values[node][i].tobytes() for node, _ in net.nodes()[1:3] for i in (0, 1)}
    assert len(found) == 12


@pytest.mark.parametrize(
    "layer", [chaos.RoIPool((2, 3), 0.5), chaos.RoIAlign((2, 3), 0.5, 0), chaos.RoIAlign(2, 1.0, 3, True)], ids=repr
)
def test_boxes_may_be_any_numbers(isa, layer):
    """Nothing is read outside the image, what lies outside is 0; a box of no area is one pixel, or nothing."""
    x = np.random.default_rng(0).standard_normal((1, 17, 5, 6)).astype(np.float32)
    boxes = [[0, 0, 4, 4], [-9, -9, 99, 99], [3, 3, -8, 1], [1e30, 1, -1e30, 2], [40, 40, 60, 60], [2, 2, 2, 2]]
    at = np.array([boxes], np.float32)
    at[0, 3, 1] = np.nan
    image, places = chaos.Input(x.shape[1:]), chaos.Input(at.shape[1:])
    net = chaos.Network([image, places], layer(image, places))
    found = np.empty((1, *net.output_shape), np.float32)
    inputs = [x.reshape(-1), at.reshape(-1)]
    chaos._core.Engine(net.plan, net.weights).run("forward", inputs=inputs, out=found.reshape(1, -1))
    np.testing.assert_allclose(found, layer.forward([x.astype(float), at.astype(float)], {}), rtol=0, atol=1e-5)
    assert not found[0, 4 * 17 : 5 * 17].any() and found[0, :17].any()


def onnx_output(operator, inputs, **options):
    """What onnxruntime computes with one operator."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    types = {np.dtype(np.float32): onnx.TensorProto.FLOAT, np.dtype(np.int64): onnx.TensorProto.INT64}
    names = [f"x{i}" for i in range(len(inputs))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, names, ["y"], **options)],
        "one",
        [onnx.helper.make_tensor_value_info(n, types[x.dtype], x.shape) for n, x in zip(names, inputs, strict=True)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 16)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


def regions(seed):
    """Features, and boxes that reach over their ends here and there."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 5, 11, 13)).astype(np.float32)
    corners = np.sort(rng.uniform(-6, 58, (2, 7, 2, 2)), 2)
    return x, corners.reshape(2, 7, 4).astype(np.float32)


def check_regions(layer, x, boxes, wanted):
    image, places = chaos.Input(x.shape[1:]), chaos.Input(boxes.shape[1:])
    net = chaos.Network([image, places], layer(image, places))
    wanted = wanted.reshape(2, -1, *wanted.shape[2:])
    np.testing.assert_allclose(net.forward([x, boxes]), wanted, rtol=0, atol=1e-5, err_msg=repr(layer))
    defined = layer.forward([x.astype(float), boxes.astype(float)], {})
    np.testing.assert_allclose(defined, wanted, rtol=0, atol=1e-5, err_msg=repr(layer))


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (4, 4)])
def test_roi_pool_is_onnxs(size):
    """Of sizes whose windows are exact in floating point: there it rounds their ends."""
    for seed in range(5):
        x, boxes = regions(seed)
        listed = np.concatenate([np.repeat([[0.0], [1.0]], 7, 0), boxes.reshape(-1, 4)], 1).astype(np.float32)
        wanted = onnx_output("MaxRoiPool", [x, listed], pooled_shape=size, spatial_scale=0.25)
        check_regions(chaos.RoIPool(size, 0.25), x, boxes, wanted)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7)])
def test_roi_align_is_onnxs(size, samples, aligned):
    for seed in range(5):
        x, boxes = regions(seed)
        options = {
            "coordinate_transformation_mode": "half_pixel" if aligned else "output_half_pixel",
            **{"output_height": size[0], "output_width": size[1], "sampling_ratio": samples, "spatial_scale": 0.25},
        }
        wanted = onnx_output("RoiAlign", [x, boxes.reshape(-1, 4), np.repeat([0, 1], 7)], **options)
        check_regions(chaos.RoIAlign(size, 0.25, samples, aligned), x, boxes, wanted)


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
        (lambda: chaos.AvgPool2d(3, padding=(0, 2)), "AvgPool2d: padding=2 must be at most half of the kernel size 3"),
        (lambda: chaos.AvgPool2d(2, divisor_override=0), "divisor_override must be a whole number of at least 1, not 0"),
        (lambda: chaos.AvgPool1d(2, count_include_pad=None), "AvgPool1d: count_include_pad must be True or False, not None"),
        (lambda: chaos.LPPool2d(0.5, 2), "LPPool2d: norm_type must be a finite number of at least 1, not 0.5"),
        (lambda: chaos.LPPool2d(float("inf"), 2), "norm_type must be a finite number of at least 1, not inf"),
        (lambda: chaos.RoIPool(2, 0), "RoIPool: spatial_scale must be a finite number above 0, not 0"),
        (lambda: chaos.RoIAlign(2, 1.0, 0.5), "RoIAlign: sampling_ratio must be a whole number, not 0.5"),
        (
            lambda: chaos.RoIPool(2, 1)(chaos.Input((3, 4, 4)), chaos.Input((5,))),
            r"needs boxes \(number, 4\), .* shape \(5,\)",
        ),
        (lambda: chaos.SpatialPyramidPool2d((2, 0)), "each of levels must be a whole number of at least 1, not 0"),
        (lambda: chaos.SpatialPyramidPool2d(()), "levels must be 1 to 14 numbers, not 0"),
        (lambda: chaos.SpatialPyramidPool2d(2, "mean"), "mode must be 'max' or 'avg', not 'mean'"),
        (lambda: chaos.BlurPool2d(33), "BlurPool2d: kernel_size must be at most 32, not 33"),
        (lambda: chaos.BlurPool2d(padding_mode="circular"), "padding_mode must be 'reflect' or .*, not 'circular'"),
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
        (chaos.AvgPool1d(4), (2, 3), r"floor\(\(3 - 4\) / 4\) \+ 1 < 1"),
        (chaos.BlurPool2d(7), (2, 9, 3), "reflected are 3 pixels, which must be less than its height and width"),
        (chaos.Subsampling2d(3), (2, 9, 2), r"floor\(\(2 - 3\) / 3\) \+ 1 < 1"),
        (chaos.AdaptiveMaxPool2d(2), (5,), r"needs images \(c, h, w\), its input has shape \(5,\)"),
    ],
)
def test_impossible_geometry(layer, shape, words):
    with pytest.raises(ValueError, match=words):
        chaos.Network(shape, [layer])


def test_indices_are_not_returned():
    with pytest.raises(TypeError, match="return_indices"):
        chaos.MaxPool2d(2, return_indices=True)
