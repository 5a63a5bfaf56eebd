"""How long a worker takes for each layer: nominal, measured on this host, or from a file. For chaos.virtual.clock."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..formats.atomic import write_atomically
from ..formats.json_text import parse_json
from ..network import Network
from ..options import check_number

FORMAT = "chaos-times-1"
# A core of round numbers: what the nominal times assume.
NOMINAL_MACS = 40e9  # multiply-adds per second
NOMINAL_GFLOPS = 2e-9 * NOMINAL_MACS
NOMINAL_VALUES = 4e9  # outputs of layers without multiply-adds per second
NOMINAL_WEIGHTS = 2.5e9  # weights updated per second
NOMINAL_BEGIN = 0.3e-6  # seconds to pick an image
ROUNDS, SECONDS = 5, 2e-3  # of a measurement: the median of so many, each of this length
RUN_SECONDS = 0.1


class _Images(TypedDict):
    inputs: list[NDArray[Any]]
    labels: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one worker alone on a core, by node of the network (all but the input, in the core's order).

    Attributes
    ----------
    source : str
        "nominal" or "measured".
    gflops : float
        Multiply-add rate of the core that they are of, two operations each; to compare it with other cores.
    begin : float
        Per image, before the first layer.
    forward, backward : tuple of float
        Per image; 0 where training has no such pass.
    publish : tuple of float
        Per update of all the node's weights; 0 for nodes without.
    """

    source: str
    gflops: float
    begin: float
    forward: tuple[float, ...]
    backward: tuple[float, ...]
    publish: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("forward", "backward", "publish"):
            for i, seconds in enumerate(getattr(self, name)):
                check_number(f"{name}[{i}] of the times ({self.source})", seconds, 0)
        check_number(f"gflops of the times ({self.source})", self.gflops, 0, above=True)
        check_number(f"begin of the times ({self.source})", self.begin, 0)
        if not sum(self.forward) > 0:
            raise ValueError(f"the times ({self.source}) say that forward passes take no time at all")

    @property
    def per_image(self) -> float:
        """Seconds of one image of one worker with batch size 1."""
        return self.begin + sum(self.forward) + sum(self.backward) + sum(self.publish)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Keeps them in a JSON file that `read_times` reads."""
        found = {"format": FORMAT, **dataclasses.asdict(self)}
        write_atomically(path, json.dumps(found, indent=2).encode() + b"\n")


def read_times(path: str | os.PathLike[str], net: Network) -> Times:
    """The times in a file; ValueError naming it where it is damaged or made for another network."""
    try:
        found = parse_json(Path(path).read_bytes())
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"not a file of times (format {FORMAT})")
        times = Times(
            found["source"],
            found["gflops"],
            found["begin"],
            *(tuple(found[name]) for name in ("forward", "backward", "publish")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    nodes = len(net.nodes()) - 1
    for name in ("forward", "backward", "publish"):
        if len(getattr(times, name)) != nodes:
            raise ValueError(f"{path}: {name} has {len(getattr(times, name))} times, the network {nodes} layers")
    return times


def check_inputs(net: Network) -> None:
    """ValueError where the network has several inputs: times have a place for every node but the first."""
    if len(net.input_shapes) > 1:
        raise ValueError(
            f"a network with {len(net.input_shapes)} inputs cannot be simulated, nor can its layers be timed; real workers "
            "can train it"
        )


def nominal(net: Network) -> Times:
    """What a core of round numbers would take (40 G multiply-adds, 4 G other outputs, 2.5 G updates of weights per second):
    depends on nothing but the network, so that simulations can be repeated anywhere to the last bit of their order."""
    check_inputs(net)
    engine = _core.Engine(net.plan, net.weights)
    forward: list[float] = []
    backward: list[float] = []
    publish: list[float] = []
    before = False
    for node, (_, layer, shapes) in enumerate(net.core_layers(), 1):
        macs, weights = layer.macs(*shapes), net.plan.block(node)[1]
        outputs = int(np.prod(net.plan.shape(node)))
        once = macs / NOMINAL_MACS if macs else outputs / NOMINAL_VALUES
        forward.append(once)
        trains = bool(weights) and engine.trains(node)
        backward.append(once * (int(trains) + int(before) if macs else 1) if engine.learns(node) else 0.0)
        publish.append(weights / NOMINAL_WEIGHTS)
        before = before or trains
    return Times("nominal", NOMINAL_GFLOPS, NOMINAL_BEGIN, tuple(forward), tuple(backward), tuple(publish))


def measured(net: Network, batch_size: int = 1, update: str = "sgd", images: int = 64, seed: int = 0) -> Times:
    """What this host takes, measured on one core with a copy of the network and random images: each pass by itself, and
    whole steps, whose remainder becomes `begin`."""
    check_inputs(net)
    copy = Network.from_config(net.config())
    copy.weights[:] = net.weights
    rng = np.random.default_rng(seed)
    count = max(images, batch_size)
    data = copy.take_images(rng.integers(0, 256, (count, *copy.input_shape), np.uint8))
    labels = rng.integers(0, int(np.prod(copy.output_shape)), count)
    engine = _core.Engine(copy.plan, copy.weights, batch_size=batch_size)
    arguments = _Images(inputs=data["inputs"], labels=labels)
    bench = _core.Bench(_core.Engine(copy.plan, copy.weights, batch_size=batch_size), times=True)
    bench.engine.run("gradients", **arguments, end=engine.chunk)
    nodes = range(1, len(copy.nodes()))
    passes = {what: tuple(_time(bench, node, what) for node in nodes) for what in ("forward", "backward", "update")}
    publish = tuple(seconds * batch_size for seconds in passes["update"])
    rounds, took = 1, 0.0
    while took < RUN_SECONDS:
        order = np.resize(np.arange(count), count * rounds)
        start = time.perf_counter()
        engine.run("train", **arguments, order=order, lr=1e-6)
        took = time.perf_counter() - start
        rounds *= 2
    whole = min(took / len(order), *(_run(engine, arguments, order) for _ in range(2)))
    begin = max(whole - sum(passes["forward"]) - sum(passes["backward"]) - sum(passes["update"]), 0.0)
    return Times("measured", _core.fma_gflops(), begin, passes["forward"], passes["backward"], publish)


def _run(engine: _core.Engine, arguments: _Images, order: NDArray[np.int64]) -> float:
    start = time.perf_counter()
    engine.run("train", **arguments, order=order, lr=1e-6)
    return (time.perf_counter() - start) / len(order)


def _time(bench: _core.Bench, node: int, what: str) -> float:
    """Seconds per image, 0 where training has no such pass."""
    rounds = 1
    while True:
        once = bench.time(node, what, rounds)
        if once is None:
            return 0.0
        if once * rounds * bench.engine.chunk >= SECONDS or rounds >= 1 << 20:
            break
        rounds *= 4
    return float(np.median([once, *(bench.time(node, what, rounds) for _ in range(ROUNDS - 1))]))
