"""With what numbers the core multiplies: float32, or, where that is faster, bfloat16. For chaos.network, and for who tells
what a machine can do."""

from __future__ import annotations

import os

from . import _core
from .errors import UnsupportedError

FLOAT32, BF16 = "float32", "bf16"
PRECISIONS = (FLOAT32, BF16)
VARIABLE = "CHAOS_BF16"
PLAIN = "plain"


def bf16_unit() -> str:
    """What multiplies bfloat16 numbers here: "amx", or "plain" where the environment variable CHAOS_BF16 asks for it. "":
    nothing does."""
    asked = os.environ.get(VARIABLE, "").strip().lower()
    if asked not in ("", PLAIN):
        raise ValueError(f"{VARIABLE}={asked!r} is neither empty nor {PLAIN!r}")
    return asked or ("amx" if "amx" in _core.bf16_units() else "")


def missing() -> str:
    """What AMX is missing, in words; "": nothing."""
    return _core.bf16_missing()


def unit_for(precision: str) -> str:
    """The same for a network of this precision; UnsupportedError where bfloat16 is wanted and nothing multiplies it."""
    if precision == FLOAT32:
        return ""
    if not (unit := bf16_unit()):
        raise UnsupportedError(
            f'precision="{BF16}" needs a processor with AMX_BF16, and Linux: {missing()}. '
            f'precision="{FLOAT32}" trains and predicts everywhere; {VARIABLE}={PLAIN} computes the same bits as AMX, slowly'
        )
    return unit
