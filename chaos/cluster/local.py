"""Local SGD: ranks train alone and average now and then. Imported by chaos.cluster."""

import numpy as np

from ..options import Option
from .mode import COMPRESS, Mode


class Local(Mode):
    """Every rank trains on its own weights; every `every` images of a rank the weights are averaged.

    The average is taken while the workers go on: what they have added meanwhile stays. With all ranks' weights x_i, their
    common start a and mean m, an exchange replaces a by a' = a + s and x_i by a' + (x_i - x_i'), x_i' being what was sent;
    s = m - a, or the step of an outer optimizer with Nesterov momentum on the "gradient" a - m. Without momentum the mean of
    the weights is unchanged by an exchange. At the end of an epoch all ranks hold the same bits.

    Promises: every image's update enters with weight 1/ranks; nothing is lost but rounding; same result on all ranks. A
    resumed run has the outer momentum and, with `epochs`, the common start, whatever the number of ranks: with `every` it
    goes on as if it had not been stopped, but for an average where it was; with `epochs` and one worker per rank, the same
    number of ranks and an update rule without moments, stopped after an average, it gets the same bits. Stopped in between,
    all ranks start again at the mean of their weights, which the next average measures from the common start as before.

    Sources: local SGD (Stich 2019, arXiv:1805.09767); post-local warm-up (Lin et al. 2020, arXiv:1808.07217); outer
    momentum: DiLoCo (Douillard et al. 2023, arXiv:2311.08105), whose values are outer_lr 0.7, outer_momentum 0.9."""

    name = "local"
    options = {
        "every": Option(1000, "images of a rank between two averages", 1, 1 << 40, whole=True),
        "epochs": Option(None, "instead of `every`: average only at the end of each so many epochs", 1, 1 << 31, whole=True),
        "warmup": Option(
            0, "epochs at the beginning in which averaging never pauses (post-local SGD)", 0, 1 << 31, whole=True
        ),
        "outer_lr": Option(1.0, "step of the outer optimizer", 0, above=True),
        "outer_momentum": Option(0.0, "Nesterov momentum of the outer optimizer", 0, 0.999999),
        "compress": COMPRESS,
    }

    def __init__(self, options):
        super().__init__(options)
        if "every" in options and self.option["epochs"]:
            raise ValueError("cluster mode 'local': either option every or option epochs, not both")
        self.beside = self.option["epochs"] is None or self.option["warmup"] > 0

    def open(self, link, net, engine):
        super().open(link, net, engine)
        self._anchor = self.weights.copy()
        self._own = None  # what training goes on with where it is not what was evaluated
        self._speed = self.new()
        self._x, self._delta, self._message = self.new(), self.new(), self.new(1)
        self._feedback = link.two_feedbacks(len(self._message), self.option["compress"])

    def state(self):
        return ({"speed": self._speed} if self.option["outer_momentum"] else {}) | (
            {"anchor": self._anchor} if self.option["epochs"] else {}
        )

    def begin(self, epoch):
        if self._own is not None:
            self.weights[:] = self._own
            self._own = None

    def exchange(self, epoch):
        if self._rests(epoch):
            yield from self.link.until_over()
            return
        every = 1 if epoch <= self.option["warmup"] else self.option["every"]
        next_at = every
        while True:
            yield from self.link.until_images(next_at)
            next_at = self.engine.position + every
            over = self.link.over()  # before reading: the weights are final then
            self.now(self._x)
            if (yield from self._average(over)):
                return

    def _average(self, over=False):
        """One exchange of the weights in _x; whether it was the last because all workers are through."""
        message, x = self._message, self._x
        np.subtract(x, self._anchor, out=message[:-1])
        message[-1] = 0 if over else 1
        yield from self.link.sum(message, self._feedback)
        step = message[:-1]
        step /= self.link.size
        if self.option["outer_momentum"] or self.option["outer_lr"] != 1:
            momentum = np.float32(self.option["outer_momentum"])
            self._speed *= momentum
            self._speed += step
            step += momentum * self._speed
            step *= np.float32(self.option["outer_lr"])
        self._anchor += step
        if message[-1] == 0:  # every rank's workers were at rest when it was sent
            self.weights[:] = self._anchor
            return True
        np.subtract(self._anchor, x, out=self._delta)
        self.door.add_weights(self._delta)
        return False

    def _rests(self, epoch):
        """Whether nothing is exchanged before the end of an epoch."""
        return self.option["epochs"] is not None and epoch > self.option["warmup"]

    def finish(self, epoch):
        if not self._rests(epoch):
            return
        self.now(self._x)
        if epoch % self.option["epochs"] == 0 and not (yield from self._stopped()):
            yield from self._average(over=True)
        else:  # the mean is evaluated, the ranks go on with what they have
            self._own = self._x.copy()
            np.copyto(self._message[:-1], self._x)
            yield from self.link.sum(self._message)
            np.divide(self._message[:-1], self.link.size, out=self.weights)

    def _stopped(self):
        """Whether any rank has been told to stop: then the epoch is not over."""
        told = np.array([self.link.stopping()], np.int64)
        yield from self.link.maximum(told)
        return bool(told[0])
