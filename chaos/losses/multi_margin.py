"""Hinge loss of several classes. Imported by chaos.losses; the fast half is cext/losses/multi_margin.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..options import Numbers, Option
from .base import Array, Loss, flat


class MultiMargin(Loss):
    """w_label sum_{j != label} max(0, margin - y_label + y_j)^p / k per sample of k classes, mean over the samples, as
    ``torch.nn.MultiMarginLoss``."""

    kind = "multi_margin"
    options = {
        "weight": Numbers(None, "of the classes", 0, each="class"),
        "p": Option(1, "power of what a margin lacks, 1 or 2", 1, 2, whole=True),
        "margin": Option(1.0, "by which the right output should be larger than the others"),
    }

    def _lacking(self, y: Array, labels: Any, margin: float) -> Array:
        lacking: Array = np.maximum(0, margin - y[np.arange(len(y)), labels][:, None] + y)
        lacking[np.arange(len(y)), labels] = 0
        return lacking

    def _weights(self, labels: Any, weight: Sequence[float] | None) -> Array:
        weights: Array = np.ones((len(labels), 1)) if weight is None else np.asarray(weight)[labels][:, None]
        return weights

    def value(self, y: Array, target: Any, weight: Sequence[float] | None = None, p: int = 1, margin: float = 1.0) -> float:
        return float((self._weights(target, weight) * self._lacking(flat(y), target, margin) ** p).sum() / y.size)

    def gradient(
        self, y: Array, target: Any, weight: Sequence[float] | None = None, p: int = 1, margin: float = 1.0
    ) -> Array:
        lacking = self._lacking(flat(y), target, margin)
        dy = self._weights(target, weight) * ((lacking > 0) if p == 1 else 2 * lacking) / y.size
        dy[np.arange(len(y)), target] = -dy.sum(1)
        return dy.reshape(y.shape)
