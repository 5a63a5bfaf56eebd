"""Data room: data sets by name or file, checked arrays, sizes. Anyone above may use it; importing it needs NumPy only.

Example
-------
>>> train, test = load("digits", size=12)
>>> train.shape, len(train), len(test)
((1, 12, 12), 1437, 360)
"""

from __future__ import annotations

import os

import numpy as np

from ..errors import DataError
from ..options import check_flag, nearest
from .dataset import Dataset
from .idx import read_idx
from .npz import read_npz
from .sizes import check_size, fit, pad, resize

NAMES = ("mnist", "digits")

__all__ = ["NAMES", "Dataset", "fit", "load", "pad", "read_idx", "read_npz", "resize"]


def load(
    name: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> tuple[Dataset, Dataset | None]:
    """Load a data set.

    Parameters
    ----------
    name : str or os.PathLike
        ``"mnist"``, ``"digits"``, or the path of a ``.npz`` file (see `read_npz` for what it must hold).
    size : int or (int, int), optional
        Wanted image size in pixels, (height, width) or one number for both. In each direction: an image that
        is at most 4 pixels too small is padded with 0 at the bottom or right (the paper's 28 -> 29); any
        other is resized bilinearly. See `fit`.
    data_dir : str or os.PathLike, optional
        Folder that holds a folder per data set; replaces the environment variable ``CHAOS_DATA_DIR``.
    download : bool
        Whether a data set that is neither there nor in the cache may be downloaded.

    Returns
    -------
    train, test : Dataset, Dataset
        ``test`` is None if an ``.npz`` file has no test arrays.

    Raises
    ------
    DataError
        Unknown name, or a damaged or unsuitable file.
    DataNotFound
        The data set is neither on this machine nor could it be downloaded.
    ValueError
        Bad ``size``, or a ``download`` that is neither True nor False.

    Notes
    -----
    MNIST is looked for in ``$CHAOS_DATA_DIR/mnist/`` (the four IDX files under their usual names, plain or
    ``.gz``), then in the cache ``$XDG_CACHE_HOME/chaos/mnist/`` (``~/.cache`` if unset), then downloaded into
    the cache and verified by SHA-256. The digits come with the package.
    """
    check_flag("download", download)
    if size is not None:
        size = check_size(size)
    test: Dataset | None
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else None
    if text == "mnist":
        from .mnist import load_mnist

        train, test = load_mnist(data_dir=data_dir, download=download)
    elif text == "digits":
        from .digits import load_digits

        train, test = load_digits()
    elif isinstance(text, str) and text.lower().endswith(".npz"):
        train, test = _load_npz(text)
    else:
        meant = nearest(text, NAMES) if text else None
        hint = f" (did you mean {meant}?)" if meant else ""
        raise DataError(f"unknown data set {name!r}{hint}; known are {', '.join(NAMES)} and paths ending in .npz")
    if size is not None:
        train = train.sized(size)
        test = None if test is None else test.sized(size)
    return train, test


def _load_npz(path: str) -> tuple[Dataset, Dataset | None]:
    """The two data sets of an ``.npz`` file, with one number of classes for both."""
    images, labels, test_images, test_labels = read_npz(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    train = _named(path, "training", images, labels, f"{stem}/train")
    if test_images is None or test_labels is None:
        return train, None
    test = _named(path, "test", test_images, test_labels, f"{stem}/test")
    if train.shape != test.shape:
        raise DataError(f"{path}: training images have shape {train.shape}, test images {test.shape}")
    classes = max(train.classes, test.classes)
    return train._replaced(classes=classes), test._replaced(classes=classes)


def _named(path: str, part: str, images: np.ndarray, labels: np.ndarray, name: str) -> Dataset:
    """A Dataset whose errors name the file and the part of it."""
    try:
        return Dataset(images, labels, name=name)
    except DataError as error:
        raise DataError(f"{path}: {part} arrays: {error}") from None
