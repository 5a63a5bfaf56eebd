"""The layer kinds: meaning, shapes, initial values, NumPy definition.

To add one: chaos/layers/x.py, cext/layers/x.c, and one line here.
"""

from typing import TYPE_CHECKING

from .add import Add as Add
from .base import Elementwise as Elementwise
from .base import Input as Input
from .base import Layer as Layer
from .base import Node as Node
from .base import whole as whole
from .conv1d import Conv1d as Conv1d
from .conv2d import Conv2d as Conv2d
from .flatten import Flatten as Flatten
from .linear import Linear as Linear
from .max_pool2d import MaxPool2d as MaxPool2d
from .relu import ReLU as ReLU
from .scaled_tanh import ScaledTanh as ScaledTanh
from .sigmoid import Sigmoid as Sigmoid
from .tanh import Tanh as Tanh

LAYERS = {kind.kind: kind for kind in list(globals().values()) if isinstance(kind, type) and hasattr(kind, "kind")}

if not TYPE_CHECKING:  # they understand no computed list, and would hide all kinds from `chaos.Conv2d`
    __all__ = ["Input", *(kind.__name__ for kind in LAYERS.values())]
