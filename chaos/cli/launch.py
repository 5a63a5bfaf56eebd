"""`chaos launch`: starts a command on every NUMA domain of some machines, or prints how."""

import argparse
import os
import shlex
import sys

from ..cluster import commands
from .common import add_command, say


def add(subcommands):
    """Adds the command to the parser."""
    parser = add_command(
        subcommands,
        "launch",
        run,
        usage="[options] -- COMMAND ...",
        description="Starts `chaos COMMAND ...` with one process (rank) per NUMA domain of every machine, each bound to "
        "the cores of its domain and with as many workers, through the MPI launcher that is here. --dry-run "
        "prints the launcher's command instead, to be copied and changed.",
        examples=[
            "chaos launch -- train large --cluster local",
            "chaos launch --nodes node1,node2 --dry-run -- train large",
            "chaos launch --nodes 4 --mpi slurm --domains 2 --cores 32 --dry-run -- train large --run-dir runs/l",
        ],
    )
    parser.add_argument(
        "--nodes",
        default="1",
        metavar="N|NAME,...",
        help="machines: how many, or their names (default: 1, this one or the allocation's first)",
    )
    parser.add_argument(
        "--mpi",
        choices=commands.LAUNCHERS,
        metavar="NAME",
        help=f"the launcher: {', '.join(commands.LAUNCHERS)} (default: the one found here)",
    )
    parser.add_argument(
        "--domain",
        choices=tuple(commands.DOMAINS),
        default="numa",
        metavar="WHAT",
        help=f"what has one process: {', '.join(commands.DOMAINS)} (default: numa)",
    )
    parser.add_argument("--domains", type=int, metavar="N", help="domains per machine (default: as here)")
    parser.add_argument("--cores", type=int, metavar="N", help="physical cores per domain (default: as here)")
    parser.add_argument("--dry-run", action="store_true", help="print the command, start nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="of chaos, with its options")


def run(arguments):
    """Runs the command."""
    program = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not program:
        arguments.parser.error("a COMMAND of chaos is needed after --, for example: -- train small")
    what = commands.layout(arguments.nodes, arguments.domain, arguments.domains, arguments.cores)
    kind, path = (arguments.mpi, None) if arguments.mpi else commands.find_launcher(os.environ)
    if kind is None:
        arguments.parser.error(
            "no MPI launcher is here (mpiexec, mpirun, srun); pip install 'chaos-sgd[mpi]' brings one, and "
            "--mpi names one that is elsewhere"
        )
    words = commands.command(kind, what, [sys.executable, "-m", "chaos", *program])
    if path:
        words[0] = path
    if arguments.dry_run:
        print(shlex.join(words))
        return
    say(
        f"{what.ranks} rank{'s'[: what.ranks > 1]}, one per {what.domain} domain, {what.cores} workers each: "
        f"{shlex.join(words)}"
    )
    sys.stdout.flush()
    try:
        os.execvp(words[0], words)
    except FileNotFoundError:
        raise ValueError(f"{words[0]} is not here; leave --mpi out to use what is") from None
