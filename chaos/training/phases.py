"""One phase of a training: workers run in a thread of their own, this one looks after signals, callbacks and the other
ranks. Also what a phase needs: images, labels, the number of workers. For chaos.training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from .. import _core, threads
from ..data import Dataset, Stream
from ..errors import DataError
from ..network import Network
from ..scale import Scale
from .callbacks import POLL, Listeners
from .link import Alone
from .records import Result
from .signals import Caught

TOGETHER: int = _core.TOGETHER


def run_phase(
    pool: ThreadPoolExecutor,
    engine: Any,
    caught: Caught,
    listeners: Listeners | None,
    what: str,
    link: Alone,
    ahead: int = 0,
    **arguments: Any,
) -> tuple[Result, float]:
    """Runs a phase in the pool's thread: (result, seconds). Callbacks are told the position, times the number of ranks, plus
    `ahead`."""
    if caught.signal:
        engine.stop()
    start = time.perf_counter()
    future = pool.submit(engine.run, what, **arguments)
    try:
        while not link.watch(future, listeners.pause() if listeners else POLL):
            if listeners:
                listeners.look(ahead + link.position(engine), caught)
            if caught.signal or link.halted or (what == "train" and caught.rests()):
                engine.stop()
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


@dataclasses.dataclass(frozen=True)
class Taken:
    """A data set as the engine takes it: arguments of a phase, how many images, and how many answers of all may be wrong
    (0: the loss counts none, or all are ignored)."""

    arguments: dict[str, Any]
    count: int
    answers: int
    scales: tuple[Scale, ...]

    def results(self, name: str, result: Any, total: int | None = None) -> dict[str, float | None]:
        """{name_loss, name_error} of the counts of a phase: means per image and per answer."""
        wrong = result["errors"] / self.answers if self.answers else None
        return {f"{name}_loss": result["loss"] / self.count, f"{name}_error": wrong}


def take(
    net: Network,
    data: Any,
    what: str,
    loss: str,
    like: Sequence[Scale] | None = None,
    weighted: bool = False,
    loss_options: Any = None,
) -> Taken:
    """A data set for the engine; DataError where it does not fit the network or the loss, or is of a scale unlike `like`.
    `weighted`: with the weights of its images."""
    length = None
    if isinstance(data, Stream) and what == "train":  # the first batch tells what all are
        data, length = data.first, len(data)
    if not isinstance(data, Dataset):
        raise DataError(
            f"{what} must be a chaos.data.Dataset, not {type(data).__name__}; "
            "chaos.data.Dataset(images, labels) makes one from arrays"
            f"{'; a chaos.data.Stream is for training images' if isinstance(data, Stream) else ''}"
        )
    arguments = net.take_images(data.images, like)
    count, scales = arguments.pop("count"), arguments.pop("scales")
    labels, answers = net.take_targets(data.labels, count, loss, loss_options)
    if length is not None:
        count, answers = length, answers * length // count
    arguments |= {"labels": labels, "weights": data.weights if weighted else None}
    return Taken(arguments, count, answers, scales)


def check_names(known: tuple[str, ...] | None, data: Dataset, what: str) -> None:
    """DataError where the labels of a data set are numbered otherwise than those of the training."""
    found = data.class_names
    if known is not None and found is not None and known != found:
        first = next((k for k, (a, b) in enumerate(zip(known, found, strict=False)) if a != b), min(len(known), len(found)))
        mine, other = (repr(names[first]) if first < len(names) else "missing" for names in (known, found))
        raise DataError(
            f"{what}: class {first} is {other}, and {mine} in training; "
            "chaos.data.Dataset(images, names, class_names=train.class_names) numbers the classes alike"
        )


def resolve_workers(requested: int | None, only_one: str | None = None, pin: str = "none") -> threads.Plan:
    """The resolved worker plan; where nothing is requested and only one worker can run, one."""
    only_one = only_one or (None if _core.OPENMP else "built without OpenMP")
    if only_one and requested is None:
        plan = threads.resolve(1, pin=pin)
        limits = {only_one: 1, **{name: n for name, n in plan.limits.items() if name != "argument"}}
        return dataclasses.replace(plan, limit=only_one, limits=limits)
    return threads.resolve(requested, pin=pin)


def evaluator(net: Network, plan: threads.Plan, loss: str, options: Any = None) -> _core.Engine:
    """An engine that takes as many images through the layers together as it can, whatever the training's batch size."""
    cpus = None if plan.pin == "none" else plan.cpus
    return _core.Engine(
        net.plan,
        net.weights,
        workers=plan.workers,
        strategy="chaos",
        loss=net.core_loss(loss, options),
        batch_size=TOGETHER,
        cpus=cpus,
    )
