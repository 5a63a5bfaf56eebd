"""Hyperbolic tangent. Imported by chaos.layers; the fast half is cext/layers/tanh.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Elementwise


@dataclass(frozen=True, eq=False, repr=False)
class Tanh(Elementwise):
    """y = tanh(x); dy/dx = 1 - y^2."""

    kind: ClassVar[str] = "tanh"

    def f(self, x):
        return np.tanh(x)

    def derivative(self, y):
        return 1 - y * y
