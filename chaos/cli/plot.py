"""`chaos plot`: the course of a training run in pictures, or the graph of a network."""

from pathlib import Path

from .. import report
from ..models import MODELS
from ..training import METRICS
from .common import add_command, read_config
from .networks import build_model

OUT = "report.html"
LONGEST = 34  # letters that a box has room for


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "plot",
        run,
        usage="RUN_OR_MODEL [--out FILE]",
        description="Reads the metrics of a run directory and writes a report: loss and error per epoch, images per second, "
        "how the time was spent, and how stale updates were, as far as the run recorded it. HTML holds its "
        "plots in itself, Markdown has them beside it as SVG; both need matplotlib (pip install "
        "'chaos-sgd[plot]'). JSON needs nothing. Of a model it draws the graph of its layers, as SVG or PNG.",
        examples=[
            "chaos plot runs/first",
            "chaos plot runs/first --out first.md",
            "chaos plot small --out small.png",
            "chaos plot model.safetensors",
        ],
    )
    parser.add_argument(
        "run_dir", metavar="RUN_OR_MODEL", help="run directory, small, medium, large, or a .safetensors file"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"where to write: {', '.join(report.FORMATS)} of a run (default: {OUT} in its directory), "
        f"{', '.join(report.GRAPH_FORMATS)} of a model (default: MODEL.svg)",
    )


def run(arguments):
    """Runs the command."""
    folder = Path(arguments.run_dir)
    if not folder.is_dir() and (arguments.run_dir in MODELS or folder.suffix.lower() == ".safetensors"):
        found = build_model(arguments.run_dir).summary()
        print(report.write_graph(folder.name, boxes(found), arguments.out or folder.with_suffix(".svg")))
        return
    records = report.read_metrics(folder / METRICS)
    made = report.run_report(records, folder.resolve().name, read_config(folder))
    for path in report.write(made, arguments.out or folder / OUT):
        print(path)


def boxes(summary):
    """The boxes of a network's graph: name and layer, output shape and parameters."""
    found = []
    for row in summary.rows:
        name = row.layer if row.layer == "Input" else f"{row.name}  {row.layer}"
        lines = [name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}", "x".join(map(str, row.output_shape))]
        if row.parameters or row.frozen:
            counts = [f"{row.parameters:,}"] * bool(row.parameters) + [f"{row.frozen:,} frozen"] * bool(row.frozen)
            lines.append(f"{' + '.join(counts)} parameters")
        elif row.shares:
            lines.append(f"parameters of {row.shares}")
        trains = bool(row.parameters or row.shares)
        found.append(report.Box(lines, row.inputs, trains))
    return found
