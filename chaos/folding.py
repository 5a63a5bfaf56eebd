"""A trained network without its batch normalisations, for evaluation. Above chaos.network and the layers."""

from __future__ import annotations

import dataclasses

import numpy as np

from .layers import BatchNorm1d, BatchNorm2d, Conv1d, Conv2d, Input, Layer, Linear, Node
from .layers.base import Array
from .network import Network


def fold(net: Network) -> Network:
    """A network whose outputs in evaluation are those of `net`, up to rounding, without the batch normalisations that
    directly follow a convolution or a `Linear` which nobody else reads.

    In evaluation y = weight * (W x + b - mean) / sqrt(var + eps) + bias is itself a convolution, with the weights
    W * weight / sqrt(var + eps) and the biases (b - mean) * weight / sqrt(var + eps) + bias (Jacob et al. 2018, section
    3.2). Layers that stand in several places are left as they are. The new network has weights of its own; layers with a
    name keep it, the others are numbered anew.

    Parameters
    ----------
    net : Network

    Returns
    -------
    Network
    """
    if not isinstance(net, Network):
        raise TypeError(f"fold takes a chaos.Network, not {type(net).__name__}")
    nodes, folded = net.nodes(), _foldable(net)
    made: dict[Node, Node] = {}
    copies: dict[int, Layer] = {}
    origin: dict[Node, Node] = {}  # of the new nodes
    for node, _ in nodes:
        sources = [made[source] for source in node.inputs]
        if node.layer is None:
            made[node] = Input(node.shape)
        elif node in folded:
            made[node] = sources[0]
        else:
            layer = node.layer
            if node in folded.values():
                assert isinstance(layer, Linear | Conv1d | Conv2d)
                layer = dataclasses.replace(layer, bias=True)
            made[node] = copies.setdefault(id(node.layer), layer)(*sources)
            origin[made[node]] = node
    inputs = [made[node] for node, _ in nodes if isinstance(node, Input)]
    found = Network([node for node in inputs if isinstance(node, Input)], [made[node] for node in net.outputs], seed=None)
    found.load_state_dict(_state(net, found, origin, folded))
    found.trained_on, found.class_names = net.trained_on, net.class_names
    return found


def _foldable(net: Network) -> dict[Node, Node]:
    """{normalisation: the node before it} of all that can be folded."""
    nodes = [node for node, _ in net.nodes()]
    readers = {node: sum(other.inputs.count(node) for other in nodes) + net.outputs.count(node) for node in nodes}
    places = {id(node.layer): sum(other.layer is node.layer for other in nodes) for node in nodes if node.layer}
    found = {}
    for node in nodes:
        if isinstance(node.layer, BatchNorm1d | BatchNorm2d):
            (before,) = node.inputs
            alone = readers[before] == 1 and places[id(node.layer)] == places.get(id(before.layer)) == 1
            if alone and isinstance(before.layer, Linear | Conv1d | Conv2d):
                found[node] = before
    return found


def _state(net: Network, found: Network, origin: dict[Node, Node], folded: dict[Node, Node]) -> dict[str, Array]:
    """The new network's parameters."""
    there, state = net.state_dict(), {}
    behind = {before: node for node, before in folded.items()}
    for node, _ in found.nodes():
        if node.layer is None:
            continue
        old = origin[node]
        parts = _parts(net, old, there)
        if old in behind:
            parts = _joined(parts, _parts(net, behind[old], there), behind[old].layer)
        for part, value in parts.items():
            state[node.layer.part_name(found.part_owner(node), part)] = value
    return state


def _parts(net: Network, node: Node, state: dict[str, Array]) -> dict[str, Array]:
    assert node.layer
    owner = net.part_owner(node)
    names = {part: node.layer.part_name(owner, part) for part in node.layer.part_names}
    return {part: state[name] for part, name in names.items() if name in state}


def _joined(parts: dict[str, Array], normal: dict[str, Array], layer: Layer | None) -> dict[str, Array]:
    """Weight and bias of both layers together."""
    assert isinstance(layer, BatchNorm1d | BatchNorm2d)
    wide = {name: value.astype(np.float64) for name, value in normal.items()}
    factor = wide.get("weight", 1.0) / np.sqrt(wide["running_var"] + layer.eps)
    weight = parts["weight"] * factor.reshape(-1, *[1] * (parts["weight"].ndim - 1))
    bias = (parts.get("bias", 0.0) - wide["running_mean"]) * factor + wide.get("bias", 0.0)
    return {"weight": weight, "bias": bias}
