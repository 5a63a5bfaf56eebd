"""Measurements of this installation, each checked before it is timed. For `chaos bench`, scripts and users.

One of the engine-facing files beside chaos.network: it times the core without the trainer around it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from . import _core, data, reference, threads
from .errors import ChaosError, DataNotFound
from .info import info
from .models import MODELS
from .network import Network
from .sync import STRATEGIES

CHECKED_IMAGES = 4
ATTEMPTS = 3
TOLERANCE = 2e-5  # of float32 gradients, relative to the largest of their parameter
MOST_IMAGES = 1 << 24  # per update
RATE = 1e-4  # small: the time does not depend on it, and random labels must not make the training diverge
PEAK_SECONDS = 0.05
RANDOM_IMAGES = 10_000


def throughput(model, workers=1, batch_size=1, strategy="chaos", seconds=2.0, repeats=5, isa=None):
    """Wall time of training per image, and its share of the peak of the cores.

    Parameters
    ----------
    model : str or Network
        A name in chaos.models.MODELS, or a network, which stays as it is.
    workers, batch_size, strategy
        As for `chaos.train`.
    seconds : float
        Length of one repeat, about.
    repeats : int
        Numbers of the result are medians over so many.
    isa : str, optional
        Instruction set; the one in force by default.

    Returns
    -------
    dict
        model, workers, batch_size, strategy, isa, oversubscribed; us_per_image, us_per_image_min,
        us_per_image_max, images_per_second; flops_per_image (2 x multiply-adds of forward pass, weight
        gradient and data gradient, dense), gflops; peak_gflops (multiply-adds, measured between the repeats
        on as many cores as there are workers, at most those there are: peak_cores), peak_gflops_min,
        peak_gflops_max, fraction_of_peak; seconds, repeats, images_per_repeat, data; check (what was verified
        beforehand); machine.

    Raises
    ------
    ValueError
        Unknown names, impossible numbers.
    ChaosError
        The result is wrong, so its speed does not matter.
    """
    case = {"model": model, "workers": workers, "batch_size": batch_size, "strategy": strategy, "isa": isa}
    return throughputs([case], seconds=seconds, repeats=repeats)[0]


def throughputs(cases, seconds=2.0, repeats=5):
    """As `throughput` for several cases, measured in turns (A B A B): a drift of the machine meets all.

    Parameters
    ----------
    cases : list of dict
        Arguments of `throughput`.
    seconds, repeats
        As for `throughput`.

    Returns
    -------
    list of dict
    """
    if not 0 < seconds < 1e6:
        raise ValueError(f"seconds must be more than 0, not {seconds!r}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"repeats must be a whole number of at least 1, not {repeats!r}")
    record = machine()
    images = {}
    cases = [_Case(**case, images=images) for case in cases]
    for case in cases:
        case.prepare(seconds)
    for _ in range(repeats):
        for case in cases:
            case.measure()
    return [{**case.result(), "seconds": seconds, "repeats": repeats, "machine": record} for case in cases]


def machine():
    """What a measurement has to name: processor, cores, versions, commit (None outside git), load, date."""
    facts = info()
    root = Path(__file__).resolve().parent.parent
    commit = None
    if (root / ".git").exists():
        try:
            answer = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"],
                                    capture_output=True, text=True, timeout=10)
            commit = answer.stdout.strip() or None
        except (OSError, subprocess.TimeoutExpired):
            pass
    return {"cpu": facts["topology"]["cpu"], "cores": facts["topology"]["cores"],
            "logical_cpus": facts["topology"]["logical_cpus"], "workers": facts["workers"],
            "platform": facts["platform"], "chaos": facts["chaos"], "commit": commit, "build": facts["build"],
            "python": facts["python"], "numpy": facts["numpy"], "load_average": load_average(),
            "date": datetime.now(UTC).isoformat(timespec="seconds")}


def peak_gflops(cores=1, isa=None, seconds=PEAK_SECONDS):
    """Multiply-add rate in GFLOP/s of so many cores working at the same time."""
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(lambda _: _core.fma_gflops(isa, seconds), range(cores)))


def load_average():
    """Processes that wanted a core during the last minute, None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


class _Case:
    """One setting under measurement."""

    def __init__(self, model, workers=1, batch_size=1, strategy="chaos", isa=None, *, images):
        if strategy not in STRATEGIES:
            raise ValueError(f"unknown strategy {strategy!r}; known: {', '.join(STRATEGIES)}")
        if isinstance(model, str) and model not in MODELS:
            raise ValueError(f"unknown model {model!r}; known: {', '.join(MODELS)}")
        whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
        if not whole or not 1 <= batch_size <= MOST_IMAGES:
            raise ValueError(f"batch_size must be a whole number from 1 to {MOST_IMAGES}, not {batch_size!r}")
        self.name = model if isinstance(model, str) else "network"
        self.threads = threads.resolve(workers)
        self.cores = min(workers, *(n for name, n in self.threads.limits.items() if name != "argument"))
        self.batch_size, self.strategy = batch_size, strategy
        before = _core.get_isa()
        self.isa = isa or before
        _core.set_isa(self.isa)
        try:
            if isinstance(model, str):
                self.net = MODELS[model](seed=0)
            else:
                self.net = Network.from_config(model.config())
                self.net.load_state_dict(model.state_dict())
            self.data, self.images, self.labels = _take_images(self.net, images)
            self.error = self.check()
            self.engine = _core.Engine(self.net.plan, self.net.weights, workers=workers, strategy=strategy,
                                       batch_size=batch_size)
        finally:
            _core.set_isa(before)
        self.flops = 2 * sum(self.net.macs().values())
        self.count, self.us, self.peak = 0, [], []

    def check(self):
        """Largest deviation of the core's gradients from the definition in float64; ChaosError if large."""
        for attempt in range(ATTEMPTS):
            part = slice(attempt * CHECKED_IMAGES, (attempt + 1) * CHECKED_IMAGES)
            # Wrong labels: the gradients of a trained network for right ones may be nothing but rounding.
            images, labels = self.images[part], (self.labels[part] + 1) % int(np.prod(self.net.output_shape))
            loss, gradients = self.net.loss_and_gradients(images, labels)
            true_loss, true_gradients = reference.loss_and_gradients(self.net, images, labels)
            worst, where = abs(loss - true_loss) / abs(true_loss), "loss"
            for name, wanted in true_gradients.items():
                error = np.abs(gradients[name] - wanted).max() / max(np.abs(wanted).max(), 1e-12)
                if not error <= worst:
                    worst, where = error, f"gradient of {name}"
            if worst <= TOLERANCE:
                return float(worst)
            # Other images: rounding may have picked another of two all but equal numbers in a max-pooling.
        raise ChaosError(f"{self.name} ({self.isa}): the {where} differs from the definition in float64 by "
                         f"{worst:.1e} of its size, allowed are {TOLERANCE:.0e}; this is a bug, no time was "
                         "taken")

    def train(self, count):
        """Trains on so many images: seconds."""
        order = np.resize(np.random.default_rng(0).permutation(len(self.labels)), count)

        def phase():
            start = time.perf_counter()
            result = self.engine.run("train", pixels=self.images.reshape(-1), labels=self.labels, order=order,
                                     lr=RATE)
            return result, time.perf_counter() - start

        self.engine.clear()
        with ThreadPoolExecutor(1) as pool:  # the main thread stays free for Ctrl-C
            future = pool.submit(phase)
            try:
                result, seconds = future.result()
            except BaseException:
                self.engine.stop()
                raise
        if result["status"] != "done" or result["images"] != count:
            raise ChaosError(f"{self.name} ({self.isa}): {result['images']} of {count} images were visited, "
                             f"the phase is {result['status']}; this is a bug, no time was taken")
        return seconds

    def prepare(self, seconds):
        """Warms up, and finds out how many images take so many seconds."""
        count, least = max(64, self.batch_size) * self.threads.workers, min(seconds, 0.2)
        while (took := self.train(count)) < least:
            count = int(count * min(8, max(2, 1.2 * least / took)))
        self.count = max(int(count * seconds / took), self.threads.workers * self.batch_size)

    def measure(self):
        """One repeat: peak and time."""
        self.peak.append(peak_gflops(self.cores, self.isa))
        self.us.append(self.train(self.count) / self.count * 1e6)

    def result(self):
        us, peak = statistics.median(self.us), statistics.median(self.peak)
        gflops = self.flops / us * 1e-3
        return {
            "model": self.name, "workers": self.threads.workers, "batch_size": self.batch_size,
            "strategy": self.strategy, "isa": self.isa, "oversubscribed": self.threads.oversubscribed,
            "us_per_image": us, "us_per_image_min": min(self.us), "us_per_image_max": max(self.us),
            "images_per_second": 1e6 / us, "flops_per_image": self.flops, "gflops": gflops,
            "peak_gflops": peak, "peak_gflops_min": min(self.peak), "peak_gflops_max": max(self.peak),
            "peak_cores": self.cores, "fraction_of_peak": gflops / peak, "images_per_repeat": self.count,
            "data": self.data,
            "check": {"images": CHECKED_IMAGES, "gradient_error": self.error, "tolerance": TOLERANCE,
                      "images_counted": True}}


def _take_images(net, known):
    """(name, uint8 images, labels) for a network: MNIST where it is on this machine and fits, else random."""
    classes = int(np.prod(net.output_shape))
    key = net.input_shape, classes
    if key not in known:
        known[key] = None
        if len(net.input_shape) == 3 and net.input_shape[0] == 1 and classes >= 10:
            try:
                train, _ = data.load("mnist", size=net.input_shape[1:], download=False)
                known[key] = "mnist", train.images, train.labels
            except DataNotFound:
                pass
        if known[key] is None:
            rng = np.random.default_rng(0)
            known[key] = ("random", rng.integers(0, 256, (RANDOM_IMAGES, *net.input_shape), np.uint8),
                          rng.integers(0, classes, RANDOM_IMAGES))
    return known[key]
