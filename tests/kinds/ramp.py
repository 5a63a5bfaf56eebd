"""A leaky rectifier once more. A kind for tests/test_registration.py; the fast half is ramp.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import EVALUATION, Core, Layer


@dataclass(frozen=True, eq=False, repr=False)
class Ramp(Layer):
    """y = x where x > 0, else negative_slope * x, as ``torch.nn.LeakyReLU``."""

    negative_slope: float = 0.01

    kind: ClassVar[str] = "ramp"

    def core(self, *shapes):
        return Core("ramp", real=(self.negative_slope,))

    def forward(self, inputs, parts, context=EVALUATION):
        return np.where(inputs[0] > 0, inputs[0], self.negative_slope * inputs[0])

    def backward(self, inputs, parts, y, dy, context=EVALUATION):
        return [np.where(inputs[0] > 0, dy, self.negative_slope * dy)], {}

    @classmethod
    def example(cls, pick):
        _, shapes = super().example(pick)
        return cls(pick((0.01, 0.2, 0.0, -0.5))), shapes

    def smooth(self, x):
        return np.where(np.abs(x) < 1e-3, 0.5, x)
