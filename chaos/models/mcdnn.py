"""The column of the multi-column network for MNIST (Ciresan 2012). Imported by chaos.models."""

from __future__ import annotations

from collections.abc import Callable

from ..initialisers import uniform
from ..layers import Conv2d, Flatten, Linear, MaxPool2d, ScaledTanh
from ..network import Network


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
