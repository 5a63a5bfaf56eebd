"""LeCun's scaled hyperbolic tangent. Imported by chaos.layers; the fast half is cext/layers/scaled_tanh.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Array, Elementwise


@dataclass(frozen=True, eq=False, repr=False)
class ScaledTanh(Elementwise):
    """y = 1.7159 tanh(2x/3); dy/dx = 2/3 (1.7159 - y^2 / 1.7159) (LeCun et al., Efficient BackProp, 1998)."""

    kind: ClassVar[str] = "scaled_tanh"

    def f(self, x: Array) -> Array:
        return 1.7159 * np.tanh(x * 2 / 3)

    def derivative(self, y: Array) -> Array:
        return 2 / 3 * (1.7159 - y * y / 1.7159)
