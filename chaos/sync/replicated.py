"""Replicas for groups of workers. Imported by chaos.sync; the fast half is cext/sync/replicated.c."""

from __future__ import annotations

from ..options import Option
from .base import Asynchronous, Variants


class Replicated(Asynchronous):
    """Weight replicas that are exchanged round a ring, after HogWild++ (Zhang, Hsieh, Akella 2016).

    Workers 0..g-1, g..2g-1, ... are groups (`group` = g) with a replica of the weights each, which they train as `chaos`
    does: try-lock stripes, arbitrary order. So weights travel between the caches of a group only. Pinned compactly
    (pin="compact"), a group of as many workers as a NUMA domain or a shared cache has cores stays inside it; 1, the default,
    suits cores that share no cache but a slow one.

    A token goes round the groups. The group that gets it exchanges its replica w, which was b after its last exchange; its
    first worker takes `period` more steps (the paper's tau_0; 64 there for up to four groups) and hands the token on.

    rule="mix": the paper's, with the next group's replica v and N groups: v <- v + B (w - b), and
    w <- L v + (1 - L) w + (B + L - 1) (w - b) of the old values, where B^N + B = 1 and L = 1 - B^(N-1). An update reaches
    the others in several rounds, in the end with a weight near 1 that depends on when it was made; the phase ends with the
    mean of the replicas, so no sum is preserved. The paper leaves out elements that changed little; its models were sparse.

    rule="sum": the process's weights c travel with the token: c <- c + (w - b), w <- c, b <- c. Every update reaches every
    replica exactly once; whatever is on the way when the phase ends is added then, so that no update is lost. That is exact
    but for rounding, and less robust: what the groups did at the same time is added in full, and if they do much between two
    exchanges (more workers than cores, long periods, large rates), they overshoot together.

    Each training phase starts all replicas from the process's weights and ends in them, so a continued run needs nothing
    else. The update rule's moments belong to the replicas; the phase ends with their mean, in which each counts as often as
    it was updated, and with the largest of their numbers of updates.

    Promises: nobody waits in line; with one group, and so with one worker, it is `chaos`, and one worker equals `sequential`
    bit for bit. Staleness is counted within the group: updates of the others come up to a round of the token later.
    """

    name = "replicated"
    exact = False
    divides = True
    variants: Variants = (
        ({}, {}),
        ({"group": 2}, {}),
        ({"rule": "sum", "period": 2}, {"exact": True, "divides": False, "inferior": True}),
    )
    options = {
        "group": Option(1, "workers that share a replica", 1, 4096, whole=True),
        "period": Option(
            64, "steps of a group's first worker between getting the token and handing it on", 1, 1 << 30, whole=True
        ),
        "rule": Option(
            "mix",
            "what an exchange does: mix with the next replica, or hand on the sum of all updates",
            choices=("mix", "sum"),
        ),
    }
