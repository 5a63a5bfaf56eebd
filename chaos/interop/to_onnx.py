"""Networks as ONNX models. Needs the package onnx. Imported by chaos.interop; what layers become is in onnx_layers.py."""

from __future__ import annotations

import os
from typing import Any

from .. import _version
from ..errors import UnsupportedError
from ..network import Network
from .needing import needing
from .onnx_layers import LAYERS, Writer

OPSET, IR_VERSION = 21, 10  # what GroupNormalization with a scale per channel needs


def to_onnx(net: Network, path: str | os.PathLike[str] | None = None) -> Any:
    """The network as an ONNX model of operator set 21, with its weights, as it is used after training.

    Parameters
    ----------
    net : Network
    path : str or path, optional
        Where to write it, atomically.

    Returns
    -------
    onnx.ModelProto
        Checked by ``onnx.checker``. Inputs and outputs have the number of images open.

    Raises
    ------
    UnsupportedError
        For layers that ONNX has no operators for, all at once.
    ModuleNotFoundError
        Without the package onnx (``pip install 'chaos-sgd[onnx]'``).
    """
    with needing("onnx"):
        import onnx
        from onnx import TensorProto, helper

    state = net.state_dict()
    writer = Writer()
    known: dict[Any, str] = {}
    problems: list[str] = []
    inputs: list[Any] = []
    for node, name in net.nodes():
        layer = node.layer
        if layer is None:
            known[node] = writer.name(f"input_{len(inputs) + 1}" if len(net.input_shapes) > 1 else "input")
            inputs.append(helper.make_tensor_value_info(known[node], TensorProto.FLOAT, ["n", *node.shape]))
            continue
        owner, shapes = net.part_owner(node), [source.shape for source in node.inputs]
        kind = type(layer).__name__
        parts = {part: state[layer.part_name(owner, part)] for part in layer.parts(*shapes)}
        names = {part: layer.part_name(owner, part) for part in parts}
        try:
            if kind not in LAYERS:
                raise UnsupportedError("there is no such operator")
            writer.begin(name, parts, names)
            known[node] = LAYERS[kind](writer, layer, shapes, [known[source] for source in node.inputs])
        except UnsupportedError as error:
            problems.append(f"{name} ({layer}): {error}")
            known[node] = known[node.inputs[0]]
    if problems:
        raise UnsupportedError("ONNX has no operators for\n  " + "\n  ".join(problems))
    outputs = []
    for number, node in enumerate(net.outputs, 1):
        end = writer.op("Identity", known[node], output=f"output_{number}" if len(net.outputs) > 1 else "output")
        outputs.append(helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", *node.shape]))
    graph = helper.make_graph(writer.nodes, "network", inputs, outputs, writer.initialisers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="chaos",
        producer_version=_version.__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        from ..formats.atomic import write_atomically

        write_atomically(path, model.SerializeToString())
    return model
