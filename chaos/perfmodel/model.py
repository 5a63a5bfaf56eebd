"""Predicts training time from figures of a network and of a machine. Measures nothing; for chaos.perfmodel.

A worker takes b images, then publishes its gradient: a step. Per step it computes, moves weights and holds stripes:

- compute: forward, backward and the rest, as measured on one core of the calibrated host, times the ratio of the
  multiply-add rates of that core and of the core in question (the same fraction of the peak is assumed).
- transfer: a cache line of weights that another worker has published since this worker last met it must come from the other
  core. A worker meets every line 2 c times per step, in the forward and the backward pass over each of the c = b / 8 chunks
  (at least 1) that it takes through the layers together; the last meeting includes the publication. If the p - 1 others
  publish at random times, a line has moved at a meeting with probability 1 - exp(-(p - 1) / (2 c)). The cost of a line is
  calibrated per image of two workers at batch size 1, so a meeting costs half of it, times that probability over its value
  for p = 2, c = 1. It is calibrated for each network, because loops hide more or less of a line's way (in different cache
  domains of an EPYC 9004 14 ns are left for small, 19 for medium, 17 for large), and for each distance of the cores at which
  they are met. At another distance it is multiplied by the ratio of the times of handing a stripe's 256 lines over: from one
  domain to two that is 3.9, training takes 3.8 to 4.4 times as long per line in medium and large, 2.0 times in small, and
  handing a single line over 6.0 times.
- publication: adding the gradient to the weights (at batch size 1 fully connected layers also form it there).
- waiting: p workers that compute for a time Z and hold stripe k for h_k (its share of the publication and of the last
  meeting's transfer) are a closed queueing network of one delay and K stations; exact mean value analysis (Reiser and
  Lavenberg 1980): R_k(n) = h_k (1 + Q_k(n-1)), X(n) = n / (Z + sum R_k(n)), Q_k(n) = X(n) R_k(n), n = 1..p. A worker that
  finds a stripe busy goes on to the next instead of queueing, so this is a pessimistic bound. While few wait, a worker meets
  a busy stripe with probability (p - 1) h_k / (Z + sum h): the hold times of the others over the time between publications.
  The rate of steps is at most 1 / max h_k, and 1 / sum h_k if one lock guarded all weights: that is what stripes change.
- bandwidth: what the images, and buffers that do not fit the caches, take longer from memory than all of the above.
- evaluation: forward passes, which share nothing but memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core import TOGETHER
from .machine import Machine

LINE = 64  # bytes


@dataclass(frozen=True)
class Figures:
    """A network's figures, measured with one worker on one core of the host. Times in microseconds per image.

    Attributes
    ----------
    name : str
    batch_size : int
        Images per update for which the figures hold.
    forward, backward, publication, elsewhere : float
        Time of the passes, of adding the gradient to the weights with warm caches, and what a training phase takes beyond.
    evaluation : float
        Forward pass alone, of several images together.
    gflops : float
        Multiply-add rate of that core.
    stripes : tuple of int
        Bytes of each stripe of the weights.
    worker_bytes, image_bytes : int
        Buffers of a worker; one image in the data set.
    together : int
        Images that pass through the layers together at the most.
    """

    name: str
    batch_size: int
    forward: float
    backward: float
    publication: float
    elsewhere: float
    evaluation: float
    gflops: float
    stripes: tuple[int, ...]
    worker_bytes: int
    image_bytes: int
    together: int = TOGETHER

    @property
    def compute(self) -> float:
        """Time per image outside the publication."""
        return self.forward + self.backward + self.elsewhere

    @property
    def weight_bytes(self) -> int:
        return sum(self.stripes)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; Figures(**...) makes it again."""
        return {**asdict(self), "stripes": list(self.stripes)}


class Training(TypedDict):
    """See `training`."""

    us_per_image: float
    terms: dict[str, float]
    passes: dict[str, float]
    contention_us_per_image: float
    floor_us_per_image: float
    one_lock_us_per_image: float
    one_lock_floor_us_per_image: float
    busy_stripes_per_image: float
    memory_bytes_per_image: float
    oversubscribed: bool


class Prediction(Training):
    """See `predict`."""

    workers: int
    images_per_second: float
    speedup: float
    efficiency: float
    training_seconds: float
    evaluation_seconds: float
    epoch_seconds: float
    seconds: float


def moved(workers: int, chunks: int = 1) -> float:
    """Probability that another worker has published a line between two meetings."""
    return -math.expm1(-(workers - 1) / (2 * chunks))


def step(
    figures: Figures, machine: Machine, workers: int, forever: bool = False
) -> tuple[float, float, NDArray[np.float64], float]:
    """What one worker does per step, in microseconds.

    Parameters
    ----------
    figures : Figures
    machine : Machine
    workers : int
    forever : bool
        As if so many workers published that every line has moved at every meeting.

    Returns
    -------
    tuple
        compute, reading (transfer outside the stripes), hold times of the stripes (array), part of these that is transfer.
    """
    size = figures.batch_size
    scale = figures.gflops * workers / machine.peak_gflops(workers)
    chunks = -(-size // figures.together)
    line = machine.transfer_ns(workers) * 1e-3 / 2 * (1 if forever else moved(workers, chunks)) / moved(2)
    stripes = np.asarray(figures.stripes, float)
    lines = np.ceil(stripes / LINE) * line
    share = stripes / max(stripes.sum(), 1)
    moving = float(lines.sum())
    return (
        size * figures.compute * scale,
        (2 * chunks - 1) * moving,
        size * figures.publication * scale * share + lines,
        moving,
    )


def queue(workers: int, delay: float, holds: ArrayLike) -> tuple[float, float, float]:
    """Exact mean value analysis of a closed network.

    Parameters
    ----------
    workers : int
    delay, holds : float, array
        Microseconds per step: outside the stripes, in each of them.

    Returns
    -------
    tuple
        Steps per microsecond, microseconds of waiting per step, and how many of the stripes that it wants a worker finds
        held (what an arriving worker sees is the network without it).
    """
    holds = np.asarray(holds, float)
    waiting, rate = np.zeros_like(holds), 0.0
    for n in range(1, workers + 1):
        before = rate
        stay = holds * (1 + waiting)
        rate = float(n / (delay + stay.sum()))
        waiting = rate * stay
    return rate, float(stay.sum() - holds.sum()), before * float(holds.sum())


def training(figures: Figures, machine: Machine, workers: int) -> Training:
    """Wall time of training per image, and what it consists of.

    Parameters
    ----------
    figures : Figures
    machine : Machine
    workers : int
        More than there are hardware threads are predicted as so many as there are.

    Returns
    -------
    dict
        us_per_image; terms, whose sum it is: compute (forward, backward, elsewhere in the same proportions as measured),
        publication, transfer, waiting, bandwidth; contention_us_per_image = transfer + waiting, the counterpart of the
        papers' contention term; floor_us_per_image, below which all cores together do not get because stripes are held;
        one_lock_us_per_image and one_lock_floor_us_per_image, the same if one lock guarded all weights;
        busy_stripes_per_image, how many stripes a worker finds held; oversubscribed.
    """
    active = min(workers, machine.threads)
    size = figures.batch_size
    compute, reading, holds, holding = step(figures, machine, active)
    rate, waiting, busy = queue(active, compute + reading, holds)
    whole = 1 / (rate * size)
    held = float(holds.sum())
    one_rate, *_ = queue(active, compute + reading, [held])
    bytes_per_image = traffic(figures, machine, active)
    memory = bytes_per_image / (machine.bandwidth(active) * 1e3)
    per_image = 1 / (active * size)
    terms = {
        "compute": compute * per_image,
        "publication": (held - holding) * per_image,
        "transfer": (reading + holding) * per_image,
        "waiting": waiting * per_image,
        "bandwidth": max(0.0, memory - whole),
    }
    full = step(figures, machine, machine.threads, forever=True)[2]
    return {
        "us_per_image": sum(terms.values()),
        "terms": terms,
        "passes": _passes(figures, terms["compute"]),
        "contention_us_per_image": terms["transfer"] + terms["waiting"],
        "floor_us_per_image": float(full.max(initial=0)) / size,
        "one_lock_us_per_image": 1 / (one_rate * size) + terms["bandwidth"],
        "one_lock_floor_us_per_image": float(full.sum()) / size,
        "busy_stripes_per_image": busy / size,
        "memory_bytes_per_image": bytes_per_image,
        "oversubscribed": workers > machine.threads,
    }


def _passes(figures: Figures, compute: float) -> dict[str, float]:
    """The compute term divided among forward, backward and elsewhere."""
    return {name: compute * getattr(figures, name) / figures.compute for name in ("forward", "backward", "elsewhere")}


def evaluation(figures: Figures, machine: Machine, workers: int) -> float:
    """Wall time of evaluating one image, in microseconds."""
    active = min(workers, machine.threads)
    return max(
        figures.evaluation * figures.gflops / machine.peak_gflops(active),
        traffic(figures, machine, active) / (machine.bandwidth(active) * 1e3),
    )


def traffic(figures: Figures, machine: Machine, workers: int) -> float:
    """Bytes that an image moves from and to memory: itself, and the part of the buffers that no cache holds, both ways."""
    used = min(machine.cache_domains, -(-min(workers, machine.cores) * machine.cache_domains // machine.cores))
    cache = machine.cache_mb * 1e6 * used / machine.cache_domains
    needed = workers * figures.worker_bytes + figures.weight_bytes
    return figures.image_bytes + 2 * figures.worker_bytes * max(0.0, 1 - cache / needed)


def predict(
    figures: Figures,
    machine: Machine,
    workers: int,
    images: int,
    test_images: int = 0,
    epochs: int = 1,
    validate: bool = False,
) -> Prediction:
    """Time of a training run.

    Parameters
    ----------
    figures : Figures
    machine : Machine
    workers : int
    images, test_images : int
        Per epoch.
    epochs : int
    validate : bool
        Whether the training images are evaluated as well after every epoch, as in the papers.

    Returns
    -------
    dict
        That of `training`, and: workers, images_per_second, speedup and efficiency against one worker of the same machine,
        training_seconds, evaluation_seconds and epoch_seconds (per epoch), seconds (of all epochs).
    """
    found = training(figures, machine, workers)
    alone = training(figures, machine, 1)["us_per_image"]
    train = found["us_per_image"] * images * 1e-6
    test = evaluation(figures, machine, workers) * (test_images + images * validate) * 1e-6
    speedup = alone / found["us_per_image"]
    return {
        "workers": workers,
        **found,
        "images_per_second": 1e6 / found["us_per_image"],
        "speedup": speedup,
        "efficiency": speedup / workers,
        "training_seconds": train,
        "evaluation_seconds": test,
        "epoch_seconds": train + test,
        "seconds": epochs * (train + test),
    }


def fit_transfer(cases: Sequence[tuple[Figures, float]], machine: Machine, most: float = 2000.0) -> float:
    """The cost of a line of weights that explains what two workers lose best.

    Parameters
    ----------
    cases : list of (Figures, float)
        Networks, with figures of one worker, and the measured microseconds per image of two workers.
    machine : Machine
        Its other figures are used.
    most : float
        Nanoseconds.

    Returns
    -------
    float
        Nanoseconds per line: least squares of the relative errors, at least 0.
    """

    def error(line: float) -> float:
        trial = replace(machine, within_domain_ns=line, across_domains_ns=line, across_sockets_ns=line)
        return sum((training(figures, trial, 2)["us_per_image"] / us - 1) ** 2 for figures, us in cases)

    low, high = 0.0, most
    while high - low > 1e-3:  # each error grows with the line's cost on either side of its zero: one minimum
        third = (high - low) / 3
        if error(low + third) < error(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2
