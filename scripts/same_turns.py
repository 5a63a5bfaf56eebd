"""One installation's turns for scripts/same_speed.py, which starts this file with that installation's Python; not for
anybody else. Only the public face of chaos is used. A line of JSON asks, a line answers:

{"do": "describe"}                                          version, commit, instruction set, machine
{"do": "digest", "net", "batch_size"}                       SHA-256 of the weights after an epoch of 200 images, one worker
{"do": "case", "net", "workers", "batch_size", "images"}    what is trained from now on
{"do": "turn"}                                              seconds of the training phase of one epoch
"""

import hashlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import chaos

RATE = 1e-4  # small: the time does not depend on it, and no number of turns must make the training diverge


def describe():
    facts, root, commit = chaos.info(), Path(inspect.getfile(chaos)).resolve().parent.parent, None
    if (root / ".git").exists():
        done = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True)
        commit = done.stdout.strip() or None
    return {
        **{key: facts[key] for key in ("chaos", "isa", "build", "python", "numpy", "platform")},
        "commit": commit,
        "cpu": facts["topology"]["cpu"],
        "cores": facts["topology"]["cores"],
        "threads": {key: value for key, value in os.environ.items() if key.startswith(("OMP_", "GOMP_", "CHAOS_"))},
    }


class Turns:
    """What is trained, and on what."""

    def __init__(self, strategy):
        self.strategy, self.digits = strategy, {}

    def data(self, net, images):
        size = net.input_shape[1:]
        if size not in self.digits:
            self.digits[size] = chaos.data.load("digits", size=size)[0]
        digits = self.digits[size]
        return digits[np.arange(images) % len(digits)]

    def train(self, net, data, workers, batch_size):
        settings = {"workers": workers, "batch_size": batch_size, "strategy": self.strategy, "lr": RATE}
        return chaos.train(net, data, epochs=1, progress=False, **settings).history[-1]["seconds"]

    def describe(self):
        return describe()

    def digest(self, net, batch_size):
        net, found = getattr(chaos.models, net)(seed=0), hashlib.sha256()
        self.train(net, self.data(net, 200), 1, batch_size)
        for name, value in net.state_dict().items():
            found.update(name.encode() + str(value.shape).encode() + np.ascontiguousarray(value).tobytes())
        return found.hexdigest()

    def case(self, net, workers, batch_size, images):
        self.net = getattr(chaos.models, net)(seed=0)
        self.asked = self.data(self.net, images), workers, batch_size

    def turn(self):
        return self.train(self.net, *self.asked)


def main():
    turns = Turns(sys.argv[1])
    for line in sys.stdin:
        what = json.loads(line)
        print(json.dumps(getattr(turns, what.pop("do"))(**what)), flush=True)


if __name__ == "__main__":
    main()
