"""Training on what comes: one step after the other, on single samples or small batches; what the update rule keeps goes on
from call to call. For chaos.Network.update and chaos.estimators; above chaos.training, whose settings these are."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _core, groups
from .arrays import aligned_zeros
from .engines import BRIEF
from .errors import DataError, DivergedError
from .losses import CLASS, VALUES
from .network import Network, run_key
from .scale import Scale
from .sync import STRATEGIES
from .taken import take_weights
from .training import Settings
from .updates import UPDATES
from .updates.base import patterns, scales

_FLOAT, _BYTE, _LARGE = np.dtype(np.float32), np.dtype(np.uint8), (1 << 64) - 1
_ODD = 0xD1342543DE82EF95  # between the random numbers of one step and the next
_ENGINES = 4  # sizes of steps for which an engine is kept


def asked(update: Any, update_options: Any, loss: Any, loss_options: Any, seed: int) -> Settings:
    """The settings of steps by one worker."""
    return Settings(
        strategy="sequential",
        update=update,
        update_options=update_options,
        loss=loss,
        loss_options=loss_options,
        seed=seed,
        workers=1,
    )


class Learner:
    """Trains a network step by step.

    Parameters
    ----------
    net : Network
        Trained in place.
    settings : Settings
        Of them strategy, update, loss, their options and seed count. With `batch_size` 0 each call is one step, else a call
        is cut into steps of that many images.
    workers : int
        Threads that take part in a call.

    Attributes
    ----------
    steps : int
        Calls so far.

    Raises
    ------
    ValueError
        Unknown names and options, and what does not go together.
    """

    def __init__(self, net: Network, settings: Settings, *, batch_size: int = 0, workers: int = 1) -> None:
        self.net, self.settings, self.batch_size, self.workers = net, settings.resolved(), batch_size, workers
        mine = self.settings
        strategy: Any = STRATEGIES[mine.strategy]
        rule: Any = UPDATES[mine.update]
        self._strategy, self._rule = strategy, rule
        options = strategy.settle(mine.strategy_options, workers, net.plan.weight_size, lambda measured: workers)
        self.settings = mine = dataclasses.replace(mine, strategy_options=options)
        self._rate_scale = strategy.rate_scale(mine.strategy_options, workers)
        self.moments = aligned_zeros((rule.moments, net.plan.weight_size))
        rule.start(self.moments, mine.update_options)
        self.steps = 0
        self.lock = threading.Lock()
        self._engines: dict[int, _core.Engine] = {}
        self._last: _core.Engine | None = None
        self._made_for: tuple[Any, Any] = (None, None)
        self._versions: list[int] | None = None  # of the engines that were dropped
        self._key = run_key(mine.seed, 0)
        self._shape = net.input_shapes[0] if len(net.input_shapes) == 1 else None
        self._terms = net.loss_terms(mine.loss, mine.loss_options)
        self._classes, self._any_values, self._output = 0, False, net.output_shapes[self._terms[0].output]
        if len(self._terms) == 1:
            kind, options = self._terms[0].loss, dict(self._terms[0].options)
            ignored = options.get("ignore_index")
            if CLASS in kind.targets and (ignored is None or ignored < 0):  # else labels have to be looked at
                self._classes = kind.classes(CLASS, self._output)
            self._any_values = VALUES in kind.targets and kind.bounds(options) == (-math.inf, math.inf)
        self._label = np.zeros(1, np.int64)
        plain = asked(mine.update, None, mine.loss, None, mine.seed).resolved()
        self._plain = (plain.update_options, plain.loss_options) == (mine.update_options, mine.loss_options)

    def goes_on(self, update: Any, update_options: Any, loss: Any, loss_options: Any, seed: int) -> bool:
        """Whether these settings are the same."""
        mine = self.settings
        if update != mine.update or loss != mine.loss or seed != mine.seed:
            return False
        if update_options is None and loss_options is None:
            return self._plain
        return asked(update, update_options, loss, loss_options, seed).resolved() == mine

    def after_fork(self) -> None:
        """In a forked child, where a thread that was updating is not there."""
        if self.lock.locked():
            self._engines, self._last = {}, None
        self.lock = threading.Lock()

    def step(self, x: Any, y: Any, lr: float, sample_weight: Any = None) -> float:
        """One step, or several of `batch_size`, on images and targets; the mean loss before it. See `Network.update`."""
        with self.lock:
            inputs, n, scales = self._images(x)
            targets = self._targets(y, n)
            weights = None if sample_weight is None else take_weights(np.atleast_1d(sample_weight), n)
            engine = self._engine(n)
            key = (self._key + self.steps * _ODD) & _LARGE
            outcome, loss = engine.step(inputs, targets, lr * self._rate_scale, weights, key)
            self.steps += 1
            if outcome == "done" and scales is not None:
                self.net.trained_on = scales
        if outcome != "done":
            raise DivergedError(
                f"the loss is not finite in step {self.steps}, which was not made (learning rate {lr:g}; try a smaller one)"
            )
        return float(loss / n)

    # ---- what comes, as the core takes it: the usual kinds without detours ----

    def _images(self, x: Any) -> tuple[list[Any], int, tuple[Scale, ...] | None]:
        """(inputs, how many, the scale of all that came so far where that is another one now)"""
        shape = self._shape
        if type(x) is np.ndarray and shape is not None and x.flags.c_contiguous:
            n = 1 if x.shape == shape else len(x) if x.shape[1:] == shape else 0
            known = self.net.trained_on
            if n and known is not None:
                flat, like = x.reshape(-1), known[0]
                if x.dtype is _BYTE and like.pixels:
                    return [flat], n, None
                if x.dtype is _FLOAT and not like.pixels and (found := _core.extremes(flat)) is not None:
                    wider = found[0] < like.least or found[1] > like.most
                    return [flat], n, (_wider(like, Scale(False, *found)),) if wider else None
        return self._checked(x)

    def _checked(self, x: Any) -> tuple[list[Any], int, tuple[Scale, ...]]:
        """Of anything that `Network.forward` takes, or one sample of it."""
        if self._shape is not None and np.shape(x) == self._shape:
            x = [x]
        taken = self.net.take_images(x)
        inputs, n = taken["inputs"], taken["count"]
        if not n:
            raise DataError("an update needs at least one image")
        found = [Scale.of(array) for array in inputs]
        known = self.net.trained_on
        if known is None:
            return inputs, n, tuple(found)
        if any(one.pixels != other.pixels for one, other in zip(known, found, strict=True)):
            taken = self.net.take_images(x, known)  # integers may be pixels to this network
            inputs = taken["inputs"]
            found = [Scale.of(array) for array in inputs]
        return inputs, n, tuple(_wider(one, other) for one, other in zip(known, found, strict=True))

    def _targets(self, y: Any, n: int) -> Any:
        if n == 1 and isinstance(y, (int, np.integer)) and not isinstance(y, bool) and 0 <= y < self._classes:
            self._label[0] = y
            return self._label
        if type(y) is np.ndarray and y.shape == (n,) and y.dtype.kind in "iu" and 0 <= y.min() and y.max() < self._classes:
            return np.ascontiguousarray(y, np.int64)
        if self._any_values and type(y) is np.ndarray and y.dtype is _FLOAT and y.flags.c_contiguous:
            shape, flat = self._output, y.reshape(-1)
            if (y.shape[1:] == shape and len(y) == n) or (n == 1 and y.shape == shape):
                if _core.extremes(flat) is not None:
                    return flat
        if n == 1 and len(self._terms) > 1 and isinstance(y, (tuple, list)) and len(y) == len(self._terms):
            shapes = [self.net.output_shapes[term.output] for term in self._terms]
            y = [_batched(one, shape) for one, shape in zip(y, shapes, strict=True)]
        elif n == 1:
            y = _batched(y, self._output)
        targets, _ = self.net.take_targets(y, n, self.settings.loss, self.settings.loss_options)
        return targets

    # ---- engines ----

    def _engine(self, n: int) -> _core.Engine:
        """An engine for steps on n images."""
        made_for = self.net.plan, self.net.weights
        if made_for[0] is not self._made_for[0] or made_for[1] is not self._made_for[1]:
            self._drop()
            self._made_for = made_for
        size = self.batch_size or n
        engine = self._engines.get(size)
        if engine is None:
            if len(self._engines) == _ENGINES:
                self._drop()
            engine = self._engines[size] = self._new_engine(size, n)
        if engine is not self._last:
            if self._last is not None:
                self._versions = self._last.versions()
            if self._versions is not None:
                engine.versions(np.array(self._versions, np.uint32))
            self._last = engine
        return engine

    def _drop(self) -> None:
        if self._last is not None:
            self._versions = self._last.versions()
        self._engines.clear()
        self._last = None

    def _new_engine(self, size: int, n: int) -> _core.Engine:
        self._check_size(min(size, n))
        self._check_size(n % size)
        net, mine = self.net, self.settings
        options, rule = dict(mine.strategy_options or {}), dict(mine.update_options or {})
        kinds, class_of = groups.classes(
            net.trained_places(),
            net.plan.weight_size,
            patterns("no_decay", rule["no_decay"]) if rule["no_decay"] else (),
            scales("lr_scale", rule["lr_scale"]) if rule["lr_scale"] else (),
        )
        engine = _core.Engine(
            net.plan,
            net.weights,
            workers=self.workers,
            strategy=mine.strategy,
            loss=net.core_loss(mine.loss, mine.loss_options),
            update=mine.update,
            batch_size=size,
            stripe_bytes=options["stripe_bytes"],
            moments=self.moments,
            strategy_options=self._strategy.core_options(options),
            max_staleness=options.get("max_staleness"),
            update_options=self._rule.core_options(self._rule.for_workers(rule, self.workers)),
            classes=kinds,
            class_of=class_of,
        )
        engine.brief = BRIEF // max(1, sum(net.macs().values())) if self.workers == 1 else 0
        if not any(map(engine.trains, range(len(net.nodes())))):
            raise ValueError(
                "no parameter of the network can be trained: all are frozen, or there are none; see net.unfreeze"
            )
        return engine

    def _check_size(self, n: int) -> None:
        """ValueError where a layer needs more images in a step."""
        plan = self.net.plan
        if n and plan.whole_batch and self._strategy.lanes:
            raise ValueError(f"a layer sees the whole batch, which strategy {self.settings.strategy!r} cuts into lanes")
        for node, group in (dict.fromkeys(plan.whole_batch, max(n, 1)) | plan.groups).items():
            there = self.net.nodes()[node][0]
            assert there.layer
            least = there.layer.least_images(*(source.shape for source in there.inputs))
            if n and (n - 1) % group + 1 < least:
                raise ValueError(f"{there.layer} needs steps of at least {least} images to train, not {(n - 1) % group + 1}")

    # ---- what is kept ----

    def state(self) -> dict[str, Any]:
        """What the update rule keeps: "moment.parameter" in PyTorch's shapes, versions, steps."""
        with self.lock:
            versions = self._last.versions() if self._last is not None else self._versions
            found: dict[str, Any] = {
                f"{name}.{parameter}": value
                for name, moment in zip(self._rule.state, self.moments, strict=True)
                for parameter, value in self.net.unpack(moment).items()
            }
        return found | {"versions": versions, "steps": self.steps}

    def goes_on_from(self, state: Mapping[str, Any]) -> bool:
        """Whether the update rule finds in `state` all that it keeps."""
        return bool(state) and all(f"{name}.{p}" in state for name in self._rule.state for p in self.net.state_dict())

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what another learner, or a training with the same update rule, has kept."""
        with self.lock:
            for name, moment in zip(self._rule.state, self.moments, strict=True):
                self.net.pack({p: state[f"{name}.{p}"] for p in self.net.state_dict()}, moment)
            self._engines.clear()
            versions = state.get("versions")
            self._last, self._versions = None, None if versions is None else [int(v) for v in versions]
            self.steps = int(state.get("steps", 0))


def _batched(y: Any, output_shape: tuple[int, ...]) -> Any:
    """The target of one sample as that of a batch of one."""
    array = np.asarray(y)
    if array.ndim == 0 and array.dtype.kind == "f" and math.prod(output_shape) == 1:
        return array.reshape(1, *output_shape)
    values = array.dtype.kind == "f" and array.shape == output_shape
    return array[None] if array.ndim == 0 or values else y


def _wider(one: Scale, other: Scale) -> Scale:
    if one.pixels or other.pixels:
        return one
    return Scale(False, min(one.least, other.least), max(one.most, other.most))
