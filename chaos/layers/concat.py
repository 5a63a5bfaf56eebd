"""Inputs one behind the other. Imported by chaos.layers; the fast half is cext/layers/concat.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape
from .rearrange import asked_dims, core_axis, place_of


@dataclass(frozen=True, eq=False, repr=False)
class Concat(Layer):
    """1 to 16 inputs one behind the other, as ``torch.cat``: ``chaos.Concat()(a, b)``.

    Parameters
    ----------
    dim : int
        Counted with the images as 0: 1 is the channels.
    """

    dim: int = 1

    kind: ClassVar[str] = "concat"
    inputs: ClassVar[tuple[int, int | None]] = (1, 16)  # MAX_INPUTS of cext/layers/layer.h

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(asked_dims(self, self.dim, "dim")) != 1:
            raise ValueError(f"Concat: dim must be one dimension, not {self.dim!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        first = shapes[0]
        try:
            at = place_of(self.dim, len(first) + 1) - 1
        except ValueError as error:
            raise ValueError(f"{self} on shape {first}: {error}") from None
        for shape in shapes:
            if len(shape) != len(first) or shape[:at] + shape[at + 1 :] != first[:at] + first[at + 1 :]:
                raise ValueError(
                    f"{self} needs inputs of equal shapes but for that dimension, not {', '.join(map(str, shapes))}"
                )
        return (*first[:at], sum(shape[at] for shape in shapes), *first[at + 1 :])

    def core(self, *shapes: Shape) -> Core:
        return Core("concat", 0, (core_axis(self.dim, shapes[0]),))

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return np.concatenate(inputs, self.dim)

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        ends = np.cumsum([x.shape[self.dim] for x in inputs])[:-1]
        return [*np.split(dy, ends, self.dim)], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        dim, shape = pick((1, 1, 2, 3, -1)), (pick(ODD), pick.whole(1, 4), pick.whole(1, 4))
        shapes: list[Shape] = [shape]
        for _ in range(pick.whole(0, 3)):
            other = list(shape)
            other[dim if dim < 0 else dim - 1] = pick.whole(1, 9)
            shapes.append(tuple(other))
        return cls(dim), shapes
