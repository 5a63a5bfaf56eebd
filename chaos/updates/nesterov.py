"""SGD with Nesterov's momentum. Imported by chaos.updates; the fast half is cext/updates/nesterov.c."""

from __future__ import annotations

from ..options import Option
from .base import Array, Arrays, penalised
from .momentum import CORRECTION, Momentum


class Nesterov(Momentum):
    """b <- momentum * b + dw; w <- w - lr * (dw + momentum * b). Without momentum it is refused, as by PyTorch.

    As ``torch.optim.SGD(momentum=..., nesterov=True)``. Source: Nesterov 1983; Sutskever, Martens, Dahl, Hinton 2013.
    `correct_asynchrony` as for `momentum`.
    """

    kind = "nesterov"
    options = {
        "momentum": Option(0.9, "share of the buffer that is kept", 0, 1, above=True),
        "correct_asynchrony": CORRECTION,
    }

    def apply(  # type: ignore[override]  # without dampening
        self,
        w: Array,
        dw: Array,
        moments: Arrays,
        lr: float,
        t: int,
        *,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        momentum: float = 0.9,
    ) -> tuple[Array, Arrays]:
        g = penalised(w, dw, weight_decay, l1)
        b = momentum * moments[0] + g
        return w - lr * (g + momentum * b), [b]
