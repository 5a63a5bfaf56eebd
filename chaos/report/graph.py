"""Draws graphs: boxes with text in layers, what reads them below, edges between. Needs matplotlib. For chaos.report."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..formats.atomic import write_atomically
from .draw import need_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRAPH_FORMATS = (".svg", ".png", ".html")
WIDE, HIGH, GAP = 2.3, 0.62, 0.38  # inches: a box, and between two
DOTS = 110  # of a PNG, per inch
MOST_INCHES = 590  # matplotlib draws at most 2^16 dots
SWEEPS = 4  # over all layers, to bring boxes near those that they are joined to


@dataclass
class Box:
    """A node of a graph.

    Attributes
    ----------
    lines : list of str
        What stands in it, the first one bold.
    inputs : list of int
        Numbers of the boxes that it reads, all before it.
    marked : bool
        In another colour.
    """

    lines: Sequence[str]
    inputs: Sequence[int]
    marked: bool = False


Point = tuple[float, float]


def place(boxes: Sequence[Box]) -> tuple[list[Point], list[list[Point]]]:
    """(column, depth) of every box, and of every edge, box by box and input by input, the points that it passes. An edge
    over several depths has a column of its own in between, so that it crosses no box (Sugiyama, Tagawa, Toda 1981)."""
    depth: list[int] = []
    for number, box in enumerate(boxes):
        if any(not 0 <= source < number for source in box.inputs):
            raise ValueError(f"box {number} reads {list(box.inputs)}; boxes come after those that they read")
        depth.append(1 + max((depth[source] for source in box.inputs), default=-1))
    above: list[list[int]] = [[] for _ in boxes]  # of boxes and bends: what is joined to them from above
    routes: list[list[int]] = []
    for number, box in enumerate(boxes):
        for source in box.inputs:
            route = [source]
            for bend in range(depth[source] + 1, depth[number]):
                above.append([route[-1]])
                depth.append(bend)
                route.append(len(above) - 1)
            above[number].append(route[-1])
            routes.append([*route, number])
    floors: list[list[int]] = [[] for _ in range(1 + max(depth, default=-1))]
    for one, at in enumerate(depth):
        floors[at].append(one)
    column = _arrange(floors, above)
    points = [(column[one], float(depth[one])) for one in range(len(above))]
    return points[: len(boxes)], [[points[one] for one in route] for route in routes]


def _arrange(floors: list[list[int]], above: list[list[int]]) -> list[float]:
    """Columns: each floor in the order of the mean place of what it is joined to, in the middle."""
    below: list[list[int]] = [[] for _ in above]
    for one, sources in enumerate(above):
        for source in sources:
            below[source].append(one)
    column = [0.0] * len(above)

    def centre(floor: list[int]) -> None:
        for place, one in enumerate(floor):
            column[one] = place - (len(floor) - 1) / 2

    for floor in floors:
        centre(floor)
    for sweep in range(SWEEPS):
        joined = below if sweep % 2 else above
        for floor in reversed(floors) if sweep % 2 else floors:
            floor.sort(
                key=lambda one: sum(column[o] for o in joined[one]) / len(joined[one]) if joined[one] else column[one]
            )
            centre(floor)
    return column


def draw_graph(title: str, boxes: Sequence[Box]) -> Figure:
    """The graph as a matplotlib Figure."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    where, routes = place(boxes)
    floors = 1 + int(max((y for _, y in where), default=0))
    widest = max([2 * abs(x) for x, _ in [*where, *(point for route in routes for point in route)]], default=0) + 1
    size = widest * (WIDE + GAP) + GAP, floors * (HIGH + GAP) + GAP + 0.4
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-size[0] / 2, size[0] / 2), ylim=(-size[1] + HIGH / 2 + GAP + 0.4, HIGH / 2 + GAP + 0.4))
    axes.set_axis_off()
    title = title.encode("utf-8", "backslashreplace").decode()  # a path may hold what is no text
    axes.text(0, HIGH / 2 + GAP, title, ha="center", va="bottom", fontsize=11, fontweight="bold")
    across, down = WIDE + GAP, HIGH + GAP
    for route in routes:
        x, y = [across * point[0] for point in route], [-down * point[1] for point in route]
        y[0] -= HIGH / 2
        y[-1] += HIGH / 2
        axes.plot(x[:-1], y[:-1], color="#777", linewidth=1, zorder=1)
        axes.annotate(
            "", (x[-1], y[-1]), (x[-2], y[-2]), arrowprops={"arrowstyle": "->", "color": "#777", "shrinkA": 0, "shrinkB": 0}
        )
    for box, point in zip(boxes, where, strict=True):
        middle, height = across * point[0], -down * point[1]
        colour = "#dbe7f3" if box.marked else "#f6f3ea"
        shape = FancyBboxPatch(
            (middle - WIDE / 2, height - HIGH / 2),
            WIDE,
            HIGH,
            boxstyle="round,pad=0,rounding_size=0.08",
            fc=colour,
            ec="#555",
            zorder=2,
        )
        axes.add_patch(shape)
        for number, line in enumerate(box.lines):
            at = height + HIGH * (0.5 - (number + 0.5) / len(box.lines)) * 0.86
            weight = "normal" if number else "bold"
            axes.text(middle, at, line, ha="center", va="center", fontsize=8, fontweight=weight, zorder=3, clip_on=True)
    return figure


def write_graph(title: str, boxes: Sequence[Box], path: str | os.PathLike[str]) -> Path:
    """Writes the graph as .svg, .png or .html, atomically; what is there is replaced.

    Raises
    ------
    ValueError
        Another ending, no such folder, or a graph that is too large for a picture of dots.
    ChaosError
        matplotlib is not installed.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in GRAPH_FORMATS:
        raise ValueError(f"{path}: a graph is written as {', '.join(GRAPH_FORMATS)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no directory {path.parent}")
    matplotlib = need_matplotlib("graphs", "")
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "graph", "text.parse_math": False}):
        figure = draw_graph(title, boxes)
        if ending == ".png" and max(figure.get_size_inches()) > MOST_INCHES:
            raise ValueError(f"{path}: the graph of {len(boxes)} boxes is too large for a .png; .svg has no bound")
        if ending == ".png":
            figure.savefig(out, format="png", dpi=DOTS)
        else:
            figure.savefig(out, format="svg", metadata={"Date": None})
    found = out.getvalue()
    if ending == ".html":
        name = html.escape(title.encode("utf-8", "backslashreplace").decode())
        head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title></head>\n<body>\n'
        found = head.encode() + found[found.index(b"<svg") :] + b"</body></html>\n"
    write_atomically(path, found)
    return path
