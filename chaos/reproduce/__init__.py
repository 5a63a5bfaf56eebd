"""The CHAOS paper's experiments, run again: real workers on the cores that there are, virtual ones beyond, and a report.
Above chaos.virtual, chaos.perfmodel and chaos.report; for the CLI."""

from .beyond import front_blocks
from .experiments import MODELS, Experiment, plan, run_all
from .here import measure_here
from .store import RESULTS, measured, results, write_all
from .tell import make_report

__all__ = [
    "MODELS",
    "RESULTS",
    "Experiment",
    "front_blocks",
    "make_report",
    "measure_here",
    "measured",
    "plan",
    "results",
    "run_all",
    "write_all",
]
