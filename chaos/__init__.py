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

from typing import TYPE_CHECKING, Any

from . import _start as _start  # isort: split

from . import _load as _load  # isort: split

from . import augment, callbacks, data, initialisers, models
from ._version import __version__
from .api import train
from .errors import (
    ChaosError,
    CheckpointError,
    ClusterError,
    DataError,
    DataNotFound,
    DivergedError,
    TraceError,
    UnsupportedError,
)
from .folding import fold
from .info import info
from .layers import *  # noqa: F403, every kind
from .layers import __all__ as _layers  # type: ignore[attr-defined]  # computed: type checkers do not see it
from .loading import load
from .many import Committee, search, train_async, train_many
from .network import Network
from .normalising import normalise
from .training import Callback, Run, evaluate

__all__ = [
    "Callback",
    "ChaosError",
    "CheckpointError",
    "ClusterError",
    "Committee",
    "DataError",
    "DataNotFound",
    "DivergedError",
    "Network",
    "Run",
    "TraceError",
    "UnsupportedError",
    "__version__",
    "augment",
    "callbacks",
    "data",
    "evaluate",
    "fold",
    "from_onnx",
    "from_torch",
    "info",
    "initialisers",
    "load",
    "models",
    "normalise",
    "search",
    "train",
    "train_async",
    "train_many",
    *_layers,
]

if TYPE_CHECKING:
    from . import interop as interop
    from .interop import from_onnx, from_torch


def __getattr__(name: str) -> Any:
    """The doors to other libraries, which most programs do not open, are loaded where they are asked for."""
    if name in ("from_onnx", "from_torch", "interop"):
        import importlib

        doors = importlib.import_module(".interop", __name__)
        return doors if name == "interop" else getattr(doors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "interop"})


_start.imported()
