"""Brightness, contrast, saturation. Imported by chaos.augment; the fast half is cext/augment/color_jitter.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import Array, Core, Draws, Paint, Pair, Shape

GREY = np.array([0.299, 0.587, 0.114])  # of red, green, blue (ITU-R BT.601)


@dataclass(frozen=True)
class ColorJitter(Paint):
    """Changes brightness, contrast and saturation, in this order, each by a random factor f, as
    ``torchvision.transforms.ColorJitter`` does: f x; f x + (1 - f) m with m the mean grey of the image; f x + (1 - f) g with
    g each pixel's grey. Numbers count from black, which is 0. Pixels (uint8) stay within 0..255 after each.

    Parameters
    ----------
    brightness, contrast, saturation : float or (float, float)
        A factor of 1 - value..1 + value, at least 0, or of low..high; 0: as it is. Saturation needs images of three
        channels; of others, grey is the mean of all numbers.
    """

    brightness: Any = 0.0
    contrast: Any = 0.0
    saturation: Any = 0.0

    kind: ClassVar[str] = "color_jitter"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("brightness", "contrast", "saturation"):
            self._set(**{name: self._range(name, getattr(self, name), 1, 0, 1e3)})

    def check(self, shape: Shape) -> None:
        super().check(shape)
        if self.saturation != (1, 1) and shape[0] != 3:
            raise ValueError(f"{self} changes the saturation of images of 3 channels, not of {shape[0]}")

    def core(self) -> Core:
        return Core("color_jitter", (self.p, *self.brightness, *self.contrast, *self.saturation))

    def paint(self, x: Array, draws: Draws, black: float, unit: float, bounds: Pair) -> Array:
        def towards(f: float, rest: Array | float) -> Array:
            found: Array = np.clip(f * x + (1 - f) * rest, *bounds)
            return found

        if self.brightness != (1, 1):
            x = towards(draws.between(1, self.brightness), black)
        if self.contrast != (1, 1):
            x = towards(draws.between(2, self.contrast), _grey(x).mean())
        if self.saturation != (1, 1):
            x = towards(draws.between(3, self.saturation), _grey(x))
        return x


def _grey(x: Array) -> Array:
    return np.tensordot(GREY, x, 1) if len(x) == 3 else x
