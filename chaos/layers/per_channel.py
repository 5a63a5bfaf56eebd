"""Entry by entry, with trained numbers for each channel. Imported by chaos.layers; the fast half, a row each, is
cext/layers/per_channel.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, any_shape, whole


def _by_channel(values: Array, x: Array) -> Array:
    return values.reshape(-1, *[1] * (x.ndim - 2))


@dataclass(frozen=True, eq=False, repr=False)
class PReLU(Layer):
    """y = x where x > 0, else weight x, as ``torch.nn.PReLU``; the weight is trained (He et al. 2015).

    Parameters
    ----------
    num_parameters : int or None
        1: one weight for all channels, else as many as channels; None: one for each channel, however many there are.
    init : float
        First value of the weights.
    """

    num_parameters: int | None = 1
    init: float = 0.25

    kind: ClassVar[str] = "prelu"
    part_names: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_parameters is not None:
            whole("PReLU: num_parameters", self.num_parameters)
        number = isinstance(self.init, (int, float, np.number)) and not isinstance(self.init, bool)
        if not number or not math.isfinite(self.init):
            raise ValueError(f"PReLU: init must be a finite number, not {self.init!r}")

    def _weights(self, shape: Shape) -> int:
        return shape[0] if self.num_parameters is None else self.num_parameters

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if self._weights(shape) not in (1, shape[0]):
            raise ValueError(f"{self} on input of shape {shape}: num_parameters must be 1 or its channels, {shape[0]}")
        return shape

    def core(self, *shapes: Shape) -> Core:
        return Core("prelu", 0, (self._weights(shapes[0]), 0))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        return {"weight": Trained((self._weights(shapes[0]),), fill=float(self.init))}

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        return np.where(x > 0, x, _by_channel(parts["weight"], x) * x)

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = inputs[0]
        by_channel = np.where(x > 0, 0, x * dy).sum((0, *range(2, x.ndim)))
        weight = by_channel if len(parts["weight"]) > 1 else by_channel.sum(keepdims=True)
        return [np.where(x > 0, dy, _by_channel(parts["weight"], x) * dy)], {"weight": weight}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        shape = any_shape(pick)
        return cls(pick((1, shape[0], None)), pick((0.25, -0.5))), [shape]

    def smooth(self, x: Array) -> Array:
        return np.where(np.abs(x) < 1e-3, 0.01, x)


@dataclass(frozen=True, eq=False, repr=False)
class ChannelScale(Layer):
    """y = weight x + bias, with a trained weight and bias for each channel, 1 and 0 at first; of vectors for each feature.

    Parameters
    ----------
    bias : bool
    """

    bias: bool = True

    kind: ClassVar[str] = "channel_scale"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def core(self, *shapes: Shape) -> Core:
        return Core("channel_scale", 0, (shapes[0][0], int(self.bias)))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        found: dict[str, Trained | State] = {"weight": Trained(shapes[0][:1], fill=1.0)}
        if self.bias:
            found["bias"] = Trained(shapes[0][:1], fill=0.0)
        return found

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        y: Array = x * _by_channel(parts["weight"], x)
        return y + _by_channel(parts["bias"], x) if self.bias else y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x, axes = inputs[0], (0, *range(2, inputs[0].ndim))
        own = {"weight": (x * dy).sum(axes)}
        if self.bias:
            own["bias"] = dy.sum(axes)
        return [dy * _by_channel(parts["weight"], x)], own

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(pick((True, False))), [any_shape(pick)]
