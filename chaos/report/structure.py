"""What a report consists of. Data only; for chaos.report and those who make reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

Cell = str | float | None


@dataclass
class Heading:
    """A heading below the title; level 2 for a section, 3 within one."""

    text: str
    level: int = 2

    def __post_init__(self) -> None:
        if self.level not in (2, 3):
            raise ValueError(f"a heading has level 2 or 3, not {self.level!r}")


@dataclass
class Paragraph:
    """Plain text."""

    text: str


@dataclass
class Table:
    """Columns and rows of text and numbers; None is shown as a dash, a float with four significant digits.

    Attributes
    ----------
    columns : list of str
    rows : list of list
        As many cells each as there are columns.
    caption : str
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} of table {self.caption!r} has {len(row)} cells, its columns are {len(self.columns)}"
                )


@dataclass
class Line:
    """Points joined by a line; y may hold None, where the line is interrupted. A `guide` is nothing measured: grey, and
    named at its end."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    dashed: bool = False
    guide: bool = False

    def __post_init__(self) -> None:
        _same_length(self)


@dataclass
class Bars:
    """A bar at each x, or at each of some names."""

    name: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float | None]

    def __post_init__(self) -> None:
        _same_length(self)


@dataclass
class Dots:
    """A dot at each x, or beside each of some names, which then stand below each other; for logarithmic axes, on which bars
    have no foot.

    Attributes
    ----------
    name : str
    x, y : list
        None: no dot.
    low, high : list of float, optional
        The range of each.
    labels : list of str
        What stands beside each.
    """

    name: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float | None]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        _same_length(self)


@dataclass
class Matrix:
    """Counts in rows and columns, coloured by their share of the row.

    Attributes
    ----------
    title, x_label, y_label : str
    rows, columns : list of str
        Their names.
    values : list of list of int
        A list for each row.
    unit : str
        What the colour says.
    """

    title: str
    x_label: str
    y_label: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[int]]
    unit: str = "share of the row, %"

    def __post_init__(self) -> None:
        if len(self.values) != len(self.rows) or any(len(row) != len(self.columns) for row in self.values):
            raise ValueError(f"matrix {self.title!r} is not {len(self.rows)}x{len(self.columns)}")


@dataclass
class Images:
    """Small pictures beside each other.

    Attributes
    ----------
    title : str
    images : list of ndarray
        (h, w) of grey, or (h, w, 3) of uint8.
    captions : list of str
        One for each, or none.
    signed : bool
        Grey ones are numbers around 0, which has a colour of its own.
    across : int
        How many in a row; 0: as it fits.
    """

    title: str
    images: Sequence[Any]
    captions: Sequence[str] = ()
    signed: bool = False
    across: int = 0

    def __post_init__(self) -> None:
        if not len(self.images):
            raise ValueError(f"{self.title!r}: there are no images")


@dataclass
class Plot:
    """Lines, bars or dots over one pair of axes.

    Attributes
    ----------
    title, x_label, y_label : str
    series : list of Line, Bars or Dots
        Bars of several series are stacked; they stand on the same x then.
    x_log, y_log : bool
        Logarithmic axes.
    y_zero : bool
        A linear axis begins at 0.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Line | Bars | Dots]
    x_log: bool = False
    y_log: bool = False
    y_zero: bool = True

    def __post_init__(self) -> None:
        if not self.series:
            raise ValueError(f"plot {self.title!r} has no series")
        bars = [one for one in self.series if isinstance(one, Bars)]
        if bars and (len(bars) < len(self.series) or any(list(one.x) != list(bars[0].x) for one in bars)):
            raise ValueError(f"plot {self.title!r}: bars stand alone or on other bars with the same x")
        if bars and self.y_log:
            raise ValueError(f"plot {self.title!r}: bars have no foot on a logarithmic axis; take dots")


Block = Heading | Paragraph | Table | Plot | Matrix | Images


@dataclass
class Report:
    """A title, what follows it, and data for programs that the JSON form holds beside the rest."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def add(self, *blocks: Block) -> Self:
        """Appends blocks; the report itself, so that calls can be chained."""
        self.blocks += blocks
        return self


def shown(cell: Cell) -> str:
    """A cell of a table for people."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if 1e4 <= abs(cell) < math.inf else f"{cell:.4g}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return str(cell)


def _same_length(series: Line | Bars | Dots) -> None:
    if len(series.x) != len(series.y):
        raise ValueError(f"series {series.name!r} has {len(series.x)} x and {len(series.y)} y")
