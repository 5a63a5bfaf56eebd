"""A network: a graph of layers, its shapes, its weights in one flat vector, and its plan for the core.

Below chaos.training and above the layers; with chaos.training, chaos.installation, chaos.bench and chaos.perfmodel the only
room that sees chaos._core. One class; long because of its docstrings.
"""

from __future__ import annotations

import json
import math
import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core, freezing, scale
from .arrays import aligned_zeros, extremes, float32, numbers
from .engines import Engines, Lent
from .errors import CheckpointError, DataError
from .formats import write_tensors
from .graph import core_shape, topological_order
from .hints import FILES, NETWORK, missing
from .layers import LAYERS, Input, Layer, Node, random, whole
from .layers.base import Array, Shape, Trained
from .losses import LOSSES, Term
from .parameters import Parameters
from .places import Place
from .precision import FLOAT32, PRECISIONS, unit_for
from .scale import Scale
from .taken import take_input, take_target, take_weights

FORMAT = "chaos-1"
TRAINED_ON, CLASS_NAMES = "trained_on", "class_names"
COUNTS = ".num_batches_tracked"  # of PyTorch's normalisations, which use it only where they have no momentum
MOST_TOGETHER = 16  # MAX_INPUTS of cext/layers/layer.h
STATE = "optimizer."  # begins the names of tensors that are kept beside the parameters: the state of an update rule


class Network(Parameters):
    """A convolutional network with its weights.

    Parameters
    ----------
    inputs : tuple of int, chaos.Input, or list of chaos.Input
        Shape of one image, (channels, height, width), (channels, length) or (features,), followed by a list of layers; or
        the input node of a graph, or a list of its input nodes, followed by its output node, or a list of them. A layer that
        stands in several places of a graph has one set of weights there; their gradients add up.
    outputs : list of Layer, Node, or list of Node
    seed : int or None
        Of the initial values: PyTorch's defaults, uniform in +-1/sqrt(fan_in), drawn layer by layer. None: what would be
        random is 0, for who gives the parameters other values at once (`initialise`, `load_state_dict`).

    Attributes
    ----------
    input_shape : tuple
        Of one image; of several inputs a tuple of shapes.
    output_shape : tuple
        Of one image; of several outputs a tuple of shapes.
    weights : ndarray of float32
        All parameters, and what layers observe (running statistics), in the layout of the kernels, padding included; shared
        with whatever trains the network. Use
        `state_dict` for the parameters in PyTorch's shapes.
    history : list of dict
        The records of the finished epochs of the last training here, as in `Run.history`, also where it was interrupted.
    trained_on : tuple of chaos.scale.Scale, or None
        For each input what the numbers of its training images were: pixels, or floats from .. to. Kept in files. Images of
        another scale are refused or warned about; None: nothing is known, all are taken.
    class_names : tuple of str, or None
        Of the classes that it was trained on, in the order of its outputs; kept in files.
    precision : str
        "float32", or "bf16": layers that this makes faster multiply numbers that are rounded to bfloat16 and add up the
        products in float32, in predictions, `update` and `loss_and_gradients`; weights stay float32. Not kept in files.
        Assigning "bf16" raises UnsupportedError where the processor has no AMX.

    Raises
    ------
    ValueError
        Where a layer does not fit its input; the message shows the layer, the input's shape and the formula.
    """

    @overload
    def __init__(self, inputs: Iterable[int], outputs: Iterable[Layer], *, seed: int | None = 0) -> None: ...

    @overload
    def __init__(self, inputs: Input | Sequence[Input], outputs: Node | Sequence[Node], *, seed: int | None = 0) -> None: ...

    def __init__(self, inputs: Any, outputs: Any = None, *more: Any, seed: int | None = 0) -> None:
        if isinstance(outputs, Layer) and more:
            raise TypeError(f"layers must be one list, such as [{outputs}, {more[0]}]")
        if outputs is None or more:
            raise TypeError(
                "a network is made of the shape of one image and a list of layers, chaos.Network((1, 28, 28), "
                "[chaos.Flatten(), chaos.Linear(10)]), or of the inputs and outputs of a graph"
            )
        if isinstance(outputs, Layer):
            raise TypeError(
                f"layers must be a list, such as [{outputs}], or the output node of a graph; not one layer alone"
            )
        ends: list[Any] = [outputs] if isinstance(outputs, Node) else list(outputs)
        if ends and all(isinstance(end, Node) for end in ends):
            several = isinstance(inputs, (list, tuple)) and inputs and all(isinstance(node, Input) for node in inputs)
            if not isinstance(inputs, Input) and not several:
                raise TypeError(f"a graph needs its chaos.Input, or a list of them, not {type(inputs).__name__}")
        else:
            if isinstance(inputs, Node):
                raise TypeError("a list of layers needs the shape of the input, not a node; a graph needs its output node")
            output: Node = (inputs := Input(inputs))
            for layer in ends:
                if not isinstance(layer, Layer):
                    raise TypeError(f"layers must be layers such as chaos.Linear(10), not {layer!r}")
                output = layer(output)
            ends = [output]
        self.outputs: list[Node] = ends
        self._inputs: list[Input] = [inputs] if isinstance(inputs, Input) else list(inputs)
        self._order = topological_order(self._inputs, self.outputs)
        self._number = {node: i for i, node in enumerate(self._order)}
        self.input_shapes = [node.shape for node in self._inputs]
        self.input_shape: Shape | tuple[Shape, ...] = (
            self.input_shapes[0] if len(self._inputs) == 1 else tuple(self.input_shapes)
        )
        self.output_shapes = [node.shape for node in self.outputs]
        self.output_shape: Any = self.output_shapes[0] if len(self.outputs) == 1 else tuple(self.output_shapes)
        self._values = sum(math.prod(shape) for shape in self.output_shapes)  # of an image's outputs
        self._name_nodes()
        self._frozen: frozenset[str] = frozenset()
        self._precision = FLOAT32
        self._plan: _core.Plan | None = None
        self._engines: Engines | None = None
        self._learner: Any = None
        self._lock = threading.Lock()
        _networks.add(self)
        self.trained_on: tuple[Scale, ...] | None = None
        self.history: list[dict[str, Any]] = []
        self.class_names: tuple[str, ...] | None = None
        self.weights: NDArray[np.float32] = aligned_zeros(self.plan.weight_size)
        self._places: dict[str, Place] = {}  # of all parts
        self._trained: set[str] = set()  # names of those that gradients change
        rng = None if seed is None else np.random.default_rng(whole("seed", seed, 0))
        for i, node in enumerate(self._order):
            if node.layer is None or self._owner[node] is not node:
                continue
            shapes = self._shapes_into(node)
            for name, part in node.layer.parts(*shapes).items():
                called = node.layer.part_name(self._names[node], name)
                self._places[called] = Place(self.plan, i, name, part.shape)
                if isinstance(part, Trained):
                    self._trained.add(called)
            for name, value in node.layer.initial_values(rng, *shapes).items():
                self._places[node.layer.part_name(self._names[node], name)].put(self.weights, value)

    # ---- structure ----

    def _name_nodes(self) -> None:
        self._names: dict[Node, str] = {}
        self._owner: dict[Node, Node] = {}
        first: dict[int, Node] = {}
        layers = [(node, node.layer) for node in self._order if node.layer]
        for node, layer in layers:
            self._owner[node] = first.setdefault(id(layer), node)
        given = [layer.name for node, layer in layers if layer.name and self._owner[node] is node]
        taken = set(given)
        if len(taken) < len(given):
            raise ValueError(f"two layers are named {next(name for name in given if given.count(name) > 1)!r}")
        for i, (node, layer) in enumerate(layers):
            name = layer.name if self._owner[node] is node else None
            if not name:
                name = str(i)
                while name in taken:  # somebody else's name is this number
                    name += "_"
                taken.add(name)
            self._names[node] = name

    def _shapes_into(self, node: Node) -> list[Shape]:
        return [source.shape for source in node.inputs]

    def nodes(self) -> list[tuple[Node, str]]:
        """[(node, name), ...] in topological order; the input comes first and is named "input"."""
        return [(node, self._names.get(node, "input")) for node in self._order]

    @property
    def shares_weights(self) -> bool:
        """Whether a layer with parameters stands in several places."""
        return any(
            node.layer and node.layer.parts(*self._shapes_into(node))
            for node, owner in self._owner.items()
            if owner is not node
        )

    def part_owner(self, node: Node) -> str:
        """The name under which the parts of a node's layer are kept: the first one's, where it stands in several places."""
        return self._names[self._owner[node]]

    @property
    def plan(self) -> _core.Plan:
        """The core's plan, for the instruction set and the loops in force (`CHAOS_ISA`, `CHAOS_WINOGRAD`, `CHAOS_LOOP`); the
        layout of the weights is the same for all."""
        unit = unit_for(self._precision)
        if self._plan is None or self._plan.choice != _core.get_choice() or self._plan.bf16 != unit:
            plan = _core.Plan(unit)
            for i, node in enumerate(self._order):
                if node.layer is None:
                    self._add_input(plan, node)
                else:
                    self._add_layer(plan, i, node, node.layer)
            # the core's output is one vector, in PyTorch's order
            ends = [self._number[node] for node in self.outputs]
            ends = [
                plan.add("flatten", [end]) if len(s) > 1 else end for end, s in zip(ends, self.output_shapes, strict=True)
            ]
            while len(ends) > 1:
                ends = [plan.add("concat", ends[:MOST_TOGETHER], 0, (0,)), *ends[MOST_TOGETHER:]]
            plan.finish(ends[0], math.prod(self.output_shapes[0][1:]) if len(self.output_shapes) == 1 else 1)
            self._plan, self._engines = plan, None
        return self._plan

    @property
    def precision(self) -> str:
        """ "float32" or "bf16"."""
        return self._precision

    @precision.setter
    def precision(self, precision: str) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        unit_for(precision)
        self._precision = precision

    def _add_input(self, plan: _core.Plan, node: Node) -> None:
        try:
            plan.add_input(*core_shape(node.shape))
        except OverflowError:
            raise ValueError(f"input shape {node.shape} is too large") from None

    def _add_layer(self, plan: _core.Plan, i: int, node: Node, layer: Layer) -> None:
        shapes = self._shapes_into(node)
        core, owner = layer.core(*shapes), self._owner[node]
        there = layer.parts(*shapes)
        frozen = [part for part in there if layer.part_name(self._names[node], part) in self._frozen]
        if frozen:  # the core keeps a place for a bias that there is not: it must not count as trained
            frozen += [part for part in layer.part_names if part not in there]
        try:
            plan.add(
                core.kind,
                [self._number[source] for source in node.inputs],
                core.channels,
                core.whole,
                core.real,
                -1 if owner is node else self._number[owner],
                frozen,
            )
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{layer} on input of shape {shapes}: {error}") from None
        if plan.shape(i) != core_shape(node.shape):
            raise RuntimeError(
                f"{layer} has output {plan.shape(i)} in the core and {node.shape} here: the two "
                "halves of this layer disagree"
            )

    def core_layers(self) -> list[tuple[str, Layer, list[Shape]]]:
        """[(name, layer, shapes of its inputs), ...]: what the core computes at the nodes of `nodes()` that are no inputs,
        for benchmarks. An activation and the max-pooling that alone reads it have changed places; names stay with their
        layers."""
        found, shapes = [], {node: node.shape for node in self._order}
        for i, node in enumerate(self._order):
            if node.layer:
                there = self._order[self.plan.layer(i)]
                assert there.layer  # what changed places with a layer is one
                seen = [shapes[source] for source in node.inputs]
                found.append((self._names[there], there.layer, seen))
                shapes[node] = there.layer.output_shape(*seen)
        return found

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters, padding not counted."""
        return sum(place.size for name, place in self._places.items() if name in self._trained)

    def macs(self) -> dict[str, int]:
        """Multiply-adds of one image: {"forward", "weight_gradient", "data_gradient"} (none of the last for layers that
        see only the input, or only what is frozen; none of the second for those that are)."""
        total = {"forward": 0, "weight_gradient": 0, "data_gradient": 0}
        learns: dict[Node, bool] = {}
        for node in self._order:
            before = any(learns[source] for source in node.inputs)
            trained = bool(node.layer) and freezing.trains(node, self.part_owner(node), self._frozen)
            learns[node] = before or trained
            if node.layer:
                macs = node.layer.macs(*self._shapes_into(node))
                total["forward"] += macs
                total["weight_gradient"] += macs if trained else 0
                total["data_gradient"] += macs if before else 0
        return total

    def config(self) -> dict[str, Any]:
        """The architecture as JSON-able data; `Network.from_config` builds it again."""
        layers = []
        for node in self._order:
            if node.layer:
                owner = self._owner[node]
                shares = {} if owner is node else {"shares": self._number[owner]}
                inputs = [self._number[source] for source in node.inputs]
                layers.append({"kind": node.layer.kind, "inputs": inputs, **shares, **node.layer.config()})
        ends = [self._number[node] for node in self.outputs]
        more: dict[str, Any] = {} if ends == [len(self._order) - 1] else {"outputs": ends}
        more |= {"frozen": list(self.frozen)} if self.frozen else {}
        if len(self._inputs) == 1:
            return {"input": list(self.input_shape), "layers": layers, **more}
        return {"inputs": [list(shape) for shape in self.input_shapes], "layers": layers, **more}

    @classmethod
    def from_config(cls, config: dict[str, Any], *, seed: int | None = 0) -> Network:
        """The network that `config` describes, with fresh weights, as of `Network`; ValueError where it describes none."""
        inputs, outputs = cls._graph(config)
        net = cls(inputs[0] if len(inputs) == 1 else inputs, outputs, seed=seed)
        net.freeze_named(config.get("frozen", []))
        return net

    @staticmethod
    def _graph(config: dict[str, Any]) -> tuple[list[Input], list[Node]]:
        """The input nodes and the output nodes that `config` describes; ValueError where it describes none."""
        try:
            inputs = [Input(shape) for shape in config["inputs"]] if "inputs" in config else [Input(config["input"])]
            nodes: list[Node] = list(inputs)
            for entry in config["layers"]:
                options: dict[str, Any] = {
                    k: tuple(v) if isinstance(v, list) else v
                    for k, v in entry.items()
                    if k not in ("kind", "inputs", "shares")
                }
                if entry["kind"] not in LAYERS:
                    raise ValueError(f"unknown layer kind {entry['kind']!r}; known: {', '.join(LAYERS)}")
                layer = nodes[entry["shares"]].layer if "shares" in entry else LAYERS[entry["kind"]](**options)
                nodes.append(layer(*(nodes[i] for i in entry["inputs"])))
            outputs = [nodes[i] for i in config["outputs"]] if "outputs" in config else nodes[-1:]
        except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise ValueError(f"the description of the network is damaged: {type(error).__name__} {error}") from None
        return inputs, outputs

    def __repr__(self) -> str:
        rows = []
        for node in self._order:
            if node.layer is None:
                rows.append(("", "input", str(node.shape), ""))
                continue
            parts = node.layer.parts(*self._shapes_into(node)) if self._owner[node] is node else {}
            count = f"{found:,}" if (found := sum(math.prod(part.shape) for part in parts.values())) else ""
            held = [part for part in parts if node.layer.part_name(self._names[node], part) in self._frozen]
            mark = f" ({', '.join(held)} frozen)" if held else ""
            rows.append((self._names[node], repr(node.layer), str(node.shape), f"{count}{mark}"))
        wide = [max(8, *(len(row[0]) for row in rows)), max(len(row[1]) for row in rows), max(len(row[2]) for row in rows)]
        lines = ["  ".join([*(f"{cell:{w}}" for cell, w in zip(row, wide, strict=False)), row[3]]).rstrip() for row in rows]
        return "\n".join([f"Network: {self.n_parameters:,} parameters", *lines])

    # ---- weights ----

    def move_weights(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Keeps the weights in `vector` (float32, as long as `weights`, 64-byte aligned) from now on; returns the vector
        where they were, which no prediction reads any more. What it held is overwritten. No engine made before sees later
        changes."""
        with self._lock:
            before, self.weights = self.weights, vector
            engines, self._engines = self._engines, None
        if engines is not None:
            engines.drain()
        if vector is not before:
            vector[:] = before
        return before

    def state_dict(self) -> dict[str, NDArray[np.float32]]:
        """{"<index or name>.weight": float32 array in PyTorch's shape, ...} in the order of the layers, with what they
        observe (running statistics); copies."""
        return self.unpack(self.weights)

    def unpack(self, vector: NDArray[np.float32], trained_only: bool = False) -> dict[str, NDArray[np.float32]]:
        """{name: array in PyTorch's shape} of a vector that is laid out as the weights; copies. `trained_only`: without what
        layers observe."""
        return {
            name: place.take(vector) for name, place in self._places.items() if not trained_only or name in self._trained
        }

    def pack(self, state: Mapping[str, Array], vector: Array) -> None:
        """The way back: puts {parameter name: array} into a vector that is laid out as the weights."""
        for name, place in self._places.items():
            place.put(vector, state[name])

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Takes the parameters of `state`, anything array-like in PyTorch's names and shapes. What a training run keeps
        beside them in its file, under names that begin with "optimizer.", is passed over, and so are the batches that
        PyTorch's normalisations have counted ("num_batches_tracked").

        Raises
        ------
        CheckpointError
            If a name is missing or unknown, a shape differs, or a value is no real number, not finite or too large for
            float32; the network is unchanged then.
        """
        if not hasattr(state, "keys"):
            raise CheckpointError(f"the parameters must be a dict of names and arrays, not {type(state).__name__}")
        missing, unknown = self._places.keys() - state.keys(), state.keys() - self._places.keys()
        unknown = {name for name in unknown if not str(name).startswith(STATE) and not str(name).endswith(COUNTS)}
        if missing or unknown:
            raise CheckpointError(
                f"the parameters do not fit the network: missing {sorted(missing)}, unknown {sorted(unknown, key=str)}"
            )
        arrays = {}
        for name, place in self._places.items():
            array = float32(numbers(state[name], f"parameter {name}", CheckpointError))
            if array.shape != place.shape:
                raise CheckpointError(f"parameter {name} has shape {array.shape}, the network wants {place.shape}")
            if extremes(array) is None:
                raise CheckpointError(f"parameter {name} holds NaN or infinity, or numbers too large for float32")
            arrays[name] = array
        self.pack(arrays, self.weights)

    def save(
        self,
        path: str | os.PathLike[str],
        metadata: dict[str, str] | None = None,
        state: Mapping[str, Array] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        """Writes architecture and weights to a safetensors file, atomically.

        Parameters
        ----------
        path : str or path
        metadata : dict of str to str, optional
            Kept in the file beside chaos's own entries.
        state : dict of str to array, optional
            Further tensors, under names that begin with "optimizer.".
        weights : ndarray, optional
            Laid out as the network's, written instead of them.

        Raises
        ------
        ValueError
            If the name ends as that of a file of another format, such as .pt.
        """
        ending = os.path.splitext(os.fspath(path))[1]
        if isinstance(ending, str) and ending.lower() in FILES:
            raise ValueError(f"{os.fspath(path)}: safetensors are written, which that name denies; {FILES[ending.lower()]}")
        parameters = self.unpack(self.weights if weights is None else weights)
        about = {"format": FORMAT, "network": json.dumps(self.config())}
        if self.trained_on is not None:
            about[TRAINED_ON] = json.dumps(scale.to_json(self.trained_on))
        if self.class_names is not None:
            about[CLASS_NAMES] = json.dumps(self.class_names)
        write_tensors(path, {**parameters, **(state or {})}, {**(metadata or {}), **about})

    def to_torch(self) -> Any:
        """The network as a ``torch.nn.Module`` of PyTorch's own layers, with its weights: chaos.interop.to_torch."""
        from .interop import to_torch

        return to_torch(self)

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The network as an ONNX model, written to `path` if one is given: chaos.interop.to_onnx."""
        from .interop import to_onnx

        return to_onnx(self, path)

    # ---- use ----

    if not TYPE_CHECKING:  # who would take any name for one that there is

        def __getattr__(self, name):
            """What other libraries' networks have is answered with what does it here."""
            if name.startswith("_"):  # of protocols, such as copying's
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)
            raise AttributeError(missing("a chaos.Network", name, dir(type(self)), NETWORK), name=name)

    def __call__(self, *x: Any) -> Any:
        """`forward`, as it is asked for in PyTorch."""
        return self.forward(*x)

    def forward(self, x: Any, *more: Any, workers: int | None = None) -> Any:
        """Outputs (logits) for images.

        Parameters
        ----------
        x : array, (n, channels, height, width) or (n, features)
            uint8 pixels are seen as x / 127.5 - 1, anything else as float32 values, except that other integers are pixels
            as well where the network was trained on pixels; (n, height, width) is accepted for one channel. Of a network
            with several inputs a list of such arrays.
        *more : arrays
            The other inputs, if `x` is not a list.
        workers : int, optional
            Threads at most; a batch that one has done before others have woken up gets one. By default as many as
            `chaos.train` would use, and one where another thread predicts with this network at the same time. The outputs
            are the same bits for any number.

        Returns
        -------
        ndarray of float32, (n, k), or (n, channels, ...) where the last layer's output is an image or a sequence; a tuple of
        such arrays where the network has several outputs

        Raises
        ------
        DataError
            If shape or values are not what the network can take, or are pixels where it was trained on floats of another
            scale, or the other way round.
        ValueError
            Where `workers` is no possible number.

        Warns
        -----
        UserWarning
            If the values look unlike those that it was trained on.
        """
        flat = None if more else self._as_it_is(x)
        if flat is not None:
            data: dict[str, Any] = {"inputs": [flat], "count": len(x)}
        else:
            data = self.take_images([x, *more] if more else x, self.trained_on)
        out = np.empty((data["count"], self._values), np.float32)
        with self._predicting(data["count"], workers) as engine:
            try:
                engine.forward(data["inputs"], out)
                served = True
            except RuntimeError:  # the system gives no more threads
                if workers is not None or engine.workers == 1:
                    raise
                served = False
        if not served:
            with self._predicting(data["count"], 1) as engine:
                engine.forward(data["inputs"], out)
        if len(self.output_shapes) == 1:
            return out if len(self.output_shape) == 1 else out.reshape(len(out), *self.output_shape)
        parts = np.split(out, np.cumsum([math.prod(shape) for shape in self.output_shapes])[:-1], 1)
        return tuple(part.reshape(len(out), *shape) for part, shape in zip(parts, self.output_shapes, strict=True))

    def _as_it_is(self, x: Any) -> Array | None:
        """The usual kinds of images, flat, without detours that cost more than a small network; None: they have to be looked
        at by `take_images`."""
        if type(x) is not np.ndarray or x.shape[1:] != self.input_shape or not x.flags.c_contiguous:
            return None
        flat, like = x.reshape(-1), None if self.trained_on is None else self.trained_on[0]
        if x.dtype == np.uint8:
            return flat if like is None or like.pixels else None
        if x.dtype != np.float32 or (like is not None and like.pixels) or (found := _core.extremes(flat)) is None:
            return None
        return flat if like is None or like.holds(*found) else None

    def _predicting(self, count: int = 1, workers: int | None = None) -> Lent:
        """An engine for one prediction of so many images; each thread that predicts at the same time has its own."""
        while True:
            self.plan  # noqa: B018 (a new one where another choice of loops is in force, and no engines for it then)
            if (engines := self._engines) is None:
                with self._lock:  # nobody changes plan or weights meanwhile
                    plan = self.plan
                    engines = self._engines = self._engines or Engines(plan, self.weights, self._work())
            lent = Lent(engines, count, workers)
            if engines is self._engines:
                return lent
            lent.give_back()  # the weights have moved meanwhile

    def _work(self) -> int:
        """Multiply-adds and values of one image, forward."""
        return self.macs()["forward"] + sum(math.prod(node.shape) for node in self._order)

    def predict_proba(self, x: Any, *, workers: int | None = None) -> NDArray[np.float32]:
        """softmax(forward(x)) over the classes, axis 1: (n, k) or (n, channels, ...) float32."""
        y = self._classified(x, workers)
        e: NDArray[np.float32] = np.exp(y - y.max(1, keepdims=True))
        shares: NDArray[np.float32] = e / e.sum(1, keepdims=True)
        return shares

    def predict(self, x: Any, *, workers: int | None = None) -> NDArray[np.int64]:
        """The class with the largest output for each image: (n,) int64; for each pixel where the outputs are images."""
        y = self._classified(x, workers)
        classes: NDArray[np.int64] = y.argmax(1) if y.ndim > 2 else np.empty(len(y), np.int64)
        if y.ndim == 2:
            _core.largest(y, classes)
        return classes

    def _classified(self, x: Any, workers: int | None) -> NDArray[np.float32]:
        if len(self.outputs) > 1:
            raise ValueError(f"the network has {len(self.outputs)} outputs; `forward` gives all of them")
        y: NDArray[np.float32] = self.forward(x, workers=workers)
        return y

    def update(
        self,
        x: Any,
        y: Any,
        *,
        lr: float = 1e-3,
        update: str = "sgd",
        update_options: Mapping[str, Any] | None = None,
        loss: str = "cross_entropy",
        loss_options: Mapping[str, Any] | None = None,
        sample_weight: ArrayLike | None = None,
        seed: int = 0,
    ) -> float:
        """One step of training on one sample or a small batch; what the update rule keeps (moments, counts) goes on from
        call to call, through `pickle` too.

        Calls with one sample each, in some order, give the bits of `chaos.train` with strategy "sequential", batch size 1
        and a constant learning rate on the same samples in that order, where no layer draws random numbers.

        May be called from several threads: updates come one after the other. Predictions may run at the same time, in other
        threads: every number of the weights that they read is one that some update has left, never a mixture, but different
        numbers may be of different updates. It must not be called while `chaos.train` trains the same network.

        Parameters
        ----------
        x : array, (n, channels, height, width) or (n, features), or without n
            As for `forward`; or one sample, shaped as `input_shape`. A C-contiguous array of uint8 or float32 is fastest.
        y : int, float or array
            Targets, in one of the forms that the loss takes, as for `loss_and_gradients`; of one sample also without n.
        lr : float
            Learning rate of this step.
        update, loss : str
            Names in chaos.updates.UPDATES and chaos.losses.LOSSES.
        update_options, loss_options : dict, optional
            Their options, by name.
        sample_weight : float or array, (n,), optional
            What each sample's loss is multiplied with; the gradient is the mean over n.
        seed : int
            Of the random numbers of layers that draw some.

            With another rule, loss, option or seed than in the call before, what the rule keeps begins anew.

        Returns
        -------
        float
            Mean loss of the samples, with the weights as they were before.

        Raises
        ------
        ValueError, DataError
            If names, options, samples or targets are not what they can be; the network is unchanged then.
        DivergedError
            If the loss is not finite; the step is not made then.
        """
        if not 0 < lr < math.inf:
            raise ValueError(f"lr must be a number above 0, not {lr!r}")
        learner = self._learner
        if learner is None or not learner.goes_on(update, update_options, loss, loss_options, seed):
            from .online import Learner, asked

            with self._lock:
                learner = self._learner = Learner(self, asked(update, update_options, loss, loss_options, seed))
        mean: float = learner.step(x, y, lr, sample_weight)
        return mean

    def loss_and_gradients(
        self,
        x: Any,
        y: ArrayLike,
        loss: str = "cross_entropy",
        *,
        loss_options: dict[str, Any] | None = None,
        sample_weight: ArrayLike | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """Mean loss over the images and its gradients, as in a step of training; the weights stay as they are.

        Parameters
        ----------
        x : array
            As for `forward`.
        y : array
            Targets, in one of the forms that the loss takes (chaos.losses): labels (n,), a map of labels (n, ...), or values
            shaped as the outputs; for a sum of losses one for all terms, or a tuple of one for each.
        loss : str
            One of chaos.losses.LOSSES, or a sum such as "cross_entropy + 0.3*mse" (`chaos.losses.Sum`).
        loss_options : dict, optional
            Of the loss, by name.
        sample_weight : array, (n,), optional
            What each image's loss is multiplied with; the mean still divides by n.
        seed, epoch : int
            Of the random numbers of layers that draw some.

        Returns
        -------
        float, {parameter name: float32 gradient in PyTorch's shape}
            Of the parameters that are not frozen.
        """
        result, vector = self._gradients(x, y, loss, loss_options, sample_weight, seed, epoch)
        found = self.unpack(vector, trained_only=True)
        return result, {name: gradient for name, gradient in found.items() if name not in self._frozen}

    def _gradients(
        self,
        x: Any,
        y: ArrayLike,
        loss: str,
        loss_options: dict[str, Any] | None = None,
        sample_weight: ArrayLike | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> tuple[float, NDArray[np.float32]]:
        """(mean loss, vector laid out as the weights: gradients, and of state what was observed)."""
        data = self.take_images(x, self.trained_on)
        options = LOSSES[LOSSES.check(loss)].resolve(loss_options or {})
        targets, _ = self.take_targets(y, data["count"], loss, options)
        if not data["count"]:
            raise DataError("loss_and_gradients needs at least one image")
        weights = None if sample_weight is None else take_weights(sample_weight, data["count"])
        engine = _core.Engine(self.plan, self.weights, loss=self.core_loss(loss, options), batch_size=data["count"])
        result = engine.run("gradients", inputs=data["inputs"], labels=targets, weights=weights, key=run_key(seed, epoch))
        if result["status"] == "diverged":
            raise ArithmeticError(f"the loss of image {result['failed_at']} is not finite")
        vector = np.empty_like(self.weights)
        engine.gradient(vector)
        return result["loss"] / data["count"], vector

    def loss_terms(self, loss: str, options: Mapping[str, Any] | None = None) -> list[Term]:
        """What the loss adds up, of which outputs; ValueError where it does not fit them. `options` of it, None: the
        defaults."""
        return LOSSES.terms(loss, LOSSES[loss].resolve(dict(options or {})), len(self.outputs))

    def core_loss(self, loss: str, options: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The loss as `_core.Engine` takes it."""
        sizes = [math.prod(shape) for shape in self.output_shapes]
        return [
            (
                term.loss.kind,
                term.loss.core_arrays(dict(term.options)),
                sum(sizes[: term.output]),
                sizes[term.output],
                math.prod(self.output_shapes[term.output][1:]),
                term.factor,
            )
            for term in self.loss_terms(loss, options)
        ]

    def take_targets(
        self, y: Any, count: int, loss: str = "cross_entropy", options: Mapping[str, Any] | None = None
    ) -> tuple[Any, int]:
        """(`y` as the core wants it, how many answers of the first term that knows right and wrong may be wrong); DataError
        if the loss takes no such targets, or a label is no output; ValueError if options of the loss do not fit the outputs.
        `y`: an array, which all terms of the loss are compared with, or a tuple or list of arrays, one for each term."""
        terms = self.loss_terms(loss, options)
        arrays = [y] * len(terms)
        if isinstance(y, (tuple, list)) and y and all(isinstance(one, np.ndarray) and one.ndim for one in y):
            arrays = list(y)
            if len(y) != len(terms):
                raise DataError(f"{len(y)} arrays of targets for a loss of {len(terms)} terms: one for each, or one for all")
        taken = [
            take_target(one, count, term, self.output_shapes[term.output]) for one, term in zip(arrays, terms, strict=True)
        ]
        answers = next((answers for _, answers in taken if answers is not None), 0)
        return [labels for labels, _ in taken] if len(taken) > 1 else taken[0][0], answers

    def take_images(self, x: Any, like: Sequence[Scale] | None = None) -> dict[str, Any]:
        """`x` as the core wants it: {"inputs": [flat array of each input], "count": n, "scales": (Scale of each,)};
        DataError if it cannot be, or is unlike `like`, the scale of each input."""
        several = len(self._inputs) > 1
        if several and (not isinstance(x, (tuple, list)) or len(x) != len(self._inputs)):
            raise DataError(f"the network has {len(self._inputs)} inputs: a list of as many arrays is needed")
        known: list[Scale | None] = [None] * len(self._inputs) if like is None else [*like]
        taken = [take_input(*one) for one in zip(x if several else [x], self.input_shapes, known, strict=True)]
        arrays, scales = [array for array, _ in taken], tuple(found for _, found in taken)
        if len({len(array) for array in arrays}) > 1:
            raise DataError(f"the inputs have different numbers of images: {', '.join(str(len(a)) for a in arrays)}")
        if like is not None and len(arrays[0]):
            scale.check(like, scales)
        return {"inputs": [array.reshape(-1) for array in arrays], "count": len(arrays[0]), "scales": scales}

    def __getstate__(self) -> dict[str, Any]:
        kept = None if self._learner is None else (self._learner.settings, self._learner.state())
        about = {
            "trained_on": self.trained_on,
            "class_names": self.class_names,
            "learner": kept,
            "precision": self.precision,
        }
        return {"config": self.config(), "state": self.state_dict(), **about}

    def __setstate__(self, state: dict[str, Any]) -> None:
        other = Network.from_config(state["config"])
        self.__dict__.update(other.__dict__)
        _networks.add(self)
        self.pack(state["state"], self.weights)  # whatever they are: a training may have diverged
        self.trained_on, self.class_names = state.get("trained_on"), state.get("class_names")
        self._precision = state.get("precision", FLOAT32)
        if state.get("learner") is not None:
            from .online import Learner

            settings, kept = state["learner"]
            self._learner = Learner(self, settings)
            self._learner.load_state(kept)


_networks: weakref.WeakSet[Network] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: threads that predicted or updated are not there, and leave locks and engines as they were."""
    for net in list(_networks):
        net._lock, net._engines = threading.Lock(), None
        if net._learner is not None:
            net._learner.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def run_key(seed: int, epoch: int) -> int:
    """Where the random numbers of layers begin in an epoch."""
    return int(random.key(random.key(0, seed % (1 << 64)), epoch)[0])
