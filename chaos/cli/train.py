"""`chaos train`: trains a network and keeps the run in a directory."""

import argparse
import contextlib
import os
import shlex
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path

from .. import cluster, trainer, virtual
from ..errors import CheckpointError
from ..losses import LOSSES
from ..models import MODELS
from ..network import Network, load
from ..sync import STRATEGIES
from ..threads import PINNINGS
from ..updates import SCHEDULES, UPDATES
from .common import DATA, DATA_HELP, add_command, build_model, columns, exit_code, load_data, percent, read_config

# Not argparse's own defaults, because a run that is continued takes what was not given from its config.json.
DEFAULTS = {
    "data": "auto",
    "subset": None,
    "strategy": "chaos",
    "strategy_options": {},
    "update": "sgd",
    "update_options": {},
    "workers": None,
    "epochs": 10,
    "lr": 1e-3,
    "lr_decay": 0.9,
    "lr_schedule": "exponential",
    "schedule_options": {},
    "batch_size": 1,
    "loss": "cross_entropy",
    "shuffle": True,
    "validate": False,
    "seed": 0,
    "pin": "none",
}

LISTED = "may be repeated; help lists them"


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "train",
        run,
        help="train a network",
        usage="MODEL [options]",
        description="Trains a network on all cores and keeps settings, metrics and weights in a run "
        "directory. Ctrl-C and SIGTERM stop it at once and keep its state; --resume continues "
        "from there, with the settings of the run, of which only --epochs, --workers, --pin and --cluster "
        "may be others.",
        examples=[
            "chaos train small --epochs 8 --lr 0.01",
            "chaos train medium --data mnist --workers 2 --run-dir runs/m",
            "chaos train --resume --run-dir runs/m --epochs 20",
            "mpirun -n 4 chaos train large --cluster easgd --run-dir runs/l",
        ],
    )
    group = declare(parser, "threads that train", "CHAOS_NUM_THREADS, else one per available core")
    group.add_argument(
        "--pin",
        choices=PINNINGS,
        metavar="HOW",
        help=f"where each worker stays: {', '.join(PINNINGS)} (Linux) (default: {DEFAULTS['pin']})",
    )
    group.add_argument(
        "--trace",
        metavar="FILE",
        help=f"record the order in which the workers meet the weights, for 'chaos replay' ({', '.join(virtual.TRACEABLE)}); "
        "slower than training without",
    )
    group = parser.add_argument_group("several processes (MPI)")
    group.add_argument(
        "--cluster",
        choices=("none", *cluster.MODES),
        metavar="MODE",
        help="how the processes of a launcher keep their weights together: "
        f"{', '.join(cluster.MODES)}; none: each trains alone (default: local if a launcher has "
        "started several)",
    )
    group.add_argument(
        "--cluster-option",
        metavar="KEY=VALUE",
        action="append",
        dest="cluster_options",
        help=f"an option of the mode; {LISTED}",
    )
    group.add_argument(
        "--stall-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="a process that neither answers nor moves on ends the job after so long; 0: never (default: 300)",
    )
    group.add_argument("--rank-details", action="store_true", help="metrics.jsonl tells about every process")
    declare_run(parser)


def declare(parser, workers, default_workers, strategies=STRATEGIES):
    """The options that say what is trained and how, without those about threads, for `chaos train` and `chaos simulate`;
    returns the group about workers."""

    def option(group, name, text, shown=None, **how):
        default = DEFAULTS[name.removeprefix("--").replace("-", "_")]
        group.add_argument(name, help=f"{text} (default: {default if shown is None else shown})", **how)

    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help=f"{', '.join(MODELS)}, or a .safetensors file to start from its weights; not needed with --resume",
    )
    group = parser.add_argument_group("data")
    option(group, "--data", DATA_HELP, metavar=DATA)
    option(group, "--subset", "only the first N training images", "all", type=int, metavar="N")

    group = parser.add_argument_group("training")
    option(group, "--epochs", "passes over the training images, those of a resumed run included", type=int, metavar="N")
    option(group, "--lr", "learning rate of the first epoch", type=float, metavar="RATE")
    option(group, "--lr-decay", "factor of the learning rate from epoch to epoch", type=float, metavar="FACTOR")
    option(
        group,
        "--lr-schedule",
        f"how it goes from epoch to epoch: {', '.join(SCHEDULES)}",
        choices=tuple(SCHEDULES),
        metavar="NAME",
    )
    group.add_argument(
        "--schedule-option",
        metavar="KEY=VALUE",
        action="append",
        dest="schedule_options",
        help=f"an option of the schedule, such as warmup=3 (epochs); {LISTED}",
    )
    option(group, "--batch-size", "images per update of one worker", type=int, metavar="N")
    option(group, "--update", f"the update rule: {', '.join(UPDATES)}", choices=tuple(UPDATES), metavar="NAME")
    group.add_argument(
        "--update-option",
        metavar="KEY=VALUE",
        action="append",
        dest="update_options",
        help=f"an option of the update rule; {LISTED}",
    )
    for name, what in (("momentum", "share of earlier updates"), ("weight-decay", "L2 penalty (adamw: decoupled decay)")):
        group.add_argument(
            f"--{name}",
            metavar="X",
            action="append",
            dest="update_options",
            type=f"{name}={{}}".format,
            help=f"{what}; short for --update-option {name}=X",
        )
    losses = [name for name in LOSSES if name != "score"]  # that one is for proofs, it trains nothing
    option(group, "--loss", f"one of {', '.join(losses)}", choices=losses, metavar="NAME")
    option(group, "--seed", "of the initial weights and of the order of images", type=int, metavar="N")
    option(group, "--shuffle", "a new order of images every epoch", "yes", action=argparse.BooleanOptionalAction)
    option(
        group,
        "--validate",
        "also measure the training images after every epoch",
        "no",
        action=argparse.BooleanOptionalAction,
    )

    group = parser.add_argument_group("workers")
    option(group, "--workers", workers, default_workers, type=int, metavar="N")
    option(
        group,
        "--strategy",
        f"when updates meet the shared weights: {', '.join(strategies)}",
        choices=tuple(STRATEGIES),
        metavar="NAME",
    )
    group.add_argument(
        "--strategy-option",
        metavar="KEY=VALUE",
        action="append",
        dest="strategy_options",
        help=f"an option of the strategy; {LISTED}",
    )
    return group


def declare_run(parser):
    """The options about the run directory; returns their group."""
    group = parser.add_argument_group("run")
    group.add_argument("--run-dir", metavar="DIR", help="where the run is kept (default: runs/<model>-<time in UTC>)")
    group.add_argument("--resume", action="store_true", help="continue the run in --run-dir; starts it if there is none")
    group.add_argument("--quiet", action="store_true", help="no progress, only the summary")
    return group


def run(arguments):
    """Runs the command."""
    if arguments.resume and not arguments.run_dir:
        arguments.parser.error("--resume needs --run-dir")
    mode, options = _cluster(arguments)
    if arguments.trace and (mode is not None or arguments.resume):
        arguments.parser.error(
            "--trace records one process's run from its beginning; it goes with neither --cluster nor --resume"
        )
    if arguments.trace and os.path.exists(arguments.trace):
        arguments.parser.error(f"--trace {arguments.trace}: there is such a file already; delete it or name another")
    if mode is None:
        with contextlib.ExitStack() as stack:
            execute(arguments, None, stack.enter_context(virtual.Traced(arguments.trace)) if arguments.trace else None)
        return
    with cluster.connect(mode, options, stall_timeout=arguments.stall_timeout, rank_details=arguments.rank_details) as link:
        try:
            execute(arguments, link)
        except Exception as error:
            if link and link.agreed and link.rank:  # rank 0 says it
                raise SystemExit(exit_code(error)) from None
            raise


def _cluster(arguments):
    """The exchange mode and its options, (None, None) for a process that trains alone."""
    mode, options = arguments.cluster, None
    if mode is None:
        launch = cluster.launched()
        if launch and launch.ranks > 1:
            earlier = read_config(arguments.run_dir) if arguments.resume else {}
            mode = earlier.get("cluster", "local")
            options = earlier.get("cluster_options")
    if mode in (None, "none"):
        if arguments.cluster_options:
            arguments.parser.error("--cluster-option needs --cluster")
        return None, None
    if arguments.cluster_options:
        modes = {name: one({}) for name, one in cluster.MODES.items()}
        options = _parsed(modes, mode, arguments.cluster_options)
    return mode, options


def execute(arguments, link=None, runner=None, summary=None, config=None, prepared=None):
    """One process's part: what the arguments ask for, with a summary. `link` is None where there are no other processes,
    `runner` as in chaos.train; summary(result, train, test, seconds) instead of the usual one; `config` is kept with the
    run; `prepared` is what `prepare` gave, if it has been called."""
    root = not link or not link.rank
    checked = link.checked if link else lambda call: call()
    # what the others are told: they need not see the run directory
    prepared = prepared or checked(lambda: prepare(arguments) if root else None)
    if link:
        settings, model, config, name = link.gather((*prepared[:2], prepared[2].config(), prepared[3][0]) if root else None)[
            0
        ]

        def follow():  # after rank 0, which may have downloaded the data
            net = Network.from_config(config)
            return settings, model, net, load_data(name, net)

        prepared = checked(lambda: prepared if root else follow())
    settings, model, net, (settings["data"], train, test) = prepared
    if settings["subset"] is not None:
        train = train[: settings["subset"]]

    config = {
        "model": model,
        "data": settings.pop("data"),
        "subset": settings.pop("subset"),
        "requested_workers": settings["workers"],
        "argv": ["chaos", *arguments.argv],
        **(config or {}),
    }
    for key, ending in (("model", ".safetensors"), ("data", ".npz")):
        if config[key].lower().endswith(ending):
            config[key] = os.path.abspath(config[key])  # is found again from another directory
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = checked(lambda: stack.enter_context(_run_dir(arguments.run_dir, model)) if root else None)
        try:
            result = cluster.train_linked(
                link,
                net,
                train,
                test,
                run_dir=folder,
                resume=arguments.resume,
                progress=not arguments.quiet,
                config=config,
                runner=runner,
                **settings,
            )
        except (KeyboardInterrupt, SystemExit):
            if root and (folder / trainer.MODEL).exists():
                again = shlex.join([*arguments.parser.prog.split(), model, "--resume", "--run-dir", str(folder)])
                print(f"continue with: {again}", file=sys.stderr)
            raise
    if root:
        (summary or _summary)(result, train, test, time.perf_counter() - start)


def prepare(arguments):
    """(settings, name of the model, network, (name of the data, train, test))."""
    earlier = read_config(arguments.run_dir) if arguments.resume else {}
    if "virtual" in earlier and "virtual_run" not in arguments:
        raise CheckpointError(f"{arguments.run_dir} holds a run of virtual workers; continue it with chaos simulate")
    settings = _settings(arguments, earlier)
    for name, least in (("seed", 0), ("subset", 1)):  # what is needed before chaos.train checks the rest
        value = settings[name]
        if value is not DEFAULTS[name] and (type(value) is not int or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    net, model = _network(arguments, earlier, settings)
    return settings, model, net, load_data(settings["data"], net)


def _settings(arguments, earlier):
    """What was given, else what the earlier run had, else the defaults."""
    earlier = {**earlier, "workers": earlier.get("requested_workers")}
    given = {name: getattr(arguments, name) for name in DEFAULTS if getattr(arguments, name) is not None}
    settings = DEFAULTS | {name: earlier[name] for name in DEFAULTS if name in earlier} | given
    for name, options, table in (
        ("strategy", "strategy_options", STRATEGIES),
        ("update", "update_options", UPDATES),
        ("lr_schedule", "schedule_options", SCHEDULES),
    ):
        if options in given:
            kept = earlier.get(options, {}) if settings[name] == earlier.get(name) else {}
            settings[options] = kept | _parsed(table, settings[name], given[options])
        elif name in given and given[name] != earlier.get(name):
            settings[options] = {}  # those of the earlier run are another's
    return settings


def _parsed(table, name, pairs):
    """The options of table[name] in ["name=value", ...]; where one is the word help, shows all instead, and ends."""
    if name not in table:  # in a config.json of another version
        raise ValueError(f"unknown name {name!r}; known: {', '.join(table)}")
    owner = table[name]
    if "help" not in pairs:
        return owner.parse(pairs)
    for line in owner.describe():
        print(textwrap.fill(line, columns() - 1, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False))
    raise SystemExit(0)


def _network(arguments, earlier, settings):
    """The network to train and its name."""
    if arguments.model is not None:
        return build_model(arguments.model, settings["seed"]), arguments.model
    if not arguments.resume:
        arguments.parser.error(f"a MODEL is needed: {', '.join(MODELS)} or a .safetensors file")
    model, kept = earlier.get("model"), Path(arguments.run_dir) / trainer.MODEL
    if kept.exists():
        return load(kept), str(model or kept)
    if not isinstance(model, str):
        raise ValueError(f"{arguments.run_dir} holds no run; name a MODEL to start one")
    return build_model(model, settings["seed"]), model


@contextlib.contextmanager
def _run_dir(given, model):
    """The run directory. A new one is made at once, so that no two runs share it; left empty, it goes."""
    if given is not None:
        yield Path(given)
        return
    stem = f"{Path(model).stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    number, folder = 1, Path("runs", stem)
    folder.parent.mkdir(exist_ok=True)
    while True:
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
            folder = Path("runs", f"{stem}-{number}")
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # which is what removing a directory that is not empty raises
            folder.rmdir()
            folder.parent.rmdir()
        raise


def _summary(result, train, test, elapsed):
    history = result.history
    if history:
        last = history[-1]
        part, count = ("test", len(test)) if test is not None else ("train", len(train))
        error = last[f"{part}_error"]
        print(f"{part + ' error':12}{percent(error)} ({round(error * count):,} of {count:,})")
        seconds = sum(record["seconds"] for record in history)
        workers = f"{last['workers']} worker{'s' if last['workers'] != 1 else ''}"
        speed = len(history) * len(train) / seconds
        print(f"speed       {speed:,.0f} images/s ({workers}, {last['strategy']})")
        stale = last["staleness"]
        print(
            f"staleness   mean {stale['mean']:.2f}, p50 {quantile(stale, 0.5)}, "
            f"p99 {quantile(stale, 0.99)}, max {stale['max']}"
        )
    else:
        print("no epoch was trained")
    print(f"elapsed     {elapsed:.1f} s")
    print(f"run         {result.run_dir}")


def quantile(staleness, q):
    """The smallest staleness that a share of at least `q` of the updates does not exceed, as text.

    Parameters
    ----------
    staleness : dict
        With "histogram", whose last bin counts everything from there on, and "max".
    q : float
        In 0..1.
    """
    histogram = staleness["histogram"]
    seen, total = 0, sum(histogram)
    for value, count in enumerate(histogram):
        seen += count
        if seen >= q * total:
            return f"{value} or more" if value == len(histogram) - 1 < staleness["max"] else str(value)
    return "0"
