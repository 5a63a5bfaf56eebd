"""Adam. Imported by chaos.updates; the fast half is cext/updates/adam.c."""

from __future__ import annotations

import math

import numpy as np

from ..options import Option
from .base import LARGEST, SMALLEST, Array, Arrays, Update, penalised

BELOW_1 = 1 - 2.0**-53  # a larger beta would make 1 - beta^t zero


class Adam(Update):
    """m <- beta1 * m + (1 - beta1) * dw; v <- beta2 * v + (1 - beta2) * dw^2;
    w <- w - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps).

    As ``torch.optim.Adam(betas=(beta1, beta2))``. Source: Kingma, Ba 2015.
    """

    kind = "adam"
    tried_with = {"lr": 0.002}
    state = ("exp_avg", "exp_avg_sq")
    options = {
        "beta1": Option(0.9, "share of the mean gradient that is kept", 0, BELOW_1),
        "beta2": Option(0.999, "share of the mean square that is kept", 0, BELOW_1),
        "eps": Option(1e-8, "added to the denominator", SMALLEST, LARGEST),
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
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> tuple[Array, Arrays]:
        return self._step(w, penalised(w, dw, weight_decay, l1), moments, lr, t, beta1, beta2, eps)

    def _step(
        self, w: Array, g: Array, moments: Arrays, lr: float, t: int, beta1: float, beta2: float, eps: float
    ) -> tuple[Array, Arrays]:
        m = moments[0] + (1 - beta1) * (g - moments[0])
        v = beta2 * moments[1] + (1 - beta2) * g * g
        root = np.sqrt(v) * (1 / math.sqrt(1 - beta2**t)) + eps
        return w + -lr / (1 - beta1**t) * m / root, [m, v]
