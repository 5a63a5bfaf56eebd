"""What the benchmarks have in common: machine record, peak, data, check, phases. For the files of this folder."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _core, data, reference
from ..errors import ChaosError, DataNotFound
from ..installation import info
from ..layers.base import Array, Shape
from ..models import MODELS
from ..network import Network, run_key
from ..options import unknown
from ..training.records import Record, Result

Images = tuple[str, Array, Array]  # name of the data, images, labels
Known = dict[tuple[Shape, int], Images]  # by shape of an image and number of classes

CHECKED_IMAGES = 4
ATTEMPTS = 8
TOLERANCE = 2e-5  # of float32 gradients, relative to the largest of their parameter
MOST_IMAGES = 1 << 24  # per update
RATE = 1e-4  # small: the time does not depend on it, and random labels must not make the training diverge
PEAK_SECONDS = 0.05
RANDOM_IMAGES = 10_000
RANDOM_BYTES = 1 << 26  # of all of them, where images are large


def machine() -> Record:
    """What a measurement has to name: processor, cores, versions, commit (None outside git), load, date."""
    facts = info()
    root = Path(__file__).resolve().parent.parent.parent
    commit = None
    if (root / ".git").exists():
        try:
            answer = subprocess.run(
                ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10
            )
            commit = answer.stdout.strip() or None
        except (OSError, subprocess.TimeoutExpired):
            pass
    return {
        "cpu": facts["topology"]["cpu"],
        "cores": facts["topology"]["cores"],
        "logical_cpus": facts["topology"]["logical_cpus"],
        "workers": facts["workers"],
        "platform": facts["platform"],
        "chaos": facts["chaos"],
        "commit": commit,
        "build": facts["build"],
        "python": facts["python"],
        "numpy": facts["numpy"],
        "load_average": load_average(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peak_gflops(cores: int = 1, isa: str | None = None, seconds: float = PEAK_SECONDS) -> float:
    """Multiply-add rate in GFLOP/s of so many cores working at the same time."""
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(lambda _: _core.fma_gflops(isa, seconds), range(cores)))


def load_average() -> float | None:
    """Processes that wanted a core during the last minute, None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@contextlib.contextmanager
def instruction_set(isa: str | None = None) -> Iterator[str]:
    """Makes plans for the named instruction set (None: the one in force) meanwhile; gives its name."""
    before = _core.get_isa()
    _core.set_isa(isa or before)
    try:
        yield isa or before
    finally:
        _core.set_isa(before)


def need_numbers(seconds: float, repeats: int, batch_size: int = 1, longest: float = 1e6) -> None:
    """ValueError unless the arguments that all benchmarks have are possible."""
    if not 0 < seconds <= longest:
        raise ValueError(f"seconds must be more than 0 and at most {longest:g}, not {seconds!r}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"repeats must be a whole number of at least 1, not {repeats!r}")
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if not whole or not 1 <= batch_size <= MOST_IMAGES:
        raise ValueError(f"batch_size must be a whole number from 1 to {MOST_IMAGES}, not {batch_size!r}")


def need_model(model: str | Network) -> str:
    """ValueError unless `model` is a network with one input or a name in the zoo; its name."""
    if not isinstance(model, str):
        _need_one_input(model)
        return "network"
    if model not in MODELS:
        raise ValueError(unknown("unknown model", model, MODELS))
    return model


def _need_one_input(net: Network) -> None:
    if len(net.input_shapes) > 1:
        raise ValueError(f"a network with {len(net.input_shapes)} inputs cannot be measured; one with one input can")


def build(model: str | Network) -> Network:
    """A network to measure with: from the zoo, or a copy of the one given; ValueError where it has several inputs."""
    if isinstance(model, str):
        net = MODELS[model](seed=0)
        _need_one_input(net)
        return net
    net = Network.from_config(model.config())
    net.load_state_dict(model.state_dict())
    return net


def take_images(net: Network, known: Known | None = None) -> Images:
    """(name, uint8 images, labels) for a network: MNIST where it is on this machine, else the digits, where they fit;
    else random. `known` keeps what was loaded."""
    known = {} if known is None else known
    (shape,) = net.input_shapes  # `need_model` has refused several
    classes = int(np.prod(net.output_shape))
    key = shape, classes
    if key not in known:
        if len(shape) == 3 and shape[0] == 1 and classes >= 10:
            _, height, width = shape
            try:
                name, (train, _) = "mnist", data.load("mnist", size=(height, width), download=False)
            except DataNotFound:
                name, (train, _) = "digits", data.load("digits", size=(height, width))
            known[key] = name, train.images, train.labels
        else:
            rng = np.random.default_rng(0)
            count = min(RANDOM_IMAGES, max(RANDOM_BYTES // int(np.prod(shape)), 256))
            known[key] = ("random", rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, classes, count))
    return known[key]


def check(net: Network, what: str, images: Array, labels: Array, batch_size: int = 1) -> dict[str, float]:
    """Holds the core's gradients to the definition in float64: what was found, or ChaosError where it deviates.

    As many images at a time as later pass through the layers together, because the loops depend on that.
    """
    together = min(batch_size, net.plan.together)
    count = -(-CHECKED_IMAGES // together) * together
    least: dict[str, float] = {}
    for attempt in range(ATTEMPTS):
        found: dict[str, float] = {}
        for at in range(attempt * count, (attempt + 1) * count, together):
            for name, error in _deviations(net, images[at : at + together], labels[at : at + together]).items():
                found[name] = max(error, found.get(name, 0.0))
        # Other images: rounding may have taken one number of a ReLU across 0, or another of two all but equal ones in a
        # max-pooling, which tells on all layers before. A wrong loop tells with all images.
        least = {name: min(error, least.get(name, math.inf)) for name, error in found.items()}
        where = max(least, key=lambda name: least[name])
        worst = least[where]
        if worst <= TOLERANCE:
            return {"images": (attempt + 1) * count, "gradient_error": worst, "tolerance": TOLERANCE}
    raise ChaosError(
        f"{what}: the {where} differs from the definition in float64 by {worst:.1e} of its size, allowed are "
        f"{TOLERANCE:.0e}; this is a bug, no time was taken"
    )


def _deviations(net: Network, images: Array, labels: Array) -> dict[str, float]:
    # Wrong labels: the gradients of a trained network for right ones may be nothing but rounding.
    labels = (labels + 1) % int(np.prod(net.output_shape))
    loss, gradients = net.loss_and_gradients(images, labels)
    true_loss, true_gradients = reference.loss_and_gradients(net, images, labels, key=run_key(0, 0))
    found = {"loss": abs(loss - true_loss) / abs(true_loss)}
    sizes = {name: max(np.abs(true_gradients[name]).max(), 1e-12) for name in gradients}  # not of what layers observe
    largest = max(sizes.values())
    for name, gradient in gradients.items():
        # a gradient that is 0 but for rounding, as of a bias before a normalisation, has no size of its own
        size = sizes[name] if sizes[name] > 1e-9 * largest else largest
        found[f"gradient of {name}"] = np.abs(gradient - true_gradients[name]).max() / size
    return {name: math.inf if math.isnan(error) else float(error) for name, error in found.items()}


def run(
    engine: _core.Engine, what: str, name: Literal["train", "forward", "gradients"], count: int, **arguments: Any
) -> tuple[Result, float]:
    """Runs a phase over `count` images: (its counts, seconds); ChaosError if it visits others than these."""

    def phase() -> tuple[Result, float]:
        start = time.perf_counter()
        result = engine.run(name, **arguments)
        return result, time.perf_counter() - start

    engine.clear()
    with ThreadPoolExecutor(1) as pool:  # the main thread stays free for Ctrl-C
        future = pool.submit(phase)
        try:
            result, seconds = future.result()
        except BaseException:
            engine.stop()
            raise
    if result["status"] != "done" or result["images"] != count:
        raise ChaosError(
            f"{what}: {result['images']} of {count} images were visited, the phase is "
            f"{result['status']}; this is a bug, no time was taken"
        )
    return result, seconds


def fill(least: float, measure: Callable[[int], float], count: int) -> tuple[int, float]:
    """How many images (or rounds) take `least` seconds, found by trying, from `count` upwards."""
    while (took := measure(count)) < least:
        count = int(count * min(8, max(2, 1.2 * least / max(took, 1e-9))))
    return count, took


def pass_seconds(bench: _core.Bench, node: int, name: str, rounds: int) -> float:
    """Seconds per image of a pass that is known to run."""
    seconds = bench.time(node, name, rounds)
    assert seconds is not None
    return seconds


def order_of(images: int, count: int) -> NDArray[np.int64]:
    """`count` indices of images, in one and the same random order, repeated where there are fewer images."""
    return np.resize(np.random.default_rng(0).permutation(images), count)
