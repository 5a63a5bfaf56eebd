"""`chaos info`: what this installation is and sees."""

import textwrap

from ..installation import info
from .common import add_command, columns, show_json


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "info",
        run,
        usage="[--json]",
        description="Shows what this installation is and what it sees of the machine: instruction set in "
        "use, kernels, cores and the number of workers they give, compiler, OpenMP, MPI and "
        "versions. Worth adding to a bug report.",
        examples=["chaos info", "chaos info --json", "CHAOS_ISA=avx2 CHAOS_NUM_THREADS=4 chaos info"],
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    """Runs the command."""
    facts = info()
    if arguments.json:
        show_json(facts)
        return
    margin = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(
            textwrap.fill(
                _text(value),
                max(columns() - 1, margin + 20),
                initial_indent=name.ljust(margin),
                subsequent_indent=" " * margin,
                break_on_hyphens=False,
            )
        )


def _text(value):
    """A value for people."""
    if isinstance(value, dict):
        if len(value) > 1 and len(set(map(repr, value.values()))) == 1:
            return f"{_text(next(iter(value.values())))} ({', '.join(value)})"
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    if value is None:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
