"""safetensors files: named float arrays plus {str: str} metadata. For chaos.network and chaos.training."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from .atomic import write_atomically


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes `tensors` {name: array} and `metadata` {str: str} to `path`, atomically."""
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata)
    # the library's order of the metadata changes from process to process; the same content is to be the same file
    (size,) = struct.unpack_from("<Q", data)
    head = json.loads(data[8 : 8 + size])
    head["__metadata__"] = dict(sorted(head.get("__metadata__", {}).items()))
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, struct.pack("<Q", len(text)) + text + data[8 + size :])


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and metadata of a safetensors file; CheckpointError naming the file where it is none."""
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        inside = sorted(file.name for file in Path(path).glob("*.safetensors"))
        files = f"; name a file in it: {', '.join(inside)}" if inside else " that holds no .safetensors file"
        raise CheckpointError(f"{path} is a directory{files}")
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise CheckpointError(f"{path}: not a valid safetensors file ({error})") from None
