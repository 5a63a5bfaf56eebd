"""The definition of augmentation, in NumPy and double precision, with the random numbers that the core draws: the oracle of
tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layers import random
from .base import PARTNER, Array, Augmentation, Draws, Mix, Mixture, Move, Paint, Pair
from .parse import steps

Key = NDArray[np.uint64]


class Seen(NamedTuple):
    """How a network sees the numbers of images: v as black + v * unit, within bounds."""

    black: float
    unit: float
    bounds: Pair


def define(
    images: NDArray[Any],
    augment: Any,
    *,
    seed: int = 0,
    epoch: int = 1,
    numbers: Sequence[int] | None = None,
    mixtures: list[Mixture | None] | None = None,
) -> Array:
    """Images as they are trained on in an epoch.

    Parameters
    ----------
    images : ndarray (n, c, h, w), uint8 or float
        Of a whole data set: any may be mixed with another.
    augment : sequence of steps
        As for `chaos.augment.steps`.
    seed, epoch : int
        Of the training; epochs count from 1.
    numbers : sequence of int, optional
        Of the images that are wanted; by default all.
    mixtures : list, optional
        Gets with what each of them is mixed.

    Returns
    -------
    ndarray (len(numbers), c, h, w)
        float64, as the network sees them.
    """
    found = steps(augment)
    bytes_ = images.dtype == np.uint8
    seen = Seen(-1.0, 1 / 127.5, (-1.0, 1.0)) if bytes_ else Seen(0.0, 1.0, (-np.inf, np.inf))
    x = seen.black + images.astype(np.float64) * seen.unit
    run = random.key(random.key(0, seed % (1 << 64)), epoch)
    mixing = next((i for i, step in enumerate(found) if isinstance(step, Mix)), len(found))
    made = []
    for number in range(len(images)) if numbers is None else numbers:
        key = random.key(run, number)
        one = _run(x[number], found, 0, mixing, key, seen)
        mixture = None
        if mixing < len(found):
            mixture, one = _mix(x, one, found, mixing, key, seen)
        made.append(_run(one, found, mixing + 1, len(found), key, seen))
        if mixtures is not None:
            mixtures.append(mixture)
    return np.stack(made)


def _mix(
    x: Array, one: Array, found: Sequence[Augmentation], mixing: int, key: Key, seen: Seen
) -> tuple[Mixture | None, Array]:
    step, draws = found[mixing], Draws(key, mixing)
    assert isinstance(step, Mix)
    mixture = step.mixture(draws, one.shape, len(x)) if draws.uniform(0) < step.p else None
    if mixture is None:
        return None, one
    other = _run(x[mixture.partner], found, 0, mixing, random.key(key, PARTNER), seen)
    if mixture.box is None:
        return mixture, mixture.share * one + (1 - mixture.share) * other
    one = one.copy()
    one[:, *mixture.box] = other[:, *mixture.box]
    return mixture, one


def _run(x: Array, found: Sequence[Augmentation], first: int, last: int, key: Key, seen: Seen) -> Array:
    """An image through steps first, ..., last - 1."""
    i = first
    while i < last:
        step = found[i]
        if isinstance(step, Move):
            end = i + 1
            while end < last and _together(step, found[end]):
                end += 1
            x = _move(x, found, i, end, key, seen)
            i = end
            continue
        draws = Draws(key, i)
        if isinstance(step, Paint) and draws.uniform(0) < step.p:
            x = step.paint(x, draws, seen.black, seen.unit, seen.bounds)
        i += 1
    return x


def _together(step: Move, following: Augmentation) -> bool:
    """Whether two neighbours are done in one resampling."""
    same = ("fill", "padding_mode")
    return isinstance(following, Move) and all(getattr(step, name) == getattr(following, name) for name in same)


def _move(x: Array, found: Sequence[Augmentation], first: int, last: int, key: Key, seen: Seen) -> Array:
    m, t = np.eye(2), np.zeros(2)
    field: Any = np.zeros((2, *x.shape[1:]))
    for i in range(first, last):
        step, draws = found[i], Draws(key, i)
        assert isinstance(step, Move)
        if draws.uniform(0) < step.p:
            own, by = step.matrix(draws)
            m, t = m @ own, m @ by + t
            field = field + step.field(draws, x.shape)
    centre = (np.array(x.shape[1:]) - 1) / 2
    where = np.stack(np.meshgrid(*map(np.arange, x.shape[1:]), indexing="ij")) - centre[:, None, None]
    source = np.tensordot(m, where, 1) + (t + centre)[:, None, None] + field
    step = found[first]
    assert isinstance(step, Move)
    return _interpolate(x, source, seen.black + step.fill * seen.unit, step.padding_mode)


def _interpolate(x: Array, source: Array, fill: float, mode: str) -> Array:
    """x (c, h, w) at real places (2, h, w), bilinearly."""
    floor = np.floor(source)
    rest = source - floor
    found: Array = np.zeros_like(x)
    for down in (0, 1):
        for right in (0, 1):
            inside, places = np.ones(x.shape[1:], bool), []
            for at, n in zip((floor[0] + down, floor[1] + right), x.shape[1:], strict=True):
                place, there = _place(at, n, mode)
                places.append(place)
                inside &= there
            weight = (rest[0] if down else 1 - rest[0]) * (rest[1] if right else 1 - rest[1])
            found += weight * np.where(inside, x[:, places[0], places[1]], fill)
    return found


def _place(at: Array, n: int, mode: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Whole coordinates as indices of n pixels, and whether there is such a pixel."""
    if mode == "constant":
        return np.clip(at, 0, n - 1).astype(np.int64), (at >= 0) & (at < n)
    if mode == "reflect" and n > 1:
        period = 2 * (n - 1)
        at = np.abs(at) % period
        at = np.minimum(at, period - at)
    return np.clip(at, 0, n - 1).astype(np.int64), np.ones(at.shape, bool)
