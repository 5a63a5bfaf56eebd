"""Noise. Imported by chaos.augment; the fast half is cext/augment/gaussian_noise.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Array, Core, Draws, Paint, Pair


@dataclass(frozen=True)
class GaussianNoise(Paint):
    """Adds independent normal numbers to an image. Pixels (uint8) stay within 0..255; the layer `chaos.GaussianNoise` adds
    noise that knows no bounds.

    Parameters
    ----------
    sigma : float
        The noise's standard deviation, in the images' own numbers (uint8: 0..255).
    """

    sigma: float = 10.0

    kind: ClassVar[str] = "gaussian_noise"
    spatial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(sigma=self._number("sigma", self.sigma, 0, 1e30))

    def core(self) -> Core:
        return Core("gaussian_noise", (self.p, self.sigma))

    def paint(self, x: Array, draws: Draws, black: float, unit: float, bounds: Pair) -> Array:
        u, v = draws.pairs(1, x.size)  # Box, Muller 1958
        z = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)
        found: Array = np.clip(x + self.sigma * unit * z.reshape(x.shape), *bounds)
        return found
