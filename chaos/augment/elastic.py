"""Elastic distortion. Imported by chaos.augment; the fast half is cext/augment/elastic.c."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Array, Draws, Move, Shape

MOST_SIGMA = 32.0  # the core smooths over at most 96 pixels on each side


@dataclass(frozen=True)
class Elastic(Move):
    """Displaces every pixel a little, its neighbours nearly as much (Simard, Steinkraus, Platt 2003): for each pixel two
    random numbers, uniform in -1..1, are smoothed with a Gaussian and multiplied by `alpha`; so far down and to the right is
    where the pixel comes from. In the middle of an image displacements have a standard deviation of about
    alpha / (6.14 sigma) pixels, 1.4 with the defaults; near its borders, beyond which the numbers are 0, less.

    Parameters
    ----------
    alpha : float
        The strength, in pixels.
    sigma : float
        The standard deviation of the Gaussian in pixels, at most 32; its weights add up to 1, and end at ceil(3 sigma).
    """

    alpha: float = 34.0
    sigma: float = 4.0

    kind: ClassVar[str] = "elastic"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            alpha=self._number("alpha", self.alpha, 0, 1e6),
            sigma=self._number("sigma", self.sigma, 0, MOST_SIGMA, above=True),
        )

    def _core(self) -> tuple[str, tuple[float, ...]]:
        return "elastic", (self.alpha, self.sigma)

    def field(self, draws: Draws, shape: Shape) -> Array:
        _, h, w = shape
        pairs = draws.pairs(1, h * w)
        down, along = _smoothing(h, self.sigma), _smoothing(w, self.sigma)
        return np.stack([self.alpha * (down @ (2 * u.reshape(h, w) - 1) @ along) for u in pairs])


@functools.cache
def _smoothing(n: int, sigma: float) -> Array:
    """The symmetric matrix (n, n) of weights."""
    radius = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    far = np.abs(np.arange(n)[:, None] - np.arange(n))
    found: Array = np.where(far <= radius, weights[np.minimum(far, radius) + radius], 0)
    return found
