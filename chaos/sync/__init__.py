"""Synchronisation strategies: promise, source and options of each. cext/sync/sync.h has the same list."""

from .averaging import Averaging
from .chaos import Chaos
from .delayed import Delayed
from .hogwild import Hogwild
from .locked import Locked
from .sequential import Sequential
from .synchronous import Synchronous

STRATEGIES = {strategy.name: strategy for strategy in (
    Sequential(), Chaos(), Hogwild(), Locked(), Synchronous(), Averaging(), Delayed())}

__all__ = ["STRATEGIES"]
