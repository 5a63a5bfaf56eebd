"""What every loss is: the targets that it takes, its options, its NumPy definition. For the files of this folder,
chaos.reference and chaos.network."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..options import WithOptions

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]

CLASS, MAP, VALUES = "class", "map", "values"  # as the core knows them


class Loss(WithOptions):
    """A loss of outputs y (n, *output shape) against a target, in one of three forms:

    "class"
        (n,) integers: which of the outputs, counted in C order, is right.
    "map"
        (n, *sizes) integers for outputs (n, channels, *sizes): which channel is right at each pixel.
    "values"
        (n, *output shape) real numbers.

    Attributes
    ----------
    kind : str
    targets : tuple of str
        The forms that it takes.
    """

    kind: ClassVar[str]
    targets: ClassVar[tuple[str, ...]] = (CLASS,)

    def _called(self) -> str:
        return f"loss {self.kind!r}"

    def form(self, output_shape: Shape, target_shape: Shape, integers: bool) -> str:
        """The form of a target whose entries, one per sample, have `target_shape`; ValueError where the loss takes no such
        target."""
        found = None
        if integers and target_shape == ():
            found = CLASS
        elif integers and len(output_shape) > 1 and target_shape == output_shape[1:] and MAP in self.targets:
            found = MAP
        elif target_shape == output_shape:
            found = VALUES
        if found in self.targets:
            return found
        wanted = {
            CLASS: "integers of shape (n,)",
            MAP: f"integers of shape (n, {', '.join(map(str, output_shape[1:]))})" if len(output_shape) > 1 else None,
            VALUES: f"numbers of shape (n, {', '.join(map(str, output_shape))})",
        }
        known = " or ".join(text for text in (wanted[form] for form in self.targets) if text)
        got = f"(n, {', '.join(map(str, target_shape))})" if target_shape else "(n,)"
        raise ValueError(f"{self._called()} takes {known}, not {'integers' if integers else 'numbers'} of shape {got}")

    def answers(self, form: str, output_shape: Shape) -> int:
        """How many answers of a sample are right or wrong; 0: there is no right and wrong."""
        return int(np.prod(output_shape[1:])) if form == MAP else 1

    # *args and **options together let every kind name options of its own
    def value(self, y: Array, target: Any, *args: Any, **options: Any) -> Any:
        """Mean loss of the samples."""
        raise TypeError(f"{type(self).__name__} has no definition")

    def gradient(self, y: Array, target: Any, *args: Any, **options: Any) -> Array:
        """Gradient of that mean, shaped as y."""
        raise TypeError(f"{type(self).__name__} has no definition")


def flat(y: Array) -> Array:
    """(n, k) of outputs of any shape."""
    return y.reshape(len(y), -1)


def onehot(y: Array, labels: Array) -> Array:
    """The one-hot vectors of classes, (n, k), in y's dtype."""
    return np.eye(flat(y).shape[1], dtype=y.dtype)[labels]


def pixels_last(y: Array, target: Any) -> tuple[Array, Array]:
    """(n * pixels, channels) of outputs whose target is a map, and the n * pixels right channels."""
    return np.moveaxis(y.reshape(*y.shape[:2], -1), 1, 2).reshape(-1, y.shape[1]), np.reshape(target, -1)
