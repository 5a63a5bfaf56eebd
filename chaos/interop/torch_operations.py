"""What functions and arithmetic of PyTorch become, and what changes shapes. For chaos.interop.from_torch; dimensions are
counted as PyTorch does, the images as 0, up to `Reader.axis`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import layers
from ..errors import UnsupportedError
from ..layers import Layer
from .graph import Missing, Value, without_images
from .torch_reader import OPERATIONS, Operation, Reader, Tensor, operation

# ---- single numbers ----


def _plain(make: Callable[..., Layer]) -> Operation:
    def read(r: Reader, x: Value, *args: Any, inplace: bool = False, **options: Any) -> Value:
        return r.graph.each(make(*args, **options), x)

    return read


_NUMBERS: dict[tuple[str, ...], Callable[..., Layer]] = {
    ("relu",): lambda *_: layers.ReLU(),
    ("relu6",): lambda *_: layers.ReLU6(),
    ("leaky_relu",): lambda negative_slope=0.01, *_: layers.LeakyReLU(negative_slope),
    ("elu",): lambda alpha=1.0, *_: layers.ELU(alpha),
    ("selu",): lambda *_: layers.SELU(),
    ("celu",): lambda alpha=1.0, *_: layers.CELU(alpha),
    ("gelu",): lambda approximate="none": layers.GELU(approximate),
    ("silu",): lambda *_: layers.SiLU(),
    ("mish",): lambda *_: layers.Mish(),
    ("hardswish",): lambda *_: layers.Hardswish(),
    ("hardsigmoid",): lambda *_: layers.Hardsigmoid(),
    ("hardtanh",): lambda min_val=-1.0, max_val=1.0, *_: layers.Hardtanh(min_val, max_val),
    ("tanh",): lambda: layers.Tanh(),
    ("sigmoid",): lambda: layers.Sigmoid(),
    ("softplus",): lambda beta=1.0, threshold=20.0: layers.Softplus(beta, threshold),
    ("softsign",): lambda: layers.Softsign(),
    ("tanhshrink",): lambda: layers.Tanhshrink(),
    ("hardshrink",): lambda lambd=0.5: layers.Hardshrink(lambd),
    ("softshrink",): lambda lambd=0.5: layers.Softshrink(lambd),
    ("logsigmoid", "log_sigmoid"): lambda *_: layers.LogSigmoid(),
    ("threshold",): lambda threshold, value, *_: layers.Threshold(threshold, value),
    ("abs", "absolute"): lambda: layers.Abs(),
    ("neg", "negative"): lambda: layers.Affine(-1.0),
}
for _names, _make in _NUMBERS.items():
    operation(*_names)(_plain(_make))


@operation("contiguous", "clone", "identity", "alias", "lift_fresh_copy")
def _same(r: Reader, x: Any, *_: Any, **__: Any) -> Any:
    return x


@operation("to", "float", "type_as", "_to_copy")
def _to(r: Reader, x: Value, *args: Any, **kwargs: Any) -> Value:
    return x


@operation("clamp", "clip")
def _clamp(r: Reader, x: Value, min: Any = None, max: Any = None) -> Value:
    low, high = -3.4e38 if min is None else float(min), 3.4e38 if max is None else float(max)
    return r.graph.each(layers.Hardtanh(low, high), x)


@operation("dropout", "feature_dropout", "alpha_dropout", "dropout2d", "dropout1d")
def _dropout(r: Reader, x: Value, p: float = 0.5, training: bool = True, inplace: bool = False, kind: Any = None) -> Value:
    if not training or p == 0:
        return x
    kind = kind or layers.Dropout
    return r.graph.apply(kind(p), x)


def _dropped(kind: Any) -> Operation:
    return lambda r, x, p=0.5, training=True, inplace=False: _dropout(r, x, p, training, inplace, kind)


OPERATIONS |= {
    "dropout1d": _dropped(layers.Dropout1d),
    "dropout2d": _dropped(layers.Dropout2d),
    "feature_dropout": _dropped(layers.Dropout2d),
    "alpha_dropout": _dropped(layers.AlphaDropout),
}


def _normalised(kind: Any) -> Operation:
    def read(r: Reader, x: Value, dim: Any = None, *_: Any, **__: Any) -> Value:
        if dim is None:
            dim = 0 if len(x.shape) in (0, 2) else 1
        return r.graph.along_channels(kind(), x, r.axis(dim, len(x.shape)))

    return read


OPERATIONS |= {"softmax": _normalised(layers.Softmax), "log_softmax": _normalised(layers.LogSoftmax)}
OPERATIONS["_softmax"], OPERATIONS["_log_softmax"] = OPERATIONS["softmax"], OPERATIONS["log_softmax"]


# ---- arithmetic ----


def _two(kind: Any, scaled: Callable[[float, bool], tuple[float, float] | None]) -> Operation:
    def read(r: Reader, a: Any, b: Any, *, alpha: float = 1, out: Any = None, rounding_mode: Any = None) -> Value:
        if rounding_mode is not None:
            raise UnsupportedError(f"rounding_mode={rounding_mode!r}")
        if alpha != 1:
            b = b * alpha if isinstance(b, (int, float)) else r.graph.affine(r.value(b), alpha)
        for number, other, reverse in ((b, a, False), (a, b, True)):
            if isinstance(number, (int, float)) and isinstance(other, Value):
                how = scaled(float(number), reverse)
                if how:
                    return r.graph.affine(other, *how)
        a, b = (np.array(x, np.float32) if isinstance(x, (int, float)) else r.value(x) for x in (a, b))
        for tensor, other in ((a, b), (b, a)):
            if isinstance(tensor, Value) and isinstance(other, Value) and tensor.node.layer is not None:
                _check_images(r, tensor, other)
        a, b = (_without_images(r, x, max(len(a.shape), len(b.shape))) for x in (a, b))
        return r.graph.pair(kind, a, b)

    return read


def is_constant(x: Any) -> bool:
    return isinstance(x, Value) and isinstance(x.node.layer, layers.Parameter)


def _check_images(r: Reader, tensor: Value, other: Value) -> None:
    if not is_constant(tensor) and not is_constant(other) and len(tensor.shape) != len(other.shape):
        raise UnsupportedError("tensors with other numbers of dimensions beside each other: their images would not be")


def _without_images(r: Reader, x: Any, dims: int) -> Any:
    """A constant whose first dimension, of size 1, stands for the images."""
    if is_constant(x) and x.shape[:1] == (1,) and len(x.shape) == dims and dims > 1:
        return x.view(lambda places: places[0]) if len(x.shape) == 4 else x
    return x


for _name, _kind, _scaled in (
    ("add", layers.Add, lambda n, reverse: (1.0, n)),
    ("sub", layers.Subtract, lambda n, reverse: (-1.0, n) if reverse else (1.0, -n)),
    ("mul", layers.Multiply, lambda n, reverse: (n, 0.0)),
    ("div", layers.Divide, lambda n, reverse: None if reverse or n == 0 else (1 / n, 0.0)),
    ("maximum", layers.Maximum, lambda n, reverse: None),
    ("minimum", layers.Minimum, lambda n, reverse: None),
):
    operation(_name, f"i{_name}")(_two(_kind, _scaled))
for _name, _same_as in {
    "truediv": "div", "itruediv": "div", "true_divide": "div", "subtract": "sub", "multiply": "mul", "divide": "div"
}.items():  # fmt: skip
    OPERATIONS[_name] = OPERATIONS[_same_as]


@operation("rsub")
def _rsub(r: Reader, a: Any, b: Any) -> Any:
    return OPERATIONS["sub"](r, b, a)


@operation("pow")
def _pow(r: Reader, x: Value, exponent: Any) -> Value:
    if exponent not in (1, 2, 3):
        raise UnsupportedError(f"a power of {exponent}: 1, 2 and 3 are known")
    result = x
    for _ in range(int(exponent) - 1):
        result = r.graph.pair(layers.Multiply, result, x)
    return result


@operation("square")
def _square(r: Reader, x: Value) -> Value:
    return r.graph.pair(layers.Multiply, x, x)


def _reduction(kind: Any) -> Operation:
    def read(r: Reader, x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        if dim is None or (isinstance(dim, (list, tuple)) and not dim):
            raise UnsupportedError("over all dimensions, the images too: name the others by dim=")
        return r.graph.reduce(kind, x, r.axes(dim, len(x.shape)), keepdim)

    return read


OPERATIONS |= {
    "mean": _reduction(layers.Mean),
    "sum": _reduction(layers.Sum),
    "amax": _reduction(layers.Max),
    "amin": _reduction(layers.Min),
}


def _with_places(kind: Any, pair: str) -> Operation:
    def read(r: Reader, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, (Value, Tensor)):
            return OPERATIONS[pair](r, x, dim)
        return (_reduction(kind)(r, x, dim, keepdim), Missing("the places of the largest or smallest"))

    return read


OPERATIONS["max"], OPERATIONS["min"] = _with_places(layers.Max, "maximum"), _with_places(layers.Min, "minimum")


# ---- shapes ----


@operation("size")
def _size(r: Reader, x: Value, dim: Any = None) -> Any:
    sizes = (r.images, *x.shape)
    return sizes if dim is None else sizes[dim]


@operation("sym_size")
def _sym_size(r: Reader, x: Value, dim: int) -> int:
    return (r.images, *x.shape)[dim]


@operation("dim", "ndimension")
def _dim(r: Reader, x: Value) -> int:
    return len(x.shape) + 1


@operation("getattr")
def _getattr(r: Reader, x: Any, name: str) -> Any:
    if isinstance(x, tuple) and name in ("values", "indices"):  # of the largest along a dimension
        return x[name == "indices"]
    if name == "shape":
        return (r.images, *x.shape)
    if name == "ndim":
        return len(x.shape) + 1
    raise UnsupportedError(f"the attribute {name!r} of a tensor")


@operation("flatten")
def _flatten(r: Reader, x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    first, last = r.axis(start_dim, len(x.shape)), r.axis(end_dim, len(x.shape))
    shape = (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
    return x.view(lambda places: places.reshape(shape))


@operation("whole_batch")
def _parameter(r: Reader, tensor: Any, like: Value, shape: tuple[int, ...]) -> Value:
    """A parameter as chaos.interop.to_torch writes it."""
    found: Value = r.value(tensor)
    return found.view(lambda places: places.reshape(shape))


@operation("as_strided")
def _as_strided(r: Reader, x: Value, shape: Any, sizes: Any, strides: Any, start: int) -> Value:
    """As chaos.interop.to_torch writes it: through the numbers of each image."""
    layer = layers.Rearrange(tuple(shape), tuple(sizes), tuple(strides), start)
    layer.output_shape(x.shape)
    return x.view(lambda places: layer.arrange(places[None])[0])


@operation("unflatten")
def _unflatten(r: Reader, x: Value, dim: int, sizes: Sequence[int]) -> Value:
    at = r.axis(dim, len(x.shape))
    return x.view(lambda places: places.reshape(*x.shape[:at], *sizes, *x.shape[at + 1 :]))


def _listed(args: tuple[Any, ...]) -> list[Any]:
    return list(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else list(args)


@operation("view", "reshape", "_unsafe_view")
def _view(r: Reader, x: Value, *shape: Any) -> Value:
    sizes = without_images(_listed(shape), math.prod(x.shape), r.images)
    return x.view(lambda places: places.reshape(sizes))


@operation("permute")
def _permute(r: Reader, x: Value, *dims: Any) -> Value:
    order = [d % (len(x.shape) + 1) for d in _listed(dims)]
    if order[0] != 0:
        raise UnsupportedError(f"the order {order} moves the images from the first dimension")
    return x.view(lambda places: places.transpose([d - 1 for d in order[1:]]))


@operation("transpose", "swapaxes", "swapdims")
def _transpose(r: Reader, x: Value, first: int, second: int) -> Value:
    a, b = r.axes((first, second), len(x.shape))
    return x.view(lambda places: places.swapaxes(a, b))


@operation("movedim", "moveaxis")
def _movedim(r: Reader, x: Value, source: Any, destination: Any) -> Value:
    a, b = r.axes(source, len(x.shape)), r.axes(destination, len(x.shape))
    return x.view(lambda places: np.moveaxis(places, a, b))


@operation("squeeze")
def _squeeze(r: Reader, x: Value, dim: Any = None) -> Value:
    over = range(len(x.shape)) if dim is None else r.axes(dim, len(x.shape))
    return x.view(lambda places: places.squeeze(tuple(a for a in over if x.shape[a] == 1)))


@operation("unsqueeze")
def _unsqueeze(r: Reader, x: Value, dim: int) -> Value:
    at = r.axis(dim, len(x.shape) + 1)
    return x.view(lambda places: np.expand_dims(places, at))


@operation("expand")
def _expand(r: Reader, x: Value, *sizes: Any) -> Value:
    wanted = [int(n) for n in _listed(sizes)]
    if len(wanted) != len(x.shape) + 1 or wanted[0] not in (-1, r.images):
        raise UnsupportedError(f"to {wanted}: the images stay the first dimension, and there is no new one")
    shape = [there if n == -1 else n for n, there in zip(wanted[1:], x.shape, strict=True)]
    return x.view(lambda places: np.broadcast_to(places, shape))


@operation("repeat", "tile")
def _repeat(r: Reader, x: Value, *times: Any) -> Value:
    wanted = _listed(times)
    if len(wanted) != len(x.shape) + 1 or wanted[0] != 1:
        raise UnsupportedError(f"{wanted} times: the images stay the first dimension, once each")
    return x.view(lambda places: np.tile(places, wanted[1:]))


@operation("flip")
def _flip(r: Reader, x: Value, *dims: Any) -> Value:
    return x.view(lambda places: np.flip(places, tuple(r.axes(_listed(dims), len(x.shape)))))


@operation("cat", "concat", "concatenate")
def _cat(r: Reader, tensors: Any, dim: int = 0) -> Value:
    values = [r.value(x) for x in tensors]
    dims = max(len(x.shape) for x in values if not is_constant(x))
    return r.graph.join(values, r.axis(dim, dims))


@operation("stack")
def _stack(r: Reader, tensors: Any, dim: int = 0) -> Value:
    return _cat(r, [_unsqueeze(r, x, dim) for x in tensors], dim)


def _pieces(x: Value, at: int, ends: Sequence[int]) -> list[Value]:
    return [
        x.view(lambda places, a=a, b=b: places.take(range(a, b), at))  # type: ignore[misc]
        for a, b in zip([0, *ends[:-1]], ends, strict=True)
    ]


@operation("split", "split_with_sizes")
def _split(r: Reader, x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    at = r.axis(dim, len(x.shape))
    if isinstance(sizes, int):
        return _pieces(x, at, [*range(sizes, x.shape[at], sizes), x.shape[at]])
    return _pieces(x, at, [int(n) for n in np.cumsum(sizes)])


@operation("chunk")
def _chunk(r: Reader, x: Value, chunks: int, dim: int = 0) -> list[Value]:
    return _split(r, x, math.ceil(x.shape[r.axis(dim, len(x.shape))] / chunks), dim)


@operation("narrow")
def _narrow(r: Reader, x: Value, dim: int, start: int, length: int) -> Value:
    at = r.axis(dim, len(x.shape))
    return x.view(lambda places: places.take(range(start, start + length), at))


@operation("slice")
def _slice(r: Reader, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    if dim == 0 and start in (None, 0) and (end is None or end >= r.images) and step == 1:
        return x
    at = r.axis(dim, len(x.shape))
    return x.view(lambda places: places[(slice(None),) * at + (slice(start, end, step),)])


@operation("select")
def _select(r: Reader, x: Value, dim: int, index: int) -> Value:
    at = r.axis(dim, len(x.shape))
    return x.view(lambda places: np.asarray(places.take(index, at)))


@operation("unbind")
def _unbind(r: Reader, x: Value, dim: int = 0) -> list[Value]:
    return [_select(r, x, dim, i) for i in range(x.shape[r.axis(dim, len(x.shape))])]


@operation("getitem")
def _getitem(r: Reader, x: Any, index: Any) -> Any:
    if not isinstance(x, Value):
        return x[index]
    wanted = index if isinstance(index, tuple) else (index,)
    if not (wanted and (wanted[0] is Ellipsis or wanted[0] == slice(None))):
        raise UnsupportedError("a choice of images")
    if not all(i is None or i is Ellipsis or isinstance(i, (int, slice)) for i in wanted):
        raise UnsupportedError("an index that is no number or slice")
    return x.view(lambda places: places[None][wanted][0])


@operation("pixel_shuffle")
def _pixel_shuffle(r: Reader, x: Value, upscale_factor: int) -> Value:
    layer = layers.PixelShuffle(upscale_factor)
    layer.output_shape(x.shape)
    return x.view(lambda places: layer.arrange(places[None])[0])


@operation("pixel_unshuffle")
def _pixel_unshuffle(r: Reader, x: Value, downscale_factor: int) -> Value:
    layer = layers.PixelUnshuffle(downscale_factor)
    layer.output_shape(x.shape)
    return x.view(lambda places: layer.arrange(places[None])[0])


@operation("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(r: Reader, x: Value, groups: int) -> Value:
    layer = layers.ChannelShuffle(groups)
    layer.output_shape(x.shape)
    return x.view(lambda places: layer.arrange(places[None])[0])
