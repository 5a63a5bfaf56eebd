"""`chaos replay`: repeats a traced run bit for bit."""

import time
from pathlib import Path

from .. import training, virtual
from ..errors import TraceError
from ..formats.trace import TraceReader
from ..installation import info
from ..loading import load
from ..network import Network
from .common import add_command, declare_jobs, percent
from .given import DATA, load_data, read_config


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "replay",
        run,
        usage="FILE [options]",
        description="Repeats a run that 'chaos train --trace FILE' has recorded, in the order in which its workers really "
        "met the weights. The weights are compared after every epoch and must be the same to the "
        "last bit; a file that is damaged, other data or another instruction set are refused.",
        examples=[
            "chaos train small --workers 2 --trace order.trace --run-dir runs/t",
            "chaos replay order.trace --run-dir runs/t",
        ],
    )
    parser.add_argument("file", metavar="FILE", help="a trace file")
    parser.add_argument(
        "--data",
        metavar=DATA,
        help="where the training images of the traced run are, if they are no longer where they were (default: as the trace "
        "says, else the run directory)",
    )
    parser.add_argument("--run-dir", metavar="DIR", help="also compare with the weights in this run directory")
    parser.add_argument("--save", metavar="FILE.safetensors", help="keep the network")
    declare_jobs(parser)
    parser.add_argument("--quiet", action="store_true", help="nothing but the result")


def run(arguments):
    """Runs the command."""
    if arguments.save:
        if not arguments.save.lower().endswith(".safetensors"):
            arguments.parser.error(f"argument --save: must end in .safetensors, not {arguments.save!r}")
        if not Path(arguments.save).parent.is_dir():
            raise ValueError(f"{arguments.save}: there is no directory {Path(arguments.save).parent}")
    info()  # complains about CHAOS_ISA, which would pass for a damaged file below
    with TraceReader(arguments.file) as trace:
        head = trace.file.tell()
        try:
            net, known = Network.from_config(trace.about["network"]), trace.about.get("data")
        except (KeyError, ValueError) as error:
            raise TraceError(f"{arguments.file}: damaged: {error}") from None
    if not isinstance(known, (str, type(None))):
        raise TraceError(f"{arguments.file}: damaged: data must be a name, not {known!r}")
    config = read_config(arguments.run_dir) if arguments.run_dir else {}
    kept = load(Path(arguments.run_dir) / training.MODEL) if arguments.run_dir else None
    _, train, _ = load_data(arguments.data or known or config.get("data") or "auto", net)
    start, phases = time.perf_counter(), []

    def progress(found):
        phases.append(found)
        if not arguments.quiet and found["weights"]:
            print(
                f"epoch {found['epoch']}  {found['images']:,} images, {found['events']:,} events, train loss "
                f"{found['train_loss']:.4f} error {found['train_error']:.2%}, weights {found['weights'][:16]}: as "
                "recorded"
            )

    net = virtual.replay(arguments.file, train, progress=progress, jobs=arguments.jobs)
    if kept is not None and kept.config() != net.config():
        raise TraceError(f"{arguments.run_dir} holds another network than {arguments.file}")
    if kept is not None and (kept.weights != net.weights).any():
        raise TraceError(f"the weights in {arguments.run_dir} are not those of {arguments.file}: is it another run's?")
    if arguments.save:
        net.save(arguments.save)
    images = sum(found["images"] for found in phases)
    print(
        f"replayed    {len(phases)} phase{'s' if len(phases) != 1 else ''}, {images:,} images, bit for bit"
        + (f"; the weights are those in {arguments.run_dir}" if kept is not None else "")
    )
    print(
        f"file        {(Path(arguments.file).stat().st_size - head) / max(images, 1):.2f} bytes per image, and "
        f"{head:,} for settings "
        "and initial weights"
    )
    if phases and phases[-1]["train_error"] is not None:
        print(f"train error {percent(phases[-1]['train_error'])} in epoch {phases[-1]['epoch']}")
    print(f"elapsed     {time.perf_counter() - start:.1f} s")
