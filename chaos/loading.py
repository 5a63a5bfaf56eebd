"""Networks from the files that `Network.save` and training runs write. Above chaos.network."""

from __future__ import annotations

import math
import os
from typing import Any

from . import scale
from .errors import CheckpointError
from .formats import read_tensors
from .formats.json_text import parse_json
from .layers.base import Array
from .network import CLASS_NAMES, FORMAT, TRAINED_ON, Network


def load(path: str | os.PathLike[str]) -> Network:
    """The network in a file written by `Network.save` or a training run.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or describes no network.
    """
    return load_with_state(path)[0]


def load_with_state(path: str | os.PathLike[str]) -> tuple[Network, dict[str, str], dict[str, Array]]:
    """As `load`, with the file's metadata {str: str} and the tensors {name: array} that are not parameters."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: holds tensors but no chaos network (format {metadata.get('format')!r}, expected {FORMAT!r})"
        )
    try:
        config = parse_json(metadata["network"])
        check_size(config, sum(tensor.size for tensor in tensors.values()))
        net = Network.from_config(config, seed=None)
        net.load_state_dict(tensors)
        if TRAINED_ON in metadata:
            net.trained_on = scale.from_json(parse_json(metadata[TRAINED_ON]), len(net.input_shapes))
        if CLASS_NAMES in metadata:
            net.class_names = _names_from_json(parse_json(metadata[CLASS_NAMES]))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    known = net.state_dict()
    return net, metadata, {name: tensor for name, tensor in tensors.items() if name not in known}


def _names_from_json(kept: Any) -> tuple[str, ...]:
    """The names of classes; ValueError where they are damaged."""
    if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
        raise ValueError(f"the names of its classes are damaged: {kept!r}")
    return tuple(kept)


def check_size(config: dict[str, Any], there: int) -> None:
    """CheckpointError where a description asks for more values than there are: nothing of its size is made before."""
    _, outputs = Network._graph(config)
    wanted, layers, seen = 0, set(), set(outputs)
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.layer is not None and id(node.layer) not in layers:
            layers.add(id(node.layer))
            parts = node.layer.parts(*(source.shape for source in node.inputs))
            wanted += sum(math.prod(part.shape) for part in parts.values())
        stack += (source for source in node.inputs if source not in seen)
        seen.update(node.inputs)
    if wanted > there:
        raise CheckpointError(f"the network has {wanted:,} parameters, the file {there:,} values")
