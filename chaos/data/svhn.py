"""SVHN, house numbers from photographs, in MATLAB's files of version 5. Used by the data room; needs SciPy.

Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Ng, "Reading Digits in Natural Images with Unsupervised Feature
Learning", NIPS workshop, 2011: 73,257 and 26,032 colour images of 32x32, and 531,131 easier ones. The digit 0 has the
label 10 there."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .places import Form, Paths, Remote, Source

URL = "http://ufldl.stanford.edu/housenumbers/"
# (bytes at most, MD5), as the field's libraries check them
FILES = {
    "train_32x32.mat": (190_000_000, "e26dedcc434d2e4c54c9b2d4a06d8373"),
    "test_32x32.mat": (70_000_000, "eb5a983be6a315427106f1b164d9cef3"),
    "extra_32x32.mat": (1_400_000_000, "a93ce644f1a588dc4d68dda5feec44a7"),
}
NAMES = tuple("0123456789")


def sources() -> tuple[Source, ...]:
    """With or without the easier images."""
    return tuple(
        Source(
            name,
            f"digits of house numbers, {images} and 26,032 images of 3x32x32, 10 classes",
            f"put {', '.join(files)}",
            (Form(files, partial(_read, name)),),
            partial(_remotes, files),
            ("svhn", "SVHN"),
        )
        for name, images, files in (
            ("svhn", "73,257", ("train_32x32.mat", "test_32x32.mat")),
            ("svhn_extra", "604,388", ("train_32x32.mat", "extra_32x32.mat", "test_32x32.mat")),
        )
    )


def _remotes(files: tuple[str, ...]) -> list[Remote]:
    return [Remote(name, (URL + name,), FILES[name][0], f"md5:{FILES[name][1]}") for name in files]


def _read(name: str, paths: Paths) -> tuple[Dataset, Dataset]:
    """Training and test set; the test's file comes last."""
    *parts, (test_images, test_labels) = (read_mat(path) for path in paths.values())
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return (
        Dataset(images, labels, name=f"{name}/train", classes=10, class_names=NAMES),
        Dataset(test_images, test_labels, name=f"{name}/test", classes=10, class_names=NAMES),
    )


def read_mat(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one file.

    Returns
    -------
    images : ndarray (n, c, h, w)
        uint8.
    labels : ndarray (n,)
        uint8, 0 to 9.

    Raises
    ------
    DataError
        SciPy is missing, the file is damaged, or it holds no images ``X`` (h, w, c, n) of uint8 and as many labels ``y``
        from 1 to 10.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError(
            f"{path}: .mat files need the package scipy, which is not installed (pip install 'chaos-sgd[data]')"
        ) from None
    try:
        with open(path, "rb") as file:
            found = loadmat(file, variable_names=("X", "y"))
    except Exception as error:  # damaged bytes make it raise a dozen kinds
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable .mat file of version 5: {reason}") from None
    images, labels = found.get("X"), found.get("y")
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"{path}: must hold images X of uint8 with dimensions (h, w, c, n)")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "uif" or labels.size != images.shape[3]:
        raise DataError(f"{path}: must hold a label y for each of its {images.shape[3]} images")
    labels = labels.reshape(-1)
    if not np.isin(labels, range(1, 11)).all():
        raise DataError(f"{path}: labels y must be from 1 to 10")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), (labels % 10).astype(np.uint8)
