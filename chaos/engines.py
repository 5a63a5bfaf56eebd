"""Engines that are lent to predictions, so that threads predicting at the same time wait for nobody. For chaos.network."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from . import _core


class Engines:
    """Engines for predictions with a plan and weights, as many as have been needed at the same time. Nobody waits for
    another: `append` and `pop` of a list are atomic."""

    def __init__(self, plan: _core.Plan, weights: NDArray[np.float32]) -> None:
        self.plan, self.weights = plan, weights
        self.idle: list[_core.Engine] = []
        self.lent: list[None] = []  # one for each that is in use

    def new(self) -> _core.Engine:
        return _core.Engine(self.plan, self.weights, batch_size=self.plan.together)

    def drain(self) -> None:
        """Returns when none is in use; nobody asks for one any more."""
        while self.lent:
            time.sleep(1e-4)


class Lent:
    """An engine out of `engines` while the block runs."""

    __slots__ = "engine", "engines"

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        engines.lent.append(None)

    def give_back(self) -> None:
        self.engines.lent.pop()

    def __enter__(self) -> _core.Engine:
        try:
            self.engine = self.engines.idle.pop() if self.engines.idle else self.engines.new()
        except IndexError:  # another thread was quicker
            self.engine = self.engines.new()
        except BaseException:
            self.give_back()
            raise
        return self.engine

    def __exit__(self, *error: object) -> None:
        self.engines.idle.append(self.engine)
        self.engines.lent.pop()
