"""The graph that the nodes of a network make. Below chaos.network."""

from __future__ import annotations

from .layers import Input, Node
from .layers.base import Shape


def topological_order(starts: list[Input], outputs: list[Node]) -> list[Node]:
    """The nodes that the outputs depend on, inputs first; ValueError for graphs that are no network."""
    order: list[Node] = []
    state: dict[Node, str] = {}
    for output in outputs:
        if output not in state:
            _visit(output, state, order)
    inputs = {node for node in order if node.layer is None}
    if len(set(starts)) != len(starts):
        raise ValueError("a chaos.Input is named twice among the inputs")
    if set(starts) - inputs:
        raise ValueError("the output does not depend on the given chaos.Input")
    if inputs - set(starts):
        raise ValueError("the output depends on another chaos.Input than the one given")
    if len(set(outputs)) != len(outputs):
        raise ValueError("a node is named twice among the outputs")
    if set(outputs) & set(starts):
        raise ValueError("a network needs at least one layer")
    return [*starts, *(node for node in order if node.layer)]


def _visit(output: Node, state: dict[Node, str], order: list[Node]) -> None:
    """Adds to `order` what `output` depends on, and it."""
    stack = [(output, iter(output.inputs))]
    state[output] = "open"
    while stack:  # depth first without recursion: deep networks are ordinary
        node, rest = stack[-1]
        for source in rest:
            if source not in state:
                state[source] = "open"
                stack.append((source, iter(source.inputs)))
                break
        else:
            stack.pop()
            order.append(node)


def core_shape(shape: Shape) -> tuple[int, int, int]:
    """The core sees a vector of k features as an image of k channels and one pixel, a sequence as an image of one row."""
    return shape if len(shape) == 3 else (shape[0], 1, shape[1] if len(shape) == 2 else 1)
