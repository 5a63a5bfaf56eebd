"""Where a node of an ONNX graph stands, and the list of operators that are read. For the files onnx_*.py of this folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import UnsupportedError
from .graph import Array, Graph, Value, without_images

Operator = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])
OPERATORS: dict[str, Operator] = {}


@dataclasses.dataclass
class Context:
    """Where a node stands: the graph so far, the version of the operator set, 1 if the first dimension counts images, how
    many images the model speaks of, and the node's attributes. Axes are counted without the images from `axis` on."""

    graph: Graph
    version: int
    first: int
    images: int | None
    name: str = ""
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: int = 1

    def begin(self, node: Any) -> None:
        from onnx import helper

        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for name, value in self.attributes.items():
            if isinstance(value, bytes):
                self.attributes[name] = value.decode()
        self.name, self.inputs, self.outputs = (
            node.name or node.output[0] or node.op_type,
            tuple(node.input),
            len(node.output),
        )

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def axis(self, axis: Any, dims: int) -> int:
        """An axis of a tensor that has `dims` dimensions without the images, counted without them."""
        axis = int(axis)
        found: int = axis + (dims + self.first if axis < 0 else 0) - self.first
        if not 0 <= found < dims:
            raise UnsupportedError(
                f"axis {axis} counts the images, which layers do not mix"
                if found == -1 and self.first
                else f"there is no axis {axis}"
            )
        return found

    def axes(self, given: Any, dims: int) -> list[int]:
        return [self.axis(axis, dims) for axis in np.asarray(given).reshape(-1)]

    def part_name(self, weight: int) -> str:
        """What a layer is called: as its weight is, without the last word, or as the node."""
        initialiser = self.inputs[weight] if len(self.inputs) > weight else ""
        stem, dot, _ = initialiser.rpartition(".")
        return self.graph.name(stem if dot else self.name)

    def array(self, value: Any, what: str) -> Array:
        """A constant that layers need to know."""
        if isinstance(value, Value) or value is None:
            raise UnsupportedError(f"{what} must be a constant" if value is not None else f"{what} is missing")
        return np.asarray(value)

    def beside(self, array: Array, dims: int) -> Array:
        """A constant beside a tensor of so many dimensions without the images."""
        if self.first and array.ndim > dims:
            if array.shape[0] != 1:
                raise UnsupportedError(f"a constant of shape {array.shape}, other numbers for each image")
            return np.asarray(array[0])
        return array

    def target(self, sizes: Sequence[int], values: int) -> tuple[int, ...]:
        """A shape that a model asks for, images included, without them; one size may be -1."""
        sizes = [int(n) for n in sizes]
        if not self.first:
            known = math.prod(n for n in sizes if n >= 0)
            return tuple(values // known if n == -1 and known else n for n in sizes)
        return without_images(sizes, values, self.images or 1)


def operator(*names: str) -> Callable[[F], F]:
    def register(function: F) -> F:
        for name in names:
            OPERATORS[name] = function
        return function

    return register


def number(value: Any, default: float) -> float:
    if value is None:
        return default
    array = np.asarray(value)
    if array.size != 1:
        raise UnsupportedError(f"one number is needed, not an array of shape {array.shape}")
    return float(array.reshape(-1)[0])
