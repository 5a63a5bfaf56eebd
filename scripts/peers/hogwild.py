"""Competitor: PyTorch's own Hogwild recipe, parameters in shared memory and a process per core. For sides."""

from __future__ import annotations

import signal
import time

from .pipe import receive, report_failure
from .pytorch import TorchSide, torch_twin


class HogwildSide(TorchSide):
    """PyTorch's own Hogwild recipe: parameters in shared memory, a process per core, one thread each."""

    def set_up(self):
        import torch.multiprocessing as mp

        processes, self.threads = self.threads, 1
        self.helpers = []  # before anything can fail: close() looks at it
        self.shared = torch_twin(self.job["network"]).share_memory()
        super().set_up()
        context = mp.get_context("spawn")
        for i in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_helper, args=(theirs, self.job, self.batch, self.shared, i / processes))
            process.start()
            theirs.close()
            self.helpers.append((ours, process))

    def warm_up(self):
        for helper, _ in self.helpers:
            receive(helper)

    def work(self, seconds):
        for helper, _ in self.helpers:
            helper.send(seconds)
        parts = [receive(helper) for helper, _ in self.helpers]
        begin, end = min(p[1] for p in parts), max(p[2] for p in parts)
        self.helpers_idle = sum(p[4] for p in parts)
        return sum(p[0] for p in parts), end - begin, sum(p[3] for p in parts)

    def close(self):
        for helper, process in self.helpers:
            helper.close()
            process.join()


def _helper(pipe, job, batch, shared, offset):
    """A worker of HogwildSide: trains on the shared tensors when told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        side = type("HogwildWorker", (TorchSide,), {"shared": shared})(job, 1, batch)
        side.at = int(len(side.y) * offset) // batch * batch
        pipe.send(None)
        asleep_since = time.process_time()
        while True:
            seconds = pipe.recv()
            idle = time.process_time() - asleep_since
            begin = time.perf_counter()  # one clock for all processes
            done, passed, cpu = side.work(seconds)
            asleep_since = time.process_time()
            pipe.send((done, begin, begin + passed, cpu, idle))
    except EOFError:
        return
    except Exception:
        report_failure(pipe)
