"""Spatial pyramid pooling. Imported by chaos.layers; the fast half is cext/layers/spatial_pyramid_pool2d.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .avg_pools import AdaptiveAvgPool2d
from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, whole
from .max_pool2d import AdaptiveMaxPool2d, AdaptivePool, Pool

_MOST = 14  # levels, whose sizes are options of the core


@dataclass(frozen=True, eq=False, repr=False)
class SpatialPyramidPool2d(Pool):
    """Pools an image over n x n windows for several n and makes one vector of all, whose length does not depend on the size
    of the image (He, Zhang, Ren, Sun 2014, "Spatial pyramid pooling in deep convolutional networks for visual recognition").

    Of a level n: `AdaptiveMaxPool2d(n)`, then `Flatten()`; the levels follow each other.

    Parameters
    ----------
    levels : int or tuple of int
        n of each level; the paper's pyramids are (6, 3, 2, 1) and (4, 3, 2, 1).
    mode : "max" or "avg"
        The largest entry of a window, or the mean.
    """

    levels: int | tuple[int, ...]
    mode: str = "max"

    kind: ClassVar[str] = "spatial_pyramid_pool2d"

    def __post_init__(self) -> None:
        super().__post_init__()
        for n in self._levels():
            whole("SpatialPyramidPool2d: each of levels", n)
        if not 1 <= len(self._levels()) <= _MOST:
            raise ValueError(f"SpatialPyramidPool2d: levels must be 1 to {_MOST} numbers, not {len(self._levels())}")
        if self.mode not in ("max", "avg"):
            raise ValueError(f"SpatialPyramidPool2d: mode must be 'max' or 'avg', not {self.mode!r}")

    def _levels(self) -> tuple[int, ...]:
        return tuple(self.levels) if isinstance(self.levels, (tuple, list)) else (self.levels,)

    def _pools(self) -> list[AdaptivePool]:
        return [(AdaptiveAvgPool2d if self.mode == "avg" else AdaptiveMaxPool2d)(n) for n in self._levels()]

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return (self._image(shape)[0] * sum(n * n for n in self._levels()),)

    def core(self, *shapes: Shape) -> Core:
        return Core("spatial_pyramid_pool2d", 0, (int(self.mode == "avg"), len(self._levels()), *self._levels()))

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        found = [pool.forward(inputs, parts) for pool in self._pools()]
        return np.concatenate([y.reshape(len(y), -1) for y in found], 1)

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        dx, at = np.zeros(inputs[0].shape, dy.dtype), 0
        for pool, n in zip(self._pools(), self._levels(), strict=True):
            size = inputs[0].shape[1] * n * n
            own = dy[:, at : at + size].reshape(*inputs[0].shape[:2], n, n)
            dx = dx + pool.backward(inputs, parts, own, own)[0][0]
            at += size
        return [dx], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        levels = pick(((1,), (2, 1), (4, 3, 2, 1), (1, 3), (5,)))
        return cls(levels, pick(("max", "avg"))), [(pick(ODD), pick.whole(1, 8), pick.whole(1, 8))]
