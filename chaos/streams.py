"""Standard error for people, which programs replace by objects that only write, or close. For chaos.training,
chaos.cli and the rooms between."""

from __future__ import annotations

import logging
import sys
from typing import Any

LOG = logging.getLogger("chaos")


def is_terminal(stream: Any) -> bool:
    """Whether somebody looks at a stream, which may be None or closed, or not know the question."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def tell(text: str, stream: Any = None) -> bool:
    """Prints a line to a stream, by default standard error; whether that could be done. BrokenPipeError where the reader has
    gone."""
    stream = sys.stderr if stream is None else stream
    if stream is None:
        return False
    try:
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:
            print(text.encode("ascii", "backslashreplace").decode(), file=stream, flush=True)
    except BrokenPipeError:
        raise
    except (OSError, ValueError, AttributeError):  # a log that is full, or closed, or none
        return False
    return True
