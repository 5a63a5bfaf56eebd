"""What the processes of the benchmark say to each other through a pipe when something fails. For processes, hogwild."""

from __future__ import annotations

import contextlib
import traceback


class SideFailed(Exception):
    """A side's process failed; the message is its traceback."""


def report_failure(pipe):
    with contextlib.suppress(OSError):
        pipe.send(SideFailed(traceback.format_exc()))


def receive(pipe):
    try:
        answer = pipe.recv()
    except EOFError:
        raise SideFailed("a process of the benchmark ended unexpectedly") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
