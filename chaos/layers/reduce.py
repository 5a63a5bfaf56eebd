"""Sums and maxima over dimensions. Imported by chaos.layers; the fast half is cext/layers/reduce.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape
from .rearrange import asked_dims, core_axis, core_shape, place_of


@dataclass(frozen=True, eq=False, repr=False)
class _Reduction(Layer):
    """Over some dimensions of an image. `dim`: one or several, counted with the images as 0; all others unless given.
    `keepdim`: they stay, with size 1."""

    dim: int | tuple[int, ...] | None = None
    keepdim: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim is not None:
            asked_dims(self, self.dim, "dim")
        if not isinstance(self.keepdim, (bool, np.bool_)):
            raise ValueError(f"{type(self).__name__}: keepdim must be True or False, not {self.keepdim!r}")

    def _over(self, dimensions: int) -> tuple[int, ...]:
        asked = (
            range(1, dimensions)
            if self.dim is None
            else [place_of(d, dimensions) for d in asked_dims(self, self.dim, "dim")]
        )
        return tuple(sorted(set(asked)))

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        try:
            over = self._over(len(shape) + 1)
        except ValueError as error:
            raise ValueError(f"{self} on shape {shape}: {error}") from None
        left = tuple(1 if i + 1 in over else size for i, size in enumerate(shape))
        if self.keepdim:
            return left
        found = tuple(size for i, size in enumerate(shape) if i + 1 not in over) or (1,)
        if 1 in over and len([n for n in found if n > 1]) > 1:  # rows would become channels, which lie elsewhere in memory
            raise ValueError(f"{self} on shape {shape}: use keepdim=True, then Reshape({found})")
        return found

    def core(self, *shapes: Shape) -> Core:
        (shape,) = shapes
        axes = {core_axis(dim, shape) for dim in self._over(len(shape) + 1)}
        factor = self._factor(shape)
        real = () if factor is None else (factor,)
        return Core(self._core_kind, 0, (*(int(a in axes) for a in range(3)), *core_shape(self.output_shape(shape))), real)

    _core_kind: ClassVar[str]

    def _factor(self, shape: Shape) -> float | None:
        """Of a sum."""
        return None

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        shape = (pick(ODD), pick.whole(1, 5), pick.whole(1, 5))
        found: tuple[Layer, list[Shape]] = pick(
            (
                (cls(pick((None, 1, 2, -1, (2, 3), (1, 3), (1, 2, 3))), True), [shape]),
                (cls(pick((None, 2, 3, (2, 3), (1, 2), (1, 3)))), [shape]),
                (cls(pick((None, 1, 2))), [shape[:2]]),
                (cls(), [shape[:1]]),
            )
        )
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Sum(_Reduction):
    """Sum over dimensions, as ``torch.sum``."""

    kind: ClassVar[str] = "sum"
    _core_kind: ClassVar[str] = "reduce_sum"

    def _factor(self, shape: Shape) -> float | None:
        return 1.0

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        factor = self._factor(x.shape[1:])
        y: Array = x.sum(self._over(x.ndim)) * np.asarray(factor, x.dtype)
        return y.reshape(len(x), *self.output_shape(x.shape[1:]))

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = inputs[0]
        over = self._over(x.ndim)
        kept = dy.reshape([1 if i in over else size for i, size in enumerate(x.shape)])
        return [np.broadcast_to(kept * np.asarray(self._factor(x.shape[1:]), x.dtype), x.shape)], {}


@dataclass(frozen=True, eq=False, repr=False)
class Mean(Sum):
    """Mean over dimensions, as ``torch.mean``; over (2, 3) it is global average pooling."""

    kind: ClassVar[str] = "mean"

    def _factor(self, shape: Shape) -> float | None:
        return 1 / math.prod(shape[dim - 1] for dim in self._over(len(shape) + 1))


@dataclass(frozen=True, eq=False, repr=False)
class Max(_Reduction):
    """Largest value over dimensions, as ``torch.max``: the gradient goes to the first of equals."""

    kind: ClassVar[str] = "max"
    _core_kind: ClassVar[str] = "reduce_max"
    _sign: ClassVar[int] = 1

    def _places(self, x: Array) -> tuple[Array, Array]:
        """(entries that compete (n, outputs, competitors), which of them wins), the core's memory deciding who is first."""
        over = self._over(x.ndim)
        stay = [i for i in range(1, x.ndim) if i not in over]
        # the first in memory, where channels are innermost
        order = [0, *stay, *sorted(over, key=lambda dim: (dim == 1, dim))]
        lined = x.transpose(order).reshape(len(x), math.prod(x.shape[i] for i in stay), -1)
        return lined, (self._sign * lined).argmax(2)

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        lined, won = self._places(x)
        y: Array = np.take_along_axis(lined, won[:, :, None], 2)
        return y.reshape(len(x), *self.output_shape(x.shape[1:]))

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = inputs[0]
        source, _ = self._places(np.broadcast_to(np.arange(x[0].size).reshape(x[0].shape), x.shape))
        _, won = self._places(x)
        dx = np.zeros((len(x), x[0].size), dy.dtype)
        at = np.take_along_axis(source, won[:, :, None], 2)[:, :, 0]
        np.put_along_axis(dx, at, dy.reshape(at.shape), 1)
        return [dx.reshape(x.shape)], {}

    def smooth(self, x: Array) -> Array:
        return x


@dataclass(frozen=True, eq=False, repr=False)
class Min(Max):
    """Smallest value over dimensions, as ``torch.min``: the gradient goes to the first of equals."""

    kind: ClassVar[str] = "min"
    _core_kind: ClassVar[str] = "reduce_min"
    _sign: ClassVar[int] = -1
