"""Synchronous SGD: every step is one mini-batch over all ranks. Imported by chaos.cluster."""

import queue
import threading
import time

import numpy as np

from .. import _core
from ..network import aligned_zeros
from ..options import Option
from ..trainer import together
from .mode import Mode

_GOES_ON, _STOP, _FAILED = range(3)


class Allreduce(Mode):
    """`synchronous` SGD over the workers of all ranks: `batch_size` images per step, one gradient, one update, which every
    rank makes for itself, so that weights and moments stay the same everywhere.

    The step is cut into the lanes of strategy `synchronous`, and the lanes are dealt out to the ranks. deterministic=yes:
    the lanes' gradients go to all ranks and are added one by one in their order, so the weights have the bits of one
    process with strategy `synchronous`, for any number of ranks and workers, also when a run is interrupted and continued
    with another number. That moves lanes/ranks times as much as deterministic=no: every rank adds its lanes, and the sums
    are added by MPI, layer by layer, the last layer's first.

    With waves=k a rank forms its lanes in k parts, and the gradient of one part travels while the next is formed;
    deterministic =no then sends k times as much.

    Promises: no update is lost, none is stale; weights are the same bits on all ranks. A rank waits for all others in every
    step. It stops between steps.

    Source: synchronous data-parallel SGD as in Das et al. 2016 (arXiv:1602.06709), who overlap it with back-propagation too.
    """

    name = "allreduce"
    beside = False
    in_step = True
    options = {
        "deterministic": Option("no", "add the lanes in a fixed order", choices=("no", "yes")),
        "waves": Option(1, "parts in which a step is formed and sent", 1, 1 << 16, whole=True),
    }

    def check(self, link, strategy, batch_size):
        if strategy != "synchronous":
            raise ValueError(f"cluster mode 'allreduce' is strategy 'synchronous' over all ranks, not {strategy!r}; choose "
                             "strategy 'synchronous', and batch_size for the images of one step over all ranks")

    def open(self, link, net, engine):
        super().open(link, net, engine)
        self._batch = engine.batch_size
        wanted = link.strategy_options["lanes"]
        self._lanes = min(wanted or min(64, -(-self._batch // 4)), self._batch)
        self._rows = aligned_zeros((self._lanes, len(self.weights)))
        self._total, self._part = aligned_zeros(len(self.weights)), aligned_zeros(len(self.weights))
        # in the order in which back-propagation completes them
        blocks = [net.plan.block(node) for node in range(len(net.nodes()))]
        self._blocks = [(first, first + size) for first, size in reversed(blocks) if size]
        self._runner = _Steps(self)

    def lanes(self, images):
        """Into how many lanes a step of so many images is cut."""
        return min(self._lanes, images)

    def share(self, lanes, wave, rank):
        """The lanes [first, end) of a rank in a wave."""
        size, waves = self.link.size, self.option["waves"]
        return tuple(lanes * (rank * waves + part) // (size * waves) for part in (wave, wave + 1))

    def trains(self, engine):
        self._runner.waves = queue.SimpleQueue()
        return self._runner

    def idle_since(self):
        return self._runner.idle_since

    def exchange(self, epoch):
        steps = self._runner
        fixed, waves = self.option["deterministic"] == "yes", self.option["waves"]
        while True:
            lanes = yield from self._formed()
            if lanes is None:
                return
            for wave in range(waves):
                if wave:
                    yield from self._formed()
                if fixed:
                    yield from self._all_lanes(lanes, wave)
                else:
                    yield from self._sum(lanes, wave)
            if fixed and steps.verdict != _FAILED:
                _core.add_rows(self._rows[:lanes], self._total)
            verdict = np.array([max(steps.verdict, _STOP if self.link.stopping() else _GOES_ON)], np.int64)
            yield from self.link.maximum(verdict)
            steps.go_on(int(verdict[0]))

    def _formed(self):
        """Waits for this rank's lanes: their number in the whole step, None at the end of the phase."""
        while True:
            try:
                return self._runner.waves.get(timeout=0.005)  # wakes at once, and takes nothing from the workers meanwhile
            except queue.Empty:
                yield 0

    def _all_lanes(self, lanes, wave):
        """Every lane of a wave to every rank."""
        mine = sum(end - first for first, end in [self.share(lanes, wave, self.link.rank)])
        with self.link.counted(4 * len(self._total) * mine):
            yield from self.link.broadcasts([(self._rows[lane], rank) for rank in range(self.link.size)
                                             for lane in range(*self.share(lanes, wave, rank))])
            yield from self.link.slow_down()

    def _sum(self, lanes, wave):
        """The sum of a wave's lanes over all ranks, into (or, after the first wave, on top of) the total."""
        first, end = self.share(lanes, wave, self.link.rank)
        to = self._part if wave else self._total
        if first < end:
            _core.add_rows(self._rows[first:end], to)
        else:
            to.fill(0)
        yield from self.link.sums([to[first:end] for first, end in self._blocks])
        if wave:
            self._total += to

    def finish(self, epoch):
        return
        yield


class _Steps:
    """Runs a training phase step by step in the workers' thread; the thread that talks to MPI does the rest."""

    def __init__(self, mode):
        self.mode, self.waves = mode, None
        self._decided = threading.Event()
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

    def run(self, what, *, pixels, values, labels, order, begin, lr, step_scale=None):
        """A training phase, as `_core.Engine.run`; no update is stale, so step_scale is not used."""
        try:
            return self._run(dict(pixels=pixels, values=values, labels=labels, order=order), begin, lr)
        finally:
            self.waves.put(None)

    def _run(self, images, begin, lr):
        mode, engine, order = self.mode, self.mode.engine, images["order"]
        rank = mode.link.rank
        self.position, self.verdict, self.idle_since = begin, _GOES_ON, None
        total = {"status": "done", "failed_at": None, "position": begin}
        while self.position < len(order) and self.verdict == _GOES_ON:
            end = min(self.position + engine.batch_size, len(order))
            lanes, found = mode.lanes(end - self.position), []
            for wave in range(mode.option["waves"]):
                first, last = mode.share(lanes, wave, rank)
                if first < last and self.verdict != _FAILED:
                    found.append(engine.lane_gradients(lanes, first, mode._rows[first:last], begin=self.position, end=end,
                                                       **images))
                    if found[-1]["status"] != "done":
                        self.verdict = _FAILED
                self.waves.put(lanes)
            self.idle_since = time.monotonic()
            while not self._decided.wait(0.1):
                if self._asked and time.monotonic() - mode.link.driven > 1:
                    return total | {"status": "stopped"}
            self._decided.clear()
            self.idle_since = None
            if self.verdict == _FAILED:
                total["status"] = "diverged" if any(one["status"] == "diverged" for one in found) else "stopped"
                break
            applied = engine.apply(mode._total, lr)
            self.position = end
            for one in [*found, applied] if rank == 0 else found:  # the updates are the same on all ranks: they count once
                counts = {key: value for key, value in one.items() if key not in _OWN}
                total |= {key: together(key, total[key], value) if key in total else value for key, value in counts.items()}
        if total["status"] == "done" and self.position < len(order):
            total["status"] = "stopped"
        return {**_nothing(engine), **total, "position": self.position}


_OWN = ("status", "failed_at", "position")


def _nothing(engine):
    """Counts of a rank that had no image."""
    return {"images": 0, "errors": 0, "loss": 0.0, "updates": 0, "lock_failures": 0, "give_ways": 0, "staleness_sum": 0,
            "staleness_max": 0, "staleness": [], "layers": {}, "worker_images": [0] * engine.workers,
            "time": {"total": 0.0, "forward": 0.0, "backward": 0.0, "publish": 0.0, "wait": 0.0}}
