"""Kinds that move an image by a matrix. Imported by chaos.augment; the fast half is cext/augment/moves.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import Array, Draws, Move, Pair


@dataclass(frozen=True)
class Shift(Move):
    """Moves the image by up to `pixels` in each direction.

    Parameters
    ----------
    pixels : int or (int, int)
        At most so many, both ways, or (vertical, horizontal).
    subpixel : bool
        By any real number within these bounds, instead of whole ones.
    """

    pixels: Any = 2
    subpixel: bool = False

    kind: ClassVar[str] = "shift"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.subpixel, (bool, np.bool_)):
            raise ValueError(f"Shift: subpixel must be True or False, not {self.subpixel!r}")
        self._set(subpixel=bool(self.subpixel))
        self._set(pixels=self._sides("pixels", self.pixels, 0, whole=not self.subpixel))

    def _core(self) -> tuple[str, tuple[float, ...]]:
        return "shift", (*self.pixels, float(self.subpixel))

    def matrix(self, draws: Draws) -> tuple[Array, Array]:
        by = [
            draws.between(1 + i, (-most, most)) if self.subpixel else draws.whole(1 + i, most)
            for i, most in enumerate(self.pixels)
        ]
        return np.eye(2), -np.array(by, np.float64)


@dataclass(frozen=True)
class Crop(Move):
    """A window of the image's size at a random place of the image with `padding` pixels around it
    (``torchvision.transforms.RandomCrop``; He et al. 2016 have 4 for CIFAR).

    Parameters
    ----------
    padding : int or (int, int)
        On each side, or (above and below, left and right).
    """

    padding: Any = 4

    kind: ClassVar[str] = "crop"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(padding=self._sides("padding", self.padding, 0))

    def _core(self) -> tuple[str, tuple[float, ...]]:
        return "shift", (*self.padding, 0.0)

    def matrix(self, draws: Draws) -> tuple[Array, Array]:
        return np.eye(2), -np.array([draws.whole(1 + i, most) for i, most in enumerate(self.padding)], np.float64)


@dataclass(frozen=True)
class Rotation(Move):
    """Turns the image about its centre, counter-clockwise.

    Parameters
    ----------
    degrees : float or (float, float)
        An angle of -degrees..degrees, or of low..high.
    """

    degrees: Any = 15.0

    kind: ClassVar[str] = "rotation"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(degrees=self._range("degrees", self.degrees, 0, -360, 360))

    def _core(self) -> tuple[str, tuple[float, ...]]:
        return "rotation", _radians(self.degrees)

    def matrix(self, draws: Draws) -> tuple[Array, Array]:
        angle = draws.between(1, _radians(self.degrees))
        return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]), np.zeros(2)


@dataclass(frozen=True)
class Scale(Move):
    """Enlarges or reduces the image about its centre.

    Parameters
    ----------
    factor : float or (float, float)
        Between 1 - factor and 1 + factor, or between low and high; 2 doubles all lengths.
    independent : bool
        Height and width each have a factor of their own.
    """

    factor: Any = 0.1
    independent: bool = False

    kind: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.independent, (bool, np.bool_)):
            raise ValueError(f"Scale: independent must be True or False, not {self.independent!r}")
        self._set(factor=self._range("factor", self.factor, 1, 0.01, 100), independent=bool(self.independent))

    def _core(self) -> tuple[str, tuple[float, ...]]:
        return "scale", (*self.factor, float(self.independent))

    def matrix(self, draws: Draws) -> tuple[Array, Array]:
        y = draws.between(1, self.factor)
        x = draws.between(2, self.factor) if self.independent else y
        return np.diag([1 / y, 1 / x]), np.zeros(2)


@dataclass(frozen=True)
class Shear(Move):
    """Slants the image: rows are moved in proportion to their distance from the centre, or columns.

    Parameters
    ----------
    degrees : float or (float, float)
        The angle by which columns lean, of -degrees..degrees, or of low..high.
    vertical : float or (float, float)
        Likewise that of rows.
    """

    degrees: Any = 10.0
    vertical: Any = 0.0

    kind: ClassVar[str] = "shear"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("degrees", "vertical"):
            self._set(**{name: self._range(name, getattr(self, name), 0, -89, 89)})

    def _core(self) -> tuple[str, tuple[float, ...]]:
        return "shear", (*_radians(self.degrees), *_radians(self.vertical))

    def matrix(self, draws: Draws) -> tuple[Array, Array]:
        across, down = draws.between(1, _radians(self.degrees)), draws.between(2, _radians(self.vertical))
        return np.array([[1, -math.tan(down)], [-math.tan(across), 1]]), np.zeros(2)


@dataclass(frozen=True)
class Flip(Move):
    """Mirrors the image: left becomes right. By default half of the images are."""

    p: float = 0.5

    kind: ClassVar[str] = "flip"

    def _core(self) -> tuple[str, tuple[float, ...]]:
        return "flip", ()

    def matrix(self, draws: Draws) -> tuple[Array, Array]:
        return np.diag([1.0, -1.0]), np.zeros(2)


@dataclass(frozen=True)
class VerticalFlip(Move):
    """Turns the image upside down. By default half of the images are."""

    p: float = 0.5

    kind: ClassVar[str] = "vertical_flip"

    def _core(self) -> tuple[str, tuple[float, ...]]:
        return "vertical_flip", ()

    def matrix(self, draws: Draws) -> tuple[Array, Array]:
        return np.diag([-1.0, 1.0]), np.zeros(2)


def _radians(degrees: Pair) -> Pair:
    return math.radians(degrees[0]), math.radians(degrees[1])
