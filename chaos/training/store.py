"""The run directory: config.json, metrics.jsonl and model.safetensors. For chaos.training and the rooms above, which know
its file names from here.

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

from .. import _core
from .._version import __version__
from ..errors import CheckpointError
from ..formats.atomic import sweep, write_atomically
from ..formats.json_text import parse_json
from ..formats.lock import Lock
from ..network import load_with_state
from .records import Record, check_counts
from .runner import Threads
from .settings import completed, differences
from .state import give_state, take_state

if TYPE_CHECKING:
    from .job import Job

MODEL, METRICS, CONFIG = "model.safetensors", "metrics.jsonl", "config.json"
# the last three by the command line
WRITTEN = (MODEL, METRICS, CONFIG, "job.toml", "times.json", "against-real.json")


class Store:
    """The run directory of a job, which belongs to it from `open` to `close`.

    metrics.jsonl gets a line per epoch. model.safetensors holds weights and training state in one file, so they always
    agree; of the epochs it only tells which lines it goes with, so that keeping one costs the same after any number of
    them. The line is written first, and what model.safetensors does not know is cut off when a run is continued."""

    def __init__(self, folder: str | os.PathLike[str], job: Job, extra: Mapping[str, Any]) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"run_dir must be the path of a directory, not {folder!r}")
        if not os.fspath(folder):
            raise ValueError('run_dir must be the path of a directory, not ""')
        self.folder, self.job, self.extra = Path(folder), job, extra
        self._lock = Lock(self.folder)
        self._size, self._digest = 0, hashlib.sha256()  # of metrics.jsonl

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
        config = json.dumps({**self.extra, **self._config()}, indent=2)
        write_atomically(self.folder / CONFIG, config.encode() + b"\n")
        self._write_metrics()

    def close(self) -> None:
        """Lets others have the directory."""
        self._lock.release()

    def _config(self) -> dict[str, Any]:
        job = self.job
        return {
            **job.identity,
            "epochs": job.settings.epochs,
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
                identity = completed(identity)
            if not isinstance(identity, dict) or not all(isinstance(record, dict) for record in history):
                raise TypeError("identity and epochs must be objects")
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
        differ = differences(identity, job.identity)
        if differ:
            raise CheckpointError(f"{path}: is the state of another run; different: {', '.join(differ)}")
        try:
            give_state(job, tensors)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None
        job.net.load_state_dict(net.state_dict())
        job.history, job.partial = history, partial

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

    def _write_metrics(self) -> None:
        lines = "".join(map(_line, self.job.history)).encode()
        write_atomically(self.folder / METRICS, lines)
        self._size, self._digest = len(lines), hashlib.sha256(lines)


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"
