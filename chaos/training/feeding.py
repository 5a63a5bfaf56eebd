"""Runs the training phases of a job whose images come from a chaos.data.Stream. For chaos.training.

The arrays that the engine sees hold two buffers of images. An epoch is cut into pieces of one buffer; while the engine
trains on a piece, a thread fills the other buffer with the next. `order` says for each image of the epoch in which row of
the arrays it will lie, so that the engine counts positions as of any other epoch, and can be stopped and go on
anywhere."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..data import Dataset, Stream
from ..errors import DataError
from ..layers import random
from ..scale import Scale
from . import phases
from .callbacks import POLL, Listeners
from .records import Result, together
from .runner import Threads
from .signals import Caught

if TYPE_CHECKING:
    from .job import Job
    from .settings import Settings

REFUSED = {
    "evaluate_train": "the training images again",
    "validation_split": "a part of the training images",
    "class_weight": "all labels beforehand",
}


class Fed(Threads):
    """Real threads, fed by a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.filling: _Filling | None = None

    def check(self, settings: Settings) -> None:
        """ValueError for settings that want all images at once."""
        for name, what in REFUSED.items():
            value = getattr(settings, name)
            if value is not None and not (isinstance(value, (bool, float)) and not value):
                raise ValueError(f"{name} needs {what}, and a chaos.data.Stream shows each image once; give a Dataset")

    def start(self, job: Job) -> _core.Engine:
        """As `Threads`."""
        if job.link.size > 1:
            raise ValueError("a chaos.data.Stream feeds one process; in a job of several give a Dataset")
        return super().start(job)

    def train(
        self,
        job: Job,
        epoch: int,
        pool: ThreadPoolExecutor,
        caught: Caught,
        listeners: Listeners,
        ahead: int,
        **arguments: Any,
    ) -> tuple[Result, float]:
        """A training phase: (result, seconds), of which waiting for the source is a part."""
        start, begin, n = time.perf_counter(), arguments.pop("begin"), job.training.count
        filling = self.filling
        if filling is None or not filling.holds(epoch, begin):
            if filling is not None:
                filling.over = True
            filling = self.filling = _Filling(self.stream, job, epoch, begin)
        key, total = arguments.pop("key"), None
        arguments |= {"order": filling.order, "inputs": filling.inputs, "labels": filling.labels, "weights": filling.weights}
        while total is None or (total["status"] == "done" and begin < n):
            piece = begin // filling.size
            there = filling.ready(piece, caught)
            if there:
                filling.fill(piece + 1)
            elif total is not None:
                return total | {"status": "stopped"}, time.perf_counter() - start
            end = min((piece + 1) * filling.size, n) if there else begin  # no image, and what a phase tells of that
            # rows are used again and again; random numbers go by rows
            own = int(random.key(random.key(0, key), piece)[0])
            engine = job.link.trains(job.engine)
            result, _ = phases.run_phase(
                pool, engine, caught, listeners, "train", job.link, ahead, **arguments, key=own, begin=begin, end=end
            )
            total, begin = _one_more(total, result), end
            if not there:
                return total | {"status": "stopped", "position": begin}, time.perf_counter() - start
        if total["status"] == "done":
            filling.finish(job)
            self.filling = None
        return total, time.perf_counter() - start


def _one_more(total: Result | None, result: Result) -> Result:
    """The counts of the pieces so far, with one more."""
    if total is None:
        return result
    last = {key: result[key] for key in ("status", "position", "failed_at")}
    return {key: together(key, total[key], value) for key, value in result.items() if key not in last} | last


class _Filling:
    """One epoch of a stream on its way into the buffers.

    Attributes
    ----------
    size : int
        Images of a buffer.
    order : ndarray (n,) of int64
        The row of each image of the epoch.
    inputs, labels, weights
        The arrays that the engine sees, two buffers long.
    """

    def __init__(self, stream: Stream, job: Job, epoch: int, begin: int) -> None:
        self.stream, self.job, self.epoch = stream, job, epoch
        step = job.settings.images_per_update
        self.size = -(-stream.buffer // step) * step
        rows = np.arange(2 * self.size)
        first = stream.first
        tiled = rows % len(first)
        self.images = [array[tiled] for array in first.inputs]
        taken = job.net.take_images(tuple(self.images) if len(self.images) > 1 else self.images[0])
        self.inputs = taken["inputs"]
        self._targets = [one[tiled] for one in self._taken_targets(first)[0]]
        flat = [one.reshape(-1) for one in self._targets]
        self.labels = flat if len(flat) > 1 else flat[0]
        self.weights = None if first.weights is None else first.weights[tiled]
        self.order = self._order(len(stream))
        self.scales, self.answers, self.whole = job.training.scales, 0, begin == 0
        self.next = begin // self.size  # the piece that is filled next
        self._skip = self.next * self.size
        self._batches: Iterator[Dataset] = stream.batches(epoch)
        self._left: Dataset | None = None  # of a batch that did not fit into the piece
        self._given = 0
        self._error: BaseException | None = None
        self.over = False  # nobody waits for it any more
        self._thread: threading.Thread | None = None
        self.fill(self.next)

    def _order(self, n: int) -> NDArray[np.int64]:
        asked = self.job.settings
        order: NDArray[np.int64] = np.arange(n) % (2 * self.size)
        if asked.shuffle:
            rng = np.random.default_rng([asked.seed, self.epoch])
            for start in range(0, n, self.size):
                rng.shuffle(order[start : start + self.size])
        return order

    def _taken_targets(self, batch: Dataset) -> tuple[list[NDArray[Any]], int]:
        """As the core takes them, of each term of the loss a row for each image; and how many answers they are."""
        asked = self.job.settings
        labels, answers = self.job.net.take_targets(batch.labels, len(batch), asked.loss, asked.loss_options)
        terms = labels if isinstance(labels, list) else [labels]
        return [one.reshape(len(batch), -1) for one in terms], answers

    def holds(self, epoch: int, begin: int) -> bool:
        """Whether the image at that place is in a buffer, or will be next."""
        return self.epoch == epoch and self.next - 2 <= begin // self.size < self.next and self._error is None

    def ready(self, piece: int, caught: Caught) -> bool:
        """Waits until a piece is filled; False where the training is to end instead. DataError where the source failed."""
        while self._thread is not None and self._thread.is_alive() and self.next - 1 <= piece:
            self._thread.join(POLL)
            if caught.signal:
                return False
        if self._error is not None:
            error, self._error = self._error, None
            where = f"{self.stream.name}: epoch {self.epoch}, after {self._given} of {len(self.stream)} images"
            reason = (
                str(error) if isinstance(error, DataError) else f"the source failed with {type(error).__name__}: {error}"
            )
            raise DataError(f"{where}: {reason}") from error
        return True

    def fill(self, piece: int) -> None:
        """Begins to fill the buffer of a piece, unless that was begun already or the epoch has none."""
        if piece < self.next or piece * self.size >= len(self.stream):
            return
        self.next = piece + 1
        # no executor: a source that hangs must not keep the process from ending
        self._thread = threading.Thread(target=self._fill, args=(piece,), name="chaos-stream", daemon=True)
        self._thread.start()

    def _fill(self, piece: int) -> None:
        try:
            row, start = piece % 2 * self.size, piece * self.size
            end = row + min(self.size, len(self.stream) - start)
            while row < end and not self.over:
                batch = self._left if self._left is not None else next(self._batches, None)
                self._left = None
                if batch is None:
                    raise DataError("the source has ended")
                if self._given < self._skip:  # a run that is continued
                    passed = min(self._skip - self._given, len(batch))
                    self._given += passed
                    self._left = batch[passed:] if passed < len(batch) else None
                    continue
                count = min(len(batch), end - row)
                self._take(batch if count == len(batch) else batch[:count], row)
                self._left = batch[count:] if count < len(batch) else None
                row, self._given = row + count, self._given + count
        except BaseException as error:  # for the thread that waits
            self._error = error

    def _take(self, batch: Dataset, row: int) -> None:
        """Puts images into the arrays."""
        job, stop = self.job, row + len(batch)
        taken = job.net.take_images(batch.images)
        for mine, given in zip(self.inputs, taken["inputs"], strict=True):
            each = len(mine) // (2 * self.size)
            mine[row * each : stop * each] = given
        targets, answers = self._taken_targets(batch)
        for one, of in zip(self._targets, targets, strict=True):
            one[row:stop] = of
        self.answers += answers
        if self.weights is not None:
            self.weights[row:stop] = batch.weights
        self.scales = tuple(
            Scale(a.pixels, min(a.least, b.least), max(a.most, b.most))
            for a, b in zip(self.scales, taken["scales"], strict=True)
        )

    def finish(self, job: Job) -> None:
        """The epoch is over: what the source has shown is told."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        job.net.trained_on = self.scales
        if self.whole:  # of which some may be ignored
            job.training = dataclasses.replace(job.training, answers=self.answers)
