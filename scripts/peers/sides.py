"""The sides by name. For processes (what to run) and figures (what a row is called)."""

from .chaos_engine import ChaosSide, CopyingChaosSide
from .hogwild import HogwildSide
from .jax_xla import JaxSide
from .pytorch import TorchSide

COPYING = "chaos read=publication"
SIDES = {"chaos": ChaosSide, COPYING: CopyingChaosSide, "PyTorch": TorchSide, "PyTorch Hogwild": HogwildSide, "JAX": JaxSide}
