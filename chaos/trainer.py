"""Training: phases, order of images, schedule, evaluation, history, checkpoints. Above chaos.network, below the CLI."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import platform
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from . import _core, threads
from ._version import __version__
from .data import Dataset
from .errors import CheckpointError, DataError, DivergedError
from .formats.atomic import write_atomically
from .losses import LOSSES
from .network import STATE, Network, aligned_zeros, load_with_state
from .options import check_number
from .progress import Progress
from .sync import STRATEGIES
from .updates import SCHEDULES, UPDATES

MODEL, METRICS, CONFIG = "model.safetensors", "metrics.jsonl", "config.json"
EXCHANGE = f"{STATE}cluster."  # begins the names of tensors that belong to the exchange between ranks
POLL = 0.05  # seconds between looks at signals and progress


@dataclasses.dataclass
class Run:
    """What `train` returns.

    Attributes
    ----------
    network : Network
        The network that was trained, in place.
    history : list of dict
        One dict per finished epoch, as in metrics.jsonl: among others epoch (from 1), lr, train_loss, test_loss and, where
        asked for, validation_loss (mean per image), train_error, test_error, validation_error (fractions in 0..1),
        seconds and images_per_second (of the training phase), staleness (mean, p50, p99, max, histogram, whose last bin
        counts 511 and everything above, so that p50 and p99 of 511 are "at least 511"; mean and max are exact), layers,
        time_split (shares of the workers' time). train_* are of the images as they were trained on, during the epoch;
        test_* are None without a test set.
    workers : threads.Plan
        How many workers there were, and what limited them.
    run_dir : Path or None
    is_root : bool
        False on all but one of the processes of a job.
    """

    network: Network
    history: list[dict]
    workers: threads.Plan
    run_dir: Path | None
    is_root: bool = True


def train(
    net,
    train,
    test=None,
    *,
    strategy="chaos",
    strategy_options=None,
    workers=None,
    epochs=10,
    lr=1e-3,
    lr_decay=0.9,
    lr_schedule="exponential",
    schedule_options=None,
    batch_size=1,
    update="sgd",
    update_options=None,
    loss="cross_entropy",
    shuffle=True,
    validate=False,
    seed=0,
    pin="none",
    run_dir=None,
    resume=False,
    progress=True,
    config=None,
    link=None,
    runner=None,
):
    """Trains a network in place.

    Each epoch runs a training phase, in which every image is visited exactly once by some worker, then, if asked, a
    validation phase (forward only, over the training images, as in the paper) and a test phase; between phases the workers
    meet.

    Parameters
    ----------
    net : Network
    train, test : Dataset
        `test` may be None.
    strategy : str
        A name in chaos.sync.STRATEGIES; each says there what it promises.
    strategy_options : dict, optional
        Of the strategy, by name; each says there which it has.
    workers : int, optional
        Threads, each with its own network instance; by default what `chaos.threads.resolve` finds ("sequential": 1).
    epochs : int
        Total number, also when resuming.
    lr, lr_decay : float
        With the default schedule the learning rate of epoch e = 1, 2, ... is lr * lr_decay**(e - 1).
    lr_schedule : str
        A name in chaos.updates.SCHEDULES; each says there what it makes of lr and, where it has a factor, lr_decay.
    schedule_options : dict, optional
        Of the schedule, by name; all have `warmup`.
    batch_size : int
        Images per update; the gradient is their mean. Of one worker's step, or of the whole step over all workers where
        the strategy says so.
    update : str
        A name in chaos.updates.UPDATES.
    update_options : dict, optional
        Of the update rule, by name.
    loss : str
        A name in chaos.losses.LOSSES.
    shuffle : bool
        A new order every epoch, drawn from `seed` and the epoch's number.
    validate : bool
        Whether to add the validation phase.
    seed : int
        Of the order of images.
    pin : str
        "none", or where each worker stays while a phase runs (Linux): "compact" fills the cores of one NUMA domain, or
        socket, before the next; "scatter" goes round them. `chaos.info()["pin"]` shows the CPUs. It changes no result.
    run_dir : path, optional
        Folder for config.json, metrics.jsonl and model.safetensors (weights and training state); made if absent.
    resume : bool
        Go on from the state in `run_dir`, or from the start if it holds none. With one worker, and with strategies that
        promise it, the result has the same bits as an uninterrupted run.
    progress : bool
        Draw a bar on a terminal, else print one line per epoch (both to standard error).
    config : dict, optional
        Whatever the caller wants kept in config.json beside the settings.
    link : Alone, optional
        The other processes of the job, for chaos.cluster.
    runner : Threads, optional
        What runs the training phases, for chaos.virtual.

    Returns
    -------
    Run

    Raises
    ------
    ValueError, DataError
        Unknown names and values that make no sense, before any worker starts.
    TypeError
        If `net` is no Network, or `run_dir` no path.
    OSError
        If `run_dir` cannot be written, naming the file; what was kept there before is still there.
    CheckpointError
        If `run_dir` holds another run, or a damaged one.
    DivergedError
        If the loss is no longer finite; the network then has the weights of the last good epoch.
    KeyboardInterrupt, SystemExit
        After Ctrl-C or SIGTERM: the workers have stopped, and the state, in the middle of the epoch, is in `run_dir`.
    """
    link, runner = link or Alone(), runner or Threads()

    def prepare():
        if resume and run_dir is None and link.rank == 0:
            raise ValueError("resume=True needs run_dir, the directory of the run that is to be continued")
        job = Job(
            net,
            train,
            test,
            strategy=strategy,
            strategy_options=strategy_options or {},
            workers=workers,
            epochs=epochs,
            lr=lr,
            lr_decay=lr_decay,
            lr_schedule=lr_schedule,
            schedule_options=schedule_options or {},
            batch_size=batch_size,
            update=update,
            update_options=update_options or {},
            loss=loss,
            shuffle=shuffle,
            validate=validate,
            seed=seed,
            pin=pin,
            link=link,
            runner=runner,
        )
        store = _Store(run_dir, job, resume, config or {}) if run_dir is not None and link.rank == 0 else None
        if store:
            store.open()
        return job, store

    job, store = link.checked(prepare)
    with (
        Progress(bool(progress) and link.rank == 0, epochs) as display,
        threadpool_limits(1, user_api="blas"),
        _signals() as caught,
        link.joined(job, caught),
    ):
        job.run(store, display, caught)
    if caught.signal:  # it came after the last look
        caught.leave()
    return Run(net, job.history, job.plan, store.folder if store else None, link.rank == 0)


def evaluate(net, data, *, workers=None, loss="cross_entropy"):
    """Mean loss and errors of a network on a data set.

    Parameters
    ----------
    net : Network
    data : Dataset
    workers : int, optional
        As for `train`.
    loss : str

    Returns
    -------
    dict
        loss (mean), error (fraction in 0..1), wrong (count), images, seconds, images_per_second, workers.

    Raises
    ------
    ValueError, DataError
        If the data do not fit the network.
    KeyboardInterrupt, SystemExit
        After Ctrl-C or SIGTERM.
    """
    plan = _workers(workers)
    _known("loss", loss, LOSSES)
    images, labels = _take(net, data, "data", loss)
    engine = _evaluator(net, plan, loss)
    with threadpool_limits(1, user_api="blas"), _signals() as caught, ThreadPoolExecutor(1) as pool:
        result, seconds = _phase(pool, engine, caught, None, "test", Alone(), **images, labels=labels)
    if caught.signal:  # also one that came when the phase was over
        caught.leave()
    if result["status"] == "diverged":
        raise DivergedError(f"the loss of image {result['failed_at']} is not finite")
    return {
        "loss": result["loss"] / len(data),
        "error": result["errors"] / len(data),
        "wrong": result["errors"],
        "images": len(data),
        "seconds": seconds,
        "images_per_second": len(data) / seconds,
        "workers": plan.workers,
    }


def _evaluator(net, plan, loss):
    """An engine that takes as many images through the layers together as it can, whatever the training's batch size."""
    cpus = None if plan.pin == "none" else plan.cpus
    return _core.Engine(
        net.plan, net.weights, workers=plan.workers, strategy="chaos", loss=loss, batch_size=_core.TOGETHER, cpus=cpus
    )


# ---- checks ----


def _known(what, name, table):
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(table)}")


def _take(net, data, what, loss):
    if not isinstance(data, Dataset):
        raise DataError(
            f"{what} must be a chaos.data.Dataset, not {type(data).__name__}; "
            "chaos.data.Dataset(images, labels) makes one from arrays"
        )
    images = net.take_images(data.images)
    count = images.pop("count")
    return images, net.take_targets(data.labels, count, loss)


def _workers(requested, only_one=None, pin="none"):
    """The resolved worker plan; where nothing is requested and only one worker can run, one."""
    only_one = only_one or (None if _core.OPENMP else "built without OpenMP")
    if only_one and requested is None:
        plan = threads.resolve(1, pin=pin)
        limits = {only_one: 1, **{name: n for name, n in plan.limits.items() if name != "argument"}}
        return dataclasses.replace(plan, limit=only_one, limits=limits)
    return threads.resolve(requested, pin=pin)


# ---- the other processes of the job ----


class Alone:
    """What a training asks of the other processes ("ranks") of its job, where there are none; chaos.cluster has the one that
    talks to them. All ranks call the same methods in the same order."""

    rank, size = 0, 1
    halted = False  # another rank cannot go on: the workers are to stop

    def checked(self, call):
        """call(); where it fails on any rank, all raise."""
        return call()

    @contextmanager
    def joined(self, job, caught):
        """While the job runs: all have the weights and the history of rank 0; a signal on one rank is a signal on all."""
        yield

    def shard(self, images, rank):
        """A rank's part of the images that an epoch still has to visit."""
        return images

    def part(self, n):
        """This rank's part [begin, end) of n images that are evaluated."""
        return 0, n

    def train_begins(self, epoch, images):
        """The workers are about to start on so many images, and `watch` is about to exchange weights beside them."""

    def trains(self, engine):
        """What runs a training phase: the engine, or something with the same `run`, `stop`, `clear` and `position`."""
        return engine

    def position(self, runner):
        """Images that are done in the phase under way, for the progress bar."""
        return runner.position

    def watch(self, future, seconds):
        """Whether the workers, and what goes on beside them, are through; waits up to `seconds`."""
        return bool(wait([future], seconds).done)

    def gather(self, mine):
        """What every rank has, in their order."""
        return [mine]

    def report(self, results):
        """What an epoch's record tells about the ranks."""
        return {}

    def state(self):
        """What a resumed run needs beside the weights and the update rule's state, the same on all ranks: {"mode.name":
        vector laid out as the weights}."""
        return {}

    def restore(self, state):
        """On rank 0 before `joined`: the `state` that was kept with the weights; what no longer fits is passed over."""

    def leave(self):
        """All ranks are about to raise the same exception; returns when all are here."""


class Threads:
    """Runs the training phases of a job: on real threads. chaos.virtual has others."""

    kind = "real threads"  # a run goes on with the same

    def workers(self, requested, only_one, pin):
        """The plan of the workers, from what was asked for."""
        return _workers(requested, only_one, pin)

    def start(self, job):
        """The job's engine is there, its weights may still be replaced; returns the engine for evaluations."""
        if job.identity["batch_size"] >= _core.TOGETHER:
            return job.engine
        return _evaluator(job.net, job.plan, job.identity["loss"])

    def train(self, job, epoch, pool, caught, display, ahead, **arguments):
        """A training phase: (result, seconds)."""
        return _phase(pool, job.link.trains(job.engine), caught, display, "train", job.link, ahead, **arguments)

    def report(self):
        """What the epoch's record tells beside what all records have."""
        return {}


# ---- one job ----


class Job:
    """A training under way: what `train` was asked for, and how far it has come."""

    def __init__(
        self,
        net,
        train,
        test,
        *,
        strategy,
        strategy_options,
        workers,
        epochs,
        lr,
        lr_decay,
        lr_schedule,
        schedule_options,
        batch_size,
        update,
        update_options,
        loss,
        shuffle,
        validate,
        seed,
        pin,
        link,
        runner,
    ):
        if not isinstance(net, Network):
            raise TypeError(f"net must be a chaos.Network, not {type(net).__name__}")
        _known("strategy", strategy, STRATEGIES)
        _known("loss", loss, LOSSES)
        _known("update rule", update, UPDATES)
        _known("learning-rate schedule", lr_schedule, SCHEDULES)
        how, rule, schedule = STRATEGIES[strategy], UPDATES[update], SCHEDULES[lr_schedule]
        strategy_options, update_options = how.resolve(strategy_options), rule.resolve(update_options)
        schedule_options = schedule.resolve(schedule_options)
        how.check(strategy_options, update, update_options)
        check_number("epochs", epochs, 0, 1 << 31, whole=True)
        check_number("lr", lr, 0, above=True)
        check_number("lr_decay", lr_decay, 0, above=True)
        check_number("batch_size", batch_size, 1, 1 << 24, whole=True)
        check_number("seed", seed, 0, whole=True)
        self.plan = runner.workers(workers, "one by definition" if how.single else None, pin)
        if how.single and self.plan.workers != 1:
            raise ValueError(f"strategy {strategy!r} runs with one worker, not {self.plan.workers}")
        self.how, self.how_options = how, strategy_options
        self.rate_scale = how.rate_scale(strategy_options, self.plan.workers)
        schedule_options = schedule.settle(schedule_options, int(epochs))
        largest, when = schedule.largest(float(lr), float(lr_decay), max(int(epochs), 1), **schedule_options)
        largest *= self.rate_scale
        if not largest <= float(np.finfo(np.float32).max):
            raise ValueError(f"lr={lr!r} and lr_decay={lr_decay!r} lead to a learning rate of {largest:g} in epoch {when}")
        if largest < float(np.finfo(np.float32).tiny):
            raise ValueError(
                f"lr={lr!r} and lr_decay={lr_decay!r} lead to learning rates of at most {largest:g}, which the "
                "workers, who calculate in single precision, take for 0"
            )
        self.net, self.seed, self.shuffle, self.validate, self.link = net, int(seed), bool(shuffle), bool(validate), link
        self.strategy, self.epochs, self.lr, self.lr_decay = strategy, int(epochs), float(lr), float(lr_decay)
        self.rule, self.schedule, self.schedule_options = rule, schedule, schedule_options
        self.train_images, self.train_labels = _take(net, train, "train", loss)
        self.test_images, self.test_labels = (None, None) if test is None else _take(net, test, "test", loss)
        self.moments = aligned_zeros((rule.moments, net.plan.weight_size))
        rule.start(self.moments, update_options)
        self.engine = _core.Engine(
            net.plan,
            net.weights,
            workers=self.plan.workers,
            strategy=strategy,
            loss=loss,
            update=update,
            batch_size=int(batch_size),
            cpus=None if pin == "none" else self.plan.cpus,
            stripe_bytes=strategy_options["stripe_bytes"],
            moments=self.moments,
            strategy_options=how.core_options(strategy_options),
            max_staleness=strategy_options.get("max_staleness"),
            update_options=rule.core_options(rule.for_workers(update_options, self.plan.workers)),
        )
        # What has to agree for a run to be continued; the rest (epochs, workers, pin) may change.
        self.identity = {
            "strategy": strategy,
            "strategy_options": strategy_options,
            "update": update,
            "update_options": update_options,
            "lr": self.lr,
            "lr_decay": self.lr_decay,
            "lr_schedule": lr_schedule,
            "schedule_options": schedule_options,
            "batch_size": int(batch_size),
            "loss": loss,
            "shuffle": self.shuffle,
            "validate": self.validate,
            "seed": self.seed,
            "network": net.config(),
            "train": train.fingerprint(),
            "test": None if test is None else test.fingerprint(),
        }
        self.names = [name for _, name in net.nodes()]
        self.runner, self.evaluator = runner, runner.start(self)
        self.history = []
        self.partial = None  # counts of the unfinished epoch's training phase, None at an epoch's beginning

    def order(self, epoch):
        """The images of an epoch in the order in which they are picked."""
        n = len(self.train_labels)
        if not self.shuffle:
            return np.arange(n)
        return np.random.default_rng([self.seed, epoch]).permutation(n)

    def left(self, epoch, done):
        """(images in their order, where to begin): what an epoch still has to visit when `done` is counted."""
        order = self.order(epoch)
        if "visited" in done:
            return order[~_unpack(done["visited"], len(order))[order]], 0
        if self.link.size > 1:
            return order[done["position"] :], 0
        return order, done["position"]

    def run(self, store, display, caught):
        display.note(self.plan.describe())
        with ThreadPoolExecutor(1, "chaos") as pool:  # the team belongs to this thread and goes with it
            if self.history and len(self.history) >= self.epochs:
                n = len(self.history)
                display.note(
                    f"nothing to train: the run has {n} epoch{'s' if n != 1 else ''} already, epochs is {self.epochs}"
                )
            good, kept = self.net.weights.copy(), "the network has its initial weights"
            if self.partial or self.history:
                kept = "the network has the weights that the run was continued from"
            while len(self.history) < self.epochs:
                record = self.epoch(pool, display, caught)
                broken = record if isinstance(record, str) else self._broken()
                if broken:  # also when stopped: such a state could not be continued, and would replace one that can
                    self.link.leave()
                    self.net.weights[:] = good
                    if store and (store.folder / MODEL).exists():
                        kept += f", the last good checkpoint is {store.folder / MODEL}"
                    raise DivergedError(
                        f"diverged in epoch {len(self.history) + 1}{broken} "
                        f"(learning rate {self.rate(len(self.history) + 1):g}; try a smaller one); {kept}"
                    )
                if record is None:
                    if store:
                        store.save()
                    self._agree(caught)
                    self.link.leave()
                    where = self.partial["position"] if self.partial else 0
                    caught.leave(
                        f"stopped in epoch {len(self.history) + 1} after {where} of {len(self.train_labels)} "
                        f"images" + (f"; the state is in {store.folder}" if store else ""),
                        display,
                    )
                self.history.append(record)
                self.partial = None
                good, kept = self.net.weights.copy(), f"the network has the weights of epoch {len(self.history)}"
                if store:
                    store.save(record)
                display.epoch(record)
                if self._agree(caught):  # it came when the last phase was over
                    self.link.leave()
                    caught.leave(
                        f"stopped after epoch {len(self.history)}" + (f"; the state is in {store.folder}" if store else ""),
                        display,
                    )

    def _agree(self, caught):
        """The signal that any rank has caught, on all ranks."""
        caught.signal = next(filter(None, self.link.gather(caught.signal)), None)
        return caught.signal

    def _broken(self):
        """What is not finite on any rank, in words, the same on all; None: nothing."""
        mine = next(
            (
                f": {what} is not finite"
                for what, numbers in (("a weight", self.net.weights), ("a number of the update rule's state", self.moments))
                if not np.isfinite(numbers).all()
            ),
            None,
        )
        return next(filter(None, self.link.gather(mine)), None)

    def rate(self, epoch):
        return self.rate_scale * self.schedule.rate(self.lr, self.lr_decay, epoch, **self.schedule_options)

    def step_scale(self):
        """Factors of the learning rate by staleness, for the epoch under way."""
        seen = self.history[-1]["staleness"]["histogram"] if self.history else []
        return self.how.step_scale(self.how_options, self.plan.workers, seen)

    def state(self):
        """What is kept beside the weights, as tensors in the shapes of their parameters: the update rule's state, and what
        the exchange between ranks goes on with."""
        return self._rule_state() | {
            f"{EXCHANGE}{name}.{parameter}": value
            for name, vector in self.link.state().items()
            for parameter, value in self.net.unpack(vector).items()
        }

    def _rule_state(self):
        """The update rule's: moments, and how often each stripe of the weights has been updated; nothing if it has none."""
        if not self.rule.moments:
            return {}
        found = {
            f"{STATE}{name}.{parameter}": value
            for name, moment in zip(self.rule.state, self.moments, strict=True)
            for parameter, value in self.net.unpack(moment).items()
        }
        return found | {f"{STATE}versions": np.array(self.engine.versions(), np.int64)}

    def load_state(self, tensors):
        """Takes what `state` gave; ValueError where it does not fit."""
        exchange = {name.removeprefix(EXCHANGE): value for name, value in tensors.items() if name.startswith(EXCHANGE)}
        tensors = {name: value for name, value in tensors.items() if not name.startswith(EXCHANGE)}
        wanted = self._rule_state()
        if tensors.keys() != wanted.keys():
            raise ValueError(
                f"the update rule's state does not fit: missing {sorted(wanted.keys() - tensors.keys())}, "
                f"unknown {sorted(tensors.keys() - wanted.keys())}"
            )
        for name, value in wanted.items():
            if (
                tensors[name].shape != value.shape
                or tensors[name].dtype != value.dtype
                or not np.isfinite(tensors[name]).all()
            ):
                raise ValueError(f"{name} must be {value.dtype} of shape {value.shape}, and finite")
        if wanted:
            for name, moment in zip(self.rule.state, self.moments, strict=True):
                self.net.pack({p: tensors[f"{STATE}{name}.{p}"] for p in self.net.state_dict()}, moment)
            self.engine.versions(tensors[f"{STATE}versions"].astype(np.uint32))
        self.link.restore(self._vectors(exchange))

    def _vectors(self, tensors):
        """{"mode.name": vector laid out as the weights} of tensors {"mode.name.parameter": array}, checked."""
        shapes = {parameter: value.shape for parameter, value in self.net.state_dict().items()}
        found = {}
        for name, value in tensors.items():
            mode, _, rest = name.partition(".")
            vector, _, parameter = rest.partition(".")
            if value.shape != shapes.get(parameter) or value.dtype != np.float32 or not np.isfinite(value).all():
                raise ValueError(f"{EXCHANGE}{name} must belong to a parameter, and be float32 of its shape, and finite")
            found.setdefault(f"{mode}.{vector}", {})[parameter] = value
        for name, values in found.items():
            if values.keys() != shapes.keys():
                raise ValueError(f"{EXCHANGE}{name} lacks {sorted(shapes.keys() - values.keys())}")
            vector = np.zeros(self.net.plan.weight_size, np.float32)
            self.net.pack(values, vector)
            found[name] = vector
        return found

    def epoch(self, pool, display, caught):
        """Runs (the rest of) one epoch: its record, None when stopped, or the text of a divergence."""
        number, link = len(self.history) + 1, self.link
        done = self.partial or _counts()
        n = len(self.train_labels)
        results = None
        if done["position"] < n:
            images, begin = self.left(number, done)
            mine = link.shard(images, link.rank)
            display.begin(number, "train", n, done["position"])
            link.train_begins(number, len(images) - begin)
            result, seconds = self.runner.train(
                self,
                number,
                pool,
                caught,
                display,
                done["position"] - begin,
                **self.train_images,
                labels=self.train_labels,
                order=mine,
                begin=begin,
                lr=self.rate(number),
                step_scale=self.step_scale(),
            )
            results = link.gather(result | {"seconds": seconds, "workers": self.plan.workers})
            result = _merged(results)
            if result["status"] == "diverged":
                return f" after {done['images'] + result['images']} of {n} images: the loss is not finite"
            result["layers"] = {self.names[node]: counts for node, counts in result["layers"].items()}
            self.partial = done = _counts(done, result, result["seconds"])
            if result["status"] == "stopped":
                if len(images) < n or link.size > 1:  # then the position alone does not tell which images are left
                    visited = np.ones(n, bool)
                    visited[images] = False
                    for rank, one in enumerate(results):
                        visited[link.shard(images, rank)[: one["position"]]] = True
                    done |= {"visited": _pack(visited), "position": int(visited.sum())}
                return None
            done["position"] = n
        record = {
            "epoch": number,
            "lr": self.rate(number),
            "train_loss": done["loss"] / n,
            "train_error": done["errors"] / n,
        }
        phases = [("validation", self.train_images, self.train_labels)] if self.validate else []
        phases += [("test", self.test_images, self.test_labels)] if self.test_images else []
        evaluating = 0.0
        for name, images, labels in phases:
            display.begin(number, name, len(labels))
            begin, end = link.part(len(labels))
            result, _ = _phase(
                pool, self.evaluator, caught, display, "test", link, -begin, **images, labels=labels, begin=begin, end=end
            )
            result = _merged(link.gather(result))
            if result["status"] == "diverged":
                return f" in the {name} phase: the loss is not finite"
            if result["status"] == "stopped":
                return None
            record |= {f"{name}_loss": result["loss"] / len(labels), f"{name}_error": result["errors"] / len(labels)}
            evaluating += result["time"]["total"]
        if not self.test_images:
            record |= {"test_loss": None, "test_error": None}
        return (
            record
            | {
                "seconds": done["seconds"],
                "images_per_second": n / done["seconds"],
                "workers": sum(one["workers"] for one in results) if results else self.plan.workers,
                "strategy": self.strategy,
                "updates": done["updates"],
                "lock_failures": done["lock_failures"],
                "dropped": done["dropped"],
                "staleness": _staleness(done),
                "layers": {name: _layer(counts) for name, counts in done["layers"].items()},
                "worker_images": done["worker_images"],
                "time_split": _split(done["time"], evaluating),
            }
            | link.report(results)
            | self.runner.report()
        )


def _merged(results):
    """The results of all ranks as one."""
    merged, *others = results
    for one in others:
        merged = {key: _across(key, merged[key], one[key]) for key in merged}
    return merged


def _across(key, a, b):
    if key == "status":
        return min(a, b, key=["diverged", "stopped", "done"].index)
    if key == "failed_at":
        return b if a is None else a
    if key == "worker_images":  # every rank has workers of its own
        return a + b
    return max(a, b) if key == "seconds" else together(key, a, b)


def _pack(flags):
    """An array of bools as text."""
    return base64.b64encode(np.packbits(flags).tobytes()).decode()


def _unpack(text, n):
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n).astype(bool)


def _counts(before=None, result=None, seconds=0.0):
    """The counts of a training phase, which may have been run in several pieces."""
    if before is None:
        return {
            "position": 0,
            "images": 0,
            "errors": 0,
            "loss": 0.0,
            "seconds": 0.0,
            "updates": 0,
            "lock_failures": 0,
            "dropped": 0,
            "staleness_sum": 0,
            "staleness_max": 0,
            "staleness": [],
            "layers": {},
            "worker_images": [],
            "time": {},
        }
    counted = {
        key: together(key, before[key], result[key]) for key in before if key not in ("position", "seconds", "visited")
    }
    return counted | {"position": result["position"], "seconds": before["seconds"] + seconds}


def together(key, a, b):
    """Two pieces' counts of one thing: added, element by element in lists and dicts; of a maximum the larger."""
    if isinstance(a, list):
        return [x + y for x, y in zip_longest(a, b, fillvalue=0)]
    if isinstance(a, dict):
        return {k: together(k, a[k], b[k]) if k in a and k in b else a.get(k, b.get(k)) for k in a | b}
    return max(a, b) if key == "staleness_max" else a + b


# ---- telemetry ----


def _staleness(counts):
    """Of updates: how many others have updated the same weights between reading and writing them. histogram[i] updates had
    staleness i, the last of 512 counts all from there on; p50 and p99 are read off it, so 511 may mean more."""
    updates, histogram = sum(counts["staleness"]), counts["staleness"]
    below = np.cumsum(histogram)
    p50, p99 = (int(np.searchsorted(below, q * updates)) if updates else 0 for q in (0.5, 0.99))
    return {
        "mean": counts["staleness_sum"] / max(updates, 1),
        "p50": p50,
        "p99": p99,
        "max": counts["staleness_max"],
        "histogram": histogram,
    }


def _layer(counts):
    """The record of one layer. pending_seconds: between postponing a stripe and publishing it, summed. lost_estimate: pairs
    of updates that were under way in one stripe at the same time; of each pair, each weight keeps at least one, so it bounds
    from above how many stripe updates' worth is lost. 0 where writers exclude each other."""
    return {
        "staleness": _staleness(counts),
        "updates": counts["updates"],
        "lock_failures": counts["lock_failures"],
        "pending_seconds": counts["pending_seconds"],
        "lost_estimate": counts["overlaps"],
    }


def _split(train, evaluating):
    """Shares of the workers' time in an epoch's phases. wait and evaluate are measured throughout; forward, backward and
    publish (the strategy's own work, and picking) are told apart in every 16th step of each worker, that is, sampled."""
    parts = {name: max(train[name], 0.0) for name in ("forward", "backward", "publish", "wait")} | {"evaluate": evaluating}
    total = sum(parts.values())
    return {name: seconds / total if total else 0.0 for name, seconds in parts.items()}


def _phase(pool, engine, caught, display, what, link, ahead=0, **arguments):
    """Runs a phase in the pool's thread while this one looks after signals, progress and the other ranks: (result,
    seconds). The bar shows the position, times the number of ranks, plus `ahead`."""
    if caught.signal:
        engine.stop()
    start = time.perf_counter()
    future = pool.submit(engine.run, what, **arguments)
    try:
        while not link.watch(future, POLL):
            if caught.signal or link.halted:
                engine.stop()
            if display:
                display.at(ahead + link.position(engine))
        result = future.result()
    except BaseException:  # an exception from a signal handler that is not ours: the workers must not outlive it
        engine.stop()
        while not future.done():
            with suppress(BaseException):  # nor a second one
                future.exception()
        engine.clear()
        raise
    engine.clear()
    return result, time.perf_counter() - start


class _Caught:
    """The signal that asked the training to stop, if any."""

    signal = None

    def leave(self, message="stopped", display=None):
        if display:
            display.note(message)
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message)


@contextmanager
def _signals():
    """Turns Ctrl-C and SIGTERM into a note while workers run. Handlers that the caller has put in place stay, as do all
    handlers outside the main thread."""
    caught = _Caught()
    replaced = {}

    def note(number, frame):
        caught.signal = number

    try:
        if threading.current_thread() is threading.main_thread():
            for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) is default:
                    replaced[number] = signal.signal(number, note)
        yield caught
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


# ---- the run directory ----

# not shown: layers, fingerprints
_LARGE = {"network": "network", "train": "train (other training images)", "test": "test (other test images)"}


def _differences(there, now):
    """What is another in two identities, in words; options one by one."""
    found = []
    for key, value in now.items():
        before = there.get(key)
        if before == value:
            continue
        if key.endswith("_options") and isinstance(before, dict):
            owner = {"schedule_options": "lr_schedule"}.get(key, key.removesuffix("_options"))
            if there.get(owner) == now[owner]:  # else they are another's, which is said already
                found += [
                    f"{key} {name} ({before.get(name)!r} there, {value.get(name)!r} now)"
                    for name in dict.fromkeys([*before, *value])
                    if before.get(name) != value.get(name)
                ]
        else:
            found.append(_LARGE[key] if key in _LARGE else f"{key} ({before!r} there, {value!r} now)")
    return found


class _Store:
    """The run directory of a job. model.safetensors holds weights and training state in one file, so they always agree;
    metrics.jsonl is written before it and cut back to it when a run is continued."""

    def __init__(self, folder, job, resume, extra):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"run_dir must be the path of a directory, not {folder!r}")
        self.folder, self.job, self.resume, self.extra = Path(folder), job, resume, extra

    def open(self):
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"run directory {self.folder} is a file")
        held = [name for name in (MODEL, METRICS) if (self.folder / name).exists() and (self.folder / name).stat().st_size]
        if held and not self.resume:
            raise CheckpointError(
                f"run directory {self.folder} already holds a run ({', '.join(held)}); "
                "continue it with resume, or name another directory"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"run directory {self.folder} cannot be made: {error.strerror}") from None
        if self.resume and (self.folder / MODEL).exists():
            self.restore()
        job = self.job
        write_atomically(
            self.folder / CONFIG,
            json.dumps(
                {
                    **self.extra,
                    **job.identity,
                    "epochs": job.epochs,
                    "workers": job.plan.workers,
                    "pin": job.plan.pin,
                    "workers_limit": job.plan.describe(),
                    "chaos": __version__,
                    "isa": job.net.plan.isa,
                    "winograd": _core.get_winograd(),
                    "build": _core.BUILD_INFO,
                    "python": platform.python_version(),
                    "machine": platform.node(),
                },
                indent=2,
            ).encode()
            + b"\n",
        )
        self.write_metrics()

    def restore(self):
        path, job = self.folder / MODEL, self.job
        net, metadata, tensors = load_with_state(path)
        try:
            state = json.loads(metadata["training"])
            identity, history, partial = state["identity"], state["history"], state["partial"]
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: holds no training state ({type(error).__name__} {error})") from None
        # what an earlier version did not know had its default then
        kind = "virtual workers" if any("virtual" in record for record in history) else Threads.kind
        kind = state.get("runner", kind if history else job.runner.kind)
        if kind != job.runner.kind:
            raise CheckpointError(f"{path}: is the state of a run of {kind}; it cannot be continued with {job.runner.kind}")
        identity = {"lr_schedule": "exponential", "schedule_options": {"warmup": 0}} | identity
        for key, table in (("strategy", STRATEGIES), ("update", UPDATES)):
            options = f"{key}_options"
            if identity.get(key) in table:
                identity[options] = table[identity[key]].resolve({}) | identity.get(options, {})
        differ = _differences(identity, job.identity)
        if differ:
            raise CheckpointError(f"{path}: is the state of another run; different: {', '.join(differ)}")
        try:
            job.load_state(tensors)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None
        job.net.load_state_dict(net.state_dict())
        job.history, job.partial = history, partial

    def save(self, record=None):
        if record:
            self.write_metrics()
        state = {
            "identity": self.job.identity,
            "history": self.job.history,
            "partial": self.job.partial,
            "runner": self.job.runner.kind,
        }
        self.job.net.save(self.folder / MODEL, {"training": json.dumps(state)}, self.job.state())

    def write_metrics(self):
        lines = "".join(json.dumps(record) + "\n" for record in self.job.history)
        write_atomically(self.folder / METRICS, lines.encode())
