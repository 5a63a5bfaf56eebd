"""Synchronisation strategies: promise, source and options of each. cext/sync/sync.h has the same list."""

from .chaos import Chaos
from .hogwild import Hogwild
from .locked import Locked
from .sequential import Sequential

STRATEGIES = {strategy.name: strategy for strategy in (Sequential(), Chaos(), Hogwild(), Locked())}

__all__ = ["STRATEGIES"]
