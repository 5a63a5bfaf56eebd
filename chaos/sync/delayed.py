"""Delayed SGD in turn, the paper's strategy C. Imported by chaos.sync; the fast half is cext/sync/delayed.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Strategy


class Delayed(Strategy):
    """Workers form gradients at the same time and update the shared weights strictly one after the other, in turn.

    Update t = 0, 1, 2, ... is made by worker t mod p with the mean gradient of the t-th `batch_size` images. Having made
    it, and before anybody else makes one, the worker copies the weights; its next gradient is formed from that copy. So
    w_(t+1) = w_t - lr * gradient(w_(t-d)) with a delay d of p - 1 updates, exactly (min(t, p - 1) at the beginning of a
    phase).

    Promises: same seed, same number of workers, same bits; no update is lost; staleness is p - 1; one worker equals
    `sequential` bit for bit. Workers wait for their turn: the update and the copy are done by one worker at a time,
    which bounds the speed-up to (time for a gradient) / (time for update and copy) + 1. When a phase is stopped,
    gradients that wait for their turn are thrown away and formed anew when it is continued, without delay at first, so
    with several workers an interrupted and continued run has other bits than an uninterrupted one.

    Memory: each of several workers has a copy of the weights.

    Source: Langford, Smola, Zinkevich, Slow learners are fast (NIPS 2009), strategy C of the CHAOS paper.
    """

    name = "delayed"
    deterministic = True

    def most_stale(self, resolved: Mapping[str, Any], workers: int) -> int | None:
        return workers - 1
