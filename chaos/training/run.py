"""The calls of this room: `train`, for settings that are put together already, and `evaluate`. `chaos.train` (chaos/api.py)
and the command line come through here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import blas, threads
from ..data import Stream
from ..errors import DivergedError
from ..network import Network
from . import phases
from .callbacks import Listeners
from .feeding import Fed
from .job import Job
from .link import Alone
from .progress import Progress
from .records import Record, Result
from .runner import Threads
from .settings import ABOUT, Settings
from .signals import signals
from .store import Store


@dataclasses.dataclass
class Run:
    """What `chaos.train` returns.

    Attributes
    ----------
    network : Network
        The network that was trained, in place.
    history : list of dict
        One dict per finished epoch, as in metrics.jsonl: among others epoch (from 1), lr, train_loss, test_loss and, where
        asked for, validation_loss (mean per image), train_error, test_error, validation_error (fractions in 0..1),
        seconds and images_per_second (of the training phase), staleness (mean, p50, p99, max, histogram, whose last bin
        counts 511 and everything above, so that p50 and p99 of 511 are "at least 511"; mean and max are exact), layers,
        time_split (shares of the workers' time). train_* are of the images as they were trained on, during the epoch;
        test_* are None without a test set.
    workers : threads.Plan
        How many workers there were, and what limited them.
    run_dir : Path or None
    is_root : bool
        False on all but one of the processes of a job.
    stopped : bool
        A callback, of any rank, has ended the training.
    """

    network: Network
    history: list[Record]
    workers: threads.Plan
    run_dir: Path | None
    is_root: bool = True
    stopped: bool = False


def train(
    net: Network,
    train: Any,
    test: Any = None,
    settings: Settings | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    callbacks: Iterable[Any] = (),
    link: Alone | None = None,
    runner: Threads | None = None,
) -> Run:
    """`chaos.train` for settings that are put together already; those of the cluster count for who makes the link.

    Parameters
    ----------
    net : Network
    train, test : Dataset
    settings : Settings, optional
    config, callbacks, link, runner
        As for `chaos.train`.

    Returns
    -------
    Run

    Raises
    ------
    ValueError, TypeError, OSError, ChaosError, KeyboardInterrupt, SystemExit
        As `chaos.train`.
    """
    if isinstance(train, Stream):
        if runner is not None:
            raise ValueError("a chaos.data.Stream feeds real workers; in a simulation or a trace give a Dataset")
        runner = Fed(train)
    link, runner, settings = link or Alone(), runner or Threads(), settings or Settings()

    def prepare() -> tuple[Job, Store | None, Listeners]:
        if settings.resume and settings.run_dir is None and link.rank == 0:
            raise ValueError("resume=True needs run_dir, the directory of the run that is to be continued")
        # the display first: what callbacks print comes after its line
        listeners = Listeners([Progress(bool(settings.progress) and link.rank == 0), *Listeners(callbacks).callbacks])
        job = Job(net, train, test, settings, link=link, runner=runner)
        store = None
        if settings.run_dir is not None and link.rank == 0:
            store = Store(settings.run_dir, job, config or {})
            held.callback(store.close)
            store.open(settings.resume)
        return job, store, listeners

    with ExitStack() as held:
        job, store, listeners = link.checked(prepare)
        with blas.one_thread(), signals() as caught, link.joined(job, caught):
            job.run(store, listeners, caught)
    if caught.signal:  # it came after the last look
        caught.leave()
    return Run(net, job.history, job.plan, store.folder if store else None, link.rank == 0, job.stopped)


def evaluate(
    net: Network,
    data: Any,
    *,
    workers: int | None = None,
    loss: str = Settings.loss,
    loss_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Mean loss and errors of a network on a data set.

    Parameters
    ----------
    net : Network
    data : Dataset
    workers : int, optional
        As for `train`.
    loss : str
    loss_options : dict, optional
        Of the loss, by name.

    Returns
    -------
    dict
        loss (mean), error (fraction in 0..1, of the images, or of pixels or values where the loss counts these; None
        where it counts none), wrong (count), images, seconds, images_per_second, workers.

    Raises
    ------
    ValueError, DataError
        If the data do not fit the network.
    KeyboardInterrupt, SystemExit
        After Ctrl-C or SIGTERM.
    """
    plan = phases.resolve_workers(workers)
    loss = ABOUT["loss"].check("loss", loss)
    taken = phases.take(net, data, "data", loss, net.trained_on, loss_options=loss_options)
    phases.check_names(net.class_names, data, "data")
    engine = phases.evaluator(net, plan, loss, loss_options)

    def run() -> tuple[Result, float]:
        # the pool is freed while signals are noted: Python would lose a KeyboardInterrupt that is raised in what frees it
        with ThreadPoolExecutor(1) as pool:
            return phases.run_phase(pool, engine, caught, None, "test", Alone(), **taken.arguments)

    with blas.one_thread(), signals() as caught:
        result, seconds = run()
    if caught.signal:  # also one that came when the phase was over
        caught.leave()
    if result["status"] == "diverged":
        raise DivergedError(f"the loss of image {result['failed_at']} is not finite")
    found = taken.results("test", result)
    return {
        "loss": found["test_loss"],
        "error": found["test_error"],
        "wrong": result["errors"],
        "images": len(data),
        "seconds": seconds,
        "images_per_second": len(data) / seconds,
        "workers": plan.workers,
    }
