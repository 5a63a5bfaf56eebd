"""`chaos evaluate`: the test error of a trained network."""

from .. import training
from ..training import ABOUT
from ..training.metrics import NAMES
from .common import add_command, declare_best, declare_precision, percent, show_json
from .given import DATA, DATA_HELP, load_data, need_test
from .networks import open_model


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        usage="RUN_OR_MODEL [options]",
        description="Runs a trained network over the test images of a data set and prints its error and mean loss.",
        examples=[
            "chaos evaluate runs/first",
            "chaos evaluate runs/first --best",
            "chaos evaluate model.safetensors --data digits --json",
        ],
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run directory or .safetensors file")
    parser.add_argument("--data", metavar=DATA, help=f"{DATA_HELP} (default: the run's own, else auto)")
    parser.add_argument("--label", metavar="COLUMN", help="that holds the labels of a table (default: the run's own)")
    declare_best(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one per available core)")
    declare_precision(parser)
    about = ABOUT["metrics"]
    parser.add_argument(
        "--metrics",
        metavar=about.unit,
        type=about.parse,
        default=(),
        help=f"what else is measured: {', '.join(NAMES)}, and scikit-learn's scorers where it is installed",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    """Runs the command."""
    net, config = open_model(arguments.model, arguments.best)
    net.precision = arguments.precision
    label = arguments.label or (None if arguments.data else config.get("label"))
    name, _, test = load_data(arguments.data or config.get("data", "auto"), net, label=label)
    result = training.evaluate(
        net,
        need_test(name, test),
        workers=arguments.workers,
        loss=config.get("loss", "cross_entropy"),
        loss_options=config.get("loss_options"),
        metrics=arguments.metrics,
    )
    if arguments.json:
        show_json({"model": arguments.model, "data": name, **result})
        return
    print(f"data        {name}")
    print(f"test error  {percent(result['error'])} ({result['wrong']:,} of {result['images']:,})")
    print(f"test loss   {result['loss']:.4f}")
    for metric in arguments.metrics:
        print(f"{metric:11} {_shown(result[metric])}")
    workers = f"{result['workers']} worker{'s' if result['workers'] != 1 else ''}"
    print(f"speed       {result['images_per_second']:,.0f} images/s ({workers})")


def _shown(value):
    """A metric's value for people: a number, a line of numbers, or a line for each row of a matrix."""
    if not isinstance(value, list):
        return "none" if value is None else f"{value:.4g}"
    if value and isinstance(value[0], list):
        widest = max(len(str(one)) for row in value for one in row)
        return "".join(f"\n    {' '.join(f'{one:>{widest}}' for one in row)}" for row in value)
    return " ".join(map(_shown, value))
