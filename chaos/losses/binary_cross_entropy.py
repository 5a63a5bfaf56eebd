"""Cross-entropy of yes-or-no answers. Imported by chaos.losses; the fast half is cext/losses/binary_cross_entropy.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..options import Numbers
from .base import VALUES, Array, Loss, flat


class BinaryCrossEntropy(Loss):
    """Mean over k independent answers of log(1 + exp y) - t y, as ``torch.nn.BCEWithLogitsLoss``: the targets t are 0 or 1,
    several of them may be 1, or numbers between. `pos_weight` multiplies the loss of what is 1: one number, or one for each
    output (of images: each channel, PyTorch's of the shape (c, 1, 1)). An answer is counted as wrong where y > 0 and
    t > 1/2 disagree."""

    kind = "binary_cross_entropy"
    targets: ClassVar[tuple[str, ...]] = (VALUES,)
    options = {"pos_weight": Numbers(1.0, "weight of the answers that are yes", 0, above=True, each="channel")}

    def answers(self, form: str, output_shape: tuple[int, ...]) -> int:
        return int(np.prod(output_shape))

    def _weights(self, y: Array, pos_weight: float | Sequence[float]) -> Array:
        """Of every output, flat."""
        by_channel = np.broadcast_to(np.asarray(pos_weight, y.dtype), y.shape[1:2])
        return np.repeat(by_channel, y[0, 0].size)

    def value(self, y: Array, target: Any, pos_weight: float | Sequence[float] = 1.0) -> float:
        w, y, t = self._weights(y, pos_weight), flat(y), flat(np.asarray(target))
        log_no = np.logaddexp(0, y)  # -log(1 - p)
        return float((w * t * (log_no - y) + (1 - t) * log_no).mean())

    def gradient(self, y: Array, target: Any, pos_weight: float | Sequence[float] = 1.0) -> Array:
        w, x, t = self._weights(y, pos_weight), flat(y), flat(np.asarray(target))
        p = np.exp(-np.logaddexp(0, -x))
        dy: Array = ((1 - t) * p - w * t * (1 - p)) / y.size
        return dy.reshape(y.shape)
