"""The reference strategy. Imported by chaos.sync; the fast half is cext/sync/sequential.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Strategy


class Sequential(Strategy):
    """One worker; every update is applied before the next image is read. Same seed, same bits."""

    name = "sequential"
    single = True
    deterministic = True

    def most_stale(self, resolved: Mapping[str, Any], workers: int) -> int | None:
        return 0
