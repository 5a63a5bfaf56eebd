"""Gossip: ranks average with a neighbour at a time. Imported by chaos.cluster."""

import numpy as np

from ..options import Option
from .mode import Mode


class Gossip(Mode):
    """Every `every` images of a rank it averages with neighbours; no step involves all ranks.

    graph=ring: x_i <- (x_{i-1} + x_i + x_{i+1}) / 3; exponential: in round t x_i <- (x_i + x_{i - 2^(t mod log2 ranks)})
    / 2; pairs: ranks are paired at random anew in each round, and each pair averages. What is evaluated and kept at the
    end of an epoch is the mean of all ranks, which go on with their own weights.

    Promises: the mean of the weights is unchanged by a round (up to rounding); the workers are never stopped. A rank waits,
    with its exchange, for its neighbours only. A resumed run has the mean, and starts all ranks there, whatever their
    number: their own weights are not kept.

    Sources: randomised gossip: Boyd et al. 2006; decentralised SGD: Lian et al. 2017 (arXiv:1705.09056); one-peer
    exponential graph: Assran et al. 2019 (arXiv:1811.10792), Ying et al. 2021 (arXiv:2110.13363)."""

    name = "gossip"
    options = {
        "every": Option(250, "images of a rank between two rounds", 1, 1 << 40, whole=True),
        "graph": Option("exponential", "who averages with whom", choices=("ring", "exponential", "pairs")),
        "seed": Option(0, "of the pairs", 0, 1 << 62, whole=True),
    }

    def __init__(self, options):
        super().__init__(options)
        if self.option["seed"] and self.option["graph"] != "pairs":
            raise ValueError(f"cluster mode 'gossip': option seed is of graph=pairs, not of graph={self.option['graph']}")

    def open(self, link, net, engine):
        super().open(link, net, engine)
        self._own = None
        self._x, self._delta, self._y = self.new(), self.new(), [self.new(), self.new()]

    def begin(self, epoch):
        if self._own is not None:
            self.weights[:] = self._own

    def partners(self, epoch, round):
        """[(rank to send to, rank to receive from), ...] of this rank in a round."""
        rank, size, graph = self.link.rank, self.link.size, self.option["graph"]
        if graph == "pairs":
            order = np.random.default_rng([self.option["seed"], epoch, round]).permutation(size)
            at = int(np.flatnonzero(order == rank)[0])
            return [(int(order[at ^ 1]),) * 2] if at ^ 1 < size else []
        if graph == "exponential" or size == 2:
            step = 1 << round % max((size - 1).bit_length(), 1)
            return [((rank + step) % size, (rank - step) % size)]
        right, left = (rank + 1) % size, (rank - 1) % size
        return [(right, left), (left, right)]

    def exchange(self, epoch):
        # as many rounds on every rank, so that nobody waits in vain; whoever is through early goes on answering
        rounds = -(-self.link.largest_shard // self.option["every"])
        for round in range(rounds):
            yield from self.link.until_images((round + 1) * self.option["every"])
            partners = self.partners(epoch, round)
            if not partners:
                continue
            stopping = self.link.stopping()
            self.now(self._x)
            self._delta.fill(0)
            heard = 0
            for (to, source), y in zip(partners, self._y, strict=False):
                # who has been told to stop sends nothing, to be through with the rounds soon
                count = yield from self.link.send_and_receive(self._x[:0] if stopping else self._x, to, y, source, round)
                if count and not stopping:
                    self._delta += y
                    self._delta -= self._x
                    heard += 1
            if heard:
                self.door.add_weights(self._delta, 1 / (len(partners) + 1))

    def finish(self, epoch):
        self._own = self.now(self._x).copy()
        self._message = self._x.copy()
        yield from self.link.sum(self._message)
        np.divide(self._message, self.link.size, out=self.weights)
