"""JSON that a file holds. For every room that reads a file."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What the text describes; ValueError whatever is wrong with it, a nesting that no reader can follow among it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
