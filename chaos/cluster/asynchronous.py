"""CHAOS across nodes: ranks add what they have learned to weights that are spread over all of them. Imported by
chaos.cluster."""

import numpy as np

from ..options import Option
from .mode import Mode
from .window import Window


class Async(Mode):
    """One weight vector in an MPI window, its stripes spread over the ranks; each rank trains on a copy.

    Every `every` images a rank sends, in arbitrary order over the owners and without anybody's help, what its workers
    have added to the copy since the last time, and takes what the others have added: one fetch-and-add per owner, atomic
    for every weight. Its workers go on meanwhile. So updates enter in full (not averaged, as in `local`): P ranks behave
    as P times the workers, with an update that is late by up to `every` images of each rank. With many ranks a smaller
    learning rate, or a smaller `every`, keeps that stable.

    Promises: no update is lost or entered twice: the weights at the end are those at the beginning plus the sum of all
    updates (up to rounding); no rank waits for another inside an epoch. A run that is resumed has all of them.

    Sources: CHAOS (Viebke et al. 2017, arXiv:1702.07908), whose layer-wise publication in arbitrary order this continues
    between processes; Downpour SGD (Dean et al. 2012) for parameter servers.
    """

    name = "async"
    _window = None
    options = {"every": Option(100, "images of a rank between two exchanges", 1, 1 << 40, whole=True)}

    def open(self, link, net, engine):
        super().open(link, net, engine)
        self._window = Window(link, [engine.stripe(k) for k in range(engine.stripes)], self.weights)
        self._base, self._x, self._message, self._old = (self.new() for _ in range(4))

    def begin(self, epoch):
        self._base[:] = self.weights  # which are those in the window

    def exchange(self, epoch):
        next_at = self.option["every"]
        while True:
            yield from self.link.until_images(next_at, longest=2e-3)
            if self.link.over():
                return
            next_at = self.next_exchange(next_at)
            with self.link.counted(4 * len(self._x)):
                yield from self._push()
                self._old += self._message
                np.subtract(self._old, self._x, out=self._message)
                self.door.add_weights(self._message)
                self._base, self._old = self._old, self._base
                yield from self.link.slow_down()

    def _push(self):
        self.now(self._x)
        np.subtract(self._x, self._base, out=self._message)
        yield from self._window.fetch_and_add(self._message, self._old)

    def finish(self, epoch):
        with self.link.counted(4 * len(self._x)):
            yield from self._push()
            yield from self.link.barrier()
            yield from self._window.get(self.weights)
            yield from self.link.barrier()  # nobody adds before all have read

    def close(self, net):
        if self._window is not None:
            self._window.close()
            self._window = None
