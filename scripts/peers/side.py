"""Protocol of one setting of one system on one network: what runs inside a side's process. For the competitors."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

WARM_UP = 0.3  # seconds


class Side:
    """One setting of one system on one network, in the fastest of its variants. `advance` works, the rest is common.

    Parameters
    ----------
    job : dict
        network (file of the network), data (folder with images.npy and labels.npy), lr, compile, warm_up (seconds).
    threads, batch : int

    Attributes
    ----------
    variants : tuple of str
        What is tried while warming up; those that the system refuses (ValueError) are left out.
    variant : str
        The fastest.
    """

    variants: tuple = ("",)
    variant = ""
    helpers_idle = 0.0  # processor seconds that helper processes used while waiting for the last turn

    def __init__(self, job, threads, batch):
        self.job, self.threads, self.batch = job, threads, batch
        self.x = np.load(Path(job["data"], "images.npy"))
        self.y = np.load(Path(job["data"], "labels.npy"))
        self.at, self.chunk, self.seconds = 0, batch, job.get("warm_up", WARM_UP)
        self.set_up()
        self.choose()
        self.warm_up()

    def set_up(self):
        raise TypeError(f"{type(self).__name__} lacks a method of Side")

    def use(self, variant):
        """Makes ready what `advance` runs; ValueError where there is no such variant for this network."""

    def reset(self):
        """Back to the initial weights: all turns do the same work, and none trains to vanishing gradients."""

    def advance(self, images):
        """Works on about so many images, whole batches; returns how many when all are done."""
        raise TypeError(f"{type(self).__name__} lacks a method of Side")

    def loss(self):
        """Mean loss over the first images, to see that something was learnt; 0 where nothing is trained."""
        return 0.0

    def choose(self):
        """Tries the variants; the fastest stays."""
        best = {}
        for name in self.variants if len(self.variants) > 1 else ():
            try:
                self.use(name)
                self.advance(self.batch)
            except ValueError:
                continue
            parts = [self.work(self.seconds / 2) for _ in range(2)]
            best[name] = min(seconds / done for done, seconds, _ in parts)
        self.variant = min(best, key=best.get) if best else self.variants[0]
        self.use(self.variant)

    def warm_up(self):
        """Runs for a while, and finds how many images to work on between two looks at the clock.

        As many as take 50 ms at best: chaos starts its workers anew after each look, which on a busy machine takes
        milliseconds, and that must not pass for training.
        """
        self.work(self.seconds)
        while self.chunk < len(self.y):
            if min(self.work(0)[1] for _ in range(3)) >= 0.05:
                break
            self.chunk = min(2 * self.chunk, len(self.y))
        self.work(self.seconds)

    def work(self, seconds):
        """(images, seconds, processor seconds) of work for at least so many seconds."""
        done, cpu, start = 0, time.process_time(), time.perf_counter()
        while True:
            done += self.advance(self.chunk)
            passed = time.perf_counter() - start
            if passed >= seconds:
                return done, passed, time.process_time() - cpu

    def turn(self, seconds):
        self.reset()
        return self.work(seconds)

    def batches(self, images):
        """Slices of whole batches, going round the images."""
        for _ in range(images // self.batch):
            yield slice(self.at, self.at + self.batch)
            self.at = (self.at + self.batch) % len(self.y)

    def close(self):
        pass
