"""The layer kinds: meaning, shapes, initial values, NumPy definition.

To add one: chaos/layers/x.py, cext/layers/x.c, and one line here.
"""

from typing import TYPE_CHECKING

from .activations import CELU as CELU
from .activations import ELU as ELU
from .activations import GELU as GELU
from .activations import SELU as SELU
from .activations import Abs as Abs
from .activations import Affine as Affine
from .activations import Hardshrink as Hardshrink
from .activations import Hardsigmoid as Hardsigmoid
from .activations import Hardswish as Hardswish
from .activations import Hardtanh as Hardtanh
from .activations import Identity as Identity
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
from .arithmetic import Divide as Divide
from .arithmetic import Maximum as Maximum
from .arithmetic import Minimum as Minimum
from .arithmetic import Multiply as Multiply
from .arithmetic import Subtract as Subtract
from .base import Input as Input
from .base import Layer as Layer
from .base import Node as Node
from .base import whole as whole
from .batch_norm import BatchNorm1d as BatchNorm1d
from .batch_norm import BatchNorm2d as BatchNorm2d
from .concat import Concat as Concat
from .constant import Constant as Constant
from .constant import Parameter as Parameter
from .conv1d import Conv1d as Conv1d
from .conv2d import LENET5_TABLE as LENET5_TABLE
from .conv2d import Conv2d as Conv2d
from .conv_transpose2d import ConvTranspose1d as ConvTranspose1d
from .conv_transpose2d import ConvTranspose2d as ConvTranspose2d
from .dropout import AlphaDropout as AlphaDropout
from .dropout import Dropout as Dropout
from .dropout import Dropout1d as Dropout1d
from .dropout import Dropout2d as Dropout2d
from .flatten import Flatten as Flatten
from .linear import Linear as Linear
from .locally_connected2d import LocallyConnected2d as LocallyConnected2d
from .max_pool2d import MaxPool2d as MaxPool2d
from .maxout import Maxout as Maxout
from .pad import Pad as Pad
from .per_channel import ChannelScale as ChannelScale
from .per_channel import PReLU as PReLU
from .rearrange import ChannelShuffle as ChannelShuffle
from .rearrange import Expand as Expand
from .rearrange import Flip as Flip
from .rearrange import Permute as Permute
from .rearrange import PixelShuffle as PixelShuffle
from .rearrange import PixelUnshuffle as PixelUnshuffle
from .rearrange import Rearrange as Rearrange
from .rearrange import Reshape as Reshape
from .rearrange import Slice as Slice
from .rearrange import Squeeze as Squeeze
from .rearrange import Unsqueeze as Unsqueeze
from .reduce import Max as Max
from .reduce import Mean as Mean
from .reduce import Min as Min
from .reduce import Sum as Sum
from .softmax import LogSoftmax as LogSoftmax
from .softmax import Softmax as Softmax
from .upsample import Upsample as Upsample

LAYERS = {kind.kind: kind for kind in list(globals().values()) if isinstance(kind, type) and hasattr(kind, "kind")}

if not TYPE_CHECKING:  # they understand no computed list, and would hide all kinds from `chaos.Conv2d`
    __all__ = ["Input", *(kind.__name__ for kind in LAYERS.values())]
