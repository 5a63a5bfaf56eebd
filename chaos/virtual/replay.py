"""Tracing real runs, and repeating them bit for bit. The file format is chaos/formats/trace.py, the executor
cext/replay/, the recorder cext/engine/trace.c."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .. import _core, threads
from .._version import __version__
from ..data import Dataset
from ..errors import TraceError, UnsupportedError
from ..formats.trace import TraceReader, TraceWriter, digest
from ..loading import check_size
from ..network import Network, run_key
from ..options import check_number
from ..training import TRAINS, Alone, Job, Settings, Threads
from ..training.callbacks import Listeners
from ..training.records import Record, Result
from ..training.settings import completed
from ..training.signals import Caught
from .clock import BLOCK, check_events

MAX_JOBS = 1024
TRACEABLE = ("sequential", "chaos")  # they update a stripe only while they hold it, or alone


class Traced(Threads):
    """Runs a job on real threads and records the order in which they met the weights, as a context manager; for the argument
    `runner` of chaos.train.

    A traced worker copies a layer's weights while it holds all their stripes, so that every read is of one moment; this
    costs time (a copy of the weights twice per image, and waiting) and makes try-locks fail more often. Memory: the weights
    per worker, and 24 bytes per event of an epoch. An image has 1 event for each step, 2 for each layer with weights and at
    most 2 for each stripe (16 KiB of weights): small 14 to 19, medium 32 to 55, large 117 to 223; with read=publication 1
    or 2 more for each stripe. In the file an event takes at most 7 bytes, and with two workers usually less than one.

    Parameters
    ----------
    path : path
        Of the trace file; one that is there already is replaced when the first phase ends.
    data : str, optional
        What the images are called, for those who look for them when the trace is to be replayed.

    Raises
    ------
    ValueError
        For strategies whose order of updates is not recorded, and runs that are continued or have several processes.
    """

    pauses = False

    def __init__(self, path: str | os.PathLike[str], data: str | None = None) -> None:
        self.path, self.data = path, data
        self.writer: TraceWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.writer:
            self.writer.__exit__(*exception)

    def start(self, job: Job) -> _core.Engine:
        if job.settings.strategy not in TRACEABLE:
            raise ValueError(f"strategy {job.settings.strategy!r} cannot be traced; these can: {', '.join(TRACEABLE)}")
        if job.link.size > 1:
            raise ValueError(f"a job of {job.link.size} processes cannot be traced; only one process can")
        check_events(job.settings.strategy, job.settings.update_options, "traced")
        job.engine.trace()
        return super().start(job)

    def train(
        self,
        job: Job,
        epoch: int,
        pool: ThreadPoolExecutor,
        caught: Caught,
        listeners: Listeners,
        ahead: int,
        **arguments: Any,
    ) -> tuple[Result, float]:
        if self.writer is None:
            if job.history or job.partial:
                raise ValueError("a run that is continued cannot be traced: its beginning is not in the trace")
            self.writer = TraceWriter(self.path).__enter__()
            self.writer.head(
                {
                    **{name: job.identity[name] for name in TRAINS},
                    "network": job.identity["network"],
                    "train": job.identity["train"],
                    "images": job.training.total,
                    "data": self.data,
                    "workers": job.plan.workers,
                    "epochs": job.settings.epochs,
                    "isa": job.net.plan.isa,
                    "winograd": _core.get_winograd(),
                    "chaos": __version__,
                    "build": _core.BUILD_INFO,
                },
                job.net.weights,
            )
        result, seconds = super().train(job, epoch, pool, caught, listeners, ahead, **arguments)
        events = np.empty(job.engine.traced(), np.uint64)
        job.engine.events(events)
        self.writer.phase(
            {
                "epoch": epoch,
                "begin": arguments["begin"],
                "images": result["images"],
                "lr": arguments["lr"],
                "status": result["status"],
            },
            events,
            job.net.weights,
        )
        return result, seconds


@dataclasses.dataclass(frozen=True)
class VirtualPlan(threads.Plan):
    """The plan of workers that are no threads."""

    text: str = ""

    def describe(self) -> str:
        return self.text


class _Replayed(Threads):
    pauses = False

    def workers(self, requested: int | None, only_one: str | None, pin: str) -> VirtualPlan:
        assert requested is not None  # the trace's number
        return VirtualPlan(
            requested,
            "argument",
            {"argument": requested},
            False,
            (),
            text=f"{requested} traced worker{'s' if requested != 1 else ''}, replayed",
        )


def check_jobs(jobs: int) -> int:
    """The number of threads that run events; ValueError where it makes no sense."""
    check_number("jobs", jobs, 1, MAX_JOBS, whole=True)
    if jobs > 1 and not _core.OPENMP:
        raise ValueError(f"jobs must be 1, not {jobs}: this chaos is built without OpenMP")
    return int(jobs)


def replay(
    path: str | os.PathLike[str], data: Dataset, *, progress: Callable[[Record], object] | None = None, jobs: int = 1
) -> Network:
    """Repeats a traced run: the same weights to the last bit, which is checked after every epoch.

    Parameters
    ----------
    path : path
        Of a trace file, see `Traced`.
    data : Dataset
        The training images of the traced run; more than these are cut to their number.
    progress : callable, optional
        Is given a dict per phase: epoch, images, train_loss, train_error, events, status of the traced phase ("done",
        "stopped", "diverged") and weights, the SHA-256 that was compared (None after a divergence).
    jobs : int
        Threads that run the events, see `Virtual`. They change no bit.

    Returns
    -------
    Network
        That of the traced run, as it was in the end.

    Raises
    ------
    TraceError
        If the file is damaged, other data or another instruction set are in force, or the weights differ.
    """
    check_jobs(jobs)
    with TraceReader(path) as trace:
        try:
            about = completed(trace.about)
        except ValueError as error:
            raise TraceError(f"{path}: damaged: {error}") from None
        net = _network(trace, about, data)
        if len(data) > about["images"]:
            data = data[: about["images"]]
        if data.fingerprint() != about["train"]:
            raise TraceError(
                f"{path}: recorded on other data: {about['images']} images with fingerprint {about['train']}, "
                f"these {len(data)} have {data.fingerprint()}"
            )
        try:
            settings = Settings(
                workers=about["workers"],
                epochs=about["epochs"],
                monitor="train_loss",  # which is always there: the trace knows the learning rates
                **{name: about[name] for name in TRAINS},
            )
            job = Job(net, data, None, settings, link=Alone(), runner=_Replayed())
        except UnsupportedError:
            raise
        except (ValueError, TypeError) as error:
            raise TraceError(
                f"{path}: damaged, or written by another version of chaos ({about['chaos']}): {error}"
            ) from None
        net.trained_on, net.class_names = job.training.scales, job.class_names or net.class_names
        for phase, events, end in trace.phases():
            found = _run(path, job, phase, events, int(jobs))
            wanted = end()
            if phase["status"] != "diverged":
                found["weights"] = wanted
                if wanted != digest(net.weights):
                    raise TraceError(
                        f"{path}: the weights after epoch {phase['epoch']} are not those of the traced run; it "
                        f"was built by {about['build']!r}, this chaos by {_core.BUILD_INFO!r}"
                    )
            if progress:
                progress(found)
    return net


def _network(trace: TraceReader, about: Mapping[str, Any], data: Dataset) -> Network:
    """The network with its initial weights; TraceError where it cannot be replayed here."""
    path = trace.path
    wanted = {
        **dict.fromkeys(TRAINS, object),
        "network": dict,
        "train": str,
        "images": int,
        "workers": int,
        "epochs": int,
        "isa": str,
        "winograd": bool,
        "build": str,
        "chaos": str,
    }
    wrong = [name for name, kind in wanted.items() if name not in about or not isinstance(about[name], kind)]
    if wrong:
        raise TraceError(f"{path}: damaged: its head lacks {', '.join(wrong)}")
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a chaos.data.Dataset, not {type(data).__name__}")
    if about["isa"] != _core.get_isa():
        can = about["isa"] in _core.instruction_sets()
        raise TraceError(
            f"{path}: recorded with instruction set {about['isa']}, {_core.get_isa()} is in force"
            + (f"; set CHAOS_ISA={about['isa']}" if can else ", and this machine does not have it")
        )
    if about["winograd"] != _core.get_winograd():
        raise TraceError(f"{path}: recorded with CHAOS_WINOGRAD={about['winograd']:d}, {_core.get_winograd():d} is in force")
    try:
        check_size(about["network"], trace.weights.size)
        net = Network.from_config(about["network"])
    except ValueError as error:
        raise TraceError(f"{path}: damaged: {error}") from None
    if trace.weights.shape != net.weights.shape:
        raise TraceError(f"{path}: damaged: {trace.weights.size} initial weights, the network has {net.weights.size}")
    net.weights[:] = trace.weights
    return net


def _run(
    path: str | os.PathLike[str], job: Job, phase: Mapping[str, Any], events: Iterator[NDArray[np.uint64]], jobs: int
) -> Record:
    """Runs one traced phase; a dict about it."""
    try:
        for name in ("epoch", "begin", "images"):
            check_number(name, phase[name], 0, whole=True)
        check_number("lr", phase["lr"], 0)
        epoch, begin, images = phase["epoch"], phase["begin"], phase["images"]
        end = None if phase["status"] == "diverged" else begin + images
        blocks = (block[at : at + BLOCK] for block in events for at in range(0, len(block), BLOCK))
        result = job.engine.run(
            "train",
            **job.training.arguments,
            order=job.order(epoch),
            begin=begin,
            end=end,
            lr=phase["lr"] if job.schedule.adapts else job.rate(epoch),
            step_scale=job.step_scale(),
            key=run_key(job.settings.seed, epoch),
            events=blocks,
            jobs=jobs,
        )
    except TraceError:
        raise
    except (ValueError, KeyError, OverflowError) as error:
        if phase.get("status") != "diverged":  # then the events end in the middle
            raise TraceError(f"{path}: damaged: {error}") from None
        return {
            "epoch": phase["epoch"],
            "images": 0,
            "train_loss": None,
            "train_error": None,
            "events": phase["events"],
            "status": "diverged",
            "weights": None,
        }
    job.history.append({"staleness": {"histogram": result["staleness"]}})
    n = max(result["images"], 1)
    return {
        "epoch": epoch,
        "images": result["images"],
        "train_loss": result["loss"] / n,
        "train_error": result["errors"] / n,
        "events": phase["events"],
        "status": phase["status"],
        "weights": None,
    }
