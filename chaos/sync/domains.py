"""Replicas of cache domains that add their updates to each other's. Imported by chaos.sync; the fast half is
cext/sync/domains.c."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..options import Option, Worded
from .base import Asynchronous, Variants

MOST = 4096  # workers


class Domains(Asynchronous):
    """CHAOS within groups of workers; sums of updates are carried between the groups, in arbitrary order.

    Workers 0..g-1, g..2g-1, ... (`group` = g) have a replica w of the weights, which they train as `chaos` does; pinned
    compactly (pin="compact") a group is a cache domain, and weights travel between its caches only. group="auto" is the
    number of workers that share a last-level cache, as the system tells, and pins them so unless they are pinned already;
    "measured" the same by handing a cache line from core to core, where a virtual machine hides its caches; "none" is one
    group. The number is found when a training begins, and kept with the run. Whenever a group has
    made `period` steps, the worker that made the last of them carries: stripe by stripe, passing over those that are busy,

        c <- c + mix (w - b),  w <- c,  b <- c

    where c is the process's weights and b what w was after the group's last exchange. The others of the group go on
    meanwhile, and groups wait for nothing but a stripe. So a line of weights crosses between domains twice in `period`
    steps instead of twice in each.

    mix=1 adds every update, so none is lost; but what G groups learn at the same time from the same weights is added G
    times, which diverges where G x period steps are much for the learning rate. mix=1/G averages. Between them lies what is
    both fast and stable: by default 1.5 / sqrt(G), at most 1. group=1 gives every worker a replica: local SGD (Stich 2019)
    whose workers never meet.

    Each training phase starts all replicas from the process's weights and ends in them, so a continued run needs nothing
    else. The update rule's moments belong to the replicas; the phase ends with their mean, in which each counts as often as
    it was updated, and with the largest of their numbers of updates. State that layers observe is averaged, two replicas at
    a time.

    Across processes (`cluster=`) the weights c are those of a rank, which exchanges them with others beside its groups:
    ranks x groups x workers, and a line of weights crosses the network as often as the mode says, whatever `period` is.

    Promises: nobody waits in line; with mix=1, and so with two groups, the sum of all updates ends up in the weights but for
    rounding; with one group, and so with one worker, it is `chaos`, and one worker equals `sequential` bit for bit.
    Staleness is counted within the group: updates of the others come up to two periods later.
    """

    name = "domains"
    locks_stripes = True
    exact = False
    divides = True
    variants: Variants = (
        ({}, {}),
        ({"mix": 1.0}, {"exact": True, "divides": False}),
        ({"mix": 1.0, "period": 2}, {"exact": True, "divides": False}),
        ({"mix": 1.0, "group": 2, "period": 3}, {"exact": True, "divides": False}),
        ({"mix": 0.5}, {}),
    )
    options = {
        "group": Worded(
            1,
            "workers that share a replica; auto, measured: those that share a cache; none: all",
            1,
            MOST,
            whole=True,
            words=("auto", "measured", "none"),
        ),
        "period": Option(16, "steps of a group between two exchanges", 1, 1 << 30, whole=True),
        "mix": Option(
            None,
            "the share of a group's updates that is added to the weights of all; none: by the number of groups",
            0,
            1,
            above=True,
        ),
    }

    def settle(self, resolved: Mapping[str, Any], workers: int, weights: int, near: Callable[[bool], int]) -> dict[str, Any]:
        group = resolved["group"]
        if isinstance(group, str):
            group = MOST if group == "none" else near(group == "measured")
        return super().settle({**resolved, "group": group}, workers, weights, near)

    def parties(self, resolved: Mapping[str, Any], workers: int) -> int:
        """The workers of a group, or those that carry."""
        group: int = min(resolved["group"], workers)
        return max(group, -(-workers // group))
