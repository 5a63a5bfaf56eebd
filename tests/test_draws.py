"""Random numbers by counter (cext/layers/random.h, chaos/layers/random.py): whether they are as random as such numbers can
be, along the numbers of a key and across keys. That the core draws the same ones is held by what runs over all kinds."""

import numpy as np
import pytest

from chaos.layers import random

FEW = np.arange(1, 5, dtype=np.uint64)


def keys(count, seed=0):
    """Of the images of an epoch in a layer."""
    return random.key(random.key(random.key(random.key(0, seed), 1), np.arange(count, dtype=np.uint64)), 3)


def bits(of, count, first=0):
    return random.bits(of, np.arange(first, first + count, dtype=np.uint64))


def excess(counts):
    """How many standard deviations chi-square is above what equally likely cells have; it is normal for so many of them."""
    expected = counts.sum() / counts.size
    free = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - free) / np.sqrt(2 * free)


SERIES = {
    "along": lambda: bits(keys(1), 1 << 20)[0],
    "far along": lambda: bits(keys(1), 1 << 20, first=(1 << 32) - (1 << 19))[0],
    "across images": lambda: bits(keys(1 << 14), 64).T.ravel(),
    "across numbers": lambda: bits(keys(1 << 14), 64).ravel(),
    "of a plain key": lambda: bits(FEW, 1 << 18).ravel(),
}


@pytest.mark.parametrize("series", SERIES)
def test_numbers_are_uniform_and_independent(series):
    """A million numbers: bits, the upper 12 of them, the upper 6 of neighbours and of such further apart, within 5 standard
    deviations of what independent numbers give."""
    x = SERIES[series]()
    ones = np.array([(x >> np.uint32(bit) & np.uint32(1)).sum(dtype=np.int64) for bit in range(32)])
    assert (abs(ones - x.size / 2) < 5 * np.sqrt(x.size) / 2).all()
    assert abs(excess(np.bincount(x >> 20, minlength=1 << 12))) < 5
    for apart in (1, 2, 3, 5, 8, 16, 64, 1000, 4096):
        pairs = (x[:-apart] >> 26).astype(np.int64) << 6 | x[apart:] >> 26
        assert abs(excess(np.bincount(pairs, minlength=1 << 12))) < 5, apart
        same = sum(((x[:-apart] ^ x[apart:]) >> np.uint32(bit) & np.uint32(1)).sum(dtype=np.int64) for bit in range(8, 32))
        assert abs(same - 12 * (x.size - apart)) < 5 * np.sqrt(6 * x.size), apart


@pytest.mark.parametrize("series", SERIES)
def test_numbers_repeat_as_often_as_random_ones(series):
    """Of the upper 24 bits of 2^16 numbers, 128 pairs are equal on average, Poisson-distributed; and the gaps between the
    sorted ones: of 2^9 numbers of 24 bits 2 are equal on average (Marsaglia's birthday spacings), here over 128 trials."""
    x = SERIES[series]()[: 1 << 16] >> np.uint32(8)
    assert abs(x.size - len(np.unique(x)) - 128) < 5 * np.sqrt(128)
    days = np.sort(x.reshape(128, 512).astype(np.int64), 1)
    gaps = np.sort(np.diff(days, axis=1), 1)
    assert abs((np.diff(gaps, axis=1) == 0).sum() - 128 * 2) < 5 * np.sqrt(256)


def test_every_bit_changes_half_of_the_bits():
    """One bit of a number or of a key is flipped: each of the 32 bits changes with probability 1/2, within 5 standard
    deviations of 20,000 trials and 1/100 that the hash may be off by."""
    rng, trials = np.random.default_rng(0), 20_000
    numbers, base = rng.integers(0, 1 << 32, trials, dtype=np.uint64), keys(trials)
    off = 0.01 + 5 * 0.5 / np.sqrt(trials)

    def shares(changed):
        return np.array([(changed >> np.uint32(k) & np.uint32(1)).mean() for k in range(32)])

    for bit in map(np.uint64, range(64)):
        flip = np.uint64(1) << bit
        if bit < 32:
            of_numbers = random.bits(FEW[:1], numbers) ^ random.bits(FEW[:1], numbers ^ flip)
            assert abs(shares(of_numbers[0]) - 0.5).max() < off, bit
        of_keys = random.bits(base, FEW[:1]) ^ random.bits(base ^ flip, FEW[:1])
        assert abs(shares(of_keys[:, 0]) - 0.5).max() < off, bit


def test_masks_of_images_do_not_resemble_each_other():
    """Of 200 images, 2,000 numbers each: no two have more or fewer below 1/2 in common than 6 standard deviations allow
    (some 20,000 pairs), nor after a shift by one."""
    below = random.uniform(keys(200), 2000) < 0.5
    signs = np.where(below, 1.0, -1.0)
    for other in (signs, np.roll(signs, 1, 1)):
        alike = signs @ other.T / np.sqrt(signs.shape[1])
        np.fill_diagonal(alike, 0)
        assert abs(alike).max() < 6
