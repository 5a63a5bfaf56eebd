"""Weights of other libraries' files. Imported by chaos.interop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..formats import read_tensors
from ..formats.zipped import read_member
from .graph import Array
from .needing import needing


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The named arrays of a ``.safetensors``, ``.npz``, ``.pt`` or ``.pth`` file, for `Network.load_state_dict`.

    Nothing in a file is executed: pickled objects are refused, and PyTorch's files are read with ``weights_only=True``,
    which needs torch. A file that holds a state dict under "state_dict" or "model" gives that.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another kind, or holds anything but named arrays.
    """
    name = os.fspath(path)
    ending = os.path.splitext(name)[1].lower()
    if ending == ".safetensors":
        return read_tensors(path)[0]
    if ending == ".npz":
        return _from_npz(name)
    if ending in (".pt", ".pth"):
        return _from_torch(name)
    raise CheckpointError(
        f"{name}: weights are read from .safetensors, .npz, .pt and .pth files, not from {ending or 'this'!r}"
    )


def _from_npz(name: str) -> dict[str, Array]:
    import zipfile

    try:
        with open(name, "rb") as opened, zipfile.ZipFile(opened) as archive:
            keys = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
            return {key: read_member(archive, key, name, CheckpointError) for key in keys}
    except CheckpointError:
        raise
    except Exception as error:  # NumPy, zipfile and Python's tokenizer raise a dozen kinds between them for damaged bytes
        raise CheckpointError(f"{name}: {error}") from None


def _from_torch(name: str) -> dict[str, Array]:
    with needing("torch"):
        import torch

    try:
        found: Any = torch.load(name, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: a damaged file, one that is none, one that would execute something
        raise CheckpointError(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from None
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise CheckpointError(f"{name}: holds no dict of tensors by name")
    return {str(key): np.asarray(value.detach().to(torch.float32).numpy()) for key, value in found.items()}
