"""Sum of branches. Imported by chaos.layers; the fast half is cext/layers/add.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import EVALUATION, Array, Arrays, Context, Layer, Parts, Shape


@dataclass(frozen=True, eq=False, repr=False)
class Add(Layer):
    """Elementwise sum of 1 to 16 inputs of equal shape: how the branches of a graph meet.

    ``chaos.Add()(y, shortcut)``
    """

    kind: ClassVar[str] = "add"
    inputs: ClassVar[tuple[int, int | None]] = (1, 16)  # MAX_INPUTS of cext/layers/layer.h; sums can be summed

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(set(shapes)) != 1:
            raise ValueError(f"{self} needs inputs of equal shape, not {', '.join(map(str, shapes))}")
        return shapes[0]

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return sum(inputs[1:], inputs[0])

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [dy] * len(inputs), {}
