"""Logistic function. Imported by chaos.layers; the fast half is cext/layers/sigmoid.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Array, Elementwise


@dataclass(frozen=True, eq=False, repr=False)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x)); dy/dx = y (1 - y)."""

    kind: ClassVar[str] = "sigmoid"

    def f(self, x: Array) -> Array:
        y: Array = 0.5 * (1 + np.tanh(x / 2))
        return y

    def derivative(self, y: Array) -> Array:
        slope: Array = y * (1 - y)
        return slope
