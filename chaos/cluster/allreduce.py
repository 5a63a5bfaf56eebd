"""Synchronous SGD: every step is one mini-batch over all ranks. Imported by chaos.cluster."""

import itertools
import queue
import threading
import time
from functools import partial

import numpy as np

from .. import _core
from ..arrays import aligned_zeros
from ..options import Option
from ..training import together
from .link import Part
from .mode import Mode

_GOES_ON, _STOP, _FAILED = range(3)
TOGETHER = 1 << 15  # bytes: a layer that is smaller travels with others


class Allreduce(Mode):
    """`synchronous` SGD over the workers of all ranks: `batch_size` images per step, one gradient, one update, which every
    rank makes for itself, so that weights and moments stay the same everywhere.

    The step is cut into lanes, which are dealt out to the ranks by their workers. As soon as back-propagation has completed
    a layer in all lanes of a rank (the last layer comes first) its gradient travels, while the workers go on with the layers
    before it; small layers travel with the one before them.

    deterministic=no: there is a lane for each worker (or as many over all ranks as option `lanes` of the strategy says);
    every rank adds its lanes, and the sums are added by MPI. deterministic=yes: the lanes are those of strategy
    `synchronous`; their gradients go to all ranks and are added one by one in their order, so the weights have the bits of
    one process with that strategy, for any number of ranks and workers, also when a run is interrupted and continued with
    another number. That moves lanes/ranks times as much.

    What an exchange can hide behind is the rest of back-propagation in a rank's last lane. With waves=k a rank forms its
    lanes in k parts, and the gradient of one part hides behind the next as well; deterministic=no then sends k times as
    much.

    Promises: no update is lost, none is stale; weights are the same bits on all ranks. A rank waits for all others in every
    step. It stops between steps; a run that is resumed has everything it had.

    Source: synchronous data-parallel SGD as in Das et al. 2016 (arXiv:1602.06709), who overlap it with back-propagation too.
    """

    name = "allreduce"
    beside = False
    in_step = True
    strategy = "synchronous"
    _columns = ()
    options = {
        "deterministic": Option("no", "add the lanes in a fixed order", choices=("no", "yes")),
        "waves": Option(1, "parts in which a step is formed and sent", 1, 1 << 16, whole=True),
    }

    def check(self, link, strategy, batch_size):
        if strategy != self.strategy:
            raise ValueError(
                f"cluster mode 'allreduce' is strategy 'synchronous' over all ranks, not {strategy!r}; choose "
                "strategy 'synchronous', and batch_size for the images of one step over all ranks"
            )

    def open(self, link, net, engine):
        from mpi4py import MPI

        super().open(link, net, engine)
        self._MPI, self._fixed = MPI, self.option["deterministic"] == "yes"
        workers = link.gather(engine.workers)
        self._workers = [0, *itertools.accumulate(workers)]
        wanted, size = link.strategy_options["lanes"], len(self.weights)
        self._lanes = (
            engine.lanes(wanted or 0)
            if self._fixed
            else min(wanted or self.option["waves"] * sum(workers), -(-engine.batch_size // net.plan.group))
        )
        self._group = net.plan.group
        # of all the step's lanes, or of this rank's
        rows = self._lanes if self._fixed else -(-self._lanes * workers[link.rank] // sum(workers))
        self.rows, self.reached, self.nodes = aligned_zeros((rows, size)), np.zeros(rows, np.int32), len(net.nodes())
        self.total, self._none = aligned_zeros(size), np.zeros(size, np.float32)
        self._sums = [self.total, *(self.new() for _ in range(0 if self._fixed else self.option["waves"] - 1))]
        self._blocks = _blocks([net.plan.block(node) for node in range(self.nodes)])
        # the block of one lane, as long as a row
        self._columns = [_column(MPI.FLOAT, end - first, size) for _, first, end in self._blocks] if self._fixed else []
        self._verdict = np.zeros(1, np.int64)
        self._usual = 0.0  # seconds from the beginning of a step until its first layer is there
        self._runner = _Steps(self)

    def close(self, net):
        for column in self._columns:
            column.Free()
        self._columns = ()

    def lanes(self, images):
        """Into how many lanes a step of so many images is cut."""
        return min(self._lanes, -(-images // self._group))

    def share(self, lanes, wave, rank):
        """The lanes [first, end) of a rank in a wave."""
        begin, end = self._workers[rank : rank + 2]
        waves, workers = self.option["waves"], self._workers[-1]
        return tuple(lanes * (begin * waves + part * (end - begin)) // (workers * waves) for part in (wave, wave + 1))

    def mine(self, lanes, wave):
        """This rank's share of a wave, and its places in `rows`: (first lane, slice)."""
        first, end = self.share(lanes, wave, self.link.rank)
        row = first if self._fixed else first - self.share(lanes, 0, self.link.rank)[0]
        return first, slice(row, row + end - first)

    def trains(self, engine):
        self._runner.begun = queue.SimpleQueue()
        return self._runner

    def idle_since(self):
        return self._runner.idle_since

    def exchange(self, epoch):
        steps = self._runner
        while (lanes := (yield from self._step_begins())) is not None:
            begun = time.monotonic()
            while (left := begun + 0.9 * self._usual - time.monotonic()) > 0 and not steps.formed.wait(min(left, 0.02)):
                yield 0
            parts = [*self._parts(lanes), Part(steps.formed.is_set, self._agree)]
            first = yield from self.link.in_parts(parts, steps.formed.wait)
            self._usual = first - begun
            steps.go_on(int(self._verdict[0]))

    def _step_begins(self):
        """Waits for it: the number of the step's lanes, None at the end of the phase."""
        while True:
            try:
                return self._runner.begun.get(timeout=0.005)  # wakes at once, and takes nothing from the workers meanwhile
            except queue.Empty:
                yield 0

    def _parts(self, lanes):
        """The step's gradient in the parts that travel, in the order in which back-propagation completes them."""
        make = self._lanes_to_all if self._fixed else self._sum
        for wave in range(self.option["waves"]):
            _, rows = self.mine(lanes, wave)
            for k, (node, _, _) in enumerate(self._blocks):
                yield Part(partial(self._is_there, self.reached[rows], node), *make(lanes, wave, rows, k))

    def _is_there(self, reached, node):
        return _core.reached(reached) <= node

    def _lanes_to_all(self, lanes, wave, rows, k):
        """A block of a wave's lanes to every rank."""
        _, first, end = self._blocks[k]
        shares = [self.share(lanes, wave, rank) for rank in range(self.link.size)]
        counts, places = [b - a for a, b in shares], [a for a, _ in shares]

        def start():
            to = [self.rows.ravel()[first:], counts, places, self._columns[k]]
            return self.link.comm.Iallgatherv(self._MPI.IN_PLACE, to)

        def complete():
            if wave == self.option["waves"] - 1:  # the other waves are there
                _core.add_rows(self.rows[:lanes, first:end], self.total[first:end])

        bytes = 4 * (end - first) * (rows.stop - rows.start)
        return start, complete, (end - first) / len(self.total) * sum(counts) / lanes, bytes

    def _sum(self, lanes, wave, rows, k):
        """The sum of a block of a wave's lanes over all ranks, into (or, after the first wave, on top of) the total."""
        _, first, end = self._blocks[k]
        to = self._sums[wave][first:end]

        def start():
            mine = self.rows[rows, first:end]
            if len(mine) > 1:
                _core.add_rows(mine, mine[0])
            # in place on no rank: libraries take another algorithm then, and a rank may have one lane, another two or none
            return self.link.comm.Iallreduce(mine[0] if len(mine) else self._none[first:end], to)

        def complete():
            if wave:
                self.total[first:end] += to

        return start, complete, (end - first) / len(self.total), self.link.bytes_of_sum(to)

    def _agree(self):
        """All lanes of this rank are there, or never will be: the ranks decide how to go on."""
        self._verdict[0] = max(self._runner.verdict, _STOP if self.link.stopping() else _GOES_ON)
        return self.link.comm.Iallreduce(self._MPI.IN_PLACE, self._verdict, self._MPI.MAX)

    def finish(self, epoch):
        return
        yield


def _blocks(layers):
    """What travels together, of (first, size) of every node's weights: [(the first node of it, first, end), ...], the last
    layers first. A message costs some 20 us, which is 100 KB of a fast network."""
    found = []
    for node, (first, size) in reversed(list(enumerate(layers))):
        if size and found and 4 * (found[-1][2] - found[-1][1]) < TOGETHER:
            found[-1] = (node, first, found[-1][2])
        elif size:
            found.append((node, first, first + size))
    return found


def _column(number, size, row):
    """The MPI type of `size` numbers of which there is one set in every `row` numbers."""
    block = number.Create_contiguous(size)
    column = block.Create_resized(0, row * number.size).Commit()
    block.Free()
    return column


class _Steps:
    """Runs a training phase step by step in the workers' thread; the thread that talks to MPI does the rest."""

    def __init__(self, mode):
        self.mode, self.begun = mode, None
        self.formed, self._decided = threading.Event(), threading.Event()
        self.position = self.verdict = 0
        self._asked, self.idle_since = False, None

    def stop(self):
        # The ranks agree on the end through `exchange`; this counts where nobody does that any more.
        self._asked = True

    def clear(self):
        self._asked = False

    def go_on(self, verdict):
        self.verdict = verdict
        self._decided.set()

    def run(self, what, *, inputs, labels, order, begin, lr, step_scale=None, key=0, weights=None):
        """A training phase, as `_core.Engine.run`; no update is stale, so step_scale is not used."""
        try:
            return self._run(dict(inputs=inputs, labels=labels, order=order, key=key, weights=weights), begin, lr)
        finally:
            self.begun.put(None)

    def _run(self, images, begin, lr):
        mode, engine, order = self.mode, self.mode.engine, images["order"]
        self.position, self.verdict, self.idle_since = begin, _GOES_ON, None
        # of no image: every count that there is, for a rank may have no lane of any step
        total = engine.run("train", **images, begin=begin, end=begin) | {"status": "done"}
        while self.position < len(order) and self.verdict == _GOES_ON:
            end = min(self.position + engine.batch_size, len(order))
            lanes, found = mode.lanes(end - self.position), []
            mode.reached.fill(mode.nodes)
            self.formed.clear()
            self.begun.put(lanes)
            for wave in range(mode.option["waves"]):
                first, rows = mode.mine(lanes, wave)
                if rows.start < rows.stop:
                    found.append(
                        mode.door.lane_gradients(
                            lanes, first, mode.rows[rows], begin=self.position, end=end, reached=mode.reached[rows], **images
                        )
                    )
                    if found[-1]["status"] != "done":
                        self.verdict = _FAILED
                        mode.reached.fill(0)  # nobody need wait for it
                        break
            self.idle_since = time.monotonic()
            self.formed.set()
            while not self._decided.wait(0.1):
                if self._asked and time.monotonic() - mode.link.driven > 1:
                    return total | {"status": "stopped"}
            self._decided.clear()
            self.idle_since = None
            if self.verdict == _FAILED:
                total["status"] = "diverged" if any(one["status"] == "diverged" for one in found) else "stopped"
                break
            applied = mode.door.apply(mode.total, lr)
            self.position = end
            if mode.link.rank == 0:  # the updates are the same on all ranks: they count once
                found.append(applied)
            for one in found:
                total |= {key: together(key, total[key], value) for key, value in one.items() if key not in _OWN}
        if total["status"] == "done" and self.position < len(order):
            total["status"] = "stopped"
        return total | {"position": self.position}


_OWN = ("status", "failed_at", "position")
