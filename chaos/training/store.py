"""The run directory: config.json, metrics.jsonl and model.safetensors. For chaos.training and the rooms above, which know
its file names from here.

It is no callback: what it keeps is the job's own state, of which events show nothing, and it has to be on the disk before
any callback hears that the epoch is over."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _core
from .._version import __version__
from ..errors import CheckpointError
from ..formats.atomic import write_atomically
from ..network import load_with_state
from .records import Record
from .runner import Threads
from .settings import completed, differences
from .state import give_state, take_state

if TYPE_CHECKING:
    from .job import Job

MODEL, METRICS, CONFIG = "model.safetensors", "metrics.jsonl", "config.json"


class Store:
    """The run directory of a job. model.safetensors holds weights and training state in one file, so they always agree;
    metrics.jsonl is written before it and cut back to it when a run is continued."""

    def __init__(self, folder: str | os.PathLike[str], job: Job, extra: Mapping[str, Any]) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"run_dir must be the path of a directory, not {folder!r}")
        self.folder, self.job, self.extra = Path(folder), job, extra

    def open(self, resume: bool) -> None:
        """Makes the directory, or takes the job's state from it."""
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"run directory {self.folder} is a file")
        held = [name for name in (MODEL, METRICS) if (self.folder / name).exists() and (self.folder / name).stat().st_size]
        if held and not resume:
            raise CheckpointError(
                f"run directory {self.folder} already holds a run ({', '.join(held)}); "
                "continue it with resume, or name another directory"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"run directory {self.folder} cannot be made: {error.strerror}") from None
        if resume and (self.folder / MODEL).exists():
            self.restore()
        config = json.dumps({**self.extra, **self._config()}, indent=2)
        write_atomically(self.folder / CONFIG, config.encode() + b"\n")
        self.write_metrics()

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
            state = json.loads(metadata["training"])
            identity, history, partial = state["identity"], state["history"], state["partial"]
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: holds no training state ({type(error).__name__} {error})") from None
        # what an earlier version did not know had its default then
        kind = "virtual workers" if any("virtual" in record for record in history) else Threads.kind
        kind = state.get("runner", kind if history else job.runner.kind)
        if kind != job.runner.kind:
            raise CheckpointError(f"{path}: is the state of a run of {kind}; it cannot be continued with {job.runner.kind}")
        differ = differences(completed(identity), job.identity)
        if differ:
            raise CheckpointError(f"{path}: is the state of another run; different: {', '.join(differ)}")
        try:
            give_state(job, tensors)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None
        job.net.load_state_dict(net.state_dict())
        job.history, job.partial = history, partial

    def save(self, record: Record | None = None) -> None:
        """Keeps the state; `record` is that of an epoch that has just been finished."""
        if record:
            self.write_metrics()
        state = {
            "identity": self.job.identity,
            "history": self.job.history,
            "partial": self.job.partial,
            "runner": self.job.runner.kind,
        }
        self.job.net.save(self.folder / MODEL, {"training": json.dumps(state)}, take_state(self.job))

    def write_metrics(self) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in self.job.history)
        write_atomically(self.folder / METRICS, lines.encode())
