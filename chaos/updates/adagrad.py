"""AdaGrad. Imported by chaos.updates; the fast half is cext/updates/adagrad.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..options import Option
from .base import LARGEST, SMALLEST, Array, Arrays, Update, penalised


class Adagrad(Update):
    """s <- s + dw^2, from initial_accumulator_value on; w <- w - lr / (1 + (t - 1) * lr_decay) * dw / (sqrt(s) + eps).

    As ``torch.optim.Adagrad``. Source: Duchi, Hazan, Singer 2011.
    """

    kind = "adagrad"
    state = ("sum",)
    options = {
        "lr_decay": Option(0.0, "decay of the learning rate from update to update", 0),
        "initial_accumulator_value": Option(0.0, "the sum of squares before the first update", 0, LARGEST),
        "eps": Option(1e-10, "added to the denominator", SMALLEST, LARGEST),
    }

    def start(self, moments: Array, resolved: dict[str, Any]) -> None:
        moments[0] = resolved["initial_accumulator_value"]

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
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> tuple[Array, Arrays]:
        g = penalised(w, dw, weight_decay, l1)
        s = moments[0] + g * g
        return w + -lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s) + eps), [s]
