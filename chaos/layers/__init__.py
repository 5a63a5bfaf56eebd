"""The layer kinds: meaning, shapes, initial values, NumPy definition. cext/layers/list.h has the same list.

To add one: chaos/layers/x.py, cext/layers/x.c, one line here and one (two) there.
"""

from .add import Add
from .base import Elementwise, Input, Layer, Node, whole
from .conv2d import Conv2d
from .flatten import Flatten
from .linear import Linear
from .max_pool2d import MaxPool2d
from .relu import ReLU
from .scaled_tanh import ScaledTanh
from .sigmoid import Sigmoid
from .tanh import Tanh

LAYERS = {kind.kind: kind for kind in (Add, Conv2d, Flatten, Linear, MaxPool2d, ReLU, ScaledTanh, Sigmoid, Tanh)}

__all__ = ["LAYERS", "Elementwise", "Input", "Layer", "Node", "whole", *(kind.__name__ for kind in LAYERS.values())]
