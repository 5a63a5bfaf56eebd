"""Logarithm of the hyperbolic cosine of differences. A kind for tests/test_registration.py; the fast half is log_cosh.c."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..options import Option
from .base import VALUES, Loss, flat


class LogCosh(Loss):
    """Mean over the outputs of log(cosh(s d)) / s."""

    kind = "log_cosh"
    targets: ClassVar[tuple[str, ...]] = (VALUES,)
    options: ClassVar[dict] = {"sharpness": Option(1.0, "how fast it becomes linear", 0, above=True)}

    def answers(self, form, output_shape):
        return 0

    def value(self, y, target, sharpness=1.0):
        d = sharpness * (flat(y) - flat(np.asarray(target)))
        return ((np.logaddexp(d, -d) - np.log(2)) / sharpness).mean()

    def gradient(self, y, target, sharpness=1.0):
        d = flat(y) - flat(np.asarray(target))
        return (np.tanh(sharpness * d) / d.size).reshape(y.shape)
