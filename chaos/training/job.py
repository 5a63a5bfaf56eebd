"""A training under way: what it was asked for, how far it has come, and its epochs. For chaos.training, chaos.virtual and
chaos.cluster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .. import _core, augment, groups
from ..arrays import aligned_zeros
from ..data import Dataset
from ..errors import DivergedError
from ..hints import no_network
from ..losses import CLASS, VALUES
from ..network import Network, run_key
from ..streams import LOG, tell
from ..sync import STRATEGIES
from ..threads import Plan
from ..updates import SCHEDULES, UPDATES
from ..updates.base import patterns, scales
from . import checks, metrics, monitor, parts, phases, records
from .callbacks import Event, Listeners
from .link import Alone
from .planning import Planning
from .records import Record, Result
from .runner import Threads
from .settings import Settings
from .signals import FAILED, STOPPED, Caught
from .state import State
from .store import MODEL, Store

CUTS = 10  # of the learning rate, one after the other without an epoch that went well, until a training is given up


class Job:
    """A training under way.

    Attributes
    ----------
    settings : Settings
        Resolved.
    identity : dict
        What has to agree for a run to be continued; the rest (epochs, workers, pin) may change.
    plan : threads.Plan
    history : list of dict
        The records of the finished epochs.
    partial : dict or None
        Counts of the unfinished epoch's training phase, None at an epoch's beginning.
    stopped : bool
        A callback has ended the training.
    doubt : str or None
        Why the last epoch's numbers, though finite, are no training, in words.
    options : dict
        Of the strategy, of the epoch under way.
    monitor : Monitor or None
        What tells the best epoch; `best` are that epoch's weights, None where there is none, or they are lost.
    lr_cut : float
        Factor of the learning rate, because the training has diverged and was taken back.
    """

    def __init__(
        self,
        net: Network,
        train: Any,
        test: Any,
        settings: Settings,
        *,
        validation: Any = None,
        link: Alone,
        runner: Threads,
    ) -> None:
        if not isinstance(net, Network):
            raise TypeError(no_network(net))
        self.settings = settings = settings.resolved()
        net.precision = settings.precision
        strategy: Any = STRATEGIES[settings.strategy]
        rule: Any = UPDATES[settings.update]
        schedule: Any = SCHEDULES[settings.lr_schedule]
        self.strategy, self.rule, self.schedule = strategy, rule, schedule
        self.plan = runner.workers(settings.workers, "one by definition" if strategy.single else None, settings.pin)
        if strategy.single and self.plan.workers != 1:
            raise ValueError(f"strategy {settings.strategy!r} runs with one worker, not {self.plan.workers}")
        self.settings = settings = self._settled(settings, net, runner)
        self.options = dict(settings.strategy_options or {})
        self.rate_scale: float = strategy.rate_scale(settings.strategy_options, self.plan.workers)
        self.net, self.link = net, link
        checks.check_rates(self)
        loss, options = self.settings.loss, self.settings.loss_options
        self.history: list[Record] = []
        self.training = phases.take(net, train, "train", loss, weighted=True, loss_options=options)
        scales = self.training.scales
        self.class_names = train.class_names
        self.test, self.validation = (
            None if data is None else phases.take(net, data, name, loss, scales, loss_options=options)
            for name, data in (("test", test), ("validation_data", validation))
        )
        for name, data in (("test", test), ("validation_data", validation)):
            if data is not None:
                phases.check_names(train.class_names, data, name)
        self._hold_out()
        self.augment = augment.steps(settings.augment)
        if self.augment:
            self._check_augment(train)
        checks.check_whole_batches(self)
        checks.warn_of_functions(self)
        self._measure_what()
        self.moments = aligned_zeros((rule.moments, net.plan.weight_size))
        rule.start(self.moments, settings.update_options)
        self.engine = self._make_engine()
        if net.frozen and not any(map(self.engine.trains, range(len(net.nodes())))):
            raise ValueError("all parameters of the network are frozen: there is nothing to train; see net.unfreeze")
        self._sets = {"train": train, "validation": validation, "test": test}
        self.names = [name for _, name in net.nodes()]
        self.runner, self.evaluator = runner, runner.start(self)
        self.partial: Result | None = None
        self.stopped = False
        self.doubt: str | None = None
        self.best: NDArray[np.float32] | None = None
        self.lr_cut = 1.0
        if settings.plan != "off" and (link.size > 1 or type(runner) is not Threads or strategy.single):
            raise ValueError(
                f"plan={settings.plan!r} is for one process with a Dataset and real workers, whose order is not recorded, "
                "and a strategy that allows several"
            )
        self.planning = Planning(settings.plan, self) if settings.plan != "off" else None
        self.decided: Record | None = None
        self._store: Store | None = None
        self._kept_at, self._begun, self._resting, self._steered = time.monotonic(), 0, False, -1
        if settings.on_diverge == "rollback" and (link.size > 1 or not runner.pauses):
            raise ValueError("on_diverge='rollback' is for one process with real workers whose order is not recorded")

    def _settled(self, settings: Settings, net: Network, runner: Threads) -> Settings:
        """The settings with numbers where the strategy's options are words; workers may have to be elsewhere for it."""

        def near(measured: bool) -> int:
            self.plan, size = runner.grouped(self.plan, measured)
            return size

        options = self.strategy.settle(settings.strategy_options, self.plan.workers, net.plan.weight_size, near)
        return dataclasses.replace(settings, pin=self.plan.pin, strategy_options=options)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Made where it is asked for: fingerprints read all images, which costs a short training much of its time."""
        prints = {name: None if data is None else data.fingerprint() for name, data in self._sets.items()}
        return self.settings.identity() | {"network": self.net.config()} | prints

    def _hold_out(self) -> None:
        """The validation set, where a part of the training images is one, and the weights of the others."""
        asked, data, judged = self.settings, self.training, self.training.judged
        if not asked.validation_split and asked.class_weight is None:
            return
        labels = data.targets[:, 0] if judged.form == CLASS else None
        if asked.validation_split:
            if self.validation is not None:
                raise ValueError("validation_data and validation_split are two validation sets; give one of them")
            stay, held = parts.split(labels, data.count, asked.validation_split, asked.seed)
            self.training, self.validation = data.part(stay), data.part(held).weighted(None)
        if asked.class_weight is not None:
            images, weights = self.training.images, data.arguments["weights"]
            self.training = self.training.weighted(
                parts.image_weights(asked.class_weight, labels, images, judged.classes, weights)
            )

    def _measure_what(self) -> None:
        """The phases after training, metrics, and what tells the best epoch; ValueError where they do not fit together."""
        asked = self.settings
        self.metrics = metrics.resolve(asked.metrics)
        self.evaluated = {"train_eval": self.training.weighted(None)} if asked.evaluate_train else {}
        self.evaluated |= {
            name: data for name, data in (("validation", self.validation), ("test", self.test)) if data is not None
        }
        for one in self.metrics:
            for data in self.evaluated.values():
                one.check(data.judged.form, data.judged.loss)
        larger: dict[str, bool] = {}
        for name, data in ({"train": self._trained()} | self.evaluated).items():
            larger |= {f"{name}_loss": False} | ({f"{name}_error": False} if data.answers else {})
        own = [(f"{name}_{one.name}", one.larger) for name in self.evaluated for one in self.metrics if one.scalar]
        larger |= {key: better for key, better in own if better is not None}
        self.monitor = monitor.choose(
            asked.monitor,
            asked.monitor_mode,
            list(dict.fromkeys([*larger, *(key for key, _ in own)])),
            larger,
            self.validation is not None,
            min_delta=asked.min_delta,
            patience=asked.patience,
            needed="patience"
            if asked.patience
            else "restore_best"
            if asked.restore_best
            else f"lr_schedule {asked.lr_schedule!r}"
            if self.schedule.adapts
            else None,
        )
        self._catch_up()

    def take_history(self, history: list[Record], partial: Result | None) -> None:
        """The records of a run that is continued, and the counts of its unfinished epoch."""
        self.history, self.partial = history, partial
        self._catch_up()

    def _catch_up(self) -> None:
        """What the records tell of the best epoch, and of when to change the learning rate."""
        asked = self.settings
        self.plateau = (
            self.schedule.follow(asked.lr, asked.lr_decay, asked.schedule_options) if self.schedule.adapts else None
        )
        if self.monitor:
            self.monitor.replay(())
            for record in self.history:
                self._note(record)

    def _note(self, record: Record) -> None:
        """An epoch is over."""
        if self.monitor:
            self.monitor.note(record)
            if self.plateau:
                self.plateau.note(self.monitor.value(record))

    def _check_augment(self, train: Any) -> None:
        """ValueError where the steps of augmentation do not go with the network, the targets and the loss."""
        labels, net, targets = train.labels if isinstance(train, Dataset) else train.first.labels, self.net, []
        mixing = next((step for step in self.augment if isinstance(step, augment.Mix)), None)
        if mixing and not isinstance(train, Dataset):
            raise ValueError(f"{mixing} mixes any two images, and a chaos.data.Stream shows each once; give a Dataset")
        if mixing and getattr(self.settings, "validation_split", None):
            raise ValueError(f"{mixing} mixes any two images, also those that validation_split holds out; split before")
        terms = net.loss_terms(self.settings.loss, self.settings.loss_options)
        arrays = labels if isinstance(labels, (tuple, list)) else [labels] * len(terms)
        for term, y in zip(terms, arrays, strict=True):
            shape = net.output_shapes[term.output]
            form = term.loss.form(shape, y.shape[1:], y.dtype.kind in "iu")
            targets.append(augment.Target(term.loss.kind, term.loss.targets, term.options, form, shape))
        augment.check(self.augment, net.input_shapes, targets)

    def _trained(self) -> phases.Taken:
        """The training images as they are trained on: mixed classes may not be right or wrong to the loss."""
        if not any(isinstance(step, augment.Mix) for step in self.augment):
            return self.training
        terms = self.net.loss_terms(self.settings.loss, self.settings.loss_options)
        answers = (term.loss.answers(VALUES, self.net.output_shapes[term.output]) for term in terms)
        return dataclasses.replace(self.training, answers=self.training.count * next(filter(None, answers), 0))

    def _make_engine(self) -> _core.Engine:
        return self.make_engine(self.plan, self.options, self.net.weights, self.moments)

    def make_engine(
        self, plan: Plan, options: Mapping[str, Any], weights: NDArray[np.float32], moments: NDArray[np.float32]
    ) -> _core.Engine:
        """An engine for workers and options of the strategy that need not be those of the settings."""
        asked, workers = self.settings, plan.workers
        kinds, class_of = self._classes()
        return _core.Engine(
            self.net.plan,
            weights,
            workers=workers,
            strategy=asked.strategy,
            loss=self.net.core_loss(asked.loss, asked.loss_options),
            update=asked.update,
            batch_size=asked.images_per_update,
            cpus=None if plan.pin == "none" else plan.cpus,
            stripe_bytes=options["stripe_bytes"],
            moments=moments,
            strategy_options=self.strategy.core_options(dict(options)),
            max_staleness=options.get("max_staleness"),
            update_options=self.rule.core_options(self.rule.for_workers(asked.update_options, workers)),
            classes=kinds,
            class_of=class_of,
            augment=[step.core() for step in self.augment],
        )

    def _classes(self) -> tuple[groups.Classes, NDArray[np.uint8] | None]:
        """Parameters for which the update rule has something special; ValueError where a pattern fits none."""
        asked = self.settings.update_options or {}
        no_decay, scale = asked["no_decay"], asked["lr_scale"]
        return groups.classes(
            self.net.trained_places(),
            self.net.plan.weight_size,
            patterns("no_decay", no_decay) if no_decay else (),
            scales("lr_scale", scale) if scale else (),
        )

    # ---- what an epoch is ----

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The images of an epoch in the order in which they are picked."""
        n = self.training.count
        if not self.settings.shuffle:
            return self.training.chosen(np.arange(n))
        return self.training.chosen(np.random.default_rng([self.settings.seed, epoch]).permutation(n))

    def left(self, epoch: int, done: Result) -> tuple[NDArray[np.int64], int]:
        """(images in their order, where to begin): what an epoch still has to visit when `done` is counted."""
        order = self.order(epoch)
        if "visited" in done:
            return order[~records.unpack(done["visited"], self.training.total)[order]], 0
        if self.link.size > 1:
            return order[done["position"] :], 0
        return order, done["position"]

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch: the next one where monitored values decide about it."""
        asked = self.settings
        factor = self.plateau.factor if self.plateau else 1.0
        rate: float = self.schedule.rate(asked.lr, asked.lr_decay, epoch, factor=factor, **self.schedule_options())
        return self.lr_cut * self.rate_scale * rate

    def schedule_options(self) -> dict[str, Any]:
        """With what follows from the number of epochs."""
        settled: dict[str, Any] = self.schedule.settle(self.settings.schedule_options or {}, self.settings.epochs)
        return settled

    def step_scale(self) -> NDArray[np.float32] | None:
        """Factors of the learning rate by staleness, for the epoch under way."""
        seen = self.history[-1]["staleness"]["histogram"] if self.history else []
        factors: NDArray[np.float32] | None = self.strategy.step_scale(
            self.settings.strategy_options, self.plan.workers, seen
        )
        return factors

    # ---- the training ----

    def run(self, store: Store | None, listeners: Listeners, caught: Caught) -> None:
        """Runs the epochs that are left."""
        ending = None
        self._steer()
        self._store, self._kept_at, caught.rests = store, time.monotonic(), self._rests
        try:
            self._tell(listeners, "train_begin", self._event(caught))
            with ThreadPoolExecutor(1, "chaos") as pool:  # the team belongs to this thread and goes with it
                ending = self._epochs(pool, store, listeners, caught)
            if ending and caught.signal:
                caught.leave(ending)
        except BaseException as error:
            listeners.end(self._event(caught, ending), error)
            raise
        self._tell(listeners, "train_end", self._event(caught, ending))

    def _epochs(self, pool: ThreadPoolExecutor, store: Store | None, listeners: Listeners, caught: Caught) -> str | None:
        """The text of an early end, on all ranks, None: all epochs are done. Caught tells whether it is a signal's.

        The watch for divergence is no callback: all ranks take part in it, it changes the weights, and no callback is to
        hear of an epoch that it throws away."""
        good, kept = self._good(), "the network has its initial weights"
        if self.partial or self.history:
            kept = "the network has the weights that the run was continued from"
        state = f"; the state is in {store.folder}" if store else "; the network's history has the finished epochs"
        self.net.history = self.history
        self._catch_up()
        self._tell_new_curve()
        self.best = self.link.gather(self.best if self.link.rank == 0 else None)[0] if self.monitor else None
        ended, cuts = None, 0
        while len(self.history) < self.settings.epochs and not (ended := self._ends()):
            self._steer()
            self._tell(listeners, "epoch_begin", self._event(caught, ahead=1))
            record = self.epoch(pool, listeners, caught)
            broken = record if isinstance(record, str) else self._broken()
            if broken:  # also when stopped: such a state could not be continued, and would replace one that can
                if self.settings.on_diverge == "rollback" and cuts < CUTS and not caught.signal:
                    cuts += 1
                    self._roll_back(broken, good)
                    continue
                self.link.leave()
                self.net.weights[:] = good[0].weights
                self._diverged(broken, kept, store)
            if record is None:
                self._agree(caught)
                if store:
                    store.save(last=True)
                self._leave(caught)
                where = self.partial["position"] if self.partial else 0
                return f"stopped in epoch {len(self.history) + 1} after {where} of {self.training.count} images{state}"
            assert isinstance(record, dict)
            self.history.append(record)
            self._note(record)
            self._doubt(record)
            self.partial = None
            good, kept = self._good(), f"the network has the weights of epoch {len(self.history)}"
            cuts, last = 0, len(self.history) == self.settings.epochs or self._ends() is not None
            if store:
                store.save(last)
                self._kept_at = time.monotonic()
            if self.best_epoch == len(self.history):
                self.best = good[0].weights
            if store:
                store.save_best(last)
            self._tell(listeners, "epoch_end", self._event(caught), record)
            if self._agree(caught):  # it came when the last phase was over
                self._leave(caught)
                return f"stopped after epoch {len(self.history)}{state}"
        if self.settings.restore_best and self.best is not None:
            self.net.weights[:] = self.best
        return ended

    def _steer(self) -> None:
        """Takes what the plan says about the epoch to come, which has an engine of its own where that is something else."""
        if self.planning is None or len(self.history) >= self.settings.epochs or self._steered == len(self.history):
            return
        self._steered = len(self.history)
        one, why = self.planning.next(self)
        before, self.decided = self.decided, dict(one)
        plan = self.planning.plan_of(one)
        options = self.options | {name: one[name] for name in ("group", "period") if name in one}
        if plan.workers != self.plan.workers or plan.cpus != self.plan.cpus or options != self.options:
            versions = np.array(self.engine.versions(), np.uint32)
            self.plan, self.options = plan, options
            self.rate_scale = self.strategy.rate_scale(options, plan.workers)
            self.engine = self._make_engine()
            self.engine.versions(versions)
            self.evaluator = self.runner.start(self)
        if before is None:
            self.plan = dataclasses.replace(self.plan, groups=f"plan: {why}" if why else "")
        elif why and self.settings.progress and before != self.decided:
            tell(f"chaos: plan: {why}")

    def _doubt(self, record: Record) -> None:
        """Tells once where the numbers are finite and yet no training."""
        before, self.doubt = self.doubt, checks.absurd(self, record)
        if self.doubt and not before and self.link.rank == 0:
            LOG.warning("%s", self.doubt)

    def _tell_new_curve(self) -> None:
        """A run that is continued to another number of epochs, which its schedule spans, has another learning rate from here
        on than it would have had."""
        asked, done = self.settings.schedule_options or {}, len(self.history)
        if not done or done >= self.settings.epochs or self.link.rank or self.schedule_options() == asked:
            return
        was, now = self.history[-1]["lr"], self.rate(done)
        if not np.isclose(was, now, rtol=1e-6, atol=0):
            LOG.warning(
                "lr_schedule %r spans all epochs, now %d: the learning rate of epoch %d was %.4g and would have been %.4g; "
                "epoch %d goes on with %.4g",
                *(self.settings.lr_schedule, self.settings.epochs, done, was, now, done + 1, self.rate(done + 1)),
            )

    @property
    def best_epoch(self) -> int | None:
        """The number of the best epoch so far, None where nothing tells."""
        return self.monitor.best_epoch if self.monitor else None

    def _ends(self) -> str | None:
        """Why it is time to end, None: it goes on. Never in the middle of an epoch."""
        return self.monitor.ends() if self.monitor and not self.partial else None

    # ---- keeping the state ----

    def _rests(self) -> bool:
        """Whether the training phase under way is to be cut, so that its state can be kept: it is time, and nothing but time
        comes of it. Where strategies with several workers have the same bits again, but not when they are interrupted, and
        in jobs of several processes, the state is kept after epochs only."""
        store, every = self._store, self.settings.checkpoint_every
        if self._resting or store is None or not every or time.monotonic() - self._kept_at < every or store.busy:
            return self._resting
        changes = self.strategy.deterministic and self.plan.workers > 1 and not self.strategy.any_workers
        moved = self.engine.position > self._begun  # else nothing might ever be trained
        self._resting = moved and self.link.size == 1 and self.runner.pauses and not changes
        return self._resting

    def _good(self) -> tuple[State, Result | None]:
        """What the training goes back to when it diverges: the state, and the counts of the epoch under way."""
        return State.of(self, moments=self.settings.on_diverge == "rollback"), self.partial

    def _roll_back(self, broken: str, good: tuple[State, Result | None]) -> None:
        """Goes back to a good state with half the learning rate; in an engine of its own, where no worker remembers."""
        self.lr_cut /= 2
        self.engine = self._make_engine()
        state, self.partial = good
        state.give(self)
        self.evaluator = self.runner.start(self)
        epoch = len(self.history) + 1
        tell(
            f"chaos: diverged in epoch {epoch}{broken}; the training goes back to its state of epoch {len(self.history)}, "
            f"with a learning rate of {self.rate(epoch):g}"
        )

    def _event(self, caught: Caught, ending: str | None = None, ahead: int = 0) -> Event:
        return Event(self, caught, len(self.history) + ahead, ending=ending)

    def _tell(self, listeners: Listeners, name: str, event: Event, *more: Any) -> None:
        """Calls a method of all callbacks, on all ranks; where one fails on any rank, all raise."""
        self.link.checked(partial(listeners.tell, name, event, *more))

    def _agree(self, caught: Caught) -> int | None:
        """What any rank has caught, on all ranks; where it is the failure of a callback, all raise."""
        caught.signal = min(filter(None, self.link.gather(caught.signal)), default=None)
        if caught.signal == FAILED:
            self.link.checked(caught.raise_error)
        return caught.signal

    def _leave(self, caught: Caught) -> None:
        """The ranks end early, with an exception or, where a callback has asked for it, without."""
        self.stopped = caught.signal == STOPPED
        if not self.stopped:
            self.link.leave()

    def _broken(self) -> str | None:
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

    def _diverged(self, broken: str, kept: str, store: Store | None) -> NoReturn:
        if store and (store.folder / MODEL).exists():
            kept += f", the last good checkpoint is {store.folder / MODEL}"
        epoch = len(self.history) + 1
        raise DivergedError(
            f"diverged in epoch {epoch}{broken} (learning rate {self.rate(epoch):g}; try a smaller one); {kept}"
        )

    # ---- one epoch ----

    def epoch(self, pool: ThreadPoolExecutor, listeners: Listeners, caught: Caught) -> Record | str | None:
        """Runs (the rest of) one epoch: its record, None when stopped, or the text of a divergence."""
        number, n, results = len(self.history) + 1, self.training.count, None
        while (before := (self.partial or records.no_counts())["position"]) < n:
            results, status = self._train(number, pool, listeners, caught)
            if status == "stopped" and self._store and self._resting and not caught.signal:
                if broken := self._broken():
                    return broken
                if self.partial is None or self.partial["position"] == before:
                    continue
                self._store.save_beside()
                self._kept_at = time.monotonic()
            elif status != "done":
                return None if status == "stopped" else status
        done = self.partial or records.no_counts()
        evaluated = self._evaluate(pool, listeners, caught)
        if not isinstance(evaluated, tuple):
            return evaluated
        losses, evaluating = evaluated
        return (
            {"epoch": number, "lr": self.rate(number)}
            | self._trained().results("train", done)
            | losses
            | {
                "seconds": done["seconds"],
                "images_per_second": n / done["seconds"],
                "workers": sum(one["workers"] for one in results) if results else self.plan.workers,
                "strategy": self.settings.strategy,
                "updates": done["updates"],
                "lock_failures": done["lock_failures"],
                "dropped": done["dropped"],
                "staleness": records.staleness(done),
                "layers": {name: records.layer(counted) for name, counted in done["layers"].items()},
                "worker_images": done["worker_images"],
                "time_split": records.time_split(done["time"], evaluating),
            }
            | ({"plan": self.decided} if self.decided else {})
            | self.link.report(results)
            | self.runner.report()
        )

    def _train(
        self, number: int, pool: ThreadPoolExecutor, listeners: Listeners, caught: Caught
    ) -> tuple[list[Result], str]:
        """(The rest of) the training phase, which it counts: the results of all ranks, and "done", "stopped", or the text of
        a divergence."""
        link, n = self.link, self.training.count
        done = self.partial or records.no_counts()
        images, begin = self.left(number, done)
        self._begun, self._resting = begin, False
        self.net.trained_on = self.training.scales
        self.net.class_names = self.class_names or self.net.class_names
        listeners.begin(self, "train", n, done["position"])
        link.train_begins(number, len(images) - begin)
        result, seconds = self.runner.train(
            self,
            number,
            pool,
            caught,
            listeners,
            done["position"] - begin,
            **self.training.arguments,
            key=run_key(self.settings.seed, number),
            order=link.shard(images, link.rank),
            begin=begin,
            lr=self.rate(number),
            step_scale=self.step_scale(),
        )
        results = link.gather(result | {"seconds": seconds, "workers": self.plan.workers})
        result = records.merged(results)
        if result["status"] == "diverged":
            return results, f" after {done['images'] + result['images']} of {n} images: the loss is not finite"
        result["layers"] = {self.names[node]: counted for node, counted in result["layers"].items()}
        self.partial = done = records.counts(done, result, result["seconds"])
        if result["status"] != "stopped":
            done["position"] = n
        elif len(images) < n or link.size > 1:  # then the position alone does not tell which images are left
            visited = np.ones(self.training.total, bool)
            visited[images] = False
            for rank, one in enumerate(results):
                visited[link.shard(images, rank)[: one["position"]]] = True
            done |= {"visited": records.pack(visited), "position": n - int((~visited).sum())}
        return results, result["status"]

    def _evaluate(self, pool: ThreadPoolExecutor, listeners: Listeners, caught: Caught) -> tuple[Record, float] | str | None:
        """The phases after training: (losses and errors, the workers' time), None when stopped, or the text of a
        divergence."""
        found: Record = {}
        evaluating = 0.0
        for name, taken in self.evaluated.items():
            n = taken.count
            listeners.begin(self, name, n, 0)
            begin, end = self.link.part(n)
            outputs = np.zeros((n, phases.outputs_of(self.net)), np.float32) if self.metrics else None
            result, _ = phases.run_phase(
                pool,
                self.evaluator,
                caught,
                listeners,
                "test",
                self.link,
                -begin,
                **taken.arguments,
                order=taken.images,
                begin=begin,
                end=end,
                out=outputs,
            )
            result = records.merged(self.link.gather(result))
            if result["status"] == "diverged":
                return f" in the {name} phase: the loss is not finite"
            if result["status"] == "stopped":
                return None
            found |= taken.results(name, result) | self._measured(name, taken, outputs)
            evaluating += result["time"]["total"]
        if self.test is None:
            found |= {"test_loss": None, "test_error": None}
        return found, evaluating

    def _measured(self, name: str, taken: phases.Taken, outputs: NDArray[np.float32] | None) -> Record:
        """The metrics of a phase whose outputs are there, on each rank of its part."""
        if outputs is None:
            return {}
        begin, end = self.link.part(taken.count)
        whole = np.concatenate(self.link.gather(outputs[begin:end])) if self.link.size > 1 else outputs

        def told() -> Record:
            found = metrics.measure(self.metrics, taken.answered(whole))
            return {f"{name}_{metric}": value for metric, value in found.items()}

        # a caller's function may tell something else on each rank
        return self.link.gather(self.link.checked(told))[0]
