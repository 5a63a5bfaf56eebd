"""The calls of this room: `train`, for settings that are put together already, and `evaluate`. `chaos.train` (chaos/api.py)
and the command line come through here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from .. import blas
from ..data import Stream
from ..errors import DivergedError
from ..hints import TRAINING, explained, no_network
from ..network import Network
from . import metrics as measures
from . import phases
from .callbacks import Listeners
from .feeding import Fed
from .job import Job
from .link import Alone
from .progress import Progress
from .records import Result
from .result import Run
from .runner import Threads
from .settings import ABOUT, Settings
from .signals import signals
from .store import Store, kept_options


def train(
    net: Network,
    train: Any,
    test: Any = None,
    settings: Settings | None = None,
    *,
    validation: Any = None,
    sample_weight: Any = None,
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
    validation : Dataset, optional
        The validation set.
    sample_weight, config, callbacks, link, runner
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
    if settings.resume and settings.run_dir and settings.words():
        # what was found out when the run began; the other ranks may not see its directory
        found = link.gather(kept_options(settings) if link.rank == 0 else None)[0]
        settings = dataclasses.replace(settings, strategy_options={**(settings.strategy_options or {}), **(found or {})})

    def prepare() -> tuple[Job, Store | None, Listeners]:
        if settings.resume and settings.run_dir is None and link.rank == 0:
            raise ValueError("resume=True needs run_dir, the directory of the run that is to be continued")
        # the display first: what callbacks print comes after its line
        listeners = Listeners([Progress(bool(settings.progress), link.rank == 0), *Listeners(callbacks).callbacks])
        if isinstance(runner, Fed):
            runner.check(settings)
        data = train if sample_weight is None else phases.with_weights(train, sample_weight)
        job = Job(net, data, test, settings, validation=validation, link=link, runner=runner)
        store = None
        if settings.run_dir is not None and link.rank == 0:
            store = Store(settings.run_dir, job, config or {})
            held.callback(store.close)
            store.open(settings.resume)
        return job, store, listeners

    with ExitStack() as held:
        job, store, listeners = link.checked(prepare)
        try:
            with blas.one_thread(), signals() as caught, link.joined(job, caught):
                job.run(store, listeners, caught)
            if caught.signal:  # it came after the last look
                caught.leave()
        except BaseException as error:
            with suppress(AttributeError):  # what a caller can go on with
                error.run = _result(job, store)  # type: ignore[attr-defined]
            raise
    return _result(job, store)


def _result(job: Job, store: Store | None) -> Run:
    """What there is of a training, which may have been interrupted."""
    return Run(
        job.net,
        job.history,
        job.plan,
        store.folder if store else None,
        is_root=job.link.rank == 0,
        stopped=job.stopped,
        best_epoch=job.best_epoch,
        monitored=job.monitor.key if job.monitor else None,
        best_weights=None if job.best is None else job.net.unpack(job.best),
        doubt=job.doubt,
    )


@explained(TRAINING, "; images and labels together are chaos.data.Dataset(images, labels)")
def evaluate(
    net: Network,
    data: Any,
    *,
    workers: int | None = None,
    loss: str = Settings.loss,
    loss_options: Mapping[str, Any] | None = None,
    metrics: Sequence[Any] = (),
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
    metrics : list of str and callables
        What else is measured, as for `train`.

    Returns
    -------
    dict
        loss (mean), error (fraction in 0..1, of the images, or of pixels or values where the loss counts these; None
        where it counts none), wrong (count), images, seconds, images_per_second, workers; and each metric by its name.

    Raises
    ------
    ValueError, DataError
        If the data do not fit the network.
    KeyboardInterrupt, SystemExit
        After Ctrl-C or SIGTERM.
    """
    if not isinstance(net, Network):
        raise TypeError(no_network(net))
    plan = phases.resolve_workers(workers)
    loss = ABOUT["loss"].check("loss", loss)
    taken = phases.take(net, data, "data", loss, net.trained_on, loss_options=loss_options)
    phases.check_names(net.class_names, data, "data")
    measured = measures.resolve(metrics)
    for one in measured:
        one.check(taken.judged.form, taken.judged.loss)
    out = np.zeros((taken.count, phases.outputs_of(net)), np.float32) if measured else None
    engine = phases.evaluator(net, plan, loss, loss_options)

    def run() -> tuple[Result, float]:
        # the pool is freed while signals are noted: Python would lose a KeyboardInterrupt that is raised in what frees it
        with ThreadPoolExecutor(1) as pool:
            return phases.run_phase(pool, engine, caught, None, "test", Alone(), **taken.arguments, out=out)

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
        **({} if out is None else measures.measure(measured, taken.answered(out))),
    }
