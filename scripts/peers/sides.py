"""The sides by what they do and by name. For processes (what to run) and figures (what a row is called)."""

from .chaos_engine import ChaosPrediction, ChaosSide
from .hogwild import HogwildSide
from .jax_xla import JaxSide
from .onnx_runtime import OnnxPrediction
from .pytorch import TorchPrediction, TorchSide

SIDES = {
    "training": {"chaos": ChaosSide, "PyTorch": TorchSide, "PyTorch Hogwild": HogwildSide, "JAX": JaxSide},
    "prediction": {"chaos": ChaosPrediction, "PyTorch": TorchPrediction, "onnxruntime": OnnxPrediction},
}
