"""Which epoch was the best, and whether it is time to end: both told from the records alone, so that a run that is continued
knows them again. For chaos.training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

MODES = ("auto", "min", "max")


@dataclass
class Monitor:
    """What tells how good an epoch is.

    The best epoch is the first with the best value. `patience` counts as in Keras and PyTorch Lightning: an epoch is an
    improvement where its value is better than that of the last improvement by more than `min_delta`, the first one always;
    after `patience` epochs in a row without one the training ends. A value that is None or not finite is never better.

    Parameters
    ----------
    key : str
        Of a number in the records.
    larger : bool
        Whether larger values are better.
    min_delta : float
    patience : int or None
        None: it never ends the training.

    Attributes
    ----------
    best_epoch : int or None
        None where no epoch has a value.
    waited : int
        Epochs since the last improvement.
    """

    key: str
    larger: bool = False
    min_delta: float = 0.0
    patience: int | None = None

    def __post_init__(self) -> None:
        self.replay(())

    def replay(self, history: Iterable[Record]) -> None:
        """Hears of all epochs, from the first."""
        self.best_epoch: int | None = None
        self._best = self._last = math.inf
        self._epoch = self.waited = 0
        for record in history:
            self.note(record)

    def value(self, record: Record) -> float:
        """The value of an epoch, so that smaller ones are better; infinity where there is none."""
        value = record.get(self.key)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return math.inf
        return -value if self.larger else value

    def note(self, record: Record) -> None:
        """An epoch is over."""
        self._epoch, value = self._epoch + 1, self.value(record)
        if value < self._best:
            self.best_epoch, self._best = self._epoch, value
        if value < self._last - self.min_delta:
            self._last, self.waited = value, 0
        else:
            self.waited += 1

    def ends(self) -> str | None:
        """Why the training ends, in words; None: it goes on."""
        if self.patience is None or self.waited < self.patience:
            return None
        epochs = f"{self.patience} epoch{'s' if self.patience != 1 else ''}"
        best = -self._best if self.larger else self._best
        where = f"; the best was {best:.6g} in epoch {self.best_epoch}" if self.best_epoch else ""
        return f"ended early after epoch {self._epoch}: {self.key} has not improved for {epochs}{where}"


def choose(
    key: str | None,
    mode: str,
    measured: Sequence[str],
    larger: dict[str, bool],
    validates: bool,
    *,
    min_delta: float,
    patience: int | None,
    needed: str | None,
) -> Monitor | None:
    """The monitor of a training, None where nothing is to be watched; ValueError where `key` is not measured.

    Parameters
    ----------
    key, mode, min_delta, patience
        The settings.
    measured : list of str
        The keys of the numbers that the records will have.
    larger : dict
        Of those whose larger values are better or, where that is False, not: what is not here needs a mode.
    validates : bool
        Whether there is a validation set.
    needed : str or None
        The name of a setting that makes no sense without a monitor.
    """
    if key is None:
        if not validates:
            if needed:
                raise ValueError(
                    f"{needed} needs something to watch: give validation_data or validation_split, or name a number of "
                    f"the records as monitor ({', '.join(measured)})"
                )
            return None
        key = "validation_loss"
    if key not in measured:
        raise ValueError(f"monitor {key!r} is not measured; what is: {', '.join(measured)}")
    if mode == "auto" and key not in larger:
        raise ValueError(f"monitor_mode must be min or max: whether larger values of {key!r} are better is not known")
    return Monitor(key, larger[key] if mode == "auto" else mode == "max", min_delta, patience)
