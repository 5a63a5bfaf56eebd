"""How long training takes, without training: the papers' models and one that is calibrated on this machine.

`papers` holds the models of the CHAOS papers, `model` our own of CHAOS, `costs` that of every strategy (`sharing`: of
workers on one vector), `strategies` its predictions, `machine` descriptions of machines, `calibrate` the measurements. For
the CLI, reports and scripts; one of the engine-facing rooms beside chaos.bench.
"""

from . import papers
from .calibrate import Calibration
from .costs import Cost, cost
from .estimate import estimate, paper_predictions
from .machine import Machine, read_machine, shipped
from .model import Figures, predict
from .strategies import TIMES, Predictor, estimate_strategy, machine_of, parse_text, plan, text_of

__all__ = [
    "TIMES",
    "Calibration",
    "Cost",
    "Figures",
    "Machine",
    "Predictor",
    "cost",
    "estimate",
    "estimate_strategy",
    "machine_of",
    "paper_predictions",
    "papers",
    "parse_text",
    "plan",
    "predict",
    "read_machine",
    "shipped",
    "text_of",
]
