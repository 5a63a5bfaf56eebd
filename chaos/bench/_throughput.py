"""Wall time of training per image. Imported by chaos.bench; chaos.bench._scaling measures with the same cases."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from .. import _core, threads
from ..network import Network
from ..options import unknown
from ..sync import STRATEGIES
from ..training import Threads
from ..training.records import Record, Result
from ._common import (
    RATE,
    Known,
    build,
    check,
    fill,
    instruction_set,
    machine,
    need_model,
    need_numbers,
    order_of,
    peak_gflops,
    run,
    take_images,
)


def throughput(
    model: str | Network,
    workers: int = 1,
    batch_size: int = 1,
    strategy: str = "chaos",
    seconds: float = 2.0,
    repeats: int = 5,
    isa: str | None = None,
) -> Record:
    """Wall time of training per image, and its share of the peak of the cores.

    Parameters
    ----------
    model : str or Network
        A name in chaos.models.MODELS, or a network, which stays as it is.
    workers, batch_size, strategy
        As for `chaos.train`.
    seconds : float
        Length of one repeat, about.
    repeats : int
        Numbers of the result are medians over so many.
    isa : str, optional
        Instruction set; the one in force by default.

    Returns
    -------
    dict
        model, workers, batch_size, strategy, isa, oversubscribed; us_per_image, us_per_image_min,
        us_per_image_max, images_per_second; flops_per_image (2 x multiply-adds of forward pass, weight
        gradient and data gradient, dense), gflops; peak_gflops (multiply-adds, measured between the repeats
        on as many cores as there are workers, at most those there are: peak_cores), peak_gflops_min,
        peak_gflops_max, fraction_of_peak; seconds, repeats, images_per_repeat, data; check (what was verified
        beforehand); machine.

    Raises
    ------
    ValueError
        Unknown names, impossible numbers.
    ChaosError
        The result is wrong, so its speed does not matter.
    """
    case = {"model": model, "workers": workers, "batch_size": batch_size, "strategy": strategy, "isa": isa}
    return throughputs([case], seconds=seconds, repeats=repeats)[0]


def throughputs(
    cases: Sequence[Mapping[str, Any]], seconds: float = 2.0, repeats: int = 5, beside: Callable[[], Any] | None = None
) -> list[Record]:
    """As `throughput` for several cases, measured in turns (A B A B): a drift of the machine meets all.

    Parameters
    ----------
    cases : list of dict
        Arguments of `throughput`; and cpus, a CPU for each worker to be pinned to (Linux).
    seconds, repeats
        As for `throughput`.
    beside : callable, optional
        Called before and after each repeat; a result then has each: a dict per repeat, us_per_image, had (share of the time
        for which the workers had a core), peak_gflops (the lower of those before and after), beside (the two things given).

    Returns
    -------
    list of dict
    """
    need_numbers(seconds, repeats)
    record = machine()
    images: Known = {}
    measured = [Case(**case, images=images) for case in cases]
    for case in measured:
        case.prepare(seconds)
    for _ in range(repeats):
        for case in measured:
            case.measure(beside)
    return [{**case.result(), "seconds": seconds, "repeats": repeats, "machine": record} for case in measured]


class Repeat(TypedDict):
    """See `throughputs`."""

    us_per_image: float
    had: float
    beside: list[Any]
    peak_gflops: float


class Case:
    """One setting under measurement.

    Attributes
    ----------
    us, counts : list
        Microseconds per image and the core's counts, one of each per repeat.
    """

    def __init__(
        self,
        model: str | Network,
        workers: int = 1,
        batch_size: int = 1,
        strategy: str = "chaos",
        isa: str | None = None,
        cpus: Sequence[int] | None = None,
        *,
        images: Known,
        strategy_options: Mapping[str, Any] | None = None,
        pin: str = "none",
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(unknown("unknown strategy", strategy, STRATEGIES))
        self.name = need_model(model)
        need_numbers(1, 1, batch_size)
        self.threads = threads.resolve(workers, pin=pin)
        kind: Any = STRATEGIES[strategy]
        self.options: dict[str, Any] = kind.resolve(dict(strategy_options or {}))
        kind.check(self.options, "sgd", {})
        self.cores = min(workers, *(n for name, n in self.threads.limits.items() if name != "argument"))
        self.batch_size, self.strategy = batch_size, strategy
        with instruction_set(isa) as self.isa:
            self.net = build(model)
            self.data, self.images, self.labels = take_images(self.net, images)
            self.what = f"{self.name} ({self.isa})"
            self.checked = check(self.net, self.what, self.images, self.labels, batch_size)
            self.options = kind.settle(self.options, workers, self.net.plan.weight_size, self._near)
            self.engine = _core.Engine(
                self.net.plan,
                self.net.weights,
                workers=workers,
                strategy=strategy,
                batch_size=batch_size,
                cpus=cpus or (None if self.threads.pin == "none" else self.threads.cpus),
                stripe_bytes=self.options["stripe_bytes"],
                strategy_options=kind.core_options(self.options),
                max_staleness=self.options.get("max_staleness"),
            )
        self.flops = 2 * sum(self.net.macs().values())
        self.count = 0
        self.us: list[float] = []
        self.peak: list[float] = []
        self.counts: list[Result] = []
        self.each: list[Repeat] = []

    def _near(self, measured: bool) -> int:
        self.threads, size = Threads().grouped(self.threads, measured)
        return size

    def train(self, count: int) -> tuple[Result, float]:
        """Trains on so many images: (the core's counts, seconds)."""
        return run(
            self.engine,
            self.what,
            "train",
            count,
            inputs=[self.images.reshape(-1)],
            labels=self.labels,
            order=order_of(len(self.labels), count),
            lr=RATE,
        )

    def prepare(self, seconds: float) -> None:
        """Warms up, and finds out how many images take so many seconds."""
        count, took = fill(
            min(seconds, 0.2), lambda count: self.train(count)[1], max(64, self.batch_size) * self.threads.workers
        )
        self.count = max(int(count * seconds / took), self.threads.workers * self.batch_size)

    def measure(self, beside: Callable[[], Any] | None = None) -> None:
        """One repeat: peak and time."""
        before = beside and beside()
        self.peak.append(peak_gflops(self.cores, self.isa))
        had = time.process_time()
        counts, seconds = self.train(self.count)
        had = (time.process_time() - had) / seconds / self.threads.workers
        self.counts.append(counts)
        self.us.append(seconds / self.count * 1e6)
        if beside:
            self.each.append(
                {
                    "us_per_image": self.us[-1],
                    "had": had,
                    "beside": [before, beside()],
                    "peak_gflops": min(self.peak[-1], peak_gflops(self.cores, self.isa)),
                }
            )

    def result(self) -> Record:
        us, peak = statistics.median(self.us), statistics.median(self.peak)
        gflops = self.flops / us * 1e-3
        return {
            "model": self.name,
            "workers": self.threads.workers,
            "batch_size": self.batch_size,
            "strategy": self.strategy,
            "strategy_options": self.options,
            "pin": self.threads.pin,
            "isa": self.isa,
            "oversubscribed": self.threads.oversubscribed,
            "us_per_image": us,
            "us_per_image_min": min(self.us),
            "us_per_image_max": max(self.us),
            "images_per_second": 1e6 / us,
            "flops_per_image": self.flops,
            "gflops": gflops,
            "peak_gflops": peak,
            "peak_gflops_min": min(self.peak),
            "peak_gflops_max": max(self.peak),
            "peak_cores": self.cores,
            "fraction_of_peak": gflops / peak,
            "images_per_repeat": self.count,
            "data": self.data,
            "check": {**self.checked, "images_counted": True},
            **({"each": self.each} if self.each else {}),
        }
