"""`chaos bench`: measurements; the measuring code is chaos.bench."""

import sys

from .. import bench as measure
from ..models import MODELS, PAPER
from ..streams import is_terminal
from ..sync import STRATEGIES
from .common import add_command, say, show_json
from .common import print_table as _print_table
from .common import show_us as _us
from .common import worker_counts as _workers
from .networks import build_model
from .options import add_setting, parse_options

BUSY = 0.5  # load average from which another process must be running


def add(commands):
    """Adds the command and its kinds to the parser."""
    parser = add_command(
        commands,
        "bench",
        None,
        usage="KIND [options]",
        description="Measures how fast this machine trains. Every kind checks its results before it takes the time.",
        examples=[
            "chaos bench throughput --model large --workers 1",
            "chaos bench kernels --model large",
            "chaos bench scaling --model large",
        ],
    )
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", prog="chaos bench", required=True)
    _add_throughput(kinds)
    _add_kernels(kinds)
    _add_scaling(kinds)


def _add_throughput(kinds):
    parser = add_command(
        kinds,
        "throughput",
        throughput,
        help="time per image of training, and its share of the peak",
        usage="[options]",
        description="Trains and takes the wall time per image (forward, backward and update). Floating-point "
        "operations are counted as 2 x multiply-adds of forward pass, weight gradient and data "
        "gradient, dense; the peak is measured in the same run, on as many cores. Before that "
        "the gradients are checked against the definition in float64. Several settings are "
        "measured in turns.",
        examples=["chaos bench throughput", "chaos bench throughput --model large --workers 1,2 --json"],
    )
    _add_model(parser)
    parser.add_argument(
        "--workers", action="append", metavar="N", help="threads, such as 1 or 1,2; may be repeated (default: 1)"
    )
    _add_training(parser)
    _add_measuring(parser, 2.0, "length of one repeat")


def _add_kernels(kinds):
    parser = add_command(
        kinds,
        "kernels",
        kernels,
        help="time of every layer and pass on one core",
        usage="[options]",
        description="Times every layer and pass by itself: forward, weight gradient, data gradient (what "
        "backward takes beyond the weight gradient alone) and update; then a whole training "
        "phase with one worker, and evaluation. The layers are those that the core runs: an "
        "activation comes after the max-pooling that alone reads it. Each repeat takes another "
        "image (or batch), passes take turns, and the peak is measured between the layers.\n\n"
        "small, medium and large are trained on 500 images first, MNIST if it is on this machine "
        "and the digits that come with chaos otherwise, so that values and sparsity are typical; "
        "a file is measured with the weights in it. Gradients are checked against the definition "
        "in float64 before anything is timed.\n\n"
        "Floating-point operations are 2 x multiply-adds, dense. The loops for gradients visit "
        "non-zero entries only (behind a 2x2 max-pooling one in four), so their dense rate may "
        "exceed the peak: it then says how much faster they are than any dense loop could be.",
        examples=["chaos bench kernels --model large", "chaos bench kernels --model small --isa avx2 --json"],
    )
    _add_model(parser)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="images per update, at most 8 of which pass through the layers together (default: 1)",
    )
    _add_measuring(parser, 0.05, "length of one measurement of one pass")


def _add_scaling(kinds):
    parser = add_command(
        kinds,
        "scaling",
        scaling,
        help="training with more and more workers, and the cost of publishing",
        usage="[options]",
        description="Trains with several numbers of workers in turns (1 2 1 2) and shows throughput, "
        "speed-up over one worker and efficiency, after checking the gradients against the "
        'definition in float64. "us/image/worker" is how long one worker is busy with an image, '
        "the number of workers x the wall time per image: its growth is what sharing costs, by "
        "contention for the weights but also for memory, clock frequency and with other "
        'processes. "at best" is the speed-up of multiply-adds that share nothing: well below '
        "the number of workers, the machine did not give the cores.\n\n"
        "The second table counts what publishing means per image: stripes of the weights updated, "
        "bytes written, try-locks that found a stripe busy, times a waiting worker gave its core "
        "away; staleness (updates of a stripe by others between reading and writing it); and the "
        "time of adding a gradient to the weights, measured alone with warm caches, as a share of "
        "us/image/worker. The third sets that beside the contention term of the paper's performance "
        "model. More workers than cores are measured if asked for, and marked.",
        examples=["chaos bench scaling --model large", "chaos bench scaling --model small --workers 1,2,4 --json"],
    )
    _add_model(parser)
    parser.add_argument(
        "--workers",
        action="append",
        metavar="N",
        help="threads, such as 1,2,3; may be repeated, 1 is always added (default: 1, 2, 4, ... up to the physical cores)",
    )
    _add_training(parser)
    _add_measuring(parser, 1.0, "length of one repeat")


def _add_model(parser):
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help=f"{', '.join(MODELS)}, all ({', '.join(PAPER)}), or a .safetensors file; may be repeated (default: all)",
    )


def _add_training(parser):
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per update (default: 1)")
    parser.add_argument(
        "--strategy",
        default="chaos",
        choices=tuple(STRATEGIES),
        metavar="NAME",
        help=f"one of {', '.join(STRATEGIES)} (default: chaos)",
    )
    add_setting(parser, "strategy_options")
    add_setting(parser, "pin")


def _strategy_options(arguments):
    return parse_options(STRATEGIES, arguments.strategy, arguments.strategy_options or [], "--strategy ")


def _add_measuring(parser, seconds, what):
    parser.add_argument(
        "--isa", metavar="NAME", help="instruction set, see chaos info (default: CHAOS_ISA, else the fastest)"
    )
    parser.add_argument("--seconds", type=float, default=seconds, metavar="S", help=f"{what} (default: {seconds})")
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="measurements, of which the median is shown (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: an object, or a list of them for several settings")


def throughput(arguments):
    """Runs `chaos bench throughput`."""
    workers = _workers(arguments) or [1]
    cases = [
        {
            "model": model,
            "workers": count,
            "batch_size": arguments.batch_size,
            "strategy": arguments.strategy,
            "strategy_options": _strategy_options(arguments),
            "pin": arguments.pin or "none",
            "isa": arguments.isa,
        }
        for model in _models(arguments)
        for count in workers
    ]
    _announce(len(cases) * arguments.repeats * arguments.seconds)
    results = measure.throughputs(cases, seconds=arguments.seconds, repeats=arguments.repeats)
    _show(arguments, results, _throughput_tables)


def kernels(arguments):
    """Runs `chaos bench kernels`."""
    models = _models(arguments)
    _announce(len(models) * arguments.repeats * arguments.seconds * 50)
    results = [
        measure.kernels(model, arguments.isa, arguments.batch_size, arguments.seconds, arguments.repeats) for model in models
    ]
    _show(arguments, results, _kernels_tables)


def scaling(arguments):
    """Runs `chaos bench scaling`."""
    models, workers, options = _models(arguments), _workers(arguments), _strategy_options(arguments)
    settings = len({1, *(workers or measure.default_workers())})
    _announce(len(models) * settings * arguments.repeats * arguments.seconds)
    results = [
        measure.scaling(
            model,
            workers,
            arguments.batch_size,
            arguments.strategy,
            arguments.seconds,
            arguments.repeats,
            arguments.isa,
            options,
            arguments.pin or "none",
        )
        for model in models
    ]
    _show(arguments, results, _scaling_tables)


def _models(arguments):
    """Names in the zoo and networks of files, without repetitions."""
    names = [name for given in arguments.model or ["all"] for name in (PAPER if given == "all" else [given])]
    return [name if name in MODELS else build_model(name) for name in dict.fromkeys(names)]


def _announce(seconds):
    if is_terminal(sys.stderr):
        say(f"measuring for about {seconds:.0f} s ...")


def _show(arguments, results, tables):
    load = results[0]["machine"]["load_average"]  # of before the measurement
    if load is not None and load > BUSY:
        say(f"warning: another process seems to be busy (load average {load:.2f}); times may be too long")
    if arguments.json:
        show_json(results[0] if len(results) == 1 else results)
        return
    tables(results)
    machine = results[0]["machine"]
    version = f"chaos {machine['chaos']}" + (f" at {machine['commit']}" if machine["commit"] else "")
    print(f"\n{machine['cpu']}, {machine['cores']} cores; data: {results[0]['data']}; {version}; {machine['date']}")


def _range(found, name="us_per_image", show=_us):
    return f"{show(found[f'{name}_min'])}..{show(found[f'{name}_max'])}"


def _mark(point):
    return f"{point['workers']}{'!' if point['oversubscribed'] else ''}"


def _throughput_tables(results):
    rows = [("model", "workers", "batch", "isa", "us/image", "min..max", "images/s", "GFLOP/s", "peak", "of peak")]
    for r in results:
        rows.append(
            (
                r["model"],
                _mark(r),
                str(r["batch_size"]),
                r["isa"],
                _us(r["us_per_image"]),
                _range(r),
                f"{r['images_per_second']:,.0f}",
                f"{r['gflops']:.1f}",
                f"{r['peak_gflops']:.0f}",
                f"{r['fraction_of_peak']:.1%}",
            )
        )
    _print_table(rows)
    if any(r["oversubscribed"] for r in results):
        print("! more workers than cores; the peak is that of the cores")


def _kernels_tables(results):
    for r in results:
        trained = f", trained on {r['trained_images']} images first" if r["trained_images"] else ""
        print(
            f"{r['model']}: {r['isa']}, batch {r['batch_size']}, one core, peak {r['peak_gflops']:.0f} GFLOP/s "
            f"({r['peak_gflops_min']:.0f}..{r['peak_gflops_max']:.0f}){trained}\n"
        )
        rows = [("layer", "pass", "us/image", "min..max", "share", "GFLOP/s", "of peak", "loop")]
        for layer in r["layers"]:
            label = _layer(layer)
            for name in ("forward", "weight_gradient", "data_gradient", "update"):
                if layer[name]:
                    rows.append(
                        (
                            label,
                            name.replace("_", " "),
                            _us(layer[name]["us_per_image"]),
                            _range(layer[name]),
                            f"{layer[name]['share']:.1%}",
                            *_rate(layer[name]),
                            layer[name]["loop"] or "",
                        )
                    )
                    label = ""
        for name, us in r["totals"].items():
            rows.append(
                (
                    "all layers" if name == "forward" else "",
                    name.replace("_", " "),
                    _us(us),
                    "",
                    f"{us / r['totals']['sum']:.1%}",
                    "",
                    "",
                    "",
                )
            )
        t = r["training"]
        rows.append(("training", "", _us(t["us_per_image"]), _range(t), "", *_rate(t), ""))
        for e in r["evaluation"]:
            rows.append(
                ("evaluation", f"{e['images_together']} together", _us(e["us_per_image"]), _range(e), "", *_rate(e), "")
            )
        _print_table(rows, left=2)
        print(
            "\nevaluation: "
            + "; ".join(
                f"{e['images_per_second']:,.0f} images/s with {e['images_together']} together" for e in r["evaluation"]
            )
        )
        print(
            f"training takes {_us(t['us_per_image_elsewhere'])} us beyond the sum of the passes: loading images, "
            "loss, locks, colder caches\n"
        )
    print(
        "Above 100 % of the peak: rates count dense operations, the sparse loops of gradients visit non-zero\nentries only."
    )


def _layer(layer):
    """Such as '3 conv2d 5x13x13 > 10x9x9'."""
    shapes = [*layer["input_shapes"][:1], layer["output_shape"]]
    return f"{layer['name']} {layer['kind']} {' > '.join('x'.join(map(str, shape)) for shape in shapes)}"


def _rate(found):
    return ("", "") if found["gflops"] is None else (f"{found['gflops']:.1f}", f"{found['fraction_of_peak']:.1%}")


def _scaling_tables(results):
    """Three tables, whose rows come from one walk over the points; long because a cell takes a line."""
    rows = [
        (
            "model",
            "workers",
            "us/image",
            "min..max",
            "images/s",
            "speed-up",
            "min..max",
            "at best",
            "efficiency",
            "us/image/worker",
            "of peak",
        )
    ]
    costs = [("model", "workers", "updates", "KiB", "busy locks", "give-ways", "staleness", "max", "publishing us", "share")]
    losses = [("model", "workers", "lost", "publishing", "the paper's")]
    for r in results:
        for p in r["points"]:
            rows.append(
                (
                    r["model"],
                    _mark(p),
                    _us(p["us_per_image"]),
                    _range(p),
                    f"{p['images_per_second']:,.0f}",
                    f"{p['speedup']:.2f}",
                    _range(p, "speedup", lambda x: f"{x:.2f}"),
                    f"{p['peak_speedup']:.2f}",
                    f"{p['efficiency']:.0%}",
                    _us(p["us_per_image_per_worker"]),
                    f"{p['fraction_of_peak']:.1%}",
                )
            )
            costs.append(
                (
                    r["model"],
                    _mark(p),
                    f"{p['updates_per_image']:.1f}",
                    f"{p['bytes_per_image'] / 1024:,.0f}",
                    f"{p['lock_failures_per_image']:.3f}",
                    f"{p['give_ways_per_image']:.4f}",
                    f"{p['staleness_mean']:.2f}",
                    f"{p['staleness_max']:,}",
                    _us(p["publication_us_per_image"]),
                    f"{p['publication_share']:.1%}",
                )
            )
            losses.append(
                (
                    r["model"],
                    _mark(p),
                    _us(p["lost_us_per_image"]),
                    _us(p["publication_us_per_image"] / p["workers"]),
                    str(r["paper_contention_us"] or ""),
                )
            )
    _print_table(rows)
    print("at best: the speed-up of multiply-adds that share nothing, in the same turns")
    print("\nPublication per image:\n")
    _print_table(costs)
    print("\nWall time per image that sharing costs, us:\n")
    _print_table(losses)
    print(
        "lost: beyond (time of one worker) / workers, for whatever reason; publishing: adding gradients to the\n"
        "weights, spread over the workers; the paper's: contention term of its performance model at\n"
        f"{results[0]['paper_threads']} threads of a Xeon Phi, derived from its tables"
    )
    if any(p["oversubscribed"] for r in results for p in r["points"]):
        print("! oversubscribed: more workers than cores; they wait for cores, and the peak is that of the cores")
