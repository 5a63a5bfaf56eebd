"""What asks a training to stop while workers run: Ctrl-C, SIGTERM, SIGHUP, or a callback. For chaos.training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Travel among the ranks as the numbers of signals do. Where ranks have different ones the smallest counts.
FAILED = -1  # a callback has failed
STOPPED = 1 << 16  # a callback has asked for the end
HANGUP: int | None = getattr(signal, "SIGHUP", None)
DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if HANGUP is not None:
    DEFAULTS[HANGUP] = signal.SIG_DFL


class Caught:
    """What asked the training to stop, if anything.

    Attributes
    ----------
    signal : int or None
        The number of a signal, `STOPPED` or `FAILED`.
    error : Exception or None
        What a callback of this process has raised while workers ran.
    rests : callable
        Whether a training phase is to be cut here, so that the state can be kept, and to go on.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.error: Exception | None = None
        self.rests: Callable[[], bool] = lambda: False

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """A signal has come."""
        if self.error is None:
            self.signal = number

    def stop(self) -> None:
        """A callback asks for the end."""
        self.signal = self.signal or STOPPED

    def fail(self, error: Exception) -> None:
        """A callback has failed."""
        self.error, self.signal = self.error or error, FAILED

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    def leave(self, message: str = "stopped") -> None:
        """Raises what the caller is to see of a signal; returns where a callback has asked for the end."""
        if self.signal == STOPPED:
            return
        if self.signal is not None and self.signal in (signal.SIGTERM, HANGUP):
            raise SystemExit(128 + self.signal)
        raise KeyboardInterrupt(message)


@contextmanager
def signals() -> Iterator[Caught]:
    """Turns Ctrl-C, SIGTERM and SIGHUP (a terminal that is closed) into a note while workers run. Handlers that the caller
    has put in place stay, SIGHUP that is ignored (nohup) too, as do all handlers outside the main thread."""
    caught = Caught()
    replaced: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            number: int
            for number, default in DEFAULTS.items():
                if signal.getsignal(number) is default:
                    replaced[number] = signal.signal(number, caught.note)
        yield caught
    finally:
        # that of Ctrl-C last: it may raise at once, and all others must be back by then
        for number, handler in reversed(replaced.items()):
            signal.signal(number, handler)
