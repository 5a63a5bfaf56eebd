"""Reader of pickled data that executes nothing. Used by the data room, for CIFAR's "Python version".

A pickle is a program. Of what it may call this reader knows the names that a NumPy array is made with, and gives it
its own stand-ins for them, so that not even NumPy's code runs on what the file says; everything else is refused."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from ..errors import DataError


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for numpy.ndarray."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def value(self) -> np.ndarray:
        """The array; ValueError where it is none of bytes."""
        _, shape, dtype, fortran, content = self.state
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", "|u1") or not isinstance(content, bytes):
            raise ValueError("holds an array of another type than uint8")
        return np.frombuffer(content, np.uint8).reshape(tuple(map(int, shape)), order="F" if fortran else "C")


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """Stands for what protocol 5 makes an array with."""
    array = _Array()
    array.state = (1, shape, dtype, order == "F", bytes(buffer) if isinstance(buffer, bytearray) else buffer)
    return array


def _encode(text: Any, how: Any = None) -> bytes:
    """Stands for _codecs.encode, with which Python 3 writes bytes for Python 2."""
    if not isinstance(text, (str, bytes)) or how not in ("latin1", b"latin1"):
        raise ValueError("holds text in an unknown code")
    return text if isinstance(text, bytes) else text.encode("latin1")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known: dict[str, dict[str, Any]] = {
            "numpy": {"dtype": _Dtype, "ndarray": _Array},
            "multiarray": {"_reconstruct": lambda *_: _Array()},
            "numeric": {"_frombuffer": _from_buffer},
            "_codecs": {"encode": _encode},
        }
        place = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if name in known.get(place, {}):
            return known[place][name]
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which is not executed")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("refers to something outside the file")


def read_pickle(content: bytes, name: str) -> Any:
    """What is pickled, where it is made of numbers, text, lists, dictionaries and arrays of uint8.

    Parameters
    ----------
    content : bytes
    name : str
        For messages.

    Returns
    -------
    object
        Keys of the outermost dictionary are text, also those that Python 2 has written.

    Raises
    ------
    DataError
        Damaged, or anything else is pickled.
    """
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(found, dict):
            return found
        return {
            key.decode() if isinstance(key, bytes) else key: value.value() if isinstance(value, _Array) else value
            for key, value in found.items()
        }
    except Exception as error:  # damaged bytes make it raise a dozen kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: not a readable pickle of arrays: {reason}") from None
