"""`chaos evaluate`: the test error of a trained network."""

from .. import training
from .common import DATA, DATA_HELP, add_command, load_data, need_test, percent, show_json
from .networks import open_model


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        usage="RUN_OR_MODEL [options]",
        description="Runs a trained network over the test images of a data set and prints its error and mean loss.",
        examples=["chaos evaluate runs/first", "chaos evaluate model.safetensors --data digits --json"],
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run directory or .safetensors file")
    parser.add_argument("--data", metavar=DATA, help=f"{DATA_HELP} (default: the run's own, else auto)")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one per available core)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    """Runs the command."""
    net, config = open_model(arguments.model)
    name, _, test = load_data(arguments.data or config.get("data", "auto"), net)
    result = training.evaluate(
        net,
        need_test(name, test),
        workers=arguments.workers,
        loss=config.get("loss", "cross_entropy"),
        loss_options=config.get("loss_options"),
    )
    if arguments.json:
        show_json({"model": arguments.model, "data": name, **result})
        return
    print(f"data        {name}")
    print(f"test error  {percent(result['error'])} ({result['wrong']:,} of {result['images']:,})")
    print(f"test loss   {result['loss']:.4f}")
    workers = f"{result['workers']} worker{'s' if result['workers'] != 1 else ''}"
    print(f"speed       {result['images_per_second']:,.0f} images/s ({workers})")
