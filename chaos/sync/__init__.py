"""Synchronisation strategies: promise, source and options of each. cext/sync/sync.h has the same list."""

from .averaging import Averaging
from .chaos import Chaos
from .delayed import Delayed
from .elastic import Elastic
from .hogwild import Hogwild
from .hybrid import Hybrid
from .leashed import Leashed
from .locked import Locked
from .replicated import Replicated
from .sequential import Sequential
from .synchronous import Synchronous

STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Sequential(),
        Chaos(),
        Synchronous(),
        Averaging(),
        Delayed(),
        Hogwild(),
        Locked(),
        Leashed(),
        Elastic(),
        Replicated(),
        Hybrid(),
    )
}

__all__ = ["STRATEGIES"]
