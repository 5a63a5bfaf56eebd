"""Fully connected layer. Imported by chaos.layers; the fast half is cext/layers/linear.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Layer, whole


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Layer):
    """y = weight x + bias, as ``torch.nn.Linear``; the number of input features is inferred.

    Parameters
    ----------
    out_features : int
    bias : bool
    """

    out_features: int
    bias: bool = True

    kind: ClassVar[str] = "linear"
    parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __post_init__(self):
        super().__post_init__()
        whole("Linear: out_features", self.out_features)

    def output_shape(self, *shapes):
        if len(shapes[0]) != 1:
            raise ValueError(f"{self} needs vectors, its input has shape {shapes[0]}: put Flatten() before it")
        return (self.out_features,)

    def core_options(self, *shapes):
        return self.out_features, (int(self.bias),)

    def parameter_shapes(self, *shapes):
        found = {"weight": (self.out_features, shapes[0][0])}
        if self.bias:
            found["bias"] = (self.out_features,)
        return found

    def macs(self, *shapes):
        return self.out_features * shapes[0][0]

    def forward(self, inputs, params):
        y = inputs[0] @ params["weight"].T
        return y + params["bias"] if self.bias else y

    def backward(self, inputs, params, y, dy):
        grads = {"weight": dy.T @ inputs[0]}
        if self.bias:
            grads["bias"] = dy.sum(0)
        return [dy @ params["weight"]], grads
