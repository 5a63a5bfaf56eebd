"""LeNet-5's output layer. Imported by chaos.layers; the fast half is cext/layers/rbf.c."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained

# 12 rows of 7 pixels
_DIGITS = """
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.#...#. ..###.. ##...## ##...## ...###. ##..... .##.... ##...## ##...## ##...##
##...## .####.. ##...## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## ##..##. ######. ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ..####. ##..##. .....## ######. ....##. .#####. .######
##...## ...##.. ...##.. .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. ..##... .....## ....##. .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## ....##. ##...## ##...## ..##... ##...## .....##
.#...#. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
"""


def digits() -> tuple[tuple[float, ...], ...]:
    """Ten codes of 84 numbers, 1 where the bitmap of a digit is black, else -1."""
    rows = [row.split() for row in _DIGITS.split("\n") if row]
    return tuple(tuple(1.0 if pixel == "#" else -1.0 for row in rows for pixel in row[digit]) for digit in range(10))


@dataclass(frozen=True, eq=False, repr=False)
class RBF(Layer):
    """y_i = -sum_j (x_j - code_ij)^2: the *negated* squared distance of the input to a fixed code per class, so that the
    largest output is the nearest code's, as everywhere else. LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning
    applied to document recognition, eq. 7 without its sign; the loss "rbf" is their eq. 8 and 9.

    Parameters
    ----------
    codes : sequence of rows of numbers, optional
        One row per class, as long as the input. None: ten digits as bitmaps of 7 x 12 pixels, 1 and -1, for inputs of 84
        numbers (drawn in the manner of the paper's figure 3, not copied from it).

    The codes are kept with the weights, under the layer's name; training leaves them as they are.
    """

    codes: Sequence[Sequence[float]] | None = None

    kind: ClassVar[str] = "rbf"
    part_names: ClassVar[tuple[str, ...]] = ("codes",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes is None:
            return
        codes: Array = np.empty(0, np.float32)
        with contextlib.suppress(TypeError, ValueError):
            codes = np.asarray(self.codes, np.float32)
        if codes.ndim != 2 or not codes.size or not np.isfinite(codes).all():
            raise ValueError(
                f"RBF: codes must be rows of finite numbers, all of the same length, one row per class, not {self.codes!r}"
            )
        object.__setattr__(self, "codes", tuple(tuple(float(value) for value in row) for row in codes))

    def _codes(self) -> Sequence[Sequence[float]]:
        return digits() if self.codes is None else self.codes

    def output_shape(self, *shapes: Shape) -> Shape:
        codes = self._codes()
        if shapes[0] != (len(codes[0]),):
            raise ValueError(f"RBF: the codes have {len(codes[0])} numbers, the input has shape {shapes[0]}")
        return (len(codes),)

    def core(self, *shapes: Shape) -> Core:
        return Core("rbf", len(self._codes()))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        return {"codes": State((len(self._codes()), shapes[0][0]))}

    def initial_values(self, rng: np.random.Generator | None, *shapes: Shape) -> dict[str, NDArray[np.float32]]:
        return {"codes": np.array(self._codes(), np.float32)}

    def macs(self, *shapes: Shape) -> int:
        return math.prod(shapes[0]) * len(self._codes())

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        y: Array = -np.square(inputs[0][:, None] - parts["codes"]).sum(2)
        return y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        dx = 2 * (dy[:, :, None] * (parts["codes"] - inputs[0][:, None])).sum(1)
        return [dx], {"codes": np.zeros(parts["codes"].shape, dy.dtype)}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        if pick((True, False)):
            return cls(), [(84,)]
        classes, features = pick(ODD), pick(ODD)
        return cls([[(5 * i + 3 * j) % 7 / 3 - 1 for j in range(features)] for i in range(classes)]), [(features,)]
