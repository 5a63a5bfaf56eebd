"""Kullback-Leibler divergence. Imported by chaos.losses; the fast half is cext/losses/kl_div.c."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..options import Flag
from .base import VALUES, Array, Loss, flat


class KullbackLeibler(Loss):
    """sum_j t_j (log t_j - y_j) per sample, mean over the samples, as ``torch.nn.KLDivLoss(reduction="batchmean")``: the
    outputs y are log-probabilities, as of a LogSoftmax, the targets t probabilities (0 log 0 = 0), or with `log_target`
    their logarithms. There is no right and wrong."""

    kind = "kl_div"
    targets: ClassVar[tuple[str, ...]] = (VALUES,)
    options = {"log_target": Flag(False, "the targets are logarithms of probabilities")}

    def bounds(self, options: dict[str, Any]) -> tuple[float, float]:
        return super().bounds(options) if options["log_target"] else (0, 1)

    def answers(self, form: str, output_shape: tuple[int, ...]) -> int:
        return 0

    def value(self, y: Array, target: Any, log_target: bool = False) -> float:
        t = flat(np.asarray(target))
        p = np.exp(t) if log_target else t
        log_p = t if log_target else np.log(np.where(t > 0, t, 1))
        return float((p * (log_p - flat(y))).sum() / len(y))

    def gradient(self, y: Array, target: Any, log_target: bool = False) -> Array:
        t = np.asarray(target)
        gradient: Array = -(np.exp(t) if log_target else t) / len(y)
        return gradient
