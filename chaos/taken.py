"""What a network is given (images, targets, their weights) as arrays that the core takes. Below chaos.network."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import extremes, float32, numbers
from .errors import DataError
from .layers.base import Array, Shape
from .losses import IGNORED, VALUES, Term
from .scale import Scale

# what is missing to a network of one output for two classes
TWO = '; two classes want two outputs, or loss="binary_cross_entropy" and targets=y[:, None].astype("f")'


def take_target(y: ArrayLike, count: int, term: Term, shape: Shape) -> tuple[Array, int | None]:
    """(targets of a term of the loss, flat: int64 labels, IGNORED where they are to be, or float32 values of `count` images;
    how many answers of them may be wrong, None where there is no right and wrong)."""
    kind, options = term.loss, dict(term.options)
    y = numbers(y, "labels")
    if y.ndim < 1 or len(y) != count:
        raise DataError(f"labels have shape {y.shape}, expected ({count},): one per image")
    try:
        form = kind.form(shape, y.shape[1:], y.dtype.kind in "iu")
    except ValueError as error:
        raise DataError(str(error)) from None
    kind.fit(form, shape, options)
    answers = count * kind.answers(form, shape) if kind.answers(form, shape) else None
    if form == VALUES:
        return _take_values(y, *kind.bounds(options)), answers
    classes = kind.classes(form, shape)
    ignore = options.get("ignore_index")
    if count and (y.min() < 0 or y.max() >= classes or (ignore is not None and 0 <= ignore < classes)):
        ignored = np.zeros(y.shape, bool) if ignore is None else y == ignore
        wrong = ((y < 0) | (y >= classes)) & ~ignored
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            hint = TWO if classes == 1 else ""
            raise DataError(f"label {y[first]} of image {first[0]} is not in 0..{classes - 1}, the network's outputs{hint}")
        answers = None if answers is None else answers - int(ignored.sum())
        y = np.where(ignored, IGNORED, y.astype(np.int64))
    return np.ascontiguousarray(y, np.int64).reshape(-1), answers


def _take_values(y: Array, least: float, most: float) -> Array:
    """Targets as flat float32; DataError where they are not finite, or not within least..most."""
    y = np.ascontiguousarray(float32(y)).reshape(-1)
    found = extremes(y)
    if y.size and found is None:
        raise DataError("targets hold NaN or infinity, or numbers too large for float32")
    if found is not None and not least <= found[0] <= found[1] <= most:
        raise DataError(f"targets lie in {found[0]:g}..{found[1]:g}, and must be probabilities, from {least:g} to {most:g}")
    return y


def take_input(x: ArrayLike, shape: Shape, like: Scale | None) -> tuple[Array, Scale]:
    """Images of that shape, contiguous and of a type that the core takes, and their scale; DataError if they cannot be."""
    x = numbers(x, "images")
    if x.ndim == 3 and len(shape) == 3 and shape[0] == 1:
        x = x[:, None]
    elif x.ndim == 4 and len(shape) == 2 and x.shape[1] == 1:  # sequences that were taken for images of one channel
        x = x[:, 0]
    if x.shape[1:] != shape or not x.ndim:
        hint, rows = "", ", ".join(map(str, shape))
        if x.shape in (shape, shape[1:] if shape[0] == 1 else shape):
            hint = "; one image alone is a batch of one: x[None]"
        elif math.prod(x.shape[x.ndim > 1 :]) == math.prod(shape) and (x.ndim < 3 or len(shape) == 1):
            hint = f"; if rows have the numbers in that order: x.reshape(-1, {rows})"
        elif x.ndim > 2 and (x.shape[-1], *x.shape[1:-1]) == shape:
            hint = "; these have their channels last: chaos.data.Dataset(x, y, channels='last'), or np.moveaxis(x, -1, 1)"
        elif x.ndim == 4 and len(shape) == 3 and x.shape[2:] == shape[1:]:
            grey = f", or np.repeat(x, {shape[0]}, axis=1) of grey images" if x.shape[1] == 1 else ""
            hint = (
                f"; a network for {x.shape[1]} channels takes them: input_shape={x.shape[1:]} of the zoo's functions{grey}"
            )
        elif x.ndim == 4 and len(shape) == 3 and x.shape[1] == shape[0]:
            hint = f"; chaos.data.fit(x, {shape[1:]}) brings them to that size"
        raise DataError(f"images have shape {x.shape}, the network wants (n, {rows}){hint}")
    if like is not None and like.pixels and x.dtype.kind in "iu" and x.dtype != np.uint8:
        if x.size and not (x.min() >= 0 and x.max() <= 255):
            raise DataError(f"images: integers from {x.min()} to {x.max()}; integer pixels must be from 0 to 255")
        x = x.astype(np.uint8)
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x), Scale.of(x)
    x = np.ascontiguousarray(float32(x))
    found = extremes(x)
    if x.size and found is None:
        raise DataError("images hold NaN or infinity, or numbers too large for float32")
    return x, Scale(False, *(found or (0.0, 0.0)))


def take_weights(weights: ArrayLike, count: int) -> NDArray[np.float32]:
    """Weights of `count` images as float32; DataError where they are not finite numbers of at least 0."""
    weights = numbers(weights, "sample weights")
    if weights.shape != (count,):
        raise DataError(f"sample weights have shape {weights.shape}, expected ({count},): one per image")
    weights = np.ascontiguousarray(float32(weights))
    if count and ((found := extremes(weights)) is None or found[0] < 0):
        raise DataError("sample weights must be finite and not negative")
    return weights
