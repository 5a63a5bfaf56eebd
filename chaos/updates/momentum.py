"""SGD with momentum. Imported by chaos.updates; the fast half is cext/updates/momentum.c."""

from __future__ import annotations

from typing import Any

from ..options import Flag, Option
from .base import Array, Arrays, Update, penalised

CORRECTION = Flag(False, "lower the momentum by what asynchronous workers bring along")


class Momentum(Update):
    """b <- momentum * b + (1 - dampening) * dw, at the first update b = dw; w <- w - lr * b. With momentum=0 this is plain
    SGD, and dampening does not count, as in PyTorch.

    As ``torch.optim.SGD(momentum=..., dampening=...)``. Source: Polyak 1964; Sutskever, Martens, Dahl, Hinton 2013.

    With `correct_asynchrony` the core gets a smaller momentum, for asynchronous strategies, see `corrected`.
    """

    kind = "momentum"
    tried_with = {"lr": 0.002}
    state = ("momentum_buffer",)
    options = {
        "momentum": Option(0.9, "share of the buffer that is kept", 0, 1),
        "dampening": Option(0.0, "share of the gradient that is left out; ignored with momentum=0, as in PyTorch", 0, 1),
        "correct_asynchrony": CORRECTION,
    }

    def core_options(self, resolved: dict[str, Any]) -> list[float]:
        return super().core_options(resolved)[:-1]  # the core gets the corrected momentum

    def for_workers(self, resolved: dict[str, Any], workers: int) -> dict[str, Any]:
        if resolved["momentum"] == 0 and resolved.get("dampening"):  # what was asked for, not what the correction leaves
            resolved = resolved | {"dampening": 0.0}
        if not resolved["correct_asynchrony"]:
            return resolved
        return resolved | {"momentum": corrected(resolved["momentum"], workers)}

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
        momentum: float = 0.9,
        dampening: float = 0.0,
    ) -> tuple[Array, Arrays]:
        b = momentum * moments[0] + (1.0 if t == 1 or momentum == 0 else 1 - dampening) * penalised(w, dw, weight_decay, l1)
        return w - lr * b, [b]


def corrected(momentum: float, workers: int) -> float:
    """The momentum that gives, together with the asynchrony of `workers` workers, the momentum asked for.

    Mitliagkas, Zhang, Hadjis, Re 2016 ("Asynchrony begets momentum"): the expected steps of p asynchronous workers with
    random service times are those of SGD with momentum 1 - 1/p. A momentum m spreads a gradient over the following updates
    with a mean delay of m / (1 - m), which for 1 - 1/p is p - 1; delays of the two add up, so the one to apply is

        m' with m' / (1 - m') = m / (1 - m) - (p - 1), at least 0, that is
        m' = max(0, 1 - 1 / (1 / (1 - m) - (p - 1))).

    The paper gives the momentum of asynchrony and asks for less explicit momentum; counting in mean delays is this module's
    reading of it. A momentum of 1 stays 1.
    """
    if momentum >= 1:
        return momentum
    length = 1 / (1 - momentum) - (workers - 1)
    return 1 - 1 / length if length > 1 else 0.0
