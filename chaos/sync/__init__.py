"""Synchronisation strategies: promise, source and options of each.

To add one: chaos/sync/x.py, cext/sync/x.c, and one line here.
"""

from .averaging import Averaging
from .base import Strategy
from .chaos import Chaos
from .delayed import Delayed
from .domains import Domains
from .elastic import Elastic
from .hogwild import Hogwild
from .hybrid import Hybrid
from .leashed import Leashed
from .locked import Locked
from .replicated import Replicated
from .sequential import Sequential
from .synchronous import Synchronous

STRATEGIES = {
    kind.name: kind()
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Strategy) and kind.name
}

__all__ = ["STRATEGIES"]
