"""Who writes to a directory: one process, and one thread of it, at a time. For chaos.training and chaos.reproduce."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import weakref
from pathlib import Path
from typing import Any

NAME = ".lock"
HELD_BY_OTHERS = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}


class Lock:
    """The lock of a directory, which the system releases when its owner ends, however that is.

    The file is removed when the lock is released; one that a killed process has left is taken over. Where the file system
    knows no locks, everybody gets one.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._handle: int | None = None

    def take(self) -> dict[str, Any] | None:
        """None: this object holds the lock; else what is known of who does: process and machine."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in HELD_BY_OTHERS:
                    owner = _read(handle)
                    os.close(handle)
                    return owner
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    break
            os.close(handle)  # the owner before has removed the file between the two steps
        self._handle = handle
        _held.add(self)
        with contextlib.suppress(OSError):  # a full disk: nobody is told who it is
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"process": os.getpid(), "machine": platform.node()}).encode(), 0)
        return None

    def release(self) -> None:
        """Does nothing when it is not held."""
        if self._handle is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self.forget()

    def forget(self) -> None:
        """For a forked child, which the lock does not belong to."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _read(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 1000, 0))
    except (OSError, ValueError):  # it has just been taken
        return {}
    return found if isinstance(found, dict) else {}


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
