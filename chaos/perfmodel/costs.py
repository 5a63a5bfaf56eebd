"""What a step costs a worker, strategy by strategy: closed forms of what the clock of chaos.virtual plays through. For
chaos.perfmodel; what shares weights directly is in `sharing`.

The assumptions are the clock's (cext/virtual/clock.h): a worker passes layers, publishes or exchanges stripes, or waits, one
thing at a time, and a cache line that another worker has written since costs as much as the two cores are apart. Told are
means over a long phase; how near they come to the clock is in tests/test_costs.py, strategy by strategy.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from .. import _core
from ..network import Network
from ..options import check_number
from ..sync import STRATEGIES, need_whole_steps
from ..virtual import Machine, Parts, Times, nominal, settled
from .sharing import Shared, both, line_seconds, share

MOST_WORKERS = 4096


@dataclass(frozen=True)
class Cost:
    """Of training with a strategy, in the long run.

    Attributes
    ----------
    workers : int
    us_per_image : float
        Wall time.
    terms : dict
        compute, publication (also copies, averages and exchanges), transfer (of cache lines), waiting (for stripes, locks,
        turns and each other): what the wall time per image consists of, on the average over workers.
    shares : dict
        The same, of the workers' time; they add up to 1.
    staleness : float
        Mean number of updates of a stripe by others between reading and update, as telemetry counts it: within a group of
        workers that share a vector.
    behind : float
        Mean number of steps, made by anyone, that are not in the weights a step reads: what strategies can be compared by.
        Of strategies that average, or add less than everything, this is a count and no weight.
    lines_per_image : float
        Cache lines that come from another core, per image.
    """

    workers: int
    us_per_image: float
    terms: dict[str, float]
    shares: dict[str, float]
    staleness: float
    behind: float
    lines_per_image: float


@dataclass(frozen=True)
class _Case:
    """What the forms below are given: a step's parts, the machine, and the strategy's options."""

    parts: Parts
    machine: Machine
    workers: int
    options: Mapping[str, Any]
    images: int  # of a phase

    @property
    def factor(self) -> float:
        """How many times as long a worker takes as the parts say; the harmonic mean, because rates add up."""
        return 1 / float(np.mean(1 / self.machine.factors(self.workers)))

    @property
    def slowest(self) -> float:
        return float(self.machine.factors(self.workers).max())

    @property
    def publish(self) -> float:
        return float(self.parts.stripes[:, 0].sum())

    @property
    def lines(self) -> float:
        return float(self.parts.stripes[:, 1].sum())

    @property
    def line(self) -> float:
        """Seconds, on the average over the machine."""
        return self.machine.line_ns * 1e-9

    @property
    def next_line(self) -> float:
        """Seconds, of a line that the worker before has written: those who queue come round in the same order."""
        where, p = self.machine.topology, self.workers
        if where is None:
            return self.line
        core = np.arange(p) % (self.machine.cores or p)
        same = [core // size == np.roll(core, 1) // size for size in (where.domain, where.socket)]
        return float(np.where(same[0], where.near_ns, np.where(same[1], where.across_ns, where.far_ns)).mean()) * 1e-9

    def share(self, workers: int | None = None, line: float | None = None, **how: Any) -> Shared:
        """`sharing.share` of so many of the workers, by default all."""
        count = self.workers if workers is None else workers
        line = line_seconds(self.machine, self.workers, self.workers) if line is None else line
        return share(self.parts, self.factor, count, line, **how)

    def passes(self, images: float) -> tuple[float, float]:
        """Seconds of the passes of so many images, and the standard deviation that the clock's jitter gives them."""
        times = [seconds * images for layer in self.parts.layers for seconds in layer[4:6]]
        return self.parts.begin * images + sum(times), self.machine.jitter * math.sqrt(sum(t * t for t in times))


@dataclass(frozen=True)
class _Round:
    """What the forms below give: worker seconds on the average of a stretch of `seconds`, and what is done in it."""

    seconds: float
    images: float  # of all workers
    compute: float
    publication: float
    lines: float  # from other cores, of all workers
    transfer: float
    waiting: float
    staleness: float = 0.0
    behind: float = 0.0
    copies: int = 0  # of all weights that a worker makes when a phase begins
    swaps: float = 0.0  # seconds of a last exchange when it ends


def cost(
    net: Network,
    workers: int,
    strategy: str = "chaos",
    options: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    times: Times | None = None,
    batch_size: int = 1,
    images: int = 60_000,
) -> Cost:
    """How long an image takes with a strategy, and why.

    Parameters
    ----------
    net : Network
    workers : int
    strategy : str
        Any of chaos.sync.STRATEGIES.
    options : dict, optional
        The strategy's.
    machine : chaos.virtual.Machine, optional
        By default a core for each worker.
    times : chaos.virtual.Times, optional
        Of the network's layers, by default nominal ones.
    batch_size, images : int
        Images per update, and per training phase (`averaging` without a period averages once in it).

    Returns
    -------
    Cost

    Raises
    ------
    ValueError
        Unknown strategies and options, impossible numbers, networks that cannot be simulated, or not trained with this
        strategy.
    """
    check_number("workers", workers, 1, MOST_WORKERS, whole=True)
    check_number("images", images, 1, whole=True)
    form = FORMS[_known(strategy)]
    machine = machine or Machine()
    if whole := net.plan.whole_batch:
        need_whole_steps(strategy, net.nodes()[whole[0]][0].layer)
    given = settled(net, workers, strategy, options, machine)
    engine = _core.Engine(
        net.plan,
        net.weights,
        workers=1,
        strategy=strategy,
        batch_size=batch_size,
        stripe_bytes=given["stripe_bytes"],
        strategy_options=STRATEGIES[strategy].core_options(given),
    )
    parts = Parts.of(net, engine, times or nominal(net), given)
    case = _Case(parts, machine, workers, given, images)
    bound = given.get("max_staleness")
    if bound is None:
        return _told(case, form(case), workers)
    # others may begin during a step as well as before it: m at a time are late by up to 2 (m - 1)
    active = min(workers, 1 + bound // 2)
    return _told(case, form(replace(case, workers=active)), workers, active)


def _known(strategy: str) -> str:
    if strategy not in FORMS:
        raise ValueError(f"unknown strategy {strategy!r}; known: {', '.join(FORMS)}")
    return strategy


def _phase(case: _Case, found: _Round) -> _Round:
    """As many rounds as a phase has, and what comes once in it: copies of the weights, last exchanges."""
    rounds = case.images / found.images
    copying, fetching = case.publish * case.factor, case.lines * case.line
    once = found.copies * (copying + fetching) + found.swaps
    return replace(
        found,
        seconds=found.seconds * rounds + once,
        images=case.images,
        compute=found.compute * rounds,
        publication=found.publication * rounds + found.copies * copying + found.swaps,
        lines=found.lines * rounds + found.copies * case.workers * case.lines,
        transfer=found.transfer * rounds + found.copies * fetching,
        waiting=found.waiting * rounds,
    )


def _told(case: _Case, found: _Round, workers: int, active: int | None = None) -> Cost:
    """The phase per image; the workers that are not active wait."""
    part, found = (active or workers) / workers, _phase(case, found)
    spent = {
        "compute": found.compute * part,
        "publication": found.publication * part,
        "transfer": found.transfer * part,
        "waiting": found.waiting * part + found.seconds * (1 - part),
    }
    total = sum(spent.values())
    us = float(found.seconds / found.images * 1e6)
    shares = {name: float(seconds / total) for name, seconds in spent.items()}
    terms = {name: us * share for name, share in shares.items()}
    told = us, terms, shares, float(found.staleness), float(found.behind), float(found.lines / found.images)
    return Cost(workers, *told)


# ---- weights that all share ----


def _of_shared(case: _Case, found: Shared) -> _Round:
    p = case.workers
    return _Round(
        found.seconds,
        p * case.parts.batch,
        found.compute,
        found.publication,
        found.lines * p,
        found.transfer,
        found.waiting,
        found.staleness,
        found.staleness,
    )


def _chaos(case: _Case) -> _Round:
    return _of_shared(case, case.share(renews=case.options["read"] == "publication" and case.workers > 1))


def _hogwild(case: _Case) -> _Round:
    return _of_shared(case, case.share(locks=False))


def _sequential(case: _Case) -> _Round:
    case = replace(case, workers=1)
    return _of_shared(case, case.share())


def _locked(case: _Case) -> _Round:
    """The lock is held for a copy and for an update of everything."""
    if case.workers == 1:
        return _sequential(case)
    hold = case.publish * case.factor + case.lines * case.line
    return _of_shared(case, case.share(whole=True, copy=hold, lock=2 * hold))


def _delayed(case: _Case) -> _Round:
    """Turns: the update of everything is made by one at a time; the copy comes with it."""
    if case.workers == 1:
        return _sequential(case)
    found = _of_shared(case, case.share(line=case.next_line, whole=True, copy=0.0, turns=True))
    return replace(found, staleness=case.workers - 1.0, behind=case.workers - 1.0)


def _leashed(case: _Case) -> _Round:
    """An update makes new weights; it is made again if others were faster, which the publication contains."""
    if case.workers == 1:
        return _sequential(case)
    return _of_shared(case, case.share(line=case.next_line, whole=True, tries=True))


# ---- steps in which all meet ----


def _largest(count: int) -> float:
    """Of so many standard normal numbers, on the average (Blom 1958)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


def _makespan(pieces: Iterable[float], workers: int) -> float:
    """Whoever is free takes the next piece: when all are done."""
    free = [0.0] * workers
    for seconds in pieces:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _synchronous(case: _Case) -> _Round:
    """Lanes, a meeting, the sum of their gradients stripe by stripe, a meeting."""
    parts, p, f = case.parts, case.workers, case.slowest
    if parts.lanes <= 1:
        found = _sequential(case)
        spent = found.seconds / p
        return replace(found, compute=found.compute / p, publication=found.publication / p, waiting=found.seconds - spent)
    lanes = min(parts.lanes, -(-parts.batch // parts.group))
    seconds, spread = case.passes(parts.batch / lanes)
    line = line_seconds(case.machine, p, p)
    # all stripes have a new writer, another worker with the probability 1 - 1/p; they are read in the first lane
    moving = case.lines * (1 - 1 / p)
    busy = min(p, lanes)
    deep = -(-lanes // p)
    first = deep * seconds * f + moving * line + spread * f * math.sqrt(deep) * _largest(busy)
    # workers come in the order of their numbers; those without a lane have yet to get the lines of the stripes they add up
    late = max(0.0, 1 - lanes / min(len(parts.stripes), p)) * (1 - 1 / p)
    sums = [publish * lanes * f + n * late * line for publish, n in parts.stripes]
    whole = first + _makespan(sums, p)
    moved = moving * busy + case.lines * late
    return _meeting(case, whole, parts.batch, lanes * seconds * f, case.publish * lanes * f, moved, line)


def _meeting(
    case: _Case, whole: float, images: float, compute: float, publication: float, lines: float, line: float
) -> _Round:
    """A stretch of `whole` seconds that begins and ends with all; the other seconds and lines are sums over workers."""
    p = case.workers
    waiting = whole - (compute + publication + lines * line) / p
    return _Round(whole, images, compute / p, publication / p, lines, lines * line / p, max(waiting, 0.0))


def _hybrid(case: _Case) -> _Round:
    """A row of stages, each of pieces of equal length, with a meeting after each."""
    parts, p, f = case.parts, case.workers, case.slowest
    if not parts.stages:
        return _synchronous(case)
    whole = compute = publication = lines = 0.0
    for pieces, seconds, moved, image_seconds, image_moved, counted in parts.stages:
        count = pieces or min(parts.lanes, -(-parts.batch // parts.group))
        images = parts.batch / count
        once = (seconds + images * image_seconds) * f
        away = (moved + images * image_moved) * (1 - 1 / p)
        deep = -(-count // p)
        spread = case.machine.jitter * once * math.sqrt(deep) * _largest(min(p, count))
        whole += deep * (once + away * case.line) + spread
        lines += count * away
        if counted == _core.Count.PUBLISHING:
            publication += count * once
        else:
            compute += count * once
    return _meeting(case, whole, parts.batch, compute, publication, lines, case.line)


def _averaging(case: _Case) -> _Round:
    """A period of steps on replicas, a meeting, the average, each its share of the stripes, a meeting, a copy of it."""
    parts, p, f = case.parts, case.workers, case.slowest
    period = case.options["period"] or max(1, -(-case.images // (parts.batch * p)))
    seconds, spread = case.passes(parts.batch)
    steps = period * (seconds + case.publish) * f + spread * f * math.sqrt(period) * _largest(p)
    bounds = np.arange(p + 1) * len(parts.stripes) // p
    stripe = p * parts.stripes[:, 0] * f + (p - 1) * parts.stripes[:, 1] * case.line
    added = np.concatenate([[0.0], np.cumsum(stripe)])
    average = float((added[bounds[1:]] - added[bounds[:-1]]).max())
    copy = case.publish * f + case.lines * case.line
    found = _meeting(
        case,
        steps + average + copy,
        period * p * parts.batch,
        p * period * seconds * f,
        p * (period + 2) * case.publish * f,
        (p - 1) * case.lines + p * case.lines,
        case.line,
    )
    return replace(found, behind=(p - 1) * period / 2, copies=1)


# ---- replicas that are exchanged ----


@dataclass(frozen=True)
class _Exchange:
    """Of a replica with another vector: seconds of it all, of it for lines, of the stripe that takes longest; its lines."""

    seconds: float
    transfer: float
    longest: float
    lines: float


def _exchange(case: _Case, size: int, walks: int, within: float, between: float) -> _Exchange:
    """By a worker of a group of `size`: `walks` updates of each stripe, and the lines of both vectors."""
    stripes = case.parts.stripes
    # the worker has made the last step itself; others have since written what they write in half a step
    known = (1 - 0.5 ** (size - 1)) * within + between
    each = walks * stripes[:, 0] * case.factor + stripes[:, 1] * known
    lines = case.lines * (1 + 1 - 0.5 ** (size - 1))
    return _Exchange(float(each.sum()), case.lines * known, float(each.max()), lines)


def _carrying(case: _Case, size: int, period: int) -> _Round:
    """Groups of `size` that exchange their replica with the process's weights whenever they have made a period of steps."""
    p = case.workers
    groups = -(-p // size)
    within, between = (line_seconds(case.machine, p, size, inside) for inside in (True, False))
    walks = 3 if size > 1 else 2
    own = case.share(size, within)
    # a stripe of the process's weights has one exchange at a time; a group does not begin another while one is under way
    for _ in range(20):
        carry = _exchange(case, size, walks, within, between)
        free = max((period * own.seconds + carry.seconds) / size, carry.seconds)
        cycle = both(free, groups * carry.longest)
        again = case.share(size, within, extra=own.seconds / cycle)
        if abs(again.seconds - own.seconds) < 1e-4 * own.seconds:
            break
        own = again
    carrying = max(min(cycle, size * cycle - period * own.seconds), carry.seconds)
    steps = (size * cycle - carrying) / own.seconds  # of the group in a cycle
    each = steps / size  # of a worker
    whole = groups * size * steps / size * case.parts.batch * (p / (groups * size))
    return _Round(
        cycle,
        whole,
        own.compute * each,
        own.publication * each + (carry.seconds - carry.transfer) / size,
        p * (own.lines * each + carry.lines / size),
        own.transfer * each + carry.transfer / size,
        own.waiting * each + (carrying - carry.seconds) / size,
        own.staleness,
        # theirs since their last exchange, and those carried since one's own: half a cycle each
        own.staleness + (p - size) * each * (1 + carrying / cycle),
        copies=2,
    )


def _domains(case: _Case) -> _Round:
    size = min(case.options["group"], case.workers)
    return _of_shared(case, case.share()) if size == case.workers else _carrying(case, size, case.options["period"])


def _elastic(case: _Case) -> _Round:
    """As domains of one worker; the centre takes part of the difference."""
    if case.workers == 1:
        period = case.options["period"]
        one = case.share(1)
        swap = _exchange(case, 1, 2, 0.0, 0.0)
        return _Round(
            period * one.seconds + swap.seconds,
            period * case.parts.batch,
            one.compute * period,
            one.publication * period + swap.seconds,
            0.0,
            0.0,
            0.0,
            copies=1,
        )
    found = _carrying(case, 1, case.options["period"])
    carry = _exchange(case, 1, 2, 0.0, line_seconds(case.machine, case.workers, 1, inside=False))
    return replace(found, copies=1, swaps=max(carry.seconds, case.workers * carry.longest))


def _replicated(case: _Case) -> _Round:
    """A token goes round; the first worker of the group that has it exchanges, and makes a period of steps."""
    p = case.workers
    size = min(case.options["group"], p)
    if size == p:
        return _of_shared(case, case.share())
    groups = -(-p // size)
    within, between = (line_seconds(case.machine, p, size, inside) for inside in (True, False))
    own, swap = case.share(size, within), _exchange(case, size, 3, within, between)
    turn = own.seconds / 2 + swap.seconds + case.options["period"] * own.seconds  # it gets the token in the middle of a step
    whole = groups * turn
    each = (whole - swap.seconds / size) / own.seconds
    return _Round(
        whole,
        p * each * case.parts.batch,
        own.compute * each,
        own.publication * each + (swap.seconds - swap.transfer) / size,
        p * own.lines * each + groups * swap.lines,
        own.transfer * each + swap.transfer / size,
        own.waiting * each,
        own.staleness,
        own.staleness + (p - size) * each,
        copies=2,
    )


FORMS: dict[str, Callable[[_Case], _Round]] = {
    "sequential": _sequential,
    "chaos": _chaos,
    "hogwild": _hogwild,
    "locked": _locked,
    "leashed": _leashed,
    "delayed": _delayed,
    "synchronous": _synchronous,
    "hybrid": _hybrid,
    "averaging": _averaging,
    "elastic": _elastic,
    "replicated": _replicated,
    "domains": _domains,
}
