"""`chaos summary`: what a network is made of and what it costs."""

from .common import add_command, show_json
from .networks import take_model


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "summary",
        run,
        usage="MODEL [options]",
        description="Prints a network layer by layer: output shape, parameters, multiply-adds, which loops the core "
        "has chosen, memory per worker, and rows and columns that no window of a convolution or pooling ever sees.",
        examples=[
            "chaos summary small",
            "chaos summary model.safetensors --batch-size 8",
            "chaos summary runs/first --json",
        ],
    )
    parser.add_argument("model", metavar="MODEL", help="small, medium, large, a run directory or a .safetensors file")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", default=1, help="images of a worker's step, for loops and memory (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    """Runs the command."""
    found = take_model(arguments.model).summary(arguments.batch_size)
    if arguments.json:
        show_json(found.to_dict())
    else:
        print(found)
