"""`chaos plot`: runs, measurements and networks in pictures."""

import json
from pathlib import Path

import numpy as np

from .. import augment, data, report
from ..errors import DataError
from ..loading import load
from ..models import MODELS
from ..report import Course, measurements_report, runs_report
from ..training import METRICS, MODEL
from ..training.records import today
from .common import add_command
from .given import DATA, load_data, need_test, read_config
from .networks import open_model, stem, take_model
from .pictures import KINDS, NEED_DATA

WHAT = {"report": "the course of a run", "graph": "the layers"}
LONGEST = 34  # letters that a box has room for
IMAGES, EPOCHS = 8, 9  # that are drawn of an augmentation


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "plot",
        run,
        usage="WHAT... [--kind KIND] [--out FILE]",
        description="Draws what it is given. A run directory: loss, error, speed, how the time was spent and how stale "
        "updates were; several: their learning curves in one picture, and what differs in them. A JSON file of 'chaos bench "
        "scaling': speed-up and efficiency; of 'chaos bench kernels': roofline and time per layer; of the scripts "
        "that compare strategies or frameworks: each beside the others. A model: the graph of its layers. --kind shows what "
        "a trained network does: confusion (what it takes for what), worst (the images of which it is most surely "
        "wrong), filters (of its first convolution), features (what each layer makes of an image). --augment shows training "
        "images of a run, or of a data set, as they are and as epochs of a training see them.\n\n"
        "HTML holds its pictures in itself, Markdown has them beside it, SVG and PNG are the pictures alone; all these need "
        "matplotlib (pip install 'chaos-sgd[plot]'), JSON needs nothing. HTML and SVG follow the reader's choice of light "
        "or dark.",
        examples=[
            "chaos plot runs/first",
            "chaos plot runs/first runs/second --out both.png",
            "chaos plot runs/first --kind confusion --out confusion.svg",
            "chaos plot scaling.json --out speedup.png --theme dark",
            "chaos plot small --out small.png",
            "chaos plot mnist --augment elastic:34,4 --augment rotation:10",
        ],
    )
    parser.add_argument("what", metavar="WHAT", nargs="+", help="run directories, or a .json file, or a MODEL")
    parser.add_argument(
        "--kind",
        metavar="KIND",
        choices=(*WHAT, *KINDS),
        help=f"{', '.join((*WHAT, *KINDS))} (default: report of runs, graph of a model)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"where to write: {', '.join(report.FORMATS)}; of a graph {', '.join(report.GRAPH_FORMATS)}; of augmented "
        f"images {', '.join(report.PICTURE_FORMATS)} (default: in the run directory, beside the file, or MODEL.svg)",
    )
    parser.add_argument(
        "--augment",
        metavar="STEP",
        nargs="?",
        const="run",
        action="append",
        help="draw what these steps make of images, as in chaos train; without STEP: those of the run",
    )
    parser.add_argument(
        "--theme",
        metavar="NAME",
        choices=tuple(report.THEMES),
        default="light",
        help="of a .png: light or dark (default: light)",
    )
    parser.add_argument("--data", metavar=DATA, help="of confusion, worst and features (default: the run's own, else auto)")
    parser.add_argument("--image", metavar="N", type=int, default=0, help="of features: the test image (default: 0)")
    parser.add_argument("--layer", metavar="NAME", help="of features: this layer only")


def run(arguments):
    """Runs the command."""
    names = arguments.what
    if arguments.augment is not None:
        if len(names) > 1:
            raise ValueError(f"{names[1]}: the images of one thing are drawn, a run or a data set")
        print(_augmented(Path(names[0]), [step for step in arguments.augment if step != "run"], arguments.out))
        return
    folders = [name for name in names if Path(name).is_dir()]
    network = not folders and (
        names[0] in MODELS or Path(names[0]).suffix.lower() in (".safetensors", ".onnx") or ":" in names[0]
    )
    if len(names) > 1 and (len(folders) < len(names) or arguments.kind not in (None, "report")):
        other = next((name for name in names if name not in folders), names[1])
        raise ValueError(f"{other}: of several things only the courses of runs are drawn together, which are directories")
    kind = arguments.kind or ("graph" if network else "report")
    if kind == "graph":
        found = take_model(names[0]).summary()
        default = Path(names[0]) / "graph.svg" if folders else Path(names[0]).with_suffix(".svg")
        print(report.write_graph(Path(names[0]).name, boxes(found), arguments.out or default))
        return
    out = Path(arguments.out or _default(names, kind))
    report.need_format(out)
    if kind in KINDS:
        made = _network(arguments, kind)
    elif network:
        raise ValueError(f"{names[0]} is no run; of a network there are: graph, {', '.join(KINDS)}")
    elif names[0].lower().endswith(".json") and not folders:
        made = _measured(names[0])
    elif len(names) > 1:
        made = runs_report([_course(name, short) for name, short in zip(names, _short(names), strict=True)])
    else:
        one = _course(names[0], Path(names[0]).resolve().name)
        made = report.run_report(one.records, one.name, one.config)
    for path in report.write(made, out, report.THEMES[arguments.theme]):
        print(path)


def _default(names, kind):
    first = Path(names[0])
    if len(names) > 1:
        return "runs.html"
    if first.is_dir():
        return first / ("report.html" if kind == "report" else f"{kind}.png")
    return first.with_suffix(".html") if kind == "report" else f"{stem(names[0])}-{kind}.png"


def _course(name, short):
    records, config = report.read_metrics(Path(name) / METRICS), read_config(name)
    return Course(short, [today(record, config) for record in records] if config else records, config)


def _short(names):
    """Names of runs without what they have in common; whole where that tells them apart only."""
    short = [Path(name).resolve().name for name in names]
    return short if len({*short}) == len(short) else [f"{k}: {name}" for k, name in enumerate(names, 1)]


def _measured(name):
    try:
        with open(name, encoding="utf-8") as file:
            found = json.load(file)
    except ValueError as error:
        raise ValueError(f"{name}: no JSON: {error}") from None
    try:
        return measurements_report(found)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{name}: a measurement lacks what is drawn: {type(error).__name__} {error}") from None


def _network(arguments, kind):
    """The report of what a trained network does."""
    name = arguments.what[0]
    net, config = (take_model(name), {}) if name in MODELS and kind == "filters" else open_model(name)
    data = None
    if kind in NEED_DATA:
        label = None if arguments.data else config.get("label")
        found, _, test = load_data(arguments.data or config.get("data", "auto"), net, label=label)
        data = need_test(found, test)
    return KINDS[kind](Path(name).resolve().name, net, data, arguments)


def _augmented(folder, asked, out):
    """Draws images of a run or a data set as they are, and as the first epochs of a training see them; the path."""
    config = read_config(folder) if folder.is_dir() else {}
    if config:
        train = load_data(config.get("data", "auto"), load(folder / MODEL), tell=False, label=config.get("label"))[1]
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
