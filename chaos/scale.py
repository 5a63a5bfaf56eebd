"""What the numbers of images mean to a network: pixels of 0..255, or floats of some scale; and whether images are like those
of its training. For chaos.network, chaos.training and chaos.estimators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import extremes, warn_caller
from .errors import DataError

SEEN = "which the network sees as -1 (black) to 1 (white)"
BEYOND = 2.0  # floats beyond this are none of -1..1, noise and overshoot allowed for
UNITS = 64.0  # a factor between floats that other units make (255, 127.5, 65535), chance hardly


@dataclass(frozen=True)
class Scale:
    """The scale of one input's numbers.

    Attributes
    ----------
    pixels : bool
        uint8, which networks see as x / 127.5 - 1.
    least, most : float
        Of the floats.
    """

    pixels: bool
    least: float
    most: float

    @classmethod
    def of(cls, images: NDArray[Any]) -> Scale:
        """That of uint8 or finite floating-point images."""
        if images.dtype == np.uint8:
            return cls(True, 0.0, 255.0)
        return cls(False, *(extremes(images) or (0.0, 0.0)))

    @property
    def largest(self) -> float:
        return max(abs(self.least), abs(self.most))

    def holds(self, least: float, most: float) -> bool:
        """Whether floats from `least` to `most` are certainly like those of this scale of floats."""
        return self.least <= least and most <= self.most and UNITS * max(-least, most) > self.largest

    def __str__(self) -> str:
        return "pixels (uint8)" if self.pixels else f"floats from {self.least:.4g} to {self.most:.4g}"


def check(trained: Sequence[Scale], given: Sequence[Scale]) -> None:
    """Compares images with those of a network's training, input by input: DataError where they cannot be of one scale, a
    warning where they hardly are."""
    for known, new in zip(trained, given, strict=True):
        if known.pixels and not new.pixels:
            _floats_for_pixels(new)
        elif new.pixels and not known.pixels:
            _pixels_for_floats(known)
        elif not new.pixels:
            _floats_for_floats(known, new)


def _floats_for_pixels(new: Scale) -> None:
    if new.largest > BEYOND:
        raise DataError(
            f"images: {new}, but the network was trained on pixels (uint8), {SEEN}: give uint8, or x / 127.5 - 1 of pixels x"
        )
    if 0 <= new.least < new.most:
        warn_caller(
            f"images: {new}, none below 0, but the network was trained on pixels (uint8), {SEEN}: "
            "give uint8, or 2 * x - 1 of floats x from 0 to 1"
        )


def _pixels_for_floats(known: Scale) -> None:
    if known.least < 0 and 0.5 <= known.largest <= BEYOND:
        return  # trained on what pixels are seen as
    wanted = "x / 255" if 0 <= known.least and 0.5 <= known.most <= 1 else "floats of that scale"
    raise DataError(f"images: pixels (uint8), {SEEN}, but it was trained on {known}: give {wanted}")


def _floats_for_floats(known: Scale, new: Scale) -> None:
    larger, smaller = max(known.largest, new.largest), min(known.largest, new.largest)
    other_units = new.least < new.most and larger >= UNITS * smaller
    if other_units or (known.least >= 0 and new.least < -0.25 * known.largest):
        warn_caller(f"images: {new}, but the network was trained on {known}")


def to_json(scales: Sequence[Scale]) -> list[list[Any]]:
    """As it is kept in files."""
    return [list(astuple(scale)) for scale in scales]


def from_json(kept: Any, inputs: int) -> tuple[Scale, ...]:
    """The way back; ValueError where it is damaged."""
    try:
        scales = tuple(Scale(bool(pixels), float(least), float(most)) for pixels, least, most in kept)
    except (TypeError, ValueError):
        scales = ()
    if len(scales) != inputs or not all(np.isfinite((scale.least, scale.most)).all() for scale in scales):
        raise ValueError(f"the scale of the images that it was trained on is damaged: {kept!r}")
    return scales
