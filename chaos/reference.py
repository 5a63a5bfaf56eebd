"""The definition of a network's forward and backward pass, in NumPy: slow, obvious, in any dtype.

The oracle that tests and benchmarks hold the core to. Uses the layers' own definitions; knows nothing of chaos._core.
"""

import numpy as np

from .losses import LOSSES


def take(x, dtype=np.float64):
    """Images as the network sees them: uint8 pixels become x / 127.5 - 1."""
    x = np.asarray(x)
    return x.astype(dtype) / 127.5 - 1 if x.dtype == np.uint8 else x.astype(dtype)


def forward(net, x, dtype=np.float64, state=None, touch=lambda a: a):
    """{node: output array} for all nodes of the graph; the last one is the network's output. `state` replaces the
    network's own parameters; every intermediate result passes through `touch` (to study the effect of rounding)."""
    state = _state(net, dtype, state)
    values = {}
    for node, name in net.nodes():
        if node.layer is None:
            values[node] = take(x, dtype)
        else:
            inputs = [values[source] for source in node.inputs]
            values[node] = touch(node.layer.forward(inputs, _params(state, node, name)))
    return values


def loss_and_gradients(net, x, y, loss="cross_entropy", dtype=np.float64, state=None, touch=lambda a: a):
    """Mean loss and {parameter name: gradient}, as `Network.loss_and_gradients`; `state` and `touch` as for `forward`."""
    state = _state(net, dtype, state)
    values = forward(net, x, dtype, state, touch)
    nodes = net.nodes()
    output = values[nodes[-1][0]]
    deltas = {nodes[-1][0]: touch(LOSSES[loss].gradient(output.reshape(len(output), -1), y).reshape(output.shape))}
    gradients = {}
    for node, name in reversed(nodes):
        if node.layer is None:
            continue
        inputs = [values[source] for source in node.inputs]
        into, own = node.layer.backward(inputs, _params(state, node, name), values[node], deltas[node])
        gradients |= {f"{name}.{key}": value for key, value in own.items()}
        for source, delta in zip(node.inputs, map(touch, into), strict=True):
            deltas[source] = deltas[source] + delta if source in deltas else delta
    return LOSSES[loss].value(output.reshape(len(output), -1), y), gradients


def _state(net, dtype, state):
    return {name: np.asarray(value, dtype) for name, value in (net.state_dict() if state is None else state).items()}


def _params(state, node, name):
    return {key: state[f"{name}.{key}"] for key in node.layer.parameters if f"{name}.{key}" in state}
