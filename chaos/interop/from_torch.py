"""Networks from PyTorch modules. Needs torch. Imported by chaos.interop; what each operation becomes is in
torch_operations.py and torch_layers.py."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from ..errors import UnsupportedError
from ..layers.base import Shape
from ..network import Network
from . import torch_operations as _operations  # noqa: F401, adds to the list
from .graph import Graph, Missing, Value
from .needing import needing
from .to_torch import as_strided, whole_batch
from .torch_layers import MODULES, STATELESS
from .torch_reader import OPERATIONS, Reader, Tensor

IMAGES_EXPORTED = 3  # an export is of a number of images


def from_torch(module: Any, input_shape: Shape | Sequence[Shape], *, seed: int = 0) -> Network:
    """The network of a PyTorch module, with its weights.

    The module is traced by ``torch.fx``, or exported by ``torch.export`` where that fails; it is left as it is. Parameters
    keep their names: ``net.state_dict()`` loads into the module and the other way round.

    Parameters
    ----------
    module : torch.nn.Module
    input_shape : tuple of int, or list of tuples
        Of one image, (channels, height, width), (channels, length) or (features,); of several inputs a list of such shapes.
    seed : int
        Of nothing but weights that the module has not.

    Returns
    -------
    Network
        Whose `forward` has the module's outputs, and which trains as it would: dropout and batch normalisation included.

    Raises
    ------
    UnsupportedError
        For everything that chaos has no layer for, at once: each place with its operation and the nearest that there is.
    ModuleNotFoundError
        Without torch (``pip install 'chaos-sgd[torch]'``).
    """
    with needing("torch"):
        import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    given: Any = input_shape
    several = bool(given) and not isinstance(given, int) and isinstance(given[0], (tuple, list))
    shapes = [tuple(shape) for shape in given] if several else [tuple(given) if not isinstance(given, int) else (given,)]
    what = f"the module {type(module).__name__}"
    try:
        traced = torch.fx.Tracer(autowrap_functions=(whole_batch, as_strided)).trace(module)
    except Exception as error:
        return _exported(module, shapes, what, seed, error)
    reader = Reader(Graph(), module)
    outputs = _walk(reader, traced, {}, shapes)
    return reader.graph.network(outputs, what, seed)


def _exported(module: Any, shapes: list[Shape], what: str, seed: int, reason: Exception) -> Network:
    """By torch.export, for modules whose Python cannot be traced."""
    import torch

    try:
        program = torch.export.export(module, tuple(torch.zeros(IMAGES_EXPORTED, *shape) for shape in shapes), strict=False)
    except Exception as error:
        raise UnsupportedError(
            f"{what} can neither be traced (torch.fx: {reason}) nor exported (torch.export: {str(error).splitlines()[0]})"
        ) from None
    reader = Reader(Graph(), module, IMAGES_EXPORTED)
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors: dict[str, Any] = {}
    for placeholder, name in names.items():
        tensor = program.state_dict[name] if name in program.state_dict else program.constants[name]
        tensors[placeholder] = Tensor(name, tensor, placeholder in signature.inputs_to_parameters)
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        tensors[placeholder] = Tensor(name, program.constants[name], False)
    outputs = _walk(reader, program.graph, tensors, shapes)
    return reader.graph.network(outputs, what, seed)


def _walk(reader: Reader, traced: Any, tensors: dict[str, Any], shapes: list[Shape]) -> list[Any]:
    """The values of the outputs; what is not supported is in reader.graph.problems."""
    known: dict[Any, Any] = {}
    waiting = iter(shapes)
    outputs: list[Any] = []

    def value_of(argument: Any) -> Any:
        import torch

        return torch.fx.node.map_arg(argument, lambda node: known[node])

    for node in traced.nodes:
        if node.op == "placeholder":
            if node.name in tensors:
                known[node] = tensors[node.name]
                continue
            shape = next(waiting, None)
            if shape is None:
                known[node] = node.args[0] if node.args else None
                continue
            try:
                known[node] = reader.graph.input(shape)
            except (UnsupportedError, ValueError) as error:
                raise UnsupportedError(f"input {node.name!r}: {error}") from None
        elif node.op == "output":
            found = value_of(node.args[0])
            outputs = list(found) if isinstance(found, (tuple, list)) else [found]
            if isinstance(found, dict):
                outputs = list(found.values())
        else:
            known[node] = _step(reader, node, value_of(node.args), value_of(node.kwargs))
    if next(waiting, None) is not None:
        raise UnsupportedError(f"{len(shapes)} input shapes are given, the module takes {len(reader.graph.inputs)} inputs")
    return outputs


def _has(kind: Any, argument: Any) -> bool:
    if isinstance(argument, (tuple, list)):
        return any(_has(kind, one) for one in argument)
    return isinstance(argument, kind) or (isinstance(argument, dict) and _has(kind, list(argument.values())))


def _complain(argument: Any) -> None:
    for one in argument if isinstance(argument, (tuple, list)) else [argument]:
        if isinstance(one, Missing):
            one.complain()


def _plain(argument: Any) -> Any:
    """Arguments with PyTorch's tensors in place of ours."""
    if isinstance(argument, (tuple, list)):
        return type(argument)(_plain(one) for one in argument)
    return argument.tensor if isinstance(argument, Tensor) else argument


def _step(reader: Reader, node: Any, args: Any, kwargs: Any) -> Any:
    where, name = str(node.target), ""
    lost = _has(Missing, [args, kwargs])  # its own name may be one more that is not supported
    try:
        if node.op == "get_attr":
            return reader.attribute(str(node.target))
        if node.op == "call_module":
            module = reader.module.get_submodule(node.target)
            name = type(module).__name__
            where = f"{node.target} ({name})"
            if name not in STATELESS and name not in MODULES:
                raise UnsupportedError(_nearest(name))
            if lost:
                _complain(args)
                return Missing()
            if name in STATELESS:
                operation, options = STATELESS[name]
                return OPERATIONS[operation](reader, *args, **{option: getattr(module, option) for option in options})
            return MODULES[name](reader, module, str(node.target), *args, **kwargs)
        name = _called(node)
        where = f"{node.name} ({name})"
        if name in ("getitem", "getattr") and isinstance(args[0], (tuple, list)):
            lost = False  # the one that is picked may be there where another is missing
        if not lost and not _has(Value, [args, kwargs]):  # constants among themselves
            return _executed(node, _plain(args), _plain(kwargs))
        if name not in OPERATIONS:
            raise UnsupportedError(_nearest(name))
        if lost:
            _complain(args)
            return Missing()
        return OPERATIONS[name](reader, *args, **kwargs)
    except (ValueError, TypeError, IndexError) as error:  # also layers that do not fit, unknown arguments
        reader.graph.problems.append(f"{where}: {error}")
        return Missing()


def _called(node: Any) -> str:
    """The name of an operation: of a method, a function, or an operator of ATen ("aten.add.Tensor" is "add")."""
    if node.op == "call_method":
        return str(node.target)
    text = str(node.target)
    if not text.startswith("aten."):
        return getattr(node.target, "__name__", text)
    aten = ".".join(text.split(".")[:2])  # some have the name of a function and another order of arguments
    return aten if aten in OPERATIONS else aten.removeprefix("aten.")


def _executed(node: Any, args: Any, kwargs: Any) -> Any:
    import torch

    with torch.no_grad():
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


def _nearest(name: str) -> str:
    known = {name: name for name in OPERATIONS} | {layer.lower(): layer for layer in (*MODULES, *STATELESS)}
    near = difflib.get_close_matches(name.lower(), known, 1, 0.6)
    return "chaos has no layer for it" + (f"; the nearest is {known[near[0]]}" if near else "")
