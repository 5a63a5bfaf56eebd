"""Softmax as a layer. Imported by chaos.layers; the fast half is cext/layers/softmax.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Layer, Parts, Shape


class _OverChannels(Layer):
    dim: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim is not None and (isinstance(self.dim, bool) or not isinstance(self.dim, (int, np.integer))):
            raise ValueError(f"{type(self).__name__}: dim must be 1, the channels, or None, not {self.dim!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if self.dim not in (None, 1, -len(shape)):
            raise ValueError(
                f"{self} on input of shape {shape}: dim must be 1 (or {-len(shape)}), the channels; for another "
                "dimension put a Permute before it and one behind it"
            )
        return shape

    @staticmethod
    def _log(x: Array) -> Array:
        below: Array = x - x.max(1, keepdims=True)
        found: Array = below - np.log(np.exp(below).sum(1, keepdims=True))
        return found

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        dims = pick((0, 1, 2))
        shape = (pick((1, 2, 3, 4, 5, 8, 10, 15, 16, 17, 33)), *(pick.whole(1, 5) for _ in range(dims)))
        return cls(pick((None, 1, -len(shape)))), [shape]  # type: ignore[call-arg]


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(_OverChannels):
    """y = exp(x) / sum of exp(x) over the channels of each pixel, or over the features of vectors, as ``torch.nn.Softmax``.
    The loss `cross_entropy` has a softmax of its own.

    Parameters
    ----------
    dim : int, optional
        1, counted with the images' dimension, as PyTorch does; or None.
    """

    dim: int | None = None

    kind: ClassVar[str] = "softmax"

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return np.exp(self._log(inputs[0]))

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [y * (dy - (y * dy).sum(1, keepdims=True))], {}


@dataclass(frozen=True, eq=False, repr=False)
class LogSoftmax(_OverChannels):
    """The logarithm of `Softmax`, y = x - log(sum of exp(x)), as ``torch.nn.LogSoftmax``.

    Parameters
    ----------
    dim : int, optional
        As of `Softmax`.
    """

    dim: int | None = None

    kind: ClassVar[str] = "log_softmax"

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return self._log(inputs[0])

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [dy - np.exp(y) * dy.sum(1, keepdims=True)], {}
