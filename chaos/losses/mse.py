"""Squared error. Imported by chaos.losses; the fast half is cext/losses/mse.c."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .base import CLASS, VALUES, Array, Loss, flat, onehot


class MeanSquaredError(Loss):
    """Mean over the k outputs of (y - target)^2, as ``torch.nn.MSELoss``; of classes against their one-hot vectors."""

    kind = "mse"
    targets: ClassVar[tuple[str, ...]] = (CLASS, VALUES)

    def answers(self, form: str, output_shape: tuple[int, ...]) -> int:
        return int(form == CLASS)

    def _error(self, y: Array, target: Any) -> Array:
        target = np.asarray(target)
        return flat(y) - (onehot(y, target) if target.ndim == 1 and target.dtype.kind in "iu" else flat(target))

    def value(self, y: Array, target: Any) -> float:
        return float(np.square(self._error(y, target)).mean())

    def gradient(self, y: Array, target: Any) -> Array:
        return (2 * self._error(y, target) / y.size).reshape(y.shape)
