"""Training: settings, phases, order of images, schedule, evaluation, history, checkpoints, callbacks. Above chaos.network;
below chaos.cluster and chaos.virtual, which bring other links and runners; callers use `chaos.train` (chaos/api.py).

From below: settings, signals, records < callbacks, link < phases < runner < feeding, state < store < job < progress <
run."""

from .callbacks import Callback, Event
from .job import Job
from .link import Alone
from .records import no_counts, together
from .run import Run, evaluate, train
from .runner import Threads
from .settings import ABOUT, IDENTITY, KEPT, Settings
from .store import CONFIG, METRICS, MODEL

__all__ = [
    "ABOUT",
    "CONFIG",
    "IDENTITY",
    "KEPT",
    "METRICS",
    "MODEL",
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
