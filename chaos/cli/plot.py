"""`chaos plot`: the course of a training run in pictures."""

from pathlib import Path

from .. import report
from ..training import METRICS
from .common import add_command, read_config

OUT = "report.html"


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "plot",
        run,
        help="draw loss, error, speed and staleness of a run",
        usage="RUN [--out FILE]",
        description="Reads the metrics of a run directory and writes a report: loss and error per epoch, images per second, "
        "how the time was spent, and how stale updates were, as far as the run recorded it. HTML holds its "
        "plots in itself, Markdown has them beside it as SVG; both need matplotlib (pip install "
        "'chaos[plot]'). JSON needs nothing.",
        examples=["chaos plot runs/first", "chaos plot runs/first --out first.md"],
    )
    parser.add_argument("run_dir", metavar="RUN", help="run directory")
    parser.add_argument(
        "--out", metavar="FILE", help=f"where to write, {', '.join(report.FORMATS)} (default: {OUT} in the run directory)"
    )


def run(arguments):
    """Runs the command."""
    folder = Path(arguments.run_dir)
    records = report.read_metrics(folder / METRICS)
    made = report.run_report(records, folder.resolve().name, read_config(folder))
    for path in report.write(made, arguments.out or folder / OUT):
        print(path)
