"""Labels, targets and weights as a Dataset keeps them, of whatever callers have. Used by `dataset`.

Labels may be whole numbers, text, categories of pandas, one column, or rows that are one-hot; names of classes are kept.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import extremes, float32, numbers, warn_caller
from ..errors import DataError

Names = tuple[str, ...]


class Labels(NamedTuple):
    """Labels as numbers, how many classes there are, and their names, if they have some."""

    numbers: np.ndarray
    classes: int
    names: Names | None


def check_labels(labels: Any, classes: int | None, class_names: Iterable[str] | None) -> Labels:
    """Labels (n,) as int64 from 0 to classes - 1; DataError where they are none."""
    names = None if class_names is None else check_names(class_names)
    found = _categories(labels)
    if found is not None:
        labels, own = found
        if names is None:
            names = own
        elif own != names:
            labels = np.array(own, object)[labels]
    array = _array(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] > 1:
        array, count = _from_one_hot(array)
        columns = getattr(labels, "columns", None)
        if names is None and columns is not None:
            names = check_names(map(str, columns))
        classes = count if classes is None and names is None else classes
    if array.ndim != 1:
        raise DataError(f"labels: {array.ndim} dimensions, shape {array.shape}; shape must be (n,)")
    if array.size == 0:
        raise DataError("labels: there are none; there must be one label per image")
    if array.dtype.kind == "O":
        array, names = _from_text(array, names, classes)
    array = _whole(array)
    if names is not None and classes not in (None, len(names)):
        raise DataError(f"classes is {classes!r}, and there are {len(names)} class_names; give one of the two")
    count = check_classes(len(names) if names is not None else classes, array, names)
    if classes is None and names is None:
        _warn_of_1(array, count)
    return Labels(array, count, names)


def check_names(names: Iterable[str]) -> Names:
    """Names of classes; DataError where they are no distinct texts."""
    found = (names,) if isinstance(names, str) else tuple(names)
    if isinstance(names, str) or not found or not all(isinstance(name, str) for name in found):
        raise DataError(f"class_names must be a list of texts, one for each class, not {names!r}")
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise DataError(f"class_names: {twice!r} is there twice")
    return tuple(map(str, found))


def _categories(labels: Any) -> tuple[np.ndarray, Names] | None:
    """(numbers, names) of categories of pandas, a Categorical, or a column or table of one; None: it is none."""
    columns = getattr(labels, "columns", None)
    if columns is not None and len(columns) == 1:
        labels = labels.iloc[:, 0]
    labels = getattr(labels, "cat", labels)  # of a column
    codes, categories = getattr(labels, "codes", None), getattr(labels, "categories", None)
    if codes is None or categories is None:
        return None
    codes = np.asarray(codes)
    if (codes < 0).any():
        raise DataError(f"labels: label {int(np.argmax(codes < 0))} is missing; every image needs one")
    return codes, check_names(map(str, categories))


def _array(labels: Any) -> np.ndarray:
    """Labels as an array of numbers, or of objects that are text."""
    try:
        array = np.asarray(labels)
    except (TypeError, ValueError, RuntimeError):
        array = None
    if array is not None and array.dtype.kind in "USOT" and array.size:
        flat = array.astype(object).ravel()
        if all(isinstance(one, (str, bytes)) for one in flat):
            return np.array([_text(one) for one in flat], object).reshape(array.shape)
        if array.dtype.kind == "O":
            texts = [isinstance(one, (str, bytes)) for one in flat]
            if any(texts):
                at = texts.index(False)
                raise DataError(f"labels: label {at} is {flat[at]!r}, and others are text; all must be of one kind")
            whole = (int, np.integer)
            if all(isinstance(one, whole) and not isinstance(one, bool) for one in flat):
                labels = array.astype(np.int64)
    if array is not None and array.dtype.kind == "b":
        if array.ndim == 2 and array.shape[1] > 1:  # as of pandas.get_dummies
            return array.astype(np.int64)
        raise DataError("labels: dtype is bool; labels.astype(int) makes the classes 0 and 1 of them")
    if array is not None and array.dtype.kind == "O" and array.ndim == 1:
        for at, label in enumerate(array):
            if not isinstance(label, (int, float, np.number)):
                raise DataError(f"labels: label {at} is {label!r}; they must be all whole numbers, or all text")
    return numbers(labels, "labels")


def _text(label: str | bytes) -> str:
    try:
        return label.decode() if isinstance(label, bytes) else str(label)
    except UnicodeDecodeError:
        raise DataError(f"labels: {label!r} is no text in UTF-8") from None


def _from_one_hot(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """(labels, number of classes) of rows (n, classes) in which one number is 1 and all others are 0."""
    ones = rows == 1 if rows.dtype.kind != "O" else np.zeros(rows.shape, bool)
    good = (ones | (rows == 0)).all(1) & (ones.sum(1) == 1)
    if not good.all():
        at = int(np.argmin(good))
        raise DataError(
            f"labels: {rows.ndim} dimensions, shape {rows.shape}, and row {at} is not one-hot; give one label per image, or "
            "what is no label, such as probabilities, several labels at once or real numbers, as targets="
        )
    return ones.argmax(1), rows.shape[1]


def _from_text(labels: np.ndarray, names: Names | None, classes: int | None) -> tuple[np.ndarray, Names]:
    """(numbers, names of the classes) of texts; the names sorted, unless given."""
    if names is None:
        there = sorted(set(labels))
        if classes is not None and classes != len(there):
            raise DataError(
                f"labels: {len(there)} names, and classes is {classes}; class_names= says which number each name has"
            )
        names = tuple(there)
    number = {name: k for k, name in enumerate(names)}
    unknown = [k for k, label in enumerate(labels) if label not in number]
    if unknown:
        label = labels[unknown[0]]
        import difflib

        close = difflib.get_close_matches(label, names, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        listed = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
        raise DataError(f"labels: label {unknown[0]} is {label!r}; {hint}class_names are {listed}")
    return np.array([number[label] for label in labels], np.int64), names


def _whole(array: np.ndarray) -> np.ndarray:
    """Labels as non-negative int64 (n,)."""
    # Larger than any number of classes, small enough for int64 and exact in float64.
    most = 2**31 - 1
    with np.errstate(all="ignore"):
        good = (array >= 0) & (array <= most)
        if array.dtype.kind == "f":
            good &= array == np.floor(array)
    if not good.all():
        at = first(~good)
        few = np.isfinite(array).all() and 2 * len(np.unique(array)) <= len(array)  # what are real numbers rather has many
        way = "; np.unique(labels, return_inverse=True)[1] numbers them so" if few else ""
        raise DataError(f"labels: label {at} is {array[at]}; it must be a whole number from 0 to classes - 1{way}")
    return np.require(array, np.int64, ["C", "A"])


def check_classes(classes: int | None, labels: np.ndarray, names: Names | None = None) -> int:
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
        at = first(labels >= count)
        named = "" if names is None else f" (class_names: {', '.join(names[:10])}{', ...' * (len(names) > 10)})"
        hint = _SUBTRACT if labels.min() == 1 and labels.max() == count else ""
        raise DataError(f"labels: label {at} is {labels[at]}; with {count} classes{named} the most is {count - 1}{hint}")
    return count


_SUBTRACT = "; labels that count from 1 become those from 0 by labels - 1"


def _warn_of_1(labels: np.ndarray, count: int) -> None:
    """Tells that class 0 has no image where all others have."""
    if count > 2 and labels.min() == 1 and (np.bincount(labels)[1:] > 0).all():
        warn_caller(
            f"labels go from 1 to {count - 1}, which makes {count} classes, of which 0 has no image{_SUBTRACT}; "
            f"classes={count} says that it is meant so"
        )


def check_targets(targets: Any) -> np.ndarray:
    """Targets as int64 or float32 (n, ...)."""
    array = numbers(targets, "targets")
    if array.ndim < 1 or array.size == 0:
        raise DataError(f"targets: shape {array.shape} is empty; there must be targets for every image")
    if array.dtype.kind != "f":
        return np.require(array, np.int64, ["C", "A"])
    return np.require(check_floats(array, "targets: number"), requirements=["C", "A"])


def check_weights(weights: Any, count: int) -> np.ndarray:
    """Weights as finite float32 (n,) that are not negative."""
    array = numbers(weights, "weights")
    if array.shape != (count,):
        raise DataError(f"weights: shape {array.shape}; there must be one for each of {count} images")
    array = np.require(check_floats(array, "weights: weight"), requirements=["C", "A"])
    if array.min() < 0:
        at = first(array < 0)
        raise DataError(f"weights: weight {at} is {array[at]}; it must not be negative")
    return array


def check_floats(array: np.ndarray, what: str = "images: pixel") -> np.ndarray:
    """Finite numbers as float32."""
    converted = float32(array)
    if extremes(converted) is None:
        at = first(~np.isfinite(converted))
        raise DataError(f"{what} {at} is {array[at]}; {what.split()[1]}s must be finite and fit float32")
    return converted


def first(bad: np.ndarray) -> int | tuple[int, ...]:
    """Index of the first True: an int for one axis, a tuple for more."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    return index[0] if len(index) == 1 else index
