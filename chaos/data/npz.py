"""Reader of ``.npz`` files with a training and a test set. Used by the data room."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from zipfile import ZipFile

    Arrays = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]

KEYS = (("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels"))

MOST_BYTES = 2**34
"""Largest array that is read, 16 GiB."""


def read_npz(path: str | os.PathLike[str]) -> Arrays:
    """Read the arrays of a data set.

    Parameters
    ----------
    path : str or os.PathLike
        A file as `numpy.savez` or `numpy.savez_compressed` write it, with arrays named ``x_train, y_train,
        x_test, y_test`` (as Keras does) or ``train_images, train_labels, test_images, test_labels``. Both
        test arrays may be missing.

    Returns
    -------
    images, labels, test_images, test_labels : ndarray
        As stored, unless said below; the last two None if missing.

    Raises
    ------
    DataError
        The file cannot be read, is not a zip file, is damaged, lacks arrays, or holds Python objects.

    Notes
    -----
    Images are taken as (n, h, w) or (n, c, h, w). One other layout is recognised: four dimensions of which
    the last is 1 or 3 and the second is neither are (n, h, w, c), and are transposed. Labels (n, 1), as Keras
    stores those of CIFAR, become (n,).
    """
    import zipfile

    name = str(path)
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return _read(archive, name)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{name}: its arrays do not fit into memory") from None
    except Exception as error:
        # zipfile, zlib and NumPy's header parser raise a dozen kinds between them for damaged bytes.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: not a readable .npz file: {reason}") from None


def _read(archive: ZipFile, name: str) -> Arrays:
    """The four arrays of an open archive."""
    found = [os.path.splitext(member)[0] for member in archive.namelist() if member.endswith(".npy")]
    keys = max(KEYS, key=lambda names: sum(key in found for key in names))
    wanted = keys if keys[2] in found or keys[3] in found else keys[:2]
    missing = [key for key in wanted if key not in found]
    if missing:
        choices = " or ".join(", ".join(names) for names in KEYS)
        listed = ", ".join(found) or "no arrays"
        raise DataError(f"{name}: no {' and no '.join(missing)}; found {listed}, wanted {choices}")
    arrays = [_read_array(archive, key, name) for key in wanted]
    images, labels = nchw(arrays[0]), flat_labels(arrays[1])
    return (images, labels, None, None) if len(arrays) == 2 else (images, labels, nchw(arrays[2]), flat_labels(arrays[3]))


def _read_array(archive: ZipFile, key: str, name: str) -> np.ndarray:
    """One array, whose header is compared with the size of its member before anything is allocated."""
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read_header is None:
            raise DataError(f"{name}: {key}: .npy version {version[0]}.{version[1]}, must be 1.0 or 2.0")
        shape, _, dtype = read_header(member)
        header = member.tell()
    if dtype.hasobject:
        raise DataError(f"{name}: {key}: holds Python objects (dtype {dtype}), must hold numbers")
    promised = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or promised > MOST_BYTES:
        raise DataError(f"{name}: {key}: shape {shape} of {dtype} would be {promised} bytes")
    if header + promised != info.file_size:
        got = info.file_size - header
        raise DataError(f"{name}: {key}: expected {promised} bytes for shape {shape}, got {got}")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def nchw(images: np.ndarray) -> np.ndarray:
    """Images with the channels before the pixels."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if channels_last(images.shape) else images


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether the shape is that of images (n, h, w, c) and of no others."""
    return len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)


def flat_labels(labels: np.ndarray) -> np.ndarray:
    """Labels (n, 1) as (n,)."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    return labels
