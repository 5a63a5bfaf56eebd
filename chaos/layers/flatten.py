"""Images to vectors. Imported by chaos.layers; the fast half is cext/layers/flatten.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Layer, Parts, Shape


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(Layer):
    """(c, h, w) to the vector of c*h*w features in C order, as ``torch.nn.Flatten``."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, *shapes: Shape) -> Shape:
        return (int(np.prod(shapes[0])),)

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return inputs[0].reshape(len(inputs[0]), -1)

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [dy.reshape(inputs[0].shape)], {}
