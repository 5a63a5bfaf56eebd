"""Model averaging, the paper's strategy B. Imported by chaos.sync; the fast half is cext/sync/averaging.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..options import Option
from .base import Strategy, Variants


class Averaging(Strategy):
    """Every worker trains weights of its own; from time to time all are replaced by their average.

    A round is workers x period steps of `batch_size` images, dealt out in turn: worker i takes the steps i, i + workers,
    ... of the round and applies each to its own replica at once, as `sequential` does. Then the workers meet, and every
    weight becomes sum_i(n_i w_i) / sum_i(n_i), n_i being the images that replica i was trained on in this round, added
    up in the workers' order in double precision. The state of the update rule (moments) is averaged in the same way; the
    number of an update is that of the replica updated most often. Without a `period` there is one round per epoch.

    Promises: same seed, same number of workers, same bits; one worker equals `sequential` bit for bit. A worker's
    updates are never stale, but they end up in the weights only with the share n_i / sum(n_i) of its replica, so with p
    workers progress per image is slower, up to p times where the weights change little. Stopping waits until every
    worker has taken as many steps as the fastest one, and averages there: an interrupted and continued run has an
    additional round, so with several workers it has other bits than an uninterrupted one.

    Memory: each worker has a copy of the weights and moments.

    Source: De Grazia, Stoianov, Zorzi, Parallelization of deep networks (ESANN 2012), strategy B of the CHAOS paper;
    Zinkevich, Weimer, Smola, Li, Parallelized stochastic gradient descent (NIPS 2010), which averages once, at the end;
    with a period, local SGD (Stich 2019).
    """

    name = "averaging"
    exact = False
    divides = True
    deterministic = True
    options = {
        "period": Option(None, "steps of each worker between averages; none: one average per epoch", 1, 1 << 31, whole=True)
    }
    variants: Variants = (({}, {}), ({"period": 3}, {}))

    def most_stale(self, resolved: Mapping[str, Any], workers: int) -> int | None:
        return 0
