"""Softmax cross-entropy. Imported by chaos.losses; the fast half is cext/losses/cross_entropy.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..options import Numbers, Option
from .base import CLASS, MAP, VALUES, Array, Loss, rows, shaped, wanted


class CrossEntropy(Loss):
    """-sum_j w_j t_j log softmax(y)_j per answer, mean over all answers (samples; pixels, where each has one).

    The target t is onehot(label), or values: the probability of every class, from 0 to 1 (that they add up to 1 is not
    asked for). Of outputs that are images each pixel has its target: a class, or the probabilities of the channels; with
    one class per sample all outputs together are the classes. With `label_smoothing` s of k classes t becomes
    (1 - s) t + s / k.

    This is ``torch.nn.functional.cross_entropy(y, target, weight, ignore_index=..., label_smoothing=...,
    reduction="none").mean()``. PyTorch's own mean is the same without `weight` and ignored answers; with them, of classes,
    it divides by the sum of the weights of the batch's right classes, and is this one times n / sum_i w_label(i), where n
    counts all answers and ignored ones weigh nothing. Here a sample's loss depends on no other sample of its batch, as
    workers that take one at a time need it, and answers that are ignored (class `ignore_index`, which may also be one of
    the outputs) have the loss 0.

    An answer is wrong where the largest output is not the right class, or not the most probable one; ignored ones are not
    counted."""

    kind = "cross_entropy"
    targets: ClassVar[tuple[str, ...]] = (CLASS, MAP, VALUES)
    options = {
        "weight": Numbers(None, "of the classes", 0, each="class"),
        "label_smoothing": Option(0.0, "how much of the target goes to all classes alike", 0, 1),
    }
    common = {"ignore_index": Option(-100, "class of the answers that count nothing", whole=True)}

    def bounds(self, options: dict[str, Any]) -> tuple[float, float]:
        return 0, 1

    def answers(self, form: str, output_shape: tuple[int, ...]) -> int:
        return 1 if form == CLASS else int(np.prod(output_shape[1:]))

    def _parts(
        self, y: Array, target: Any, weight: Sequence[float] | None, ignore_index: int, smoothing: float
    ) -> tuple[Array, Array]:
        """Rows of outputs, and w_j t_j for them."""
        x, right = rows(y, target)
        w = 1.0 if weight is None else np.asarray(weight)
        if right.ndim > 1:
            return x, w * ((1 - smoothing) * right + smoothing / x.shape[1])
        counts = (right != ignore_index)[:, None]
        return x, (1 - smoothing) * wanted(x, right, weight, ignore_index) + counts * smoothing / x.shape[1] * w

    def value(
        self,
        y: Array,
        target: Any,
        weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> float:
        x, t = self._parts(y, target, weight, ignore_index, label_smoothing)
        top = x.max(1, keepdims=True)
        log_sum = np.log(np.exp(x - top).sum(1, keepdims=True)) + top
        return float((t * (log_sum - x)).sum() / len(x))

    def gradient(
        self,
        y: Array,
        target: Any,
        weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> Array:
        x, t = self._parts(y, target, weight, ignore_index, label_smoothing)
        e = np.exp(x - x.max(1, keepdims=True))
        return shaped((t.sum(1, keepdims=True) * e / e.sum(1, keepdims=True) - t) / len(x), y, target)
