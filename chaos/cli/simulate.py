"""`chaos simulate`: trains with many virtual workers on few cores."""

import argparse
import dataclasses
import json
import os
from pathlib import Path

from .. import training, virtual
from ..errors import CheckpointError, DivergedError
from ..formats.atomic import write_atomically
from ..network import Network
from ..perfmodel import machine_of, read_machine
from ..sync import STRATEGIES
from ..training import ABOUT, TRAINS, Settings
from .common import add_command, declare_jobs, percent
from .given import read_config
from .train import declare, declare_run, execute, prepare, quantile, take_job

TIMES = "times.json"
LOSS = 0.005  # of error, that is worth looking for a remedy
DESCRIBED = ("cores", "threads_per_core", "slowdown", "speed", "line_ns", "topology")  # by a machine's name
PLAIN = ("cores", "threads_per_core", "slowdown", "speed", "line_ns", "jitter", "stragglers", "straggling")


def add(commands):
    """Adds the command to the parser: one list of options in the order of its help."""
    parser = add_command(
        commands,
        "simulate",
        run,
        usage="MODEL [options]",
        description="Shows what asynchrony does to a training before the machine is there. A clock invents when each of "
        "many workers reads and updates which weights; the arithmetic is real and runs in that order. Same "
        "settings and seed: the same bits, except with --times measured, whose times are kept in the run "
        "directory. Seconds and speed in metrics.jsonl are those of the virtual machine.",
        examples=[
            "chaos simulate small --workers 244 --epochs 4",
            "chaos simulate large --workers 244 --machine xeon-phi-7120p --subset 6000",
            "chaos simulate small --workers 16 --stragglers 2 --straggling 4",
            "chaos simulate small --workers 64 --strategy averaging --strategy-option period=8",
            "chaos simulate medium --against-real --subset 20000",
        ],
    )
    declare(parser, virtual.ORDERS, text="virtual workers", shown=str(virtual.DEFAULT_WORKERS))
    group = parser.add_argument_group("virtual machine")
    group.add_argument(
        "--machine",
        metavar="NAME|FILE.toml",
        help="cores, hardware threads, speed and transfer of a machine that 'chaos estimate' knows; the "
        "options below come before it",
    )
    defaults = virtual.Machine()
    group.add_argument("--cores", type=int, metavar="N", help="cores; workers go round them (default: one per worker)")
    group.add_argument("--threads-per-core", type=int, metavar="N", help="hardware threads of a core (default: 1)")
    group.add_argument(
        "--slowdown",
        type=_factors,
        metavar="F,F,...",
        help="how many times as long a worker takes when 1, 2, ... share its core (default: 1 for all hardware threads)",
    )
    group.add_argument(
        "--speed", type=float, metavar="F", help="of a core, relative to the one the times are of (default: 1)"
    )
    group.add_argument(
        "--line-ns",
        type=float,
        metavar="NS",
        help=f"until a core has a cache line that another has written (default: {defaults.line_ns:g})",
    )
    group.add_argument(
        "--jitter",
        type=float,
        metavar="SIGMA",
        help=f"of the lognormal factor of each pass of a layer (default: {defaults.jitter:g})",
    )
    group.add_argument("--stragglers", type=int, metavar="N", help="so many workers are slower (default: 0)")
    group.add_argument("--straggling", type=float, metavar="F", help="by this factor (default: 1)")
    group.add_argument(
        "--times",
        metavar="nominal|measured|FILE.json",
        help="time of each layer's passes: of a core of round numbers, of this host, or as kept by an "
        f"earlier run in {TIMES} (default: nominal)",
    )
    group.add_argument(
        "--beside-sequential",
        action="store_true",
        help="then also train sequentially, and where many workers cost more than 0.5 points of error, "
        "show what smaller steps for stale updates and half the learning rate make of it",
    )
    group.add_argument(
        "--against-real",
        action="store_true",
        help="instead: one epoch on 1 and on 2 real workers beside their simulation with measured times",
    )
    declare_jobs(declare_run(parser))
    parser.set_defaults(virtual_run=True)


def run(arguments):
    """Runs the command."""
    take_job(arguments)
    if arguments.against_real:
        _against_real(arguments)
        return
    if arguments.resume and not arguments.run_dir:
        given = f"; did you mean --run-dir {arguments.model}?" if os.path.isdir(arguments.model or "") else ""
        arguments.parser.error(f"--resume needs --run-dir{given}")
    earlier = read_config(arguments.run_dir) if arguments.resume else {}
    kept = earlier.get("virtual")
    if kept is None and earlier:
        raise CheckpointError(f"{arguments.run_dir} holds a run of real threads; continue it with chaos train")
    prepared = prepare(arguments)
    settings, _, _, net, _ = prepared
    begin = Network.from_config(net.config()), net.weights.copy()
    times = _times(arguments, kept, net)
    workers = settings.workers or (1 if STRATEGIES[settings.strategy].single else virtual.DEFAULT_WORKERS)
    machine = _machine(arguments, kept, times, workers)
    runner = virtual.Virtual(machine, times, arguments.jobs)

    def summary(result, train, test, seconds):
        if result.run_dir:
            times.write(Path(result.run_dir) / TIMES)
        _summary(result, train, test, seconds, net, settings, machine, times, workers)
        if arguments.beside_sequential and result.history:
            _beside_sequential(result, train, test, settings, machine, times, begin, arguments.jobs)

    kept = {**dataclasses.asdict(machine), "times": dataclasses.asdict(times)}
    doubt = execute(arguments, None, runner, summary, {"virtual": kept}, prepared)
    if doubt:
        raise DivergedError(doubt)


def _factors(text):
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between, such as 1,1.2, not {text!r}") from None


def _times(arguments, kept, net):
    """What was asked for, else what the run had, else nominal."""
    name = arguments.times
    if name is None and kept:
        try:
            return virtual.Times(
                **{key: tuple(value) if isinstance(value, list) else value for key, value in kept["times"].items()}
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{arguments.run_dir}: the times in its config.json are damaged: {error}") from None
    if name in (None, "nominal"):
        return virtual.nominal(net)
    if name == "measured":
        return virtual.measured(net, arguments.batch_size or Settings.batch_size)
    return virtual.read_times(name, net)


def _machine(arguments, kept, times, workers):
    """The options, before the named machine, before what the run had, before the defaults."""
    found = {name: kept[name] for name in PLAIN if name in kept} if kept else {}
    if arguments.machine:
        made = machine_of(read_machine(arguments.machine), times.gflops, workers)
        found = {name: getattr(made, name) for name in DESCRIBED}
    elif kept and kept.get("topology"):
        try:
            found["topology"] = virtual.Topology(**kept["topology"])
        except TypeError as error:
            raise CheckpointError(f"{arguments.run_dir}: the topology in its config.json is damaged: {error}") from None
    if arguments.line_ns is not None or arguments.cores is not None:
        found.pop("topology", None)  # of another machine
    found |= {name: getattr(arguments, name) for name in PLAIN if getattr(arguments, name) is not None}
    if "slowdown" in found:
        found["slowdown"] = tuple(found["slowdown"])
    return virtual.Machine(**found)


def _summary(result, train, test, elapsed, net, settings, machine, times, workers):
    print(f"virtual     {machine.describe(workers)}, {settings.strategy}, times {times.source}")
    if result.history:
        last, epochs = result.history[-1], len(result.history)
        part, count = ("test", len(test)) if test is not None else ("train", len(train))
        error, told = last[f"{part}_error"], last["virtual"]
        print(f"{part + ' error':12}{percent(error)} ({round(error * count):,} of {count:,})")
        seconds = sum(record["seconds"] for record in result.history)
        print(
            f"clock       {seconds:.4g} s for {epochs} epoch{'s' if epochs != 1 else ''}, "
            f"{epochs * len(train) / seconds:,.0f} images/s, speed-up {told['speedup']:.1f} over one worker"
        )
        split = last["time_split"]
        print(
            f"workers     computing {percent(split['forward'] + split['backward'])}, publishing "
            f"{percent(split['publish'])}, waiting {percent(split['wait'])} of their time "
            f"({told['waiting_us_per_image']:.2f} us per image, {last['lock_failures']:,} busy stripes in the last epoch)"
        )
        stale = last["staleness"]
        print(
            f"staleness   mean {stale['mean']:.2f}, p50 {quantile(stale, 0.5)}, "
            f"p99 {quantile(stale, 0.99)}, max {stale['max']}"
        )
        if times.source == "nominal" and machine.speed == 1:
            host = virtual.predict(
                net,
                last["workers"],
                images=len(train),
                strategy=settings.strategy,
                strategy_options=settings.strategy_options,
                batch_size=settings.batch_size,
                machine=machine,
                seed=settings.seed,
            )
            print(
                f"this host   cores like these would take {host['seconds']:.4g} s per epoch, speed-up "
                f"{host['speedup']:.1f} (times measured now)"
            )
    else:
        print("no epoch was trained")
    print(f"elapsed     {elapsed:.1f} s")
    print(f"run         {result.run_dir}")


def _beside_sequential(result, train, test, settings, machine, times, begin, jobs):
    """Prints what the workers cost, and what other options make of it; `begin` is a network and its initial weights."""
    part = "test_error" if test is not None else "train_error"
    alike = dataclasses.replace(
        settings, workers=None, strategy=Settings.strategy, strategy_options=None, run_dir=None, resume=False, progress=False
    )

    def error(**changed):
        runner = virtual.Virtual(machine, times, jobs)
        net, weights = begin
        net.weights[:] = weights
        run = training.train(net, train, test, dataclasses.replace(alike, **changed), runner=runner)
        return run.history[-1][part]

    alone, found = error(strategy="sequential"), result.history[-1][part]
    print(f"sequential  {percent(alone)}: {result.history[-1]['workers']} workers cost {100 * (found - alone):+.2f} points")
    if found - alone <= LOSS:
        return
    asked = {"strategy": settings.strategy, "workers": result.history[-1]["workers"]}
    tried = {"--lr " + f"{settings.lr / 2:g}": {"lr": settings.lr / 2}}
    option = STRATEGIES[settings.strategy].common.get("staleness_step")
    for step in option.choices[1:] if option else ():
        tried[f"--strategy-option staleness_step={step}"] = {
            "strategy_options": settings.strategy_options | {"staleness_step": step}
        }
    errors = {}
    for text, changed in tried.items():
        errors[text] = error(**{**asked, "strategy_options": settings.strategy_options, **changed})
        print(f"            {percent(errors[text])} with {text}")
    best = min(errors, key=errors.get)
    told = "recovers it" if errors[best] - alone <= LOSS else "helps most" if errors[best] < found else "helps least badly"
    print(f"            {best} {told}")


def _against_real(arguments):
    """Prints how far the simulation is from real runs."""
    settings, about_data, _, net, (name, train, _) = prepare(arguments)
    if about_data.subset is not None:
        train = train[: about_data.subset]
    # one epoch without validation has no use for the rest
    unused = {"validation_split", *(key for key in ABOUT if key.startswith(("lr_", "schedule_")))}
    asked = {key: getattr(settings, key) for key in TRAINS if key not in unused}
    workers = (1,) if STRATEGIES[settings.strategy].single else (1, 2)
    machine = _machine(arguments, None, virtual.nominal(net), workers[-1])
    rows = virtual.compare(net, train, workers, machine=machine, **asked)
    for row in rows:
        print(
            f"{row['workers']} worker{'s' if row['workers'] != 1 else ''}, {settings.strategy}, {len(train):,} images "
            f"of {name}"
        )
        print(f"  {'':14}{'real':>12}{'simulated':>12}{'difference':>12}")
        real, simulated = row["real"], row["simulated"]
        _row("us per image", real["seconds"] / len(train) * 1e6, simulated["seconds"] / len(train) * 1e6)
        _row("speed-up", real["speedup"], simulated["speedup"])
        for key in ("mean", "p50", "p99", "max"):
            _row(f"staleness {key}", real["staleness"][key], simulated["staleness"][key], relative=False)
        for bin in range(4):
            shares = (_share(side["staleness"]["histogram"], bin) for side in (real, simulated))
            _row(f"  share of {bin}", *shares, relative=False)
        print(f"  staleness histograms differ by {percent(row['staleness_distance'])} of the updates")
    if arguments.run_dir:
        Path(arguments.run_dir).mkdir(parents=True, exist_ok=True)
        write_atomically(Path(arguments.run_dir, "against-real.json"), json.dumps(rows, indent=2).encode() + b"\n")


def _row(name, real, simulated, relative=True):
    difference = f"{(simulated / real - 1) * 100:+.1f} %" if relative else f"{simulated - real:+.3g}"
    print(f"  {name:14}{real:12.3f}{simulated:12.3f}{difference:>12}")


def _share(histogram, bin):
    return histogram[bin] / max(sum(histogram), 1) if bin < len(histogram) else 0.0
