"""Hyperbolic tangent. Imported by chaos.layers; the fast half is cext/layers/tanh.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Array, Elementwise


@dataclass(frozen=True, eq=False, repr=False)
class Tanh(Elementwise):
    """y = tanh(x); dy/dx = 1 - y^2."""

    kind: ClassVar[str] = "tanh"

    def f(self, x: Array) -> Array:
        return np.tanh(x)

    def derivative(self, y: Array) -> Array:
        return 1 - y * y
