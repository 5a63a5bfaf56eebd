"""The layer kinds: meaning, shapes, initial values, NumPy definition.

To add one: chaos/layers/x.py, cext/layers/x.c, and one line here.
"""

from typing import TYPE_CHECKING

from .activations import CELU as CELU
from .activations import ELU as ELU
from .activations import GELU as GELU
from .activations import SELU as SELU
from .activations import Hardshrink as Hardshrink
from .activations import Hardsigmoid as Hardsigmoid
from .activations import Hardswish as Hardswish
from .activations import Hardtanh as Hardtanh
from .activations import LeakyReLU as LeakyReLU
from .activations import LogSigmoid as LogSigmoid
from .activations import Mish as Mish
from .activations import ReLU as ReLU
from .activations import ReLU6 as ReLU6
from .activations import ScaledTanh as ScaledTanh
from .activations import Sigmoid as Sigmoid
from .activations import SiLU as SiLU
from .activations import Softplus as Softplus
from .activations import Softshrink as Softshrink
from .activations import Softsign as Softsign
from .activations import Tanh as Tanh
from .activations import Tanhshrink as Tanhshrink
from .activations import Threshold as Threshold
from .add import Add as Add
from .avg_pools import AdaptiveAvgPool1d as AdaptiveAvgPool1d
from .avg_pools import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from .avg_pools import AvgPool1d as AvgPool1d
from .avg_pools import AvgPool2d as AvgPool2d
from .avg_pools import BlurPool2d as BlurPool2d
from .avg_pools import LPPool1d as LPPool1d
from .avg_pools import LPPool2d as LPPool2d
from .avg_pools import Subsampling2d as Subsampling2d
from .base import Input as Input
from .base import Layer as Layer
from .base import Node as Node
from .base import whole as whole
from .batch_norm import BatchNorm1d as BatchNorm1d
from .batch_norm import BatchNorm2d as BatchNorm2d
from .conv1d import Conv1d as Conv1d
from .conv2d import Conv2d as Conv2d
from .dropout import AlphaDropout as AlphaDropout
from .dropout import Dropout as Dropout
from .dropout import Dropout1d as Dropout1d
from .dropout import Dropout2d as Dropout2d
from .flatten import Flatten as Flatten
from .linear import Linear as Linear
from .max_pool2d import AdaptiveMaxPool1d as AdaptiveMaxPool1d
from .max_pool2d import AdaptiveMaxPool2d as AdaptiveMaxPool2d
from .max_pool2d import MaxPool1d as MaxPool1d
from .max_pool2d import MaxPool2d as MaxPool2d
from .roi_pools import RoIAlign as RoIAlign
from .roi_pools import RoIPool as RoIPool
from .spatial_pyramid_pool2d import SpatialPyramidPool2d as SpatialPyramidPool2d
from .stochastic_pool2d import StochasticPool2d as StochasticPool2d

LAYERS = {kind.kind: kind for kind in list(globals().values()) if isinstance(kind, type) and hasattr(kind, "kind")}

if not TYPE_CHECKING:  # they understand no computed list, and would hide all kinds from `chaos.Conv2d`
    __all__ = ["Input", *(kind.__name__ for kind in LAYERS.values())]
