"""The small handwritten digits that come with the package. Used by the data room.

1,797 images of 8x8 pixels: the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C.
Kaynak, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0, in the form
and order in which scikit-learn ships it. ``digits.npz`` is written by ``scripts/make_digits.py``;
``digits.txt`` says the same as this paragraph to those who find the file by itself.
"""

from __future__ import annotations

import numpy as np

from .dataset import Dataset

LEVELS = 16
TEST_IMAGES = 360


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """The embedded arrays as scikit-learn has them.

    Returns
    -------
    images : ndarray (1797, 8, 8)
        uint8, values 0..16.
    labels : ndarray (1797,)
        uint8, values 0..9.
    """
    from importlib import resources

    with resources.files(__package__).joinpath("digits.npz").open("rb") as file:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["images"], arrays["labels"]


def load_digits() -> tuple[Dataset, Dataset]:
    """The digits as a training and a test set.

    Returns
    -------
    train, test : Dataset, Dataset
        1,437 and 360 images (1, 8, 8), uint8: round(255 / 16 * stored value). The last 360 images are the
        test set. The order of the file roughly groups the images by writer, so most writers of the test set
        are not in the training set; test errors are therefore higher than those of a shuffled split.
    """
    images, labels = read_digits()
    # 255 / 16 is exact in binary, so this is exact too; the one tie, 8 -> 127.5, goes to the even 128.
    pixels = np.rint(images * (255 / LEVELS)).astype(np.uint8)
    train = Dataset(pixels[:-TEST_IMAGES], labels[:-TEST_IMAGES], name="digits/train", classes=10)
    test = Dataset(pixels[-TEST_IMAGES:], labels[-TEST_IMAGES:], name="digits/test", classes=10)
    return train, test
