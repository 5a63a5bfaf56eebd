"""Learning-rate schedules: functions of the epoch, and of what is monitored. Imported by chaos.updates."""

from __future__ import annotations

import math
from typing import Any

from ..options import Flag, Numbers, Option, WithOptions

_MOST = 1 << 31


_FACTOR = "the factor is lr_decay, an argument beside lr"


class Schedule(WithOptions):
    """A learning rate for every epoch.

    All schedules have the option `warmup`: in epoch e = 1..warmup the learning rate is lr * e / (warmup + 1) (linear, as
    Goyal et al. 2017), and the schedule's own first epoch is number warmup + 1.

    Those that span a whole run follow from its number of epochs where their option for that is none. A run that is continued
    to more epochs then goes on with the curve of the new number.

    Attributes
    ----------
    name : str
    adapts : bool
        The learning rate answers to what is monitored: it has `follow`.
    """

    name: str = ""
    adapts: bool = False
    common = {"warmup": Option(0, "epochs of linear warm-up before it", 0, _MOST, whole=True)}
    words = {
        "factor": _FACTOR,
        "gamma": _FACTOR,
        "decay": _FACTOR,
        "mode": "whether small or large values are good is said by monitor_mode",
        "warmup_epochs": "warmup",
    }

    def _called(self) -> str:
        return f"learning-rate schedule {self.name!r}"

    def settle(self, resolved: dict[str, Any], epochs: int) -> dict[str, Any]:
        """The options with what follows from the number of epochs; ValueError where they do not go with it."""
        return resolved

    def as_asked(self, there: dict[str, Any], now: dict[str, Any], epochs: int) -> dict[str, Any]:
        """The identity `there` of a run that is to be continued with `epochs`: earlier versions kept what followed from the
        number of epochs as if it had been asked for."""
        asked, kept = now["schedule_options"], there.get("schedule_options")
        if there.get("lr_schedule") != self.name or not isinstance(kept, dict) or kept == asked:
            return there
        return there | {"schedule_options": asked} if kept == self.settle(asked, epochs) else there

    def rate(self, lr: float, decay: float, epoch: int, *, warmup: int = 0, factor: float = 1.0, **options: Any) -> float:
        """The learning rate of an epoch.

        Parameters
        ----------
        lr : float
            Of the first epoch after the warm-up; of `one_cycle` and `cyclic` the largest.
        decay : float
            The factor of the schedules that have one.
        epoch : int
            1, 2, ...
        factor : float
            What the values so far have made of the learning rate, of a schedule that adapts.
        """
        if epoch <= warmup:
            return factor * lr * epoch / (warmup + 1)
        return factor * self._own(lr, decay, epoch - warmup, **options)

    def largest(self, lr: float, decay: float, epochs: int, **options: Any) -> tuple[float, int]:
        """The largest learning rate of epochs 1..epochs, infinity where it is too large for a float, and its epoch."""
        first = min(options["warmup"] + 1, epochs)
        try:  # after the warm-up these schedules go one way only
            return max((self.rate(lr, decay, epoch, **options), epoch) for epoch in (first, epochs))
        except OverflowError:
            return math.inf, epochs

    def _own(self, lr: float, decay: float, epoch: float, **options: Any) -> float:
        raise NotImplementedError


class _UpToLr(Schedule):
    """A schedule that is nowhere above lr, and somewhere at it."""

    def largest(self, lr: float, decay: float, epochs: int, **options: Any) -> tuple[float, int]:
        return lr, min(options["warmup"] + 1, epochs)


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
    options = {"step_size": Option(10, "epochs with the same learning rate", 1, _MOST, whole=True)}

    def _own(self, lr: float, decay: float, epoch: float, step_size: Any = None, **options: Any) -> float:
        return float(lr * decay ** ((epoch - 1) // step_size))


class MultiStep(Schedule):
    """lr * decay^(number of milestones m < e): the learning rate changes after m epochs.

    ``torch.optim.lr_scheduler.MultiStepLR``."""

    name = "multistep"
    options = {"milestones": Numbers(None, "epochs after which the learning rate changes", 1, each="change")}

    def settle(self, resolved: dict[str, Any], epochs: int) -> dict[str, Any]:
        milestones = resolved["milestones"]
        if not milestones or any(one != int(one) for one in milestones):
            raise ValueError(
                f"{self._called()} needs milestones, whole numbers of epochs such as [30, 60], not {milestones!r}"
            )
        return resolved

    def _own(self, lr: float, decay: float, epoch: float, milestones: Any = (), **options: Any) -> float:
        return float(lr * decay ** sum(one < epoch for one in milestones))


class Linear(Schedule):
    """lr times a factor that goes from start_factor in a straight line to end_factor within total_iters epochs, and stays.

    ``torch.optim.lr_scheduler.LinearLR``."""

    name = "linear"
    options = {
        "start_factor": Option(1 / 3, "of the first epoch", 0, 1, above=True),
        "end_factor": Option(1.0, "from epoch total_iters + 1 on", 0, 1),
        "total_iters": Option(5, "epochs from the one to the other", 1, _MOST, whole=True),
    }

    def settle(self, resolved: dict[str, Any], epochs: int) -> dict[str, Any]:
        return _spanning(self, resolved, "total_iters", epochs, ends_at_0=not resolved["end_factor"])

    def _own(
        self,
        lr: float,
        decay: float,
        epoch: float,
        start_factor: Any = None,
        end_factor: Any = None,
        total_iters: Any = None,
        **options: Any,
    ) -> float:
        return float(lr * (start_factor + (end_factor - start_factor) * min((epoch - 1) / total_iters, 1)))


class Polynomial(_UpToLr):
    """lr * (1 - (e - 1) / total_iters)^power until epoch total_iters, 0 from there on.

    ``torch.optim.lr_scheduler.PolynomialLR``. Without `total_iters` it is the number of epochs after the warm-up: the last
    epoch has 1 / total_iters of it."""

    name = "polynomial"
    options = {
        "total_iters": Option(None, "epochs from lr down to 0; none: all after the warm-up", 1, _MOST, whole=True),
        "power": Option(1.0, "of the polynomial", 0),
    }

    def settle(self, resolved: dict[str, Any], epochs: int) -> dict[str, Any]:
        return _spanning(self, resolved, "total_iters", epochs, ends_at_0=True)

    def _own(
        self, lr: float, decay: float, epoch: float, total_iters: Any = None, power: Any = None, **options: Any
    ) -> float:
        return float(lr * max(1 - (epoch - 1) / total_iters, 0) ** power)


class Cosine(_UpToLr):
    """eta_min + (lr - eta_min) * (1 + cos(pi * (e - 1) / t_max)) / 2, and eta_min from epoch t_max + 1 on.

    ``torch.optim.lr_scheduler.CosineAnnealingLR``, without its way up again. Source: Loshchilov, Hutter 2017. Without
    `t_max` it is the number of epochs after the warm-up."""

    name = "cosine"
    options = {
        "t_max": Option(None, "epochs from lr down to eta_min; none: all after the warm-up", 1, _MOST, whole=True),
        "eta_min": Option(0.0, "smallest learning rate", 0),
    }

    def settle(self, resolved: dict[str, Any], epochs: int) -> dict[str, Any]:
        return _spanning(self, resolved, "t_max", epochs, ends_at_0=not resolved["eta_min"])

    def largest(self, lr: float, decay: float, epochs: int, **options: Any) -> tuple[float, int]:
        return Schedule.largest(self, lr, decay, epochs, **options)  # eta_min may be above lr

    def _own(self, lr: float, decay: float, epoch: float, t_max: Any = None, eta_min: Any = None, **options: Any) -> float:
        return _between(lr, eta_min, min((epoch - 1) / t_max, 1))


class CosineRestarts(_UpToLr):
    """A cosine from lr down to eta_min over t_0 epochs, begun again after them with t_mult times as many, and so on.

    ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``. Source: Loshchilov, Hutter 2017 (SGDR)."""

    name = "cosine_restarts"
    options = {
        "t_0": Option(10, "epochs until the first restart", 1, _MOST, whole=True),
        "t_mult": Option(1, "factor of that number from restart to restart", 1, _MOST, whole=True),
        "eta_min": Option(0.0, "smallest learning rate", 0),
    }

    def largest(self, lr: float, decay: float, epochs: int, **options: Any) -> tuple[float, int]:
        return max(lr, options["eta_min"]), min(options["warmup"] + 1, epochs)

    def _own(
        self, lr: float, decay: float, epoch: float, t_0: Any = None, t_mult: Any = None, eta_min: Any = None, **options: Any
    ) -> float:
        at, length = int(epoch) - 1, t_0
        if t_mult == 1:
            at %= length
        while at >= length:
            at, length = at - length, length * t_mult
        return _between(lr, eta_min, at / length)


class OneCycle(_UpToLr):
    """From lr / div_factor up to lr within the share pct_start of the epochs, then down to
    lr / (div_factor * final_div_factor) in the last one.

    ``torch.optim.lr_scheduler.OneCycleLR(max_lr=lr, total_steps=epochs, cycle_momentum=False)``, stepped once per epoch.
    Source: Smith, Topin 2018. Without `total_steps` it is the number of epochs after the warm-up."""

    name = "one_cycle"
    options = {
        "total_steps": Option(None, "epochs of the cycle; none: all after the warm-up", 1, _MOST, whole=True),
        "pct_start": Option(0.3, "share of the epochs in which it rises", 0, 1),
        "anneal": Option("cos", "shape of both ways", choices=("cos", "linear")),
        "div_factor": Option(25.0, "lr over the first learning rate", 0, above=True),
        "final_div_factor": Option(1e4, "the first learning rate over the last", 0, above=True),
        "three_phase": Flag(False, "down to the first learning rate as it has come up, then on"),
    }

    def settle(self, resolved: dict[str, Any], epochs: int) -> dict[str, Any]:
        total = resolved["total_steps"]
        if total is not None and epochs > resolved["warmup"] + total:
            raise ValueError(
                f"{self._called()} ends with epoch {resolved['warmup'] + total}, and the run has {epochs} epochs; give a "
                "larger total_steps"
            )
        if 0 < (total or epochs - resolved["warmup"]) < 3:
            raise ValueError(f"{self._called()} needs at least 3 epochs to rise and fall in")
        return _spanning(self, resolved, "total_steps", epochs)

    def largest(self, lr: float, decay: float, epochs: int, **options: Any) -> tuple[float, int]:
        return lr * max(1, 1 / options["div_factor"]), min(options["warmup"] + 1, epochs)

    def _own(
        self,
        lr: float,
        decay: float,
        epoch: float,
        total_steps: Any = None,
        pct_start: Any = None,
        anneal: Any = None,
        div_factor: Any = None,
        final_div_factor: Any = None,
        three_phase: Any = None,
        **options: Any,
    ) -> float:
        first, last = lr / div_factor, lr / div_factor / final_div_factor
        top, end = pct_start * total_steps - 1, total_steps - 1
        stages = [(top, first, lr), (end, lr, last)]
        if three_phase:
            stages = [(top, first, lr), (2 * top, lr, first), (end, first, last)]
        at = epoch - 1
        stage = next((k for k, (stop, _, _) in enumerate(stages) if at <= stop), len(stages) - 1)
        begin = stages[stage - 1][0] if stage else 0.0
        stop, high, low = stages[stage]
        share = (at - begin) / (stop - begin)
        return float(high + (low - high) * share) if anneal == "linear" else _between(high, low, share)


class Cyclic(_UpToLr):
    """From lr * base up to lr within step_size_up epochs, down within step_size_down, and again.

    The difference is, in cycle c = 1, 2, ..., multiplied with 1 (triangular), with 2^(1 - c) (triangular2) or with
    gamma^(e - 1) (exp_range). ``torch.optim.lr_scheduler.CyclicLR(base_lr=lr * base, max_lr=lr, cycle_momentum=False)``,
    stepped once per epoch. Source: Smith 2017."""

    name = "cyclic"
    options = {
        "base": Option(0.1, "the smallest learning rate over lr", 0, 1),
        "step_size_up": Option(5, "epochs from the smallest to the largest", 1, _MOST, whole=True),
        "step_size_down": Option(None, "epochs down again; none: as many", 1, _MOST, whole=True),
        "mode": Option("triangular", "how cycles differ", choices=("triangular", "triangular2", "exp_range")),
        "gamma": Option(1.0, "factor from epoch to epoch, of exp_range", 0, 1, above=True),
    }

    def _own(
        self,
        lr: float,
        decay: float,
        epoch: float,
        base: Any = None,
        step_size_up: Any = None,
        step_size_down: Any = None,
        mode: Any = None,
        gamma: Any = None,
        **options: Any,
    ) -> float:
        whole = step_size_up + (step_size_down or step_size_up)
        cycle, at = divmod(epoch - 1, whole)
        share = at / step_size_up if at <= step_size_up else (whole - at) / (whole - step_size_up)
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma ** (epoch - 1)}[mode]
        return float(lr * base + (lr - lr * base) * share * scale)


class Plateau(_UpToLr):
    """lr, times decay whenever what is monitored has not become better for more than `patience` epochs.

    ``torch.optim.lr_scheduler.ReduceLROnPlateau(factor=decay)``: better is less than best * (1 - threshold) (rel; of what is
    to become large: more than best * (1 + threshold)) or best - threshold (abs); after a change `cooldown` epochs are no bad
    ones; no change leads below min_lr. The state follows from the records, so that a run that is continued has it."""

    name = "plateau"
    adapts = True
    options = {
        "patience": Option(10, "bad epochs that are borne", 0, _MOST, whole=True),
        "threshold": Option(1e-4, "how much better an epoch has to be", 0),
        "threshold_mode": Option("rel", "whether that is a share of the best value", choices=("rel", "abs")),
        "cooldown": Option(0, "epochs after a change in which none is a bad one", 0, _MOST, whole=True),
        "min_lr": Option(0.0, "smallest learning rate", 0),
    }

    def follow(self, lr: float, decay: float, options: dict[str, Any]) -> OnPlateau:
        """What hears of every epoch's value; ValueError where nothing would become less."""
        if not decay < 1:
            raise ValueError(
                f"{self._called()} multiplies the learning rate with lr_decay, which must be below 1, not {decay!r}"
            )
        return OnPlateau(lr, decay, options)

    def _own(self, lr: float, decay: float, epoch: float, **options: Any) -> float:
        return lr


class OnPlateau:
    """The state of `plateau` after some epochs.

    Attributes
    ----------
    factor : float
        What the learning rate is multiplied with.
    """

    def __init__(self, lr: float, decay: float, options: dict[str, Any]) -> None:
        self.lr, self.decay, self.options = lr, decay, options
        self.factor, self._best, self._bad, self._cooling = 1.0, math.inf, 0, 0
        self._threshold: float = options["threshold"]

    def note(self, value: float) -> None:
        """The value of an epoch that is over; smaller is better, infinity is no value."""
        if self._better(value):
            self._best, self._bad = value, 0
        else:
            self._bad += 1
        if self._cooling:
            self._cooling, self._bad = self._cooling - 1, 0
        if self._bad > self.options["patience"]:
            self.factor = max(self.factor * self.decay, min(self.options["min_lr"] / self.lr, self.factor))
            self._bad, self._cooling = 0, self.options["cooldown"]

    def _better(self, value: float) -> bool:
        if self._best == math.inf or self.options["threshold_mode"] == "abs":
            return value < self._best - self._threshold
        return value < self._best - self._threshold * abs(self._best)


def _between(high: float, low: float, share: float) -> float:
    """On the cosine from `high` down to `low`."""
    return float(low + (high - low) * (1 + math.cos(math.pi * share)) / 2)


def _spanning(
    schedule: Schedule, resolved: dict[str, Any], name: str, epochs: int, *, ends_at_0: bool = False
) -> dict[str, Any]:
    """The options of a schedule whose span is the option `name`; none: all epochs after the warm-up. ValueError where it
    `ends_at_0` before the last epoch."""
    if resolved[name] is None:
        return resolved | {name: max(epochs - resolved["warmup"], 1)}
    end = resolved["warmup"] + resolved[name]
    if epochs > end and ends_at_0:
        least = ", or an eta_min" if "eta_min" in schedule.options else ""
        raise ValueError(
            f"{schedule._called()} is at a learning rate of 0 from epoch {end + 1} on, and the run has {epochs} epochs; "
            f"give a larger {name}{least}"
        )
    return resolved


SCHEDULES = {
    schedule.name: schedule
    for schedule in (
        Exponential(),
        Step(),
        MultiStep(),
        Linear(),
        Polynomial(),
        Cosine(),
        CosineRestarts(),
        OneCycle(),
        Cyclic(),
        Plateau(),
        Constant(),
    )
}
