"""safetensors files: named float arrays plus {str: str} metadata. For chaos.network and chaos.trainer."""

from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from .atomic import write_atomically


def write_tensors(path, tensors, metadata):
    """Writes `tensors` {name: array} and `metadata` {str: str} to `path`, atomically."""
    from safetensors.numpy import save

    write_atomically(path, save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata))


def read_tensors(path):
    """The tensors and metadata of a safetensors file; CheckpointError naming the file where it is none."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a valid safetensors file ({error})") from None
