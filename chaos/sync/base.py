"""What every strategy has. Imported by the files of chaos.sync."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..options import Option, WithOptions, Worded

Variants = tuple[tuple[dict[str, Any], dict[str, Any]], ...]

STALENESS_BINS = 512  # as in cext/engine/engine.h; the last bin counts everything from there on


class Strategy(WithOptions):
    """A synchronisation strategy's meaning; its speed half is the file of the same name in cext/sync.

    Attributes
    ----------
    name : str
    single : bool
        Only one worker makes sense.
    exact : bool
        No update is lost: the sum of all updates ends up in the weights.
    equals_sequential : bool
        One worker equals `sequential` bit for bit.
    locks_stripes : bool
        Whoever holds a stripe's lock may change its weights while workers run, and nothing is lost.
    deterministic : bool
        Same seed, same number of workers: same bits.
    any_workers : bool
        Deterministic, and the number of workers changes no bit either.
    racing : bool
        Several workers may write one weight at the same time, so that some of an update may be lost.
    divides : bool
        Updates are averaged over workers instead of added up, so progress per image is slower, up to as many times as there
        are workers.
    inferior : bool
        It is known to end up worse than `sequential`; the docstring says when and why.
    lanes : bool
        Steps are cut into lanes, so that no layer sees all images of one.
    variants : tuple of (dict, dict)
        For the tests over the list: options that change what happens, and the attributes above that are different with them.
    """

    name: str = ""
    single = False
    exact = True
    equals_sequential = True
    locks_stripes = False
    deterministic = False
    any_workers = False
    racing = False
    divides = False
    inferior = False
    lanes = False
    variants: Variants = (({}, {}),)
    common = {
        "stripe_bytes": Worded(
            16384,
            "bytes of weights that are locked and published together; auto: by weights and workers",
            64,
            1 << 30,
            whole=True,
            words=("auto",),
        )
    }

    def _called(self) -> str:
        return f"strategy {self.name!r}"

    def most_stale(self, resolved: Mapping[str, Any], workers: int) -> int | None:
        """The largest staleness that an update can have with these options; None: there is no bound."""

    def check(self, resolved: Mapping[str, Any], update: str, update_options: Mapping[str, Any]) -> None:
        """ValueError if the options do not fit each other, or the update rule."""

    def settle(self, resolved: Mapping[str, Any], workers: int, weights: int, near: Callable[[bool], int]) -> dict[str, Any]:
        """The options with numbers for words.

        Parameters
        ----------
        resolved : dict
            The options.
        workers : int
        weights : int
            Floats of the weight vector.
        near : callable
            How many workers, one after the other, share a cache, as the system tells, or (argument True) as is measured.
        """
        found = dict(resolved)
        if found["stripe_bytes"] == "auto":
            found["stripe_bytes"] = fitting_stripe(4 * weights, self.parties(found, workers))
        return found

    def parties(self, resolved: Mapping[str, Any], workers: int) -> int:
        """How many may want to write one weight vector at the same time."""
        return workers

    def step_scale(self, resolved: Mapping[str, Any], workers: int, histogram: Sequence[int]) -> NDArray[np.float32] | None:
        """Factors of the learning rate for updates of staleness 0, 1, ...; None: all 1."""

    def rate_scale(self, resolved: Mapping[str, Any], workers: int) -> float:
        """The factor of the learning rate with that many workers."""
        return 1.0


def fitting_stripe(size: int, parties: int) -> int:
    """Bytes of a stripe for a vector of `size` bytes: as many stripes as let each party hold one and find another free, of
    the powers of two between 1 KiB, below which the locks cost more than the waiting, and the usual 16 KiB."""
    return min(max(1 << max(size // (2 * parties), 1).bit_length() - 1, 1024), 16384)


class Asynchronous(Strategy):
    """What the asynchronous strategies have in common: options that answer to staleness.

    The staleness of an update is the number of other updates of the same stripe of weights between its reading by the worker
    and the update. `staleness_step` multiplies the learning rate of an update of staleness tau by

    - none: 1
    - inverse: 1 / (1 + tau). Zhang, Gupta, Lian, Liu 2016 (Staleness-aware Async-SGD), who divide by the staleness; here it
      is 0 for the freshest.
    - tail: 1 + (1 - 2 F(tau)). TAIL-tau: Bäckström, Papatriantafilou, Tsigas 2022 (ASAP.SGD), after their
      MindTheStep-AsyncPSGD 2019, amplitude 1; F(tau) is the share of updates that were less stale.
    - fleet: exp(-b tau), b = 2/t ln(1 + t/2). Damaskinos et al. 2020 (FLeet): meets 1 / (1 + tau) at t/2; t is the 99.7th
      percentile of staleness. Their factor for the similarity of label distributions is left out: workers draw from one data
      set.

    F and t come from the updates of the epoch before; in the first epoch `tail` is 1 and t the number of other workers.
    FLeet's t is at least 1. `tail` goes up to 2: where most updates are as fresh as can be, it doubles the rate.

    With `max_staleness` an update never has a greater staleness than that. A worker waits before it picks images while its
    step could make some update later than the bound: stale synchronous throttling (Ho et al. 2013), but counted in steps
    under way at the same time instead of clocks. The steps under way during a step are those that were when it began, F, and
    those that began later, L; each updates a stripe at most once, hence staleness <= F + L, and no step begins that would
    make F + L of any greater than the bound. Whoever is under way never waits for this, so somebody always gets on, also
    when others fail or have no images left. 0 runs one step at a time.

    `lr_scale` multiplies the learning rate by the number of workers ("linear") or by its square root ("sqrt").
    """

    common = Strategy.common | {
        "staleness_step": Option(
            "none", "learning rate by the staleness of an update", choices=("none", "inverse", "tail", "fleet")
        ),
        "max_staleness": Option(
            None, "no update may be more than this number of updates late; none: no bound", 0, 1 << 40, whole=True
        ),
        "lr_scale": Option(
            "none", "learning rate times the number of workers, or its square root", choices=("none", "linear", "sqrt")
        ),
    }

    def step_scale(self, resolved: Mapping[str, Any], workers: int, histogram: Sequence[int]) -> NDArray[np.float32] | None:
        """Factors of the learning rate for updates of staleness 0, 1, ...

        Parameters
        ----------
        resolved : dict
            The options.
        workers : int
        histogram : sequence of int
            How many updates of the epoch before had staleness 0, 1, ...; empty: there was none.

        Returns
        -------
        (512,) float32 array or None
            None: all 1.
        """
        kind, stale = resolved["staleness_step"], np.arange(STALENESS_BINS)
        share = np.cumsum(histogram) / max(np.sum(histogram), 1)
        if kind == "inverse":
            factors = 1 / (1 + stale)
        elif kind == "tail" and len(share):
            factors = 2 - 2 * np.concatenate([[0], share, np.ones(STALENESS_BINS)])[:STALENESS_BINS]
        elif kind == "fleet":
            t = max(np.searchsorted(share, 0.997) if len(share) else workers - 1, 1)
            factors = np.exp(-2 / t * math.log(1 + t / 2) * stale)
        else:
            return None
        return factors.astype(np.float32)

    def most_stale(self, resolved: Mapping[str, Any], workers: int) -> int | None:
        bound: int | None = resolved["max_staleness"]
        return bound

    def rate_scale(self, resolved: Mapping[str, Any], workers: int) -> float:
        return {"none": 1.0, "linear": float(workers), "sqrt": math.sqrt(workers)}[resolved["lr_scale"]]
