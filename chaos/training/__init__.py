"""Training: settings, phases, order of images, schedule, evaluation, history, checkpoints, callbacks. Above chaos.network;
below chaos.cluster and chaos.virtual, which bring other links and runners; callers use `chaos.train` (chaos/api.py).

From below: monitor, metrics < settings, signals, records < callbacks, link, parts < phases < runner < feeding, state <
store < checks < job < progress, result < run."""

from .callbacks import Callback, Event
from .job import Job
from .link import Alone
from .records import no_counts, together
from .result import Run
from .run import evaluate, train
from .runner import Threads
from .settings import ABOUT, IDENTITY, KEPT, TRAINS, Settings
from .store import BEST, CONFIG, METRICS, MODEL

__all__ = [
    "ABOUT",
    "BEST",
    "CONFIG",
    "IDENTITY",
    "KEPT",
    "METRICS",
    "MODEL",
    "TRAINS",
    "Alone",
    "Callback",
    "Event",
    "Job",
    "Run",
    "Settings",
    "Threads",
    "evaluate",
    "no_counts",
    "together",
    "train",
]
