"""The column of the multi-column network for MNIST (Ciresan 2012). Imported by chaos.models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..hints import ZOO, explained
from ..initialisers import uniform
from ..layers import Conv2d, Flatten, Linear, MaxPool2d, ScaledTanh
from ..network import Network


@explained(ZOO)
def mcdnn_column(seed: int = 0) -> Network:
    """1x29x29-20C4-MP2-40C5-MP3-150N-10N: 76,040 parameters. Ciresan, Meier, Schmidhuber 2012, "Multi-column deep neural
    networks for image classification": one of the 35 columns for MNIST.

    Scaled tanh units, weights drawn uniformly from +-0.05, softmax cross-entropy. `medium` has the same sizes, with plain
    tanh and PyTorch's first values."""
    net = Network(
        (1, 29, 29),
        [
            Conv2d(20, 4),
            ScaledTanh(),
            MaxPool2d(2),
            Conv2d(40, 5),
            ScaledTanh(),
            MaxPool2d(3),
            Flatten(),
            Linear(150),
            ScaledTanh(),
            Linear(10),
        ],
        seed=seed,
    )
    net.initialise(uniform(-0.05, 0.05), uniform(-0.05, 0.05), seed=seed)
    return net


def columns(k: int = 5, seed: int = 0, *, column: Callable[..., Network] = mcdnn_column) -> list[Network]:
    """`k` networks that differ in their first values: seeds `seed`, `seed` + 1, ... To be trained one by one, each with a
    seed of its own, or side by side by `chaos.train_many`, and to answer together as a `chaos.Committee`: what they
    disagree about averages out (Ciresan, Meier, Schmidhuber 2012).

    Parameters
    ----------
    column : callable
        ``column(seed=...)`` makes a network.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k, the number of columns, must be a whole number of at least 1, not {k!r}")
    return [column(seed=seed + i) for i in range(k)]


def at_width(images: ArrayLike, width: float, *, most: float = 2.0) -> NDArray[Any]:
    """Images of what is bright on a dark ground, with the box around it brought to a width and into the middle: columns that
    are trained on different widths err on different images (Ciresan, Meier, Schmidhuber 2012, section 3.1: 10 to 20
    pixels). Heights stay.

    Parameters
    ----------
    images : array_like (n, channels, height, width)
        Bytes, or real numbers with 0 as the ground.
    width : float
        Of the box in pixels. It reaches as far as there are values above an eighth of the image's largest.
    most : float
        Nothing is made wider or narrower than by this factor: a "1" stays a stroke.

    Returns
    -------
    array of the same shape
        Interpolated linearly; bytes, rounded, where bytes were given, and float32 otherwise.
    """
    given = np.asarray(images)
    if given.ndim != 4:
        raise ValueError(f"images must have four dimensions, (n, channels, height, width), not the shape {given.shape}")
    if not 0 < width <= given.shape[3] or not most >= 1:
        raise ValueError(f"width must be above 0 and at most the images' {given.shape[3]}, and most at least 1")
    x = given.astype(np.float32)
    inked = (x > x.max(axis=(1, 2, 3), keepdims=True) / 8).any(axis=(1, 2))  # (n, width)
    first, last = inked.argmax(1), x.shape[3] - 1 - inked[:, ::-1].argmax(1)
    last = np.where(inked.any(1), last, first)
    scale = np.clip((last - first + 1) / width, 1 / most, most)  # old pixels per new one
    columns = np.arange(x.shape[3]) - (x.shape[3] - 1) / 2
    from_x = (first + last)[:, None] / 2 + columns * scale[:, None]
    low = np.floor(from_x).astype(np.int64)
    high_share = (from_x - low).astype(np.float32)[:, None, None]
    x = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)))  # beyond the border is the ground
    left, right = (np.clip(low + 1 + k, 0, x.shape[3] - 1)[:, None, None] for k in (0, 1))
    found: NDArray[np.float32] = (
        np.take_along_axis(x, left, 3) * (1 - high_share) + np.take_along_axis(x, right, 3) * high_share
    )
    return np.rint(found).astype(np.uint8) if given.dtype == np.uint8 else found
