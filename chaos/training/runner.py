"""What runs the training phases of a job: real threads here, virtual workers in chaos.virtual. For chaos.training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .. import _core, threads
from ..distance import measured_domains
from . import phases
from .callbacks import Listeners
from .records import Record, Result
from .signals import Caught

if TYPE_CHECKING:
    from .job import Job


class Threads:
    """Runs the training phases of a job: on real threads. chaos.virtual has others."""

    kind = "real threads"  # a run goes on with the same
    pauses = True  # a phase may be cut into pieces, and the engine be made again in between

    def workers(self, requested: int | None, only_one: str | None, pin: str) -> threads.Plan:
        """The plan of the workers, from what was asked for."""
        return phases.resolve_workers(requested, only_one, pin)

    def grouped(self, plan: threads.Plan, measured: bool) -> tuple[threads.Plan, int]:
        """The plan with the workers of a cache one after the other, and how many those are."""
        return threads.grouped(plan, measured_domains() if measured else threads.cache_domains())

    def start(self, job: Job) -> _core.Engine:
        """The job's engine is there, its weights may still be replaced; returns the engine for evaluations."""
        if job.settings.images_per_update >= job.net.plan.together:
            return job.engine
        return phases.evaluator(job.net, job.plan, job.settings.loss, job.settings.loss_options)

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
        """A training phase: (result, seconds)."""
        engine = job.link.trains(job.engine)
        return phases.run_phase(pool, engine, caught, listeners, "train", job.link, ahead, **arguments)

    def report(self) -> Record:
        """What the epoch's record tells beside what all records have."""
        return {}
