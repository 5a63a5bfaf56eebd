"""One process per side, started first and asleep while another has its turn. For the run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time

from .pipe import receive, report_failure
from .sides import SIDES


def _serve(pipe, system, threads):
    """The life of a side's process: blocks on the pipe, does what it is told, answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipe
    sides, asleep_since = {}, None
    try:
        while True:
            command, *rest = pipe.recv()
            idle = 0.0 if asleep_since is None else time.process_time() - asleep_since
            if command == "prepare":
                for side in sides.values():
                    side.close()
                what, job, batches = rest
                sides = {}
                for batch in batches:
                    sides[batch] = SIDES[what][system](job, threads, batch)
                answer = {batch: side.variant for batch, side in sides.items()}
            elif command == "turn":
                batch, seconds = rest
                done, passed, cpu = sides[batch].turn(seconds)
                answer = {
                    "images": done,
                    "seconds": passed,
                    "cpu_seconds": cpu,
                    "idle_cpu_seconds": idle + sides[batch].helpers_idle,
                }
            else:
                answer = sides[rest[0]].loss()
            time.sleep(0.02)  # OpenMP's threads spin for a few milliseconds after their work: not into the next turn
            asleep_since = time.process_time()
            pipe.send(answer)
    except EOFError:
        pass
    except Exception:
        report_failure(pipe)
    finally:
        for side in sides.values():
            side.close()


class Process:
    """A side's process, seen from the parent.

    Parameters
    ----------
    system : str
        One of SIDES.
    threads : int
        Of the system; for Hogwild the number of processes, which have one thread each.
    """

    def __init__(self, system, threads):
        self.system, self.threads = system, threads
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        inner = 1 if system == "PyTorch Hogwild" else threads
        with _environment(
            CHAOS_NUM_THREADS=threads,
            OMP_NUM_THREADS=inner,
            MKL_NUM_THREADS=inner,
            OPENBLAS_NUM_THREADS=1,
            JAX_PLATFORMS="cpu",
        ):
            self.process = context.Process(target=_serve, args=(theirs, system, threads))
            self.process.start()
        theirs.close()

    def ask(self, *command):
        self.pipe.send(command)
        return receive(self.pipe)

    def close(self):
        self.pipe.close()
        self.process.join(60)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


@contextlib.contextmanager
def _environment(**values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
