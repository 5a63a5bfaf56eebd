"""What a training shows: a bar on a terminal and in notebooks, a line per epoch. A callback of chaos.training.

Lines go to standard error, or, where the program has set up logging for them (logger "chaos", level INFO), there."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from typing import Any

from ..streams import LOG, is_terminal, tell
from .callbacks import Callback, Event
from .records import Record

NAMES = {"train_eval": "train again"}


class Progress(Callback):
    """Draws to standard error, in notebooks to the cell; shows nothing when not `on`, and nothing at all when not `root`."""

    def __init__(self, on: bool, root: bool = True) -> None:
        self.on, self.root = on and root, root
        self.bar: Any = None
        self.notebook = in_notebook()
        self.tqdm: Any = _tqdm() if self.on and (self.notebook or is_terminal(sys.stderr)) else None
        self._shown: tuple[int, str | None] | None = None

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = self._shown = None

    def note(self, text: str) -> None:
        """Prints a line, or logs it."""
        self._close()
        if not self.root:
            return
        if LOG.isEnabledFor(logging.INFO) and LOG.hasHandlers():
            LOG.info("%s", text)
        elif self.on and LOG.level <= logging.INFO:  # BrokenPipeError: whoever has asked to see it has gone
            # a log that is full is no reason to lose a training
            self.on = tell(text, sys.stdout if self.notebook else sys.stderr)

    def train_begin(self, event: Event) -> None:
        self.note(event.workers)
        n, epochs = len(event.history), event.settings.epochs
        if n and n >= epochs:
            self.note(f"nothing to train: the run has {n} epoch{'s' if n != 1 else ''} already, epochs is {epochs}")

    def step(self, event: Event) -> None:
        if not self.tqdm or LOG.level > logging.INFO:
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
                text += _metrics(record, phase)
        self.note(f"{text}  {record['images_per_second']:,.0f} images/s  staleness {record['staleness']['mean']:.2f}")

    def train_end(self, event: Event) -> None:
        self._close()
        if event.ending:
            self.note(event.ending)


def _error(record: Record, phase: str) -> str:
    """What a line says of a phase's error; nothing where the loss counts none."""
    error = record[f"{phase}_error"]
    return "" if error is None else f" error {error:.2%}"


def _metrics(record: Record, phase: str) -> str:
    """What a line says of the metrics that are one number."""
    own = {key.removeprefix(f"{phase}_"): value for key, value in record.items() if key.startswith(f"{phase}_")}
    shown = {name: value for name, value in own.items() if name not in ("loss", "error") and isinstance(value, (int, float))}
    return "".join(f" {name} {value:.4g}" for name, value in shown.items())


def in_notebook() -> bool:
    """Whether a Jupyter kernel shows what this program prints."""
    shell = sys.modules.get("IPython") and getattr(sys.modules["IPython"], "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _tqdm() -> Any:
    """What draws bars here; None where the extra `progress` is not installed."""
    try:
        if in_notebook() and importlib.util.find_spec("ipywidgets") is None:
            from tqdm import tqdm  # as text, without a word about widgets that are not there
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm
