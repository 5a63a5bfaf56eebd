"""Pooling over regions of an image. Imported by chaos.layers; the fast half is cext/layers/roi_pools.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .avg_pools import Matrix, mixed
from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, pair
from .max_pool2d import Size, Windows, check_flag, largest, to_winners

_FAR = 1e6  # pixels: coordinates of boxes count as no larger


@dataclass(frozen=True, eq=False, repr=False)
class _Regions(Layer):
    output_size: Size
    spatial_scale: float

    inputs: ClassVar[tuple[int, int | None]] = (2, 2)
    no_gradient: ClassVar[tuple[int, ...]] = (1,)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._size()
        scale = self.spatial_scale
        if isinstance(scale, bool) or not isinstance(scale, (int, float, np.number)) or not 0 < scale < math.inf:
            raise ValueError(f"{type(self).__name__}: spatial_scale must be a finite number above 0, not {scale!r}")

    def _size(self) -> tuple[int, int]:
        return pair(f"{type(self).__name__}: output_size", self.output_size)

    def output_shape(self, *shapes: Shape) -> Shape:
        image, boxes = shapes
        if len(image) != 3:
            raise ValueError(f"{self} needs images (c, h, w) as its first input, which has shape {image}")
        if len(boxes) != 2 or boxes[1] != 4:
            raise ValueError(
                f"{self} needs boxes (number, 4), x1, y1, x2, y2 of each, as its second input, which has shape {boxes}"
            )
        return boxes[0] * image[0], *self._size()

    def _corners(self, box: Array) -> list[float]:
        scaled = np.where(np.isnan(box), -_FAR, box * self.spatial_scale)
        return [float(value) for value in np.clip(scaled, -_FAR, _FAR)]

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        size = pick.whole(1, 4), pick.whole(1, 4)
        image = (pick(ODD), pick.whole(1, 9), pick.whole(1, 9))
        return cls(size, pick((1.0, 0.5, 4.0)), **cls._more(pick)), [image, (pick.whole(1, 3), 4)]

    @classmethod
    def _more(cls, pick: Any) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, eq=False, repr=False)
class RoIPool(_Regions):
    """The largest entries of windows over regions of an image (Girshick 2015, "Fast R-CNN"), as torchvision's RoIPool.

    ``chaos.RoIPool(7, 1 / 16)(features, boxes)``: features (c, h, w) and K boxes of each image as an input of shape (K, 4),
    x1, y1, x2, y2 as floats. Output: (K*c, height, width), the channels of the first box first. A box is scaled and rounded
    to whole pixels, its end included; window i of n covers floor(i * length / n) up to ceil((i + 1) * length / n) of it,
    computed with whole numbers. Where it lies outside the image the output is 0. The gradient goes to the features only.

    Parameters
    ----------
    output_size : int or (int, int)
    spatial_scale : float
        Pixels of the features per unit of the boxes.
    """

    kind: ClassVar[str] = "roi_pool"

    def core(self, *shapes: Shape) -> Core:
        return Core("roi_pool", 0, self._size(), (float(self.spatial_scale),))

    def _sides(self, box: Array, shape: Shape) -> tuple[Windows, Windows]:
        corners = [math.copysign(math.floor(abs(value) + 0.5), value) for value in self._corners(box)]
        found: tuple[Windows, Windows] = [], []
        for side, into in enumerate(found):
            first, last, n = int(corners[1 - side]), int(corners[3 - side]), self._size()[side]
            length = max(last - first + 1, 1)
            for i in range(n):
                window = np.arange(first + i * length // n, first - (-(i + 1) * length // n))
                into.append(window[(window >= 0) & (window < shape[side])])
        return found

    def _boxes(self, x: Array, boxes: Array) -> tuple[Array, Array]:
        """Outputs and places of the winners, (n, K, c, i, j); -1 where a window is empty."""
        y = np.empty((*boxes.shape[:2], x.shape[1], *self._size()), x.dtype)
        won = np.empty(y.shape, np.int64)
        for n, k in np.ndindex(boxes.shape[:2]):
            there = largest(x[n : n + 1], *self._sides(boxes[n, k], x.shape[2:]))
            y[n, k], won[n, k] = there[0][0], there[1][0]
        return y, won

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        y, _ = self._boxes(*inputs)
        return y.reshape(len(y), -1, *y.shape[3:])

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x, boxes = inputs
        _, won = self._boxes(x, boxes)
        dy = dy.reshape(won.shape)
        dx = sum((to_winners(dy[:, k], won[:, k], x.shape) for k in range(won.shape[1])), np.zeros(x.shape, dy.dtype))
        return [dx, np.zeros_like(boxes)], {}


@dataclass(frozen=True, eq=False, repr=False)
class RoIAlign(_Regions):
    """Means of interpolated points in windows over regions of an image (He, Gkioxari, Dollar, Girshick 2017, "Mask R-CNN"),
    as torchvision's RoIAlign.

    ``chaos.RoIAlign(7, 1 / 16, 2)(features, boxes)``: inputs and output as those of `RoIPool`, without rounding. A box is
    cut into height x width windows, each sampled at a grid of points, which are interpolated linearly between the four
    pixels around them; points more than a pixel outside the image count as 0. The gradient goes to the features only.

    Parameters
    ----------
    output_size : int or (int, int)
    spatial_scale : float
        Pixels of the features per unit of the boxes.
    sampling_ratio : int
        Points of a window along each side; 0 or less: as many as it is pixels long, rounded up.
    aligned : bool
        Whether pixels are squares around their coordinates, so that boxes are shifted by half a pixel; without, a box is at
        least one pixel long.
    """

    sampling_ratio: int
    aligned: bool = False

    kind: ClassVar[str] = "roi_align"

    def __post_init__(self) -> None:
        super().__post_init__()
        ratio = self.sampling_ratio
        if isinstance(ratio, bool) or not isinstance(ratio, (int, np.integer)):
            raise ValueError(f"RoIAlign: sampling_ratio must be a whole number, not {ratio!r}")
        check_flag(self, "aligned")

    def core(self, *shapes: Shape) -> Core:
        samples = max(int(self.sampling_ratio), 0)
        return Core("roi_align", 0, (*self._size(), samples, int(self.aligned)), (float(self.spatial_scale),))

    def _matrix(self, begin: float, end: float, count: int, size: int) -> Matrix:
        """The weights of a side's pixels in each window."""
        length = end - begin if self.aligned else max(end - begin, 1.0)
        samples = int(self.sampling_ratio) if self.sampling_ratio > 0 else math.ceil(length / count)
        matrix = np.zeros((count, size))
        for i in range(count):
            for s in range(samples):
                at = begin + i * length / count + (s + 0.5) * length / count / samples
                if -1 <= at <= size:
                    at = min(max(at, 0), size - 1)
                    low = int(at)
                    matrix[i, low] += (1 - at + low) / samples
                    matrix[i, min(low + 1, size - 1)] += (at - low) / samples
        return matrix

    def _matrices(self, box: Array, shape: Shape) -> tuple[Matrix, Matrix]:
        x1, y1, x2, y2 = (value - (0.5 if self.aligned else 0) for value in self._corners(box))
        high, wide = self._size()
        return self._matrix(y1, y2, high, shape[0]), self._matrix(x1, x2, wide, shape[1])

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x, boxes = inputs
        y = np.empty((*boxes.shape[:2], x.shape[1], *self._size()), x.dtype)
        for n, k in np.ndindex(boxes.shape[:2]):
            y[n, k] = mixed(self._matrices(boxes[n, k], x.shape[2:]), x[n : n + 1])[0]
        return y.reshape(len(y), -1, *y.shape[3:])

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x, boxes = inputs
        dx, dy = np.zeros(x.shape, dy.dtype), dy.reshape(*boxes.shape[:2], x.shape[1], *self._size())
        for n, k in np.ndindex(boxes.shape[:2]):
            rows, columns = self._matrices(boxes[n, k], x.shape[2:])
            dx[n] += mixed((rows.T, columns.T), dy[n : n + 1, k])[0]
        return [dx, np.zeros_like(boxes)], {}

    @classmethod
    def _more(cls, pick: Any) -> dict[str, Any]:
        return {"sampling_ratio": pick((0, 1, 2, 3)), "aligned": pick((False, True))}
