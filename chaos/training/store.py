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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
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
from ..loading import load_with_state
from ..options import check_number
from ..streams import LOG, tell
from .records import Record, check_counts, today
from .runner import Threads
from .settings import Settings, completed, differences
from .state import State, give_state

if TYPE_CHECKING:
    from .job import Job

MODEL, BEST, METRICS, CONFIG = "model.safetensors", "best.safetensors", "metrics.jsonl", "config.json"
KEPT = "checkpoints"  # folder of the states of earlier epochs, where they are asked for
# the last three by the command line
WRITTEN = (MODEL, BEST, METRICS, CONFIG, "job.toml", "times.json", "against-real.json")


def kept_options(settings: Settings) -> dict[str, Any]:
    """The numbers that the run which is continued has for options that are words in `settings`; {} where there is none, or
    it is of another strategy, which is told later."""
    try:
        kept = parse_json((Path(settings.run_dir or "") / CONFIG).read_bytes())
        options = kept["strategy_options"] if kept["strategy"] == settings.strategy else {}
        return {name: options[name] for name in settings.words() if name in options}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class Store:
    """The run directory of a job, which belongs to it from `open` to `close`.

    metrics.jsonl gets a line per epoch. model.safetensors holds weights and training state in one file, so they always
    agree; of the epochs it only tells which lines it goes with, so that keeping one costs the same after any number of
    them. The line is written first, and what model.safetensors does not know is cut off when a run is continued. Where
    something tells which epoch is the best, best.safetensors holds its weights, written last: of an epoch that is the last
    one, too, model.safetensors still has them.

    What cannot be written, because a disk is full or has failed, is told and does not end a training: what was kept before
    is still there, and the next time everything is tried again. Only at the end it is an error."""

    def __init__(self, folder: str | os.PathLike[str], job: Job, extra: Mapping[str, Any]) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"run_dir must be the path of a directory, not {folder!r}")
        if not os.fspath(folder):
            raise ValueError('run_dir must be the path of a directory, not ""')
        self.folder, self.job, self.extra = Path(folder), job, extra
        self._lock = Lock(self.folder)
        self._size, self._digest, self._lines = 0, hashlib.sha256(), 0  # of metrics.jsonl
        self._found: bytes | None = None  # metrics.jsonl, as far as it counts, when a run is continued
        self._best: int | None = None  # the epoch of best.safetensors
        self._writer = ThreadPoolExecutor(1, "chaos-store")
        self._writing: Future[None] | None = None
        self._failed: str | None = None

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
            who = f"process {owner['process']} on {owner.get('machine', '?')}" if "process" in owner else "another run"
            raise CheckpointError(f"run directory {self.folder} is in use by {who}; wait for it, or name another directory")
        held = [name for name in (MODEL, METRICS) if (self.folder / name).exists() and (self.folder / name).stat().st_size]
        if held and not resume:
            raise CheckpointError(
                f"run directory {self.folder} already holds a run ({', '.join(held)}); "
                "continue it (--resume, resume=True), or name another directory"
            )
        sweep(self.folder, WRITTEN)
        if resume and (self.folder / MODEL).exists():
            self.restore()
        config = json.dumps({**self.extra, **self._config()}, indent=2, default=_plain)
        write_atomically(self.folder / CONFIG, config.encode() + b"\n")
        self._write_metrics(self.job.history, self._found)
        self.save_best()

    def close(self) -> None:
        """Lets others have the directory."""
        self._writer.shutdown()
        with suppress(OSError):
            sweep(self.folder, WRITTEN)
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
            "plan": job.settings.plan,
            "checkpoint_every": job.settings.checkpoint_every,
            "keep_checkpoints": job.settings.keep_checkpoints,
            "on_diverge": job.settings.on_diverge,
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
        try:
            net, metadata, tensors = load_with_state(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}{self._others()}") from None
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
            cut = state.get("lr_cut", 1.0)
            check_number("lr_cut", cut, 0, 1, above=True)
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
        job.lr_cut = cut
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
        self._found = text
        if hashlib.sha256(text).hexdigest() != sha256 or len(lines) != epochs:
            raise CheckpointError(f"{path}: has been changed; its first {epochs} lines are not those that {MODEL} goes with")
        return list(map(parse_json, lines))

    @property
    def busy(self) -> bool:
        """Whether a state is still being written."""
        return self._writing is not None and not self._writing.done()

    def save_best(self, last: bool = False) -> None:
        """Keeps the weights of the best epoch so far, where they are not kept yet; `last` as for `save`."""
        job = self.job
        if job.best is None or self._best == job.best_epoch:
            return
        try:
            job.net.save(self.folder / BEST, {"epoch": str(job.best_epoch)}, weights=job.best)
        except OSError as error:
            if last:
                raise
            self._tell(error)
        else:
            self._best = job.best_epoch

    def _read_best(self, epoch: int) -> NDArray[np.float32] | None:
        """The weights of the best epoch; None where they are lost, which is told; CheckpointError where they are needed."""
        path, job = self.folder / BEST, self.job
        if epoch == len(job.history) and not job.partial:
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
        self._best = epoch
        vector = np.zeros_like(job.net.weights)
        job.net.pack(net.state_dict(), vector)
        return vector

    def save(self, last: bool = False) -> None:
        """Keeps the state; `last`: there is no further time, so that what cannot be written is an error."""
        self._wait()
        try:
            self._write(*self._taken(), at_end=self.job.partial is None)
        except OSError as error:
            if last:
                raise
            self._tell(error)
        else:
            self._tell(None)

    def save_beside(self) -> None:
        """Keeps the state as it is now, while the training goes on."""
        self._wait()
        try:
            self._writing = self._writer.submit(self._write, *self._taken())
        except RuntimeError:  # the system starts no further thread
            self._writer = ThreadPoolExecutor(1, "chaos-store")
            self.save()

    def _wait(self) -> None:
        """Until nothing is being written any more."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            except OSError as error:
                self._tell(error)
            else:
                self._tell(None)

    def _tell(self, error: OSError | None) -> None:
        """Tells what is new about the last attempt to write."""
        text = None if error is None else f"{error.filename or self.folder}: {error.strerror or error}"
        if text == self._failed:
            return
        if text:
            there = f"{self.folder / MODEL} holds the last state that was kept" if (self.folder / MODEL).exists() else ""
            tell(f"chaos: the state could not be kept ({text}); the training goes on{there and '; '}{there}")
        else:
            tell(f"chaos: the state is kept again in {self.folder}")
        self._failed = text

    def _taken(self) -> tuple[State, list[Record], dict[str, Any]]:
        """All of the job's state, and the records of its epochs."""
        job = self.job
        about = {"identity": job.identity, "epochs": len(job.history), "partial": job.partial, "runner": job.runner.kind} | (
            {"lr_cut": job.lr_cut} if job.lr_cut != 1 else {}
        )
        return State.of(job), list(job.history), about

    def _write(self, state: State, history: list[Record], about: dict[str, Any], at_end: bool = False) -> None:
        """Writes what `_taken` gave; `at_end`: of an epoch."""
        if lines := history[self._lines :]:
            self._append("".join(map(_line, lines)).encode(), history)
        about = about | {"metrics": {"size": self._size, "sha256": self._digest.hexdigest()}}
        self.job.net.save(self.folder / MODEL, {"training": json.dumps(about)}, state.tensors(self.job), state.weights)
        if at_end and self.job.settings.keep_checkpoints > 1:
            self._keep(len(history))

    def _keep(self, epoch: int) -> None:
        """The state of this epoch and of those before it, as many as are asked for."""
        folder = self.folder / KEPT
        folder.mkdir(exist_ok=True)
        new = folder / f"epoch-{epoch:06}.safetensors"
        new.unlink(missing_ok=True)  # of a run that was taken back
        try:
            os.link(self.folder / MODEL, new)
        except OSError:  # a file system without links
            write_atomically(new, (self.folder / MODEL).read_bytes())
        for old in sorted(folder.glob("epoch-*.safetensors"))[: -self.job.settings.keep_checkpoints]:
            old.unlink(missing_ok=True)

    def _others(self) -> str:
        """What to do where model.safetensors is damaged."""
        kept = sorted((self.folder / KEPT).glob("epoch-*.safetensors"))
        return f"; {kept[-1]} is an earlier state, which may be copied to its place" if kept else ""

    def _append(self, text: bytes, history: list[Record]) -> None:
        """Puts lines behind those that count, so that all of `history` is there; a failed write may have left a piece."""
        try:
            with open(self.folder / METRICS, "r+b") as file:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:  # somebody has removed it
            self._write_metrics(history)
        else:
            self._size += len(text)
            self._digest.update(text)
            self._lines = len(history)

    def _write_metrics(self, history: list[Record], found: bytes | None = None) -> None:
        """Writes all records, or the lines that were found of them."""
        lines = "".join(map(_line, history)).encode() if found is None else found
        write_atomically(self.folder / METRICS, lines)
        self._size, self._digest, self._lines = len(lines), hashlib.sha256(lines), len(history)


def _plain(value: Any) -> Any:
    """What JSON has for an object of a caller's `config`; TypeError where it has nothing."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"config holds {value!r}, which config.json cannot keep: only text, numbers, lists and dicts")


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"
