"""The first moments of the command `chaos`, while it imports NumPy and itself: Ctrl-C ends it without a word. In any other
program this changes nothing. For chaos/__init__.py and chaos.cli; imports nothing of chaos."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # that of `typing` would have to be imported first
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any


def _is_command() -> bool:
    """Whether it is the command that is being started: its script, or `python -m chaos`, whose first argument is "-m"."""
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    return name in ("chaos", "chaos.exe") or (name == "-m" and "chaos" in sys.orig_argv)


def _silent(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Instead of sys.excepthook; Python ends with SIGINT after a KeyboardInterrupt."""
    if not issubclass(kind, KeyboardInterrupt):
        _before(kind, error, trace)


_before: Callable[[type[BaseException], BaseException, TracebackType | None], Any] = sys.excepthook
_held = False


def hold() -> None:
    """Something is about to be imported, in the command `chaos` or elsewhere."""
    global _held
    if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        try:
            # modules in C may turn an exception amid their import into another one
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        except ValueError:  # not in the main thread
            return
        sys.excepthook = _silent
        _held = True


def imported() -> None:
    """It is imported: a signal is an exception again."""
    global _held
    if _held and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _held = False


def over() -> None:
    """The command runs, and looks after signals itself."""
    imported()
    if sys.excepthook is _silent:
        sys.excepthook = _before


hold()
