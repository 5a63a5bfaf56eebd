"""Arithmetic of two branches of a graph, entry by entry: a class of few lines each. Imported by chaos.layers; the fast half,
a row each, is cext/layers/arithmetic.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Layer, Parts, Shape

_row = dataclass(frozen=True, eq=False, repr=False)


def broadcast(layer: Layer, a: Shape, b: Shape) -> Shape:
    """The shape of a pair of inputs; ValueError unless sizes are equal, or 1, along every dimension."""
    if len(a) != len(b) or not all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True)):
        raise ValueError(f"{layer} needs inputs of equal sizes, or 1, along every dimension, not {a} and {b}")
    return tuple(map(max, a, b))


def summed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an input that was repeated."""
    over = tuple(i for i, (n, there) in enumerate(zip(shape, gradient.shape, strict=True)) if n == 1 and there > 1)
    return gradient.sum(over, keepdims=True) if over else gradient


@_row
class Arithmetic(Layer):
    """A layer y = f(a, b), entry by entry, of two inputs; one may have size 1 where the other has more: it is repeated. The
    kinds define `f(a, b)` and `derivatives(a, b)`."""

    inputs: ClassVar[tuple[int, int | None]] = (2, 2)

    def output_shape(self, *shapes: Shape) -> Shape:
        return broadcast(self, *shapes)

    def f(self, a: Array, b: Array) -> Array:
        raise TypeError(f"{type(self).__name__} has no definition")

    def derivatives(self, a: Array, b: Array) -> tuple[Any, Any]:
        raise TypeError(f"{type(self).__name__} has no definition")

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return self.f(*inputs)

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [summed(dy * d, x.shape) for d, x in zip(self.derivatives(*inputs), inputs, strict=True)], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(), pair_of_shapes(pick)


def pair_of_shapes(pick: Any) -> list[Shape]:
    """Of two inputs, one of which may be repeated."""
    c, h, w = pick(ODD), pick.whole(1, 4), pick.whole(1, 5)
    whole = (c, h, w)
    other = pick((whole, (c, 1, 1), (1, h, w), (c, 1, w), (c, h, 1), (1, 1, 1), (1, h, 1)))
    shapes = pick(([whole, other], [other, whole], [(c, 1, w), (1, h, 1)], [(c,), (c,)], [(c, w), (c, 1)], [(1,), (c,)]))
    return list(shapes)


@_row
class Subtract(Arithmetic):
    """y = a - b."""

    kind: ClassVar[str] = "subtract"

    def f(self, a: Array, b: Array) -> Array:
        return a - b

    def derivatives(self, a: Array, b: Array) -> tuple[Any, Any]:
        return 1, -1


@_row
class Multiply(Arithmetic):
    """y = a b: gates, and the scaling of channels of squeeze-and-excitation."""

    kind: ClassVar[str] = "multiply"

    def f(self, a: Array, b: Array) -> Array:
        return a * b

    def derivatives(self, a: Array, b: Array) -> tuple[Any, Any]:
        return b, a


@_row
class Divide(Arithmetic):
    """y = a / b."""

    kind: ClassVar[str] = "divide"

    def f(self, a: Array, b: Array) -> Array:
        return a / b

    def derivatives(self, a: Array, b: Array) -> tuple[Any, Any]:
        return 1 / b, -a / (b * b)


@_row
class Maximum(Arithmetic):
    """y = max(a, b); equals share the gradient, as in PyTorch."""

    kind: ClassVar[str] = "maximum"

    def f(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)

    def derivatives(self, a: Array, b: Array) -> tuple[Any, Any]:
        return (a > b) + 0.5 * (a == b), (b > a) + 0.5 * (a == b)


@_row
class Minimum(Arithmetic):
    """y = min(a, b); equals share the gradient, as in PyTorch."""

    kind: ClassVar[str] = "minimum"

    def f(self, a: Array, b: Array) -> Array:
        return np.minimum(a, b)

    def derivatives(self, a: Array, b: Array) -> tuple[Any, Any]:
        return (a < b) + 0.5 * (a == b), (b < a) + 0.5 * (a == b)
