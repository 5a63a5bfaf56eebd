"""Doors to other libraries: networks from PyTorch modules and ONNX files, and back. Above chaos.network; torch and onnx are
loaded where they are needed, and by nobody else."""

from .from_onnx import from_onnx as from_onnx
from .from_torch import from_torch as from_torch
from .to_onnx import to_onnx as to_onnx
from .to_torch import to_torch as to_torch
from .torch_settings import settings_from_torch as settings_from_torch
from .weights import read_weights as read_weights
