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

__all__ = ["STRATEGIES", "need_whole_steps"]


def need_whole_steps(strategy: str, layer: object) -> None:
    """ValueError where the strategy cuts a step into lanes, for a layer that sees its whole batch."""
    if not STRATEGIES[strategy].lanes:
        return
    known = [name for name, one in STRATEGIES.items() if not one.lanes]
    way_out = "; with groups_of or use_running_stats it works with all" if hasattr(layer, "groups_of") else ""
    raise ValueError(
        f"{layer} sees the whole batch, which strategy {strategy!r} cuts into lanes; strategies with which it works: "
        f"{', '.join(known)}{way_out}"
    )
