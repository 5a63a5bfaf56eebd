"""The steady state of workers that share one vector of weights, in closed form. For chaos.perfmodel.costs.

In the steady state of p workers whose steps take T,

- a line that N others write once per T each has changed between two meetings of a worker with it, t apart, with probability
  1 - (1 - t/T)^N: their phases are independent and uniform. A step has two meetings per chunk of images, one before each
  pass, and one before the publication; all its t add up to T. So two workers pay for each line once per step, which is how
  the cost of a line is defined (chaos.perfmodel.machine), and many pay 2 chunks + 1 times.
- T depends on what moves, and what moves on T: a fixed point, found by iteration.
- T is at least the time of one's own work, and at least p times the hold of the stripe that is held longest. Near the point
  where both are the same, workers wait although neither says so: T is the 5-norm of the two, the exponent with the least
  error against the clock over 252 cases (three networks, 2 to 192 workers, two machines, three sizes of stripes, both values
  of `read`): 2 % on the average, 10 % at most, where the larger of the two alone is wrong by up to 16 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..virtual import Machine, Parts

NORM = 5
ROUNDS, NEAR = 300, 1e-6


@dataclass(frozen=True)
class Shared:
    """Of a step of one worker, in seconds: see `costs.Cost`; lines come from other cores, staleness is per stripe."""

    seconds: float
    compute: float
    publication: float
    lines: float
    transfer: float
    waiting: float
    staleness: float


def both(one: float, other: float) -> float:
    """What takes two times, of which the longer one counts, smooth where they are the same."""
    most = max(one, other)
    return most * ((one / most) ** NORM + (other / most) ** NORM) ** (1 / NORM) if most > 0 else 0.0


def line_seconds(machine: Machine, workers: int, group: int, inside: bool = True) -> float:
    """Mean seconds until a worker has a line that another one wrote: of its group of `group` neighbours, or of all others.

    Returns
    -------
    float
        0 where there is no such pair.
    """
    where = machine.topology
    of = np.arange(workers) // group
    cores = np.arange(workers) % (machine.cores or workers)

    def pairs(*keys: np.ndarray) -> int:
        """Ordered pairs of workers that are the same in all keys."""
        counts = np.unique(np.stack(keys), axis=1, return_counts=True)[1].astype(int)
        return int((counts * (counts - 1)).sum())

    mine = pairs(of)
    count = mine if inside else workers * (workers - 1) - mine
    if not count:
        return 0.0
    if where is None:
        return machine.line_ns * 1e-9
    near, socket = (
        pairs(of, cores // size) if inside else pairs(cores // size) - pairs(of, cores // size)
        for size in (where.domain, where.socket)
    )
    cost = near * where.near_ns + (socket - near) * where.across_ns + (count - socket) * where.far_ns
    return cost / count * 1e-9


def share(
    parts: Parts,
    factor: float,
    workers: int,
    line: float,
    *,
    renews: bool = False,
    locks: bool = True,
    extra: float = 0.0,
    whole: bool = False,
    copy: float | None = None,
    lock: float = 0.0,
    turns: bool = False,
    tries: bool = False,
) -> Shared:
    """The steady state.

    Parameters
    ----------
    parts : Parts
    factor : float
        How many times as long a worker takes.
    workers : int
        That share the weights.
    line : float
        Seconds until a worker has a line that another has written.
    renews : bool
        Weights are copied when they are published, and read from the copy.
    locks : bool
        A stripe that is being published is passed over, and visited again.
    extra : float
        Updates of each stripe per step by somebody else.
    whole : bool
        Everything is published together, after the last pass.
    copy : float, optional
        Seconds of a copy of all weights with which the step begins.
    lock : float
        Seconds per step of the lock that guards all weights.
    turns, tries : bool
        The update of everything is made by one at a time, in turn; it makes new weights, again if others were faster.

    Returns
    -------
    Shared
    """
    return _Steady(parts, factor, workers - 1, line, renews, locks, extra, whole, copy, lock, turns, tries).solve()


@dataclass
class _Steady:
    parts: Parts
    factor: float
    others: int
    line: float
    renews: bool
    locks: bool
    extra: float
    whole: bool
    copy: float | None
    lock: float
    turns: bool
    tries: bool

    def __post_init__(self) -> None:
        parts, f = self.parts, self.factor
        stripes = [parts.stripes[first:end] for _, first, end, *_ in parts.layers]
        self.learns = [layer[3] for layer in parts.layers]
        self.lines = [float(s[:, 1].sum()) for s in stripes]
        once = [float(s[:, 0].sum()) * f for s in stripes]
        self.publish = [t * (1 + (self.renews or self.tries)) for t in once]  # a copy takes as long as an update
        self.each = [s[:, 0] * f for s in stripes]
        self.each_lines = [s[:, 1] for s in stripes]
        n, self.chunks = parts.batch, []
        while n > 0:
            self.chunks.append(min(n, parts.chunk))
            n -= parts.chunk
        # of each layer, the probabilities that its lines have changed: at its readings, and at its publication
        readings = 0 if self.renews else len(self.chunks)
        self.changed = [
            [1.0] * (readings * (1 + learns) + learns) if self.others or self.extra else [0.0] * (readings * 2 + 1)
            for learns in self.learns
        ]
        self.waiting = self.seconds = 0.0

    def solve(self) -> Shared:
        for round in range(ROUNDS):
            met, read, published = self.walk()
            before = self.seconds
            self.bound()
            far = self.update(met)
            if round > 8 and far < NEAR and abs(self.seconds - before) < NEAR * self.seconds:
                break
        images = sum(self.chunks)
        compute = images * (self.parts.begin + sum(layer[4] + layer[5] for layer in self.parts.layers)) * self.factor
        moved = self.moved + (self.lines_all() if self.copy else 0.0)
        transfer = moved * self.line
        return Shared(
            self.seconds,
            compute,
            self.free - compute - transfer + (self.waiting if self.tries else 0.0),
            moved,
            transfer,
            0.0 if self.tries else self.waiting,
            self.others * self.late(met, read, published),
        )

    def late(self, met: list[list[float]], read: list[float], published: list[float]) -> float:
        """The part of a step from the reading of a stripe to its update; mean of the stripes that learn."""
        if self.renews or self.tries:
            return 1.0  # reads what it has just written, or what was new when the step began
        learning = [i for i, learns in enumerate(self.learns) if learns]
        total = 0.0
        for at, i in enumerate(learning):
            wait = self.waiting * (0.5 if self.lock else 1.0)
            # a stripe that is passed over is visited again before the next layer's pass, of the first layer in the next step
            again = met[learning[at - 1]][-2] if at else self.seconds + met[learning[-1]][len(self.chunks)]
            missed = self.busy[i] * max(again - published[i], 0.0)
            total += len(self.each[i]) * min(1.0, (published[i] - read[i] + max(wait, missed)) / self.seconds)
        return total / max(sum(len(self.each[i]) for i in learning), 1)

    def lines_all(self) -> float:
        return sum(self.lines)

    def walk(self) -> tuple[list[list[float]], list[float], list[float]]:
        """One step of a worker without waiting: when it meets the lines of each layer, reads and publishes it first."""
        parts, f = self.parts, self.factor
        layers = range(len(parts.layers))
        met: list[list[float]] = [[] for _ in layers]
        read, published = [0.0] * len(met), [0.0] * len(met)
        now = self.moved = 0.0
        copied = self.copy is not None
        if self.copy:
            now += self.copy

        def meet(layer: int) -> float:
            chance = self.changed[layer][len(met[layer])]
            met[layer].append(now)
            self.moved += self.lines[layer] * chance
            return self.lines[layer] * chance * self.line

        def put(layer: int) -> None:
            nonlocal now
            start = now
            seconds = self.publish[layer] + meet(layer)
            now += seconds
            met[layer][-1] = published[layer] = start + seconds / 2

        for at, images in enumerate(self.chunks):
            now += parts.begin * images * f
            for i in layers:
                if at == 0:
                    read[i] = 0.0 if copied else now
                now += parts.layers[i][4] * images * f + (0.0 if self.renews else meet(i))
            for i in reversed(layers):
                if not self.learns[i]:
                    continue
                now += parts.layers[i][5] * images * f + (0.0 if self.renews else meet(i))
                if at == len(self.chunks) - 1 and not self.whole:
                    put(i)
        self.update_begins = now
        for i in layers:
            if self.whole and self.learns[i]:
                put(i)
        self.free = now
        return met, read, published

    def bound(self) -> None:
        """The time of a step, from that without waiting and from what only one worker can do at a time."""
        busiest = 0.0
        self.busy = [0.0] * len(self.learns)  # the probability that a stripe of a layer is held by somebody
        for i, learns in enumerate(self.learns):
            if learns and self.locks and not self.whole:
                holds = self.each[i] + self.each_lines[i] * self.line * self.changed[i][-1]
                busiest = max(busiest, float(holds.max(initial=0.0)))
                mean = float(holds.mean()) + (float(self.each[i].mean()) if self.renews else 0.0)
                self.busy[i] = min(1.0, self.others * mean / self.seconds) if self.seconds else 1.0
        if self.renews:
            # a stripe that had to be passed over is copied when the next step begins, and has changed by then
            again = sum(n * busy for n, busy in zip(self.lines, self.busy, strict=True)) * (1 - 0.5**self.others)
            self.moved += again
            self.free += again * self.line
        update = self.free - self.update_begins
        if self.tries:
            fresh = sum(self.publish) + self.lines_all() * self.line
            lost = math.exp(min(self.others * update / max(self.seconds, self.free), 50.0)) - 1 if self.others else 0.0
            self.free += min(lost, self.others) * fresh
            busiest = fresh
        elif self.turns:
            busiest = update
        elif self.lock:
            busiest = self.lock
        self.seconds = both(self.free, (self.others + 1) * busiest) if self.others and busiest else self.free
        self.waiting = self.seconds - self.free

    def update(self, met: list[list[float]]) -> float:
        """The probabilities that follow; by how much they were wrong."""
        wrong = 0.0
        if not self.others and not self.extra:
            return wrong
        for i, times in enumerate(met):
            if not self.learns[i] or not times:
                self.changed[i] = [0.0] * len(self.changed[i])
                continue
            gaps = np.diff(times, prepend=0.0 if self.copy is not None else times[-1] - self.seconds)
            if len(times) > 1:  # workers wait before they publish
                gaps[-1] += self.waiting * (0.5 if self.lock else 1.0)
                gaps[0] -= 0.0 if self.copy is not None else self.waiting
            part = np.clip(gaps / self.seconds, 0.0, 1.0)
            new = 1 - (1 - part) ** self.others * np.exp(-self.extra * part)
            wrong = max(wrong, float(np.abs(new - self.changed[i]).max()))
            self.changed[i] = list((new + self.changed[i]) / 2)
        return wrong
