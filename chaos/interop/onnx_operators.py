"""Operators of ONNX that compute: functions of single numbers, arithmetic, windows, normalisation. For
chaos.interop.from_onnx."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import layers
from ..errors import UnsupportedError
from .graph import Array, Value, sides
from .onnx_context import OPERATORS, Context, Operator, number, operator

LOWEST = -3.4028234e38  # below every number that matters


def _tensor(c: Context, value: Any, what: str = "the input") -> Value:
    if value is None:
        raise UnsupportedError(f"{what} is missing")
    return value if isinstance(value, Value) else c.graph.constant(np.asarray(value, np.float32))


# ---- single numbers ----

_PLAIN: dict[str, Callable[[Context], Any]] = {
    "Relu": lambda c: layers.ReLU(),
    "LeakyRelu": lambda c: layers.LeakyReLU(c.get("alpha", 0.01)),
    "Elu": lambda c: layers.ELU(c.get("alpha", 1.0)),
    "Celu": lambda c: layers.CELU(c.get("alpha", 1.0)),
    "Gelu": lambda c: layers.GELU(c.get("approximate", "none")),
    "Mish": lambda c: layers.Mish(),
    "HardSwish": lambda c: layers.Hardswish(),
    "Tanh": lambda c: layers.Tanh(),
    "Sigmoid": lambda c: layers.Sigmoid(),
    "Softplus": lambda c: layers.Softplus(),
    "Softsign": lambda c: layers.Softsign(),
    "ThresholdedRelu": lambda c: layers.Threshold(c.get("alpha", 1.0), 0.0),
    "Abs": lambda c: layers.Abs(),
    "Neg": lambda c: layers.Affine(-1.0),
}


def _plain(op: str) -> Operator:
    return lambda c, x: c.graph.each(_PLAIN[op](c), x)


OPERATORS |= {op: _plain(op) for op in _PLAIN}


@operator("Identity")
def _identity(c: Context, x: Value) -> Value:
    return x


@operator("Cast", "CastLike")
def _cast(c: Context, x: Value, like: Any = None) -> Value:
    if like is None and c.get("to") not in (1, 10, 11, 16):
        raise UnsupportedError("numbers of the graph stay floats")
    return x


@operator("Dropout")
def _dropout(c: Context, x: Value, ratio: Any = None, training: Any = None) -> list[Value]:
    p = number(ratio, 0.5) if c.version >= 12 else c.get("ratio", 0.5)
    return [c.graph.each(layers.Dropout(float(p)), x) if 0 < p < 1 else x]


@operator("HardSigmoid")
def _hard_sigmoid(c: Context, x: Value) -> Value:
    return c.graph.each(layers.Hardtanh(0.0, 1.0), c.graph.affine(x, c.get("alpha", 0.2), c.get("beta", 0.5)))


@operator("Selu")
def _selu(c: Context, x: Value) -> Value:
    alpha, gamma = c.get("alpha", layers.SELU._ALPHA), c.get("gamma", layers.SELU._SCALE)
    if np.float32(alpha) == np.float32(layers.SELU._ALPHA) and np.float32(gamma) == np.float32(layers.SELU._SCALE):
        return c.graph.each(layers.SELU(), x)
    return c.graph.affine(c.graph.each(layers.ELU(alpha), x), gamma)


@operator("Swish")
def _swish(c: Context, x: Value) -> Value:
    alpha = c.get("alpha", 1.0)
    if alpha == 1:
        return c.graph.each(layers.SiLU(), x)
    return c.graph.pair(layers.Multiply, x, c.graph.each(layers.Sigmoid(), c.graph.affine(x, alpha)))


@operator("Shrink")
def _shrink(c: Context, x: Value) -> Value:
    bias, lambd = c.get("bias", 0.0), c.get("lambd", 0.5)
    if bias not in (0.0, lambd):
        raise UnsupportedError(f"bias {bias} that is neither 0 nor lambd, {lambd}")
    return c.graph.each(layers.Hardshrink(lambd) if bias == 0 else layers.Softshrink(lambd), x)


@operator("Clip")
def _clip(c: Context, x: Value, low: Any = None, high: Any = None) -> Value:
    if c.version < 11:
        low, high = c.get("min"), c.get("max")
    least, most = (number(v, d) for v, d in ((low, LOWEST), (high, -LOWEST)))
    least, most = max(least, LOWEST), min(most, -LOWEST)
    if least >= most:  # everything becomes the upper end
        return c.graph.affine(x, 0.0, most)
    return c.graph.each(layers.Hardtanh(least, most), x)


@operator("PRelu")
def _prelu(c: Context, x: Value, slope: Any) -> Value:
    array = c.beside(c.array(slope, "the slope"), len(x.shape))
    channels = array.reshape(-1)
    by_channel = c.version < 7 and len(channels) == x.shape[0]
    if array.size == 1 or by_channel or (array.ndim == len(x.shape) and array.shape[:1] == x.shape[:1] == (array.size,)):
        layer = layers.PReLU(1 if array.size == 1 else len(channels), name=c.part_name(1))
        return c.graph.apply(layer, x, state={"weight": channels})
    below = c.graph.each(layers.Affine(-1.0), c.graph.each(layers.ReLU(), c.graph.affine(x, -1.0)))
    scaled = c.graph.pair(layers.Multiply, below, c.graph.constant(array, True, c.part_name(1)))
    return c.graph.pair(layers.Add, c.graph.each(layers.ReLU(), x), scaled)


def _normalised(kind: Any) -> Operator:
    def read(c: Context, x: Value) -> Value:
        if c.version >= 13:
            return c.graph.along_channels(kind(), x, c.axis(c.get("axis", -1), len(x.shape)))
        axis = c.axis(c.get("axis", 1), len(x.shape)) if x.shape else 0
        if axis and math.prod(x.shape[:axis]) > 1:  # over all dimensions from the axis on
            lined = x.view(lambda places: places.reshape(math.prod(x.shape[:axis]), -1))
            return c.graph.along_channels(kind(), lined, 1).view(lambda places: places.reshape(x.shape))
        flat = x.view(lambda places: places.reshape(-1))
        return c.graph.apply(kind(), flat).view(lambda places: places.reshape(x.shape))

    return read


OPERATORS |= {"Softmax": _normalised(layers.Softmax), "LogSoftmax": _normalised(layers.LogSoftmax)}


# ---- arithmetic ----


def _two(kind: Any) -> Operator:
    def read(c: Context, *values: Any) -> Value:
        result = values[0]
        for other in values[1:]:
            result = _combined(c, kind, result, other)
        return _tensor(c, result)

    return read


def _combined(c: Context, kind: Any, a: Any, b: Any) -> Any:
    dims = max(len(x.shape) for x in (a, b) if isinstance(x, Value)) if isinstance(a, Value) or isinstance(b, Value) else 0
    if isinstance(a, Value) and isinstance(b, Value):
        if c.first and len(a.shape) != len(b.shape):
            raise UnsupportedError("tensors with other numbers of dimensions beside each other: their images would not be")
        return c.graph.pair(kind, a, b)
    if not dims:
        return {"Add": np.add, "Subtract": np.subtract, "Multiply": np.multiply, "Divide": np.divide,
                "Maximum": np.maximum, "Minimum": np.minimum}[kind.__name__](a, b)  # fmt: skip
    value, other, reverse = (a, b, False) if isinstance(a, Value) else (b, a, True)
    if c.version < 7 and c.get("axis") is not None:  # where the constant begins, not where it ends
        behind = dims + c.first - c.get("axis") - np.ndim(other)
        other = np.reshape(other, (*np.shape(other), *[1] * behind))
    array = c.beside(np.asarray(other, np.float32), dims)
    if array.size == 1 and array.ndim <= dims:
        number = float(array.reshape(-1)[0])
        scaled = {
            "Add": (1.0, number),
            "Subtract": (-1.0, number) if reverse else (1.0, -number),
            "Multiply": (number, 0.0),
            "Divide": None if reverse or number == 0 else (1 / number, 0.0),
        }.get(kind.__name__)
        if scaled:
            return c.graph.affine(value, *scaled)
    constant = c.graph.constant(array, False, c.name)
    return c.graph.pair(kind, *((constant, value) if reverse else (value, constant)))


OPERATORS |= {
    "Add": _two(layers.Add),
    "Sum": _two(layers.Add),
    "Sub": _two(layers.Subtract),
    "Mul": _two(layers.Multiply),
    "Div": _two(layers.Divide),
    "Max": _two(layers.Maximum),
    "Min": _two(layers.Minimum),
}


@operator("Mean")
def _mean(c: Context, *values: Any) -> Value:
    return c.graph.affine(OPERATORS["Sum"](c, *values), 1 / len(values))


@operator("Pow")
def _pow(c: Context, x: Value, exponent: Any) -> Value:
    power = number(c.array(exponent, "the exponent"), 1)
    if power not in (1, 2, 3):
        raise UnsupportedError(f"a power of {power}: 1, 2 and 3 are known")
    result = x
    for _ in range(int(power) - 1):
        result = c.graph.pair(layers.Multiply, result, x)
    return result


@operator("Gemm")
def _gemm(c: Context, a: Any, b: Any, bias: Any = None) -> Value:
    if c.get("transA", 0):
        if c.first or not isinstance(a, Value):
            raise UnsupportedError("transA: images as columns")
        a = a.view(lambda places: places.T)
    weight = c.array(b, "B") * np.float32(c.get("alpha", 1.0))
    weight = weight if c.get("transB", 0) else weight.T
    x = _tensor(c, a)
    name = c.part_name(1)
    if bias is None:
        return c.graph.linear(x, weight, None, name)
    added = np.asarray(c.array(bias, "C"), np.float32) * np.float32(c.get("beta", 1.0))
    added = c.beside(added, len(x.shape))
    if added.size in (1, len(weight)) and (added.ndim < 2 or added.shape[-1] in (1, len(weight))) and added.ndim <= 1:
        return c.graph.linear(x, weight, np.broadcast_to(added.reshape(-1), (len(weight),)), name)
    return c.graph.pair(layers.Add, c.graph.linear(x, weight, None, name), c.graph.constant(added, True, f"{name}.bias"))


@operator("MatMul")
def _matmul(c: Context, a: Any, b: Any) -> Value:
    if isinstance(a, Value) and not isinstance(b, Value) and np.asarray(b).ndim == 2:
        return c.graph.linear(a, np.asarray(b, np.float32).T, None, c.part_name(1))
    raise UnsupportedError("only a product with a constant matrix on the right")


# ---- windows ----


def _windows(c: Context, x: Value, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """(strides, dilations, pads as ONNX has them: all before, then all behind)."""
    axes = len(kernel)
    if len(x.shape) != axes + 1:
        raise UnsupportedError(f"a window of {axes} dimensions over a tensor of {len(x.shape) + c.first}")
    if axes not in (1, 2):
        raise UnsupportedError(f"windows of {axes} dimensions: one and two work")
    strides, dilations = c.get("strides", [1] * axes), c.get("dilations", [1] * axes)
    auto = c.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = sides(x.shape[1:], kernel, strides, dilations, auto == "SAME_LOWER")
    else:
        pads = list(c.get("pads", [0] * 2 * axes)) if auto != "VALID" else [0] * 2 * axes
    return list(strides), list(dilations), pads


def _padded(c: Context, x: Value, pads: Sequence[int], value: float = 0.0) -> Value:
    """`pads` as ONNX has them."""
    axes = len(pads) // 2
    if not any(pads):
        return x
    around = [n for axis in reversed(range(axes)) for n in (pads[axis], pads[axes + axis])]
    return c.graph.apply(layers.Pad(tuple(int(n) for n in around), "constant", value), x)


def _one_or(values: Sequence[int]) -> Any:
    return int(values[0]) if len(values) == 1 else tuple(int(n) for n in values)


@operator("Conv")
def _conv(c: Context, x: Value, w: Any, bias: Any = None) -> Value:
    weight = c.array(w, "W")
    axes = weight.ndim - 2
    strides, dilations, pads = _windows(c, x, weight.shape[2:])
    around = [pads[0], pads[2], pads[1], pads[3]] if axes == 2 else pads  # (top, bottom, left, right)
    if axes == 1 and pads[0] != pads[1]:
        x, around = _padded(c, x, pads), [0]
    state = {"weight": weight} | ({} if bias is None else {"bias": c.array(bias, "B")})
    layer = (layers.Conv1d if axes == 1 else layers.Conv2d)(
        weight.shape[0],
        kernel_size=_one_or(weight.shape[2:]),
        stride=_one_or(strides),
        padding=_one_or(around if axes == 2 else around[:1]),
        dilation=_one_or(dilations),
        groups=c.get("group", 1),
        bias=bias is not None,
        name=c.part_name(1),
    )
    return c.graph.apply(layer, x, state=state)


@operator("ConvTranspose")
def _conv_transpose(c: Context, x: Value, w: Any, bias: Any = None) -> Value:
    weight = c.array(w, "W")
    axes, group = weight.ndim - 2, c.get("group", 1)
    kernel = weight.shape[2:]
    if axes not in (1, 2) or len(x.shape) != axes + 1:
        raise UnsupportedError(f"windows of {axes} dimensions over a tensor of {len(x.shape) + c.first}")
    strides, dilations = c.get("strides", [1] * axes), c.get("dilations", [1] * axes)
    more, wanted = c.get("output_padding", [0] * axes), c.get("output_shape")
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[1:], strides, dilations, kernel, strict=True)]
    auto = c.get("auto_pad", "NOTSET")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(x.shape[1:], strides, strict=True)]
    if wanted is None:
        pads = list(c.get("pads", [0] * 2 * axes))
    else:
        cut = [f + o - n for f, o, n in zip(full, more, wanted, strict=True)]
        less, rest = [n // 2 for n in cut], [n - n // 2 for n in cut]
        pads = [*less, *rest] if auto == "SAME_UPPER" else [*rest, *less]
    state = {"weight": weight} | ({} if bias is None else {"bias": c.array(bias, "B")})
    layer = (layers.ConvTranspose1d if axes == 1 else layers.ConvTranspose2d)(
        weight.shape[1] * group,
        kernel_size=_one_or(kernel),
        stride=_one_or(strides),
        dilation=_one_or(dilations),
        groups=group,
        bias=bias is not None,
        name=c.part_name(1),
    )
    # the whole output, of which the borders are cut away; what output_padding adds is bias alone
    y = c.graph.apply(layer, x, state=state)
    if any(pads) or any(more):
        keep = [n + o - before - behind for n, o, before, behind in zip(full, more, pads[:axes], pads[axes:], strict=True)]
        if any(b + k > n for b, k, n in zip(pads[:axes], keep, full, strict=True)):
            return _cut_and_grown(c, layer, x, state, pads, more)
        part = tuple(slice(before, before + n) for before, n in zip(pads[:axes], keep, strict=True))
        y = y.view(lambda places: places[(slice(None), *part)])
    return y


def _cut_and_grown(c: Context, layer: Any, x: Value, state: Any, pads: Sequence[int], more: Sequence[int]) -> Value:
    axes = len(pads) // 2
    if list(pads[:axes]) != list(pads[axes:]):
        raise UnsupportedError("output_padding with borders of unequal widths")
    options = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)} | {
        "padding": _one_or(pads[:axes]),
        "output_padding": _one_or(more),
    }
    return c.graph.apply(type(layer)(**options), x, state=state)


@operator("MaxPool")
def _max_pool(c: Context, x: Value) -> list[Value]:
    kernel = c.get("kernel_shape")
    axes = len(kernel)
    strides, dilations, pads = _windows(c, x, kernel)
    equal = pads[:axes] == pads[axes:] and all(2 * p <= k for p, k in zip(pads, kernel, strict=False))
    if not equal:
        if c.get("ceil_mode", 0):
            raise UnsupportedError("ceil_mode with borders of unequal widths")
        x, pads = _padded(c, x, pads, LOWEST), [0] * 2 * axes
    layer = (layers.MaxPool1d if axes == 1 else layers.MaxPool2d)(
        _one_or(kernel), _one_or(strides), _one_or(pads[:axes]), _one_or(dilations), ceil_mode=bool(c.get("ceil_mode", 0))
    )
    return [c.graph.apply(layer, x)]


@operator("AveragePool")
def _average_pool(c: Context, x: Value) -> Value:
    kernel = c.get("kernel_shape")
    axes = len(kernel)
    strides, dilations, pads = _windows(c, x, kernel)
    if any(d != 1 for d in dilations):
        raise UnsupportedError("windows with gaps (dilations)")
    kind = layers.AvgPool1d if axes == 1 else layers.AvgPool2d
    ceil, count = bool(c.get("ceil_mode", 0)), bool(c.get("count_include_pad", 0))
    if pads[:axes] == pads[axes:] and all(2 * p <= k for p, k in zip(pads, kernel, strict=False)):
        layer = kind(_one_or(kernel), _one_or(strides), _one_or(pads[:axes]), ceil_mode=ceil, count_include_pad=count)
        return c.graph.apply(layer, x)
    if ceil:
        raise UnsupportedError("ceil_mode with borders of unequal widths")
    y = c.graph.apply(kind(_one_or(kernel), _one_or(strides)), _padded(c, x, pads))
    if count:
        return y
    live = [
        [sum(0 <= i * s - before + a < n for a in range(k)) for i in range(out)]
        for n, k, s, before, out in zip(x.shape[1:], kernel, strides, pads, y.shape[1:], strict=False)
    ]
    share = math.prod(kernel) / np.prod(np.meshgrid(*live, indexing="ij"), 0)
    return c.graph.pair(layers.Multiply, y, c.graph.constant(share[None].astype(np.float32), False, c.name))


@operator("LpPool")
def _lp_pool(c: Context, x: Value) -> Value:
    kernel = c.get("kernel_shape")
    strides, dilations, pads = _windows(c, x, kernel)
    if any(d != 1 for d in dilations):
        raise UnsupportedError("windows with gaps (dilations)")
    kind = layers.LPPool1d if len(kernel) == 1 else layers.LPPool2d
    if c.get("p", 2) % 2:  # of absolute values here, of the numbers in PyTorch
        x = c.graph.each(layers.Abs(), x)
    y = _padded(c, x, pads)
    if c.get("ceil_mode", 0) and any((n - k) % s for n, k, s in zip(y.shape[1:], kernel, strides, strict=True)):
        raise UnsupportedError("ceil_mode with a last window that is cut off, which PyTorch scales")
    return c.graph.apply(kind(c.get("p", 2), _one_or(kernel), _one_or(strides)), y)


def _over_all(kind: Any) -> Operator:
    return lambda c, x: c.graph.reduce(kind, x, range(1, len(x.shape)), True)


OPERATORS["GlobalAveragePool"], OPERATORS["GlobalMaxPool"] = _over_all(layers.Mean), _over_all(layers.Max)


@operator("MaxRoiPool")
def _max_roi_pool(c: Context, x: Value, boxes: Any) -> Value:
    raise UnsupportedError("boxes that say which image they are of: chaos.RoIPool takes those of each image")


# ---- normalisation ----


def _per_channel(c: Context, scale: Any, bias: Any) -> dict[str, Array]:
    return {"weight": c.array(scale, "the scale"), "bias": c.array(bias, "the bias")}


@operator("BatchNormalization")
def _batch_norm(c: Context, x: Value, scale: Any, bias: Any, mean: Any, var: Any) -> list[Value]:
    if c.get("training_mode", 0):
        raise UnsupportedError("training_mode: the network is read as it is used, and trained by chaos")
    state = _per_channel(c, scale, bias)
    state |= {"running_mean": c.array(mean, "the mean"), "running_var": c.array(var, "the variance")}
    kind = layers.BatchNorm2d if len(x.shape) == 3 else layers.BatchNorm1d
    layer = kind(eps=c.get("epsilon", 1e-5), momentum=1 - c.get("momentum", 0.9), name=c.part_name(1))
    return [c.graph.apply(layer, x, state=state)]


@operator("InstanceNormalization")
def _instance_norm(c: Context, x: Value, scale: Any, bias: Any) -> Value:
    kind = layers.InstanceNorm2d if len(x.shape) == 3 else layers.InstanceNorm1d
    layer = kind(eps=c.get("epsilon", 1e-5), affine=True, name=c.part_name(1))
    return c.graph.apply(layer, x, state=_per_channel(c, scale, bias))


@operator("GroupNormalization")
def _group_norm(c: Context, x: Value, scale: Any, bias: Any) -> Value:
    state = _per_channel(c, scale, bias)
    if c.version < 21:
        raise UnsupportedError("a scale for each group: operator set 21 has one for each channel")
    layer = layers.GroupNorm(c.get("num_groups"), eps=c.get("epsilon", 1e-5), name=c.part_name(1))
    return c.graph.apply(layer, x, state=state)


def _over_the_last(c: Context, x: Value, kind: Any, parts: dict[str, Array]) -> Value:
    """A normalisation over the dimensions from an axis on, as one of channels at each pixel."""
    axis = c.axis(c.get("axis", -1), len(x.shape))
    rows = math.prod(x.shape[:axis])
    lined = x.view(lambda places: places.reshape(rows, -1).T)
    layer = kind(eps=c.get("epsilon", 1e-5), channels_only=True, name=c.part_name(1))
    state = {name: np.broadcast_to(part, x.shape[axis:]).reshape(-1) for name, part in parts.items()}
    return c.graph.apply(layer, lined, state=state).view(lambda places: places.T.reshape(x.shape))


@operator("LayerNormalization")
def _layer_norm(c: Context, x: Value, scale: Any, bias: Any = None) -> list[Value]:
    weight = c.array(scale, "the scale")
    added = np.zeros_like(weight) if bias is None else c.array(bias, "the bias")
    return [_over_the_last(c, x, layers.LayerNorm, {"weight": weight, "bias": added})]


@operator("RMSNormalization")
def _rms_norm(c: Context, x: Value, scale: Any) -> Value:
    return _over_the_last(c, x, layers.RMSNorm, {"weight": c.array(scale, "the scale")})


@operator("LRN")
def _lrn(c: Context, x: Value) -> Value:
    size = c.get("size")
    if size % 2 == 0:
        raise UnsupportedError(f"an even number of channels, {size}: their middle is another in PyTorch's definition")
    return c.graph.apply(layers.LocalResponseNorm(size, c.get("alpha", 1e-4), c.get("beta", 0.75), c.get("bias", 1.0)), x)
