"""Sum of branches. Imported by chaos.layers; the fast half is cext/layers/add.c, or a row of arithmetic.c where an input is
repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .arithmetic import broadcast, pair_of_shapes, summed
from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape


@dataclass(frozen=True, eq=False, repr=False)
class Add(Layer):
    """Elementwise sum: how the branches of a graph meet. Of 1 to 16 inputs of equal shape; of two also with size 1 where the
    other has more.

    ``chaos.Add()(y, shortcut)``
    """

    kind: ClassVar[str] = "add"
    inputs: ClassVar[tuple[int, int | None]] = (1, 16)  # MAX_INPUTS of cext/layers/layer.h; sums can be summed

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(set(shapes)) == 1:
            return shapes[0]
        if len(shapes) == 2:
            return broadcast(self, *shapes)
        raise ValueError(f"{self} needs inputs of equal shape, not {', '.join(map(str, shapes))}")

    def core(self, *shapes: Shape) -> Core:
        return Core("add" if len(set(shapes)) == 1 else "plus")

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return sum(inputs[1:], inputs[0])

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [summed(dy, x.shape) for x in inputs], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        if pick((True, False)):
            return cls(), pair_of_shapes(pick)
        return super().example(pick)
