"""Elastic averaging. Imported by chaos.sync; the fast half is cext/sync/elastic.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..options import Option
from .base import Strategy, Variants


class Elastic(Strategy):
    """Asynchronous elastic averaging SGD (EASGD: Zhang, Choromanska, LeCun 2015), inside the machine.

    Each worker trains a private replica x. Every `period` steps it and the centre c draw each other near:

        d = a (x - c),  x <- x - d,  c <- c + d

    stripe by stripe, under the stripe's lock. The centre is what is trained: it is evaluated and saved. At the end of a
    training phase every replica is exchanged once more and given up; the next phase starts all of them from the centre, so
    a continued run needs nothing but the centre. The replicas' moments, if the update rule has any, begin there too; the
    phase ends with their mean, in which each counts as often as it was updated; their number of updates is the largest.

    `alpha` is the paper's moving rate: by default 0.9 / workers, its beta = 0.9; `period` its tau (1 to 64 there). Workers
    explore on their own, so the centre moves less per image than with shared weights.

    Promises: nobody waits but for a stripe's lock. Not `sequential` with one worker, because the centre follows its replica
    only by the factor a, and no sum of updates is preserved. Replicas are private, so no update is ever counted as stale.
    """

    name = "elastic"
    exact = False
    equals_sequential = False
    divides = True
    variants: Variants = (({}, {}), ({"period": 1}, {}))
    options = {
        "period": Option(10, "steps of a worker between two exchanges with the centre", 1, 1 << 30, whole=True),
        "alpha": Option(
            None, "the share of the difference that an exchange moves both sides by; none: 0.9 / workers", 0, 1, above=True
        ),
    }

    def most_stale(self, resolved: Mapping[str, Any], workers: int) -> int | None:
        return 0
