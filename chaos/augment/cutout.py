"""Boxes cut out. Imported by chaos.augment; the fast half is cext/augment/cutout.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Array, Core, Draws, Paint, Pair


@dataclass(frozen=True)
class Cutout(Paint):
    """Boxes around random pixels become one number; what of a box lies outside of the image is lost (DeVries, Taylor 2017).

    Parameters
    ----------
    size : int or (int, int)
        Of a box in pixels, or (height, width).
    boxes : int
        How many.
    fill : float
        The number, in the images' own (uint8: 0..255).
    """

    size: Any = 8
    boxes: int = 1
    fill: float = 0.0

    kind: ClassVar[str] = "cutout"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            size=self._sides("size", self.size, 1),
            boxes=self._number("boxes", self.boxes, 1, 1000, whole=True),
            fill=self._number("fill", self.fill, -1e30, 1e30),
        )

    def core(self) -> Core:
        return Core("cutout", (self.p, *self.size, float(self.boxes), self.fill))

    def paint(self, x: Array, draws: Draws, black: float, unit: float, bounds: Pair) -> Array:
        x = x.copy()
        for box in range(self.boxes):
            sides = []
            for i, (size, n) in enumerate(zip(self.size, x.shape[1:], strict=True)):
                first = int(draws.uniform(1 + 2 * box + i) * n) - size // 2
                sides.append(slice(max(first, 0), max(first + size, 0)))
            x[:, sides[0], sides[1]] = black + unit * self.fill
        return x
