"""A network: a graph of layers, its shapes, its weights in one flat vector, and its plan for the core.

Below chaos.training and above the layers; with chaos.training, chaos.info, chaos.bench and chaos.perfmodel the only room
that sees chaos._core.
"""

from __future__ import annotations

import json
import threading

import numpy as np

from . import _core
from .errors import CheckpointError, DataError
from .formats import read_tensors, write_tensors
from .layers import LAYERS, Elementwise, Input, Layer, Node, whole
from .losses import LOSSES

FORMAT = "chaos-1"
STATE = "optimizer."  # begins the names of tensors that are kept beside the parameters: the state of an update rule


class Network:
    """A convolutional network with its weights.

    Parameters
    ----------
    inputs : tuple of int, or chaos.Input
        Shape of one image, (channels, height, width) or (features,), followed by a list of layers; or the input node of a
        graph, followed by its output node.
    outputs : list of Layer, or Node
    seed : int
        Of the initial values: PyTorch's defaults, uniform in +-1/sqrt(fan_in), drawn layer by layer.

    Attributes
    ----------
    weights : ndarray of float32
        All parameters in the layout of the kernels, padding included; shared with whatever trains the network. Use
        `state_dict` for the parameters in PyTorch's shapes.

    Raises
    ------
    ValueError
        Where a layer does not fit its input; the message shows the layer, the input's shape and the formula.
    """

    def __init__(self, inputs, outputs, *, seed=0):
        if isinstance(outputs, Node):
            if not isinstance(inputs, Input):
                raise TypeError(f"a graph needs its chaos.Input, not {type(inputs).__name__}")
            output = outputs
        else:
            if isinstance(inputs, Node):
                raise TypeError("a list of layers needs the shape of the input, not a node; a graph needs its output node")
            output = inputs = Input(inputs)
            for layer in outputs:
                if not isinstance(layer, Layer):
                    raise TypeError(f"layers must be layers such as chaos.Linear(10), not {layer!r}")
                output = layer(output)
        self._order = _topological_order(inputs, output)
        self._number = {node: i for i, node in enumerate(self._order)}
        self.input_shape = inputs.shape
        self.output_shape = output.shape
        self._name_nodes()
        self._plan = None
        self._engine = None
        self._forwarding = threading.Lock()
        self.weights = aligned_zeros(self.plan.weight_size)
        self._positions = {}
        rng = np.random.default_rng(whole("seed", seed, 0))
        for i, node in enumerate(self._order[1:], 1):
            shapes = self._shapes_into(node)
            declared = node.layer.parameter_shapes(*shapes)
            for k, name in enumerate(node.layer.parameters):
                if name in declared:
                    at = np.empty(int(np.prod(declared[name])), np.int64)
                    self.plan.positions(i, k, at)
                    self._positions[f"{self._names[node]}.{name}"] = (at, declared[name])
            for name, value in node.layer.initial_values(rng, *shapes).items():
                at, _ = self._positions[f"{self._names[node]}.{name}"]
                self.weights[at] = value.ravel()

    # ---- structure ----

    def _name_nodes(self):
        self._names = {}
        for i, node in enumerate(self._order[1:]):
            name = node.layer.name or str(i)
            if name in self._names.values():
                raise ValueError(f"two layers are named {name!r}")
            self._names[node] = name

    def _shapes_into(self, node):
        return [source.shape for source in node.inputs]

    def nodes(self):
        """[(node, name), ...] in topological order; the input comes first and is named "input"."""
        return [(node, self._names.get(node, "input")) for node in self._order]

    @property
    def plan(self):
        """The core's plan, for the instruction set in force (`CHAOS_ISA`, `CHAOS_WINOGRAD`); the layout of the weights is
        the same for all."""
        if self._plan is None or (self._plan.isa, self._plan.winograd) != (_core.get_isa(), _core.get_winograd()):
            try:
                plan = _core.Plan(*_core_shape(self.input_shape))
            except OverflowError:
                raise ValueError(f"input shape {self.input_shape} is too large") from None
            for i, (node, (_, layer, seen)) in enumerate(zip(self._order[1:], self.core_layers(), strict=True), 1):
                channels, options = layer.core_options(*seen)
                try:
                    plan.add(layer.kind, [self._number[source] for source in node.inputs], channels, options)
                except (ValueError, OverflowError) as error:
                    raise ValueError(f"{layer} on input of shape {seen}: {error}") from None
                shape = layer.output_shape(*seen)
                if plan.shape(i) != _core_shape(shape):
                    raise RuntimeError(
                        f"{layer} has output {plan.shape(i)} in the core and {shape} here: the two "
                        "halves of this layer disagree"
                    )
            plan.finish(len(self._order) - 1)
            self._plan, self._engine = plan, None
        return self._plan

    def _pool_before_activation(self):
        """{node: the layer that the core computes there}. An increasing function commutes with taking the maximum, so an
        activation that only a max-pooling reads changes places with it: the same values from a fraction of the work."""
        layers = {node: node.layer for node in self._order}
        readers = {node: [] for node in self._order}
        for node in self._order:
            for source in node.inputs:
                readers[source].append(node)
        for node in self._order[1:-1]:
            if isinstance(node.layer, Elementwise) and [r.layer.kind for r in readers[node]] == ["max_pool2d"]:
                pool = readers[node][0]
                layers[node], layers[pool] = layers[pool], layers[node]
        return layers

    def core_layers(self):
        """[(name, layer, shapes of its inputs), ...]: what the core computes at its nodes 1, 2, ..., for benchmarks. An
        activation and the max-pooling that alone reads it have changed places; names stay with their layers."""
        layers, names = self._pool_before_activation(), {node.layer: name for node, name in self._names.items()}
        found, shapes = [], {self._order[0]: self.input_shape}
        for node in self._order[1:]:
            layer, seen = layers[node], [shapes[source] for source in node.inputs]
            found.append((names[layer], layer, seen))
            shapes[node] = layer.output_shape(*seen)
        return found

    @property
    def n_parameters(self):
        """Number of trainable parameters, padding not counted."""
        return sum(len(at) for at, _ in self._positions.values())

    def macs(self):
        """Multiply-adds of one image: {"forward", "weight_gradient", "data_gradient"} (none of the last for layers that
        see only the input)."""
        total = {"forward": 0, "weight_gradient": 0, "data_gradient": 0}
        learns = {}
        for node in self._order:
            before = any(learns[source] for source in node.inputs)
            learns[node] = before or bool(node.layer and node.layer.parameters)
            if node.layer:
                macs = node.layer.macs(*self._shapes_into(node))
                total["forward"] += macs
                total["weight_gradient"] += macs if node.layer.parameters else 0
                total["data_gradient"] += macs if before else 0
        return total

    def config(self):
        """The architecture as JSON-able data; `Network.from_config` builds it again."""
        layers = [
            {"kind": node.layer.kind, "inputs": [self._number[s] for s in node.inputs], **node.layer.config()}
            for node in self._order[1:]
        ]
        return {"input": list(self.input_shape), "layers": layers}

    @classmethod
    def from_config(cls, config, *, seed=0):
        """The network that `config` describes, with fresh weights; ValueError where it describes none."""
        try:
            nodes = [Input(config["input"])]
            for entry in config["layers"]:
                options = {
                    k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k not in ("kind", "inputs")
                }
                if entry["kind"] not in LAYERS:
                    raise ValueError(f"unknown layer kind {entry['kind']!r}; known: {', '.join(LAYERS)}")
                nodes.append(LAYERS[entry["kind"]](**options)(*(nodes[i] for i in entry["inputs"])))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"the description of the network is damaged: {type(error).__name__} {error}") from None
        return cls(nodes[0], nodes[-1], seed=seed)

    def __repr__(self):
        lines = [f"Network: {self.n_parameters:,} parameters", f"{'':8} {'input':40} {self.input_shape}"]
        for node in self._order[1:]:
            count = sum(int(np.prod(s)) for s in node.layer.parameter_shapes(*self._shapes_into(node)).values())
            count = f"{count:,}" if count else ""
            lines.append(f"{self._names[node]:8} {node.layer!r:40} {node.shape!s:16} {count}".rstrip())
        return "\n".join(lines)

    # ---- weights ----

    def move_weights(self, vector):
        """Keeps the weights in `vector` (float32, as long as `weights`, 64-byte aligned) from now on; returns the vector
        where they were. What it held is overwritten. No engine made before sees later changes."""
        with self._forwarding:
            before, self.weights, self._engine = self.weights, vector, None
        if vector is not before:
            vector[:] = before
        return before

    def state_dict(self):
        """{"<index or name>.weight": float32 array in PyTorch's shape, ...} in the order of the layers; copies."""
        return self.unpack(self.weights)

    def unpack(self, vector):
        """{parameter name: array in PyTorch's shape} of a vector that is laid out as the weights; copies."""
        return {name: vector[at].reshape(shape) for name, (at, shape) in self._positions.items()}

    def pack(self, state, vector):
        """The way back: puts {parameter name: array} into a vector that is laid out as the weights."""
        for name, (at, _) in self._positions.items():
            vector[at] = state[name].ravel()

    def load_state_dict(self, state):
        """Takes the parameters of `state`, anything array-like in PyTorch's names and shapes. What a training run keeps
        beside them in its file, under names that begin with "optimizer.", is passed over.

        Raises
        ------
        CheckpointError
            If a name is missing or unknown, a shape differs, or a value is not finite; the network is unchanged then.
        """
        missing, unknown = self._positions.keys() - state.keys(), state.keys() - self._positions.keys()
        unknown = {name for name in unknown if not name.startswith(STATE)}
        if missing or unknown:
            raise CheckpointError(
                f"the parameters do not fit the network: missing {sorted(missing)}, unknown {sorted(unknown)}"
            )
        arrays = {}
        for name, (_, shape) in self._positions.items():
            array = np.asarray(state[name], dtype=np.float32)
            if array.shape != shape:
                raise CheckpointError(f"parameter {name} has shape {array.shape}, the network wants {shape}")
            if not np.isfinite(array).all():
                raise CheckpointError(f"parameter {name} holds NaN or infinity")
            arrays[name] = array
        self.pack(arrays, self.weights)

    def save(self, path, metadata=None, state=None):
        """Writes architecture and weights to a safetensors file, atomically.

        Parameters
        ----------
        path : str or path
        metadata : dict of str to str, optional
            Kept in the file beside chaos's own entries.
        state : dict of str to array, optional
            Further tensors, under names that begin with "optimizer.".
        """
        write_tensors(
            path,
            {**self.state_dict(), **(state or {})},
            {**(metadata or {}), "format": FORMAT, "network": json.dumps(self.config())},
        )

    # ---- use ----

    def forward(self, x):
        """Outputs (logits) for images.

        Parameters
        ----------
        x : array, (n, channels, height, width) or (n, features)
            uint8 pixels are seen as x / 127.5 - 1, anything else as float32 values; (n, height, width) is accepted for one
            channel.

        Returns
        -------
        ndarray of float32, (n, k)

        Raises
        ------
        DataError
            If shape or values are not what the network can take.
        """
        data = self.take_images(x)
        out = np.empty((data["count"], int(np.prod(self.output_shape))), np.float32)
        if len(out):
            # an engine of its own per call would be thread-safe too, but costs more than a few images
            with self._forwarding:
                plan = self.plan
                if self._engine is None:
                    self._engine = _core.Engine(plan, self.weights, batch_size=_core.TOGETHER)
                self._engine.run("forward", data["pixels"], data["values"], out=out)
        return out

    def predict_proba(self, x):
        """softmax(forward(x)): (n, k) float32, rows sum to 1."""
        y = self.forward(x)
        e = np.exp(y - y.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def predict(self, x):
        """The class with the largest output for each image: (n,) int64."""
        return self.forward(x).argmax(1)

    def loss_and_gradients(self, x, y, loss="cross_entropy"):
        """Mean loss over the images and its gradients; the weights stay as they are.

        Parameters
        ----------
        x : array
            As for `forward`.
        y : array of int, (n,)
            Labels.
        loss : str
            One of chaos.losses.LOSSES.

        Returns
        -------
        float, {parameter name: float32 gradient in PyTorch's shape}
        """
        data = self.take_images(x)
        labels = take_labels(y, data["count"], int(np.prod(self.output_shape)))
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}")
        if not data["count"]:
            raise DataError("loss_and_gradients needs at least one image")
        engine = _core.Engine(self.plan, self.weights, loss=loss, batch_size=data["count"])
        result = engine.run("gradients", data["pixels"], data["values"], labels=labels)
        if result["status"] == "diverged":
            raise ArithmeticError(f"the loss of image {result['failed_at']} is not finite")
        vector = np.empty_like(self.weights)
        engine.gradient(vector)
        return result["loss"] / data["count"], self.unpack(vector)

    def take_images(self, x):
        """`x` as the core wants it: {"pixels" or "values": flat array (the other None), "count": n}; DataError if it cannot
        be."""
        x = np.asarray(x)
        if x.ndim == 3 and len(self.input_shape) == 3 and self.input_shape[0] == 1:
            x = x[:, None]
        if x.shape[1:] != self.input_shape:
            raise DataError(f"images have shape {x.shape}, the network wants (n, {', '.join(map(str, self.input_shape))})")
        if x.dtype == np.uint8:
            return {"pixels": np.ascontiguousarray(x).reshape(-1), "values": None, "count": len(x)}
        if x.dtype.kind not in "fiu":
            raise DataError(f"images must be numbers, not {x.dtype}")
        x = np.ascontiguousarray(x, np.float32)
        if not np.isfinite(x).all():
            raise DataError("images hold NaN or infinity")
        return {"pixels": None, "values": x.reshape(-1), "count": len(x)}

    def __getstate__(self):
        return {"config": self.config(), "state": self.state_dict()}

    def __setstate__(self, state):
        other = Network.from_config(state["config"])
        self.__dict__.update(other.__dict__)
        self.load_state_dict(state["state"])


def take_labels(y, count, classes):
    """`y` as contiguous int64 labels of `count` images, each in 0..classes-1; DataError otherwise."""
    y = np.asarray(y)
    if y.shape != (count,):
        raise DataError(f"labels have shape {y.shape}, expected ({count},): one per image")
    if y.dtype.kind not in "iu":
        raise DataError(f"labels must be integers, not {y.dtype}")
    if count and (y.min() < 0 or y.max() >= classes):
        first = int(np.flatnonzero((y < 0) | (y >= classes))[0])
        raise DataError(f"label {y[first]} of image {first} is not in 0..{classes - 1}, the network's outputs")
    return np.ascontiguousarray(y, np.int64)


def load(path):
    """The network in a file written by `Network.save` or a training run.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or describes no network.
    """
    return load_with_state(path)[0]


def load_with_state(path):
    """As `load`, with the file's metadata {str: str} and the tensors {name: array} that are not parameters."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: holds tensors but no chaos network (format {metadata.get('format')!r}, expected {FORMAT!r})"
        )
    try:
        net = Network.from_config(json.loads(metadata["network"]))
        net.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    known = net.state_dict()
    return net, metadata, {name: tensor for name, tensor in tensors.items() if name not in known}


def _topological_order(start, output):
    """The nodes that `output` depends on, inputs first; ValueError for graphs that are no network."""
    order, state = [], {}
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
    inputs = [node for node in order if node.layer is None]
    if inputs != [start]:
        raise ValueError(
            "the output does not depend on the given chaos.Input"
            if start not in inputs
            else "the output depends on another chaos.Input than the one given"
        )
    if output is start:
        raise ValueError("a network needs at least one layer")
    used = [node.layer for node in order[1:]]
    if order[0] is not start or len(set(map(id, used))) != len(used):
        raise ValueError("a layer object is used twice; sharing weights between layers is not supported")
    return order


def _core_shape(shape):
    """The core sees a vector of k features as an image of k channels and one pixel."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)


def aligned_zeros(shape):
    """A float32 array that starts on a cache line."""
    size = int(np.prod(shape))
    room = np.zeros(size + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    return room[start : start + size].reshape(shape)
