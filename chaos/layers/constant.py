"""Numbers of the network's own that join the graph. Imported by chaos.layers; the fast half is cext/layers/constant.c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, any_shape, check_shape
from .rearrange import core_shape


@dataclass(frozen=True, eq=False, repr=False)
class Parameter(Layer):
    """Trained numbers that join the graph, as ``torch.nn.Parameter``: ``chaos.Parameter((8, 1, 1))(x)``; `x` says only for
    which images.

    Parameters
    ----------
    shape : tuple of int
        Of the output.
    fill : float
        Initial value.

    In files the numbers have the layer's name, with nothing behind it.
    """

    shape: tuple[int, ...]
    fill: float = 0.0

    kind: ClassVar[str] = "parameter"
    part_names: ClassVar[tuple[str, ...]] = ("value",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shape(self.shape)
        if isinstance(self.fill, bool) or not isinstance(self.fill, (int, float, np.number)) or not math.isfinite(self.fill):
            raise ValueError(f"{type(self).__name__}: fill must be a finite number, not {self.fill!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        return check_shape(self.shape)

    def core(self, *shapes: Shape) -> Core:
        return Core(self.kind, 0, core_shape(check_shape(self.shape)))

    def part_name(self, owner: str, part: str) -> str:
        return owner

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        return {"value": Trained(check_shape(self.shape), fill=float(self.fill))}

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return np.broadcast_to(parts["value"], (len(inputs[0]), *parts["value"].shape)).copy()

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [np.zeros(inputs[0].shape, dy.dtype)], {"value": dy.sum(0)}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(any_shape(pick), pick((0.0, 0.5))), [any_shape(pick)]


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Parameter):
    """Numbers that join the graph and are not trained, as a buffer of a ``torch.nn.Module``; as `Parameter`."""

    kind: ClassVar[str] = "constant"

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        return {"value": State(check_shape(self.shape), fill=float(self.fill))}

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [np.zeros(inputs[0].shape, dy.dtype)], {"value": np.zeros(parts["value"].shape, dy.dtype)}
