"""chaos: asynchronous SGD for convolutional networks on many-core CPUs.

One Hogwild-style worker per core on one shared set of weights, published layer by layer in whatever order workers arrive
(CHAOS, Viebke et al. 2017).

Example
-------
>>> import chaos
>>> train, test = chaos.data.load("digits", size=29)
>>> net = chaos.models.small(seed=0)
>>> run = chaos.train(net, train, test, strategy="chaos", epochs=10, lr=0.01)
>>> run.history[-1]["test_error"]  # doctest: +SKIP
"""

from . import data, models
from ._version import __version__
from .api import train
from .errors import ChaosError, CheckpointError, ClusterError, DataError, DataNotFound, DivergedError, TraceError
from .info import info
from .layers import Add, Conv2d, Flatten, Input, Linear, MaxPool2d, ReLU, ScaledTanh, Sigmoid, Tanh
from .network import Network, load
from .training import Callback, Run, evaluate

__all__ = [
    "Add",
    "Callback",
    "ChaosError",
    "CheckpointError",
    "ClusterError",
    "Conv2d",
    "DataError",
    "DataNotFound",
    "DivergedError",
    "Flatten",
    "Input",
    "Linear",
    "MaxPool2d",
    "Network",
    "ReLU",
    "Run",
    "ScaledTanh",
    "Sigmoid",
    "Tanh",
    "__version__",
    "TraceError",
    "data",
    "evaluate",
    "info",
    "load",
    "models",
    "train",
]
