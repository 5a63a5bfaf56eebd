"""Dataset: images and labels, checked once so that nothing else need check them. Anybody may use it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import numbers, warn_caller
from ..errors import DataError
from ..hints import DATASET, SPLIT, explained
from . import splits
from .labels import Names, check_classes, check_floats, check_labels, check_names, check_targets, check_weights, first
from .npz import channels_last
from .sizes import fit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SIDE = 8  # pixels, from which on one or three values at the end of a shape look like colours


class Dataset:
    """Images with one label each, or with other targets.

    Parameters
    ----------
    images : array_like (n, c, h, w), (n, h, w) or, for networks that take vectors, (n, features)
        Pixels. uint8 and float32 are kept (and not copied if C-contiguous, nor read as a whole if uint8, so that they may be
        mapped from a file that is larger than memory); other floats become float32; other integers must lie in 0..255 and
        become uint8. A tuple of arrays, one for each input of a network that has several, each taken as it is. Sequences
        (n, c, l) for a network that takes such may be given as (n, h, w) are.
    labels : array_like, optional
        A class for each image: whole numbers from 0 to ``classes - 1``, text, or categories of pandas, (n,) or (n, 1); or
        rows (n, classes) that are one-hot. Text is numbered by the alphabet, or by `class_names`.
    targets : array_like (n, ...), or tuple of ndarray, optional
        Instead of labels what the loss compares outputs with (chaos.losses): integers, a class for each pixel, also negative
        ones that the loss ignores, or real numbers shaped as the network's outputs. A tuple has one array for each term of a
        loss that is a sum.
    weights : array_like (n,), optional
        What the loss of each image is multiplied with in training; not negative.
    name : str
        For messages and ``repr``.
    classes : int, optional
        Number of classes; that of `class_names`, or the largest label + 1, unless given.
    class_names : iterable of str, optional
        A name for each class, in their order. A test set wants those of the training set:
        ``Dataset(x, y, class_names=train.class_names)``.
    channels : {"first", "last"}, optional
        Which axis of the arrays are the channels: "last" of (n, h, w, c) or (n, l, c), which are copied, "first" of
        (n, c, h, w) or (n, c, l). Unless given as "first", of four dimensions, and three are images of one channel.

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
    class_names : tuple of str, or None
    shape : tuple of int
        (c, h, w) or (features,) of one image.

    Raises
    ------
    DataError
        Lengths differ; no images; wrong number of dimensions; NaN or infinity in the images; labels that are
        not whole, negative, too large or without a name; values that are not real numbers.

    Warns
    -----
    UserWarning
        Labels that count from 1, where neither `classes` nor `class_names` says that class 0 is meant to have no image;
        images whose last axis looks like colours, where `channels` does not say which it is.
    """

    @explained(DATASET)
    def __init__(
        self,
        images: ArrayLike | tuple[ArrayLike, ...],
        labels: ArrayLike | None = None,
        *,
        targets: ArrayLike | tuple[np.ndarray, ...] | None = None,
        weights: ArrayLike | None = None,
        name: str = "arrays",
        classes: int | None = None,
        class_names: Iterable[str] | None = None,
        channels: str | None = None,
    ) -> None:
        self.name = str(name)
        if channels not in (None, "first", "last"):
            raise DataError(f'channels is {channels!r}; it must be "first" or "last"')
        self.inputs = _check_inputs(images, channels)
        if (labels is None) == (targets is None):
            raise DataError("either labels or targets must be given")
        self.class_names: Names | None
        self.targets: tuple[np.ndarray, ...]
        if labels is not None:
            array, self.classes, self.class_names = check_labels(labels, classes, class_names)
            self.targets = (array,)
        else:
            several = (
                isinstance(targets, tuple) and targets and all(isinstance(one, np.ndarray) and one.ndim for one in targets)
            )
            self.targets = tuple(map(check_targets, targets if several else (targets,)))  # type: ignore[arg-type]
            self.classes, self.class_names = _classes_of(self.targets, classes, class_names)
        wanted = len(self)
        for found in map(len, self.targets):
            if found != wanted:
                raise DataError(f"labels: {found} labels for {wanted} images; there must be one label per image")
        self.weights = None if weights is None else check_weights(weights, wanted)
        self._printed: tuple[Any, str] | None = None

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
            self._check_room(int(index.sum()) if index.dtype == bool else len(index))
        new = self._replaced(
            inputs=tuple(array[index] for array in self.inputs), targets=tuple(array[index] for array in self.targets)
        )
        if not len(new):
            raise DataError(f"this part of {self.name!r} is empty; a Dataset holds at least one image")
        new.weights = None if self.weights is None else np.ascontiguousarray(self.weights[index])
        return new

    def _check_room(self, count: int) -> None:
        """DataError where a copy of so many images cannot lie in this machine's memory, as of arrays that are mapped."""
        needed = count * sum(array[:1].nbytes for array in self.inputs)
        if needed > 2**30 and needed > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
            raise DataError(
                f"a copy of {count} images of {self.name!r} needs {needed / 2**30:.0f} GiB, more than this machine has; "
                "slices and split(shuffle=False) copy nothing, and a chaos.data.Stream takes images as they are needed"
            )

    def __add__(self, other: Dataset) -> Dataset:
        """Both one after the other, as `chaos.data.concatenate` makes it."""
        return splits.concatenate([self, other]) if isinstance(other, Dataset) else NotImplemented

    def subset(self, classes: Iterable[int | str]) -> Dataset:
        """The images of some classes, which are numbered anew in the order given.

        Parameters
        ----------
        classes : iterable of int or str
            Numbers or names of classes.

        Raises
        ------
        DataError
            Unknown or repeated classes, none of their images, or targets that are no class per image.
        """
        return splits.subset(self, classes)

    @explained(SPLIT)
    def split(self, part: float, *, shuffle: bool = True, stratify: bool = False, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Cuts off a part, as for validation: ``train, validation = train.split(0.1, stratify=True)``.

        Parameters
        ----------
        part : float or int
            Of the second set: a share between 0 and 1, of which the images are rounded up, or a number of images.
        shuffle : bool
            Whether the images of both are drawn by chance; otherwise the last ones are cut off, without a copy.
        stratify : bool
            Whether every class has the same share in both, as nearly as whole images can.
        seed : int
            Of the drawing.

        Returns
        -------
        Dataset, Dataset
            The rest and the part, each in the order of this set. Copies where they are drawn.

        Raises
        ------
        DataError
            Either would be empty; `stratify` with targets that are no class per image, without `shuffle`, or with a class
            of one image or more classes than images in one of the sets.
        """
        return splits.split(self, part, shuffle, stratify, seed)

    @explained(SPLIT)
    def k_folds(
        self, k: int, *, shuffle: bool = True, stratify: bool = False, seed: int = 0
    ) -> Iterator[tuple[Dataset, Dataset]]:
        """The k pairs (training, validation) of a cross-validation: every image is in one validation set.

        Parameters
        ----------
        k : int
            From 2 to the number of images; of the smallest class where they are stratified.
        shuffle, stratify, seed
            As for `split`; without `shuffle` each fold is a run of images.

        Yields
        ------
        Dataset, Dataset
            Made when they are asked for.

        Raises
        ------
        DataError
            As `split`; at the call.
        """
        return splits.k_folds(self, k, shuffle, stratify, seed)

    def class_counts(self) -> np.ndarray:
        """How many answers are of each class: int64 (classes,). Of targets that are a class per pixel those within the
        classes; DataError where they are no classes."""
        return splits.class_counts(self)

    def class_weights(self) -> np.ndarray:
        """Weights of classes that make up for classes of different size: float32 (classes,), answers / (classes that are
        there * answers of the class), 0 for a class without any; as scikit-learn's "balanced".

        Use ``chaos.train(..., loss_options={"weight": train.class_weights()})``.
        """
        return splits.class_weights(self)

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each channel over all images of the first input, as the network sees them
        (pixels of uint8 as x / 127.5 - 1): two arrays (c,) of float64. Goes through the images once."""
        return splits.mean_std(self)

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
        """Short hash of shape, dtype and content of images and labels, for resume checks. Of arrays that are mapped from
        files for reading it is kept, until a file changes.

        Returns
        -------
        str
            The first 16 hex digits of a SHA-256.
        """
        import hashlib

        files = _mapped((*self.inputs, *self.targets, *([] if self.weights is None else [self.weights])))
        if files is not None and self._printed is not None and self._printed[0] == files:
            return self._printed[1]
        digest = hashlib.sha256()
        for array in (*self.inputs, *self.targets, *([] if self.weights is None else [self.weights])):
            digest.update(f"{array.shape}{array.dtype.str}".encode())
            digest.update(array.data.cast("B"))
        found = digest.hexdigest()[:16]
        self._printed = None if files is None else (files, found)
        return found

    def _replaced(
        self,
        *,
        inputs: tuple[np.ndarray, ...] | None = None,
        targets: tuple[np.ndarray, ...] | None = None,
        classes: int | None = None,
        class_names: Names | None = None,
        name: str | None = None,
    ) -> Dataset:
        """This data set with other arrays or classes, whose values are known to be good."""
        new = object.__new__(Dataset)
        new.name = self.name if name is None else name
        new.inputs = self.inputs if inputs is None else tuple(np.ascontiguousarray(array) for array in inputs)
        new.weights = self.weights
        new.targets = self.targets if targets is None else tuple(np.ascontiguousarray(array) for array in targets)
        new.classes = self.classes if classes is None else classes
        new.class_names = self.class_names if class_names is None else class_names
        new._printed = None
        return new


def _classes_of(
    targets: tuple[np.ndarray, ...], classes: int | None, names: Iterable[str] | None
) -> tuple[int, Names | None]:
    """(number of classes, their names) of targets; 0 where they are no classes."""
    if len(targets) > 1 or targets[0].dtype.kind == "f":
        if names is not None:
            raise DataError("class_names go with labels, or with targets of whole numbers")
        return 0, None
    known = None if names is None else check_names(names)
    return check_classes(classes if known is None else len(known), targets[0], known), known


def _mapped(arrays: Sequence[np.ndarray]) -> list[Any] | None:
    """What tells that arrays have not changed, without a look into those that are mapped from files; None: none is."""
    files = [_file_of(array) for array in arrays]
    if not any(files):
        return None
    return [
        (file, os.stat(file)[:7], os.stat(file).st_mtime_ns) if file else _digest(array)
        for file, array in zip(files, arrays, strict=True)
    ]


def _file_of(array: Any) -> str | None:
    """The file from which an array is mapped, where nobody can write to it through the array."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap) and not array.flags.writeable:
        array = array.base
    return str(array.filename) if isinstance(array, np.memmap) and array.mode == "r" and array.filename else None


def _digest(array: np.ndarray) -> bytes:
    import hashlib

    return hashlib.sha256(array.data.cast("B")).digest()


def _check_inputs(images: Any, channels: str | None) -> tuple[np.ndarray, ...]:
    """The arrays of all inputs, as many images in each."""
    if not (isinstance(images, tuple) and images and all(isinstance(one, np.ndarray) and one.ndim > 1 for one in images)):
        return (_check_images(images, channels),)
    arrays = tuple(np.require(_check_images(one, channels or "first")) for one in images)
    if len({len(array) for array in arrays}) > 1:
        raise DataError(
            f"images: the inputs have {', '.join(str(len(array)) for array in arrays)} images; as many are needed"
        )
    return arrays


def warn_of_channels_last(shape: tuple[int, ...]) -> None:
    """A warning about images of that shape, which are taken with their channels first and look as if they had them last."""
    if channels_last((1, *shape)) and min(shape[:2]) >= SIDE:
        h, w, c = shape
        warn_caller(
            f"images of {' x '.join(map(str, shape))} are taken as {h} channels of {w} x {c}; if that is height, width, "
            'channels: channels="last"; channels="first" says that it is not'
        )


def _check_images(images: ArrayLike, channels: str | None = None) -> np.ndarray:
    """Images as uint8 or float32 (n, c, h, w)."""
    array = numbers(images, "images")
    if array.ndim not in (2, 3, 4):
        raise DataError(
            f"images: {array.ndim} dimensions, shape {array.shape}; shape must be (n, c, h, w), (n, h, w) or (n, features)"
        )
    if array.size == 0:
        raise DataError(f"images: shape {array.shape} is empty; there must be an image with a pixel")
    if array.dtype.kind == "f":
        array = check_floats(array)
    elif array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255:
            at = first((array < 0) | (array > 255))
            raise DataError(f"images: pixel {at} is {array[at]}; integer pixels must be from 0 to 255")
        array = array.astype(np.uint8)
    if channels == "last" and array.ndim > 2:
        array = np.moveaxis(array, -1, 1)
    elif channels is None:
        warn_of_channels_last(array.shape[1:])
        array = array[:, None] if array.ndim == 3 else array
    return np.require(array, requirements=["C", "A"])


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
