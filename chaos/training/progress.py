"""What a training shows: a bar on a terminal, one line per epoch elsewhere. A callback of chaos.training."""

from __future__ import annotations

import sys
from typing import Any

from .callbacks import Callback, Event
from .records import Record
from .streams import is_terminal, tell

NAMES = {"train_eval": "train again"}


class Progress(Callback):
    """Draws to standard error; silent when not `on`."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.bar: Any = None
        self.tqdm: Any = None
        self._shown: tuple[int, str | None] | None = None
        if on and is_terminal(sys.stderr):
            try:
                from tqdm import tqdm
            except ImportError:  # the extra `progress` is not installed
                pass
            else:
                self.tqdm = tqdm

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = self._shown = None

    def note(self, text: str) -> None:
        """Prints a line."""
        self._close()
        if self.on:  # BrokenPipeError: whoever has asked to see it has gone
            self.on = tell(text)  # a log that is full is no reason to lose a training

    def train_begin(self, event: Event) -> None:
        self.note(event.workers)
        n, epochs = len(event.history), event.settings.epochs
        if n and n >= epochs:
            self.note(f"nothing to train: the run has {n} epoch{'s' if n != 1 else ''} already, epochs is {epochs}")

    def step(self, event: Event) -> None:
        if not self.tqdm:
            return
        if self._shown != (event.epoch, event.phase):
            self._close()
            self._shown = event.epoch, event.phase
            self.bar = self.tqdm(
                desc=f"epoch {event.epoch}/{event.settings.epochs} {event.phase}",
                total=event.images,
                initial=event.position,
                unit="img",
                leave=False,
                dynamic_ncols=True,
            )
        self.bar.update(event.position - self.bar.n)

    def epoch_end(self, event: Event, record: Record) -> None:
        text = f"epoch {event.epoch}/{event.settings.epochs}  train loss {record['train_loss']:.4f}{_error(record, 'train')}"
        for phase in ("train_eval", "validation", "test"):
            if record.get(f"{phase}_loss") is not None:
                text += f"  {NAMES.get(phase, phase)} loss {record[f'{phase}_loss']:.4f}{_error(record, phase)}"
        self.note(f"{text}  {record['images_per_second']:,.0f} images/s  staleness {record['staleness']['mean']:.2f}")

    def train_end(self, event: Event) -> None:
        self._close()
        if event.ending:
            self.note(event.ending)


def _error(record: Record, phase: str) -> str:
    """What a line says of a phase's error; nothing where the loss counts none."""
    error = record[f"{phase}_error"]
    return "" if error is None else f" error {error:.2%}"
