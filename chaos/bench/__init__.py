"""Measurements of this installation, each checked before it is timed. For `chaos bench`, scripts and users.

One of the engine-facing rooms beside chaos.network: it times the core without the training around it.
"""

from ..distance import Distance, distance
from ._common import machine, peak_gflops
from ._kernels import kernels
from ._scaling import default_workers, scaling
from ._throughput import Repeat, throughput, throughputs

__all__ = [
    "Distance",
    "Repeat",
    "default_workers",
    "distance",
    "kernels",
    "machine",
    "peak_gflops",
    "scaling",
    "throughput",
    "throughputs",
]
