"""`chaos bench`: measurements; the measuring code is chaos.bench."""

import sys

from .. import bench as measure
from ..models import MODELS
from ..sync import STRATEGIES
from .common import add_command, build_model, say, show_json

BUSY = 0.5  # load average from which another process must be running


def add(commands):
    """Adds the command and its kinds to the parser."""
    parser = add_command(
        commands, "bench", None, help="measure speed",
        usage="KIND [options]",
        description="Measures how fast this machine trains. Every kind checks its results before it takes "
                    "the time.",
        examples=["chaos bench throughput --model large --workers 1"])
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", prog="chaos bench", required=True)
    _add_throughput(kinds)


def _add_throughput(kinds):
    parser = add_command(
        kinds, "throughput", throughput, help="time per image of training, and its share of the peak",
        usage="[options]",
        description="Trains and takes the wall time per image (forward, backward and update). Floating-point "
                    "operations are counted as 2 x multiply-adds of forward pass, weight gradient and data "
                    "gradient, dense; the peak is measured in the same run, on as many cores. Before that "
                    "the gradients are checked against the definition in float64. Several settings are "
                    "measured in turns.",
        examples=["chaos bench throughput", "chaos bench throughput --model large --workers 1,2 --json"])
    parser.add_argument("--model", action="append", metavar="NAME",
                        help=f"{', '.join(MODELS)} or a .safetensors file; may be repeated (default: all)")
    parser.add_argument("--workers", action="append", metavar="N",
                        help="threads, such as 1 or 1,2; may be repeated (default: 1)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N",
                        help="images per update (default: 1)")
    parser.add_argument("--strategy", default="chaos", choices=tuple(STRATEGIES), metavar="NAME",
                        help=f"one of {', '.join(STRATEGIES)} (default: chaos)")
    parser.add_argument("--isa", metavar="NAME",
                        help="instruction set, see chaos info (default: CHAOS_ISA, else the fastest)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S",
                        help="length of one repeat (default: 2.0)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N",
                        help="measurements, of which the median is shown (default: 5)")
    parser.add_argument("--json", action="store_true",
                        help="print JSON: an object, or a list of them for several settings")


def throughput(arguments):
    """Runs `chaos bench throughput`."""
    models = [name for given in arguments.model or ["all"]
              for name in (MODELS if given == "all" else [given])]
    workers = [_count(text, arguments.parser) for given in arguments.workers or ["1"]
               for text in given.split(",")]
    cases = [{"model": name if name in MODELS else build_model(name), "workers": count,
              "batch_size": arguments.batch_size, "strategy": arguments.strategy, "isa": arguments.isa}
             for name in dict.fromkeys(models) for count in dict.fromkeys(workers)]
    if sys.stderr.isatty():
        say(f"measuring for about {len(cases) * arguments.repeats * arguments.seconds:.0f} s ...")
    results = measure.throughputs(cases, seconds=arguments.seconds, repeats=arguments.repeats)
    load = results[0]["machine"]["load_average"]  # of before the measurement
    if load is not None and load > BUSY:
        say(f"warning: another process seems to be busy (load average {load:.2f}); times may be too long")
    if arguments.json:
        show_json(results[0] if len(results) == 1 else results)
    else:
        _table(results)


def _count(text, parser):
    if not text.strip().isascii() or not text.strip().isdigit():
        parser.error(f"argument --workers: not a number or list of numbers: {text!r}")
    return int(text)


def _table(results):
    rows = [("model", "workers", "batch", "isa", "us/image", "min..max", "images/s", "GFLOP/s", "peak",
             "of peak")]
    for r in results:
        digits = 2 if r["us_per_image"] < 100 else 0
        rows.append((
            r["model"], f"{r['workers']}{'!' if r['oversubscribed'] else ''}", str(r["batch_size"]), r["isa"],
            f"{r['us_per_image']:.{digits}f}",
            f"{r['us_per_image_min']:.{digits}f}..{r['us_per_image_max']:.{digits}f}",
            f"{r['images_per_second']:,.0f}", f"{r['gflops']:.1f}", f"{r['peak_gflops']:.0f}",
            f"{r['fraction_of_peak']:.1%}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    if any(r["oversubscribed"] for r in results):
        print("! more workers than cores; the peak is that of the cores")
    machine = results[0]["machine"]
    version = f"chaos {machine['chaos']}" + (f" at {machine['commit']}" if machine["commit"] else "")
    print(f"\n{machine['cpu']}, {machine['cores']} cores; data: {results[0]['data']}; {version}; "
          f"{machine['date']}")
