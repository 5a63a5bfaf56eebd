"""Cross-entropy of yes-or-no answers. Imported by chaos.losses; the fast half is cext/losses/binary_cross_entropy.c."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..options import Option
from .base import VALUES, Array, Loss, flat


class BinaryCrossEntropy(Loss):
    """Mean over k independent answers of log(1 + exp y) - t y, as ``torch.nn.BCEWithLogitsLoss``: the targets t are 0 or 1,
    several of them may be 1, or numbers between. `pos_weight` multiplies the loss of what is 1. An answer is counted as
    wrong where y > 0 and t > 1/2 disagree."""

    kind = "binary_cross_entropy"
    targets: ClassVar[tuple[str, ...]] = (VALUES,)
    options = {"pos_weight": Option(1.0, "weight of the answers that are yes", 0, above=True)}

    def answers(self, form: str, output_shape: tuple[int, ...]) -> int:
        return int(np.prod(output_shape))

    def value(self, y: Array, target: Any, pos_weight: float = 1.0) -> float:
        y, t = flat(y), flat(np.asarray(target))
        log_no = np.logaddexp(0, y)  # -log(1 - p)
        return float((pos_weight * t * (log_no - y) + (1 - t) * log_no).mean())

    def gradient(self, y: Array, target: Any, pos_weight: float = 1.0) -> Array:
        x, t = flat(y), flat(np.asarray(target))
        p = np.exp(-np.logaddexp(0, -x))
        dy: Array = ((1 - t) * p - pos_weight * t * (1 - p)) / y.size
        return dy.reshape(y.shape)
