"""What each layer becomes in ONNX. For chaos.interop.to_onnx."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..layers.base import Shape, pair
from .graph import Array


class Writer:
    """The nodes so far."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []
        self._names: set[str] = set()
        self._layer = ""
        self._parts: dict[str, Array] = {}
        self._called: dict[str, str] = {}

    def begin(self, layer: str, parts: dict[str, Array], names: dict[str, str]) -> None:
        """The layer whose nodes follow, its parts, and what these are called."""
        self._layer, self._parts, self._called = layer, parts, names

    def name(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node; the name of its output."""
        from onnx import helper

        result = self.name(output or f"{self._layer}.{kind}")
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(
            helper.make_node(kind, list(inputs), [result], name=self.name(f"{self._layer}/{kind}"), **attributes)
        )
        return result

    def constant(self, value: Any, dtype: Any = np.float32, name: str | None = None) -> str:
        from onnx import numpy_helper

        name = self.name(name or f"{self._layer}.constant")
        self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def whole(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def part(self, name: str, default: Any = None) -> str:
        """A part of the layer, or what stands for it where there is none; of a layer in several places once."""
        if name not in self._parts:
            return self.constant(default)
        called = self._called[name]
        return called if called in self._names else self.constant(self._parts[name], name=called)


Layer = Callable[[Writer, Any, list[Shape], list[str]], str]


def _plain(kind: str, **options: Any) -> Layer:
    """An operator with attributes, each a value or the name of an option."""

    def write(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
        given = {k: getattr(layer, v) if isinstance(v, str) and hasattr(layer, v) else v for k, v in options.items()}
        return w.op(kind, x[0], **given)

    return write


def _affine(w: Writer, x: str, scale: float, shift: float = 0.0) -> str:
    y = x if scale == 1 else w.op("Mul", x, w.constant(scale))
    return y if shift == 0 else w.op("Add", y, w.constant(shift))


def _scaled_tanh(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    return _affine(w, w.op("Tanh", _affine(w, x[0], 2 / 3)), 1.7159)


def _softplus(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    y = _affine(w, w.op("Softplus", _affine(w, x[0], layer.beta)), 1 / layer.beta)
    if layer.threshold >= 20:  # from where on the two differ by less than single precision tells
        return y
    return w.op("Where", w.op("Greater", _affine(w, x[0], layer.beta), w.constant(layer.threshold)), x[0], y)


def _threshold(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    if layer.value == 0:
        return w.op("ThresholdedRelu", x[0], alpha=float(layer.threshold))
    return w.op("Where", w.op("Greater", x[0], w.constant(layer.threshold)), x[0], w.constant(layer.value))


def _clip(low: Any, high: Any) -> Layer:
    def write(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
        a, b = (getattr(layer, v) if isinstance(v, str) else v for v in (low, high))
        return w.op("Clip", x[0], w.constant(a), w.constant(b))

    return write


def _chained(kind: str) -> Layer:
    def write(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
        result = x[0]
        for other in x[1:]:
            result = w.op(kind, result, other)
        return result

    return write


def _conv(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    axes = len(shapes[0]) - 1
    if getattr(layer, "connection_table", None) is not None:
        raise UnsupportedError("with connection_table")
    kernel = list(layer.parts(*shapes)["weight"].shape[2:])
    top, bottom, left, right = layer.core(*shapes).whole[4:8]
    source = x[0]
    if layer.padding_mode != "zeros":
        source = _bordered(w, source, (top, bottom, left, right), axes, layer.padding_mode)
        top = bottom = left = right = 0
    inputs = [source, w.part("weight")] + ([w.part("bias")] if layer.bias else [])
    return w.op(
        "Conv",
        *inputs,
        kernel_shape=kernel,
        strides=list(pair("", layer.stride)[-axes:]),
        dilations=list(pair("", layer.dilation)[-axes:]),
        group=int(layer.groups),
        pads=[left, right] if axes == 1 else [top, left, bottom, right],
    )


def _conv_transpose(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    axes = len(shapes[0]) - 1
    kernel = layer.parts(*shapes)["weight"].shape[2:]
    strides, more = pair("", layer.stride)[-axes:], pair("", layer.output_padding, 0)[-axes:]
    if any(o >= s for o, s in zip(more, strides, strict=True)):
        raise UnsupportedError(f"output_padding={layer.output_padding} that is not below the stride")
    pads = list(pair("", layer.padding, 0)[-axes:])
    inputs = [x[0], w.part("weight")] + ([w.part("bias")] if layer.bias else [])
    return w.op(
        "ConvTranspose",
        *inputs,
        kernel_shape=list(kernel),
        strides=list(strides),
        dilations=list(pair("", layer.dilation)[-axes:]),
        output_padding=list(more),
        group=int(layer.groups),
        pads=pads * 2,
    )


def _linear(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    inputs = [x[0], w.part("weight")] + ([w.part("bias")] if layer.bias else [])
    return w.op("Gemm", *inputs, transB=1)


def _batch_norm(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    channels = shapes[0][0]
    parts = [
        w.part("weight", np.ones(channels)),
        w.part("bias", np.zeros(channels)),
        w.part("running_mean"),
        w.part("running_var"),
    ]
    return w.op("BatchNormalization", x[0], *parts, epsilon=float(layer.eps), momentum=1 - float(layer.momentum))


def _instance_norm(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    channels = shapes[0][0]
    parts = [w.part("weight", np.ones(channels)), w.part("bias", np.zeros(channels))]
    return w.op("InstanceNormalization", x[0], *parts, epsilon=float(layer.eps))


def _group_norm(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    channels = shapes[0][0]
    parts = [w.part("weight", np.ones(channels)), w.part("bias", np.zeros(channels))]
    if len(shapes[0]) == 1:  # the operator wants a dimension behind the channels
        column = w.op("Unsqueeze", x[0], w.whole(2))
        y = w.op("GroupNormalization", column, *parts, num_groups=layer.num_groups, epsilon=float(layer.eps))
        return w.op("Squeeze", y, w.whole(2))
    return w.op("GroupNormalization", x[0], *parts, num_groups=layer.num_groups, epsilon=float(layer.eps))


def _rms_norm(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    (shape,) = shapes
    over = [1] if layer.channels_only else list(range(1, len(shape) + 1))
    square = w.op("ReduceMean", w.op("Mul", x[0], x[0]), w.whole(*over))
    eps = np.finfo(np.float32).eps if layer.eps is None else layer.eps
    y = w.op("Div", x[0], w.op("Sqrt", w.op("Add", square, w.constant(eps))))
    if not layer.elementwise_affine:
        return y
    weight = w.part("weight")
    if layer.channels_only and len(shape) > 1:
        weight = w.op("Reshape", weight, w.whole(-1, *[1] * (len(shape) - 1)))
    return w.op("Mul", y, weight)


def _layer_norm(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    (shape,) = shapes
    if layer.channels_only and len(shape) > 1:
        last = w.op("Transpose", x[0], perm=[0, *range(2, len(shape) + 1), 1])
        parts = [w.part("weight", np.ones(shape[0])), w.part("bias", np.zeros(shape[0]))]
        y = w.op("LayerNormalization", last, *parts, axis=-1, epsilon=float(layer.eps))
        return w.op("Transpose", y, perm=[0, len(shape), *range(1, len(shape))])
    parts = [w.part("weight", np.ones(shape)), w.part("bias", np.zeros(shape))]
    return w.op("LayerNormalization", x[0], *parts, axis=1, epsilon=float(layer.eps))


def _pool(kind: str) -> Layer:
    def write(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
        axes = len(shapes[0]) - 1
        if getattr(layer, "divisor_override", None) is not None:
            raise UnsupportedError("with divisor_override")
        stride = layer.kernel_size if layer.stride is None else layer.stride
        pads = list(pair("", getattr(layer, "padding", 0), 0)[-axes:])
        kernel = list(pair("", layer.kernel_size)[-axes:])
        reach = [d * (k - 1) + 1 for d, k in zip(pair("", getattr(layer, "dilation", 1))[-axes:], kernel, strict=True)]
        strides = list(pair("", stride)[-axes:])
        room = [n + 2 * p - r for n, p, r in zip(shapes[0][1:], pads, reach, strict=True)]
        # a last window that would begin in the padding is none in PyTorch, and one in ONNX
        ceil = list(layer.output_shape(*shapes)[1:]) != [n // s + 1 for n, s in zip(room, strides, strict=True)]
        if ceil and (
            kind == "LpPool"
            or list(layer.output_shape(*shapes)[1:]) != [-(-n // s) + 1 for n, s in zip(room, strides, strict=True)]
        ):
            raise UnsupportedError("with ceil_mode, by which ONNX means something else here")
        options: dict[str, Any] = {"ceil_mode": int(ceil), "pads": pads * 2}
        if kind == "MaxPool":
            options["dilations"] = list(pair("", layer.dilation)[-axes:])
        if kind == "AveragePool":
            options["count_include_pad"] = int(layer.count_include_pad)
        if kind == "LpPool":
            options["p"] = int(layer.norm_type)
            if layer.norm_type != options["p"] or options["p"] % 2:
                raise UnsupportedError(f"norm_type={layer.norm_type}: even numbers only, of others the signs differ")
        return w.op(kind, x[0], kernel_shape=kernel, strides=strides, **options)

    return write


def _adaptive(kind: str) -> Layer:
    def write(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
        sizes, out = shapes[0][1:], layer.output_shape(*shapes)[1:]
        if any(size % to for size, to in zip(sizes, out, strict=True)):
            raise UnsupportedError("windows of different sizes: those of the input must be multiples of the output's")
        kernel = [size // to for size, to in zip(sizes, out, strict=True)]
        return w.op(kind, x[0], kernel_shape=kernel, strides=kernel)

    return write


def _prelu(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    slope = w.part("weight")
    if len(shapes[0]) > 1 and math.prod(layer.parts(*shapes)["weight"].shape) > 1:
        slope = w.op("Reshape", slope, w.whole(-1, *[1] * (len(shapes[0]) - 1)))
    return w.op("PRelu", x[0], slope)


def _channel_scale(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    y, column = x[0], w.whole(-1, *[1] * (len(shapes[0]) - 1))
    for part, kind in (("weight", "Mul"), ("bias", "Add")):
        if part in layer.parts(*shapes):
            y = w.op(kind, y, w.op("Reshape", w.part(part), column))
    return y


def _concat(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    return w.op("Concat", *x, axis=layer.dim)


def _pad(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    return _bordered(w, x[0], layer._sides(shapes[0]), len(shapes[0]) - 1, layer.mode, layer.value)


def _bordered(w: Writer, x: str, sides: Sequence[int], axes: int, mode: str, value: float = 0.0) -> str:
    """`sides`: top, bottom, left, right, the first two of which a sequence has not."""
    top, bottom, left, right = (int(n) for n in sides)
    around = [0, 0, left, 0, 0, right] if axes == 1 else [0, 0, top, left, 0, 0, bottom, right]
    name = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    return w.op("Pad", x, w.whole(*around), w.constant(value), mode=name)


def _upsample(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    out = layer.output_shape(*shapes)[1:]
    linear = "linear" in layer.mode
    exact = [(n, to) for n, to in zip(shapes[0][1:], out, strict=True)]
    scales = None
    if layer.scale_factor is not None:
        by = layer.scale_factor if isinstance(layer.scale_factor, tuple) else (layer.scale_factor,) * len(exact)
        scales = w.constant([1.0, 1.0, *by])
    names = (
        ("align_corners" if layer.align_corners else "half_pixel")
        if linear or layer.mode == "nearest-exact"
        else "asymmetric"
    )
    options = {"mode": "linear" if linear else "nearest", "coordinate_transformation_mode": names}
    if not linear:
        options["nearest_mode"] = "floor" if layer.mode == "nearest" else "round_prefer_ceil"
    if scales is not None:
        return w.op("Resize", x[0], "", scales, **options)
    return w.op("Resize", x[0], "", "", w.whole(*out), axes=list(range(2, 2 + len(out))), **options)


def _reshape(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    return w.op("Reshape", x[0], w.whole(-1, *layer.output_shape(*shapes)))


def _view(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    """Any rearrangement, by the numbers' places."""
    index = layer.arrange(np.arange(math.prod(shapes[0])).reshape(1, *shapes[0]))[0]
    flat = w.op("Flatten", x[0], axis=1)
    taken = w.op("Gather", flat, w.constant(index.reshape(-1), np.int64), axis=1)
    return w.op("Reshape", taken, w.whole(-1, *index.shape))


def _slice(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    size = shapes[0][layer.dim - 1 if layer.dim > 0 else layer.dim]
    start, stop, step = slice(layer.start, layer.stop, layer.step).indices(size)
    stop = -(2**31) if stop < 0 else stop
    return w.op("Slice", x[0], w.whole(start), w.whole(stop), w.whole(layer.dim), w.whole(step))


def _permute(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    return w.op("Transpose", x[0], perm=list(layer.dims))


def _reduction(kind: str) -> Layer:
    def write(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
        y = w.op(kind, x[0], w.whole(*layer._over(len(shapes[0]) + 1)), keepdims=int(layer.keepdim))
        return _reshape(w, layer, shapes, [y]) if not layer.keepdim else y

    return write


def _constant(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    shape = layer.output_shape(*shapes)
    images = w.op("Slice", w.op("Shape", x[0]), w.whole(0), w.whole(1))
    return w.op("Expand", w.part("value"), w.op("Concat", images, w.whole(*shape), axis=0))


def _dropped(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    return w.op("Identity", x[0])


def _softmax(kind: str) -> Layer:
    return lambda w, layer, shapes, x: w.op(kind, x[0], axis=1)


def _tanhshrink(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    return w.op("Sub", x[0], w.op("Tanh", x[0]))


def _log_sigmoid(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    return w.op("Neg", w.op("Softplus", w.op("Neg", x[0])))


def _lrn(w: Writer, layer: Any, shapes: list[Shape], x: list[str]) -> str:
    if layer.size % 2 == 0:
        raise UnsupportedError(f"size={layer.size}: odd sizes only")
    return w.op("LRN", x[0], size=layer.size, alpha=float(layer.alpha), beta=float(layer.beta), bias=float(layer.k))


LAYERS: dict[str, Layer] = {
    "ReLU": _plain("Relu"),
    "ReLU6": _clip(0.0, 6.0),
    "LeakyReLU": _plain("LeakyRelu", alpha="negative_slope"),
    "ELU": _plain("Elu", alpha="alpha"),
    "SELU": _plain("Selu"),
    "CELU": _plain("Celu", alpha="alpha"),
    "GELU": lambda w, layer, shapes, x: w.op("Gelu", x[0], approximate=layer.approximate),
    "SiLU": lambda w, layer, shapes, x: w.op("Mul", x[0], w.op("Sigmoid", x[0])),
    "Mish": _plain("Mish"),
    "Hardswish": _plain("HardSwish"),
    "Hardsigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "Hardtanh": _clip("min_val", "max_val"),
    "Tanh": _plain("Tanh"),
    "ScaledTanh": _scaled_tanh,
    "Tanhshrink": _tanhshrink,
    "Sigmoid": _plain("Sigmoid"),
    "LogSigmoid": _log_sigmoid,
    "Softplus": _softplus,
    "Softsign": _plain("Softsign"),
    "Threshold": _threshold,
    "Hardshrink": _plain("Shrink", lambd="lambd", bias=0.0),
    "Softshrink": _plain("Shrink", lambd="lambd", bias="lambd"),
    "Identity": _plain("Identity"),
    "Affine": lambda w, layer, shapes, x: w.op("Identity", _affine(w, x[0], layer.scale, layer.shift)),
    "Abs": _plain("Abs"),
    "PReLU": _prelu,
    "ChannelScale": _channel_scale,
    "Softmax": _softmax("Softmax"),
    "LogSoftmax": _softmax("LogSoftmax"),
    "Add": _chained("Add"),
    "Subtract": _chained("Sub"),
    "Multiply": _chained("Mul"),
    "Divide": _chained("Div"),
    "Maximum": _chained("Max"),
    "Minimum": _chained("Min"),
    "Conv1d": _conv,
    "Conv2d": _conv,
    "ConvTranspose1d": _conv_transpose,
    "ConvTranspose2d": _conv_transpose,
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "InstanceNorm1d": _instance_norm,
    "InstanceNorm2d": _instance_norm,
    "GroupNorm": _group_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "LocalResponseNorm": _lrn,
    "MaxPool1d": _pool("MaxPool"),
    "MaxPool2d": _pool("MaxPool"),
    "AvgPool1d": _pool("AveragePool"),
    "AvgPool2d": _pool("AveragePool"),
    "LPPool1d": _pool("LpPool"),
    "LPPool2d": _pool("LpPool"),
    "AdaptiveAvgPool1d": _adaptive("AveragePool"),
    "AdaptiveAvgPool2d": _adaptive("AveragePool"),
    "AdaptiveMaxPool1d": _adaptive("MaxPool"),
    "AdaptiveMaxPool2d": _adaptive("MaxPool"),
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Permute": _permute,
    "Slice": _slice,
    "Expand": lambda w, layer, shapes, x: w.op("Expand", x[0], w.whole(1, *layer.output_shape(*shapes))),
    **dict.fromkeys(("Flip", "PixelShuffle", "PixelUnshuffle", "ChannelShuffle", "Rearrange"), _view),
    "Concat": _concat,
    "Pad": _pad,
    "Upsample": _upsample,
    "Sum": _reduction("ReduceSum"),
    "Mean": _reduction("ReduceMean"),
    "Max": _reduction("ReduceMax"),
    "Min": _reduction("ReduceMin"),
    "Parameter": _constant,
    "Constant": _constant,
    **dict.fromkeys(("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "GaussianNoise"), _dropped),
    "DropConnectLinear": _linear,
}
