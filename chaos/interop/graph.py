"""A network that is read from somebody else's graph: their tensors, of any number of dimensions, as views of our nodes. For
the readers of this folder.

A view costs nothing until a layer needs its numbers: what reshapes, transposes and slices do to a tensor is done to an array
of the places of its numbers, and becomes one layer, or none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers
from ..errors import UnsupportedError
from ..layers import Input, Layer, Node
from ..layers.base import Shape
from ..network import Network

Array = NDArray[Any]


class Value:
    """Somebody's tensor, without its first dimension, the images.

    Attributes
    ----------
    node : Node
    index : ndarray of int64, or None
        Of each of its numbers which one it is of the node's, in C order; None: it is the node's output.
    shape : tuple of int
    """

    __slots__ = ("index", "node", "shape")

    def __init__(self, node: Node, index: NDArray[np.int64] | None = None) -> None:
        if index is not None and index.shape == node.shape and _in_order(index):
            index = None
        self.node, self.index = node, index
        self.shape: tuple[int, ...] = node.shape if index is None else index.shape

    def places(self) -> NDArray[np.int64]:
        return np.arange(math.prod(self.node.shape)).reshape(self.node.shape) if self.index is None else self.index

    def view(self, change: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Value:
        """What a change of shape or order makes of it."""
        return Value(self.node, change(self.places()))

    def __repr__(self) -> str:
        return f"Value{self.shape}"


def _in_order(index: NDArray[np.int64]) -> bool:
    return bool(index.size == 0 or (index.flat[0] == 0 and (np.diff(index.reshape(-1)) == 1).all()))


class Missing:
    """The result of what is not supported: everything made of it is missing too, and not complained of again. With `what`: a
    second result of something that is supported, which is complained of where it is used."""

    def __init__(self, what: str | None = None) -> None:
        self.what = what

    def complain(self) -> None:
        if self.what:
            raise UnsupportedError(f"it needs {self.what}, which no layer gives")


class Graph:
    """What has been read so far."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.problems: list[str] = []
        self.state: dict[str, Array] = {}
        self._names: set[str] = set()
        self._settled: dict[tuple[int, bytes, tuple[int, ...]], Node] = {}

    # ---- nodes ----

    def input(self, shape: Sequence[int]) -> Value:
        """A new input."""
        if not 1 <= len(shape) <= 3:
            raise UnsupportedError(
                f"an input of shape {tuple(shape)} without its first dimension, the images: one to three dimensions work"
            )
        self.inputs.append(Input(shape))
        return Value(self.inputs[-1])

    def name(self, wanted: str) -> str:
        """A name that no layer has yet, like `wanted`."""
        wanted = ".".join(part for part in wanted.replace("/", ".").replace(":", "_").split(".") if part) or "layer"
        name, count = "layer" if wanted == "input" else wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def apply(self, layer: Layer, *values: Value, state: Mapping[str, Array] | None = None) -> Value:
        """The layer's output; `state`: the values of its parts."""
        node = layer(*map(self.settle, values))
        for part, array in (state or {}).items():
            self.state[layer.part_name(layer.name or "", part)] = array
        return Value(node)

    def settle(self, value: Value) -> Node:
        """A node whose output is the value, by the layers that its view takes."""
        if value.index is None:
            return value.node
        shape = value.shape or (1,)
        index = value.index.reshape(shape)
        if len(shape) > 3:
            raise UnsupportedError(f"a tensor of {len(shape) + 1} dimensions, the images' included: at most 4 work")
        if not index.size:
            raise UnsupportedError(f"a tensor of shape {shape}: it is empty")
        key = (id(value.node), index.tobytes(), shape)
        if key not in self._settled:
            self._settled[key] = self._rearranged(value.node, index)
        return self._settled[key]

    @staticmethod
    def _rearranged(node: Node, index: NDArray[np.int64]) -> Node:
        if index.size == math.prod(node.shape) and _in_order(index):
            layer: Layer = layers.Flatten() if index.ndim == 1 else layers.Reshape(index.shape)
            return layer(node)
        moved = layers.Rearrange.of(index)
        if moved is not None:
            for flat in (False, True):  # as the numbers lie in memory, or as a vector
                source = layers.Flatten()(node) if flat else node
                try:
                    moved.core(source.shape)
                except ValueError:
                    continue
                return moved(source)
        raise UnsupportedError(f"an order of the numbers of a tensor of shape {node.shape} that no nested loops describe")

    def constant(self, array: Array, trained: bool = False, name: str = "constant") -> Value:
        """Numbers of the network's own."""
        shape = array.shape if 1 <= array.ndim <= 3 else (array.size,)
        stored = None if shape == array.shape else array.shape
        if not self.inputs:
            raise UnsupportedError("a graph of constants alone")
        kind = layers.Parameter if trained else layers.Constant
        layer = kind(shape, stored=stored, name=self.name(name))
        value = self.apply(layer, Value(self.inputs[0]), state={"value": array})
        return value.view(lambda places: places.reshape(array.shape))

    # ---- what several readers need ----

    def each(self, layer: Layer, value: Value) -> Value:
        """A function of single numbers: the order in which they are seen makes no difference."""
        return Value(self.apply(layer, Value(value.node)).node, value.index)

    def pair(self, kind: type[Layer], a: Value | Array, b: Value | Array) -> Value:
        """Arithmetic of two tensors, with sizes of 1 repeated, their last dimensions beside each other."""
        a, b = (self.constant(x) if not isinstance(x, Value) else x for x in (a, b))
        dims = max(len(a.shape), len(b.shape))
        a, b = (x.view(lambda p: p.reshape((1,) * (dims - p.ndim) + p.shape)) if len(x.shape) < dims else x for x in (a, b))
        shape = np.broadcast_shapes(a.shape, b.shape)
        if dims in (1, 2, 3):
            return self.apply(kind(), a, b)

        def flat(x: Value) -> Value:
            return x.view(lambda places: np.broadcast_to(places, shape).reshape(-1))

        return self.apply(kind(), flat(a), flat(b)).view(lambda places: places.reshape(shape))

    def affine(self, value: Value, scale: float = 1.0, shift: float = 0.0) -> Value:
        if scale == 1 and shift == 0:
            return value
        return self.each(layers.Affine(float(scale), float(shift)), value)

    def reduce(self, kind: type[Any], value: Value, axes: Iterable[int], keep: bool) -> Value:
        """A sum or maximum over dimensions, counted without the images."""
        dims = len(value.shape)
        over = sorted({axis % dims for axis in axes}) if dims else []
        left = [axis for axis in range(dims) if axis not in over]
        if not over:
            return value
        shape = tuple(1 if axis in over else n for axis, n in enumerate(value.shape) if keep or axis not in over)
        if dims <= 3:
            found = self.apply(kind(tuple(axis + 1 for axis in over), True), value)
        else:
            rows = math.prod(value.shape[axis] for axis in left)
            lined = value.view(lambda places: places.transpose(*left, *over).reshape(rows, -1))
            found = self.apply(kind(2, True), lined)
        return found.view(lambda places: places.reshape(shape))

    def along_channels(self, layer: Layer, value: Value, axis: int) -> Value:
        """A layer that acts along the channels, along another dimension."""
        if len(value.shape) == 1:
            return self.apply(layer, value)
        moved = value.view(lambda places: np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1))
        shape = tuple(n for i, n in enumerate(value.shape) if i != axis % len(value.shape))
        found = self.apply(layer, moved if axis % len(value.shape) or len(value.shape) > 3 else value)
        return found.view(lambda places: np.moveaxis(places.reshape(value.shape[axis], *shape), 0, axis))

    def linear(self, value: Value, weight: Array, bias: Array | None, name: str) -> Value:
        """x W^T + b over the last dimension; weight (out, in)."""
        state = {"weight": weight} | ({} if bias is None else {"bias": bias})
        if len(value.shape) <= 1:
            return self.apply(layers.Linear(len(weight), bias=bias is not None, name=name), value, state=state)
        *rows, features = value.shape  # a convolution of one tap over the rows
        lined = value.view(lambda places: places.reshape(-1, features).T)
        layer = layers.Conv1d(len(weight), kernel_size=1, bias=bias is not None, name=name)
        found = self.apply(layer, lined, state=state | {"weight": weight[:, :, None]})
        return found.view(lambda places: places.T.reshape(*rows, len(weight)))

    def join(self, values: Sequence[Value], axis: int) -> Value:
        """Tensors one behind the other along a dimension, counted without the images."""
        dims = len(values[0].shape)
        values = [value for value in values if 0 not in value.shape] or values[:1]
        while len(values) > 1:
            together = values[:16]
            if dims <= 3:
                joined = self.apply(layers.Concat(axis % dims + 1), *together)
            else:  # as (before, along and behind), in the second of which they join
                joined = self._joined(together, axis % dims)
            values = [joined, *values[16:]]
        return values[0]

    def _joined(self, values: Sequence[Value], axis: int) -> Value:
        rows, shape = math.prod(values[0].shape[:axis]), list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        lined = [value.view(lambda places: places.reshape(rows, -1)) for value in values]
        return self.apply(layers.Concat(2), *lined).view(lambda places: places.reshape(shape))

    def pad(self, value: Value, around: Sequence[tuple[int, int]], mode: str, number: float) -> Value:
        """Borders (before, behind) of each dimension, counted without the images."""
        if mode != "constant":
            number = 0.0
        if len(around) == 3 and around[0] == (0, 0) and any(around[1]):
            return self.apply(layers.Pad((*around[2], *around[1]), mode, number), value)
        for axis, border in enumerate(around):  # one after the other, as the columns of a sequence of rows
            if border != (0, 0):
                value = self._padded(value, axis, layers.Pad(border, mode, number))
        return value

    def _padded(self, value: Value, axis: int, layer: Layer) -> Value:
        shape = tuple(n for i, n in enumerate(value.shape) if i != axis)

        def as_columns(places: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.moveaxis(places, axis, -1).reshape(-1, places.shape[axis])

        def back(places: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.moveaxis(places.reshape(*shape, -1), -1, axis)

        return self.apply(layer, value.view(as_columns)).view(back)

    # ---- the end ----

    def network(self, outputs: Sequence[Any], what: str, seed: int = 0) -> Network:
        """The network; UnsupportedError with all that has been found."""
        ends: list[Node] = []
        if not self.problems and not (self.inputs and outputs):
            self.problems.append("it has no inputs, or no outputs")
        if not self.problems:
            try:
                ends = [self._output(value) for value in outputs]
            except UnsupportedError as error:
                self.problems.append(f"the output: {error}")
        if self.problems:
            raise UnsupportedError(f"{what} holds what chaos has no layer for:\n  " + "\n  ".join(self.problems))
        used = self.inputs
        net = Network(used if len(used) > 1 else used[0], ends if len(ends) > 1 else ends[0], seed=seed)
        there = net.state_dict()
        net.load_state_dict({name: self.state.get(name, value) for name, value in there.items()})
        return net

    def _output(self, value: Any) -> Node:
        if isinstance(value, Missing):
            value.complain()
        if not isinstance(value, Value):
            raise UnsupportedError("it does not depend on an input")
        node = self.settle(value)
        return layers.Identity()(node) if node.layer is None else node


def sides(shape: Shape, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], lower: bool) -> list[int]:
    """The zeros (before every axis ..., behind every axis ...) with which a window has ceil(size / stride) outputs."""
    total = [
        max(0, (math.ceil(size / s) - 1) * s + d * (k - 1) + 1 - size)
        for size, k, s, d in zip(shape, kernel, stride, dilation, strict=True)
    ]
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    return [*more, *less] if lower else [*less, *more]


def without_images(sizes: Sequence[int], values: int, images: int) -> tuple[int, ...]:
    """A shape that somebody asks for, images included, without them; one size may be -1."""
    sizes = [int(n) for n in sizes]
    if -1 in sizes:
        rest = math.prod(n for n in sizes if n >= 0)
        sizes[sizes.index(-1)] = values * images // rest if rest else 0
    if not sizes or sizes[0] != images:
        raise UnsupportedError(f"a shape of {sizes} does not keep the first dimension, the images")
    return tuple(sizes[1:])
