"""Losses of the differences between outputs and targets. Imported by chaos.losses; the fast half is
cext/losses/differences.c, a row for each class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..options import Option
from .base import VALUES, Array, Loss, flat


class Difference(Loss):
    """Mean over the outputs of a function of d = y - target; there is no right and wrong."""

    targets: ClassVar[tuple[str, ...]] = (VALUES,)

    def answers(self, form: str, output_shape: tuple[int, ...]) -> int:
        return 0

    _of: Callable[..., Array]
    _slope: Callable[..., Array]

    def value(self, y: Array, target: Any, **options: float) -> float:
        return float(self._of(flat(y) - flat(np.asarray(target)), **options).mean())

    def gradient(self, y: Array, target: Any, **options: float) -> Array:
        return (self._slope(flat(y) - flat(np.asarray(target)), **options) / y.size).reshape(y.shape)


class MeanAbsoluteError(Difference):
    """Mean of |d|, as ``torch.nn.L1Loss``; slope 0 at 0."""

    kind = "l1"

    def _of(self, d: Array) -> Array:
        size: Array = np.abs(d)
        return size

    def _slope(self, d: Array) -> Array:
        sign: Array = np.sign(d)
        return sign


class Huber(Difference):
    """Mean of d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), as ``torch.nn.HuberLoss`` (Huber 1964)."""

    kind = "huber"
    options = {"delta": Option(1.0, "the difference from which it is linear", 0, above=True)}

    def _of(self, d: Array, delta: float = 1.0) -> Array:
        size = np.abs(d)
        return np.where(size < delta, d * d / 2, delta * (size - delta / 2))

    def _slope(self, d: Array, delta: float = 1.0) -> Array:
        slope: Array = np.clip(d, -delta, delta)
        return slope


class SmoothL1(Difference):
    """Mean of d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, as ``torch.nn.SmoothL1Loss`` (Girshick 2015, Fast R-CNN,
    eq. 3); with beta 0 that is l1."""

    kind = "smooth_l1"
    options = {"beta": Option(1.0, "the difference from which it is linear", 0)}

    def _of(self, d: Array, beta: float = 1.0) -> Array:
        size = np.abs(d)
        return np.where(size < beta, d * d / (2 * beta or 1), size - beta / 2)

    def _slope(self, d: Array, beta: float = 1.0) -> Array:
        return np.where(np.abs(d) < beta, d / (beta or 1), np.sign(d))
