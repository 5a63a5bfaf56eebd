"""Fully connected layer. Imported by chaos.layers; the fast half is cext/layers/linear.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Example, Gradients, Layer, Pick, Shape, Trained, whole


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
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("Linear: out_features", self.out_features)

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            raise ValueError(f"{self} needs vectors, its input has shape {shapes[0]}: put Flatten() before it")
        return (self.out_features,)

    def core(self, *shapes: Shape) -> Core:
        return Core("linear", self.out_features, (int(self.bias),))

    def parts(self, *shapes: Shape) -> dict[str, Trained]:
        found = {"weight": Trained((self.out_features, shapes[0][0]), shapes[0][0])}
        return found | ({"bias": Trained((self.out_features,), shapes[0][0])} if self.bias else {})

    def macs(self, *shapes: Shape) -> int:
        return self.out_features * shapes[0][0]

    def forward(self, inputs: list[Array], parts: Arrays, context: Context = EVALUATION) -> Array:
        y = inputs[0] @ parts["weight"].T
        return y + parts["bias"] if self.bias else y

    def backward(self, inputs: list[Array], parts: Arrays, y: Array, dy: Array, context: Context = EVALUATION) -> Gradients:
        grads = {"weight": dy.T @ inputs[0]}
        if self.bias:
            grads["bias"] = dy.sum(0)
        return [dy @ parts["weight"]], grads

    @classmethod
    def example(cls, pick: Pick) -> Example:
        return cls(pick((*ODD, 150, 300)), bias=pick((True, False))), [(pick(ODD),)]
