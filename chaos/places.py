"""Where the numbers of a parameter are in the weight vector of the kernels. For chaos.network and what is made of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from . import _core

_AT_A_TIME = 1 << 16  # positions that are compared


class Place:
    """Where one part of a layer is.

    Nearly all parts are regular, an array with strides: nothing is kept of them but these. Of others the position of each
    number is kept.

    Parameters
    ----------
    plan : _core.Plan
    node : int
    name : str
        Of the node's part.
    shape : tuple of int
        PyTorch's of the part.
    """

    __slots__ = ("_first", "_index", "_strides", "shape", "size")

    def __init__(self, plan: _core.Plan, node: int, name: str, shape: tuple[int, ...]) -> None:
        self.shape, self.size = shape, math.prod(shape)
        at = np.empty(self.size, np.int64)
        plan.positions(node, name, at)
        self._first, self._strides = int(at[0]), _strides(at.reshape(shape))
        self._index = None if _regular(at, self._first, shape, self._strides) else at

    def _view(self, vector: NDArray[Any]) -> NDArray[Any]:
        (step,) = vector.strides
        return as_strided(vector[self._first :], self.shape, [stride * step for stride in self._strides])

    def take(self, vector: NDArray[Any]) -> NDArray[Any]:
        """The numbers in a vector that is laid out as the weights, in the part's shape; a copy."""
        if self._index is not None:
            return vector[self._index].reshape(self.shape)
        return np.array(self._view(vector), order="C")

    def put(self, vector: NDArray[Any], values: NDArray[Any]) -> None:
        """The way back."""
        if self._index is not None:
            vector[self._index] = values.ravel()
        else:
            self._view(vector)[...] = values.reshape(self.shape)

    @property
    def index(self) -> NDArray[np.int64]:
        """The position of each number, int64 (size,), in the order of the part's shape; made where it is asked for."""
        if self._index is not None:
            return self._index
        return _positions(self._first, self.shape, self._strides).ravel()


def _strides(at: NDArray[np.int64]) -> tuple[int, ...]:
    """How far apart the first two elements are along each dimension."""
    return tuple(
        int(at[(0,) * d + (1,) + (0,) * (at.ndim - d - 1)] - at.flat[0]) if length > 1 else 0
        for d, length in enumerate(at.shape)
    )


def _positions(first: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> NDArray[np.int64]:
    at = np.full((), first, np.int64)
    for length, stride in zip(shape, strides, strict=True):
        at = at[..., None] + np.arange(length) * stride
    return at


def _regular(at: NDArray[np.int64], first: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the strides give these positions; some rows of the first dimension at a time, as parts may be large."""
    if not shape:
        return True
    row, rows = _positions(first, shape[1:], strides[1:]).ravel(), at.reshape(shape[0], -1)
    step = max(1, _AT_A_TIME // row.size)
    starts = np.arange(shape[0])[:, None] * strides[0]
    return all(np.array_equal(rows[k : k + step], row + starts[k : k + step]) for k in range(0, shape[0], step))
