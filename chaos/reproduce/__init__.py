"""The CHAOS paper's experiments, run again: real workers on the cores that there are, virtual ones beyond, and a report.
Above chaos.virtual, chaos.perfmodel and chaos.report; for the CLI."""

from .experiments import MODELS, Experiment, plan, results, run_all
from .tell import make_report

__all__ = ["MODELS", "Experiment", "make_report", "plan", "results", "run_all"]
