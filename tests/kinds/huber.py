"""Huber loss. A kind for tests/test_registration.py; the fast half is huber.c."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..options import Option
from .base import VALUES, Loss, flat


class Huber(Loss):
    """Mean over the outputs of d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), as ``torch.nn.HuberLoss``."""

    kind = "huber"
    targets: ClassVar[tuple[str, ...]] = (VALUES,)
    options: ClassVar[dict] = {"delta": Option(1.0, "where it becomes linear", 0, above=True)}

    def answers(self, form, output_shape):
        return 0

    def value(self, y, target, delta=1.0):
        d = np.abs(flat(y) - flat(np.asarray(target)))
        return np.where(d < delta, d * d / 2, delta * (d - delta / 2)).mean()

    def gradient(self, y, target, delta=1.0):
        d = flat(y) - flat(np.asarray(target))
        return (np.clip(d, -delta, delta) / d.size).reshape(y.shape)
