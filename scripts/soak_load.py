"""Far more workers than cores for a long time, while the process is stopped and continued (SIGSTOP, SIGCONT), loses CPUs by
its affinity mask and gets them back: no deadlock, every image visited once, resident memory flat.

    scripts/soak_load.py --workers 244 --minutes 60
"""

import faulthandler
import os
import random
import signal
import subprocess
import sys
import threading
import time

import soaking

import chaos
from chaos.sync import STRATEGIES

STOPPER = """
import os, random, signal, sys, time
rng, pid = random.Random(1), int(sys.argv[1])
while os.getppid() == pid:
    time.sleep(rng.uniform(0.5, 2))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(rng.uniform(0, 0.5))
    os.kill(pid, signal.SIGCONT)
"""


def main():
    parser = soaking.parser(__doc__)
    parser.add_argument("--workers", type=int, default=244)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--hang", type=float, default=600, help="seconds after which a training counts as a deadlock")
    asked = parser.parse_args()
    train, _ = chaos.data.load("digits", size=29)
    rng, cpus, wrong, memory, counts = random.Random(0), sorted(os.sched_getaffinity(0)), [], [], {}
    over = threading.Event()

    def take_cpus_away():
        while not over.wait(rng.uniform(0.2, 1)):
            os.sched_setaffinity(0, rng.sample(cpus, rng.randint(1, len(cpus))))

    stopper = subprocess.Popen([sys.executable, "-c", STOPPER, str(os.getpid())])
    thread = threading.Thread(target=take_cpus_away)
    thread.start()
    end = time.monotonic() + 60 * asked.minutes
    several = [name for name, strategy in STRATEGIES.items() if not strategy.single]
    try:
        while time.monotonic() < end or len(counts) < len(several):
            strategy = several[sum(counts.values()) % len(several)]
            faulthandler.dump_traceback_later(asked.hang, exit=True)
            net = chaos.models.small(seed=0)
            (record,) = chaos.train(
                net, train, strategy=strategy, workers=asked.workers, batch_size=2, epochs=1, lr=1e-4, progress=False
            ).history
            faulthandler.cancel_dump_traceback_later()
            if sum(record["worker_images"]) != len(train):
                wrong.append(f"{strategy}: {sum(record['worker_images'])} images of {len(train)}")
            counts[strategy] = counts.get(strategy, 0) + 1
            if sum(counts.values()) % len(several) == 0:
                memory.append(soaking.resident())
    finally:
        over.set()
        thread.join()
        stopper.kill()
        stopper.wait()
        os.kill(os.getpid(), signal.SIGCONT)
        os.sched_setaffinity(0, cpus)
    if len(memory) > 5 and memory[-1] > 1.02 * memory[len(memory) // 5]:
        wrong.append(f"resident memory has grown from {memory[len(memory) // 5]:,} to {memory[-1]:,} bytes")
    results = {"workers": asked.workers, "minutes": asked.minutes, "trainings": counts, "resident": memory[-1:]}
    return soaking.finish(asked, results, wrong)


if __name__ == "__main__":
    raise SystemExit(main())
