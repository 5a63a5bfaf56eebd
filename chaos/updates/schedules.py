"""Learning-rate schedules: functions of the epoch. Imported by chaos.updates."""

from __future__ import annotations

import math
from typing import Any

from ..options import Option, WithOptions


class Schedule(WithOptions):
    """A learning rate for every epoch.

    All schedules have the option `warmup`: in epoch e = 1..warmup the learning rate is lr * e / (warmup + 1) (linear, as
    Goyal et al. 2017), and the schedule's own first epoch is number warmup + 1.

    Attributes
    ----------
    name : str
    """

    name: str = ""
    common = {"warmup": Option(0, "epochs of linear warm-up before it", 0, 1 << 31, whole=True)}

    def _called(self) -> str:
        return f"learning-rate schedule {self.name!r}"

    def settle(self, resolved: dict[str, Any], epochs: int) -> dict[str, Any]:
        """The options with what follows from the number of epochs; ValueError where they do not go with it."""
        return resolved

    def rate(self, lr: float, decay: float, epoch: int, *, warmup: int = 0, **options: Any) -> float:
        """The learning rate of an epoch.

        Parameters
        ----------
        lr : float
            Of the first epoch after the warm-up.
        decay : float
            The factor of the schedules that have one.
        epoch : int
            1, 2, ...
        """
        if epoch <= warmup:
            return lr * epoch / (warmup + 1)
        return self._own(lr, decay, epoch - warmup, **options)

    def largest(self, lr: float, decay: float, epochs: int, **options: Any) -> tuple[float, int]:
        """The largest learning rate of epochs 1..epochs, infinity where it is too large for a float, and its epoch."""
        first = min(options["warmup"] + 1, epochs)
        try:  # after the warm-up every schedule goes one way only
            return max((self.rate(lr, decay, epoch, **options), epoch) for epoch in (first, epochs))
        except OverflowError:
            return math.inf, epochs

    def _own(self, lr: float, decay: float, epoch: float, **options: Any) -> float:
        raise NotImplementedError


class Constant(Schedule):
    """lr."""

    name = "constant"

    def _own(self, lr: float, decay: float, epoch: float, **options: Any) -> float:
        return lr


class Exponential(Schedule):
    """lr * decay^(e - 1); the paper's schedule is 0.001 and 0.9. ``torch.optim.lr_scheduler.ExponentialLR``."""

    name = "exponential"

    def _own(self, lr: float, decay: float, epoch: float, **options: Any) -> float:
        return float(lr * decay ** (epoch - 1))


class Step(Schedule):
    """lr * decay^floor((e - 1) / step_size). ``torch.optim.lr_scheduler.StepLR``."""

    name = "step"
    options = {"step_size": Option(10, "epochs with the same learning rate", 1, 1 << 31, whole=True)}

    def _own(self, lr: float, decay: float, epoch: float, step_size: Any = None, **options: Any) -> float:
        return float(lr * decay ** ((epoch - 1) // step_size))


class Cosine(Schedule):
    """eta_min + (lr - eta_min) * (1 + cos(pi * (e - 1) / t_max)) / 2, and eta_min from epoch t_max + 1 on.

    ``torch.optim.lr_scheduler.CosineAnnealingLR``, without its way up again. Source: Loshchilov, Hutter 2017. Without
    `t_max` it is the number of epochs after the warm-up; a run that is to be continued to another number of epochs needs it.
    """

    name = "cosine"
    options = {
        "t_max": Option(None, "epochs from lr down to eta_min; none: all after the warm-up", 1, 1 << 31, whole=True),
        "eta_min": Option(0.0, "smallest learning rate", 0),
    }

    def settle(self, resolved: dict[str, Any], epochs: int) -> dict[str, Any]:
        if resolved["t_max"] is not None:
            end = resolved["warmup"] + resolved["t_max"]
            if epochs > end and not resolved["eta_min"]:
                raise ValueError(
                    f"{self._called()} is at a learning rate of 0 from epoch {end + 1} on, and the run has "
                    f"{epochs} epochs; give a larger t_max, or an eta_min"
                )
            return resolved
        return resolved | {"t_max": max(epochs - resolved["warmup"], 1)}

    def _own(self, lr: float, decay: float, epoch: float, t_max: Any = None, eta_min: Any = None, **options: Any) -> float:
        return float(eta_min + (lr - eta_min) * (1 + math.cos(math.pi * min((epoch - 1) / t_max, 1))) / 2)


SCHEDULES = {schedule.name: schedule for schedule in (Exponential(), Step(), Cosine(), Constant())}
