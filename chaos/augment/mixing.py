"""Kinds that mix images and targets. Imported by chaos.augment; the fast half is cext/augment/mixing.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Core, Draws, Mix, Mixture, Shape

PARTNER, Y, X, BETA = 1, 2, 3, 4  # numbers of a step; the last one begins a row of pairs


@dataclass(frozen=True)
class Mixup(Mix):
    """The mean of an image and another one, with weights lambda and 1 - lambda, and of their targets (Zhang, Cisse, Dauphin,
    Lopez-Paz 2018). Classes become probabilities, which the loss has to take.

    Parameters
    ----------
    alpha : float
        lambda is drawn from the beta distribution with both parameters alpha.
    """

    alpha: float = 0.2

    kind: ClassVar[str] = "mixup"
    spatial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(alpha=self._number("alpha", self.alpha, 1e-3, 1e3))

    def core(self) -> Core:
        return Core(self.kind, (self.p, self.alpha))

    def mixture(self, draws: Draws, shape: Shape, images: int) -> Mixture | None:
        return Mixture(draws.below(PARTNER, images), beta(self.alpha, draws))


@dataclass(frozen=True)
class CutMix(Mix):
    """A box of an image is replaced by that of another one, and as large a part of its target (Yun et al. 2019). The box is
    sqrt(1 - lambda) of the height and width, around a random pixel; of its area as much counts as lies within the image.

    Parameters
    ----------
    alpha : float
        lambda is drawn from the beta distribution with both parameters alpha.
    """

    alpha: float = 1.0

    kind: ClassVar[str] = "cutmix"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(alpha=self._number("alpha", self.alpha, 1e-3, 1e3))

    def core(self) -> Core:
        return Core(self.kind, (self.p, self.alpha))

    def mixture(self, draws: Draws, shape: Shape, images: int) -> Mixture | None:
        half = 0.5 * math.sqrt(1 - beta(self.alpha, draws))
        sides, area = [], 1
        for number, n in ((Y, shape[1]), (X, shape[2])):
            middle, far = int(draws.uniform(number) * n), int(half * n)
            sides.append(slice(max(middle - far, 0), min(middle + far, n)))
            area *= sides[-1].stop - sides[-1].start
        if area == 0:
            return None
        return Mixture(draws.below(PARTNER, images), 1 - area / (shape[1] * shape[2]), (sides[0], sides[1]))


def beta(alpha: float, draws: Draws) -> float:
    """A number of the beta distribution with both parameters alpha."""
    return _cheng(alpha, draws) if alpha > 1 else _joehnk(alpha, draws)


def _open(draws: Draws, j: int) -> float:
    return draws.uniform(j) + 2.0**-25


def _joehnk(alpha: float, draws: Draws) -> float:
    """The first of pairs whose powers 1 / alpha add up to at most 1 (Joehnk 1964)."""
    j = BETA
    while True:
        a, b = math.log(_open(draws, j)) / alpha, math.log(_open(draws, j + 1)) / alpha
        total = float(np.logaddexp(a, b))
        if total <= 0:
            return math.exp(a - total)
        j += 2


def _cheng(alpha: float, draws: Draws) -> float:
    """Algorithm BB of Cheng (1978) for two equal parameters."""
    total = 2 * alpha
    rate = math.sqrt((total - 2) / (2 * alpha * alpha - total))
    j = BETA
    while True:
        u, v = _open(draws, j), rate
        z = u * u * _open(draws, j + 1)
        v *= math.log(u / (1 - u))
        w = alpha * math.exp(v)
        r = (alpha + 1 / rate) * v - math.log(4)
        accepted = alpha + r - w + 1 + math.log(5) >= 5 * z or alpha + r - w >= math.log(z)
        if accepted or r + total * math.log(total / (alpha + w)) >= math.log(z):
            return w / (alpha + w)
        j += 2
