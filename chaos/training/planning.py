"""The plan of a training: how many workers, in which groups, and how often groups exchange, decided by measuring before the
training and by its telemetry between epochs. For chaos.training.

Every decision is in the records ("plan"), and a list of them is a plan too: the same decisions again, without measuring."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .. import threads
from ..arrays import aligned_zeros
from ..distance import measured_domains
from .records import Record

if TYPE_CHECKING:
    from .job import Job

Decision = Mapping[str, Any]  # workers, group, period

ROUNDS = 3  # of a candidate and one worker in turns, after one that does not count
BLOCKS = (0.0005, 0.02)  # seconds of a candidate in a round, at least and at most
STEPS = 20  # of each worker in it, at least
AGAIN, LASTS = 3, 0.2  # how often it is measured anew, at most; seconds of an epoch that tells of a speed
SHARE = 0.05  # most of the training's time that is spent on planning it, as far as the blocks allow
WORTH = 0.03  # by which a candidate with more workers, or more that its updates are late, has to be faster
PERIOD, LONGEST = 16, 64  # to begin with; two workers with 4, 8 or 16 end at the same errors, and 4 costs an eighth
LATE = 384  # most groups x period: 24 groups of `small` with 16 steps still learn as well as sequential ones
BUSY, IDLE = 0.10, 0.03  # share of the workers' time for exchange and waiting above and below which the period changes
ALONE = 8  # most workers that each may have a replica


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to train that is measured.

    Attributes
    ----------
    plan : threads.Plan
    options : dict
        Of the strategy, with numbers.
    name : str
        In words.
    us : float
        Microseconds per image, once measured.
    share : float
        Of the workers' time, for exchange and waiting.
    """

    plan: threads.Plan
    options: Mapping[str, Any]
    name: str
    us: float = 0.0
    share: float = 0.0


class Planning:
    """What decides about the epochs of a job.

    Parameters
    ----------
    asked : "auto" or list of dict
        "auto" measures, and watches the records; else the decisions of the epochs, of which the last goes on.
    job : Job
        Whose workers, before the first decision, are the most that it may have.
    """

    def __init__(self, asked: str | Sequence[Decision], job: Job) -> None:
        self.asked, self.again = asked, AGAIN
        caches = threads.cache_domains()
        if len(caches.cpus) == 1 and len(caches.cpus[0]) > 2:  # a virtual machine may hide them
            caches = measured_domains()
        most = max((one["workers"] for one in asked), default=1) if not isinstance(asked, str) else job.plan.workers
        plan = job.plan if most <= job.plan.workers else threads.resolve(most, pin=job.plan.pin)
        self.whole, self.near = threads.grouped(plan, caches)

    def next(self, job: Job) -> tuple[Decision, str]:
        """The decision about the epoch to come, and why."""
        done = job.history
        if not isinstance(self.asked, str):
            found = self.asked[min(len(done), len(self.asked) - 1)]
            return found, "as in the plan"
        last = done[-1].get("plan") if done else None
        if last is None:
            return self._measured(job, "")
        slow = 1e6 / done[-1]["images_per_second"] > (1 + WORTH) * last["alone_us"] and done[-1]["seconds"] > LASTS
        if last["workers"] > 1 and slow and self.again:
            self.again -= 1
            return self._measured(job, f"epoch {len(done)} was slower than one worker had been; measured again: ")
        period = adapted(done[-1])
        if period is None:
            return last, ""  # of a run that is continued
        spent = done[-1]["time_split"]
        why = f"exchange and waiting took {spent['publish'] + spent['wait']:.0%} of epoch {len(done)}, "
        return {**last, "period": period}, why + f"period {last['period']} becomes {period}"

    def _measured(self, job: Job, before: str) -> tuple[Decision, str]:
        with ThreadPoolExecutor(1, "chaos-plan") as pool:  # whose team goes with it
            found = pool.submit(measure, job, self.candidates(job)).result()
        chosen = choose(found)
        return decision(chosen, found), before + words(chosen, found)

    def plan_of(self, one: Decision) -> threads.Plan:
        """The workers of a decision."""
        return dataclasses.replace(self.whole, workers=one["workers"], cpus=self.whole.cpus[: one["workers"]])

    def candidates(self, job: Job) -> list[Candidate]:
        """What is tried, the fewest workers first, of as many those whose updates are the least late."""
        found, asked = [], job.settings.strategy_options or {}
        for workers in numbers(self.whole.workers, self.near):
            plan = self.plan_of({"workers": workers})
            groups = {workers, min(self.near, workers), *([1] if workers <= ALONE else [])}
            for group in sorted(groups, reverse=True) if "group" in job.strategy.known else [workers]:
                count = -(-workers // group)
                own = {"group": group, "period": period_within(PERIOD, count)} if "group" in asked else {}
                how = "" if workers == 1 or not own else " sharing weights" if count == 1 else f" in {count} groups"
                found.append(Candidate(plan, {**asked, **own}, f"{workers} worker{'s'[: workers > 1]}{how}"))
        return found


def numbers(workers: int, near: int) -> list[int]:
    """How many workers are tried where there may be so many, of which `near` share a cache: ascending, with 1."""
    return sorted({workers >> k for k in range(4)} - {0} | {min(near, workers), 1})


def period_within(period: int, groups: int) -> int:
    """The period, or the longest that is allowed with so many groups."""
    return max(1, min(period, LATE // groups))


def measure(job: Job, tried: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with their times, as they train copies of the network on its images: each in turns with the first, one
    worker, so that a drift of the machine meets both, and no more than two have memory at a time; medians."""
    order, batch = job.order(1), job.settings.images_per_update
    alone, few = _runner(job, tried[0]), order[: STEPS * batch]
    for _ in range(2):  # the first makes the worker's memory
        took = _timed(alone, few)[0]
    whole = took / len(few) * len(order) * job.settings.epochs
    blocks = (2 * ROUNDS + 1) * max(len(tried) - 1, 1)
    steps = max(STEPS, int(min(max(SHARE * whole / blocks, BLOCKS[0]), BLOCKS[1]) / took * len(few) / batch))
    own = order[: steps * batch]
    first, found = [_timed(alone, own)], []
    for one in tried[1:]:
        run, images = _runner(job, one), order[: steps * batch * one.plan.workers]
        run(images)
        ratios, shares = [], []
        for _ in range(ROUNDS):
            first.append(_timed(alone, own))
            seconds, share = _timed(run, images)
            ratios.append(seconds / len(images) / (first[-1][0] / len(own)))
            shares.append(share)
        found.append((statistics.median(ratios), statistics.median(shares)))
    us = statistics.median(seconds for seconds, _ in first) / len(own) * 1e6
    found.insert(0, (1.0, statistics.median(share for _, share in first)))
    return [dataclasses.replace(one, us=us * ratio, share=s) for one, (ratio, s) in zip(tried, found, strict=True)]


def _timed(run: Callable[[Any], Any], images: Any) -> tuple[float, float]:
    """(seconds, share of the workers' time for exchange and waiting)."""
    begin = time.perf_counter()
    spent = run(images)["time"]
    return time.perf_counter() - begin, (spent["publish"] + spent["wait"]) / max(spent["total"], 1e-12)


def _runner(job: Job, one: Candidate) -> Callable[[Any], Any]:
    """Trains copies of the job's weights on given images."""
    copies = []
    for values in (job.net.weights, job.moments):
        copies.append(aligned_zeros(values.shape))
        copies[-1][...] = values
    engine, rate = job.make_engine(one.plan, one.options, *copies), job.rate(1)
    return lambda order: engine.run("train", order=order, lr=rate, **job.training.arguments)


def choose(measured: Sequence[Candidate]) -> Candidate:
    """The first of those that are nearly as fast as the fastest: more workers, and later updates, only where they pay."""
    best = min(one.us for one in measured)
    return next(one for one in measured if one.us <= best * (1 + WORTH))


def words(chosen: Candidate, measured: Sequence[Candidate]) -> str:
    """One line: what was chosen, and why."""
    others = ", ".join(f"{one.name} {one.us:.3g}" for one in measured if one is not chosen)
    exchanges = chosen.options.get("group", chosen.plan.workers) < chosen.plan.workers
    period = f", period {chosen.options['period']}" if exchanges else ""
    return f"{chosen.name}{period}: {chosen.us:.3g} us per image" + (f" ({others})" if others else "")


def decision(one: Candidate, measured: Sequence[Candidate]) -> dict[str, Any]:
    """What the records keep of a choice: also what one worker takes, and the share of its time for updates."""
    found = {"workers": one.plan.workers, "us": one.us, "alone_us": measured[0].us, "alone_share": measured[0].share}
    return found | {name: one.options[name] for name in ("group", "period") if name in one.options}


def adapted(record: Record) -> int | None:
    """The period of the next epoch, where this one's telemetry asks for another: twice as long where exchanges and waiting
    take more than a tenth of the workers' time, beyond what updates take one worker, and half as long again where they take
    next to nothing; None: it stays."""
    plan, spent = record["plan"], record["time_split"]
    groups = -(-plan["workers"] // plan.get("group", plan["workers"]))
    if groups < 2:
        return None
    training = 1 - spent["evaluate"]
    share = (spent["publish"] + spent["wait"]) / max(training, 1e-12) - plan["alone_share"]
    period: int = plan["period"]
    longer, shorter = period_within(min(2 * period, LONGEST), groups), period_within(max(period // 2, PERIOD), groups)
    if share > BUSY and longer > period:
        return longer
    return shorter if share < IDLE and shorter < period else None
