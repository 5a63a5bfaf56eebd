"""Networks from ONNX files. Needs the package onnx. Imported by chaos.interop; what each operator becomes is in
onnx_operators.py and onnx_shapes.py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import CheckpointError, UnsupportedError
from ..network import Network
from . import onnx_operators as _operators  # noqa: F401, each adds to the list
from . import onnx_shapes as _shapes  # noqa: F401
from .graph import Array, Graph, Missing, Value
from .needing import needing
from .onnx_context import OPERATORS, Context

IMAGES = 7919  # stands for the number of images where a model leaves it open: no other size


def from_onnx(
    model: Any,
    *,
    images_first: bool = True,
    constants: Mapping[str, ArrayLike] | None = None,
    fold: bool = False,
    seed: int = 0,
) -> Network:
    """The network of an ONNX model, with its weights.

    Parameters
    ----------
    model : str, path or onnx.ModelProto
        Of operator set 6 or newer. Its inputs must be floats whose sizes are known but for the number of images.
    images_first : bool
        Whether the first dimension of inputs and outputs counts images, as nearly always; if not, a model is of one image.
    constants : dict of str to array, optional
        Values of inputs that are to be constants.
    fold : bool
        Whether batch normalisations become part of the convolution before them: faster, and no longer to be trained as such.
    seed : int
        Of nothing but weights that the model leaves open.

    Returns
    -------
    Network
        `forward` takes the model's inputs in their order, and gives its outputs in theirs.

    Raises
    ------
    UnsupportedError
        For everything that chaos has no layer for, at once: each node with its operator and what is wrong.
    CheckpointError
        If the file is no ONNX model.
    ModuleNotFoundError
        Without the package onnx (``pip install 'chaos-sgd[onnx]'``).
    """
    with needing("onnx"):
        import onnx
        import onnx.inliner

    if isinstance(model, (str, os.PathLike)):
        name, model = os.fspath(model), _loaded(model)
    else:
        name = "the model"
        if not isinstance(model, onnx.ModelProto):
            raise TypeError(f"model must be a path or an onnx.ModelProto, not {type(model).__name__}")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = Graph()
    outputs = _read(model, graph, images_first, {k: np.asarray(v) for k, v in (constants or {}).items()})
    net = graph.network(outputs, name, seed)
    if fold:
        from ..folding import fold as folded

        net = folded(net)
    return net


def _loaded(path: str | os.PathLike[str]) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path)
    except DecodeError as error:
        raise CheckpointError(f"{os.fspath(path)}: is no ONNX model ({error})") from None


def _read(model: Any, graph: Graph, images_first: bool, constants: dict[str, Array]) -> list[Any]:
    """The values of the model's outputs; what is not supported is in graph.problems."""
    from onnx import numpy_helper

    known: dict[str, Any] = {"": None}
    for tensor in model.graph.initializer:
        try:
            known[tensor.name] = numpy_helper.to_array(tensor)
        except Exception as error:  # of many kinds, for types that there are not and sizes that do not fit
            graph.problems.append(f"initialiser {tensor.name!r}: {error}")
            known[tensor.name] = Missing()
    if model.graph.sparse_initializer:
        graph.problems.append("sparse initialisers: make them dense")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    context = Context(graph, versions.get("", 1), 1 if images_first else 0, None)
    for given in model.graph.input:
        if given.name in constants:
            known[given.name] = constants[given.name]
        elif given.name not in known:
            known[given.name] = _input(given, context)
    if versions.get("", 1) < 6:
        graph.problems.append(f"operator set {versions.get('', 1)}: 6 is the oldest that is read")
    for node in model.graph.node:
        values = [known.get(name, Missing()) for name in node.input]
        results = _node(node, values, context)
        for name, result in zip(node.output, results, strict=False):
            known[name] = result
        for name in node.output[len(results) :]:
            known[name] = Missing(f"output {name!r} of {node.op_type}")
    return [known.get(end.name, Missing()) for end in model.graph.output]


def _input(given: Any, context: Context) -> Any:
    import onnx

    tensor = given.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    try:
        if tensor.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
            raise UnsupportedError(f"values of type {onnx.TensorProto.DataType.Name(tensor.elem_type)}: floats are needed")
        if context.first:
            if not sizes:
                raise UnsupportedError("it has no dimension that counts images")
            images = sizes[0] or IMAGES
            if context.images not in (None, images):
                raise UnsupportedError(f"{images} images, where another input has {context.images}")
            context.images = images
        if None in sizes[context.first :]:
            raise UnsupportedError("its sizes are open: only the first, the number of images, may be")
        return context.graph.input(tuple(n for n in sizes[context.first :] if n is not None))
    except (UnsupportedError, ValueError) as error:
        context.graph.problems.append(f"input {given.name!r}: {error}")
        return Missing()


def _node(node: Any, values: list[Any], context: Context) -> list[Any]:
    """The results of one node."""
    where = f"{node.op_type}" + (
        f" (node {node.name!r})" if node.name else f" (which makes {', '.join(map(repr, node.output)) or 'nothing'})"
    )
    lost = any(isinstance(value, Missing) for value in values)  # its own operator may be one more that is not supported
    try:
        if not lost and not any(isinstance(value, Value) for value in values):
            return _of_each_image(node, values, context) or _folded(node, values, context)
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise UnsupportedError("chaos has no layer for this operator")
        if lost:
            for value in values:
                if isinstance(value, Missing):
                    value.complain()
            return [Missing()] * len(node.output)
        context.begin(node)
        result = OPERATORS[node.op_type](context, *values)
        return result if isinstance(result, list) else [result]
    except ValueError as error:  # UnsupportedError, and layers that do not fit
        context.graph.problems.append(f"{where}: {error}")
    except (TypeError, LookupError, AttributeError, ArithmeticError) as error:  # attributes or inputs that are not there
        context.graph.problems.append(f"{where}: is not as the operator set says ({type(error).__name__}: {error})")
    return [Missing()] * len(node.output)


def _of_each_image(node: Any, values: list[Any], context: Context) -> list[Any] | None:
    """A constant that is repeated for each image: it need not be."""
    if node.op_type != "Expand" or not context.first:
        return None
    array, sizes = np.asarray(values[0]), [int(n) for n in values[1]]
    if not sizes or sizes[0] != IMAGES or array.ndim > len(sizes) or (array.ndim == len(sizes) and array.shape[0] != 1):
        return None
    name = node.input[0] or node.name
    return [context.graph.constant(np.broadcast_to(array, (1, *sizes[1:]))[0], False, name)]


def _folded(node: Any, values: list[Any], context: Context) -> list[Any]:
    """What a node makes of constants, by the reference implementation."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if any(attribute.type in (5, 10) for attribute in node.attribute):
        raise UnsupportedError("graphs within graphs are not read")
    there = {name: np.asarray(value) for name, value in zip(node.input, values, strict=True) if name}
    body = helper.make_graph(
        [node],
        "constants",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(there[name].dtype), None) for name in there],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", context.version)])
    found = iter(ReferenceEvaluator(model).run(None, there))
    return [next(found) if name else None for name in node.output]
