"""What every loss is: the targets that it takes, its options, its NumPy definition. For the files of this folder,
chaos.reference and chaos.network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..options import Numbers, WithOptions

Array = NDArray[Any]
IGNORED = -1  # the class of an answer that counts nothing, as the core knows it
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
    proves : bool
        It is there for proofs and trains nothing; lists leave it out.
    value : callable
        ``value(y, target, **options)``: mean loss of the samples. What a sample contributes depends on no other sample: the
        core has only one at a time.
    gradient : callable
        ``gradient(y, target, **options)``: of that mean, shaped as y.
    """

    kind: ClassVar[str]
    targets: ClassVar[tuple[str, ...]] = (CLASS,)
    proves: ClassVar[bool] = False
    value: Callable[..., float]
    gradient: Callable[..., Array]

    def _called(self) -> str:
        return f"loss {self.kind!r}"

    def form(self, output_shape: tuple[int, ...], target_shape: tuple[int, ...], integers: bool) -> str:
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
            MAP: f"integers of shape (n, {', '.join(map(str, output_shape[1:]))})" if len(output_shape) > 1 else "",
            VALUES: f"numbers of shape (n, {', '.join(map(str, output_shape))})",
        }
        known = " or ".join(wanted[form] for form in self.targets if wanted[form])
        got = f"(n, {', '.join(map(str, target_shape))})" if target_shape else "(n,)"
        hint = ""
        if target_shape == () and output_shape == (1,) and VALUES in self.targets:
            hint = '; of one number per image: chaos.data.Dataset(images, targets=y[:, None].astype("f"))'
        raise ValueError(f"{self._called()} takes {known}, not {'integers' if integers else 'numbers'} of shape {got}{hint}")

    def fit(self, form: str, output_shape: tuple[int, ...], options: dict[str, Any]) -> None:
        """ValueError where a list among the options has not one number per class (channel) of the outputs."""
        classes = self.classes(form, output_shape)
        for name, option in self.options.items():
            given = options[name]
            if isinstance(option, Numbers) and isinstance(given, list) and len(given) != classes:
                raise ValueError(
                    f"option {name} of {self._called()} must have {classes} numbers, one per {option.each} of outputs of "
                    f"shape {output_shape}, not {len(given)}"
                )

    def classes(self, form: str, output_shape: tuple[int, ...]) -> int:
        """How many classes an answer has: all outputs, or the channels where each pixel has an answer of its own."""
        return int(np.prod(output_shape)) if form == CLASS else output_shape[0]

    def bounds(self, options: dict[str, Any]) -> tuple[float, float]:
        """Within which values that are targets must lie."""
        return -np.inf, np.inf

    def answers(self, form: str, output_shape: tuple[int, ...]) -> int:
        """How many answers of a sample are right or wrong; 0: there is no right and wrong."""
        return int(np.prod(output_shape[1:])) if form == MAP else 1


def flat(y: Array) -> Array:
    """(n, k) of outputs of any shape."""
    return y.reshape(len(y), -1)


def onehot(y: Array, labels: Any) -> Array:
    """The one-hot vectors of classes, (n, k), in y's dtype."""
    vectors: Array = np.eye(flat(y).shape[1], dtype=y.dtype)[labels]
    return vectors


def rows(y: Array, target: Any) -> tuple[Array, Array]:
    """One row of outputs for each answer, (m, classes), and what is right there: m classes, or (m, classes) values."""
    target = np.asarray(target)
    if target.ndim == 1:
        return flat(y), target
    return _pixels_last(y), _pixels_last(target) if target.ndim == y.ndim else target.reshape(-1)


def shaped(by_row: Array, y: Array, target: Any) -> Array:
    """What belongs to `rows`, shaped as y."""
    if np.ndim(target) == 1:
        return by_row.reshape(y.shape)
    return np.moveaxis(by_row.reshape(len(y), -1, y.shape[1]), 2, 1).reshape(y.shape)


def _pixels_last(y: Array) -> Array:
    return np.moveaxis(y.reshape(*y.shape[:2], -1), 1, 2).reshape(-1, y.shape[1])


def wanted(y: Array, right: Array, weight: Sequence[float] | None, ignore_index: int) -> Array:
    """The weighted targets of rows of outputs: weight of the class x onehot(class), 0 where the class is to be ignored."""
    t = np.zeros_like(y)
    at = np.flatnonzero(right != ignore_index)
    t[at, right[at]] = 1 if weight is None else np.asarray(weight)[right[at]]
    return t
