"""Softmax cross-entropy. Imported by chaos.losses; the fast half is cext/losses/cross_entropy.c."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..options import Option
from .base import CLASS, MAP, Array, Loss, flat, pixels_last


class CrossEntropy(Loss):
    """log(sum_j exp y_j) - sum_j t_j y_j per sample, as ``torch.nn.CrossEntropyLoss``, with t = onehot(label); gradient
    softmax(y) - t. Of maps the mean over the pixels. With label_smoothing s, t = (1 - s) onehot(label) + s / k."""

    kind = "cross_entropy"
    targets: ClassVar[tuple[str, ...]] = (CLASS, MAP)
    options = {"label_smoothing": Option(0.0, "how much of the target goes to all classes alike", 0, 1)}

    def _softmax(self, y: Array) -> Array:
        e = np.exp(y - y.max(1, keepdims=True))
        p: Array = e / e.sum(1, keepdims=True)
        return p

    def _wanted(self, y: Array, labels: Array, smoothing: float) -> Array:
        t = np.zeros_like(y)
        t[np.arange(len(y)), labels] = 1
        wanted: Array = (1 - smoothing) * t + smoothing / y.shape[1]
        return wanted

    def _rows(self, y: Array, target: Any) -> tuple[Array, Array]:
        target = np.asarray(target)
        return (flat(y), target) if target.ndim == 1 else pixels_last(y, target)

    def value(self, y: Array, target: Any, label_smoothing: float = 0.0) -> float:
        y, labels = self._rows(y, target)
        top = y.max(1)
        log_sum = np.log(np.exp(y - top[:, None]).sum(1)) + top
        return float((log_sum - (self._wanted(y, labels, label_smoothing) * y).sum(1)).mean())

    def gradient(self, y: Array, target: Any, label_smoothing: float = 0.0) -> Array:
        rows, labels = self._rows(y, target)
        dy = (self._softmax(rows) - self._wanted(rows, labels, label_smoothing)) / len(rows)
        if np.ndim(target) == 1:
            return dy.reshape(y.shape)
        return np.moveaxis(dy.reshape(len(y), -1, y.shape[1]), 2, 1).reshape(y.shape)
