"""Fully connected layer that loses connections. Imported by chaos.layers; the fast half is cext/layers/drop_connect.c."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, whole
from .random import uniform


@dataclass(frozen=True, eq=False, repr=False)
class DropConnectLinear(Layer):
    """As `Linear`, but while the network trains each image loses each weight and each bias with probability p, and the
    others are divided by 1 - p (Wan, Zeiler, Zhang, LeCun, Fergus 2013). In evaluation the weights are what they are: the
    mean over all masks, where the paper draws from a normal distribution of the same mean. What is lost depends on seed,
    epoch, image and layer alone, as in `Dropout`.

    Drawing a number for each weight and image costs more than the multiplication.

    Parameters
    ----------
    out_features : int
    p : float
    bias : bool
    """

    out_features: int
    p: float = 0.5
    _: KW_ONLY
    bias: bool = True

    kind: ClassVar[str] = "drop_connect"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("DropConnectLinear: out_features", self.out_features)
        if isinstance(self.p, bool) or not isinstance(self.p, (int, float, np.number)) or not 0 <= self.p <= 1:
            raise ValueError(f"DropConnectLinear: p must be a probability in 0..1, not {self.p!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            raise ValueError(f"{self} needs vectors, its input has shape {shapes[0]}: put Flatten() before it")
        return (self.out_features,)

    def _factor(self) -> float:
        return 0.0 if self.p == 1 else 1 / (1 - self.p)

    def core(self, *shapes: Shape) -> Core:
        return Core("drop_connect", self.out_features, (int(self.bias),), (float(self.p), self._factor()))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        found: dict[str, Trained | State] = {"weight": Trained((self.out_features, shapes[0][0]), shapes[0][0])}
        if self.bias:
            found["bias"] = Trained((self.out_features,), shapes[0][0])
        return found

    def macs(self, *shapes: Shape) -> int:
        return self.out_features * shapes[0][0]

    def _masks(self, x: Array, context: Context) -> tuple[Array, Array]:
        """Of weights (n, outputs, inputs) and of biases (n, outputs)."""
        size = self.out_features * x.shape[1]
        if not context.training:
            return np.ones((1, self.out_features, x.shape[1])), np.ones((1, self.out_features))
        assert context.keys is not None
        drawn = uniform(context.keys, size + self.out_features)
        masks = np.where(drawn < np.float32(self.p), 0, self._factor())
        return masks[:, :size].reshape(len(x), -1, self.out_features).swapaxes(1, 2), masks[:, size:]

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        weights, biases = self._masks(inputs[0], context)
        y: Array = ((weights * parts["weight"]) @ inputs[0][:, :, None])[:, :, 0]
        return y + biases * parts["bias"] if self.bias else y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        weights, biases = self._masks(inputs[0], context)
        grads = {"weight": (weights * dy[:, :, None] * inputs[0][:, None]).sum(0)}
        if self.bias:
            grads["bias"] = (biases * dy).sum(0)
        return [(dy[:, None] @ (weights * parts["weight"]))[:, 0]], grads

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(pick((*ODD, 90)), pick((0.5, 0.1, 0.0, 0.9, 1.0)), bias=pick((True, False))), [(pick(ODD),)]
