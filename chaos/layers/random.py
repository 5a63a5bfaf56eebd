"""Random numbers by counter, as cext/layers/random.h draws them: the j-th number of a sample in a layer is a hash of (seed,
epoch, image, node, j). For the definitions of this folder and chaos.network."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014), of uint64 arrays."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def key(before: ArrayLike, following: ArrayLike) -> NDArray[np.uint64]:
    """The key of what comes next: key(key(key(key(0, seed), epoch), image), node), element by element of arrays."""
    before, following = np.atleast_1d(np.asarray(before, np.uint64)), np.atleast_1d(np.asarray(following, np.uint64))
    return mix(before + (following + np.uint64(1)) * np.uint64(STEP))  # arrays wrap around silently


def bits(keys: NDArray[np.uint64], numbers: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Of each key the numbers of these: (keys, numbers), 32 bits each. The hash triple32 (Wellons 2018) of the number and
    the lower half of the key's own hash, with the upper half added on the way."""
    keys = mix(keys)
    low, high = (part[:, None].astype(np.uint32) for part in (keys & np.uint64(0xFFFFFFFF), keys >> np.uint64(32)))
    high = high + (numbers >> np.uint64(32)).astype(np.uint32) * np.uint32(0x9E3779B9)
    x = (numbers & np.uint64(0xFFFFFFFF)).astype(np.uint32) + low
    x = (x ^ x >> np.uint32(17)) * np.uint32(0xED5AD4BB)
    x = ((x ^ x >> np.uint32(11)) + high) * np.uint32(0xAC4C1B51)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x31848BAB)
    return x ^ x >> np.uint32(14)


def uniform(keys: NDArray[np.uint64], count: int, first: int = 0) -> NDArray[np.float64]:
    """`count` numbers of each key from number `first` on: (n, count) float64, uniform in [0, 1), multiples of 2^-24."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    return (bits(keys, numbers) >> np.uint32(8)).astype(np.float64) * 2.0**-24


def of_values(numbers: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers (n, values) for the values of n samples of `shape`, (channels, ...), in the order in which the core keeps
    them: channels innermost."""
    return np.moveaxis(numbers.reshape(len(numbers), *shape[1:], shape[0]), -1, 1)


def normal(keys: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """(n, count) float64, normal with mean 0 and variance 1, each of two of the uniform numbers (Box, Muller 1958)."""
    u = uniform(keys, 2 * count)
    found: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-u[:, ::2])) * np.cos(2 * np.pi * u[:, 1::2])
    return found
