"""Which of the training images are held out for validation, and what each of the others counts. For chaos.training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..losses import IGNORED

_SPLIT = 0x5EED  # apart from the generators of the epochs' orders, which are seeded with (seed, epoch)


def split(labels: NDArray[Any] | None, count: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the images that train and of those that are held out, both ascending; the same for the same seed.

    Of `count` images round(share * count) are held out, at least one and not all. With `labels` each class has its part of
    them, rounded by largest remainders, so that the sum is exact.

    Parameters
    ----------
    labels : array (count,) of int, or None
        None: images are drawn whatever they are.
    count : int
    share : float
        Above 0 and below 1.
    seed : int

    Raises
    ------
    ValueError
        Of fewer than two images.
    """
    if count < 2:
        raise ValueError(f"validation_split needs at least 2 training images, one for each part, not {count}")
    held = min(max(round(share * count), 1), count - 1)
    order = np.random.default_rng([seed, 0, _SPLIT]).permutation(count)
    if labels is None:
        chosen = order[:held]
    else:
        classes, sizes = np.unique(labels, return_counts=True)
        quota = sizes * (held / count)
        parts = np.floor(quota).astype(np.int64)
        # the largest remainders, the larger class and then the smaller label first
        for k in np.lexsort((classes, -sizes, parts - quota))[: held - parts.sum()]:
            parts[k] += 1
        by_class = order[np.argsort(labels[order], kind="stable")]
        begins = np.cumsum(sizes) - sizes
        chosen = np.concatenate([by_class[at : at + part] for at, part in zip(begins, parts, strict=True)])
    out = np.zeros(count, bool)
    out[chosen] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def image_weights(
    given: str | Mapping[str, float],
    labels: NDArray[Any] | None,
    images: NDArray[np.int64] | None,
    classes: int,
    weights: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """What each image's loss is multiplied with when each class has a weight.

    "balanced" is n / (number of classes that occur * images of the class), as in scikit-learn's compute_class_weight, of the
    images that train, ignored ones left out.

    Parameters
    ----------
    given : str or dict
        As the setting class_weight is resolved; classes that it leaves out have the weight 1.
    labels : array (n,) of int, or None
        None: the targets are no class for each image.
    images : array of int, or None
        The numbers of the images that train; None: all.
    classes : int
        How many the network tells apart.
    weights : array (n,), or None
        Of the images, which the class weights are multiplied with.

    Returns
    -------
    array (n,) of float32

    Raises
    ------
    ValueError
        Where the targets are not a class for each image, or a class is unknown.
    """
    if labels is None:
        raise ValueError(
            "class_weight needs one class for each image; losses of maps have an option weight (loss_options), and "
            "chaos.data.Dataset(weights=...) takes a weight for each image"
        )
    table = np.ones(classes)
    if given == "balanced":
        there = labels if images is None else labels[images]
        counts = np.bincount(there[there != IGNORED], minlength=classes)
        occur = counts > 0
        table[occur] = counts.sum() / (occur.sum() * counts[occur])
    else:
        assert isinstance(given, Mapping)
        for key, weight in given.items():
            if int(key) >= classes:
                raise ValueError(f"class_weight: there is no class {key}; the network tells 0..{classes - 1} apart")
            table[int(key)] = weight
    found = np.where(labels == IGNORED, 1.0, table[labels])
    return np.ascontiguousarray(found if weights is None else found * weights, np.float32)
