"""Data sets of ``.npy`` files, which are mapped, not read: they may be larger than memory. Used by the data room."""

from __future__ import annotations

import os

import numpy as np

from ..errors import DataError
from .npz import KEYS, channels_last, flat_labels


def npy_files(folder: str, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names of the arrays of a data set that a folder holds; DataError where they are a part of one, None: of none."""
    there = set(names)
    for keys in KEYS:
        found = [key for key in keys if f"{key}.npy" in there]
        if found:
            wanted = keys if keys[2] in found or keys[3] in found else keys[:2]
            missing = [f"{key}.npy" for key in wanted if key not in found]
            if missing:
                raise DataError(f"{folder}: holds {found[0]}.npy but no {' and no '.join(missing)}")
            return wanted
    return None


def map_arrays(folder: str, keys: tuple[str, ...]) -> list[np.ndarray]:
    """The arrays of a folder: images, labels, and if they are there those of the test."""
    paths = [os.path.join(folder, f"{key}.npy") for key in keys]
    arrays = [map_npy(path) for path in paths]
    for path, images in zip(paths[::2], arrays[::2], strict=True):
        if channels_last(images.shape):
            raise DataError(
                f"{path}: shape {images.shape} looks like channels last, which would be copied as a whole; store it as "
                f"(n, {images.shape[3]}, h, w), or say chaos.data.Dataset(np.load(path), labels, channels='last')"
            )
    return [flat_labels(array) if k % 2 else array for k, array in enumerate(arrays)]


def map_npy(path: str) -> np.ndarray:
    """The array of a ``.npy`` file, mapped for reading; DataError where it is damaged or holds Python objects."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged headers make it raise a dozen kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable .npy file: {reason}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path}: not a .npy file")
    return array
