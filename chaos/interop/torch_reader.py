"""Where a module of PyTorch is read to, and the list of operations that are read. For the files torch_*.py here."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ..errors import UnsupportedError
from ..layers import Layer
from .graph import Array, Graph, Value

IMAGES = 7919  # stands for the number of images: no other size
Operation = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])
OPERATIONS: dict[str, Operation] = {}


class Tensor:
    """A tensor of the module: its name, and whether it is a parameter."""

    def __init__(self, name: str, tensor: Any, trained: bool) -> None:
        self.name, self.tensor, self.trained = name, tensor, trained

    @property
    def array(self) -> Array:
        found: Array = self.tensor.detach().cpu().numpy()
        return found

    @property
    def shape(self) -> Any:
        return self.tensor.shape


class Reader:
    """The graph so far, the module that is read, and the number that stands for the images."""

    def __init__(self, graph: Graph, module: Any, images: int = IMAGES) -> None:
        self.graph, self.module, self.images = graph, module, images
        self._layers: dict[Hashable, Layer] = {}
        self._constants: dict[str, Value] = {}

    def attribute(self, path: str) -> Any:
        import torch

        found = self.module
        for name in path.split("."):
            found = getattr(found, name)
        return Tensor(path, found, isinstance(found, torch.nn.Parameter)) if isinstance(found, torch.Tensor) else found

    def layer(self, key: Hashable, make: Callable[[], Layer]) -> Layer:
        """One layer for each module or weight, in however many places it is used."""
        if key not in self._layers:
            self._layers[key] = make()
        return self._layers[key]

    def axis(self, dim: int, dims: int) -> int:
        """A dimension of a tensor that has `dims` without the images, counted without them."""
        found = (dim + dims + 1 if dim < 0 else dim) - 1
        if not 0 <= found < dims:
            raise UnsupportedError(
                f"dimension {dim}" + (" counts the images, which layers do not mix" if found == -1 else "")
            )
        return found

    def axes(self, dim: Any, dims: int) -> list[int]:
        return [self.axis(int(d), dims) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]

    def with_state(self, kind: str, tensors: dict[str, Any], make: Callable[[str], Layer], *values: Value) -> Value:
        """A layer with tensors of the module, `tensors` by the names that our parts have."""
        named = {part: tensor for part, tensor in tensors.items() if tensor is not None}
        for part, tensor in named.items():
            if not isinstance(tensor, Tensor) or tensor.name.rpartition(".")[2] != part:
                there = tensor.name if isinstance(tensor, Tensor) else "one that is computed"
                raise UnsupportedError(f"its {part} is {there!r}: parameters are named '<layer>.{part}'")
        stems = {tensor.name.rpartition(".")[0] for tensor in named.values()}
        if len(stems) != 1:
            raise UnsupportedError(f"its parameters are of different modules: {', '.join(sorted(stems))}")
        (stem,) = stems
        layer = self.layer((kind, stem), lambda: make(self.graph.name(stem or kind)))
        return self.graph.apply(layer, *values, state={part: tensor.array for part, tensor in named.items()})

    def value(self, tensor: Any) -> Any:
        """A tensor of the module as one of the graph: a parameter, or a constant."""
        if isinstance(tensor, Tensor):
            if tensor.name not in self._constants:
                self._constants[tensor.name] = self.graph.constant(tensor.array, tensor.trained, tensor.name)
            return self._constants[tensor.name]
        if hasattr(tensor, "detach"):
            return self.graph.constant(tensor.detach().cpu().numpy())
        return tensor


def operation(*names: str) -> Callable[[F], F]:
    def register(function: F) -> F:
        for name in names:
            OPERATIONS[name] = function
            OPERATIONS[f"{name}_"] = function  # in place
        return function

    return register
