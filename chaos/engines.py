"""Engines that are lent to predictions, so that threads predicting at the same time wait for nobody. For chaos.network."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from . import _core, threads

ALONE = 2_000_000  # multiply-adds and values: less is done by one worker before others have woken up (about 40 us)
# Multiply-adds and values: for less, a thread keeps the interpreter's lock. To give it away and to get it back from a thread
# that computes as shortly takes longer. Thousands of single images a second from two threads, kept and given away: `small`
# (170,686) 41 and 23, LeNet-5 (432,546) 25 and 21, `medium` (1,930,591) 12 and 16.
BRIEF = 1_000_000


class Engines:
    """Engines for predictions with a plan and weights, as many as have been needed at the same time. Nobody waits for
    another: `append` and `pop` of a list are atomic.

    Parameters
    ----------
    plan : _core.Plan
    weights : ndarray
    work : int
        Multiply-adds and values of one image.
    """

    def __init__(self, plan: _core.Plan, weights: NDArray[np.float32], work: int) -> None:
        self.plan, self.weights, self.work = plan, weights, work
        self.idle: dict[int, list[_core.Engine]] = {1: []}  # by their workers
        self.lent: list[None] = []  # one for each that is in use
        self.most: dict[int | None, int] = {} if _core.OPENMP else {None: 1}  # workers, by what was asked for

    def workers(self, count: int, wanted: int | None) -> int:
        """How many are to take part in a prediction of so many images: as many as wanted, by default all cores, or one where
        another thread is predicting too; and one where the batch is too small for several."""
        if wanted is None and (count == 1 or len(self.lent) > 1):
            return 1
        if (most := self.most.get(wanted)) is None:
            most = self.most[wanted] = threads.resolve(wanted).workers
        return 1 if count == 1 or count * self.work < ALONE else most

    def take(self, workers: int) -> _core.Engine:
        try:
            return self.idle[workers].pop()
        except (IndexError, KeyError):
            engine = _core.Engine(
                self.plan,
                self.weights,
                workers=workers,
                strategy="chaos" if workers > 1 else "sequential",
                batch_size=self.plan.together,
            )
            engine.brief = BRIEF // max(1, self.work) if workers == 1 else 0
            return engine

    def give_back(self, engine: _core.Engine) -> None:
        try:
            self.idle[engine.workers].append(engine)
        except KeyError:
            self.idle.setdefault(engine.workers, []).append(engine)

    def drain(self) -> None:
        """Returns when none is in use; nobody asks for one any more."""
        while self.lent:
            time.sleep(1e-4)


class Lent:
    """An engine out of `engines` while the block runs."""

    __slots__ = "count", "engine", "engines", "wanted"

    def __init__(self, engines: Engines, count: int, wanted: int | None) -> None:
        self.engines, self.count, self.wanted = engines, count, wanted
        engines.lent.append(None)

    def give_back(self) -> None:
        self.engines.lent.pop()

    def __enter__(self) -> _core.Engine:
        engines = self.engines
        try:
            self.engine = engines.take(engines.workers(self.count, self.wanted))
        except BaseException:
            self.give_back()
            raise
        return self.engine

    def __exit__(self, *error: object) -> None:
        self.engines.give_back(self.engine)
        self.engines.lent.pop()
