"""`chaos plot`: the course of a training run in pictures, or the graph of a network."""

from pathlib import Path

import numpy as np

from .. import augment, data, report
from ..errors import DataError
from ..models import MODELS
from ..network import load
from ..training import METRICS, MODEL
from .common import add_command, load_data, read_config
from .networks import build_model

OUT = "report.html"
LONGEST = 34  # letters that a box has room for
IMAGES, EPOCHS = 8, 9  # that are drawn of an augmentation


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
        "'chaos-sgd[plot]'). JSON needs nothing. Of a model it draws the graph of its layers, as SVG or PNG. With --augment "
        "it draws training images of a run, or of a data set, as they are and as epochs of a training see them.",
        examples=[
            "chaos plot runs/first",
            "chaos plot runs/first --out first.md",
            "chaos plot small --out small.png",
            "chaos plot model.safetensors",
            "chaos plot mnist --augment elastic:34,4 --augment rotation:10",
        ],
    )
    parser.add_argument(
        "run_dir", metavar="RUN_OR_MODEL", help="run directory, small, medium, large, or a .safetensors file"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"where to write: {', '.join(report.FORMATS)} of a run (default: {OUT} in its directory), "
        f"{', '.join(report.GRAPH_FORMATS)} of a model (default: MODEL.svg), {', '.join(report.PICTURE_FORMATS)} of images",
    )
    parser.add_argument(
        "--augment",
        metavar="STEP",
        nargs="?",
        const="run",
        action="append",
        help="draw what these steps make of images, as in chaos train; without STEP: those of the run",
    )


def run(arguments):
    """Runs the command."""
    folder = Path(arguments.run_dir)
    if arguments.augment is not None:
        print(_augmented(folder, [step for step in arguments.augment if step != "run"], arguments.out))
        return
    if not folder.is_dir() and (arguments.run_dir in MODELS or folder.suffix.lower() == ".safetensors"):
        found = build_model(arguments.run_dir).summary()
        print(report.write_graph(folder.name, boxes(found), arguments.out or folder.with_suffix(".svg")))
        return
    records = report.read_metrics(folder / METRICS)
    made = report.run_report(records, folder.resolve().name, read_config(folder))
    for path in report.write(made, arguments.out or folder / OUT):
        print(path)


def _augmented(folder, asked, out):
    """Draws images of a run or a data set as they are, and as the first epochs of a training see them; the path."""
    config = read_config(folder) if folder.is_dir() else {}
    if config:
        train = load_data(config.get("data", "auto"), load(folder / MODEL), tell=False)[1]
        out = out or folder / "augment.png"
    else:
        train, _ = data.load(str(folder))
        out = out or f"{folder.stem}-augment.png"
    if len(train.inputs) != 1 or len(train.shape) != 3:
        raise DataError(f"{folder}: has no images (channels, height, width), which could be drawn")
    steps, seed = asked or config.get("augment"), config.get("seed", 0)
    if not steps:
        raise ValueError(f"{folder} tells no augmentation; name steps, such as --augment shift:2")
    seen = [train[:IMAGES].scaled()] + [augment.preview(train, steps, IMAGES, seed, epoch) for epoch in range(1, EPOCHS)]
    bounds = (-1.0, 1.0) if train.images.dtype == np.uint8 else (float(train.images.min()), float(train.images.max()))
    columns = ["as it is", *(f"epoch {epoch}" for epoch in range(1, EPOCHS))]
    title = ", ".join(map(str, augment.steps(steps)))
    return report.write_pictures(title, list(np.stack(seen, 1)), columns, bounds, out)


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
