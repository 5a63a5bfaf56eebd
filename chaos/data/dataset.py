"""Dataset: images and labels, checked once so that nothing else need check them. Anybody may use it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import extremes, float32, numbers
from ..errors import DataError
from .sizes import fit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Dataset:
    """Images with one label each, or with other targets.

    Parameters
    ----------
    images : array_like (n, c, h, w), (n, h, w) or, for networks that take vectors, (n, features)
        Pixels. uint8 and float32 are kept (and not copied if C-contiguous); other floats become float32;
        other integers must lie in 0..255 and become uint8. A tuple of arrays, one for each input of a network that has
        several; sequences (n, c, l) are such arrays as they are.
    labels : array_like (n,), optional
        Whole numbers from 0 to ``classes - 1``.
    targets : array_like (n, ...), or tuple of ndarray, optional
        Instead of labels what the loss compares outputs with (chaos.losses): integers, a class for each pixel, also negative
        ones that the loss ignores, or real numbers shaped as the network's outputs. A tuple has one array for each term of a
        loss that is a sum.
    weights : array_like (n,), optional
        What the loss of each image is multiplied with in training; not negative.
    name : str
        For messages and ``repr``.
    classes : int, optional
        Number of classes; the largest label + 1 unless given.

    Attributes
    ----------
    images : ndarray (n, c, h, w) or (n, features), or tuple of ndarray
        uint8 or float32, C-contiguous.
    labels : ndarray (n,), or (n, ...), or tuple of ndarray
        int64 or (targets) float32, C-contiguous.
    weights : ndarray (n,) of float32, or None
    name : str
    classes : int
        0 where the targets are real numbers.
    shape : tuple of int
        (c, h, w) or (features,) of one image.

    Raises
    ------
    DataError
        Lengths differ; no images; wrong number of dimensions; NaN or infinity in the images; labels that are
        not whole, negative or too large; values that are not real numbers.
    """

    def __init__(
        self,
        images: ArrayLike | tuple[ArrayLike, ...],
        labels: ArrayLike | None = None,
        *,
        targets: ArrayLike | tuple[np.ndarray, ...] | None = None,
        weights: ArrayLike | None = None,
        name: str = "arrays",
        classes: int | None = None,
    ) -> None:
        self.name = str(name)
        self.inputs = _check_inputs(images)
        if (labels is None) == (targets is None):
            raise DataError("either labels or targets must be given")
        if labels is not None:
            self.targets: tuple[np.ndarray, ...] = (_check_labels(labels),)
        elif isinstance(targets, tuple) and targets and all(isinstance(one, np.ndarray) and one.ndim for one in targets):
            self.targets = tuple(_check_targets(one) for one in targets)
        else:
            self.targets = (_check_targets(targets),)
        wanted = len(self)
        for found in map(len, self.targets):
            if found != wanted:
                raise DataError(f"labels: {found} labels for {wanted} images; there must be one label per image")
        self.weights = None if weights is None else _check_weights(weights, wanted)
        one_class = len(self.targets) == 1 and self.targets[0].dtype.kind == "i"
        self.classes = _check_classes(classes, self.targets[0]) if one_class else 0

    @property
    def images(self) -> Any:
        """The images; of several inputs the tuple of all."""
        return self.inputs[0] if len(self.inputs) == 1 else self.inputs

    @property
    def labels(self) -> Any:
        """The labels, or targets; of a tuple of targets all."""
        return self.targets[0] if len(self.targets) == 1 else self.targets

    @property
    def shape(self) -> tuple[Any, ...]:
        """(c, h, w): channels, height and width of one image; or (features,); of several inputs a tuple of these."""
        shapes = tuple(array.shape[1:] for array in self.inputs)
        return shapes[0] if len(shapes) == 1 else shapes

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __repr__(self) -> str:
        pixels = " and ".join(f"{'x'.join(map(str, array.shape[1:]))} {array.dtype}" for array in self.inputs)
        values = " and ".join(f"targets {'x'.join(map(str, one.shape[1:]))} {one.dtype}" for one in self.targets)
        return (
            f"<Dataset {self.name!r}: {len(self)} images {pixels}, {f'{self.classes} classes' if self.classes else values}>"
        )

    def __getitem__(self, index: slice | ArrayLike) -> Dataset:
        """Part of the data set, with the same name and number of classes.

        Parameters
        ----------
        index : slice, or array_like of int (m,) or of bool (n,)
            A slice of step 1 shares memory with this data set; everything else copies.

        Raises
        ------
        TypeError
            A single number (use ``data[i:i + 1]``), a tuple, or an array that is neither int nor bool.
        IndexError
            A number outside the data set, or a mask of another length.
        DataError
            The part is empty.
        """
        if not isinstance(index, slice):
            index = _check_index(index)
        new = self._replaced(
            inputs=tuple(array[index] for array in self.inputs), targets=tuple(array[index] for array in self.targets)
        )
        if not len(new):
            raise DataError(f"this part of {self.name!r} is empty; a Dataset holds at least one image")
        new.weights = None if self.weights is None else np.ascontiguousarray(self.weights[index])
        return new

    def sized(self, size: int | tuple[int, int]) -> Dataset:
        """The data set with images of that height and width; see `chaos.data.fit`."""
        return self._replaced(inputs=tuple(fit(array, size) for array in self.inputs))

    def scaled(self) -> np.ndarray:
        """The images, of the first input, as the network sees them.

        Returns
        -------
        ndarray (n, c, h, w)
            float32. uint8 pixels x become x / 127.5 - 1, that is 0..255 becomes -1..1; float32 images are
            returned as they are, without a copy.
        """
        if self.inputs[0].dtype == np.float32:
            return self.inputs[0]
        scaled = self.inputs[0].astype(np.float32)
        scaled /= np.float32(127.5)
        scaled -= np.float32(1)
        return scaled

    def fingerprint(self) -> str:
        """Short hash of shape, dtype and content of images and labels, for resume checks.

        Returns
        -------
        str
            The first 16 hex digits of a SHA-256.
        """
        import hashlib

        digest = hashlib.sha256()
        for array in (*self.inputs, *self.targets, *([] if self.weights is None else [self.weights])):
            digest.update(f"{array.shape}{array.dtype.str}".encode())
            digest.update(array.data.cast("B"))
        return digest.hexdigest()[:16]

    def _replaced(
        self,
        *,
        inputs: tuple[np.ndarray, ...] | None = None,
        targets: tuple[np.ndarray, ...] | None = None,
        classes: int | None = None,
    ) -> Dataset:
        """This data set with other arrays or classes, whose values are known to be good."""
        new = object.__new__(Dataset)
        new.name = self.name
        new.inputs = self.inputs if inputs is None else tuple(np.ascontiguousarray(array) for array in inputs)
        new.weights = self.weights
        new.targets = self.targets if targets is None else tuple(np.ascontiguousarray(array) for array in targets)
        new.classes = self.classes if classes is None else classes
        return new


def _first(bad: np.ndarray) -> int | tuple[int, ...]:
    """Index of the first True: an int for one axis, a tuple for more."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    return index[0] if len(index) == 1 else index


def _check_inputs(images: Any) -> tuple[np.ndarray, ...]:
    """The arrays of all inputs, as many images in each."""
    if not (isinstance(images, tuple) and images and all(isinstance(one, np.ndarray) and one.ndim > 1 for one in images)):
        return (_check_images(images),)
    arrays = tuple(np.require(_check_images(one).reshape(one.shape)) for one in images)
    if len({len(array) for array in arrays}) > 1:
        raise DataError(
            f"images: the inputs have {', '.join(str(len(array)) for array in arrays)} images; as many are needed"
        )
    return arrays


def _check_targets(targets: Any) -> np.ndarray:
    """Targets as int64 or float32 (n, ...)."""
    array = numbers(targets, "targets")
    if array.ndim < 1 or array.size == 0:
        raise DataError(f"targets: shape {array.shape} is empty; there must be targets for every image")
    if array.dtype.kind != "f":
        return np.require(array, np.int64, ["C", "A"])
    return np.require(_check_floats(array, "targets: number"), requirements=["C", "A"])


def _check_weights(weights: ArrayLike, count: int) -> np.ndarray:
    """Weights as finite float32 (n,) that are not negative."""
    array = numbers(weights, "weights")
    if array.shape != (count,):
        raise DataError(f"weights: shape {array.shape}; there must be one for each of {count} images")
    array = np.require(_check_floats(array, "weights: weight"), requirements=["C", "A"])
    if array.min() < 0:
        at = _first(array < 0)
        raise DataError(f"weights: weight {at} is {array[at]}; it must not be negative")
    return array


def _check_images(images: ArrayLike) -> np.ndarray:
    """Images as uint8 or float32 (n, c, h, w)."""
    array = numbers(images, "images")
    if array.ndim not in (2, 3, 4):
        raise DataError(
            f"images: {array.ndim} dimensions, shape {array.shape}; shape must be (n, c, h, w), (n, h, w) or (n, features)"
        )
    if array.size == 0:
        raise DataError(f"images: shape {array.shape} is empty; there must be an image with a pixel")
    if array.dtype.kind == "f":
        array = _check_floats(array)
    elif array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255:
            at = _first((array < 0) | (array > 255))
            raise DataError(f"images: pixel {at} is {array[at]}; integer pixels must be from 0 to 255")
        array = array.astype(np.uint8)
    if array.ndim == 3:
        array = array[:, None]
    return np.require(array, requirements=["C", "A"])


def _check_floats(array: np.ndarray, what: str = "images: pixel") -> np.ndarray:
    """Finite numbers as float32."""
    converted = float32(array)
    if extremes(converted) is None:
        at = _first(~np.isfinite(converted))
        raise DataError(f"{what} {at} is {array[at]}; {what.split()[1]}s must be finite and fit float32")
    return converted


def _check_labels(labels: ArrayLike) -> np.ndarray:
    """Labels as non-negative int64 (n,)."""
    array = numbers(labels, "labels")
    if array.ndim != 1:
        one_hot = array.ndim == 2 and array.shape[1] > 1
        hint = "; one-hot rows become numbers by labels.argmax(1)" if one_hot else ""
        raise DataError(f"labels: {array.ndim} dimensions, shape {array.shape}; shape must be (n,){hint}")
    if array.size == 0:
        raise DataError("labels: there are none; there must be one label per image")
    # Larger than any number of classes, small enough for int64 and exact in float64.
    most = 2**31 - 1
    with np.errstate(all="ignore"):
        good = (array >= 0) & (array <= most)
        if array.dtype.kind == "f":
            good &= array == np.floor(array)
    if not good.all():
        at = _first(~good)
        raise DataError(f"labels: label {at} is {array[at]}; it must be a whole number from 0 to classes - 1")
    return np.require(array, np.int64, ["C", "A"])


def _check_classes(classes: int | None, labels: np.ndarray) -> int:
    """The number of classes, given or found, with all labels below it."""
    if classes is None:
        return max(int(labels.max()) + 1, 1)
    try:
        if isinstance(classes, (bool, np.bool_)):
            raise TypeError
        count = operator.index(classes)
    except TypeError:
        raise DataError(f"classes is {classes!r}; it must be an int of at least 1") from None
    if count < 1:
        raise DataError(f"classes is {count}; it must be at least 1")
    if labels.max() >= count:
        at = _first(labels >= count)
        raise DataError(f"labels: label {at} is {labels[at]}; with {count} classes the most is {count - 1}")
    return count


def _check_index(index: ArrayLike) -> np.ndarray:
    """An index array (m,) of ints or a mask of bools."""
    if isinstance(index, tuple):
        raise TypeError("a Dataset has one index; take pixels from .images and labels from .labels")
    array = np.asarray(index)
    if array.ndim == 0:
        raise TypeError(f"a Dataset has no index {index!r}; use data[i:i + 1] or data.images[i]")
    if array.size == 0 and isinstance(index, list):
        array = array.astype(np.intp)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise TypeError(f"index has dtype {array.dtype}, shape {array.shape}; must be a row of ints or bools")
    return array
