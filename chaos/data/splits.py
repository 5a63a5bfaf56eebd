"""Parts of data sets and what they are made of: splits, folds, subsets, concatenation, counts, means. Used by `dataset`,
whose methods explain them.

Everything is drawn by numpy.random.default_rng(seed): the same parts from the same seed, on every machine.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..options import check_flag

if TYPE_CHECKING:
    from .dataset import Dataset

_CHUNK = 2**22  # numbers at a time, so that the intermediates stay small


def split(data: Dataset, part: float, shuffle: bool, stratify: bool, seed: int) -> tuple[Dataset, Dataset]:
    """See `Dataset.split`."""
    n, count = len(data), _count(data, part)
    _check_choice(data, shuffle, stratify)
    if not shuffle:
        return data[: n - count], data[n - count :]
    rng = np.random.default_rng(seed)
    chosen = np.zeros(n, bool)
    if stratify:
        rows = _rows_by_class(data)
        if count < len(rows) or n - count < len(rows):
            raise DataError(f"stratify: {count} and {n - count} images, each of which cannot hold {len(rows)} classes")
        for one, k in zip(rows, _shares([len(one) for one in rows], count), strict=True):
            chosen[rng.permutation(one)[:k]] = True
    else:
        chosen[rng.permutation(n)[:count]] = True
    return data[~chosen], data[chosen]


def _count(data: Dataset, part: float) -> int:
    """How many images the part has."""
    n = len(data)
    whole = isinstance(part, (int, np.integer)) and not isinstance(part, bool)
    if not whole and not (isinstance(part, (float, np.floating)) and 0 < part < 1):
        raise DataError(f"part is {part!r}; it must be a share between 0 and 1, or a number of images")
    count = int(part) if whole else math.ceil(round(float(part) * n, 9))
    if not 0 < count < n:
        raise DataError(f"part is {part!r}: {max(count, 0)} of {n} images; both sets need at least one")
    return count


def _check_choice(data: Dataset, shuffle: bool, stratify: bool) -> None:
    check_flag("shuffle", shuffle)
    check_flag("stratify", stratify)
    if stratify and not shuffle:
        raise DataError("stratify draws the images of each class; it needs shuffle=True")
    if stratify:
        _check_labelled(data, "stratify")


def _check_labelled(data: Dataset, what: str) -> None:
    """DataError unless each image has a class."""
    if len(data.targets) > 1 or data.targets[0].ndim != 1 or not data.classes:
        shapes = " and ".join(str(one.shape[1:]) for one in data.targets)
        raise DataError(f"{what} needs a class for each image, not targets of shape {shapes}")


def _rows_by_class(data: Dataset) -> list[np.ndarray]:
    """The images of each class that is there; DataError where one has a single image."""
    order = np.argsort(data.labels, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(data.labels[order])) + 1)
    lonely = next((one for one in rows if len(one) < 2), None)
    if lonely is not None:
        raise DataError(
            f"stratify: class {_called(data, int(data.labels[lonely[0]]))} has one image, which cannot be in both"
        )
    return rows


def _called(data: Dataset, label: int) -> str:
    return str(label) if data.class_names is None else f"{label} ({data.class_names[label]!r})"


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` distributed in proportion to `sizes`, by largest remainders, of each class at least one and not all."""
    total = sum(sizes)
    exact = [size * count / total for size in sizes]
    found = [min(max(math.floor(one), 1), size - 1) for one, size in zip(exact, sizes, strict=True)]
    while sum(found) != count:
        step = 1 if sum(found) < count else -1
        open_ = [k for k, size in enumerate(sizes) if 1 <= found[k] + step <= size - 1]
        k = max(open_, key=lambda k: step * (exact[k] - found[k]))
        found[k] += step
    return found


def k_folds(data: Dataset, k: int, shuffle: bool, stratify: bool, seed: int) -> Iterator[tuple[Dataset, Dataset]]:
    """See `Dataset.k_folds`."""
    try:
        if isinstance(k, (bool, np.bool_)):
            raise TypeError
        k = operator.index(k)
    except TypeError:
        raise DataError(f"k is {k!r}; it must be an int of at least 2") from None
    if not 2 <= k <= len(data):
        raise DataError(f"k is {k}; it must be from 2 to the number of images, {len(data)}")
    _check_choice(data, shuffle, stratify)
    n = len(data)
    fold = np.empty(n, np.int64)  # of each image
    if not stratify:
        order = np.random.default_rng(seed).permutation(n) if shuffle else np.arange(n)
        fold[order] = np.arange(n) * k // n
    else:
        rng, at = np.random.default_rng(seed), 0
        for one in _rows_by_class(data):
            if len(one) < k:
                called = _called(data, int(data.labels[one[0]]))
                raise DataError(f"stratify: class {called} has {len(one)} images, too few for {k} folds")
            fold[rng.permutation(one)] = (at + np.arange(len(one))) % k  # goes on where the class before ended
            at += len(one)
    return ((data[fold != i], data[fold == i]) for i in range(k))


def subset(data: Dataset, classes: Iterable[int | str]) -> Dataset:
    """See `Dataset.subset`."""
    wanted = [classes] if isinstance(classes, (str, int)) else list(classes)
    _check_labelled(data, "subset")
    names = data.class_names
    numbers: list[int] = []
    for one in wanted:
        if isinstance(one, str) and names is not None and one in names:
            number = names.index(one)
        elif not isinstance(one, (str, bool)) and 0 <= operator.index(one) < data.classes:
            number = operator.index(one)
        else:
            known = f"0 to {data.classes - 1}" if names is None else ", ".join(names)
            raise DataError(f"there is no class {one!r}; known: {known}")
        if number in numbers:
            raise DataError(f"class {one!r} is there twice")
        numbers.append(number)
    if not numbers:
        raise DataError("subset needs at least one class")
    place = np.full(data.classes, -1)
    place[numbers] = np.arange(len(numbers))
    labels = np.where(
        (data.labels >= 0) & (data.labels < data.classes), place[np.clip(data.labels, 0, data.classes - 1)], -1
    )
    found = data[labels >= 0]
    chosen = None if names is None else tuple(names[k] for k in numbers)
    return found._replaced(targets=(labels[labels >= 0],), classes=len(numbers), class_names=chosen)


def concatenate(parts: Iterable[Dataset], *, name: str | None = None) -> Dataset:
    """Data sets one after the other, copied into one.

    Parameters
    ----------
    parts : iterable of Dataset
        Of one shape and type of images, one kind of labels, and the same names of classes, if they have any.
    name : str, optional
        Of the whole; that of the first unless given.

    Returns
    -------
    Dataset
        With the largest number of classes. Where only some have weights, those of the others are 1.

    Raises
    ------
    DataError
        They do not go together; the message says which, and why.
    """
    sets = list(parts)
    if not sets:
        raise DataError("concatenate needs at least one data set")
    head = sets[0]
    for one in sets[1:]:
        for what, mine, other in (
            ("images", _kinds(head.inputs), _kinds(one.inputs)),
            ("labels", _kinds(head.targets), _kinds(one.targets)),
            ("class_names", head.class_names, one.class_names),
        ):
            if mine != other:
                raise DataError(f"{head.name!r} and {one.name!r} do not go together: {what} {mine} and {other}")
    whole = head._replaced(
        inputs=tuple(np.concatenate(arrays) for arrays in zip(*(one.inputs for one in sets), strict=True)),
        targets=tuple(np.concatenate(arrays) for arrays in zip(*(one.targets for one in sets), strict=True)),
        classes=max(one.classes for one in sets),
        name=name,
    )
    weights = [one.weights for one in sets]
    whole.weights = None
    if any(weight is not None for weight in weights):
        whole.weights = np.concatenate(
            [np.ones(len(one), np.float32) if one.weights is None else one.weights for one in sets]
        )
    return whole


def _kinds(arrays: Sequence[np.ndarray]) -> list[tuple[tuple[int, ...], str]]:
    return [(array.shape[1:], str(array.dtype)) for array in arrays]


def class_counts(data: Dataset) -> np.ndarray:
    """See `Dataset.class_counts`."""
    if not data.classes:
        raise DataError(f"{data.name!r} has targets that are real numbers, and no classes")
    labels = data.labels.reshape(-1)
    counts: np.ndarray = np.bincount(labels[(labels >= 0) & (labels < data.classes)], minlength=data.classes)
    return counts


def class_weights(data: Dataset) -> np.ndarray:
    """See `Dataset.class_weights`."""
    counts = class_counts(data)
    there = counts > 0
    weights = np.zeros(len(counts), np.float32)
    weights[there] = counts.sum() / (there.sum() * counts[there])
    return weights


def mean_std(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """See `Dataset.mean_std`."""
    images = data.inputs[0]
    axes = (0, *range(2, images.ndim))
    step = max(_CHUNK // max(images[0].size, 1), 1)
    count, mean, squares = 0, np.zeros(images.shape[1]), np.zeros(images.shape[1])
    for start in range(0, len(images), step):  # T. Chan, G. Golub, R. LeVeque, 1979: means of parts put together
        chunk = images[start : start + step].astype(np.float64)
        if images.dtype == np.uint8:
            chunk = chunk / 127.5 - 1
        k, own = chunk.size // images.shape[1], chunk.mean(axes)
        shape = (-1, *[1] * (images.ndim - 2))
        squares += ((chunk - own.reshape(shape)) ** 2).sum(axes) + (own - mean) ** 2 * count * k / (count + k)
        mean += (own - mean) * k / (count + k)
        count += k
    return mean, np.sqrt(squares / count)
