"""Many short trainings, evaluations and predictions in one process, under changing strategies, rules and numbers of workers:
its resident memory, its threads, its open files and its signal handlers have to stay as they are.

    scripts/soak_trainings.py --count 1000
"""

import os
import signal
import threading
from pathlib import Path

import soaking

import chaos
from chaos.sync import STRATEGIES


def main():
    parser = soaking.parser(__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--growth", type=float, default=0.02, help="of resident memory after the first fifth that is allowed"
    )
    asked = parser.parse_args()
    train, test = chaos.data.load("digits", size=29)
    strategies, memory, wrong = list(STRATEGIES), [], []

    def once(k):
        strategy = strategies[k % len(strategies)]
        net = chaos.models.small(seed=k)
        options = dict(workers=1 if STRATEGIES[strategy].single else 1 + k // 7 % 3, update=("sgd", "adam")[k % 2])
        chaos.train(net, train[:40], test[:10], strategy=strategy, epochs=1, batch_size=4, progress=False, **options)
        chaos.evaluate(net, test[:10], workers=2)
        net.predict(test.images[:10])

    def left():
        return {
            "threads": threading.active_count(),
            "files": len(os.listdir("/proc/self/fd")),
            "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
            "cpus": sorted(os.sched_getaffinity(0)),
            "directory": str(Path.cwd()),
        }

    for k in range(asked.count):
        once(k)
        if k == len(strategies) * 6:
            before = left()
        if (k + 1) % max(asked.count // 50, 1) == 0:
            memory.append(soaking.resident())
    settled, end = memory[len(memory) // 5], memory[-1]
    if end > (1 + asked.growth) * settled:
        wrong.append(f"resident memory has grown from {settled:,} to {end:,} bytes")
    if asked.count > len(strategies) * 6 and left() != before:
        wrong.append(f"not as it was: {before} then, {left()} now")
    results = {"trainings": asked.count, "resident after a fifth": settled, "resident at the end": end}
    about = {key: value for key, value in left().items() if key != "directory"}  # whose name is nobody's business
    return soaking.finish(asked, results | {"growth": end / settled - 1, "left": about}, wrong)


if __name__ == "__main__":
    raise SystemExit(main())
