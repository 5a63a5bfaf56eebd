"""How long training takes, without training: the papers' models and one that is calibrated on this machine.

`papers` holds the models of the CHAOS papers, `model` our own, `machine` descriptions of machines, `calibrate` the
measurements. For the CLI, reports and scripts; one of the engine-facing rooms beside chaos.bench.
"""

from . import papers
from .calibrate import Calibration
from .estimate import estimate, paper_predictions
from .machine import Machine, read_machine, shipped
from .model import Figures, predict

__all__ = [
    "Calibration",
    "Figures",
    "Machine",
    "estimate",
    "paper_predictions",
    "papers",
    "predict",
    "read_machine",
    "shipped",
]
