"""Negative log-likelihood. Imported by chaos.losses; the fast half is cext/losses/nll.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..options import Numbers, Option
from .base import CLASS, MAP, Array, Loss, rows, shaped, wanted


class NegativeLogLikelihood(Loss):
    """-w_label y_label per answer, mean over all answers: the outputs y are log-probabilities, as of a LogSoftmax. As
    ``torch.nn.functional.nll_loss(..., reduction="none").mean()``; how that differs from PyTorch's mean where there are
    weights or ignored answers says the loss cross_entropy."""

    kind = "nll"
    targets: ClassVar[tuple[str, ...]] = (CLASS, MAP)
    options = {"weight": Numbers(None, "of the classes", 0, each="class")}
    common = {"ignore_index": Option(-100, "class of the answers that count nothing", whole=True)}

    def value(self, y: Array, target: Any, weight: Sequence[float] | None = None, ignore_index: int = -100) -> float:
        x, right = rows(y, target)
        return float(-(wanted(x, right, weight, ignore_index) * x).sum() / len(x))

    def gradient(self, y: Array, target: Any, weight: Sequence[float] | None = None, ignore_index: int = -100) -> Array:
        x, right = rows(y, target)
        return shaped(-wanted(x, right, weight, ignore_index) / len(x), y, target)
