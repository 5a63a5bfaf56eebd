"""`chaos reproduce`: the paper's experiments, run again, and a report about them."""

import json
import time
from pathlib import Path

from .. import reproduce
from ..errors import ChaosError
from ..report import FORMATS, Paragraph, Plot, need_format, write
from .common import add_command

REPORT = "report.md"


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "reproduce",
        run,
        usage="[options]",
        description="Runs the experiments of the CHAOS paper: three networks, 70, 70 and 15 epochs, on 1 to all cores of "
        f"this machine and with 15 to 244 virtual workers, and writes {REPORT}, its plots, and all results as "
        f"{reproduce.RESULTS}, from which the report can be made again. Takes hours; Ctrl-C stops it, the same command "
        "goes on. Until all is done every finished experiment is a file in DIR/experiments.",
        examples=["chaos reproduce --quick", "chaos reproduce --out docs/reproduction"],
    )
    parser.add_argument("--quick", action="store_true", help="fewer epochs, images and numbers of workers: some minutes")
    parser.add_argument(
        "--out", metavar="DIR", help="where results and report go (default: reproduction, or reproduction-quick)"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help=f"where to write the report, {', '.join(FORMATS)}; .html has the plots in itself (default: {REPORT} in DIR)",
    )
    parser.add_argument(
        "--models",
        metavar="NAME,...",
        default=",".join(reproduce.MODELS),
        help=f"only these of {', '.join(reproduce.MODELS)}",
    )
    parser.add_argument(
        "--data",
        metavar="mnist|digits",
        choices=("mnist", "digits"),
        default="mnist",
        help="digits, the small images that come with chaos, are for trying it out (default: mnist)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of initial weights and of the order of images (default: 0)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="virtual experiments at a time (default: one per core)")
    parser.add_argument(
        "--front",
        metavar="FILE",
        action="append",
        help="a file of scripts/front.py, about which the report then has a section; may be repeated",
    )
    parser.add_argument("--report-only", action="store_true", help="only the report about what is finished")


def run(arguments):
    """Runs the command."""
    if arguments.jobs is not None and arguments.jobs < 1:
        arguments.parser.error(f"--jobs must be at least 1, not {arguments.jobs}")
    if arguments.seed < 0:
        arguments.parser.error(f"--seed must be at least 0, not {arguments.seed}")
    if arguments.report:
        need_format(arguments.report)
    folder = Path(arguments.out or ("reproduction-quick" if arguments.quick else "reproduction"))
    fronts = [_front(path) for path in arguments.front or []]
    experiments = reproduce.plan(arguments.quick, arguments.models.split(","), arguments.data, seed=arguments.seed)
    start = time.perf_counter()
    if arguments.report_only:
        found = reproduce.results(folder, experiments)
        if not found:
            raise ValueError(f"{folder} holds no finished experiment")
    else:
        try:
            found = reproduce.run_all(folder, experiments, lambda line: print(line, flush=True), arguments.jobs)
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
            print(f"stopped; the same command goes on (finished experiments are in {folder / 'experiments'})", flush=True)
            raise
    here = reproduce.measure_here(found, reproduce.measured(folder))
    print(f"results     {reproduce.write_all(folder, found, here)}")
    report = reproduce.make_report(found, arguments.quick, here, fronts)
    print(f"report      {_write(report, Path(arguments.report or folder / REPORT))}")
    print(f"elapsed     {time.perf_counter() - start:.0f} s")


def _front(path):
    """What scripts/front.py wrote; ValueError naming the file where it is something else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        reproduce.front_blocks([found])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return found


def _write(report, path):
    """The report's path; it is without plots where they cannot be drawn."""
    try:
        write(report, path)
    except ChaosError as error:  # matplotlib is not installed
        report.blocks = [block for block in report.blocks if not isinstance(block, Plot)]
        report.add(Paragraph(f"Plots are missing: {error}"))
        print(f"no plots: {error}")
        write(report, path)
    return path
