"""Fully connected layer. Imported by chaos.layers; the fast half is cext/layers/linear.c."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, whole


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Layer):
    """y = weight x + bias, as ``torch.nn.Linear``; the number of input features is inferred.

    Parameters
    ----------
    out_features : int
    bias : bool
    """

    out_features: int
    _: KW_ONLY
    bias: bool = True

    kind: ClassVar[str] = "linear"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")
    inferred: ClassVar[str | None] = "in_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("Linear: out_features", self.out_features)

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            raise ValueError(f"{self} needs vectors, its input has shape {shapes[0]}: put Flatten() before it")
        return (self.out_features,)

    def core(self, *shapes: Shape) -> Core:
        return Core("linear", self.out_features, (int(self.bias),))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        found: dict[str, Trained | State] = {"weight": Trained((self.out_features, shapes[0][0]), shapes[0][0])}
        if self.bias:
            found["bias"] = Trained((self.out_features,), shapes[0][0])
        return found

    def macs(self, *shapes: Shape) -> int:
        return self.out_features * shapes[0][0]

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        y = inputs[0] @ parts["weight"].T
        return y + parts["bias"] if self.bias else y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        grads = {"weight": dy.T @ inputs[0]}
        if self.bias:
            grads["bias"] = dy.sum(0)
        return [dy @ parts["weight"]], grads

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(pick((*ODD, 150, 300)), bias=pick((True, False))), [(pick(ODD),)]
