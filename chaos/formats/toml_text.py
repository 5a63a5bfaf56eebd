"""Values as TOML, which the standard library only reads. For rooms above that keep what people may read and give again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

WIDE = 100  # a list that is longer has a line for each of its values


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of keys with numbers, texts, True and False, lists and dicts of them; `tomllib.loads` gives them back.

    What is None is left out, for which TOML has no word.

    Raises
    ------
    TypeError
        For any other value.
    """
    parts = []
    for name, table in tables.items():
        lines = [f"{_key(key)} = {_long(value)}" for key, value in table.items() if value is not None]
        parts.append("\n".join([f"[{_key(name)}]", *lines]) + "\n")
    return "\n".join(parts)


def _key(text: str) -> str:
    plain = text.isascii() and text.replace("_", "").replace("-", "").isalnum()
    return text if plain else _text(text)


def _long(value: Any) -> str:
    text = _value(value)
    if isinstance(value, (list, tuple)) and len(text) > WIDE:
        return "[\n" + "".join(f"    {_value(one)},\n" for one in value) + "]"
    return text


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)  # TOML's inf and nan are Python's
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inside} }}" if inside else "{}"
    raise TypeError(f"TOML holds no {type(value).__name__}: {value!r}")


def _text(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # a path may hold what is no text
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
