"""Borders around images. Imported by chaos.layers; the fast half is cext/layers/pad.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape
from .rearrange import core_shape

_MODES = ("constant", "reflect", "replicate", "circular")


@dataclass(frozen=True, eq=False, repr=False)
class Pad(Layer):
    """Borders around images or sequences, as ``torch.nn.functional.pad``.

    Parameters
    ----------
    padding : int or tuple of int
        One width for all sides, or (left, right) or (left, right, top, bottom). A constant border may be negative: that much
        is cut away.
    mode : {"constant", "reflect", "replicate", "circular"}
    value : float
        Of a constant border.
    """

    padding: int | tuple[int, ...]
    mode: str = "constant"
    value: float = 0.0

    kind: ClassVar[str] = "pad"

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = self.padding if isinstance(self.padding, (tuple, list)) else (self.padding,)
        if len(sides) not in (1, 2, 4) or not all(
            isinstance(n, (int, np.integer)) and not isinstance(n, bool) and abs(n) < 2**30 for n in sides
        ):
            raise ValueError(f"Pad: padding must be one, two or four whole numbers, not {self.padding!r}")
        if self.mode not in _MODES:
            raise ValueError(f"Pad: mode must be one of {', '.join(_MODES)}, not {self.mode!r}")
        if (
            isinstance(self.value, bool)
            or not isinstance(self.value, (int, float, np.number))
            or not math.isfinite(self.value)
        ):
            raise ValueError(f"Pad: value must be a finite number, not {self.value!r}")

    def _sides(self, shape: Shape) -> tuple[int, int, int, int]:
        """(top, bottom, left, right)"""
        if not isinstance(self.padding, (tuple, list)):
            return (self.padding if len(shape) == 3 else 0,) * 2 + (self.padding,) * 2
        left, right, top, bottom = (*self.padding * (2 if len(self.padding) == 1 else 1), 0, 0)[:4]
        return top, bottom, left, right

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        top, bottom, left, right = sides = self._sides(shape)
        if len(shape) == 1 or (len(shape) == 2 and (top or bottom)):
            raise ValueError(f"{self} needs {'images (c, h, w)' if top or bottom else 'images or sequences'}, not {shape}")
        h, w = core_shape(shape)[1:]
        for size, before, behind in ((h, top, bottom), (w, left, right)):
            most = {"reflect": size - 1, "circular": size}.get(self.mode)
            if (self.mode != "constant" and min(before, behind) < 0) or (most is not None and max(before, behind) > most):
                raise ValueError(f"{self} on shape {shape}: widths must be 0 to {'any number' if most is None else most}")
            if size + before + behind < 1:
                raise ValueError(f"{self} on shape {shape}: {sides} leave nothing")
        return (shape[0], h + top + bottom, w + left + right) if len(shape) == 3 else (shape[0], w + left + right)

    def core(self, *shapes: Shape) -> Core:
        return Core("pad", 0, (*self._sides(shapes[0]), _MODES.index(self.mode)), (float(self.value),))

    def _places(self, size: int, before: int, behind: int) -> Array:
        """Of each entry of an axis which one it is; -1: the constant."""
        if self.mode == "constant":
            found = np.arange(-before, size + behind)
            return np.where((found >= 0) & (found < size), found, -1)
        mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[self.mode]
        return np.pad(np.arange(size), (before, behind), mode)  # type: ignore[call-overload, no-any-return]

    def _grid(self, x: Array) -> tuple[Array, Array, Array]:
        """(rows, columns, whether they are of the input) of every output pixel."""
        h, w = core_shape(x.shape[1:])[1:]
        top, bottom, left, right = self._sides(x.shape[1:])
        rows, columns = self._places(h, top, bottom)[:, None], self._places(w, left, right)[None]
        return rows, columns, (rows >= 0) & (columns >= 0)

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        rows, columns, inside = self._grid(x)
        image = x.reshape(*x.shape[:2], *core_shape(x.shape[1:])[1:])
        y = np.where(inside, image[:, :, rows, columns], np.asarray(self.value, x.dtype))
        return y.reshape(len(x), *self.output_shape(x.shape[1:]))

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = inputs[0]
        rows, columns, inside = self._grid(x)
        image = np.zeros((*x.shape[:2], *core_shape(x.shape[1:])[1:]), dy.dtype)
        at: Any = (slice(None), slice(None), rows, columns)
        np.add.at(image, at, dy.reshape(*dy.shape[:2], *inside.shape) * inside)
        return [image.reshape(x.shape)], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        mode, most = pick(_MODES), 3
        least = -1 if mode == "constant" else 0
        sides = tuple(pick.whole(least, most) for _ in range(4))
        value = pick((0.0, 0.5)) if mode == "constant" else 0.0
        if pick((True, False)):
            return cls(sides, mode, value), [(pick(ODD), pick.whole(4, 6), pick.whole(4, 6))]
        return cls(sides[:2], mode, value), [(pick(ODD), pick.whole(4, 9))]
