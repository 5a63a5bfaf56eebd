"""Convolution without shared weights. Imported by chaos.layers; the fast half is cext/layers/locally_connected2d.c."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained
from .conv2d import Conv2d


@dataclass(frozen=True, eq=False, repr=False)
class LocallyConnected2d(Layer):
    """As `Conv2d`, with a kernel and biases of its own for every pixel of the output (LeCun 1989; Keras's layer of this
    name). The weight has shape (out_channels, in_channels, output height, output width, kernel height, kernel width), the
    bias (out_channels, output height, output width). Options are given by name.

    Parameters
    ----------
    out_channels : int
    kernel_size, stride, padding
        As of `Conv2d`.
    bias : bool
    """

    out_channels: int
    kernel_size: int | tuple[int, int]
    _: KW_ONLY
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] | tuple[int, int, int, int] | str = 0
    bias: bool = True

    kind: ClassVar[str] = "locally_connected2d"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")
    inferred: ClassVar[str | None] = "in_channels"

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self._shared()
        except ValueError as error:
            raise ValueError(str(error).replace("Conv2d", "LocallyConnected2d", 1)) from None

    def _shared(self) -> Conv2d:
        """The convolution of the same geometry."""
        return Conv2d(self.out_channels, self.kernel_size, stride=self.stride, padding=self.padding, bias=self.bias)

    def output_shape(self, *shapes: Shape) -> Shape:
        try:
            return self._shared().output_shape(*shapes)
        except ValueError as error:
            raise ValueError(str(error).replace("Conv2d", "LocallyConnected2d", 1)) from None

    def core(self, *shapes: Shape) -> Core:
        shared = self._shared().core()
        return Core("locally_connected2d", shared.channels, shared.whole)

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        out, channels, *kernel = self._shared().parts(*shapes)["weight"].shape
        sizes, fan_in = self.output_shape(*shapes)[1:], int(np.prod((channels, *kernel)))
        found: dict[str, Trained | State] = {"weight": Trained((out, channels, *sizes, *kernel), fan_in)}
        if self.bias:
            found["bias"] = Trained((out, *sizes), fan_in)
        return found

    def macs(self, *shapes: Shape) -> int:
        return self._shared().macs(*shapes)

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        patches = self._shared()._patches(inputs[0])[:, 0]
        y: Array = np.einsum("ncijab,ocijab->noij", patches, parts["weight"])
        return y + parts["bias"] if self.bias else y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        shared, weight = self._shared(), parts["weight"]
        own = {"weight": np.einsum("noij,ncijab->ocijab", dy, shared._patches(inputs[0])[:, 0])}
        if self.bias:
            own["bias"] = dy.sum(0)
        taps = (
            (a, b, np.einsum("noij,ocij->ncij", dy, weight[..., a, b]))
            for a in range(weight.shape[4])
            for b in range(weight.shape[5])
        )
        return [shared._joined(inputs[0].shape, dy, taps)], own

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        shape = (pick((1, 2, 3, 5, 17)), pick.whole(3, 6), pick.whole(3, 6))
        stride, padding = pick((1, 2, (1, 3))), pick((0, 1, (2, 0), (0, 1, 2, 0)))
        kernel = (pick.whole(1, 3), pick.whole(1, 3))
        return cls(pick(ODD), kernel, stride=stride, padding=padding, bias=pick((True, False))), [shape]
