"""Training with more and more workers, and what publishing costs. Imported by chaos.bench."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import _core, threads
from ..network import Network
from ..sync import STRATEGIES
from ..training.records import Record
from ._common import Known, fill, machine, need_model, need_numbers, pass_seconds, run
from ._throughput import Case

# Contention of the paper's performance model, microseconds of wall time per image at 240 threads of a Xeon Phi: its
# memory contention table divided by the threads.
PAPER_CONTENTION = {"small": 58, "medium": 160, "large": 575}
PAPER_THREADS = 240


def scaling(
    model: str | Network,
    workers: Sequence[int] | None = None,
    batch_size: int = 1,
    strategy: str = "chaos",
    seconds: float = 1.0,
    repeats: int = 5,
    isa: str | None = None,
    strategy_options: Mapping[str, Any] | None = None,
    pin: str = "none",
) -> Record:
    """Training throughput for several numbers of workers, and what publishing the gradients costs.

    Parameters
    ----------
    model : str or Network
        A name in chaos.models.MODELS, or a network, which stays as it is.
    workers : list of int, optional
        Numbers of workers; 1, 2, 4, ... up to the cores that this process may use by default, only 1 where the
        strategy allows no more. 1 is always among them: it is what the others are compared with.
    batch_size, strategy
        As for `chaos.train`.
    seconds : float
        Length of one repeat, about.
    repeats : int
        Numbers of the result are medians over so many, taken in turns over the numbers of workers (1 2 1 2).
    isa : str, optional
        Instruction set; the one in force by default.
    strategy_options, pin
        As for `chaos.train`.

    Returns
    -------
    dict
        model, strategy, strategy_options, pin, batch_size, isa, data, seconds, repeats, stripes, weight_bytes, check,
        machine; paper_contention_us (per image at paper_threads threads, None for other networks).

        points: one dict per number of workers p:

        - workers, oversubscribed (more than the cores that this process may use);
        - us_per_image (wall time), us_per_image_min, us_per_image_max, images_per_second;
        - speedup over one worker (median of the ratios within each turn), speedup_min, speedup_max, efficiency
          (speedup / p);
        - peak_speedup: the same of loops of multiply-adds that share nothing, on at most peak_cores cores; well below p
          means that the machine did not give the cores, and that the other figures say little about chaos;
        - us_per_image_per_worker = p x us_per_image: how long one worker is busy with an image. Its growth over that of
          one worker is what sharing costs: contention for the weights, but also memory bandwidth, clock frequency,
          other processes and, where oversubscribed, waiting for a core;
        - lost_us_per_image, the same as wall time: us_per_image - (us_per_image of one worker) / p, median within each
          turn; below 0 where noise is larger;
        - per image, counted: updates_per_image (stripes published), bytes_per_image (written to the shared weights),
          lock_failures_per_image (try-locks that found a stripe busy), give_ways_per_image (waiting rounds that gave
          the core away); staleness_mean, staleness_max (updates of a stripe by others between reading and writing
          it);
        - publication_us_per_image: time of adding the gradient to the weights, timed alone with warm caches, so
          without contention; publication_share of us_per_image_per_worker;
        - gflops, peak_gflops, peak_cores, fraction_of_peak, images (of all repeats): as for `throughput`.

    Raises
    ------
    ValueError
        Unknown names, impossible numbers.
    ChaosError
        The result is wrong, so its speed does not matter.
    """
    need_model(model)
    need_numbers(seconds, repeats, batch_size)
    record = machine()
    images: Known = {}
    if workers is None:
        workers = [1] if strategy in STRATEGIES and STRATEGIES[strategy].single else default_workers()
    cases = [
        _Case(model, count, batch_size, strategy, isa, images=images, strategy_options=strategy_options, pin=pin)
        for count in sorted({1, *workers})
    ]
    for case in cases:
        case.prepare(seconds)
    for _ in range(repeats):
        for case in cases:
            case.measure()
    one = cases[0]
    return {
        "model": one.name,
        "strategy": strategy,
        "strategy_options": one.options,
        "pin": one.threads.pin,
        "batch_size": batch_size,
        "isa": one.isa,
        "data": one.data,
        "stripes": one.engine.stripes,
        "weight_bytes": one.bytes,
        "points": [case.point(one) for case in cases],
        "paper_contention_us": PAPER_CONTENTION.get(one.name),
        "paper_threads": PAPER_THREADS,
        "seconds": seconds,
        "repeats": repeats,
        "check": {**one.checked, "images_counted": True},
        "machine": record,
    }


def default_workers() -> list[int]:
    """1, 2, 4, ... and the number of cores that this process may use."""
    cores = min(n for name, n in threads.resolve(1).limits.items() if name != "argument")
    return [*(1 << k for k in range(cores.bit_length()) if 1 << k < cores), cores]


class _Case(Case):
    """One number of workers under measurement."""

    def prepare(self, seconds: float) -> None:
        super().prepare(seconds)
        blocks = {i: self.net.plan.block(i)[1] for i in range(1, len(self.net.nodes()))}
        self.bytes = 4 * sum(blocks.values())
        count = min(self.batch_size, len(self.labels))
        single = _core.Engine(self.net.plan, self.net.weights, strategy="chaos", batch_size=self.batch_size)
        self.bench = _core.Bench(single, times=True)
        run(
            single,
            self.what,
            "gradients",
            count,
            inputs=[self.images.reshape(-1)],
            labels=self.labels,
            order=np.arange(count),
        )
        self.rounds: dict[int, int] = {}
        self.publication: list[float] = []
        for i in blocks:
            if self.bench.time(i, "update") is not None:
                rounds, took = fill(seconds / 100, partial(self._updating, i), 1)
                self.rounds[i] = max(1, int(rounds * seconds / 50 / took))

    def _updating(self, node: int, rounds: int) -> float:
        return pass_seconds(self.bench, node, "update", rounds) * rounds * self.batch_size

    def measure(self, beside: Callable[[], Any] | None = None) -> None:
        super().measure(beside)
        once = (pass_seconds(self.bench, i, "update", rounds) for i, rounds in self.rounds.items())
        self.publication.append(sum(once) * 1e6)

    def point(self, one: _Case) -> Record:
        """The result, compared with the case of one worker."""
        p, found = self.threads.workers, self.result()
        speedups = [alone / us for alone, us in zip(one.us, self.us, strict=True)]
        peaks = [peak / alone for alone, peak in zip(one.peak, self.peak, strict=True)]
        images, updates = (sum(counts[key] for counts in self.counts) for key in ("images", "updates"))
        busy, publication = p * found["us_per_image"], statistics.median(self.publication)
        return {
            **{
                key: found[key]
                for key in (
                    "workers",
                    "oversubscribed",
                    "us_per_image",
                    "us_per_image_min",
                    "us_per_image_max",
                    "images_per_second",
                )
            },
            "speedup": statistics.median(speedups),
            "speedup_min": min(speedups),
            "speedup_max": max(speedups),
            "efficiency": statistics.median(speedups) / p,
            "peak_speedup": statistics.median(peaks),
            "us_per_image_per_worker": busy,
            "lost_us_per_image": statistics.median(us - alone / p for alone, us in zip(one.us, self.us, strict=True)),
            "updates_per_image": updates / images,
            # Every step publishes every stripe once.
            "bytes_per_image": updates / max(1, self.engine.stripes) * self.bytes / images,
            **{
                f"{key}_per_image": sum(counts[key] for counts in self.counts) / images
                for key in ("lock_failures", "give_ways")
            },
            "staleness_mean": sum(counts["staleness_sum"] for counts in self.counts) / max(1, updates),
            "staleness_max": max(counts["staleness_max"] for counts in self.counts),
            "publication_us_per_image": publication,
            "publication_share": publication / busy,
            **{key: found[key] for key in ("gflops", "peak_gflops", "peak_cores", "fraction_of_peak")},
            "images": images,
        }
