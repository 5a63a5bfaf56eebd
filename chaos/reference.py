"""The definition of a network's forward and backward pass, in NumPy: slow, obvious, in any dtype.

The oracle that tests and benchmarks hold the core to. Uses the layers' own definitions; knows nothing of chaos._core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .freezing import evaluates
from .layers import random
from .layers.base import Array, Context, Node, Parts
from .losses import LOSSES


class Described(Protocol):
    """A network, as far as its definition needs to know it."""

    outputs: list[Node]

    def nodes(self) -> list[tuple[Node, str]]: ...

    def part_owner(self, node: Node) -> str: ...

    def state_dict(self) -> Mapping[str, ArrayLike]: ...

    @property
    def frozen(self) -> tuple[str, ...]: ...


def take(x: ArrayLike, dtype: DTypeLike = np.float64) -> Array:
    """Images as the network sees them: uint8 pixels become x / 127.5 - 1."""
    x = np.asarray(x)
    return x.astype(dtype) / 127.5 - 1 if x.dtype == np.uint8 else x.astype(dtype)


def forward(
    net: Described,
    x: Any,
    dtype: DTypeLike = np.float64,
    state: Mapping[str, ArrayLike] | None = None,
    touch: Callable[[Array], Array] = lambda a: a,
    training: bool = False,
    key: int = 0,
) -> dict[Node, Array]:
    """{node: output array} for all nodes of the graph. `state` replaces the
    network's own parameters; every intermediate result passes through `touch` (to study the effect of rounding). `training`
    and `key` (chaos.network.run_key) are what layers are told that differ in training; the images are numbers 0, 1, ..."""
    state = _state(net, dtype, state)
    values, inputs = {}, iter(x if isinstance(x, (tuple, list)) else [x])
    for i, (node, _) in enumerate(net.nodes()):
        if node.layer is None:
            values[node] = take(next(inputs), dtype)
        else:
            seen = [values[source] for source in node.inputs]
            context = _context(net, node, len(seen[0]), i, training, key)
            values[node] = touch(node.layer.forward(seen, _parts(state, net, node), context))
    return values


def loss_and_gradients(
    net: Described,
    x: Any,
    y: ArrayLike,
    loss: str = "cross_entropy",
    dtype: DTypeLike = np.float64,
    state: Mapping[str, ArrayLike] | None = None,
    touch: Callable[[Array], Array] = lambda a: a,
    key: int = 0,
    loss_options: dict[str, Any] | None = None,
    weights: ArrayLike | None = None,
) -> tuple[Any, Parts]:
    """Mean loss and {parameter name: gradient}, as `Network.loss_and_gradients`; `state` and `touch` as for `forward`. Of
    state what is observed instead of a gradient."""
    state = _state(net, dtype, state)
    values = forward(net, x, dtype, state, touch, training=True, key=key)
    nodes = net.nodes()
    terms = LOSSES.terms(loss, LOSSES[loss].resolve(loss_options or {}), len(net.outputs))
    targets = y if isinstance(y, tuple) else [y] * len(terms)
    n = len(values[net.outputs[0]])
    weights = np.ones(n, dtype) if weights is None else np.asarray(weights, dtype)
    value: Any = 0
    deltas: dict[Node, Array] = {}
    for term, right in zip(terms, map(np.asarray, targets), strict=True):
        node = net.outputs[term.output]
        output, kind, options = values[node], term.loss, term.options
        for s, w in enumerate(weights):
            value = value + term.factor * w * kind.value(output[s : s + 1], right[s : s + 1], **options) / n
        by_image = term.factor * weights.reshape(-1, *[1] * (output.ndim - 1))
        delta = touch(by_image * kind.gradient(output, right, **options))
        deltas[node] = deltas[node] + delta if node in deltas else delta
    for node in net.outputs:  # also those that no term is of
        deltas.setdefault(node, np.zeros_like(values[node]))
    gradients: Parts = {}
    for i, (node, _) in reversed(list(enumerate(nodes))):
        if node.layer is None or node not in deltas:
            continue
        inputs = [values[source] for source in node.inputs]
        context = _context(net, node, n, i, True, key)
        into, own = node.layer.backward(inputs, _parts(state, net, node), values[node], deltas[node], context)
        for part, gradient in own.items():
            name = node.layer.part_name(net.part_owner(node), part)
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        for source, delta in zip(node.inputs, map(touch, into), strict=True):
            deltas[source] = deltas[source] + delta if source in deltas else delta
    return value, gradients


def _context(net: Described, node: Node, n: int, number: int, training: bool, key: int) -> Context:
    training = training and not evaluates(node, net.part_owner(node), net.frozen)
    return Context(training, random.key(random.key(key, np.arange(n)), number))


def _state(net: Described, dtype: DTypeLike, state: Mapping[str, ArrayLike] | None) -> Parts:
    return {name: np.asarray(value, dtype) for name, value in (net.state_dict() if state is None else state).items()}


def _parts(state: Parts, net: Described, node: Node) -> Parts:
    if node.layer is None:
        return {}
    owner = net.part_owner(node)
    called = {part: node.layer.part_name(owner, part) for part in node.layer.part_names}
    return {part: state[name] for part, name in called.items() if name in state}
