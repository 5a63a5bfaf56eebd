"""Virtual machines and the order in which their workers meet the weights; the fast half is cext/virtual/clock.c."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._core import Count, Stage
from ..network import Network
from ..options import check_number
from ..sync import STRATEGIES
from .times import Times, check_inputs

# the strategies whose order of events the core can invent: those with a file in cext/virtual/orders/
ORDERS = tuple(name for name in STRATEGIES if name in _core.clock_orders())
BLOCK = 1 << 16  # events that are made and run together
LINE = 64  # bytes


@dataclasses.dataclass(frozen=True)
class Topology:
    """Where the cores of a machine are, and what a cache line costs that another core has written.

    Attributes
    ----------
    domain, socket : int
        Cores that share a last-level cache; cores of a socket. Cores are numbered through both.
    near_ns, across_ns, far_ns : float
        Nanoseconds until a core has the line: from its own domain, from another one of the socket, from another socket.
    """

    domain: int
    socket: int
    near_ns: float
    across_ns: float
    far_ns: float

    def __post_init__(self) -> None:
        check_number("domain", self.domain, 1, 1 << 20, whole=True)
        check_number("socket", self.socket, self.domain, 1 << 20, whole=True)
        for name in ("near_ns", "across_ns", "far_ns"):
            check_number(name, getattr(self, name), 0)


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine in plain numbers. Workers go round its cores.

    Attributes
    ----------
    cores : int, optional
        By default one per worker.
    threads_per_core : int
        Hardware threads.
    slowdown : tuple of float
        How many times as long a worker takes when 1, 2, ... workers share its core; by default 1 for all hardware threads
        (they add up to nothing more than their number). Beyond the hardware threads workers share them in turn.
    speed : float
        Of a core, relative to the one that the times are of; the transfer of cache lines is not affected.
    line_ns : float
        Nanoseconds until a core has a cache line that another has written, on the average.
    topology : Topology, optional
        What it costs by where the other core is; without it all lines cost the average.
    jitter : float
        Standard deviation of the logarithm of the lognormal factor of every pass.
    stragglers : int
        So many workers, the last ones, are slower ...
    straggling : float
        ... by this factor.
    """

    cores: int | None = None
    threads_per_core: int = 1
    slowdown: tuple[float, ...] = ()
    speed: float = 1.0
    line_ns: float = 4.0
    topology: Topology | None = None
    jitter: float = 0.1
    stragglers: int = 0
    straggling: float = 1.0

    def __post_init__(self) -> None:
        if self.cores is not None:
            check_number("cores", self.cores, 1, 1 << 20, whole=True)
        check_number("threads_per_core", self.threads_per_core, 1, 1 << 10, whole=True)
        if self.slowdown and len(self.slowdown) != self.threads_per_core:
            raise ValueError(
                f"slowdown must have threads_per_core = {self.threads_per_core} factors, not {len(self.slowdown)}"
            )
        for i, factor in enumerate(self.slowdown):
            check_number(f"slowdown[{i}]", factor, 1 if not i else self.slowdown[i - 1])
        check_number("speed", self.speed, 0, above=True)
        check_number("line_ns", self.line_ns, 0)
        check_number("jitter", self.jitter, 0, 3)
        check_number("stragglers", self.stragglers, 0, whole=True)
        check_number("straggling", self.straggling, 1)
        if self.topology is not None and (self.cores is None or self.topology.socket > self.cores):
            raise ValueError(f"sockets of {self.topology.socket} cores need as many cores, not {self.cores}")

    def factors(self, workers: int) -> NDArray[np.float64]:
        """How many times as long each of the workers takes as one that is alone on a core."""
        if self.stragglers > workers:
            raise ValueError(f"stragglers must be at most the {workers} workers, not {self.stragglers}")
        cores = self.cores or workers
        slowdown = self.slowdown or (1.0,) * self.threads_per_core
        sharing = np.bincount(np.arange(workers) % cores, minlength=cores)[np.arange(workers) % cores]
        most = self.threads_per_core
        factors = np.array([slowdown[min(n, most) - 1] * max(n / most, 1) for n in sharing], float)
        factors /= self.speed
        if self.stragglers:
            factors[-self.stragglers :] *= self.straggling
        return factors

    def lines(self) -> tuple[int, int, int, float, float, float] | tuple[()]:
        """The topology as the clock takes it."""
        if self.topology is None:
            return ()
        assert self.cores is not None  # checked
        t = self.topology
        return self.cores, t.domain, t.socket, t.near_ns * 1e-9, t.across_ns * 1e-9, t.far_ns * 1e-9

    def describe(self, workers: int) -> str:
        """One line for the log."""
        cores = self.cores or workers
        return f"{workers} virtual worker{'s' if workers != 1 else ''} on {cores} core{'s' if cores != 1 else ''}" + (
            f" of {self.threads_per_core} hardware threads" if self.threads_per_core > 1 else ""
        )


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a step of one worker consists of: what the clock, and models of it, are told of a network.

    Attributes
    ----------
    layers : list of tuple
        Of each layer with weights, in the order of the pass: node, first stripe, end of its stripes, whether it learns,
        seconds per image forward and backward (with what is passed together with it).
    stripes : (stripes, 2) array
        Seconds of an update, cache lines.
    begin : float
        Seconds per image before the first of these layers.
    stages : list of tuple
        Of a step that has stages: pieces, 0 for one per lane; seconds and lines of a piece; the same for every image of it;
        where it is counted.
    batch, chunk, lanes, group : int
        Images of a step; of one pass; parts of a step, 0 for none; images of which lanes have whole groups.
    """

    layers: list[tuple[int, int, int, bool, float, float]]
    stripes: NDArray[np.float64]
    begin: float
    stages: list[tuple[int, float, float, float, float, Count]]
    batch: int
    chunk: int
    lanes: int
    group: int

    @classmethod
    def of(cls, net: Network, engine: _core.Engine, times: Times, options: Mapping[str, Any]) -> Parts:
        """Those of a network on an engine of the strategy with these options; ValueError where nothing can be trained."""
        check_inputs(net)
        table = engine.stripe_table
        if not table:
            raise ValueError("the network has no weights to train")
        nodes = sorted({node for node, _ in table})
        of = np.array([node for node, _ in table])
        sizes = np.array([size for _, size in table], float)
        publish = np.array([times.publish[node - 1] for node in of]) * sizes / [sizes[of == node].sum() for node in of]
        return cls(
            layers=_layers(net, engine, times, nodes, of),
            stripes=np.stack([np.maximum(publish, 1e-12), np.ceil(sizes * 4 / LINE)], axis=1),
            begin=times.begin + sum(times.forward[: nodes[0] - 1]),
            stages=_stages(net, engine, times),
            batch=engine.batch_size,
            chunk=engine.chunk,
            lanes=engine.lanes(options["lanes"] or 0) if "lanes" in options else 0,
            group=net.plan.group,
        )


class Order:
    """The events of one training phase, invented by a clock.

    Parameters
    ----------
    net : Network
    engine : _core.Engine
        With as many workers as there are virtual ones.
    times : Times
    machine : Machine
    strategy : str
        One of ORDERS; ValueError otherwise.
    options : dict
        The strategy's, resolved.
    seed : sequence of int
        Of the jitter. Same arguments, same events.
    workers : int, optional
        Fewer than the engine has, to see only how long they take.

    Attributes
    ----------
    lanes : int
        How many lanes the steps have, 0 for none; for `Engine.run`.
    clock : _core.Clock
    """

    def __init__(
        self,
        net: Network,
        engine: _core.Engine,
        times: Times,
        machine: Machine,
        strategy: str,
        options: dict[str, Any],
        seed: Sequence[int],
        workers: int | None = None,
    ) -> None:
        check_strategy(strategy, options)
        workers, parts = workers or engine.workers, Parts.of(net, engine, times, options)
        self.clock = _core.Clock(
            strategy,
            STRATEGIES[strategy].core_options(options),
            parts.layers,
            parts.stripes,
            machine.factors(workers),
            begin=parts.begin,
            line=machine.line_ns * 1e-9,
            jitter=machine.jitter,
            seed=int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]),
            batch=parts.batch,
            chunk=parts.chunk,
            lanes=parts.lanes,
            group=parts.group,
            publishes_later=engine.publishes_later,
            stages=parts.stages,
            topology=machine.lines(),
        )
        self.workers, self.lanes = self.clock.workers, self.clock.lanes

    def blocks(self, images: int) -> Iterator[NDArray[np.uint64]]:
        """Yields the events of a phase of so many images, in arrays that are overwritten by the one after the next; that one
        is made while the caller runs this one."""
        self.clock.begin(images)
        room, following = np.empty((2, max(BLOCK, self.clock.room)), np.uint64)
        with ThreadPoolExecutor(1) as ahead:
            n = self.clock.next(room)
            while n:
                coming = ahead.submit(self.clock.next, following)
                yield room[:n]
                n = coming.result()
                room, following = following, room

    def seconds(self, images: int) -> float:
        """How long the phase takes, without running anything but the clock."""
        start = self.clock.now
        for _ in self.blocks(images):
            pass
        return self.clock.now - start


def _layers(
    net: Network, engine: _core.Engine, times: Times, nodes: Sequence[int], of: NDArray[np.int64]
) -> list[tuple[int, int, int, bool, float, float]]:
    """What the clock is told about the layers with weights, `nodes`, of which the stripes are `of`."""
    end = len(net.nodes())
    # what lies above a layer, up to the next one, is passed on the way back before it
    learning = [node for node in nodes if engine.trains(node)]
    above = dict(zip(learning, [*learning[1:], end], strict=True))
    return [
        (
            node,
            int(np.searchsorted(of, node)),
            int(np.searchsorted(of, node, side="right")),
            node in above,
            sum(times.forward[node - 1 : last - 1]),
            sum(times.backward[node - 1 : above[node] - 1]) if node in above else 0.0,
        )
        for node, last in zip(nodes, [*nodes[1:], end], strict=True)
    ]


def _stages(net: Network, engine: _core.Engine, times: Times) -> list[tuple[int, float, float, float, float, Count]]:
    """What the clock is told about the stages of a step; [] if it has none. The pieces of a stage take the same time. Lines
    are those of weights, which have been updated since, and of what other workers have left there in the stage before."""
    stages = engine.stages(engine.batch_size)
    if not stages:
        return []
    size = [int(np.prod(net.plan.shape(node))) for node in range(len(net.nodes()))]
    reads = [0, *(int(np.prod(seen[0])) for *_, seen in net.core_layers())]
    weights = [net.plan.block(node)[1] for node in range(len(size))]
    slices = {node: pieces for kind, node, pieces in stages if kind == Stage.SLICE_FORWARD}
    sliced = list(slices)
    first = sliced[0]
    above = dict(zip(sliced, [*sliced[1:], len(size)], strict=True))
    below = dict(zip(sliced, [0, *sliced[:-1]], strict=True))
    lanes = engine.lanes()

    def between(seconds: Sequence[float], a: int, b: int) -> float:
        return sum(seconds[a : b - 1])

    # of each stage: pieces, 0 for one per lane; seconds and floats of others per piece; the same per image of a piece; where
    # it is counted
    def cost(kind: Stage, node: int, pieces: int) -> tuple[int, float, float, float, float, Count]:
        if kind == Stage.BEFORE:
            return 0, 0.0, sum(weights[:first]), times.begin + between(times.forward, 0, first), 0, Count.FORWARD
        if kind == Stage.SLICE_FORWARD:
            return pieces, 0.0, weights[node] / pieces, times.forward[node - 1], reads[node], Count.FORWARD
        if kind == Stage.BETWEEN:
            back = between(times.backward, node, above[node]) if above[node] == len(size) else 0.0
            passing = between(times.forward, node, above[node]) + back
            return 0, 0.0, 0, passing, slices[node] * size[node], Count.FORWARD
        if kind == Stage.SLICE_BACKWARD:
            return pieces, 0.0, 0, times.backward[node - 1], pieces * size[node], Count.BACKWARD
        if kind == Stage.BACK_BETWEEN:
            return 0, 0.0, 0, between(times.backward, below[node], node), reads[node], Count.BACKWARD
        publish = lanes * sum(times.publish[: first - 1]) + sum(times.publish[first - 1 :])
        return pieces, publish / pieces, sum(weights) / pieces, 0.0, 0, Count.PUBLISHING

    return [
        (pieces, max(seconds, 1e-12), floats * 4 / LINE, image_seconds, image_floats * 4 / LINE, counted)
        for pieces, seconds, floats, image_seconds, image_floats, counted in (cost(*stage) for stage in stages)
    ]


def check_strategy(strategy: str, options: Mapping[str, Any], update_options: Mapping[str, Any] | None = None) -> None:
    """ValueError unless the strategy can be simulated with these options, its own and the update rule's."""
    if strategy not in ORDERS:
        raise ValueError(
            f"strategy {strategy!r} cannot be simulated; these can: {', '.join(ORDERS)}. The clock "
            "has no order of events for this one"
        )
    if options.get("grain", "layer") != "layer":
        raise ValueError(
            f"grain={options['grain']} of {strategy} cannot be simulated: updates inside a layer's loops are "
            "no events; grain=layer can"
        )
    if options.get("max_staleness") is not None:
        raise ValueError(
            f"max_staleness={options['max_staleness']} cannot be simulated: workers that wait for a bound on "
            "staleness are not in the clock's model; none can"
        )
    if options.get("persistence") is not None:
        raise ValueError(
            f"persistence={options['persistence']} cannot be simulated: updates that are given up are no events; none can"
        )
    check_events(strategy, update_options, "simulated")


def check_events(strategy: str, update_options: Mapping[str, Any] | None, what: str, lanes: bool = False) -> None:
    """ValueError if the update rule changes weights in ways that no event describes; lanes: it updates stripes with sums."""
    given = {name: value for name, value in (update_options or {}).items() if value}
    if "max_norm" in given:
        raise ValueError(f"max_norm={given['max_norm']:g} cannot be {what}: it changes weights between updates")
    if (lanes or strategy == "synchronous") and {"clip_value", "clip_norm"} & given.keys():
        raise ValueError(
            f"clipping with strategy {strategy!r} cannot be {what}: it needs the sum of a whole layer's gradient"
        )
