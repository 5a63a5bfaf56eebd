"""Training with virtual workers: the order of events comes from the clock, the arithmetic is real. For the CLI."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .. import _core, threads, training
from ..data import Dataset
from ..network import Network
from ..options import check_number, unknown
from ..sync import STRATEGIES
from ..training import Job, Settings, Threads, no_counts
from ..training.callbacks import Listeners
from ..training.records import Record, Result
from ..training.signals import Caught
from .clock import Machine, Order, check_events, check_strategy
from .replay import VirtualPlan, check_jobs
from .times import Times, measured, nominal

MAX_WORKERS = 4096
DEFAULT_WORKERS = 244  # the threads of the paper's machine
ONE_WORKER_IMAGES = 4096  # that the clock of one worker runs over, for the speed-up


class Virtual(Threads):
    """Runs a job's training phases with virtual workers: for the argument `runner` of chaos.train.

    The clock (cext/virtual/clock.h says what it models) invents when which worker reads and updates what; the executor
    runs these events on the real kernels with each worker's own state. Same settings, same seed and same times: the same
    bits, and where real workers give the same bits again (`deterministic`), theirs. In the records `seconds` and what
    follows from it are those of the virtual machine, and "virtual" tells about it: cores, threads_per_core, speedup (over
    one worker of the same machine), waiting_us_per_image and times. Memory: a worker's times their number, and with
    `locked` and `delayed` the weights once more each, with `leashed` three times, and with `averaging` and `elastic` a
    replica of weights and moments each, with `domains` and `replicated` the same for each group. A run that was stopped
    goes on at the beginning of its epoch.

    Parameters
    ----------
    machine : Machine, optional
    times : Times, optional
        By default nominal ones, which depend on nothing but the network.
    jobs : int
        Threads that run the events. They change no bit. They wait for each other wherever the order of events asks for it,
        so more than one pay where cores have nothing else to do and a pass takes long against the transfer of its data to
        another core (medium, large); therefore one by default. The clock always runs ahead in a thread of its own. With
        more than one, memory: up to the weights once more per worker.

    Raises
    ------
    ValueError
        Where a strategy or an option cannot be simulated.
    """

    kind = "virtual workers"
    pauses = False

    def __init__(self, machine: Machine | None = None, times: Times | None = None, jobs: int = 1) -> None:
        self.machine, self.times, self.jobs = machine or Machine(), times, check_jobs(jobs)
        self.record: Record = {}
        self.split: dict[str, float] = {}

    def workers(self, requested: int | None, only_one: str | None, pin: str) -> VirtualPlan:
        workers = (1 if only_one else DEFAULT_WORKERS) if requested is None else requested
        check_number("workers", workers, 1, MAX_WORKERS, whole=True)
        if pin != "none":
            raise ValueError(f"pin must be none, not {pin!r}: virtual workers have no threads")
        return VirtualPlan(
            int(workers), "argument", {"argument": int(workers)}, False, (), text=self.machine.describe(int(workers))
        )

    def grouped(self, plan: threads.Plan, measured: bool) -> tuple[threads.Plan, int]:
        size = near(self.machine, plan.workers)
        text = f"{plan.describe()}, {-(-plan.workers // size)} groups of {size}"
        return VirtualPlan(plan.workers, plan.limit, plan.limits, False, (), text=text), size

    def start(self, job: Job) -> _core.Engine:
        if job.link.size > 1:
            raise ValueError(f"a job of {job.link.size} processes cannot be simulated; only one process can")
        settings = job.settings
        if job.net.shares_weights:  # the clock knows of one pass over a layer's weights each way
            raise ValueError("a network whose layers share weights cannot be simulated; real workers can train it")
        check_strategy(settings.strategy, settings.strategy_options or {}, settings.update_options)
        self.times = self.times or nominal(job.net)
        order = self._order(job, 0)  # which checks the rest
        check_events(settings.strategy, settings.update_options, "simulated", lanes=order.lanes > 0)
        # one thread: whatever is added up over images is added up in the same order every time
        return _core.Engine(
            job.net.plan,
            job.net.weights,
            loss=job.net.core_loss(settings.loss, settings.loss_options),
            batch_size=job.net.plan.together,
        )

    def _order(self, job: Job, epoch: int, workers: int | None = None) -> Order:
        assert self.times  # since `start`
        machine = self.machine if workers is None else dataclasses.replace(self.machine, stragglers=0)
        return Order(
            job.net,
            job.engine,
            self.times,
            machine,
            job.settings.strategy,
            dict(job.settings.strategy_options or {}),
            [job.settings.seed, epoch],
            workers,
        )

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
        assert self.times  # since `start`
        # each epoch's clock starts anew, so that a continued run has the same events
        order = self._order(job, epoch)
        weights, moments, versions = job.net.weights.copy(), job.moments.copy(), job.engine.versions()
        images = len(arguments["order"]) - arguments["begin"]
        result, _ = super().train(
            job,
            epoch,
            pool,
            caught,
            listeners,
            ahead,
            events=order.blocks(images),
            lanes=order.lanes,
            jobs=self.jobs,
            **arguments,
        )
        if result["status"] == "stopped":  # in the middle of many images, which no other run could go on from
            job.net.weights[:], job.moments[:] = weights, moments
            job.engine.versions(np.array(versions, np.uint32))
            return result | no_counts(), 0.0
        counts, seconds = order.clock.counts, order.clock.now
        result["lock_failures"] = counts["failures"]
        # the telemetry of real threads would tell about the one thread that ran all this
        result["time"] = {"total": seconds * order.workers, "forward": 0.0, "backward": 0.0, "publish": 0.0, "wait": 0.0}
        for layer in result["layers"].values():
            layer["pending_seconds"] = 0.0
        spent = {
            "forward": counts["forward"],
            "backward": counts["backward"],
            "publish": counts["publishing"],
            "wait": counts["waiting"],
            "evaluate": 0.0,
        }
        total = max(sum(spent.values()), 1e-30)
        self.split = {name: seconds / total for name, seconds in spent.items()}
        alone = min(images, ONE_WORKER_IMAGES)
        self.record = {
            "cores": self.machine.cores or job.engine.workers,
            "threads_per_core": self.machine.threads_per_core,
            "speedup": self._order(job, epoch, 1).seconds(alone) / alone * images / seconds,
            "waiting_us_per_image": counts["waiting"] / images * 1e6,
            "times": self.times.source,
        }
        return result, seconds

    def report(self) -> Record:
        return {"virtual": self.record, "time_split": self.split}


def near(machine: Machine, workers: int) -> int:
    """How many virtual workers, one after the other, share a cache."""
    if machine.topology is None or machine.cores is None:
        return workers
    size = machine.topology.domain
    return threads.group_size([worker % machine.cores // size for worker in range(workers)])


def settled(
    net: Network, workers: int, strategy: str, options: Mapping[str, Any] | None, machine: Machine
) -> dict[str, Any]:
    """All options of a strategy, with the numbers for words that they are on a virtual machine."""
    how = STRATEGIES[strategy]
    given = how.resolve(dict(options or {}))
    return how.settle(given, workers, net.plan.weight_size, lambda measured: near(machine, workers))


def predict(
    net: Network,
    workers: int,
    *,
    images: int,
    strategy: str = Settings.strategy,
    strategy_options: Mapping[str, Any] | None = Settings.strategy_options,
    batch_size: int = Settings.batch_size,
    machine: Machine | None = None,
    times: Times | None = None,
    seed: int = Settings.seed,
) -> dict[str, float]:
    """Runs only the clock: how long a training phase would take.

    Parameters
    ----------
    net : Network
    workers : int
    images : int
    strategy, strategy_options, batch_size, seed
        As in chaos.train.
    machine : Machine, optional
    times : Times, optional
        By default measured on this host.

    Returns
    -------
    dict
        seconds (of the phase), one_worker_seconds, speedup, waiting (share of the workers' time), lock_failures,
        us_per_image.
    """
    check_number("workers", workers, 1, MAX_WORKERS, whole=True)
    check_number("images", images, 1, whole=True)
    if strategy not in STRATEGIES:
        raise ValueError(unknown("unknown strategy", strategy, STRATEGIES))
    how = STRATEGIES[strategy]
    machine, times = machine or Machine(), times or measured(net, batch_size)
    options = settled(net, workers, strategy, strategy_options, machine)
    check_strategy(strategy, options)
    engine = _core.Engine(
        net.plan,
        net.weights,
        workers=workers,
        strategy=strategy,
        batch_size=batch_size,
        stripe_bytes=options["stripe_bytes"],
        strategy_options=how.core_options(options),
    )
    order = Order(net, engine, times, machine, strategy, options, [seed, 1])
    seconds = order.seconds(images)
    alone = Order(net, engine, times, dataclasses.replace(machine, stragglers=0), strategy, options, [seed, 1], 1)
    n = min(images, ONE_WORKER_IMAGES)
    one, counts = alone.seconds(n) / n * images, order.clock.counts
    return {
        "seconds": seconds,
        "one_worker_seconds": one,
        "speedup": one / seconds,
        "waiting": counts["waiting"] / max(seconds * workers, 1e-30),
        "lock_failures": counts["failures"],
        "us_per_image": seconds / images * 1e6,
    }


def compare(
    net: Network,
    data: Dataset,
    workers: Sequence[int] = (1, 2),
    *,
    repeats: int = 3,
    machine: Machine | None = None,
    **settings: Any,
) -> list[Record]:
    """Holds the simulation to real threads: one epoch each from the same weights, with the times measured here.

    Parameters
    ----------
    net : Network
        Is not changed.
    data : Dataset
    workers : sequence of int
    repeats : int
        Of the real runs; the fastest counts.
    machine : Machine, optional
        By default one core per worker.
    **settings
        As in chaos.train: strategy, strategy_options, batch_size, lr, seed.

    Returns
    -------
    list of dict
        Per number of workers: workers; real and simulated, each with seconds, speedup (over one worker of its kind),
        train_error, staleness (mean, p50, p99, max, histogram); speedup_difference (simulated / real - 1);
        staleness_distance (half the sum of the absolute differences of the two histograms' shares, 0 if equal, at most 1).
    """
    asked = Settings(epochs=1, progress=False, **settings)
    times = measured(net, asked.batch_size)

    def one(count: int, runner: Virtual | None = None) -> Record:
        copy = Network.from_config(net.config())
        copy.weights[:] = net.weights
        run = training.train(copy, data, None, dataclasses.replace(asked, workers=count), runner=runner)
        record = run.history[0]
        return {name: record[name] for name in ("seconds", "train_error", "staleness")}

    rows: list[Record] = []
    base: tuple[float, float] | None = None
    for count in (1, *(n for n in workers if n != 1)):
        real = min((one(count) for _ in range(repeats)), key=lambda record: record["seconds"])
        simulated = one(count, Virtual(machine, times))
        base = base or (real["seconds"], simulated["seconds"])
        real["speedup"], simulated["speedup"] = base[0] / real["seconds"], base[1] / simulated["seconds"]
        rows.append(
            {
                "workers": count,
                "real": real,
                "simulated": simulated,
                "speedup_difference": simulated["speedup"] / real["speedup"] - 1,
                "staleness_distance": _distance(real["staleness"]["histogram"], simulated["staleness"]["histogram"]),
            }
        )
    return [row for row in rows if row["workers"] in workers]


def _distance(a: Sequence[int], b: Sequence[int]) -> float:
    shares = np.zeros((2, max(len(a), len(b), 1)))
    for row, histogram in zip(shares, (a, b), strict=True):
        row[: len(histogram)] = np.array(histogram) / max(sum(histogram), 1)
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
