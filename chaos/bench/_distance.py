"""How far two cores are from each other. Imported by chaos.bench."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from .. import _core

BLOCKS = 64
# lines (a stripe has 256) that go along with the one that says whose turn it is; turns to a block
HOP, STREAM = (0, 50), (256, 2)
SOON = 0.25  # quantile of the blocks: what a core was taken away from, or taken late, does not count


class Distance(TypedDict):
    """How far two cores are from each other: nanoseconds, see `distance`."""

    hop_ns: float | None
    stream_ns: float | None


def distance(cpus: Sequence[int] | None = None, seconds: float = 0.05) -> Distance:
    """Time of handing cache lines that one core has written to another one, which writes them too; takes a millisecond.

    Parameters
    ----------
    cpus : pair of int, optional
        Two CPUs (Linux); two threads that the system places by default.
    seconds : float
        Most that each of both measurements may take, because cores may be busy with something else.

    Returns
    -------
    dict
        hop_ns, of one line; stream_ns, per line of many that are handed over together, whose ways overlap. Nanoseconds; None
        where the threads never were on two cores at once.
    """
    with ThreadPoolExecutor(2) as pool:
        hop, stream = (_hand_over(pool, cpus, *way, seconds) for way in (HOP, STREAM))
    known = hop is not None and stream is not None
    return {"hop_ns": hop if known else None, "stream_ns": stream if known else None}


def _hand_over(pool: ThreadPoolExecutor, cpus: Sequence[int] | None, lines: int, turns: int, seconds: float) -> float | None:
    room = np.zeros(32 + 16 * lines + 32, np.int32)
    room = room[-room.ctypes.data % 128 // 4 :][: 32 + 16 * lines]

    def side(number: int) -> NDArray[np.float32]:
        if cpus:
            os.sched_setaffinity(0, {cpus[number]})  # of this thread, which ends with the pool
        out = np.zeros(BLOCKS, np.float32)
        return out[: _core.hand_over(room, number, turns, out, seconds)]

    found = np.concatenate(list(pool.map(side, (0, 1))))
    return float(np.quantile(found, SOON)) if len(found) else None
