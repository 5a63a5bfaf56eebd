"""Adam with decoupled weight decay. Imported by chaos.updates; the fast half is cext/updates/adamw.c."""

from __future__ import annotations

from ..options import Option
from .adam import Adam
from .base import LARGEST, Array, Arrays, penalised


class AdamW(Adam):
    """w <- (1 - lr * weight_decay) * w, then `adam` without weight decay; l1 is in the gradient, as everywhere.

    As ``torch.optim.AdamW(betas=(beta1, beta2))``; its default weight_decay is 0.01. Source: Loshchilov, Hutter 2019.
    """

    kind = "adamw"
    common = Adam.common | {"weight_decay": Option(0.01, "decoupled decay of weights and biases", 0, LARGEST)}

    def apply(
        self,
        w: Array,
        dw: Array,
        moments: Arrays,
        lr: float,
        t: int,
        *,
        weight_decay: float = 0.01,
        l1: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> tuple[Array, Arrays]:
        g = penalised(w, dw, 0.0, l1)
        return self._step((1 - lr * weight_decay) * w, g, moments, lr, t, beta1, beta2, eps)
