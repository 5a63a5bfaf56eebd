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

# before all else: even `typing` takes time
from . import _start as _start  # isort: split

from importlib import import_module as _import
from typing import TYPE_CHECKING, Any

from . import _load as _load  # isort: split

from ._version import __version__ as __version__
from .errors import ChaosError as ChaosError
from .errors import CheckpointError as CheckpointError
from .errors import ClusterError as ClusterError
from .errors import DataError as DataError
from .errors import DataNotFound as DataNotFound
from .errors import DivergedError as DivergedError
from .errors import TraceError as TraceError
from .errors import UnsupportedError as UnsupportedError

if TYPE_CHECKING:  # type checkers and documentation tools; to Python `__getattr__` says the same
    from . import augment as augment
    from . import bench as bench
    from . import callbacks as callbacks
    from . import cluster as cluster
    from . import data as data
    from . import errors as errors
    from . import initialisers as initialisers
    from . import interop as interop
    from . import layers as layers
    from . import losses as losses
    from . import models as models
    from . import sync as sync
    from . import threads as threads
    from . import training as training
    from . import updates as updates
    from .api import train as train
    from .folding import fold as fold
    from .installation import info as info
    from .interop.from_onnx import from_onnx as from_onnx
    from .interop.from_torch import from_torch as from_torch
    from .layers import *  # noqa: F403, every kind
    from .loading import load as load
    from .many import Committee as Committee
    from .many import train_async as train_async
    from .many import train_many as train_many
    from .many.search import search as search
    from .network import Network as Network
    from .normalising import normalise as normalise
    from .training import Callback as Callback
    from .training import Run as Run
    from .training import evaluate as evaluate

_ROOMS = ["augment", "callbacks", "data", "initialisers", "models"]
# no part of __all__
_OTHERS = ["bench", "cluster", "errors", "interop", "layers", "losses", "sync", "threads", "training", "updates"]
# name: the room that it comes from; the layers' names are known to their room
_FROM = {
    "Callback": "training",
    "Committee": "many",
    "Network": "network",
    "Run": "training",
    "evaluate": "training",
    "fold": "folding",
    "from_onnx": "interop.from_onnx",
    "from_torch": "interop.from_torch",
    "info": "installation",
    "load": "loading",
    "normalise": "normalising",
    "search": "many.search",
    "train": "api",
    "train_async": "many",
    "train_many": "many",
}

if not TYPE_CHECKING:  # who would take any name for one that there is

    def __getattr__(name: str) -> Any:
        """What is asked for is loaded then: `import chaos` and `chaos --help` do without NumPy."""
        if name == "__all__":
            found: Any = _all()
        elif name.startswith("_"):
            raise _missing(name)
        elif name in _FROM:
            found = getattr(_import(f".{_FROM[name]}", __name__), name)
        elif name[0].isupper() and name in _layers():
            found = getattr(_import(".layers", __name__), name)
        else:
            try:
                found = _import(f".{name}", __name__)
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise
                raise _missing(name) from None
        globals()[name] = found
        return found

    def _missing(name: str) -> AttributeError:
        if name.startswith("_"):  # what tools ask for
            return AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        from . import hints

        known = [*_FROM, *_ROOMS, *_OTHERS, *(_layers() if name[0].isupper() else ())]
        return AttributeError(hints.missing(f"module {__name__!r}", name, known, hints.NAMES), name=name)

    def _layers() -> list[str]:
        kinds: list[str] = _import(".layers", __name__).__all__
        return kinds

    def _all() -> list[str]:
        known = [name for name, value in globals().items() if isinstance(value, type) and issubclass(value, ChaosError)]
        return sorted({"__version__", *known, *_ROOMS, *_FROM, *_layers()})

    def __dir__() -> list[str]:
        return sorted({*globals(), *_all(), *_OTHERS, "__all__"})


_start.imported()
