"""One phase of a training: workers run in a thread of their own, this one looks after signals, callbacks and the other
ranks. Also what a phase needs: images, labels, the number of workers. For chaos.training."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core, threads
from ..data import NAMES, Dataset, Stream
from ..errors import DataError
from ..losses import CLASS, IGNORED, VALUES
from ..network import Network
from ..scale import Scale
from ..taken import take_weights
from .callbacks import POLL, Listeners
from .link import Alone
from .metrics import Answers, answers
from .records import Result
from .signals import Caught


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
class Judged:
    """The term of the loss whose answers are looked at: the first that knows right and wrong, else the first.

    Attributes
    ----------
    term : int
        Its number.
    loss : str
    options : dict
        Its own.
    form : str
        Of its targets, see chaos.losses.
    shape : tuple
        Of its output.
    begin : int
        Where that is among the numbers of all outputs.
    answers : int
        How many answers of an image may be wrong; 0: the loss counts none.
    classes : int
        How many an answer chooses between.
    alone : bool
        The loss has no other term.
    """

    term: int
    loss: str
    options: Mapping[str, Any]
    form: str
    shape: tuple[int, ...]
    begin: int
    answers: int
    classes: int
    alone: bool


def _judge(net: Network, data: Dataset, loss: str, options: Any) -> Judged:
    """The term to look at, of a data set that fits the loss."""
    terms = net.loss_terms(loss, options)
    targets = data.targets * (len(terms) if len(data.targets) == 1 else 1)
    sizes = [math.prod(shape) for shape in net.output_shapes]
    found = []
    for number, (term, one) in enumerate(zip(terms, targets, strict=True)):
        shape, kind = net.output_shapes[term.output], term.loss
        form = kind.form(shape, one.shape[1:], one.dtype.kind in "iu")
        found.append(
            Judged(
                number,
                kind.kind,
                term.options,
                form,
                shape,
                sum(sizes[: term.output]),
                kind.answers(form, shape),
                kind.classes(form, shape),
                len(terms) == 1,
            )
        )
    return next((one for one in found if one.answers), found[0])


@dataclasses.dataclass(frozen=True)
class Taken:
    """A data set as the engine takes it: arguments of a phase, how many images, how many answers of all may be wrong (0: the
    loss counts none, or all are ignored), and which targets are looked at. Of `total` images in the arrays those of the
    numbers `images` count, all where that is None."""

    arguments: dict[str, Any]
    count: int
    answers: int
    scales: tuple[Scale, ...]
    judged: Judged
    total: int
    images: NDArray[np.int64] | None = None

    @property
    def targets(self) -> NDArray[Any]:
        """What the judged term of the loss is compared with, of all images of the arrays, a row for each, as the core takes
        them."""
        labels = self.arguments["labels"]
        one: NDArray[Any] = labels[self.judged.term] if isinstance(labels, list) else labels
        return one.reshape(self.total, -1)

    def chosen(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the images at these places among those that count."""
        return places if self.images is None else self.images[places]

    def part(self, images: NDArray[np.int64]) -> Taken:
        """The same data set, of which only these images count; nothing is copied but what tells which."""
        answers = self.judged.answers * len(images)
        if answers and self.judged.form != VALUES:
            answers -= int((self.targets[images] == IGNORED).sum())
        return dataclasses.replace(self, count=len(images), answers=answers, images=images)

    def answered(self, outputs: NDArray[np.float32]) -> Answers:
        """What all outputs, a row for each image that counts, say about the targets."""
        one = self.judged
        targets = self.targets if self.images is None else self.targets[self.images]
        own = outputs[:, one.begin : one.begin + math.prod(one.shape)].reshape(len(outputs), *one.shape)
        return answers(one.form, one.loss, own, targets.reshape(-1))

    def weighted(self, weights: NDArray[np.float32] | None) -> Taken:
        """The same data set with other weights of its images."""
        return dataclasses.replace(self, arguments=self.arguments | {"weights": weights})

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
        streams = what == "train" and isinstance(data, Iterable) and not hasattr(data, "dtype")
        raise DataError(
            f"{what} must be a chaos.data.Dataset, not {type(data).__name__}; "
            "chaos.data.Dataset(images, labels) makes one from arrays"
            f"{', chaos.data.Stream(function) takes what a function yields in batches' if streams else ''}"
            f"{'; a chaos.data.Stream is for training images' if isinstance(data, Stream) else ''}"
        )
    arguments = net.take_images(data.images, like)
    count, scales = arguments.pop("count"), arguments.pop("scales")
    labels, answers = net.take_targets(data.labels, count, loss, loss_options)
    if length is not None:
        count, answers = length, answers * length // count
    arguments |= {"labels": labels, "weights": data.weights if weighted else None}
    judged = _judge(net, data, loss, loss_options)
    # elsewhere a class may be one of all outputs; of a known data set it is known how many there are
    if judged.form == CLASS and math.prod(judged.shape[1:]) > 1 and data.name.split("/")[0] in NAMES and data.classes:
        raise DataError(
            f"{what}: every image of {data.name!r} has one of {data.classes} classes, and the network's output is an image "
            f"of shape {judged.shape}, which wants a target for each pixel, (n, {', '.join(map(str, judged.shape[1:]))}); "
            "for one class per image let the network end with chaos.Flatten() and chaos.Linear(classes)"
        )
    return Taken(arguments, count, answers, scales, judged, count)


def outputs_of(net: Network) -> int:
    """How many numbers an engine gives for an image."""
    return sum(math.prod(shape) for shape in net.output_shapes)


def with_weights(data: Any, weights: Any) -> Dataset:
    """The data set with a weight for each image; DataError where it has some already, or these do not fit."""
    if not isinstance(data, Dataset):
        raise DataError(f"train must be a chaos.data.Dataset, not {type(data).__name__}")
    if data.weights is not None:
        raise DataError("the training set has weights already, and sample_weight gives others; give one of them")
    new = copy.copy(data)
    new.weights = take_weights(weights, len(data))
    return new


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
        batch_size=net.plan.together,
        cpus=cpus,
    )
