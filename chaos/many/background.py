"""A training in a thread of its own, for programs that do something else meanwhile. Imported by chaos.many."""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from .. import api
from ..network import Network
from ..training import Run
from .stopper import Stopper


class _Watch(Stopper):
    """Keeps the records; ends the training, too, when the program has come to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, Any]] = []
        self.main = threading.main_thread()

    def look(self, event: Any) -> None:
        if self.asked or not self.main.is_alive():
            event.stop()

    def epoch_end(self, event: Any, record: dict[str, Any]) -> None:
        self.history.append(record)
        self.look(event)


class Training:
    """A training that runs in a thread; made by `train_async`. It can be awaited; where the task that awaits it is cancelled
    the training stops. As a context manager it stops the training at the end of the block and waits for it.

    Attributes
    ----------
    network : Network
        Must be left alone while the training runs, but for predictions.
    history : list of dict
        The records of the epochs finished so far, as in `Run.history`.
    """

    def __init__(self, network: Network, arguments: dict[str, Any], positional: tuple[Any, ...]) -> None:
        self.network = network
        self._watch = _Watch()
        self._future: Future[Run] = Future()
        callbacks = [self._watch, *(arguments.pop("callbacks", None) or ())]

        def run() -> None:
            try:
                self._future.set_result(api.train(network, *positional, callbacks=callbacks, **arguments))
            except BaseException as error:
                self._future.set_exception(error)

        self._thread = threading.Thread(target=run, name="chaos-training")
        self._thread.start()

    @property
    def history(self) -> list[dict[str, Any]]:
        return list(self._watch.history)

    def stop(self) -> None:
        """Ends the training soon, as a callback's `event.stop()`; returns at once."""
        self._watch.set()

    def done(self) -> bool:
        """Whether it is over, in whatever way."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Run:
        """Waits for the end: what `chaos.train` returns, or raises. TimeoutError after `timeout` seconds; the training goes
        on."""
        return self._future.result(timeout)

    async def _wait(self) -> Run:
        import asyncio  # whoever awaits has loaded it, others need not

        try:
            return await asyncio.shield(asyncio.wrap_future(self._future))
        except asyncio.CancelledError:
            self.stop()
            raise

    def __await__(self) -> Generator[Any, None, Run]:
        return self._wait().__await__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._thread.join()

    def __repr__(self) -> str:
        return f"<Training: {'over' if self.done() else 'under way'}, {len(self._watch.history)} epochs>"


def train_async(net: Network, *data: Any, **settings: Any) -> Training:
    """Starts `chaos.train` in a thread of its own and returns at once.

    The training has the same result as `chaos.train`. Ctrl-C and SIGTERM are not looked after: they are the caller's, who
    calls `stop`. A program that comes to its end stops it.

    Parameters
    ----------
    net : Network
    *data : Dataset
        The training set, and the test set if there is one.
    **settings
        As for `chaos.train`.

    Returns
    -------
    Training

    Examples
    --------
    >>> training = chaos.train_async(net, train, epochs=100)  # doctest: +SKIP
    >>> run = await training  # or training.result()  # doctest: +SKIP
    """
    return Training(net, dict(settings), data)
