"""Max-pooling. Imported by chaos.layers; the fast half is cext/layers/max_pool2d.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, pair


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool2d(Layer):
    """Largest value of each window, as ``torch.nn.MaxPool2d`` without padding.

    y[c, i, j] = max over a, b of x[c, i*stride + a, j*stride + b]; the gradient goes to the first of equal maxima.
    Output size: floor((size - kernel) / stride) + 1.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        The kernel size unless given.
    """

    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None

    kind: ClassVar[str] = "max_pool2d"

    def __post_init__(self) -> None:
        super().__post_init__()
        pair("MaxPool2d: kernel_size", self.kernel_size)
        if self.stride is not None:
            pair("MaxPool2d: stride", self.stride)

    def _steps(self) -> tuple[int, int]:
        return pair("", self.kernel_size if self.stride is None else self.stride)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != 3:
            raise ValueError(f"{self} needs images (c, h, w), its input has shape {shape}")
        sizes = []
        for size, kernel, stride in zip(shape[1:], pair("", self.kernel_size), self._steps(), strict=True):
            if size < kernel:
                raise ValueError(
                    f"{self} does not fit its input of shape {shape}: floor(({size} - {kernel}) / {stride}) + 1 < 1"
                )
            sizes.append((size - kernel) // stride + 1)
        return shape[0], *sizes

    def core(self, *shapes: Shape) -> Core:
        return Core("max_pool2d", 0, (*pair("", self.kernel_size), *self._steps()))

    def _windows(self, x: Array) -> Array:
        """(n, c, i, j, a*b)"""
        sh, sw = self._steps()
        windows = np.lib.stride_tricks.sliding_window_view(x, pair("", self.kernel_size), axis=(2, 3))[:, :, ::sh, ::sw]
        return windows.reshape(*windows.shape[:4], -1)

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        y: Array = self._windows(inputs[0]).max(-1)
        return y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        won = self._windows(inputs[0]).argmax(-1)
        (sh, sw), (_, kw) = self._steps(), pair("", self.kernel_size)
        n, c, i, j = np.indices(won.shape)
        dx = np.zeros(inputs[0].shape, dy.dtype)
        np.add.at(dx, (n, c, i * sh + won // kw, j * sw + won % kw), dy)
        return [dx], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        stride = pick((None, (pick.whole(1, 4), pick.whole(1, 4))))
        return cls((pick.whole(1, 3), pick.whole(1, 3)), stride), [(pick(ODD), pick.whole(3, 9), pick.whole(3, 9))]
