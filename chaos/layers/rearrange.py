"""Layers that only move numbers: other shapes, orders and parts of an image. Imported by chaos.layers; the fast halves are
cext/layers/rearrange.c and reshape.c.

A kind says in `arrange` what it does, with NumPy's views; its loops for the core, and its gradient, follow from where the
numbers of an image end up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, check_shape, whole

MOST_LOOPS = 9  # at most (MAX_WHOLE of cext/layers/layer.h - 5) / 2
Loops = tuple[tuple[int, int], ...]


def core_shape(shape: Shape) -> tuple[int, int, int]:
    """(c, h, w) as the core has it: vectors are channels, sequences rows."""
    return shape if len(shape) == 3 else (shape[0], 1, shape[1] if len(shape) == 2 else 1)


def in_memory(a: Array) -> Array:
    """One image (c, ...) in the order of the core's memory, channels innermost: flat."""
    return a.reshape(len(a), -1).T.reshape(-1)


def places(shape: Shape) -> NDArray[np.int64]:
    """Of every number of an image where it is in the core's memory; of `shape`."""
    found = np.empty(math.prod(shape), np.int64)
    found[in_memory(np.arange(len(found)).reshape(shape))] = np.arange(len(found))
    return found.reshape(shape)


def loops_of(index: NDArray[np.int64]) -> Loops | None:
    """Nested loops (extent, stride), the outermost first, that run through the flat `index` from its first value; None where
    there are none."""
    found: list[tuple[int, int]] = []
    while len(index) > 1:
        stride = int(index[1] - index[0])
        steps = np.flatnonzero(np.diff(index) != stride)
        run = int(steps[0]) + 1 if len(steps) else len(index)
        for extent in (n for n in range(run, 1, -1) if len(index) % n == 0):
            rows = index.reshape(-1, extent)
            if (rows - rows[:, :1] == stride * np.arange(extent)).all():
                break
        else:
            return None
        found.append((extent, stride))
        index = rows[:, 0]
    return tuple(reversed(found)) or ((1, 1),)


@dataclass(frozen=True, eq=False, repr=False)
class Rearrangement(Layer):
    """A layer whose every output is one of its inputs."""

    def arrange(self, x: Array) -> Array:
        """What it does with images (n, c, ...), by views."""
        raise TypeError(f"{type(self).__name__} has no definition")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        try:  # of zeros that take no memory
            there = self.arrange(np.broadcast_to(np.float32(0), (1, *shape))).shape[1:]
        except (ValueError, IndexError) as error:
            raise ValueError(f"{self} does not fit its input of shape {shape}: {error}") from None
        if len(there) not in (1, 2, 3) or min(there) < 1:
            raise ValueError(f"{self} makes of its input of shape {shape} an output of shape {there}, which no image has")
        return there

    def core(self, *shapes: Shape) -> Core:
        (shape,) = shapes
        index = in_memory(self.arrange(places(shape)[None])[0])
        loops = loops_of(index)
        out = self.output_shape(shape)
        if loops is None or len(loops) > MOST_LOOPS:
            return self.core_without_loops(shape, out)
        return Core("rearrange", 0, (*core_shape(out), int(index[0]), len(loops), *(n for loop in loops for n in loop)))

    def core_without_loops(self, shape: Shape, out: Shape) -> Core:
        raise ValueError(f"{self} on shape {shape}: no {MOST_LOOPS} nested loops describe this order in memory")

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return self.arrange(inputs[0]).copy()

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        n, *shape = inputs[0].shape
        index = self.arrange(np.arange(math.prod(shape)).reshape(1, *shape)).reshape(-1)
        dx = np.zeros((math.prod(shape), n), dy.dtype)
        np.add.at(dx, index, dy.reshape(n, -1).T)
        return [dx.T.reshape(inputs[0].shape)], {}


def asked_dims(layer: Layer, value: Any, name: str = "dims") -> tuple[int, ...]:
    """`value` as dimensions, of which 0, the images, is none."""
    value = (value,) if isinstance(value, (int, np.integer)) else value
    if not isinstance(value, (tuple, list)) or not all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in value
    ):
        raise ValueError(f"{type(layer).__name__}: {name} must be whole numbers, not {value!r}")
    if 0 in value:
        raise ValueError(f"{type(layer).__name__}: {name} {value!r}: dimension 0 is the images', which layers leave alone")
    return tuple(int(n) for n in value)


def place_of(dim: int, dimensions: int) -> int:
    """A dimension counted from the front; ValueError where there is none, or it is the images'."""
    found = dim + dimensions if dim < 0 else dim
    if not 0 < found < dimensions:
        raise ValueError(f"there is no dimension {dim} of {dimensions}, the images' counted as 0")
    return found


def core_axis(dim: int, shape: Shape) -> int:
    """The core's axis (channels, rows, columns) of a dimension; a sequence is a row."""
    place = place_of(dim, len(shape) + 1)
    return 2 if len(shape) == 2 and place == 2 else place - 1


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(Rearrangement):
    """The same numbers in C order in another shape of one to three dimensions, as ``torch.Tensor.reshape``.

    Parameters
    ----------
    shape : tuple of int
        Of an image, without the batch; one size may be -1, what is left.
    """

    shape: tuple[int, ...]

    kind: ClassVar[str] = "reshape"

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = tuple(self.shape) if isinstance(self.shape, (tuple, list)) else (self.shape,)
        check_shape([1 if n == -1 else n for n in sizes])
        if sizes.count(-1) > 1:
            raise ValueError(f"Reshape: only one size can be -1, not those of {self.shape}")

    def arrange(self, x: Array) -> Array:
        sizes = self.shape if isinstance(self.shape, (tuple, list)) else (self.shape,)
        return x.reshape(len(x), *sizes)

    def core_without_loops(self, shape: Shape, out: Shape) -> Core:
        return Core("reshape", 0, core_shape(out))

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        shape: Shape = (pick(ODD), pick.whole(1, 5), pick.whole(1, 4))
        shape = pick((shape, shape[:2], shape[:1]))
        size = math.prod(shape)
        divisors = [n for n in range(1, size + 1) if size % n == 0]
        first = pick(divisors)
        rest = [n for n in divisors if size // first % n == 0]
        return cls(pick(((-1,), (first, -1), (first, pick(rest), -1)))), [shape]


@dataclass(frozen=True, eq=False, repr=False)
class Permute(Rearrangement):
    """Other order of the dimensions, as ``torch.permute``: ``Permute((0, 3, 1, 2))``; the images, 0, come first."""

    dims: tuple[int, ...]

    kind: ClassVar[str] = "permute"

    def __post_init__(self) -> None:
        super().__post_init__()
        dims = tuple(self.dims) if isinstance(self.dims, (tuple, list)) else (self.dims,)
        if dims[:1] != (0,) or sorted(dims) != list(range(len(dims))):
            raise ValueError(
                f"Permute: dims must be 0 and a permutation of the others, such as (0, 2, 1), not {self.dims!r}"
            )

    def arrange(self, x: Array) -> Array:
        return x.transpose(self.dims)

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        if pick((True, False)):
            return cls((0, 2, 1)), [(pick(ODD), pick.whole(1, 5))]
        return cls(pick(((0, 1, 3, 2), (0, 3, 1, 2), (0, 2, 3, 1), (0, 3, 2, 1)))), [(pick(ODD), 3, pick.whole(1, 5))]


@dataclass(frozen=True, eq=False, repr=False)
class Slice(Rearrangement):
    """A part of a dimension, as ``x.narrow`` or ``x[:, start:stop:step]``.

    Parameters
    ----------
    dim : int
        Counted with the images as 0: 1 is the channels.
    start, stop, step : int, optional
        As of Python's slices; negative ones count from the end, a negative step goes backwards.
    """

    dim: int
    start: int | None = None
    stop: int | None = None
    step: int = 1

    kind: ClassVar[str] = "slice"

    def __post_init__(self) -> None:
        super().__post_init__()
        asked_dims(self, self.dim, "dim")
        for name in ("start", "stop", "step"):
            value = getattr(self, name)
            if not (value is None and name != "step") and (
                isinstance(value, bool) or not isinstance(value, (int, np.integer))
            ):
                raise ValueError(f"Slice: {name} must be a whole number, not {value!r}")
        if self.step == 0:
            raise ValueError("Slice: step must not be 0")

    def arrange(self, x: Array) -> Array:
        part = [slice(None)] * x.ndim
        part[place_of(self.dim, x.ndim)] = slice(self.start, self.stop, self.step)
        return x[tuple(part)]

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        step = pick((1, 1, 2, -1))
        start, stop = pick(((1, None), (None, -1), (-3, None), (None, None))) if step > 0 else (None, None)
        return cls(pick((1, 2, 3, -1)), start, stop, step), [(pick((2, 3, 8, 17, 33)), pick.whole(3, 5), pick.whole(3, 7))]


@dataclass(frozen=True, eq=False, repr=False)
class Flip(Rearrangement):
    """Other direction along dimensions, as ``torch.flip``."""

    dims: tuple[int, ...]

    kind: ClassVar[str] = "flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        asked_dims(self, self.dims)

    def arrange(self, x: Array) -> Array:
        return np.flip(x, tuple(place_of(dim, x.ndim) for dim in asked_dims(self, self.dims)))

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(pick(((1,), (2,), (3,), (2, 3), (1, -1)))), [(pick(ODD), pick.whole(1, 5), pick.whole(1, 5))]


@dataclass(frozen=True, eq=False, repr=False)
class Squeeze(Rearrangement):
    """Without dimensions of size 1, as ``torch.squeeze``: those of `dim`, or all but the images'."""

    dim: int | tuple[int, ...] | None = None

    kind: ClassVar[str] = "squeeze"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim is not None:
            asked_dims(self, self.dim, "dim")

    def arrange(self, x: Array) -> Array:
        asked = range(1, x.ndim) if self.dim is None else [place_of(dim, x.ndim) for dim in asked_dims(self, self.dim)]
        return x.squeeze(tuple(dim for dim in asked if x.shape[dim] == 1))

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(pick((None, 2, -1, (2, 3)))), [(pick(ODD[1:]), 1, pick.whole(1, 5))]


@dataclass(frozen=True, eq=False, repr=False)
class Unsqueeze(Rearrangement):
    """A new dimension of size 1, as ``torch.unsqueeze``."""

    dim: int

    kind: ClassVar[str] = "unsqueeze"

    def __post_init__(self) -> None:
        super().__post_init__()
        asked_dims(self, self.dim, "dim")

    def arrange(self, x: Array) -> Array:
        return np.expand_dims(x, place_of(self.dim, x.ndim + 1))

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(pick((1, 2, -1))), [pick(((pick(ODD),), (pick(ODD), pick.whole(1, 5))))]


@dataclass(frozen=True, eq=False, repr=False)
class Expand(Rearrangement):
    """Repeats along dimensions of size 1, as ``torch.Tensor.expand``; `shape` of an image, -1 leaves a size as it is."""

    shape: tuple[int, ...]

    kind: ClassVar[str] = "expand"

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.shape if isinstance(self.shape, (tuple, list)) else (self.shape,)
        check_shape([1 if n == -1 else n for n in sizes])

    def arrange(self, x: Array) -> Array:
        sizes = tuple(self.shape) if isinstance(self.shape, (tuple, list)) else (self.shape,)
        if len(sizes) != x.ndim - 1:
            raise ValueError(f"shape must have {x.ndim - 1} sizes")
        return np.broadcast_to(x, (len(x), *(there if n == -1 else n for n, there in zip(sizes, x.shape[1:], strict=True))))

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        c, h, w = pick(ODD), pick.whole(1, 4), pick.whole(1, 5)
        return cls((c, h, w)), [pick(((c, 1, 1), (1, h, w), (c, h, 1), (1, 1, 1), (c, 1, w)))]


@dataclass(frozen=True, eq=False, repr=False)
class PixelShuffle(Rearrangement):
    """(c r^2, h, w) to (c, h r, w r), as ``torch.nn.PixelShuffle`` (Shi et al. 2016)."""

    upscale_factor: int

    kind: ClassVar[str] = "pixel_shuffle"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("PixelShuffle: upscale_factor", self.upscale_factor)

    def arrange(self, x: Array) -> Array:
        r = self.upscale_factor
        n, c, h, w = x.shape
        return x.reshape(n, c // r**2, r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // r**2, h * r, w * r)

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        r = pick.whole(1, 3)
        return cls(r), [(r * r * pick((1, 2, 5, 8)), pick.whole(1, 4), pick.whole(1, 4))]


@dataclass(frozen=True, eq=False, repr=False)
class PixelUnshuffle(Rearrangement):
    """(c, h r, w r) to (c r^2, h, w), as ``torch.nn.PixelUnshuffle``."""

    downscale_factor: int

    kind: ClassVar[str] = "pixel_unshuffle"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("PixelUnshuffle: downscale_factor", self.downscale_factor)

    def arrange(self, x: Array) -> Array:
        r = self.downscale_factor
        n, c, h, w = x.shape
        return x.reshape(n, c, h // r, r, w // r, r).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * r**2, h // r, w // r)

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        r = pick.whole(1, 3)
        return cls(r), [(pick((1, 2, 5, 17)), r * pick.whole(1, 3), r * pick.whole(1, 3))]


@dataclass(frozen=True, eq=False, repr=False)
class ChannelShuffle(Rearrangement):
    """Deals channels out from `groups` blocks in turn, as ``torch.nn.ChannelShuffle`` (ShuffleNet, Zhang et al. 2017)."""

    groups: int

    kind: ClassVar[str] = "channel_shuffle"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("ChannelShuffle: groups", self.groups)

    def arrange(self, x: Array) -> Array:
        n, c, *sizes = x.shape
        return x.reshape(n, self.groups, c // self.groups, *sizes).swapaxes(1, 2).reshape(x.shape)

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        groups = pick.whole(1, 5)
        return cls(groups), [(groups * pick((1, 3, 8)), pick.whole(1, 4), pick.whole(1, 4))]


@dataclass(frozen=True, eq=False, repr=False)
class Rearrange(Rearrangement):
    """Any nested loops through an image: as ``torch.as_strided`` of the numbers in C order.

    Parameters
    ----------
    shape : tuple of int
        Of the output, one to three dimensions, filled in C order.
    sizes, strides : tuple of int
        Of the loops, the outermost first, of which there are as many values as the output has.
    start : int
        The number that comes first.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    start: int = 0

    kind: ClassVar[str] = "rearrange"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shape(self.shape)
        if len(self.sizes) != len(self.strides) or math.prod(self.sizes) != math.prod(self.shape):
            raise ValueError(f"{self}: sizes and strides must belong together and fill the shape")

    def arrange(self, x: Array) -> Array:
        low = high = self.start
        for size, stride in zip(self.sizes, self.strides, strict=True):
            low, high = low + min(0, (size - 1) * stride), high + max(0, (size - 1) * stride)
        values = math.prod(x.shape[1:])
        if low < 0 or high >= values:
            raise ValueError(f"its loops run from {low} to {high}, the input has {values} values")
        lines = x.reshape(len(x), -1)
        if not lines.strides[1]:
            return np.broadcast_to(lines[:, :1], (len(x), math.prod(self.shape))).reshape(len(x), *self.shape)
        index = np.full((1,), self.start)
        for size, stride in zip(self.sizes, self.strides, strict=True):
            index = index[..., None] + stride * np.arange(size)
        return lines[:, index.reshape(-1)].reshape(len(x), *self.shape)

    @classmethod
    def of(cls, index: NDArray[np.int64], name: str | None = None) -> Self | None:
        """The layer whose output is shaped as `index` and has at each place that number of the input; None where no nested
        loops describe it."""
        loops = loops_of(index.reshape(-1))
        if loops is None or len(loops) > MOST_LOOPS:
            return None
        sizes, strides = zip(*loops, strict=True)
        return cls(index.shape, sizes, strides, int(index.flat[0]), name=name)

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        c, h, w = pick(ODD), pick.whole(2, 4), pick.whole(2, 4)
        if pick((True, False)):  # every second row, the channels turned round
            return cls((c, 1, w), (c, w), (-h * w, 1), (c - 1) * h * w + w), [(c, h, w)]
        return cls((w, c), (w, c), (1, h * w), w), [(c, h, w)]
