"""Synchronous mini-batch SGD. Imported by chaos.sync; the fast half is cext/sync/synchronous.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..options import Option
from .base import Strategy, Variants


class Synchronous(Strategy):
    """One mini-batch step over all workers: every gradient is formed from the same weights and applied once.

    `batch_size` is the number of images of one step over all workers (the last step of an epoch may have fewer); the
    gradient is their mean. The step's n images are cut into L = min(lanes, n) lanes, lane j having images n*j//L up to
    n*(j+1)//L of the step. A lane's gradient is accumulated by one worker, no matter which; the lanes' gradients are
    added one by one in their order, and the update rule is applied to the sum. The workers meet twice a step.

    Promises: same seed, same bits in weights, losses and errors for any number of workers, and when a run is interrupted
    anywhere and continued. No update is lost, none is stale. With one lane (always so for a batch size of 1) it is
    `sequential` bit for bit; with more the images' gradients are the same, but their sum is put into brackets lane by
    lane, so the last digits differ. At most as many workers as lanes have gradients to form, and with one lane only one
    works.

    Memory: each lane has a buffer as long as the weights.

    Source: textbook mini-batch SGD; for the reduction in a fixed order, Villa et al., Effects of floating-point
    non-associativity on numerical computations on massively multithreaded systems (Cray User Group, 2009).
    """

    name = "synchronous"
    lanes = True
    equals_sequential = False
    deterministic = True
    any_workers = True
    options = {
        "lanes": Option(
            None,
            "parts of a step that workers take, each with a gradient as long as the weights; "
            "none: one per 4 images, at most 64",
            1,
            1 << 16,
            whole=True,
        )
    }
    variants: Variants = (({}, {}), ({"lanes": 1}, {"equals_sequential": True}), ({"lanes": 5}, {}))

    def most_stale(self, resolved: Mapping[str, Any], workers: int) -> int | None:
        return 0
