"""What callers hear of a training, and how they stop it. For chaos.training; callers use `chaos.Callback`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..network import Network
from ..options import check_number
from .records import Record
from .settings import Settings
from .signals import Caught

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .job import Job

EVENTS = ("train_begin", "epoch_begin", "step", "epoch_end", "train_end")
POLL = 0.05  # seconds between looks at signals and callbacks
SHORTEST = 1e-3  # the same, where a callback wants to hear of few images


class Event:
    """Where a training is, for one call of a callback.

    Attributes
    ----------
    network : Network
        The one that is trained. While workers run its weights are read with `weights` only; nobody but the workers writes
        them.
    settings : Settings
        As they were resolved: in their own types, options with their defaults.
    history : list of dict
        The records of the finished epochs, as in `Run.history`; to be read only.
    epoch : int
        The epoch under way, or just finished, from 1; in `train_begin` and `train_end` the number of finished epochs.
    phase : str or None
        "train", "train_eval" (the training images measured again), "validation" or "test" in `step`, else None.
    position, images : int
        How many images of the phase are done or being worked at, and how many it has; in a job of several ranks of all of
        them, estimated from this one's. 0 outside `step`.
    workers : str
        How many workers there are and why, in words.
    rank, ranks : int
        Of this process among those of the job: 0 and 1 where there is one.
    ending : str or None
        In `train_end`: why the training ends early, in words.
    error : BaseException or None
        In `train_end`: the exception that ends the training, KeyboardInterrupt and SystemExit of signals among them.
    """

    error: BaseException | None = None

    def __init__(
        self,
        job: Job,
        caught: Caught,
        epoch: int,
        phase: str | None = None,
        position: int = 0,
        images: int = 0,
        ending: str | None = None,
    ) -> None:
        self._job, self._caught = job, caught
        self.epoch, self.phase, self.position, self.images, self.ending = epoch, phase, position, images, ending

    @property
    def network(self) -> Network:
        return self._job.net

    @property
    def settings(self) -> Settings:
        return self._job.settings

    @property
    def history(self) -> list[Record]:
        return self._job.history

    @property
    def workers(self) -> str:
        return self._job.plan.describe()

    @property
    def rank(self) -> int:
        return self._job.link.rank

    @property
    def ranks(self) -> int:
        return self._job.link.size

    def stop(self) -> None:
        """Ends the training: the workers stop at once, on all ranks, the state is kept in the run directory as after Ctrl-C,
        so that the run can be continued, and `chaos.train` returns. In `train_end` it changes nothing any more."""
        self._caught.stop()

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The parameters as they are now, by name in PyTorch's shapes, as `Network.state_dict`; a copy.

        May be called while workers run. Each stripe of the weights (strategy option stripe_bytes) is then as it was at one
        moment where the strategy locks stripes, one number where it does not; different stripes may be of different moments.
        """
        vector = np.zeros_like(self.network.weights)
        _core.Exchange(self._job.engine).read_weights(vector)
        found: dict[str, NDArray[np.float32]] = self.network.unpack(vector)
        return found

    def rule_state(self) -> dict[str, NDArray[Any]]:
        """What the update rule keeps beside the weights, by the names under which it is in a run's file; copies. Not in
        `step`."""
        from .state import State

        return State.of(self._job).tensors(self._job)


class Callback:
    """Base class of callbacks: what a training calls in the thread that has called `chaos.train`.

    Any object with some of these methods will do. A method may stop the training with `event.stop()`. An exception in one
    ends it too: the workers stop, the run directory keeps the state of the last finished epoch, and `chaos.train` raises the
    exception. In a job of several ranks each rank has its own callbacks, which need not be the same; a stop on one stops
    all, and where a callback fails on one rank the others raise ClusterError.

    Methods should be quick: in `step` the workers go on meanwhile, but the exchange with other ranks and Ctrl-C wait.
    Callbacks change no bit of the result unless they stop the training.

    Attributes
    ----------
    interval : int, optional
        `step` is called whenever so many more images of a phase have been picked, as far as that can be seen in time: not
        more often than about every millisecond, and not once for each interval that has passed. None: every 0.05 s.

    Examples
    --------
    >>> class UntilGood(chaos.Callback):
    ...     def epoch_end(self, event, record):
    ...         if record["test_error"] < 0.02:
    ...             event.stop()
    >>> chaos.train(net, train, test, epochs=100, callbacks=[UntilGood()])  # doctest: +SKIP
    """

    interval: int | None = None

    def train_begin(self, event: Event) -> None:
        """Everything has been checked, and a run that is continued restored; no worker has started.

        Parameters
        ----------
        event : Event
        """

    def epoch_begin(self, event: Event) -> None:
        """An epoch begins, or the rest of one that was interrupted.

        Parameters
        ----------
        event : Event
        """

    def step(self, event: Event) -> None:
        """A phase is under way, and workers run.

        Parameters
        ----------
        event : Event
            With `phase`, `position` and `images`.
        """

    def epoch_end(self, event: Event, record: Record) -> None:
        """An epoch is over, and its state is in the run directory.

        Parameters
        ----------
        event : Event
        record : dict
            As in `Run.history`.
        """

    def train_end(self, event: Event) -> None:
        """The training is over. Called whenever `train_begin` was, also where an exception or a signal ends the training.

        Parameters
        ----------
        event : Event
        """


def _check_methods(one: Any) -> None:
    """TypeError for a callback one of whose methods nobody calls, or cannot be called as it will be."""
    for name in EVENTS:
        method, here = getattr(one, name, None), type(one).__name__
        if method is None or getattr(type(one), name, None) is getattr(Callback, name):
            if callable(getattr(one, f"on_{name}", None)):
                raise TypeError(f"{here} has a method on_{name}, which nobody calls; here it is called {name}")
            continue
        given = ("event", "record") if name == "epoch_end" else ("event",)
        with suppress(ValueError):  # something without a signature
            signature = inspect.signature(method)
            try:
                signature.bind(*given)
            except TypeError:
                raise TypeError(f"{here}.{name} is called with ({', '.join(given)}), and takes {signature}") from None


class Listeners:
    """The callbacks of a training, and when each is next to be told of a phase's progress."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        try:
            self.callbacks: Sequence[Any] = list(callbacks)
        except TypeError:
            raise TypeError(f"callbacks must be a list of callbacks, not {callbacks!r}") from None
        for one in self.callbacks:
            if isinstance(one, type) or not any(callable(getattr(one, name, None)) for name in EVENTS):
                raise TypeError(f"a callback must be an object with some of the methods {', '.join(EVENTS)}, not {one!r}")
            _check_methods(one)
            if (interval := getattr(one, "interval", None)) is not None:
                check_number(f"interval of {type(one).__name__}", interval, 1, whole=True)
        self._due: list[tuple[Callable[[Event], None], int | None, int]] = []

    def tell(self, name: str, event: Event, *more: Any) -> None:
        """Calls a method of all callbacks that have it."""
        for one in self.callbacks:
            if (method := getattr(one, name, None)) is not None:
                method(event, *more)

    def end(self, event: Event, error: BaseException) -> None:
        """`train_end` of all, because of an exception, which a further one does not replace."""
        event.error = error
        for one in self.callbacks:
            if (method := getattr(one, "train_end", None)) is not None:
                try:
                    method(event)
                except Exception as further:
                    error.add_note(f"train_end of {type(one).__name__} has failed, too: {type(further).__name__}: {further}")

    def begin(self, job: Job, phase: str, images: int, done: int) -> None:
        """A phase of so many images begins, some of which are done."""
        self._job, self._phase, self._images = job, phase, images
        self._at = self._first = done
        self._start = time.perf_counter()
        # a callback that inherits an empty `step` is no reason to look more often
        self._due = [
            (method, interval := getattr(one, "interval", None), _next(done, interval))
            for one in self.callbacks
            if (method := getattr(one, "step", None)) is not None and getattr(type(one), "step", None) is not Callback.step
        ]

    def pause(self) -> float:
        """Seconds until the next look, from the images' speed so far."""
        nearest = min((due for _, interval, due in self._due if interval), default=None)
        if nearest is None:
            return POLL
        passed, done = time.perf_counter() - self._start, self._at - self._first
        return min(max((nearest - self._at) * passed / done if done > 0 else passed, SHORTEST), POLL)

    def look(self, position: int, caught: Caught) -> None:
        """The phase has come to this image: calls `step` of those that are to hear of it."""
        if not self._due or caught.error is not None:
            return
        self._at = position
        event = Event(self._job, caught, len(self._job.history) + 1, self._phase, position, self._images)
        for k, (method, interval, due) in enumerate(self._due):
            if interval is None or position >= due:
                self._due[k] = (method, interval, _next(position, interval))
                try:
                    method(event)
                except Exception as error:  # raised when the workers of all ranks have stopped
                    caught.fail(error)
                    return


def _next(position: int, interval: int | None) -> int:
    return position - position % interval + interval if interval else 0
