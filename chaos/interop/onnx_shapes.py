"""Operators of ONNX that change shapes and sizes. For chaos.interop.from_onnx."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import layers
from ..errors import UnsupportedError
from .graph import Array, Value
from .onnx_context import OPERATORS, Context, Operator, number, operator


@operator("Shape")
def _shape(c: Context, x: Value) -> Array:
    sizes = ([c.images or 1] if c.first else []) + list(x.shape)
    return np.array(sizes[c.get("start", 0) : c.get("end")], np.int64)


@operator("Size")
def _size(c: Context, x: Value) -> Array:
    return np.array(math.prod(x.shape) * ((c.images or 1) if c.first else 1), np.int64)


@operator("Flatten")
def _flatten(c: Context, x: Value) -> Value:
    axis, dims = c.get("axis", 1), len(x.shape) + c.first
    axis = axis + dims if axis < 0 else axis
    if c.first and axis != 1:
        if not (axis > 1 and math.prod(x.shape[: axis - 1]) == 1):
            raise UnsupportedError(f"axis {axis} mixes images")
        return x.view(lambda places: places.reshape(-1))
    if c.first:
        return x.view(lambda places: places.reshape(-1))
    return x.view(lambda places: places.reshape(math.prod(x.shape[:axis]), -1))


@operator("Reshape")
def _reshape(c: Context, x: Value, shape: Any) -> Value:
    sizes = [int(n) for n in c.array(shape, "the shape")]
    if not c.get("allowzero", 0):
        there = ([c.images or 1] if c.first else []) + list(x.shape)
        sizes = [there[i] if n == 0 else n for i, n in enumerate(sizes)]
    target = c.target(sizes, math.prod(x.shape))
    return x.view(lambda places: places.reshape(target))


@operator("Transpose")
def _transpose(c: Context, x: Value) -> Value:
    dims = len(x.shape) + c.first
    order = list(c.get("perm", range(dims)[::-1]))
    if c.first and order[0] != 0:
        raise UnsupportedError(f"the order {order} moves the images from the first dimension")
    return x.view(lambda places: places.transpose([n - c.first for n in order[c.first :]]))


@operator("Squeeze")
def _squeeze(c: Context, x: Value, axes: Any = None) -> Value:
    given = axes if axes is not None else c.get("axes")
    over = [i for i, n in enumerate(x.shape) if n == 1] if given is None else c.axes(given, len(x.shape))
    return x.view(lambda places: places.squeeze(tuple(over)))


@operator("Unsqueeze")
def _unsqueeze(c: Context, x: Value, axes: Any = None) -> Value:
    given = np.asarray(axes if axes is not None else c.get("axes")).reshape(-1)
    over = c.axes(given, len(x.shape) + len(given))
    return x.view(lambda places: np.expand_dims(places, tuple(over)))


@operator("Expand")
def _expand(c: Context, x: Value, shape: Any) -> Value:
    sizes = [int(n) for n in c.array(shape, "the shape")]
    if c.first and len(sizes) == len(x.shape) + 1:
        if sizes[0] not in (1, c.images):
            raise UnsupportedError(f"images repeated {sizes[0]} times")
        sizes = sizes[1:]
    elif c.first and len(sizes) > len(x.shape):
        raise UnsupportedError("a new first dimension: it counts images")
    return x.view(lambda places: np.broadcast_to(places, np.broadcast_shapes(places.shape, tuple(sizes))))


@operator("Tile")
def _tile(c: Context, x: Value, repeats: Any) -> Value:
    times = [int(n) for n in c.array(repeats, "the repeats")]
    if c.first and times[0] != 1:
        raise UnsupportedError(f"images repeated {times[0]} times")
    return x.view(lambda places: np.tile(places, times[c.first :]))


@operator("Concat")
def _concat(c: Context, *values: Any) -> Value:
    dims = max(len(v.shape) for v in values if isinstance(v, Value))
    axis = c.axis(c.get("axis", 1), dims)
    tensors = [v if isinstance(v, Value) else c.graph.constant(c.beside(np.asarray(v, np.float32), dims)) for v in values]
    return c.graph.join(tensors, axis)


@operator("Split")
def _split(c: Context, x: Value, parts: Any = None) -> list[Value]:
    axis = c.axis(c.get("axis", 0), len(x.shape))
    size = x.shape[axis]
    given = parts if parts is not None else c.get("split")
    if given is None:
        count = c.get("num_outputs", c.outputs)
        each = math.ceil(size / count)
        given = [each] * (count - 1) + [size - each * (count - 1)]
    ends = np.cumsum([int(n) for n in given])
    return [
        x.view(lambda places, a=a, b=b: places.take(range(a, b), axis))  # type: ignore[misc]
        for a, b in zip([0, *ends[:-1]], ends, strict=True)
    ]


@operator("Slice")
def _slice(c: Context, x: Value, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Value:
    if c.version < 10:
        starts, ends, axes = c.get("starts"), c.get("ends"), c.get("axes")
    first, last = (np.asarray(c.array(v, w)).reshape(-1) for v, w in ((starts, "the starts"), (ends, "the ends")))
    over = range(len(first)) if axes is None else np.asarray(axes).reshape(-1)
    by = [1] * len(first) if steps is None else np.asarray(steps).reshape(-1)
    part = [slice(None)] * len(x.shape)
    for axis, a, b, s in zip(over, first, last, by, strict=True):
        if c.first and int(axis) in (0, -len(x.shape) - 1):
            if int(a) == 0 and int(b) >= (c.images or 1) and int(s) == 1:
                continue
            raise UnsupportedError("a part of the images")
        stop: int | None = int(b)
        if s < 0 and b < -x.shape[c.axis(axis, len(x.shape))]:
            stop = None
        part[c.axis(axis, len(x.shape))] = slice(int(a), stop, int(s))
    return x.view(lambda places: places[tuple(part)])


@operator("Gather")
def _gather(c: Context, x: Value, indices: Any) -> Value:
    axis = c.axis(c.get("axis", 0), len(x.shape))
    wanted = c.array(indices, "the indices")
    return x.view(lambda places: places.take(wanted, axis))


@operator("Pad")
def _pad(c: Context, x: Value, pads: Any = None, value: Any = None, axes: Any = None) -> Value:
    given = [int(n) for n in np.asarray(c.get("pads") if pads is None else c.array(pads, "the pads")).reshape(-1)]
    constant = c.get("value", 0.0) if c.version < 11 else number(value, 0.0)
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[c.get("mode", "constant")]
    dims, count = len(x.shape), len(given) // 2
    around = [(0, 0)] * dims
    over = range(count) if axes is None else [int(a) for a in np.asarray(axes).reshape(-1)]
    for axis, before, behind in zip(over, given[:count], given[count:], strict=True):
        if (before, behind) == (0, 0):
            continue
        around[c.axis(axis, dims)] = (before, behind)
    return c.graph.pad(x, around, mode, constant)


def _to_depth(places: Any, b: int, crd: bool) -> Any:
    ch, h, w = places.shape
    cut = places.reshape(ch, h // b, b, w // b, b)
    return cut.transpose((0, 2, 4, 1, 3) if crd else (2, 4, 0, 1, 3)).reshape(ch * b * b, h // b, w // b)


def _to_space(places: Any, b: int, crd: bool) -> Any:
    ch, h, w = places.shape
    if crd:
        return places.reshape(ch // b**2, b, b, h, w).transpose(0, 3, 1, 4, 2).reshape(ch // b**2, h * b, w * b)
    return places.reshape(b, b, ch // b**2, h, w).transpose(2, 3, 0, 4, 1).reshape(ch // b**2, h * b, w * b)


@operator("DepthToSpace")
def _depth_to_space(c: Context, x: Value) -> Value:
    return x.view(lambda places: _to_space(places, c.get("blocksize"), c.get("mode", "DCR") == "CRD"))


@operator("SpaceToDepth")
def _space_to_depth(c: Context, x: Value) -> Value:
    return x.view(lambda places: _to_depth(places, c.get("blocksize"), c.get("mode", "DCR") == "CRD"))


def _reduction(kind: Any) -> Operator:
    def read(c: Context, x: Value, axes: Any = None) -> Value:
        given = axes if axes is not None else c.get("axes")
        keep = bool(c.get("keepdims", 1))
        if given is not None and np.asarray(given).size == 0:
            given = None
        if given is None and c.get("noop_with_empty_axes", 0):
            return x
        if given is None and c.first:
            raise UnsupportedError("over all dimensions, the images too")
        over = range(len(x.shape)) if given is None else c.axes(given, len(x.shape))
        return c.graph.reduce(kind, x, over, keep)

    return read


OPERATORS |= {
    "ReduceMean": _reduction(layers.Mean),
    "ReduceSum": _reduction(layers.Sum),
    "ReduceMax": _reduction(layers.Max),
    "ReduceMin": _reduction(layers.Min),
}


@operator("ReduceSumSquare")
def _sum_square(c: Context, x: Value, axes: Any = None) -> Value:
    result: Value = OPERATORS["ReduceSum"](c, c.graph.pair(layers.Multiply, x, x), axes)
    return result


@operator("ReduceL1")
def _sum_abs(c: Context, x: Value, axes: Any = None) -> Value:
    result: Value = OPERATORS["ReduceSum"](c, c.graph.each(layers.Abs(), x), axes)
    return result


# the place in the input of output i along an axis, by the names that Resize has for it: (a, b) of i * a + b
def _place(mode: str, size: int, out: int, scale: float) -> tuple[float, float]:
    if mode == "asymmetric":
        return 1 / scale, 0.0
    if mode == "align_corners":
        last = scale * size - 1  # not rounded: so it is defined
        return ((size - 1) / last if out > 1 and last > 0 else 0.0), 0.0
    if mode == "pytorch_half_pixel" and out <= 1:
        return 0.0, 0.0
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return 1 / scale, 0.5 / scale - 0.5
    if mode == "half_pixel_symmetric":
        adjusted = out / (scale * size)
        return 1 / scale, 0.5 / scale - 0.5 + size / 2 * (1 - adjusted)
    raise UnsupportedError(f"coordinates {mode!r}")


def _resize_sizes(c: Context, x: Value, scales: Any, sizes: Any, axes: Sequence[int]) -> dict[int, tuple[int, float]]:
    """{axis: (size of the output, scale)}"""
    if scales is not None and np.asarray(scales).size:
        by = [float(n) for n in np.asarray(scales).reshape(-1)]
        return {axis: (math.floor(x.shape[axis] * s), s) for axis, s in zip(axes, by, strict=True)}
    wanted = [int(n) for n in c.array(sizes, "sizes").reshape(-1)]
    policy = c.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        choose = min if policy == "not_larger" else max
        scale = choose(n / x.shape[axis] for axis, n in zip(axes, wanted, strict=True))
        return {axis: (math.floor(scale * x.shape[axis] + 0.5), scale) for axis in axes}
    return {axis: (n, n / x.shape[axis]) for axis, n in zip(axes, wanted, strict=True)}


@operator("Resize", "Upsample")
def _resize(c: Context, x: Value, *more: Any) -> Value:
    if c.version < 10:  # Upsample
        roi, scales, sizes = None, (more[0] if more else c.get("scales")), None
    elif c.version == 10:
        roi, scales, sizes = None, more[0], None
    else:
        roi, scales, sizes = (*more, None, None, None)[:3]
    mode = c.get("mode", "nearest")
    if c.get("antialias", 0) or mode not in ("nearest", "linear"):
        raise UnsupportedError(f"mode {mode!r}{' with antialias' if c.get('antialias', 0) else ''}: nearest and linear work")
    given = c.get("axes")
    dims = len(x.shape)
    over = list(range(-c.first, dims)) if given is None else [int(a) % (dims + c.first) - c.first for a in given]
    if over[0] == -1:  # the images
        over = over[1:]
        for name, value in (("scales", scales), ("sizes", sizes)):
            if value is not None and np.asarray(value).size:
                if float(np.asarray(value).reshape(-1)[0]) not in (1.0, float(c.images or 1) if name == "sizes" else 1.0):
                    raise UnsupportedError("images at another number")
        scales, sizes = (None if v is None else np.asarray(v).reshape(-1)[1:] for v in (scales, sizes))
    wanted = {a: n for a, n in _resize_sizes(c, x, scales, sizes, over).items() if n[0] != x.shape[a] or n[1] != 1}
    if not wanted:
        return x
    coordinates = c.get("coordinate_transformation_mode", "half_pixel") if c.version > 10 else "asymmetric"
    layer, axes = _resampled(x, wanted, coordinates, mode, c.get("nearest_mode", "round_prefer_floor"), c.version)
    if axes == [1, 2] and dims == 3:
        return c.graph.apply(layer, x)
    rest = [axis for axis in range(dims) if axis not in axes]
    rows = math.prod(x.shape[axis] for axis in rest)
    moved = x.view(lambda places: places.transpose(*rest, *axes).reshape(rows, *(x.shape[axis] for axis in axes)))
    found = c.graph.apply(layer, moved)
    back = np.argsort([*rest, *axes])
    return found.view(lambda places: places.reshape(*(x.shape[a] for a in rest), *found.shape[1:]).transpose(*back))


def _resampled(
    x: Value, wanted: dict[int, tuple[int, float]], coordinates: str, mode: str, nearest: str, version: int
) -> tuple[layers.Resample, list[int]]:
    axes = sorted(wanted)
    if len(axes) > 2:
        raise UnsupportedError("more than two axes at other sizes")
    places = [_place(coordinates, x.shape[axis], *wanted[axis]) for axis in axes]
    scale, shift = [a for a, _ in places], [b for _, b in places]
    how = "linear"
    if mode == "nearest":
        nearest = nearest if version > 10 else "floor"
        how = "floor" if nearest in ("floor", "round_prefer_ceil") else "ceil"
        half = {"round_prefer_floor": -0.5, "round_prefer_ceil": 0.5}.get(nearest, 0.0)
        # places are fractions of small numbers: this is more than their rounding, and less than what lies between them
        nudge = 1e-4 if how == "floor" else -1e-4
        shift = [b + half + nudge for b in shift]
    return layers.Resample(tuple(wanted[axis][0] for axis in axes), tuple(scale), tuple(shift), how), axes
