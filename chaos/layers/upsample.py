"""Images at other sizes. Imported by chaos.layers; the fast half is cext/layers/upsample.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, whole
from .rearrange import core_shape

Lines = list[tuple[int, int, np.float32, np.float32]]
_FLOOR, _CEIL, _LINEAR = 0, 1, 2  # as cext/layers/upsample.c has them
_NO_LINE = (1, 1, np.float32(0), np.float32(0))  # the rows of a sequence


class Resampling(Layer):
    """A layer whose output i along an axis sees the input at i * scale + shift."""

    def _lines(self, shape: Shape) -> Lines:
        """(size, output's size, scale, shift) of rows and columns."""
        raise TypeError(f"{type(self).__name__} has no definition")

    def _how(self) -> int:
        """Whether it takes the entry below that place, above, or both."""
        raise TypeError(f"{type(self).__name__} has no definition")

    def core(self, *shapes: Shape) -> Core:
        (h, w) = self._lines(shapes[0])
        return Core("upsample", 0, (h[1], w[1], self._how()), (float(h[2]), float(h[3]), float(w[2]), float(w[3])))

    def _matrix(self, size: int, out: int, scale: np.float32, shift: np.float32, dtype: Any) -> Array:
        """What each output of an axis takes of each input: (out, size)."""
        at = np.clip(np.arange(out, dtype=np.float32) * scale + shift, np.float32(0), np.float32(size - 1))
        low = np.minimum((np.ceil(at) if self._how() == _CEIL else at).astype(np.int64), size - 1)
        part = (at - low.astype(np.float32)).astype(dtype) * (self._how() == _LINEAR) * (low < size - 1)
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


@dataclass(frozen=True, eq=False, repr=False)
class Upsample(Resampling):
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

    def _how(self) -> int:
        return _LINEAR if self.mode in ("linear", "bilinear") else _FLOOR

    def _lines(self, shape: Shape) -> Lines:
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
        return found if len(found) == 2 else [_NO_LINE, *found]

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


@dataclass(frozen=True, eq=False, repr=False)
class Resample(Resampling):
    """Images or sequences at another size, by any places of their pixels: output i along an axis sees the input at
    i * scale + shift, moved to the nearest that there is. `Upsample` has PyTorch's places.

    Parameters
    ----------
    size : tuple of int
        Of the output, by axis.
    scale, shift : tuple of float
        By axis.
    mode : {"floor", "ceil", "linear"}
        Which entry is taken: the one below the place, the one above, or both, weighted by how near they are.
    """

    size: tuple[int, ...]
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    mode: str = "linear"

    kind: ClassVar[str] = "resample"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.size) == len(self.scale) == len(self.shift) in (1, 2):
            raise ValueError(f"{self}: size, scale and shift must have one or two entries each")
        for size in self.size:
            whole("Resample: size", size)
        if not all(math.isfinite(n) for n in (*self.scale, *self.shift)):
            raise ValueError(f"{self}: scale and shift must be finite")
        if self.mode not in ("floor", "ceil", "linear"):
            raise ValueError(f"Resample: mode must be floor, ceil or linear, not {self.mode!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != len(self.size) + 1:
            raise ValueError(f"{self} has sizes of {len(self.size)} axes, its input has shape {shape}")
        return (shape[0], *self.size)

    def _how(self) -> int:
        return {"floor": _FLOOR, "ceil": _CEIL, "linear": _LINEAR}[self.mode]

    def _lines(self, shape: Shape) -> Lines:
        rows = zip(shape[1:], self.size, self.scale, self.shift, strict=True)
        found = [(size, out, np.float32(scale), np.float32(shift)) for size, out, scale, shift in rows]
        return found if len(found) == 2 else [_NO_LINE, *found]

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        axes = pick((1, 2))

        def some(values: Any) -> tuple[Any, ...]:
            return tuple(pick(values) for _ in range(axes))

        layer = cls(some((1, 2, 3, 7)), some((0.3, 0.5, 1.7)), some((0.0, -0.25, 0.4)), pick(("floor", "ceil", "linear")))
        return layer, [(pick(ODD), *some((1, 3, 5)))]
