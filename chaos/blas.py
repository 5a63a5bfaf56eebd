"""BLAS with one thread while trainings run, beside whose workers its own would be too many. For chaos.training.

Trainings in several threads overlap, and a limit of the whole process is taken away by the last of them only: one that each
training set and took away for itself would leave the process with another's limit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_inside = 0
_limits: threadpool_limits | None = None


@contextmanager
def one_thread() -> Iterator[None]:
    """While the block runs, and any other that has begun meanwhile, BLAS libraries calculate in one thread."""
    global _inside, _limits
    with _lock:
        if not _inside:
            _limits = threadpool_limits(1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _limits is not None:
                _limits.restore_original_limits()
                _limits = None


def _after_fork() -> None:
    """In a forked child, where the other threads' trainings are not."""
    global _lock, _inside
    _lock, _inside = threading.Lock(), 0


os.register_at_fork(after_in_child=_after_fork)
