"""Pooling by chance. Imported by chaos.layers; the fast half is cext/layers/stochastic_pool2d.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape
from .max_pool2d import Size, SlidingPool, to_winners
from .random import of_values, uniform


@dataclass(frozen=True, eq=False, repr=False)
class StochasticPool2d(SlidingPool):
    """One entry of each window, drawn with probability x / sum of x while the network trains; the mean with these
    probabilities, sum of x^2 / sum of x, otherwise (Zeiler, Fergus 2013, "Stochastic pooling for regularization of deep
    convolutional neural networks"). Entries below 0 count as 0, as behind a ReLU; where none is above, the output is 0.
    What is drawn depends on seed, epoch, image and layer alone: not on the worker, the batch, the order or the rank.

    Output size: floor((size - kernel) / stride) + 1.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        The kernel size unless given.
    """

    kernel_size: Size
    stride: Size | None = None

    kind: ClassVar[str] = "stochastic_pool2d"

    def core(self, *shapes: Shape) -> Core:
        return Core("stochastic_pool2d", 0, (*self._pair("kernel_size"), *self._steps()))

    def _windows(self, x: Array) -> tuple[Array, Array]:
        """What is above 0 in the windows of images (n, c, h, w), (n, c, i, j, a*b), and the places y * w + x of it."""
        rows, columns = (np.array(side) for side in self._sides(x.shape[1:]))
        at = rows[:, None, :, None] * x.shape[3] + columns[None, :, None, :]
        at = at.reshape(*at.shape[:2], -1)
        return np.maximum(x.reshape(*x.shape[:2], -1)[:, :, at], 0), at

    def _drawn(self, x: Array, context: Context) -> Array:
        """The places of the entries drawn; -1: none."""
        assert context.keys is not None
        windows, at = self._windows(x)
        numbers = of_values(uniform(context.keys, windows[0, ..., 0].size), windows.shape[1:4])
        up_to = windows.cumsum(-1)
        here = up_to > (numbers * up_to[..., -1])[..., None]
        place = np.take_along_axis(np.broadcast_to(at, windows.shape), here.argmax(-1)[..., None], -1)[..., 0]
        return np.where(here.any(-1), place, -1)

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        if context.training:
            drawn = self._drawn(x, context)
            flat = x.reshape(*x.shape[:2], -1)
            there = np.take_along_axis(flat, np.maximum(drawn, 0).reshape(*x.shape[:2], -1), -1)
            return np.where(drawn < 0, 0, there.reshape(drawn.shape))
        windows, _ = self._windows(x)
        total = windows.sum(-1)
        return np.where(total == 0, 0, (windows**2).sum(-1) / np.where(total == 0, 1, total))

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [to_winners(dy, self._drawn(inputs[0], context), inputs[0].shape)], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        kernel = pick.whole(1, 3), pick.whole(1, 3)
        stride = pick((None, (pick.whole(1, 3), pick.whole(1, 3))))
        # few windows: in some of very many, rounding decides what is drawn
        return cls(kernel, stride), [(pick(ODD), kernel[0] + pick.whole(0, 3), kernel[1] + pick.whole(0, 3))]
