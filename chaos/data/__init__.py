"""Data room: data sets by name or file, checked arrays, sizes. Anyone above may use it; importing it needs NumPy only.

Example
-------
>>> train, test = load("digits", size=12)
>>> train.shape, len(train), len(test)
((1, 12, 12), 1437, 360)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..hints import DATA, LOAD, answers, explained
from ..options import check_flag, unknown
from .dataset import Dataset
from .idx import read_idx
from .npz import read_npz
from .places import Source
from .sizes import check_size, fit, pad, resize
from .splits import concatenate
from .stream import Stream

NAMES = (
    "mnist",
    "digits",
    "fashion_mnist",
    "kmnist",
    "emnist",
    "emnist_bymerge",
    "emnist_byclass",
    "emnist_letters",
    "emnist_digits",
    "emnist_mnist",
    "cifar10",
    "cifar100",
    "cifar100_coarse",
    "svhn",
    "svhn_extra",
    "japanese_vowels",
)
FILES = "folders of pictures or .npy files, .npz, .csv, .tsv, .parquet, and .zip and .tar archives of pictures"

__all__ = [
    "FILES",
    "NAMES",
    "Dataset",
    "Stream",
    "concatenate",
    "fit",
    "kind",
    "load",
    "pad",
    "read_idx",
    "read_npz",
    "resize",
    "sources",
]

if not TYPE_CHECKING:  # who would take any name for one that there is
    __getattr__ = answers(__name__, __all__, DATA)

Pair = tuple[Dataset, Dataset | None]


@cache
def sources() -> dict[str, Source]:
    """The data sets with a name that are looked for on this machine, and downloaded where there is an address: all of
    `NAMES` but "digits", which comes with the package, and "japanese_vowels", which other packages bring along."""
    from . import cifar, mnist, svhn

    return {source.name: source for room in (mnist, cifar, svhn) for source in room.sources()}


@explained(LOAD)
def load(
    name: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    shape: tuple[int, ...] | None = None,
    label: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    tell: Callable[[tuple[int, int]], None] | None = None,
) -> Pair:
    """Load a data set.

    Parameters
    ----------
    name : str or os.PathLike
        One of `NAMES`, or a path:

        - a folder with a folder of pictures for each class, or with ``train/`` and ``test/`` that hold such; or a
          ``.zip`` or ``.tar`` archive of one (Pillow, the extra ``data``),
        - a ``.npz`` file (see `read_npz` for what it must hold), or a folder of ``.npy`` files named as its arrays are,
          ``x_train.npy, y_train.npy, ...``, which are mapped and not read: they may be larger than memory,
        - a folder with MNIST's four IDX files,
        - a table ``.csv``, ``.tsv``, ``.parquet`` or ``.feather`` with a row for each image (pandas, the extra ``data``).
    size : int or (int, int), optional
        Wanted image size in pixels, (height, width) or one number for both. In each direction: an image that
        is at most 4 pixels too small is padded with 0 at the bottom or right (the paper's 28 -> 29); any
        other is resized bilinearly. See `fit`. Pictures of folders that are larger are reduced by weighted means.
    shape : tuple of int, optional
        Of an image, (channels, height, width), or of a sequence, (channels, length): what rows of tables are, and what
        pictures become.
    label : str, optional
        A table's column of labels.
    data_dir : str or os.PathLike, optional
        Folder that holds a folder per data set; replaces the environment variable ``CHAOS_DATA_DIR``.
    download : bool
        Whether a data set that is neither there nor in the cache may be downloaded.
    tell : callable, optional
        Called with the height and width of each picture of a folder or archive that is brought to another size.

    Returns
    -------
    train, test : Dataset, Dataset
        ``test`` is None if a file or folder has no test images; `Dataset.split` cuts some off.

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
    A set with a name is looked for in ``$CHAOS_DATA_DIR/NAME/`` first (MNIST and its kin: four IDX files under their usual
    names, plain or ``.gz``; CIFAR: the published archives or their folders, binary or Python version, also
    ``cifar10-jpeg.tar.xz`` with ``train|test/CLASS/*.jpg``; EMNIST: ``gzip.zip`` or its files; SVHN: the ``.mat`` files),
    then below ``/usr/share/datasets/`` (Debian's ``dataset-fashion-mnist``), then in the cache
    ``$XDG_CACHE_HOME/chaos/NAME/`` (``~/.cache`` if unset), then downloaded into the cache and verified by its checksum.
    The digits come with the package."""
    check_flag("download", download)
    if size is not None:
        size = check_size(size)
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise DataError(
            f"name must be a text or a path, not {type(name).__name__}; chaos.data.Dataset(images, labels) takes arrays"
        )
    train, test, sized = _load(text, size, shape, label, data_dir, download, tell)
    if size is not None and not sized:
        train = train.sized(size)
        test = None if test is None else test.sized(size)
    if shape is not None and size is None and train.shape != tuple(shape):
        raise DataError(f"{text}: images of shape {train.shape}, not {tuple(shape)}")
    return train, test


def kind(name: str) -> str:
    """What `load` takes a name for.

    Parameters
    ----------
    name : str
        A name or path, as for `load`.

    Returns
    -------
    str
        "name" of one of `NAMES`, "table", "pictures" (a folder or an archive), or "arrays".

    Raises
    ------
    DataError
        It is none of them.
    """
    from . import arrays_on_disk, folders, mnist, tables

    ending = name.lower()
    if name.replace("-", "_") in NAMES:
        return "name"
    if ending.endswith(".npz"):
        return "arrays"
    if ending.endswith(tables.ENDINGS):
        return "table"
    if ending.endswith(folders.ARCHIVES):
        return "pictures"
    if not os.path.isdir(name):
        raise _unknown(name)
    try:
        inside = tuple(os.listdir(name))
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None
    known = arrays_on_disk.npy_files(name, inside) or any(file.removesuffix(".gz") in mnist.FILES for file in inside)
    return "arrays" if known else "pictures"


def _load(
    text: str,
    size: tuple[int, int] | None,
    shape: tuple[int, ...] | None,
    label: str | None,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    tell: Callable[[tuple[int, int]], None] | None,
) -> tuple[Dataset, Dataset | None, bool]:
    """Training and test set, and whether they have their size."""
    from . import arrays_on_disk, folders, mnist, tables

    what = kind(text)
    if label is not None and what != "table":
        raise DataError(f"label={label!r} names the column of a table, and {text} is none")
    if text == "digits":
        from .digits import load_digits

        return *load_digits(), False
    if text.replace("-", "_") == "japanese_vowels":
        from .time_series import japanese_vowels

        return *japanese_vowels(data_dir), False
    if what == "name":
        return *sources()[text.replace("-", "_")].load(data_dir, download), False
    if what == "table":
        return tables.read_table(text, label=label, shape=shape), None, False
    if what == "pictures":
        read = folders.read_folder if os.path.isdir(text) else folders.read_archive
        return *read(text, size=size, shape=shape, tell=tell), True
    if text.lower().endswith(".npz"):
        return *_pair(text, *read_npz(text)), False
    keys = arrays_on_disk.npy_files(text, tuple(os.listdir(text)))
    return *(_pair(text, *arrays_on_disk.map_arrays(text, keys)) if keys else mnist.own_files(text)), False


def _unknown(name: str) -> DataError:
    if os.path.exists(name):
        return DataError(f"{name}: a file of no kind that is read, which are {FILES}")
    if os.path.dirname(name) or os.path.splitext(name)[1]:
        return DataError(f"{name}: no such file or folder")
    return DataError(unknown("unknown data set", name, NAMES, f", and paths of {FILES}"))


def _pair(
    path: str,
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
) -> Pair:
    """Training and test set of arrays, with the same classes for both."""
    stem = os.path.splitext(os.path.basename(os.path.abspath(path)))[0]
    train = _named(path, "training", images, labels, f"{stem}/train")
    if test_images is None or test_labels is None:
        return train, None
    test = _named(path, "test", test_images, test_labels, f"{stem}/test", train.class_names)
    if train.shape != test.shape:
        raise DataError(f"{path}: training images have shape {train.shape}, test images {test.shape}")
    classes = max(train.classes, test.classes)
    return train._replaced(classes=classes), test._replaced(classes=classes)


def _named(
    path: str, part: str, images: np.ndarray, labels: np.ndarray, name: str, class_names: tuple[str, ...] | None = None
) -> Dataset:
    """A Dataset whose errors name the file and the part of it."""
    try:
        return Dataset(images, labels, name=name, class_names=class_names)
    except DataError as error:
        raise DataError(f"{path}: {part} arrays: {error}") from None
