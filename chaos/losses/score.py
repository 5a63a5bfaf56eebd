"""Negative score. Imported by chaos.losses; the fast half is cext/losses/score.c."""

from typing import Any

import numpy as np

from .base import Array, Loss, flat, onehot


class Score(Loss):
    """-y_label per sample: linear, so its gradient -onehot(label) is the same whatever the weights.

    Unbounded below, hence useless for training to a result; it makes the sum of all updates of a run known in advance,
    which is how conservation of updates is proven.
    """

    kind = "score"
    proves = True

    def value(self, y: Array, target: Any) -> float:
        return float(-flat(y)[np.arange(len(y)), target].mean())

    def gradient(self, y: Array, target: Any) -> Array:
        return (-onehot(y, target) / len(y)).reshape(y.shape)
