"""What a training asks of the other processes of its job: the protocol, and its answers where there are none. For
chaos.training; chaos.cluster has those that talk to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .records import Record, Result
from .signals import Caught

if TYPE_CHECKING:
    from .job import Job

T = TypeVar("T")


class Alone:
    """What a training asks of the other processes ("ranks") of its job, where there are none. All ranks call the same
    methods in the same order."""

    rank: int = 0
    size: int = 1
    halted: bool = False  # another rank cannot go on: the workers are to stop

    def checked(self, call: Callable[[], T]) -> T:
        """call(); where it fails on any rank, all raise."""
        return call()

    def joined(self, job: Job, caught: Caught) -> AbstractContextManager[None]:
        """While the job runs: all have the weights and the history of rank 0; a signal on one rank is a signal on all."""
        return _nothing()

    def shard(self, images: NDArray[np.int64], rank: int) -> NDArray[np.int64]:
        """A rank's part of the images that an epoch still has to visit."""
        return images

    def part(self, n: int) -> tuple[int, int]:
        """This rank's part [begin, end) of n images that are evaluated."""
        return 0, n

    def train_begins(self, epoch: int, images: int) -> None:
        """The workers are about to start on so many images, and `watch` is about to exchange weights beside them."""

    def trains(self, engine: Any) -> Any:
        """What runs a training phase: the engine, or something with the same `run`, `stop`, `clear` and `position`."""
        return engine

    def position(self, runner: Any) -> int:
        """Images that are done in the phase under way, for callbacks."""
        done: int = runner.position
        return done

    def watch(self, future: Future[Any], seconds: float) -> bool:
        """Whether the workers, and what goes on beside them, are through; waits up to `seconds`."""
        return bool(wait([future], seconds).done)

    def gather(self, mine: T) -> list[T]:
        """What every rank has, in their order."""
        return [mine]

    def report(self, results: Sequence[Result] | None) -> Record:
        """What an epoch's record tells about the ranks."""
        return {}

    def state(self) -> dict[str, NDArray[np.float32]]:
        """What a resumed run needs beside the weights and the update rule's state, the same on all ranks: {"mode.name":
        vector laid out as the weights}."""
        return {}

    def restore(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """On rank 0 before `joined`: the `state` that was kept with the weights; what no longer fits is passed over."""

    def leave(self) -> None:
        """All ranks are about to raise the same exception; returns when all are here."""


@contextmanager
def _nothing() -> Iterator[None]:
    yield
