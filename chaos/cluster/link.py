"""The ranks of an MPI job as one training sees them: who is there, messages between them, what happens when one fails.

Only the thread that has called `chaos.train` talks to MPI, also beside running workers: MPI need not allow more
(MPI_THREAD_FUNNELED). Nothing here blocks inside MPI while a training runs: every request is polled, so that signals, the
other ranks' messages and the stall watchdog are looked after meanwhile, and no core is taken from the workers.
Imported by chaos.cluster.
"""

import os
import pickle
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..errors import ClusterError
from ..streams import tell
from ..training import Alone
from .agreement import differences
from .compress import Feedback, decode

_STOP, _HALT, _ASK, _STATE = range(4)
_SHORT, _LONG = 2e-5, 1e-3  # seconds between two looks at a request, first and last
_ASKED = (0.1, 0.75, 1)  # of stall_timeout: when the others are asked what they do, twice, and judged
_NAP = 5e-4  # between two looks at running workers: each takes some 30 us, perhaps from one of them


class Part(NamedTuple):
    """A part of an exchange, for `Link.in_parts`.

    Attributes
    ----------
    ready : callable
        Whether it may start.
    start : callable
        Starts it: the request. The ranks start their parts in the same order.
    complete : callable
        Called when the request is complete.
    share : float
        Of the exchange; this much of the delay that was asked for is its own.
    bytes : float
        That this rank sends.
    """

    ready: Callable[[], bool]
    start: Callable[[], Any]
    complete: Callable[[], None] = lambda: None
    share: float = 0.0
    bytes: float = 0.0


class Link(Alone):
    """What `chaos.training.train` knows of the other ranks.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Of more than one rank; all of them come here. Its messages and ours do not mix.
    stall_timeout : float
        Seconds after which a rank that neither answers nor moves on ends the job, as do ranks that all wait for each other;
        0: never.
    details : bool
        The records tell about every rank.
    delay : float
        Seconds that are added to every exchange, to try out slow networks.

    Attributes
    ----------
    mode : Mode
        Set by who has made the link.
    names : list of str
        Of the ranks, for messages.
    hosts : list of str
    driven : float
        When the exchange beside the workers was last looked after, on the clock of time.monotonic.
    largest_shard : int
        Images of the rank that has most in the training phase under way.
    agreed : bool
        All ranks are about to raise the same exception.
    """

    def __init__(self, comm, *, stall_timeout=300.0, details=False, delay=0.0):
        from mpi4py import MPI

        self._MPI = MPI
        self.comm, self._control = comm.Dup(), comm.Dup()
        self.rank, self.size = comm.rank, comm.size
        self.details, self.delay, self.stall_timeout = details, delay, stall_timeout
        self.agreed = self.halted = self._noticed = self._lagged = False
        self._caught = self._engine = self._future = self._steps = None
        self.driven = time.monotonic()
        self._told, self._outbox, self._states, self._waits = set(), [], {}, 0
        self._own_state = None
        self._restored = {}
        self._message = np.zeros(4, np.int64)
        self._inbox = self._control.Recv_init(self._message)
        self._inbox.Start()
        self._reset_counts()
        self.names = [f"rank {self.rank}"]
        known = self.gather((socket.gethostname(), os.getpid()))
        self.hosts = [host for host, _ in known]
        self.names = [f"rank {rank} ({host}, process {pid})" for rank, (host, pid) in enumerate(known)]

    # ---- what the training asks ----

    def checked(self, call):
        result = error = None
        try:
            result = call()
        except Exception as failure:
            error = failure
        told = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        if any(told):
            self.agreed = True
            if error is not None:
                raise error
            rank, text = next((rank, text) for rank, text in enumerate(told) if text)
            raise ClusterError(f"{self.names[rank]} cannot go on: {text}")
        return result

    def agree(self, mine):
        """`mine`, a dict, has to be the same on all ranks: else all raise ClusterError, which tells in what they differ."""
        text = differences(self.gather(mine))
        if text:
            self.agreed = True
            raise ClusterError(f"the {self.size} ranks of the job do not agree; different: {text}")

    @contextmanager
    def joined(self, job, caught):
        self._job, self._caught, self._engine = job, caught, job.engine
        self.strategy_options = job.settings.strategy_options
        job.history, job.partial = self.gather((job.history, job.partial) if self.rank == 0 else None)[0]
        self._versions(job.engine)
        for vector in (job.net.weights, *job.moments):
            if vector is not job.net.weights or not self.mode.one_vector:
                self.run(self.complete(self.comm.Ibcast(vector)))
        self.checked(lambda: self.mode.open(self, job.net, job.engine))
        for name, vector in self.state().items():
            if name in self._restored:  # on rank 0
                vector[:] = self._restored[name]
            self.run(self.complete(self.comm.Ibcast(vector)))
        self._restored = {}
        self.run(self.barrier())
        yield
        self.run(self.barrier())  # also waits for what rank 0 keeps
        self.mode.close(job.net)

    def _versions(self, engine):
        """All stripes have been updated as often as those of rank 0, for rules that count."""
        counts = np.array(engine.versions(), np.uint32)
        self.run(self.complete(self.comm.Ibcast(counts)))
        if len(counts):
            engine.versions(counts)

    def shard(self, images, rank):
        return images if self.mode.in_step else np.ascontiguousarray(images[rank :: self.size])

    def trains(self, engine):
        return self.mode.trains(engine)

    def position(self, runner):
        """An estimate: as if all were as far as this rank."""
        return runner.position * (1 if self.mode.in_step else self.size)

    def part(self, n):
        return self.rank * n // self.size, (self.rank + 1) * n // self.size

    def train_begins(self, epoch, images):
        self._reset_counts()
        _core.Exchange(self._engine).rewind()
        self.largest_shard = -(-images // self.size)
        self.mode.begin(epoch)
        places = self._job.net.frozen_places()
        self._frozen = places, self._job.net.weights[places]
        self._steps = self._training(epoch)

    def _training(self, epoch):
        yield from self.mode.exchange(epoch)
        # nobody's workers may be under way when the weights become those of all
        yield from self.barrier()
        yield from self.mode.finish(epoch)
        places, values = self._frozen
        self._job.net.weights[places] = values  # means of equal numbers may be rounded

    def watch(self, future, seconds):
        if future is not self._future:
            self._future, self._over_at = future, None
            future.add_done_callback(self._note_end)
        end = time.monotonic() + seconds
        while True:
            self.driven = time.monotonic()
            self._pulse()
            if self.stopping() and not self._noticed:
                self._noticed = True
                return False  # at once, so that the workers are told
            done = future.done()
            if done:
                if future.exception() is not None:
                    return True  # the training raises it, and this rank ends the job
                if future.result()["status"] == "diverged" and not self.halted:
                    self.halted = True
                    self._tell_all(_HALT)
            pause = seconds
            if self._steps is not None:
                try:
                    pause = next(self._steps) or 0
                except StopIteration:
                    self._steps = None
                    continue
            elif done:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            pause = min(pause, left)
            if pause > 2e-3 and not done:
                wait([future], pause)
            else:
                time.sleep(pause)

    def gather(self, mine):
        """What every rank has, in their order; any picklable values."""
        data = np.frombuffer(pickle.dumps(mine), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self.run(self.complete(self.comm.Iallgather(np.array([len(data)], np.int64), sizes)))
        all_data = np.empty(sizes.sum(), np.uint8)
        self.run(self.complete(self.comm.Iallgatherv(data, [all_data, sizes])))
        ends = np.cumsum(sizes)
        return [pickle.loads(all_data[end - size : end].tobytes()) for size, end in zip(sizes, ends, strict=True)]

    def report(self, results):
        counts = self.gather(self.counts)
        seconds = sum(c["exchange_seconds"] for c in counts)
        told = {
            "mode": self.mode.name,
            "options": self.mode.option,
            "ranks": self.size,
            "exchanges": sum(c["exchanges"] for c in counts),
            "bytes": sum(c["bytes"] for c in counts),
            "exchange_seconds": seconds,
            "overlap": sum(c["hidden_seconds"] for c in counts) / seconds if seconds else None,
        }
        every = self.mode.option.get("every")
        if every and results and told["exchanges"]:
            told["images_per_exchange"] = sum(one["images"] for one in results) / told["exchanges"]
            self._tell_lag(every, told["images_per_exchange"])
        if self.details and results:
            told["per_rank"] = [
                {
                    "rank": rank,
                    "host": self.hosts[rank],
                    **{
                        key: one[key]
                        for key in ("images", "errors", "loss", "seconds", "workers", "updates", "lock_failures")
                    },
                    **count,
                }
                for rank, (one, count) in enumerate(zip(results, counts, strict=True))
            ]
        return {"cluster": told}

    def _tell_lag(self, every, found):
        """Rank 0 says, once, that exchanges take so long that they come much later than was asked for."""
        if found > 1.5 * every and not self._lagged:
            self._lagged = True
            if self.rank == 0:
                tell(
                    f"chaos: the ranks exchange every {found:.0f} images of a rank, not every {every}: an exchange takes "
                    "longer than that, or the workers leave it no core; --cluster-option every=N asks for fewer"
                )

    def state(self):
        return {f"{self.mode.name}.{name}": vector for name, vector in self.mode.state().items()}

    def restore(self, state):
        self._restored = state

    def leave(self):
        self.run(self.barrier())
        self.agreed = True

    # ---- for the modes: generators, to be used with `yield from` ----

    def over(self):
        """Whether this rank's workers are through."""
        return self._future is not None and self._future.done()

    def until_over(self):
        while not self.over():
            yield 0.05

    def until_images(self, position, longest=0.05):
        """Until this rank's workers have picked so many images of their shard, or are through."""
        start, first = time.monotonic(), self._engine.position
        while not self.over():
            now = self._engine.position
            if now >= position:
                return
            passed = time.monotonic() - start
            rate = (now - first) / passed if now > first and passed > 0 else 0
            yield min(max(0.5 * (position - now) / rate if rate else _LONG, 5e-4), longest)

    def complete(self, *requests, longest=_LONG, status=None):
        """Until all requests are complete."""
        watchdog, pause = self._watchdog(), 0.0
        while not self._MPI.Request.Testall(requests, status):
            yield pause
            pause = min(max(2 * pause, _SHORT), longest)
            next(watchdog)

    def in_parts(self, parts, nap):
        """An exchange part by part, in their order, each started as soon as it is ready; when the first was (on the clock of
        time.monotonic).

        `nap(seconds)` waits while parts are not ready, at most until all are. Counted is the time in which any part is under
        way. The delay is that of a slow network: one part after the other, each its share."""
        ahead, under_way = deque(parts), deque()
        first = busy_since = watchdog = None
        due = pause = share = bytes = 0.0
        while ahead or under_way:
            now, before = time.monotonic(), len(under_way)
            while ahead and ahead[0].ready():
                part = ahead.popleft()
                due = max(due, now) + part.share * self.delay
                under_way.append((part, part.start(), due))
                share, bytes = share + part.share, bytes + part.bytes
            if first is None and under_way:
                first = now
            if busy_since is None and under_way:
                busy_since = now
            moved = len(under_way) > before
            while under_way and under_way[0][2] <= now and under_way[0][1].Test():
                under_way.popleft()[0].complete()
                moved = True
            if busy_since is not None and not under_way:
                self._count(busy_since, time.monotonic())
                busy_since = None
            if moved or watchdog is None:
                watchdog, pause = self._watchdog(), 0.0
            if ahead:
                nap(_NAP)
                yield 0
            elif under_way:
                yield pause
                pause = min(max(2 * pause, _SHORT), 1e-4)
            if under_way:
                next(watchdog)
        self.counts["exchanges"] += round(share)
        self.counts["bytes"] += int(bytes)
        return first

    def _watchdog(self):
        """To be asked again and again while waiting for the others: ClusterError where one of them has stalled, or where all
        wait. They are asked twice what they do, soon and late in a period, and judged at its end."""
        since = start = time.monotonic()
        asked = 0
        self._waits += 1
        while True:
            yield
            if self.stall_timeout and time.monotonic() - since > _ASKED[asked] * self.stall_timeout:
                if asked < 2:
                    asked += 1
                    if asked == 1:
                        self._states = {rank: [] for rank in range(self.size)}
                        self._own_state = self._state()
                    self._tell_all(_ASK)
                else:
                    self._judge(time.monotonic() - start)
                    since, asked = time.monotonic(), 0

    def barrier(self):
        yield from self.complete(self.comm.Ibarrier())

    @contextmanager
    def counted(self, bytes):
        """Counts what is inside as one exchange in which this rank sends so many bytes."""
        start = time.monotonic()
        yield
        self.counts["exchanges"] += 1
        self.counts["bytes"] += int(bytes)
        self._count(start, time.monotonic())

    def _count(self, start, end):
        """An exchange has been under way from `start` to `end`, and so perhaps were the workers."""
        self.counts["exchange_seconds"] += end - start
        self.counts["hidden_seconds"] += max(0.0, min(end, self.mode.idle_since() or self._over_at or end) - start)

    def slow_down(self):
        """The delay that was asked for."""
        end = time.monotonic() + self.delay
        while (left := end - time.monotonic()) > 0:
            yield min(left, 0.05)

    def sum(self, vector, feedback=None):
        """Replaces a float32 vector by its sum over the ranks, the same bits everywhere.

        With `feedback` (`two_feedbacks`) the messages are half as long: the vector is rounded, every rank adds up its
        part of it in float32, rounds the sum and sends it to all."""
        with self.counted(self.bytes_of_sum(vector) / (2 if feedback else 1)):
            if feedback is None:
                yield from self.complete(self.comm.Iallreduce(self._MPI.IN_PLACE, vector))
            else:
                mine, parts = feedback
                padded = np.zeros(len(mine.bits), np.float32)
                padded[: len(vector)] = vector
                received = np.empty_like(mine.bits)
                yield from self.complete(self.comm.Ialltoall(mine.encode(padded), received))
                rows = decode(received, mine.kind, padded).reshape(self.size, -1)
                total = np.empty_like(mine.bits)
                yield from self.complete(self.comm.Iallgather(parts.encode(rows.sum(0)), total))
                vector[:] = decode(total, mine.kind, padded)[: len(vector)]
            yield from self.slow_down()

    def maximum(self, numbers):
        """Replaces int64 numbers by the largest of all ranks."""
        yield from self.complete(self.comm.Iallreduce(self._MPI.IN_PLACE, numbers, self._MPI.MAX), longest=1e-4)

    def bytes_of_sum(self, vector):
        """What a rank sends for the sum of such vectors over the ranks, known to all afterwards, if it is done well."""
        return 2 * (self.size - 1) / self.size * vector.nbytes

    def two_feedbacks(self, n, kind):
        """What `sum` needs to round vectors of n numbers; None where `kind` is None."""
        part = -(-n // self.size)
        return kind and (Feedback(part * self.size, kind), Feedback(part, kind))

    def send_and_receive(self, vector, to, into, source, tag=0):
        """Sends `vector` to one rank while receiving `into` from another; how many numbers have come."""
        status = [self._MPI.Status(), self._MPI.Status()]
        with self.counted(vector.nbytes):
            yield from self.complete(self.comm.Irecv(into, source, tag), self.comm.Isend(vector, to, tag), status=status)
            yield from self.slow_down()
        return status[0].Get_count(self._MPI.FLOAT)

    def stopping(self):
        """Whether the workers have been told to stop before the end of their shard."""
        return bool(self.halted or (self._caught is not None and self._caught.signal))

    # ---- the rest ----

    def run(self, steps):
        """Runs a generator to its end; its result. For use while no workers run, or beside them where they do not matter."""
        while True:
            self._pulse()
            try:
                pause = next(steps)
            except StopIteration as end:
                return end.value
            time.sleep(pause or 0)

    def abort(self, error):
        """Ends the job because of an exception on this rank only."""
        text = "".join(traceback.format_exception(error)).rstrip()
        told = f"{self.names[self.rank]} ends the job:\n{text}".splitlines()
        tell("\n".join(f"[{self.rank}] {line}" for line in told))  # at once, or other ranks' lines come between
        time.sleep(0.2)  # launchers forward what was printed last
        self.comm.Abort(1)

    def close(self):
        """The ranks part; collective."""
        self.run(self.barrier())
        self._inbox.Cancel()
        self._inbox.Wait()
        self._inbox.Free()
        for request, _ in self._outbox:
            request.Wait()
        self.comm.Free()
        self._control.Free()

    def _reset_counts(self):
        self.counts = {"exchanges": 0, "bytes": 0, "exchange_seconds": 0.0, "hidden_seconds": 0.0}
        self._over_at = None

    def _note_end(self, future):
        self._over_at = time.monotonic()

    def _tell(self, rank, kind, a=0, b=0):
        message = np.array([kind, a, b, 0], np.int64)
        self._outbox.append((self._control.Isend(message, rank), message))

    def _tell_all(self, kind, a=0):
        for rank in range(self.size):
            if rank != self.rank:
                self._tell(rank, kind, a)

    def _pulse(self):
        """Takes and sends what the ranks have to tell each other besides weights; also lets MPI make progress."""
        status = self._MPI.Status()
        while self._inbox.Test(status):
            kind, a, b, _ = map(int, self._message)
            source = status.source
            self._inbox.Start()
            if kind == _STOP and self._caught is not None and not self._caught.signal:
                self._caught.signal = a
                self._told.add(a)  # the one who caught it has told the others
            elif kind == _HALT:
                self.halted = True
            elif kind == _ASK:
                self._tell(source, _STATE, *self._state())
            elif kind == _STATE and source in self._states:
                self._states[source].append((a, b))
        if self._caught is not None and self._caught.signal and self._caught.signal not in self._told:
            self._told.add(self._caught.signal)
            self._tell_all(_STOP, self._caught.signal)
        self._outbox = [(request, message) for request, message in self._outbox if not request.Test()]

    def _state(self):
        """(whether this rank waits for others, what changes when it moves on)."""
        position = self._engine.position if self._engine is not None else 0
        return int(self._engine is None or self.over()), self._waits << 40 | position

    def _judge(self, seconds):
        """Some time after having asked twice: ClusterError if a rank has not answered, or has neither worked nor waited, or
        if none has done anything but wait."""
        missing, resting = [], self._state()[0] and self._own_state == self._state()
        for rank, told in self._states.items():
            if rank == self.rank:
                continue
            still = len(told) > 1 and told[0] == told[-1]
            if not told:
                missing.append(f"{self.names[rank]} does not answer")
            elif still and not told[-1][0]:
                missing.append(f"{self.names[rank]} stands still at image {told[-1][1] & (1 << 40) - 1} of its shard")
            resting = resting and still
        after = f"for {seconds:.0f} s (--stall-timeout {self.stall_timeout:g})"
        if missing:
            raise ClusterError(f"stalled {after}: {'; '.join(missing)}")
        if resting:
            waits = {rank: told[-1][1] >> 40 for rank, told in self._states.items() if told} | {self.rank: self._waits}
            each = ", ".join(f"rank {rank} in its wait number {waits[rank]}" for rank in sorted(waits))
            raise ClusterError(
                f"deadlock: all {self.size} ranks have waited for each other {after}, and none has moved on: {each}"
            )
