"""Controlled Hogwild with arbitrary order of synchronisation. Imported by chaos.sync; the fast half is cext/sync/chaos.c."""

from __future__ import annotations

from ..options import Option
from .base import Asynchronous, Variants


class Chaos(Asynchronous):
    """CHAOS (Viebke, Memeti, Pllana, Abraham 2017): workers share one weight vector and meet it in arbitrary order.

    A worker reads weights on demand, whatever is there (read="demand"). It gathers the gradient of a layer privately and
    publishes it when the layer's back-propagation is complete, stripe by stripe (16 KiB): a stripe that another worker is
    writing is passed over and visited again before every further layer, at the latest before its gradient buffer is needed
    again, or when more than `max_pending` stripes wait.

    read="publication" is ours, not the paper's: a worker copies a stripe for its next step right after writing it, while the
    cache lines are its own (one that it has to pass over: when the next step begins), and reads the copy. Lines then move
    between cores once per step instead of twice. What is read is older by the time from a layer's publication to its next
    use, so staleness is about workers - 1 in all layers, where reading on demand makes it smaller in the later ones; forward
    and backward pass of a step see the same weights. Costs the weights once more in memory per worker; one worker reads on
    demand whatever is asked, which is the same.

    Promises: no update is lost (writers exclude each other per stripe); no worker waits in line; an update is at most one
    step of its own worker late; one worker equals `sequential` bit for bit. With several workers the order of updates,
    hence the last digits of the result, differ from run to run.
    """

    name = "chaos"
    locks_stripes = True
    options = {
        "max_pending": Option(None, "stripes that may wait for publication; none: all", 1, 1 << 20, whole=True),
        "read": Option(
            "demand",
            "when a worker reads weights: when it uses them, or when it has just written them",
            choices=("demand", "publication"),
        ),
    }
    variants: Variants = (
        ({}, {}),
        ({"max_pending": 1}, {}),
        ({"max_staleness": 2}, {}),
        ({"read": "publication"}, {}),
        ({"read": "publication", "max_pending": 1, "max_staleness": 3}, {}),
    )
