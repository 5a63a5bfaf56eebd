"""Synchronisation strategies: promise, source and options of each. cext/sync/sync.h has the same list."""

from .averaging import Averaging
from .chaos import Chaos
from .delayed import Delayed
from .hybrid import Hybrid
from .sequential import Sequential
from .synchronous import Synchronous

STRATEGIES = {strategy.name: strategy for strategy in (Sequential(), Chaos(), Synchronous(), Averaging(), Delayed(),
                                                       Hybrid())}

__all__ = ["STRATEGIES"]
