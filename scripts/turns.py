"""Two builds in turns: a process of each waits for its turn, so that a drift of the machine meets both. Imported by
scripts/telemetry_cost.py and scripts/same_speed.py."""

import json
import subprocess

import numpy as np

RESAMPLES = 10_000


class Side:
    """A process that does what a line of JSON says and answers with one.

    Parameters
    ----------
    words : list of str
        What starts it.
    **how
        As for subprocess.Popen.
    """

    def __init__(self, words, **how):
        self.words = list(map(str, words))
        self.process = subprocess.Popen(self.words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def hear(self):
        """The next line that it says; SystemExit where it has ended instead."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.words[0]}: ended with exit code {self.process.wait()}")
        return json.loads(line)

    def ask(self, **what):
        """The answer to one line."""
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.hear()


def pairs(sides, count, turn):
    """[(turn(first side), turn(second side)), ...], alternating which of the two comes first: A B B A ..."""
    found = []
    for number in range(count):
        took = {which: turn(sides[which]) for which in ((0, 1) if number % 2 else (1, 0))}
        found.append((took[0], took[1]))
    return found


def extra(pairs, seed=0):
    """(median, lower, upper) of the extra time of the first of each pair, as a fraction of the second: the 95 % percentile
    bootstrap interval of the median."""
    rng, found = np.random.default_rng(seed), np.array([a / b - 1 for a, b in pairs])
    medians = np.median(found[rng.integers(0, len(found), (RESAMPLES, len(found)))], 1)
    return float(np.median(found)), *(float(q) for q in np.quantile(medians, [0.025, 0.975]))
