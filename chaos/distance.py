"""How far cores are from each other, measured: which of them share a last-level cache, where the system does not tell, or a
virtual machine tells of another one. For chaos.training, chaos.bench and the CLI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from . import _core, affinity
from .threads import Domains

BLOCKS = 64
# lines (a stripe has 256) that go along with the one that says whose turn it is; turns to a block
HOP, STREAM = (0, 50), (256, 2)
# a hand-over within a cache domain takes 24 to 29 ns on an EPYC 9004, one between two domains 145 to 160
NEAR_NS = 60.0
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


def measured_domains(mask: set[int] | None = None, seconds: float = 0.02) -> Domains:
    """The CPUs of the mask by the last-level cache that they share, found out by handing a cache line from core to core.

    Each CPU is compared with the first one of every domain found so far, two milliseconds each where the cores are idle, so
    this may take seconds on a large machine. Cores that are busy with something else seem to be far. A virtual machine may
    move its CPUs later.

    Parameters
    ----------
    mask : set of int, optional
        By default the CPUs that this process may use.
    seconds : float
        Most that the comparison of two CPUs may take; where they never run at once they count as far.

    Returns
    -------
    chaos.threads.Domains
        Of source 'measured', or, where threads cannot be pinned, all CPUs as one domain of source 'nothing tells'.
    """
    cpus = sorted(affinity.cpus() if mask is None else mask)
    if not hasattr(os, "sched_setaffinity"):
        return Domains((tuple(cpus),), "nothing tells")
    found: list[list[int]] = []
    for cpu in cpus:
        home = next((domain for domain in found if _is_near((domain[0], cpu), seconds)), None)
        if home is None:
            found.append([cpu])
        else:
            home.append(cpu)
    return Domains(tuple(map(tuple, found)), "measured")


def _is_near(pair: tuple[int, int], seconds: float) -> bool:
    """Whether two CPUs share a cache; looked at twice before they are said not to."""
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            hop = _hand_over(pool, pair, *HOP, seconds)
            if hop is not None and hop < NEAR_NS:
                return True
    return False


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
