"""What a network is made of and what it costs, as a table and as data. For chaos.network; the figures are those of the
core's plan."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import _core
from .layers import Layer, Node
from .layers.base import Shape

WIDTH = 80
PASSES = {"forward": "forward", "weight_gradient": "weight gradient", "backward": "data gradient"}
MOST_SHOWN = 6  # rows or columns in a list
_UNITS = ("bytes", "KB", "MB", "GB", "TB")


class Described(Protocol):
    """A network, as far as its summary needs to know it."""

    weights: NDArray[np.float32]

    def nodes(self) -> list[tuple[Node, str]]: ...

    def part_owner(self, node: Node) -> str: ...

    def core_layers(self) -> list[tuple[str, Layer, list[Shape]]]: ...

    def macs(self) -> dict[str, int]: ...

    def counts(self) -> dict[str, tuple[int, int]]: ...

    @property
    def plan(self) -> _core.Plan: ...


@dataclasses.dataclass(frozen=True)
class Row:
    """A node of the network.

    Attributes
    ----------
    name, layer : str
        The node's name and its layer's kind ("Input" for an input).
    options : str
        The layer as it is made.
    inputs : list of int
        Places in `Summary.rows` of the nodes that it reads.
    output_shape : list of int
    parameters, frozen : int
        How many are trained; how many training leaves as they are. Of a layer that stands in several places they are counted
        at the first.
    shares : str or None
        That first place.
    macs : int
        Multiply-adds of one image forward.
    loops : dict
        By pass, of those that a training runs: which of several loops the core has chosen.
    unseen : dict
        Axis ("rows", "columns", "positions") to the places of its input that no window of a convolution or pooling touches.
    """

    name: str
    layer: str
    options: str
    inputs: list[int]
    output_shape: list[int]
    parameters: int
    frozen: int
    shares: str | None
    macs: int
    loops: dict[str, str]
    unseen: dict[str, list[int]]


@dataclasses.dataclass(frozen=True)
class Summary:
    """A network's layers and their sums; `str` makes a table of it.

    Attributes
    ----------
    rows : list of Row
        In topological order, inputs first.
    parameters, frozen : int
        Trained, and those that training leaves as they are.
    macs : dict
        Multiply-adds per image in training, by pass; "forward" alone is evaluation.
    weight_bytes : int
        Of the weights, which all workers share, as the kernels lay them out.
    worker_bytes : int
        Memory that each worker has to itself with the default strategy.
    batch_size : int
        For which loops and worker_bytes are.
    isa : str
        Instruction set that the loops are of.
    """

    rows: list[Row]
    parameters: int
    frozen: int
    macs: dict[str, int]
    weight_bytes: int
    worker_bytes: int
    batch_size: int
    isa: str

    def to_dict(self) -> dict[str, Any]:
        """Numbers, texts, lists and dicts only."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        rows = [["name", "layer", "output", "parameters", "multiply-adds"]]
        for row in self.rows:
            count = _count(row.parameters, row.frozen) if row.shares is None else f"those of {row.shares}"
            shape = "x".join(map(str, row.output_shape))
            rows.append([row.name, row.layer, shape, count, f"{row.macs:,}" if row.macs else ""])
        rows.append(["total", "", "", _count(self.parameters, self.frozen), f"{self.macs['forward']:,}"])
        parts = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in self.macs.items())
        lines = [*_table(rows, left=3), ""]
        lines += _wrapped("training: ", f"{sum(self.macs.values()):,} multiply-adds per image ({parts})")
        lines += _wrapped(
            "memory: ",
            f"weights {_size(self.weight_bytes)}, shared; each worker {_size(self.worker_bytes)} more at batch size "
            f"{self.batch_size}",
        )
        loops = [row for row in self.rows if row.loops]
        if loops:
            lines += ["", f"loops ({self.isa}):"]
            margin = max(len(row.name) for row in loops) + 4
            for row in loops:
                chosen = "; ".join(f"{PASSES[name]}: {loop}" for name, loop in row.loops.items())
                lines += _wrapped(f"  {row.name}".ljust(margin), chosen)
        unseen = [f"{row.name} ({row.layer}) never sees {_axes(row.unseen)} of its input" for row in self.rows if row.unseen]
        lines += ["", *(line for text in unseen for line in _wrapped("", text))] if unseen else []
        return "\n".join(lines)


def summarise(net: Described, batch_size: int) -> Summary:
    """The summary of a network, for steps of so many images of a worker."""
    engine = _core.Engine(net.plan, net.weights, strategy="chaos", batch_size=batch_size)
    loops = _loops(net, engine)
    counts, seen = net.counts(), set()
    numbers = {node: i for i, (node, _) in enumerate(net.nodes())}
    rows = []
    for node, name in net.nodes():
        layer, shapes = node.layer, [source.shape for source in node.inputs]
        owner = net.part_owner(node) if layer else name
        shares = owner if layer and owner != name and counts.get(owner) else None
        parameters, frozen = counts.get(owner, (0, 0)) if owner not in seen and layer else (0, 0)
        seen.add(owner)
        rows.append(
            Row(
                name=name,
                layer=type(layer).__name__ if layer else "Input",
                options=repr(layer) if layer else f"Input({node.shape})",
                inputs=[numbers[source] for source in node.inputs],
                output_shape=list(node.shape),
                parameters=parameters,
                frozen=frozen,
                shares=shares,
                macs=layer.macs(*shapes) if layer else 0,
                loops=loops.get(name, {}),
                unseen=unseen(layer, shapes[0], node.shape) if layer else {},
            )
        )
    return Summary(
        rows=rows,
        parameters=sum(row.parameters for row in rows),
        frozen=sum(row.frozen for row in rows),
        macs=net.macs(),
        weight_bytes=net.plan.weight_size * 4,
        worker_bytes=engine.worker_bytes,
        batch_size=batch_size,
        isa=net.plan.isa,
    )


def _loops(net: Described, engine: _core.Engine) -> dict[str, dict[str, str]]:
    """{layer's name: {pass: the loop that runs}}, where there are several and the pass is run. An activation and a pooling
    may have changed places in the core; names stay with their layers."""
    bench, found = _core.Bench(engine), {}
    order = [node for node, _ in net.nodes()]
    number = {node: i for i, node in enumerate(order)}
    first = next(i for i, node in enumerate(order) if node.layer)
    for i, (name, _, _) in enumerate(net.core_layers(), first):
        runs = {
            "forward": True,
            "weight_gradient": engine.trains(i),
            "backward": engine.learns(i) and any(engine.learns(number[source]) for source in order[i].inputs),
        }
        chosen = {what: bench.loop(i, what) for what, there in runs.items() if there}
        found[name] = {what: loop for what, loop in chosen.items() if loop}
    return found


def unseen(layer: Layer, shape: Shape, out: Shape) -> dict[str, list[int]]:
    """{axis: places of the input that no window touches}, of a convolution or a pooling with windows; no axis is empty."""
    windows = layer.kind.startswith("conv") and "transpose" not in layer.kind or "pool" in layer.kind
    kernel: Any = getattr(layer, "kernel_size", None)
    if not windows or "unpool" in layer.kind or kernel is None or len(shape) != len(out) or len(shape) < 2:
        return {}
    n = len(shape) - 1
    kernels, dilations = _each(kernel, n), _each(getattr(layer, "dilation", 1), n)
    stride, padding = getattr(layer, "stride", None), getattr(layer, "padding", 0)
    steps = kernels if stride is None else _each(stride, n)
    if isinstance(padding, str):
        before = tuple((k - 1) * d // 2 if padding == "same" else 0 for k, d in zip(kernels, dilations, strict=True))
    else:  # on both sides of an axis, or of every axis (before, behind)
        before = _each(padding, n)[:: 2 if isinstance(padding, (tuple, list)) and len(padding) == 2 * n else 1]
    found = {}
    axes = ("rows", "columns") if n == 2 else ("positions",)
    for axis, size, count, k, step, d, pad in zip(axes, shape[1:], out[1:], kernels, steps, dilations, before, strict=True):
        touched = (np.arange(count)[:, None] * step + np.arange(k) * d - pad).ravel()
        left = np.setdiff1d(np.arange(size), touched)
        if len(left):
            found[axis] = [int(place) for place in left]
    return found


def _each(value: Any, n: int) -> tuple[int, ...]:
    """One number for every axis, of one for all or of as many as there are."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * n if len(values) == 1 else values


def _axes(found: dict[str, list[int]]) -> str:
    """Rows and columns in words."""
    words = []
    for axis, places in found.items():
        if len(places) == 1:
            words.append(f"{axis.removesuffix('s')} {places[0]}")
        elif len(places) > 2 and places[-1] - places[0] == len(places) - 1:
            words.append(f"{axis} {places[0]} to {places[-1]}")
        else:
            rest = f" ... ({len(places)} of them)" if len(places) > MOST_SHOWN else ""
            words.append(f"{axis} {', '.join(map(str, places[:MOST_SHOWN]))}{rest}")
    return " and ".join(words)


def _count(trained: int, frozen: int) -> str:
    texts = [f"{trained:,}"] if trained or not frozen else []
    return " + ".join([*texts, f"{frozen:,} frozen"] if frozen else texts) if trained or frozen else ""


def _size(n: int) -> str:
    """Bytes for people, in steps of 1024."""
    value, unit = float(n), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 100 or not unit else f"{value:.1f} {_UNITS[unit]}"


def _table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows of text in columns, the first so many of them aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{'<' if k < left else '>'}{widths[k]}}" for k, cell in enumerate(row)).rstrip() for row in rows
    ]


def _wrapped(begin: str, text: str) -> list[str]:
    """Lines of WIDTH, which go on below the text."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin), break_long_words=False, break_on_hyphens=False
    )
