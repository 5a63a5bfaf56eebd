"""What a training sees of its images. For chaos.augment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..data import Dataset
from ..errors import DataError
from ..layers import Flatten, Identity
from ..network import Network, run_key
from ..options import check_number
from .parse import steps


def preview(dataset: Dataset, augment: Any, n: int = 16, seed: int = 0, epoch: int = 1) -> NDArray[np.float32]:
    """The first images of a data set as a training sees them, through the code that trains.

    Parameters
    ----------
    dataset : Dataset
        With one input.
    augment : sequence of steps
        As for `chaos.train`.
    n : int
        How many images; all, if there are fewer.
    seed, epoch : int
        Of the training; epochs count from 1.

    Returns
    -------
    ndarray (n, c, h, w)
        float32, as the network sees them: uint8 pixels of 0..255 as -1..1.

    Raises
    ------
    ValueError
        Where a step makes no sense, or not for such images.
    """
    found = steps(augment)
    check_number("n", n, 1, whole=True)
    check_number("seed", seed, 0, whole=True)
    check_number("epoch", epoch, 0, whole=True)
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a chaos.data.Dataset, not {type(dataset).__name__}")
    if len(dataset.inputs) != 1:
        raise DataError(f"augmentation is for data sets of one input, not of {len(dataset.inputs)}")
    images = dataset.inputs[0]
    for step in found:
        step.check(images.shape[1:])
    net = Network(images.shape[1:], [Flatten() if images.ndim > 2 else Identity()])
    n = min(int(n), len(images))
    out = np.zeros((n, images[0].size), np.float32)
    engine = _core.Engine(net.plan, net.weights, augment=[step.core() for step in found])
    engine.run("forward", net.take_images(images)["inputs"], end=n, out=out, key=run_key(seed, epoch), augmented=True)
    return out.reshape(n, *images.shape[1:])
