"""Images at other sizes. Imported by chaos.layers; the fast half is cext/layers/upsample.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape
from .rearrange import core_shape


@dataclass(frozen=True, eq=False, repr=False)
class Upsample(Layer):
    """Images or sequences at another size, as ``torch.nn.Upsample``.

    Parameters
    ----------
    size : int or (int, int), optional
        Of the output; or `scale_factor`.
    scale_factor : float or (float, float), optional
    mode : {"nearest", "nearest-exact", "linear", "bilinear"}
        "linear" for sequences, "bilinear" for images.
    align_corners : bool
        Of the linear modes: the corners' pixels have the same places in input and output.
    """

    size: int | tuple[int, int] | None = None
    scale_factor: float | tuple[float, float] | None = None
    mode: str = "nearest"
    align_corners: bool = False

    kind: ClassVar[str] = "upsample"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.size is None) == (self.scale_factor is None):
            raise ValueError("Upsample: one of size and scale_factor is needed")
        if self.mode not in ("nearest", "nearest-exact", "linear", "bilinear"):
            raise ValueError(f"Upsample: mode must be nearest, nearest-exact, linear or bilinear, not {self.mode!r}")
        if self.align_corners and "nearest" in self.mode:
            raise ValueError(f"Upsample: align_corners has no meaning with mode={self.mode!r}")
        given = self.size if self.size is not None else self.scale_factor
        for n in given if isinstance(given, (tuple, list)) else (given,):
            right = not isinstance(n, bool) and isinstance(
                n, (int, np.integer, *(() if self.size is not None else (float,)))
            )
            if not right or not 0 < n < 2**31:  # type: ignore[operator]
                raise ValueError(
                    f"Upsample: {'size' if self.size is not None else 'scale_factor'} must be positive, not {n!r}"
                )

    def _sizes(self, shape: Shape) -> list[tuple[int, int, float | None]]:
        """(size, output's size, factor if it is given) of rows and columns."""
        given: Any = self.size if self.size is not None else self.scale_factor
        both = tuple(given) if isinstance(given, (tuple, list)) else (given,) * (len(shape) - 1)
        if len(both) != len(shape) - 1:
            raise ValueError(f"{self} on shape {shape}: {len(shape) - 1} sizes are needed, not {len(both)}")
        sizes = []
        for size, value in zip(shape[1:], both, strict=True):
            sizes.append(
                (size, int(value) if self.size is not None else math.floor(size * value), None if self.size else value)
            )
        return sizes

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) == 1 or (
            self.mode in ("linear", "bilinear") and len(shape) != {"linear": 2, "bilinear": 3}[self.mode]
        ):
            wanted = {"linear": "sequences (c, l)", "bilinear": "images (c, h, w)"}.get(self.mode, "images or sequences")
            raise ValueError(f"{self} needs {wanted}, its input has shape {shape}")
        sizes = self._sizes(shape)
        if min(out for _, out, _ in sizes) < 1:
            raise ValueError(f"{self} leaves nothing of its input of shape {shape}")
        return (shape[0], *(out for _, out, _ in sizes))

    def _lines(self, shape: Shape) -> list[tuple[int, int, np.float32, np.float32]]:
        """(size, output's size, scale, shift) of rows and columns: output i sees the input at i * scale + shift."""
        found = []
        for size, out, factor in self._sizes(shape):
            scale = np.float32(1 / factor if factor else size / out)
            shift = np.float32(0)
            if self.mode == "nearest-exact":
                shift = np.float32(0.5) * scale
            elif self.mode != "nearest" and self.align_corners:
                scale = np.float32((size - 1) / (out - 1) if out > 1 else 0)
            elif self.mode != "nearest":
                shift = np.float32(0.5) * scale - np.float32(0.5)
            found.append((size, out, scale, shift))
        return found if len(found) == 2 else [(1, 1, np.float32(0), np.float32(0)), *found]

    def core(self, *shapes: Shape) -> Core:
        (h, w) = self._lines(shapes[0])
        mode = 2 if self.mode in ("linear", "bilinear") else 0
        return Core("upsample", 0, (h[1], w[1], mode), (float(h[2]), float(h[3]), float(w[2]), float(w[3])))

    def _matrix(self, size: int, out: int, scale: np.float32, shift: np.float32, dtype: Any) -> Array:
        """What each output of an axis takes of each input: (out, size)."""
        at = np.clip(np.arange(out, dtype=np.float32) * scale + shift, np.float32(0), np.float32(size - 1))
        low = np.minimum(at.astype(np.int64), size - 1)
        linear = self.mode in ("linear", "bilinear")
        part = (at - low.astype(np.float32)).astype(dtype) * linear * (low < size - 1)
        matrix = np.zeros((out, size), dtype)
        matrix[np.arange(out), low] += 1 - part
        matrix[np.arange(out), np.minimum(low + 1, size - 1)] += part
        return matrix

    def _matrices(self, x: Array) -> list[Array]:
        return [self._matrix(*line, x.dtype) for line in self._lines(x.shape[1:])]

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        image = x.reshape(*x.shape[:2], *core_shape(x.shape[1:])[1:])
        y: Array = np.einsum("ih,nchw,jw->ncij", self._matrices(x)[0], image, self._matrices(x)[1])
        return y.reshape(len(x), *self.output_shape(x.shape[1:]))

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = inputs[0]
        image = dy.reshape(*dy.shape[:2], *core_shape(dy.shape[1:])[1:])
        dx: Array = np.einsum("ih,ncij,jw->nchw", self._matrices(x)[0], image, self._matrices(x)[1])
        return [dx.reshape(x.shape)], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        mode = pick(("nearest", "nearest-exact", "linear", "bilinear"))
        shape = (pick(ODD), pick.whole(1, 5)) + ((pick.whole(1, 5),) if mode == "bilinear" or mode[0] == "n" else ())
        corners = "linear" in mode and pick((True, False))
        if pick((True, False)):
            return cls(
                scale_factor=pick((2, 3, 1.5, 0.6) if min(shape[1:]) > 1 else (2, 3)), mode=mode, align_corners=corners
            ), [shape]
        return cls(pick.whole(1, 9), mode=mode, align_corners=corners), [shape]
