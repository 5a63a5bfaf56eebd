"""`chaos train`: trains a network and keeps the run in a directory."""

import argparse
import contextlib
import dataclasses
import os
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .. import cluster, training, virtual
from ..data import kind
from ..errors import ChaosError, CheckpointError, ClusterError, DivergedError
from ..loading import load
from ..models import MODELS
from ..network import Network
from ..normalising import is_normalised, normalise
from ..options import unknown
from ..streams import LOG, tell
from ..training import ABOUT, Settings
from .common import add_command, exit_code, percent, say
from .given import load_data, load_validation, load_weights, read_config
from .jobs import ENDING, JOB, Kept, read_job
from .networks import FUNCTION, KINDS, absolute, build_model, stem
from .options import DATA_ABOUT, add_setting, add_short_option, in_group, parse_options, settings_from


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "train",
        run,
        usage="MODEL|JOB.toml [options]",
        description="Trains a network on all cores and keeps settings, metrics and weights in a run "
        "directory. Ctrl-C and SIGTERM stop it at once and keep its state; --resume continues "
        "from there, with the settings of the run, of which only --epochs, --workers, --pin and --cluster "
        "may be others.\n\n"
        "MODEL may be FILE.py:FUNCTION or module:FUNCTION, which is executed: the function gets what it has parameters for "
        "of input_shape, classes (both of the data) and seed, and returns a network, a list of layers or a PyTorch module. "
        "JOB.toml holds all that can be said here, in tables [network] (name, or layers and input), [data], [training], "
        "[strategy], [cluster], [run] with the names of chaos.train's arguments; what is given here comes before it. "
        "Its paths are relative to it. A run directory keeps every value in its job.toml.",
        examples=[
            "chaos train small --epochs 8 --lr 0.01",
            "chaos train medium --data mnist --workers 2 --run-dir runs/m",
            "chaos train mynet.py:build --data mydata.npz",
            "chaos train job.toml --lr 0.02",
            "chaos train --resume --run-dir runs/m --epochs 20",
            "mpirun -n 4 chaos train large --cluster easgd --run-dir runs/l",
        ],
    )
    group = declare(parser)
    add_setting(group, "pin")
    group.add_argument(
        "--trace",
        metavar="FILE",
        help=f"record the order in which the workers meet the weights, for 'chaos replay' ({', '.join(virtual.TRACEABLE)}); "
        "slower than training without",
    )
    group = parser.add_argument_group("several processes (MPI)")
    for name in in_group("cluster"):
        modes = {"names": tuple(cluster.MODES), "choices": ("none", *cluster.MODES)} if name == "cluster" else {}
        add_setting(group, name, **modes)
    declare_run(parser)


def declare(parser, strategies=None, **workers):
    """The options that say what is trained and how, for `chaos train` and `chaos simulate`; returns the group about workers.
    `strategies` are those that the help shows, `workers` what is different about that setting."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help=f"{', '.join(MODELS)}, {KINDS}, or a job file; not needed with --resume"
    )
    group = parser.add_argument_group("data")
    for name in DATA_ABOUT:
        add_setting(group, name)

    group = parser.add_argument_group("training")
    for name in in_group("training"):
        add_setting(group, name)
        if name == "evaluate_train":
            group.add_argument("--validate", action=_Renamed, default=None, dest=name, help=argparse.SUPPRESS)
        if name == "update_options":
            add_short_option(group, "momentum", "share of earlier updates")
            add_short_option(group, "weight_decay", "L2 penalty (adamw: decoupled decay)")

    group = parser.add_argument_group("workers")
    for name in in_group("workers", without=("pin",)):
        changed = {"workers": workers, "strategy": {"names": strategies}}.get(name, {})
        add_setting(group, name, **changed)
    return group


class _Renamed(argparse.BooleanOptionalAction):
    """What earlier versions called --evaluate-train."""

    def __call__(self, parser, namespace, values, option_string=None):
        LOG.warning("%s is now %s", option_string, option_string.replace("validate", "evaluate-train"))
        super().__call__(parser, namespace, values, option_string)


def declare_run(parser):
    """The options about the run directory; returns their group."""
    group = parser.add_argument_group("run")
    for name in in_group("run"):
        add_setting(group, name)
    return group


def run(arguments):
    """Runs the command."""
    take_job(arguments)
    if arguments.resume and not arguments.run_dir:
        given = f"; did you mean --run-dir {arguments.model}?" if os.path.isdir(arguments.model or "") else ""
        arguments.parser.error(f"--resume needs --run-dir{given}")
    mode, options = _cluster(arguments)
    if arguments.trace and (mode is not None or arguments.resume):
        arguments.parser.error(
            "--trace records one process's run from its beginning; it goes with neither --cluster nor --resume"
        )
    if arguments.trace and os.path.exists(arguments.trace):
        arguments.parser.error(f"--trace {arguments.trace}: there is such a file already; delete it or name another")
    if mode is None:
        with contextlib.ExitStack() as stack:
            doubt = execute(
                arguments, None, stack.enter_context(virtual.Traced(arguments.trace)) if arguments.trace else None
            )
        if doubt:
            raise DivergedError(doubt)
        return
    asked = {name: getattr(arguments, name) for name in ("stall_timeout", "rank_details")}
    settings = Settings.among({name: value for name, value in asked.items() if value is not None})
    with cluster.connect(dataclasses.replace(settings, cluster=mode, cluster_options=options)) as link:
        try:
            doubt = execute(arguments, link)
        except Exception as error:
            if link and link.agreed and link.rank:  # rank 0 says it
                raise SystemExit(exit_code(error)) from None
            raise
    if doubt:
        if link and link.rank:
            raise SystemExit(exit_code(DivergedError(doubt)))
        raise DivergedError(doubt)


def take_job(arguments):
    """Reads the job file, if MODEL is one, into `arguments.job`; its settings of this call become arguments where none were
    given, except the cluster's mode."""
    is_job = arguments.model is not None and arguments.model.lower().endswith(ENDING)
    arguments.job = read_job(arguments.model) if is_job else None
    for name, value in (arguments.job.values if arguments.job else {}).items():
        if (
            name in ABOUT
            and ABOUT[name].role == "call"
            and not name.startswith("cluster")
            and getattr(arguments, name) is None
        ):
            setattr(arguments, name, value)


def _cluster(arguments):
    """The exchange mode and its options, (None, None) for a process that trains alone."""
    asked = arguments.job.values if arguments.job else {}
    mode, options = arguments.cluster or asked.get("cluster"), None
    if mode is not None and mode == asked.get("cluster"):
        if mode not in ("none", *cluster.MODES):
            raise ValueError(f"{arguments.job.path}: {unknown('unknown cluster mode', mode, ('none', *cluster.MODES))}")
        options = asked.get("cluster_options")
    if mode is None:
        launch = cluster.launched()
        if launch and launch.ranks > 1:
            earlier = _earlier_of_root(arguments, launch)
            mode = earlier.get("cluster", "local")
            options = earlier.get("cluster_options")
    if mode in (None, "none"):
        if arguments.cluster_options:
            arguments.parser.error("--cluster-option needs --cluster")
        return None, None
    if arguments.cluster_options:
        modes = {name: one({}) for name, one in cluster.MODES.items()}
        options = (options or {}) | parse_options(modes, mode, arguments.cluster_options, "--cluster ")
    if cluster.MODES[mode].strategy and not arguments.strategy and "strategy" not in asked:
        arguments.strategy = cluster.MODES[mode].strategy
    return mode, options


def _earlier_of_root(arguments, launch):
    """The settings of the run that is continued, of which the other ranks may see nothing: rank 0 tells them."""
    try:
        return cluster.from_root(lambda: read_config(arguments.run_dir) if arguments.resume else {})
    except ClusterError:  # of this process, which perhaps sees no other
        raise
    except ChaosError as error:
        if launch.rank:  # rank 0 says it
            raise SystemExit(exit_code(error)) from None
        raise


def execute(arguments, link=None, runner=None, summary=None, config=None, prepared=None, callbacks=()):
    """One process's part: what the arguments ask for, with a summary; returns `Run.doubt`. `link` is None where there are no
    other processes, `runner` as in chaos.train; summary(result, train, test, seconds) instead of the usual one; `config` is
    kept with the run; `prepared` is what `prepare` gave, if it has been called; `callbacks` as in chaos.train."""
    root = not link or not link.rank
    checked = link.checked if link else lambda call: call()
    if link:
        link.agree(cluster.agreement.of_arguments(arguments))
    # what the others are told: they need not see the run directory
    prepared = prepared or checked(lambda: prepare(arguments) if root else None)
    if link:
        settings, asked, model, net, data = prepared or (None,) * 5
        settings, asked, model, graph, name = link.gather((settings, asked, model, net.config(), data[0]) if root else None)[
            0
        ]

        def follow():  # after rank 0, which may have downloaded the data
            net = Network.from_config(graph)
            own = {key: value for key in ("workers", "pin") if (value := getattr(arguments, key, None)) is not None}
            return dataclasses.replace(settings, **own), asked, model, net, _load(name, net, asked, tell=False)

        prepared = checked(lambda: prepared if root else follow())
    settings, asked, model, net, (name, train, test) = prepared
    if asked.subset is not None:
        train = train[: asked.subset]
    validation = checked(lambda: load_validation(asked.validation_data, net, asked.label))

    config = {
        "model": model,
        "data": name,
        "validation_data": asked.validation_data and os.path.abspath(asked.validation_data),  # no name has one set only
        "label": asked.label,
        "sample_weight": asked.sample_weight and os.path.abspath(asked.sample_weight),
        "normalise": asked.normalise,
        "subset": asked.subset,
        "requested_workers": settings.workers,
        "argv": ["chaos", *arguments.argv],
        **(config or {}),
    }
    # are found again from another directory
    config["model"] = absolute(model)
    if kind(config["data"]) != "name":
        config["data"] = os.path.abspath(config["data"])
    if isinstance(runner, virtual.Traced):
        if asked.label or asked.sample_weight:
            raise ValueError("--trace keeps the name of the data alone; it does not go with --label and --sample-weight")
        runner.data = config["data"]
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = checked(lambda: stack.enter_context(_run_dir(arguments.run_dir, model)) if root else None)
        named = [] if arguments.job or FUNCTION.fullmatch(model) else [model]
        again = shlex.join([*arguments.parser.prog.split(), *named, "--resume", "--run-dir", str(folder)])
        if link and root and (launch := cluster.launched()) and launch.launcher == "Open MPI":
            tell(f"after a stop, continue with: {again}")  # which forwards nothing that is said after a stop
        if root:
            anew = shlex.join([*arguments.parser.prog.split(), str(folder / JOB), "--run-dir", "NEW"])
            callbacks = [*callbacks, Kept(folder, _described(arguments, model), anew)]
        try:
            result = cluster.train_linked(
                link,
                net,
                train,
                test,
                dataclasses.replace(settings, run_dir=folder),
                validation=validation,
                config=config,
                callbacks=callbacks,
                runner=runner,
            )
        except (KeyboardInterrupt, SystemExit):
            if root and (folder / training.MODEL).exists():
                tell(f"continue with: {again}")
            raise
    if root:
        (summary or _summary)(result, train, test, time.perf_counter() - start)
    return result.doubt


def prepare(arguments):
    """(Settings, DataSettings, name of the model, network, (name of the data, train, test))."""
    earlier = read_config(arguments.run_dir) if arguments.resume else {}
    if "virtual" in earlier and "virtual_run" not in arguments:
        raise CheckpointError(f"{arguments.run_dir} holds a run of virtual workers; continue it with chaos simulate")
    settings, asked = settings_from(arguments, earlier, arguments.job.values if arguments.job else None)
    seen = []

    def about_data():
        seen[:] = load_data(asked.data, label=asked.label)
        return seen[1].shape, seen[1].classes

    net, model = _network(arguments, earlier, settings.seed, about_data)
    found = _load(seen[0] if seen else asked.data, net, asked)
    if asked.normalise and not is_normalised(net):  # as that of a run that is continued is
        net = normalise(net, *found[1][: asked.subset].mean_std())
    return settings, asked, model, net, found


def _load(name, net, asked, tell=True):
    """(name of the data, train, test), as they were asked for."""
    name, train, test = load_data(name, net, tell, asked.label)
    return name, load_weights(asked.sample_weight, train), test


def _described(arguments, model):
    """What [network] of a job file says about the network to train."""
    if arguments.job and arguments.job.network:
        return arguments.job.network
    kept = Path(arguments.run_dir or "", JOB)
    if arguments.resume and arguments.model is None and kept.exists():
        return read_job(kept).network
    return {"name": absolute(model)}


def _network(arguments, earlier, seed, data):
    """The network to train and its name."""
    job = arguments.job
    if job and job.network:
        return job.build(seed, data), job.model
    if job and not arguments.resume:
        raise ValueError(f"{job.path}: says nothing of the network; [network] needs a name, or layers")
    if not job and arguments.model is not None:
        return build_model(arguments.model, seed, data), arguments.model
    if not arguments.resume:
        arguments.parser.error(f"a MODEL is needed: {', '.join(MODELS)}, {KINDS}, or a job file")
    model, kept = earlier.get("model"), Path(arguments.run_dir) / training.MODEL
    if kept.exists():
        return load(kept), str(model or kept)
    if not isinstance(model, str):
        raise ValueError(f"{arguments.run_dir} holds no run; name a MODEL to start one")
    if FUNCTION.fullmatch(model) or model.lower().endswith(ENDING):  # no code because of what a directory holds
        raise ValueError(f"{arguments.run_dir} holds no weights yet; name the MODEL again: {shlex.quote(model)}")
    return build_model(model, seed, data), model


@contextlib.contextmanager
def _run_dir(given, model):
    """The run directory. A new one is made at once, so that no two runs share it; left empty, it goes."""
    if given is not None:
        yield Path(given)
        return
    name = f"{stem(model)}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    number, folder = 1, Path("runs", name)
    folder.parent.mkdir(exist_ok=True)
    while True:
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
            folder = Path("runs", f"{name}-{number}")
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
        _warn(history, error, test if test is not None else train)
        print(f"{part + ' error':12}{percent(error)} ({round(error * count):,} of {count:,})")
        if result.best_epoch:
            key = result.monitored
            print(f"best epoch  {result.best_epoch} ({key} {history[result.best_epoch - 1][key]:.4g})")
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


def _warn(history, error, data):
    """Says so where a network has learned less than to give always the most frequent answer, though it had some time, or is
    further from the right ones than at its beginning."""
    if error is None or not data.classes or getattr(data, "labels", np.empty((0, 0))).ndim > 1:
        return
    if len(history) < 2 and not history[-1]["train_loss"] > 2 * np.log(max(data.classes, 2)):
        return
    most = np.bincount(data.labels[data.labels >= 0], minlength=1).max() / len(data)
    if error >= 1 - most:
        say(
            f"warning: an error of {percent(error)} is no better than always answering the most frequent class "
            f"({percent(1 - most)}); train longer, or with another --lr"
        )


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
