"""How far two cores are from each other. Imported by chaos.bench."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .. import _core

BLOCKS = 64
# lines (a stripe has 256) that go along with the one that says whose turn it is; turns to a block
WAYS = {"hop_ns": (0, 50), "stream_ns": (256, 2)}
SOON = 0.25  # quantile of the blocks: what a core was taken away from, or taken late, does not count


def distance(cpus=None, seconds=0.05):
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
        found = {name: _hand_over(pool, cpus, *way, seconds) for name, way in WAYS.items()}
    return found if None not in found.values() else dict.fromkeys(WAYS)


def _hand_over(pool, cpus, lines, turns, seconds):
    room = np.zeros(32 + 16 * lines + 32, np.int32)
    room = room[-room.ctypes.data % 128 // 4 :][: 32 + 16 * lines]

    def side(number):
        if cpus:
            os.sched_setaffinity(0, {cpus[number]})  # of this thread, which ends with the pool
        out = np.zeros(BLOCKS, np.float32)
        return out[: _core.hand_over(room, number, turns, out, seconds)]

    found = np.concatenate(list(pool.map(side, (0, 1))))
    return float(np.quantile(found, SOON)) if len(found) else None
