"""Maxout. Imported by chaos.layers; the fast half is cext/layers/maxout.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape, whole


@dataclass(frozen=True, eq=False, repr=False)
class Maxout(Layer):
    """The largest of each group of channels, or features (Goodfellow et al. 2013): y[o] = max over p of x[o * pieces + p].
    Behind a convolution or Linear of `pieces` times as many channels it makes maxout units.

    Parameters
    ----------
    pieces : int
        Channels of a group; the input's are a multiple of it.
    """

    pieces: int

    kind: ClassVar[str] = "maxout"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("Maxout: pieces", self.pieces)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape[0] % self.pieces:
            raise ValueError(f"{self} on input of shape {shape}: its {shape[0]} channels are no multiple of {self.pieces}")
        return shape[0] // self.pieces, *shape[1:]

    def core(self, *shapes: Shape) -> Core:
        return Core("maxout", 0, (self.pieces,))

    def _groups(self, x: Array) -> Array:
        return x.reshape(len(x), -1, self.pieces, *x.shape[2:])

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        y: Array = self._groups(inputs[0]).max(2)
        return y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        groups = self._groups(inputs[0])
        dx = np.zeros(groups.shape, dy.dtype)
        np.put_along_axis(dx, groups.argmax(2)[:, :, None], dy[:, :, None], 2)
        return [dx.reshape(inputs[0].shape)], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        pieces, sides = pick((1, 2, 3, 4, 5, 9)), pick((0, 1, 2))
        return cls(pieces), [(pick((1, 2, 3, 5, 8, 17, 20)) * pieces, *(pick.whole(1, 5) for _ in range(sides)))]
