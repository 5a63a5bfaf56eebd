"""Reader of ``.npz`` files with a training and a test set. Used by the data room."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from zipfile import ZipFile

    Arrays = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]

KEYS = (("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels"))


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
    from ..formats.zipped import read_member

    found = [os.path.splitext(member)[0] for member in archive.namelist() if member.endswith(".npy")]
    keys = max(KEYS, key=lambda names: sum(key in found for key in names))
    wanted = keys if keys[2] in found or keys[3] in found else keys[:2]
    missing = [key for key in wanted if key not in found]
    if missing:
        choices = " or ".join(", ".join(names) for names in KEYS)
        listed = ", ".join(found) or "no arrays"
        raise DataError(f"{name}: no {' and no '.join(missing)}; found {listed}, wanted {choices}")
    arrays = [read_member(archive, key, name, DataError) for key in wanted]
    images, labels = nchw(arrays[0]), flat_labels(arrays[1])
    return (images, labels, None, None) if len(arrays) == 2 else (images, labels, nchw(arrays[2]), flat_labels(arrays[3]))


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
