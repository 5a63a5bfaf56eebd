"""RMSprop. Imported by chaos.updates; the fast half is cext/updates/rmsprop.c."""

from __future__ import annotations

import numpy as np

from ..options import Flag, Option
from .base import LARGEST, SMALLEST, Array, Arrays, Update, penalised


class RMSprop(Update):
    """v <- alpha * v + (1 - alpha) * dw^2; w <- w - lr * dw / (sqrt(v) + eps).

    With `centered` (Graves 2013) a <- alpha * a + (1 - alpha) * dw and sqrt(v - a^2) takes the place of sqrt(v), where
    v - a^2 counts as 0 should rounding make it negative (PyTorch's weights become NaN then). With `momentum` above 0:
    b <- momentum * b + dw / (sqrt(v) + eps); w <- w - lr * b.

    As ``torch.optim.RMSprop``. Source: Tieleman, Hinton 2012.
    """

    kind = "rmsprop"
    tried_with = {"lr": 0.001}
    state = ("square_avg", "momentum_buffer", "grad_avg")
    options = {
        "alpha": Option(0.99, "share of the mean square that is kept", 0, 1),
        "eps": Option(1e-8, "added to the denominator", SMALLEST, LARGEST),
        "momentum": Option(0.0, "share of the buffer that is kept", 0, 1),
        "centered": Flag(False, "divide by the deviation from the mean gradient"),
    }

    def apply(
        self,
        w: Array,
        dw: Array,
        moments: Arrays,
        lr: float,
        t: int,
        *,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> tuple[Array, Arrays]:
        square, buffer, mean = moments
        g = penalised(w, dw, weight_decay, l1)
        v = square = alpha * square + (1 - alpha) * g * g
        if centered:
            mean = mean + (1 - alpha) * (g - mean)
            v = np.maximum(square - mean * mean, 0)
        root = np.sqrt(v) + eps
        if momentum > 0:
            buffer = momentum * buffer + g / root
            return w - lr * buffer, [square, buffer, mean]
        return w + -lr * g / root, [square, buffer, mean]
