"""Rectifier. Imported by chaos.layers; the fast half is cext/layers/relu.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Array, Elementwise


@dataclass(frozen=True, eq=False, repr=False)
class ReLU(Elementwise):
    """y = max(x, 0); dy/dx = 1 where y > 0, else 0."""

    kind: ClassVar[str] = "relu"

    def f(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def derivative(self, y: Array) -> Array:
        return (y > 0).astype(y.dtype)

    @classmethod
    def smooth(cls, x: Array) -> Array:
        return np.where(np.abs(x) < 1e-3, 0.5, x)
