"""Entries or channels dropped while a network trains. Imported by chaos.layers; the fast half is cext/layers/dropout.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape, any_shape
from .random import of_values, uniform

# the limit of SELU at minus infinity (Klambauer et al. 2017)
_LOWEST = -1.0507009873554804934 * 1.6732632423543772848


@dataclass(frozen=True, eq=False, repr=False)
class Dropout(Layer):
    """Entries are set to 0 with probability p while the network trains, the others divided by 1 - p; nothing happens
    otherwise, as in ``torch.nn.Dropout``. What is dropped depends on seed, epoch, image and layer alone: not on the worker,
    the batch, the order or the rank."""

    p: float = 0.5

    kind: ClassVar[str] = "dropout"
    dims: ClassVar[int | None] = None  # of an input whose channels are dropped as a whole

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.p, bool) or not isinstance(self.p, (int, float, np.number)) or not 0 <= self.p <= 1:
            raise ValueError(f"{type(self).__name__}: p must be a probability in 0..1, not {self.p!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if self.dims is not None and len(shapes[0]) != self.dims:
            wanted = "(channels, height, width)" if self.dims == 3 else "(channels, length)"
            raise ValueError(f"{self} needs inputs {wanted}, not of shape {shapes[0]}")
        return shapes[0]

    def _numbers(self) -> tuple[float, float, float]:
        """(what takes the place of a dropped entry, factor, offset) of y = factor * what is left + offset."""
        return 0.0, 0.0 if self.p == 1 else 1 / (1 - self.p), 0.0

    def core(self, *shapes: Shape) -> Core:
        return Core("dropout", whole=(int(self.dims is not None),), real=(float(self.p), *self._numbers()))

    def _keeps(self, x: Array, context: Context) -> NDArray[np.bool_]:
        assert context.keys is not None
        limit = np.float32(self.p)
        if self.dims:
            return uniform(context.keys, x.shape[1]).reshape(*x.shape[:2], *[1] * (x.ndim - 2)) >= limit
        return of_values(uniform(context.keys, x[0].size), x.shape[1:]) >= limit

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        if not context.training:
            return inputs[0]
        there, factor, offset = self._numbers()
        found: Array = factor * np.where(self._keeps(inputs[0], context), inputs[0], there) + offset
        return found

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [self._numbers()[1] * np.where(self._keeps(inputs[0], context), dy, 0)], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        shape = (pick.whole(1, 20), pick.whole(1, 6), pick.whole(1, 6))
        return cls(pick((0.5, 0.1, 0.0, 0.9, 1.0))), [shape[: cls.dims] if cls.dims else any_shape(pick)]


@dataclass(frozen=True, eq=False, repr=False)
class Dropout1d(Dropout):
    """As `Dropout`, whole channels of sequences at a time."""

    kind: ClassVar[str] = "dropout1d"
    dims: ClassVar[int | None] = 2


@dataclass(frozen=True, eq=False, repr=False)
class Dropout2d(Dropout):
    """As `Dropout`, whole channels of images at a time (Tompson et al. 2015)."""

    kind: ClassVar[str] = "dropout2d"
    dims: ClassVar[int | None] = 3


@dataclass(frozen=True, eq=False, repr=False)
class AlphaDropout(Dropout):
    """Entries become the lowest value of SELU with probability p while the network trains; all are then scaled and shifted
    so that mean 0 and variance 1 stay what they are (Klambauer et al. 2017)."""

    kind: ClassVar[str] = "alpha_dropout"

    def _numbers(self) -> tuple[float, float, float]:
        if self.p == 1:
            return 0.0, 0.0, 0.0
        factor = 1 / math.sqrt((1 - self.p) * (1 + self.p * _LOWEST**2))
        return _LOWEST, factor, -factor * self.p * _LOWEST
