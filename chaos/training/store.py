"""The run directory: config.json, metrics.jsonl, model.safetensors and best.safetensors. For chaos.training and the rooms
above, which know its file names from here.

It is no callback: what it keeps is the job's own state, of which events show nothing, and it has to be on the disk before
any callback hears that the epoch is over."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._version import __version__
from ..errors import CheckpointError
from ..formats.atomic import sweep, write_atomically
from ..formats.json_text import parse_json
from ..formats.lock import Lock
from ..network import load_with_state
from .records import Record, check_counts, today
from .runner import Threads
from .settings import completed, differences
from .state import give_state, take_state
from .streams import LOG

if TYPE_CHECKING:
    from .job import Job

MODEL, BEST, METRICS, CONFIG = "model.safetensors", "best.safetensors", "metrics.jsonl", "config.json"
WRITTEN = (MODEL, BEST, METRICS, CONFIG, "times.json", "against-real.json")  # the last two by chaos simulate


class Store:
    """The run directory of a job, which belongs to it from `open` to `close`.

    metrics.jsonl gets a line per epoch. model.safetensors holds weights and training state in one file, so they always
    agree; of the epochs it only tells which lines it goes with, so that keeping one costs the same after any number of
    them. The line is written first, and what model.safetensors does not know is cut off when a run is continued. Where
    something tells which epoch is the best, best.safetensors holds its weights, written last: of an epoch that is the last
    one, too, model.safetensors still has them."""

    def __init__(self, folder: str | os.PathLike[str], job: Job, extra: Mapping[str, Any]) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"run_dir must be the path of a directory, not {folder!r}")
        if not os.fspath(folder):
            raise ValueError('run_dir must be the path of a directory, not ""')
        self.folder, self.job, self.extra = Path(folder), job, extra
        self._lock = Lock(self.folder)
        self._size, self._digest = 0, hashlib.sha256()  # of metrics.jsonl
        self._lines = b""  # of metrics.jsonl, as they were found

    def open(self, resume: bool) -> None:
        """Makes the directory, or takes the job's state from it."""
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"run directory {self.folder} is a file")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"run directory {self.folder} cannot be made: {error.strerror}") from None
        owner = self._lock.take()
        if owner is not None:
            who = f"process {owner.get('process', '?')} on {owner.get('machine', '?')}"
            raise CheckpointError(f"run directory {self.folder} is in use by {who}; wait for it, or name another directory")
        held = [name for name in (MODEL, METRICS) if (self.folder / name).exists() and (self.folder / name).stat().st_size]
        if held and not resume:
            raise CheckpointError(
                f"run directory {self.folder} already holds a run ({', '.join(held)}); "
                "continue it with resume, or name another directory"
            )
        sweep(self.folder, WRITTEN)
        if resume and (self.folder / MODEL).exists():
            self.restore()
        config = json.dumps({**self.extra, **self._config()}, indent=2, default=_plain)
        write_atomically(self.folder / CONFIG, config.encode() + b"\n")
        self._write_metrics(self._lines or None)

    def close(self) -> None:
        """Lets others have the directory."""
        self._lock.release()

    def _config(self) -> dict[str, Any]:
        job = self.job
        return {
            **job.identity,
            "epochs": job.settings.epochs,
            "patience": job.settings.patience,
            "restore_best": job.settings.restore_best,
            "metrics": [one for one in job.settings.metrics if isinstance(one, str)],
            "workers": job.plan.workers,
            "pin": job.plan.pin,
            "workers_limit": job.plan.describe(),
            "chaos": __version__,
            "isa": job.net.plan.isa,
            "winograd": _core.get_winograd(),
            "build": _core.BUILD_INFO,
            "python": platform.python_version(),
            "machine": platform.node(),
        }

    def restore(self) -> None:
        path, job = self.folder / MODEL, self.job
        net, metadata, tensors = load_with_state(path)
        try:
            state = parse_json(metadata["training"])
            identity, partial = state["identity"], state["partial"]
            # earlier versions kept the records themselves
            history = state["history"] if "history" in state else self._read_metrics(state["epochs"], **state["metrics"])
            if isinstance(identity, dict):
                before, identity = identity, completed(identity)
            if not isinstance(identity, dict) or not all(isinstance(record, dict) for record in history):
                raise TypeError("identity and epochs must be objects")
            history = [today(record, before) for record in history]
            if partial is not None:
                check_counts(partial)
        except (KeyError, ValueError, TypeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path}: holds no training state ({type(error).__name__} {error})") from None
        # what an earlier version did not know had its default then
        kind = "virtual workers" if any("virtual" in record for record in history) else Threads.kind
        kind = state.get("runner", kind if history else job.runner.kind)
        if kind != job.runner.kind:
            raise CheckpointError(f"{path}: is the state of a run of {kind}; it cannot be continued with {job.runner.kind}")
        identity = job.schedule.as_asked(identity, job.identity, job.settings.epochs)
        differ = differences(identity, job.identity)
        if differ:
            raise CheckpointError(f"{path}: is the state of another run; different: {', '.join(differ)}")
        try:
            give_state(job, tensors)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None
        job.net.load_state_dict(net.state_dict())
        job.take_history(history, partial)
        if job.best_epoch:
            job.best = self._read_best(job.best_epoch)

    def _read_metrics(self, epochs: int, size: int, sha256: str) -> list[Record]:
        """The records of the first so many epochs, which are so many bytes."""
        path = self.folder / METRICS
        try:
            with open(path, "rb") as file:
                text = file.read(size)
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error.strerror}); {MODEL} goes with its first {epochs} lines"
            ) from None
        lines = text.splitlines()
        self._lines = text
        if hashlib.sha256(text).hexdigest() != sha256 or len(lines) != epochs:
            raise CheckpointError(f"{path}: has been changed; its first {epochs} lines are not those that {MODEL} goes with")
        return list(map(parse_json, lines))

    def save(self, record: Record | None = None) -> None:
        """Keeps the state; `record` is that of an epoch that has just been finished."""
        if record:
            self._append(_line(record).encode())
        state = {
            "identity": self.job.identity,
            "epochs": len(self.job.history),
            "metrics": {"size": self._size, "sha256": self._digest.hexdigest()},
            "partial": self.job.partial,
            "runner": self.job.runner.kind,
        }
        self.job.net.save(self.folder / MODEL, {"training": json.dumps(state)}, take_state(self.job))

    def save_best(self) -> None:
        """Keeps the weights, which are those of the best epoch so far."""
        self.job.net.save(self.folder / BEST, {"epoch": str(self.job.best_epoch)})

    def _read_best(self, epoch: int) -> NDArray[np.float32] | None:
        """The weights of the best epoch; None where they are lost, which is told; CheckpointError where they are needed."""
        path, job = self.folder / BEST, self.job
        if epoch == len(job.history) and not job.partial:
            self.save_best()
            return job.net.weights.copy()
        try:
            net, metadata, _ = load_with_state(path)
            if metadata.get("epoch") != str(epoch) or net.config() != job.net.config():
                raise CheckpointError(f"{path}: holds other weights than those of the best epoch, {epoch}")
        except CheckpointError as error:
            if job.settings.restore_best:
                raise CheckpointError(f"{error}; without restore_best the run can be continued") from None
            LOG.warning("%s; the weights of the best epoch are lost until a better one comes", error)
            return None
        vector = np.zeros_like(job.net.weights)
        job.net.pack(net.state_dict(), vector)
        return vector

    def _append(self, line: bytes) -> None:
        """Puts a line behind those that count: a write that failed may have left a piece there."""
        try:
            with open(self.folder / METRICS, "r+b") as file:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:  # somebody has removed it
            self._write_metrics()
        else:
            self._size += len(line)
            self._digest.update(line)

    def _write_metrics(self, lines: bytes | None = None) -> None:
        """Writes all records, or the lines that were found."""
        lines = "".join(map(_line, self.job.history)).encode() if lines is None else lines
        write_atomically(self.folder / METRICS, lines)
        self._size, self._digest = len(lines), hashlib.sha256(lines)


def _plain(value: Any) -> Any:
    """What JSON has for an object of a caller's `config`; TypeError where it has nothing."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"config holds {value!r}, which config.json cannot keep: only text, numbers, lists and dicts")


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"
