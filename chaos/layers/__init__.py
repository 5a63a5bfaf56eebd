"""The layer kinds: meaning, shapes, initial values, NumPy definition.

To add one: chaos/layers/x.py, cext/layers/x.c, and one line here.
"""

from .add import Add
from .base import Elementwise, Input, Layer, Node, whole
from .conv1d import Conv1d
from .conv2d import Conv2d
from .flatten import Flatten
from .linear import Linear
from .max_pool2d import MaxPool2d
from .relu import ReLU
from .scaled_tanh import ScaledTanh
from .sigmoid import Sigmoid
from .tanh import Tanh

LAYERS: dict[str, type[Layer]] = {
    kind.kind: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Layer) and hasattr(kind, "kind")
}

__all__ = ["Input", *(kind.__name__ for kind in LAYERS.values())]
