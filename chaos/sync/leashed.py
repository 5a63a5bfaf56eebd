"""Leashed-SGD. Imported by chaos.sync; the fast half is cext/sync/leashed.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..options import Option
from .base import Asynchronous, Variants


class Leashed(Asynchronous):
    """Leashed-SGD (Bäckström, Walulya, Papatriantafilou, Tsigas 2021): consistent without a lock.

    The weights, with the update rule's state, are a vector that never changes, behind a pointer. A step reads the vector
    that is current when it begins. At its end it makes a new one from what is then current and its own whole gradient, and
    swaps the pointer if nobody has moved it meanwhile; otherwise it tries again with the new current one. `persistence` is
    the number of failed tries that are allowed: an update that fails once more is given up (counted as `dropped`; failed
    tries count as lock failures).
    Vectors nobody reads any more are used again; there are 2 workers + 1 of them.

    Promises: a gradient is formed from weights that were the weights at one moment; some worker always gets on; without a
    bound on persistence no update is lost; one worker equals `sequential` bit for bit. An update copies all weights.
    """

    name = "leashed"
    variants: Variants = (({}, {}), ({"persistence": 1}, {"exact": False}))
    options = {
        "persistence": Option(
            None, "failed tries that are allowed before an update is given up; none: any number", 0, 1 << 30, whole=True
        )
    }

    def core_options(self, resolved: Mapping[str, Any]) -> list[float]:
        return [0.0 if resolved["persistence"] is None else resolved["persistence"] + 1.0]
