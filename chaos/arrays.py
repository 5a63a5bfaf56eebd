"""Arrays that callers give: real numbers of anything array-like, of which nothing is lost in silence. For chaos.data and
chaos.network; knows nothing of either."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DataError

Array = NDArray[Any]


def numbers(values: ArrayLike, what: str, error: type[ValueError] = DataError) -> Array:
    """`values` as an array of integers or floating-point numbers.

    Parameters
    ----------
    values : array_like
        Also a tensor of PyTorch, with a gradient or not; bfloat16 becomes float32.
    what : str
        For the message: what they are.
    error : type
        Of the exception where they are truth values, complex, text, times, objects or rows of different lengths, or where
        numbers are masked.
    """
    try:
        array = np.asarray(_of_torch(values))
    except (TypeError, ValueError, OverflowError, RuntimeError) as problem:
        raise error(f"{what}: not an array of numbers ({' '.join(str(problem).split())})") from None
    if array.dtype.kind in "US" and array.size:
        reading = "; chaos.data.load reads files" if what == "images" else ""
        raise error(f"{what}: dtype is {array.dtype}, text such as {str(array.flat[0])!r}; numbers are needed{reading}")
    if array.dtype.kind not in "uif":
        raise error(f"{what}: dtype is {array.dtype}; they must be integers or floating-point numbers")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise error(
            f"{what}: {int(np.ma.getmaskarray(values).sum())} numbers are masked; fill them first, as with .filled(0)"
        )
    return array


def _of_torch(values: Any) -> Any:
    """A tensor of PyTorch as one of which NumPy can take the numbers."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return values.float() if str(values.dtype) == "torch.bfloat16" else values


def float32(array: Array) -> NDArray[np.float32]:
    """The numbers as float32; what is too large becomes infinity."""
    with np.errstate(all="ignore"):
        return array.astype(np.float32, copy=False)


def extremes(array: Array) -> tuple[float, float] | None:
    """The least and the largest number, None where one is not finite, or where there is none. Goes through memory once, a
    part at a time, so that an array on a disk is read once."""
    if not array.size:
        return None
    parts = [array]
    if array.nbytes > _PART:
        parts = np.array_split(array, min(array.nbytes // _PART, len(array)))
    least, most = np.inf, -np.inf
    for part in parts:
        with np.errstate(all="ignore"):
            low, high = float(part.min()), float(part.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            return None
        least, most = min(least, low), max(most, high)
    return least, most


_PART = 2**20  # bytes, which stay in a core's cache between two looks


def warn_caller(text: str) -> None:
    """A UserWarning about the line of whoever called into the package."""
    depth, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].startswith(f"{__package__}."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=depth)


def aligned_zeros(shape: int | tuple[int, ...]) -> NDArray[np.float32]:
    """A float32 array that starts on a cache line."""
    size = int(np.prod(shape))
    room = np.zeros(size + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    return room[start : start + size].reshape(shape)
