"""Callbacks that write what a training tells to where others look for it: CSV files, TensorBoard, MLflow, Weights & Biases.
For callers, as `chaos.callbacks`; what each of them writes to is imported where it is used."""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .hints import CALLBACKS, answers
from .training import Callback, Event
from .training.records import numbers
from .training.settings import KEPT

__all__ = ["CSVWriter", "Callback", "Event", "MLflowWriter", "TensorBoardWriter", "WandbWriter"]

if not TYPE_CHECKING:  # who would take any name for one that there is
    __getattr__ = answers(__name__, __all__, CALLBACKS)

Record = dict[str, Any]
_PHASES = ("train_eval", "train", "validation", "test")


class CSVWriter(Callback):
    """Writes a table with a row per epoch, which spreadsheets and pandas read: the numbers of the records, without lists and
    layers. The file always holds all epochs, also of a run that is continued.

    Parameters
    ----------
    path : path
        Of the file; one that is there already is replaced. In a job rank 0 writes.

    Examples
    --------
    >>> chaos.train(net, train, test, callbacks=[chaos.callbacks.CSVWriter("run.csv")])  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._columns: list[str] = []

    def train_begin(self, event: Event) -> None:
        if event.rank == 0:
            self._write(event)

    def epoch_end(self, event: Event, record: Record) -> None:
        if event.rank:
            return
        row = numbers(record)
        if not row.keys() <= set(self._columns):
            self._write(event)
        else:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)

    def _write(self, event: Event) -> None:
        rows = [numbers(record) for record in event.history]
        self._columns = list(dict.fromkeys(key for row in rows for key in row))
        with open(self.path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            if rows:
                writer.writeheader()
            writer.writerows(rows)


class _Tracker(Callback):
    """Writes the numbers of every epoch, the step being the epoch, to what `_open` opens; on rank 0 only."""

    def train_begin(self, event: Event) -> None:
        if event.rank == 0:
            self._open(_settings(event))

    def epoch_end(self, event: Event, record: Record) -> None:
        if event.rank == 0:
            self._log({key: float(value) for key, value in numbers(record).items() if _is_number(value)}, record["epoch"])

    def train_end(self, event: Event) -> None:
        if event.rank == 0:
            self._close(event.error)

    def _open(self, settings: Record) -> None:
        raise NotImplementedError

    def _log(self, values: Mapping[str, float], epoch: int) -> None:
        raise NotImplementedError

    def _close(self, error: BaseException | None) -> None:
        raise NotImplementedError


class TensorBoardWriter(_Tracker):
    """Writes scalars for TensorBoard: "loss/train", "error/validation", ..., the step being the epoch.

    Parameters
    ----------
    log_dir : path
        Where `tensorboard --logdir` looks.

    Raises
    ------
    ImportError
        Where neither tensorboard nor tensorboardX is installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self.log_dir = os.fspath(log_dir)
        self._make = _writer()
        self._to: Any = None

    def _open(self, settings: Record) -> None:
        self._to = self._make(self.log_dir)

    def _log(self, values: Mapping[str, float], epoch: int) -> None:
        for key, value in values.items():
            if key != "epoch":
                self._to.add_scalar(_tag(key), value, epoch)
        self._to.flush()

    def _close(self, error: BaseException | None) -> None:
        if self._to is not None:
            self._to.close()


class MLflowWriter(_Tracker):
    """Logs settings as parameters and the numbers of every epoch as metrics to MLflow.

    Goes into the active run; where there is none, one is started with the given options and ended with the training, as
    FINISHED, FAILED (an exception) or KILLED (a signal).

    Parameters
    ----------
    **options
        Of ``mlflow.start_run``, such as run_name.

    Raises
    ------
    ImportError
        Where mlflow is not installed.
    """

    def __init__(self, **options: Any) -> None:
        self._mlflow, self.options, self._own = _needed("mlflow"), options, False

    def _open(self, settings: Record) -> None:
        self._own = self._mlflow.active_run() is None
        if self._own:
            self._mlflow.start_run(**self.options)
        self._mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})

    def _log(self, values: Mapping[str, float], epoch: int) -> None:
        self._mlflow.log_metrics(dict(values), step=epoch)

    def _close(self, error: BaseException | None) -> None:
        if self._own and self._mlflow.active_run() is not None:
            self._mlflow.end_run("FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED")


class WandbWriter(_Tracker):
    """Logs settings as config and the numbers of every epoch to Weights & Biases.

    Goes into the run under way, whose own steps go on: "epoch" is the axis there. Where there is none, one is started with
    the given options, whose steps are epochs, and finished with the training.

    Parameters
    ----------
    **options
        Of ``wandb.init``, such as project, name, mode.

    Raises
    ------
    ImportError
        Where wandb is not installed.
    """

    def __init__(self, **options: Any) -> None:
        self._wandb, self.options, self._own = _needed("wandb"), options, False
        self._run: Any = None
        self._keys: set[str] = set()

    def _open(self, settings: Record) -> None:
        self._own = self._wandb.run is None
        self._run = self._wandb.init(**self.options) if self._own else self._wandb.run
        self._run.config.update(settings, allow_val_change=True)

    def _log(self, values: Mapping[str, float], epoch: int) -> None:
        if self._own:
            self._run.log(dict(values), step=epoch)
        else:  # which has steps of its own, and drops what is logged with an earlier one
            for key in values.keys() - self._keys:
                self._run.define_metric(key, step_metric="epoch")
            self._keys |= values.keys()
            self._run.log(dict(values))

    def _close(self, error: BaseException | None) -> None:
        if self._own and self._run is not None:
            self._run.finish(0 if error is None else 1)


def _settings(event: Event) -> Record:
    """The settings of the run that files keep, as text and numbers."""
    found = {name: getattr(event.settings, name) for name in KEPT}
    found["metrics"] = [one if isinstance(one, str) else getattr(one, "__name__", "") for one in found["metrics"]]
    return found


def _tag(key: str) -> str:
    """ "loss/train" of "train_loss": TensorBoard groups by what is before the stroke."""
    for phase in _PHASES:
        if key.startswith(f"{phase}_"):
            return f"{key.removeprefix(f'{phase}_')}/{phase}"
    return key


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"this callback needs {name} (pip install {name}, or 'chaos-sgd[track]')") from None


def _writer() -> Any:
    """What makes a writer of event files for a directory."""
    for module, name in (("tensorboard.summary", "Writer"), ("tensorboardX", "SummaryWriter")):
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError:
            continue
    raise ImportError("TensorBoardWriter needs tensorboard (pip install tensorboard, or 'chaos-sgd[track]') or tensorboardX")
