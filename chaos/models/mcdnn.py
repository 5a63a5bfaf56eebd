"""The column of the multi-column network for MNIST, and committees of columns (Ciresan 2012). Imported by chaos.models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


class Committee:
    """Networks that answer together, by the mean of their probabilities.

    Parameters
    ----------
    networks : iterable of Network
        At least one; all with one output of the same shape. Each may have inputs of its own: `predict` then takes one array
        for each.

    Raises
    ------
    TypeError, ValueError
        Where there is something else than networks, no network, or outputs of several shapes.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks = list(networks)
        for net in self.networks:
            if not isinstance(net, Network):
                raise TypeError(f"a committee takes networks, not {type(net).__name__}")
        shapes = {str(net.output_shape) for net in self.networks}
        if len(shapes) != 1:
            raise ValueError(
                f"a committee needs networks with outputs of one shape, not {', '.join(sorted(shapes)) or 'none'}"
            )

    def __len__(self) -> int:
        return len(self.networks)

    def __repr__(self) -> str:
        return f"<Committee of {len(self)} networks, outputs of shape {self.networks[0].output_shape}>"

    def predict_proba(self, x: Any) -> NDArray[np.float32]:
        """The mean of the members' `predict_proba`: (n, k) float32. `x` as a network takes it, the same for all; or a list
        of such arrays, one for each member."""
        if isinstance(x, list) and len(x) == len(self) and all(isinstance(one, np.ndarray) for one in x):
            given = x
        else:
            given = [x] * len(self)
        total = sum(net.predict_proba(one).astype(np.float64) for net, one in zip(self.networks, given, strict=True))
        mean: NDArray[np.float32] = np.asarray(total / len(self), np.float32)
        return mean

    def predict(self, x: Any) -> NDArray[np.int64]:
        """The class that is most probable on the mean, for each image: (n,) int64."""
        classes: NDArray[np.int64] = self.predict_proba(x).argmax(1)
        return classes


def committee(k: int = 5, seed: int = 0, *, column: Callable[..., Network] = mcdnn_column) -> Committee:
    """`k` columns that differ in their first values: seeds `seed`, `seed` + 1, ... To be trained one by one, each with a
    seed of its own; what they disagree about averages out (Ciresan 2012).

    Parameters
    ----------
    column : callable
        ``column(seed=...)`` makes a network.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k, the number of columns, must be a whole number of at least 1, not {k!r}")
    return Committee(column(seed=seed + i) for i in range(k))
