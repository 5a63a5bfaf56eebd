"""One lock for all weights. Imported by chaos.sync; the fast half is cext/sync/locked.c."""

from __future__ import annotations

from .base import Asynchronous


class Locked(Asynchronous):
    """Asynchronous SGD with one lock (Langford, Smola, Zinkevich 2009; the lock-based baseline of Bäckström et al. 2021).

    A step begins with a copy of all weights, made under the lock, and ends with its whole gradient applied under the lock.

    Promises: no update is lost; every gradient is formed from weights that were the weights at one moment (consistent); one
    worker equals `sequential` bit for bit. Workers queue for the lock.
    """

    name = "locked"
