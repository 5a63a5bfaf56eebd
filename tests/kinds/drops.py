"""Drops. A kind for tests/test_registration.py; the fast half is drops.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import EVALUATION, Core, Layer
from .random import uniform


@dataclass(frozen=True, eq=False, repr=False)
class Drops(Layer):
    """Entries are dropped with probability p while the network trains, the others divided by 1 - p."""

    p: float = 0.5

    kind: ClassVar[str] = "drops"

    def core(self, *shapes):
        return Core("drops", real=(self.p,))

    def _factor(self, x, context):
        if not context.training:
            return np.ones_like(x)
        drawn = uniform(context.keys, x[0].size).reshape(x.shape)
        return np.where(drawn < np.float32(self.p), 0, 1 / (1 - self.p)).astype(x.dtype)

    def forward(self, inputs, parts, context=EVALUATION):
        return inputs[0] * self._factor(inputs[0], context)

    def backward(self, inputs, parts, y, dy, context=EVALUATION):
        return [dy * self._factor(inputs[0], context)], {}
