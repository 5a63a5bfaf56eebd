"""Many workers on few cores: runs a given order of events on the real kernels, in any number of threads, bit for bit. Orders
come from a discrete-event clock (simulation) or from a real run (trace and replay). Above chaos.training."""

from .clock import ORDERS, Machine, Order, Parts, Topology
from .replay import TRACEABLE, Traced, replay
from .simulate import DEFAULT_WORKERS, Virtual, compare, predict, settled
from .times import Times, measured, nominal, read_times

__all__ = [
    "DEFAULT_WORKERS",
    "ORDERS",
    "TRACEABLE",
    "Machine",
    "Order",
    "Parts",
    "Times",
    "Topology",
    "Traced",
    "Virtual",
    "compare",
    "measured",
    "nominal",
    "predict",
    "read_times",
    "replay",
    "settled",
]
