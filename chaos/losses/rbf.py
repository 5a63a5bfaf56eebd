"""LeNet-5's loss of distances. Imported by chaos.losses; the fast half is cext/losses/rbf.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..options import Option
from .base import Array, Loss, flat, onehot


class RadialBasis(Loss):
    """-y_label + log(exp(-j) + sum_i exp y_i) per sample, mean over the samples: LeCun, Bottou, Bengio, Haffner 1998,
    Gradient-based learning applied to document recognition, eq. 9, of outputs y that are *negated* penalties (squared
    distances to the classes' codes, eq. 7), so that the largest output is the answer as in all other losses. With `j` none
    the loss is eq. 8, -y_label: then only the right class's penalty counts, and codes that are trained collapse."""

    kind = "rbf"
    options = {"j": Option(None, "penalty of belonging to no class (eq. 9); none: eq. 8")}

    def _with_none(self, y: Array, j: float) -> Array:
        """The outputs, and that of no class."""
        return np.column_stack((flat(y), np.full(len(y), -j, y.dtype)))

    def value(self, y: Array, target: Any, j: float | None = None) -> float:
        loss = -flat(y)[np.arange(len(y)), target]
        return float((loss if j is None else loss + np.logaddexp.reduce(self._with_none(y, j), axis=1)).mean())

    def gradient(self, y: Array, target: Any, j: float | None = None) -> Array:
        dy = -onehot(y, target)
        if j is not None:
            x = self._with_none(y, j)
            dy += np.exp(x - np.logaddexp.reduce(x, axis=1)[:, None])[:, :-1]
        return (dy / len(y)).reshape(y.shape)
