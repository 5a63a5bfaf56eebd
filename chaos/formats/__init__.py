"""Files of tensors. Knows arrays and text, no network."""

from .tensors import read_tensors, write_tensors

__all__ = ["read_tensors", "write_tensors"]
