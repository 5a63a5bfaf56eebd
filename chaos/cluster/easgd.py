"""Elastic averaging: ranks train alone, tied to a common centre. Imported by chaos.cluster."""

import numpy as np

from ..options import Option
from .mode import COMPRESS, Mode
from .window import Window


class EASGD(Mode):
    """Every `every` images of a rank, its weights x_i and the centre c are pulled together: e_i = alpha (x_i - c), x_i <-
    x_i - e_i, c <- c + sum of the e_i. What is evaluated and kept is the centre; the ranks go on with their own weights.

    timing=sync: all ranks pull at once (one sum over the ranks; the centre is everywhere the same). timing=async: each rank
    by itself, against a centre spread over the ranks' memories.

    Promises: centre + sum of the x_i is unchanged by a pull (up to rounding); the workers are never stopped. A resumed run
    has the centre and starts all ranks there, whatever their number: their own weights are not kept. The centre lags behind
    the ranks: with few pulls per epoch it has learned less than they.

    Source: Zhang, Choromanska, LeCun 2015 (arXiv:1412.6651): alpha = beta / ranks, beta = 0.9; the synchronous form on
    many-core clusters: You, Buluc, Demmel 2017 (arXiv:1708.02983).
    """

    name = "easgd"
    _window = None
    options = {
        "every": Option(250, "images of a rank between two pulls", 1, 1 << 40, whole=True),
        "beta": Option(0.9, "alpha is beta / ranks", 0, 1, above=True),
        "timing": Option("sync", "all ranks pull at once, or each by itself", choices=("sync", "async")),
        "compress": COMPRESS,
    }

    def __init__(self, options):
        super().__init__(options)
        if self.option["timing"] == "async" and self.option["compress"]:
            raise ValueError("cluster mode 'easgd': compress works with timing=sync only, because the window adds float32")

    def open(self, link, net, engine):
        super().open(link, net, engine)
        self._alpha = np.float32(self.option["beta"] / link.size)
        self._centre, self._own = self.weights.copy(), None
        self._x, self._e, self._message = self.new(), self.new(), self.new(1)
        self._feedback = link.two_feedbacks(len(self._message), self.option["compress"])
        if self.option["timing"] == "async":
            self._window = Window(link, [engine.stripe(k) for k in range(engine.stripes)], self.weights)

    def begin(self, epoch):
        if self._own is not None:
            self.weights[:] = self._own

    def exchange(self, epoch):
        next_at = self.option["every"]
        while True:
            yield from self.link.until_images(next_at, longest=2e-3 if self._window else 0.05)
            next_at = self.next_exchange(next_at)
            over = self.link.over()
            if self._window is None:
                if (yield from self._pull_together(over)):
                    return
            else:
                with self.link.counted(4 * len(self._x)):
                    yield from self._window.get(self._centre)
                    yield from self._pull(self._window)
                    yield from self.link.slow_down()
                if over:
                    return

    def _pull(self, window=None):
        """This rank's half of a pull."""
        self.now(self._x)
        np.subtract(self._x, self._centre, out=self._e)
        self._e *= self._alpha
        if window is not None:
            yield from window.fetch_and_add(self._e, self._x)
        self.door.add_weights(self._e, -1.0)

    def _pull_together(self, over):
        yield from self._pull()
        self._message[:-1] = self._e
        self._message[-1] = 0 if over else 1
        yield from self.link.sum(self._message, self._feedback)
        self._centre += self._message[:-1]
        return self._message[-1] == 0

    def finish(self, epoch):
        self._own = self.now(self._x).copy()
        if self._window is not None:
            yield from self.link.barrier()
            yield from self._window.get(self._centre)
            yield from self.link.barrier()
        self.weights[:] = self._centre

    def close(self, net):
        if self._window is not None:
            self._window.close()
            self._window = None
