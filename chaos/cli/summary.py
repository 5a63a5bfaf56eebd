"""`chaos summary`: what a network is made of and what it costs; without a name, which networks there are."""

import textwrap

from ..models import MODELS
from .common import add_command, columns, show_json
from .networks import take_model


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "summary",
        run,
        usage="[MODEL] [options]",
        description="Prints a network layer by layer: output shape, parameters, multiply-adds, which loops the core "
        "has chosen, memory per worker, and rows and columns that no window of a convolution or pooling ever sees. "
        "Without MODEL, which networks there are.",
        examples=[
            "chaos summary",
            "chaos summary small",
            "chaos summary model.safetensors --batch-size 8",
            "chaos summary runs/first --json",
        ],
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help=f"{', '.join(MODELS)}, a run directory or a .safetensors file"
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", default=1, help="images of a worker's step, for loops and memory (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    """Runs the command."""
    if arguments.model is None:
        _list(arguments)
        return
    found = take_model(arguments.model).summary(arguments.batch_size)
    if arguments.json:
        show_json(found.to_dict())
    else:
        print(found)


def _list(arguments):
    """The networks of the zoo, each with the beginning of its docstring."""
    about = {name: " ".join(made.__doc__.split("\n\n")[0].split()) for name, made in MODELS.items()}
    if arguments.json:
        show_json(about)
        return
    wide = max(map(len, about)) + 2
    for name, text in about.items():
        print(textwrap.fill(text, columns(), initial_indent=name.ljust(wide), subsequent_indent=" " * wide))
