"""Plain SGD. Imported by chaos.updates; the fast half is cext/updates/sgd.c."""

from __future__ import annotations

from .base import Array, Arrays, Update, penalised


class SGD(Update):
    """w <- w - lr * dw, as ``torch.optim.SGD``."""

    kind = "sgd"

    def apply(
        self, w: Array, dw: Array, moments: Arrays, lr: float, t: int, *, weight_decay: float = 0.0, l1: float = 0.0
    ) -> tuple[Array, Arrays]:
        return w - lr * penalised(w, dw, weight_decay, l1), []
