"""Draws the blocks of a report with matplotlib, in colours that all eyes tell apart, light and dark. For chaos.report."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ChaosError
from .structure import Bars, Dots, Images, Line, Matrix, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

MOST_NAMES = 24  # below the bars of a plot
MOST_LETTERS = 60  # of all names below the bars; with more they stand beside them
MOST_CELLS = 16  # of a row of a matrix that have numbers in them
BESIDE = (8, 0)  # points from a dot to its name
INSIDE = 3  # series that have their legend within the axes
LONG = 24  # letters of a name, with which legends stand below
WIDE, HIGH = 8.0, 4.2  # inches of a plot
DOTS_PER_INCH = 120
# Okabe and Ito 2008, without yellow, which light paper swallows, and black, which dark paper does
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
# of the first six series, the next six ...
STYLES: tuple[Any, ...] = ("-", (0, (8, 1.5)))
DASHED: tuple[Any, ...] = ((0, (4, 2)), (0, (4, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Theme:
    """What a picture is drawn on and with."""

    paper: str
    ink: str
    weak: str


LIGHT = Theme("#ffffff", "#1b1f24", "#6b7178")
DARK = Theme("#15181c", "#e6e8eb", "#9aa1a9")
THEMES = {"light": LIGHT, "dark": DARK}
# in a page or picture that is shown on dark paper the colours of one theme become those of the other
ADAPTS = (
    "@media (prefers-color-scheme: dark) { "
    + " ".join(
        f'svg [style*="{what}: {before}"] {{ {what}: {after} !important }}'
        for before, after in ((LIGHT.paper, DARK.paper), (LIGHT.ink, DARK.ink), (LIGHT.weak, DARK.weak))
        for what in ("fill", "stroke")
    )
    + " }"
)

Drawn = Plot | Matrix | Images


def need_matplotlib(what: str = "plots", instead: str = ", or write .json, which needs none") -> Any:
    """The package; ChaosError where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise ChaosError(f"{what} need matplotlib ({error}); pip install 'chaos-sgd[plot]'{instead}") from None
    return matplotlib


@contextlib.contextmanager
def style(theme: Theme, salt: str = "plot") -> Iterator[None]:
    """Within it, matplotlib draws in a theme's colours."""
    matplotlib = need_matplotlib()
    ink = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor", "legend.labelcolor")
    weak = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    settings: dict[str, Any] = {
        **dict.fromkeys(ink, theme.ink),
        **dict.fromkeys(weak, theme.weak),
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "legend.facecolor": theme.paper,
        "legend.edgecolor": theme.weak,
        "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": "sans-serif",
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        yield


def to_svg(block: Drawn | Sequence[Drawn], salt: str = "plot", adapts: bool = True) -> str:
    """A block, or several in one picture, as SVG with its text as text; the same gives the same bytes.

    Parameters
    ----------
    block : Plot, Matrix or Images, or list of them
    salt : str
        Another one for each picture of a page, so that names inside them differ.
    adapts : bool
        The picture itself says what it looks like on dark paper; False where the page does.

    Raises
    ------
    ChaosError
        matplotlib is not installed.
    """
    blocks = [block] if isinstance(block, Drawn) else list(block)
    with style(LIGHT, salt):
        out = io.StringIO()
        figure_of(blocks, LIGHT).savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    if not adapts:
        return text
    end = text.index(">", text.index("<svg")) + 1
    return f"{text[:end]}\n <style>{ADAPTS}</style>{text[end:]}"


def to_png(block: Drawn | Sequence[Drawn], theme: Theme = LIGHT) -> bytes:
    """A block, or several in one picture, as PNG; ChaosError where matplotlib is not installed."""
    blocks = [block] if isinstance(block, Drawn) else list(block)
    with style(theme):
        out = io.BytesIO()
        figure_of(blocks, theme).savefig(out, format="png", dpi=DOTS_PER_INCH)
    return out.getvalue()


def figure_of(blocks: Sequence[Drawn], theme: Theme) -> Any:
    """A matplotlib Figure. Not of pyplot, which would choose a window system and keep state of its own."""
    from matplotlib.figure import Figure

    columns = 1 if len(blocks) < 3 or all(isinstance(block, Images) for block in blocks) else 2
    heights = [max(map(height, blocks[k : k + columns])) for k in range(0, len(blocks), columns)]
    figure = Figure(figsize=(WIDE * columns, sum(heights)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr, call-arg]
    if len(blocks) == 1:
        draw(blocks[0], figure, theme)
    else:
        parts = figure.subfigures(len(heights), columns, height_ratios=heights, squeeze=False)
        for part, block in zip(parts.ravel(), blocks, strict=False):
            draw(block, part, theme)
    _move_apart(figure)
    return figure


def height(block: Drawn) -> float:
    """Inches that a block needs."""
    if isinstance(block, Matrix):
        return max(HIGH, 1.4 + 0.42 * min(len(block.rows), 20))
    if isinstance(block, Images):
        across = columns_of(block)
        return 0.7 + -(-len(block.images) // across) * (WIDE / across * 0.94 + 0.2 * any(block.captions))
    rows = -(-len(block.series) // 2) if long_names(block) else 0
    return (max(HIGH, 1.3 + 0.26 * len(block.series[0].x)) if lies(block) else HIGH) + 0.22 * rows


def draw(block: Drawn, figure: FigureBase, theme: Theme) -> None:
    """Draws a block into a figure or a part of one."""
    if isinstance(block, Plot):
        _plot(figure, block, theme)
    elif isinstance(block, Matrix):
        _matrix(figure, block)
    else:
        _images(figure, block)


def long_names(plot: Plot) -> bool:
    """The legend stands below the axes."""
    return not lies(plot) and len(plot.series) > 1 and max(len(one.name) for one in plot.series) > LONG


def lies(plot: Plot) -> bool:
    """The names of its bars or dots stand on the vertical axis, one below the other, because they are long."""
    names = [x for x in plot.series[0].x if isinstance(x, str)]
    return isinstance(plot.series[0], Dots) and bool(names) or sum(map(len, names)) > MOST_LETTERS


# ---- lines, bars and dots ----


def _move_apart(figure: Any) -> None:
    """Names beside dots that would lie on each other stand above each other instead."""
    from matplotlib.text import Annotation

    many = [[one for one in axes.texts if isinstance(one, Annotation) and one.xyann == BESIDE] for axes in figure.axes]
    if not any(len(notes) > 1 for notes in many):
        return
    figure.draw_without_rendering()  # only now axes have their sizes
    for notes in many:
        taken: list[Any] = []
        for note in sorted(notes, key=lambda note: float(note.get_window_extent().y0)):
            box = note.get_window_extent()
            while under := [other for other in taken if other.overlaps(box)]:
                up = max(other.y1 for other in under) - box.y0 + 1
                note.xyann = (BESIDE[0], note.xyann[1] + up * 72 / figure.dpi)
                box = note.get_window_extent()
            taken.append(box)


def _plot(figure: FigureBase, plot: Plot, theme: Theme) -> None:
    axes: Axes = figure.subplots()
    flat = lies(plot)
    handles: list[Any] = []
    below: list[float] | None = None
    for number, series in enumerate(plot.series):
        y = [math.nan if value is None else float(value) for value in series.y]
        if isinstance(series, Bars):
            handles.append(_bars(axes, series, y, below, flat))
            below = y if below is None else [a + b for a, b in zip(below, y, strict=True)]
        elif isinstance(series, Dots):
            handles.append(_dots(axes, series, y, number, flat))
        elif isinstance(series, Line):
            later = plot.series[number + 1 :]
            hidden = any(list(one.x) == list(series.x) and list(one.y) == list(series.y) for one in later)
            handles.append(_line(axes, series, y, number, theme, hidden))
        else:
            raise TypeError(f"a plot holds lines, bars or dots, not {series!r}")
    x_label, y_label = (plot.y_label, plot.x_label) if flat else (plot.x_label, plot.y_label)
    axes.set(title=plot.title, xlabel=x_label, ylabel=y_label)
    _scale(axes, plot, flat)
    axes.grid(alpha=0.3, axis="x" if flat else "both")
    axes.set_axisbelow(True)
    if len(plot.series) > 1 and not _told_apart(plot):
        _legend(axes, plot, handles, beside=below is not None or flat or len(plot.series) > INSIDE)


def _bars(axes: Axes, series: Bars, y: list[float], below: list[float] | None, flat: bool) -> Any:
    names = any(isinstance(value, str) for value in series.x)
    at: Any = range(len(y)) if names else series.x
    if flat:
        handle = axes.barh(at, y, left=below)
        axes.set_yticks(range(len(y)), [str(x) for x in series.x])
        axes.set_ylim(len(y) - 0.4, -0.6)
        return handle
    handle = axes.bar(at, y, bottom=below)
    if names:
        every = -(-len(y) // MOST_NAMES)
        shown = [k for k in range(len(y)) if k % every == 0 or k == len(y) - 1]
        if len(shown) > 1 and shown[-1] - shown[-2] < every:
            shown.pop(-2)  # no room for both
        axes.set_xticks(shown, [str(series.x[k]) for k in shown])
    return handle


def _dots(axes: Axes, series: Dots, y: list[float], number: int, flat: bool) -> Any:
    names = any(isinstance(value, str) for value in series.x)
    at: Any = range(len(y)) if names else series.x
    ends = None
    if series.low is not None and series.high is not None:
        ends = [
            [value - low for value, low in zip(y, series.low, strict=True)],
            [high - value for value, high in zip(y, series.high, strict=True)],
        ]
    how: Any = {"fmt": MARKERS[number % len(MARKERS)], "color": _colour(number), "capsize": 3, "markersize": 6}
    if not flat:
        for x, value, text in zip(at, y, series.labels, strict=False):
            behind = {"boxstyle": "square,pad=0.1", "fc": axes.get_facecolor(), "ec": "none"}
            axes.annotate(text, (x, value), BESIDE, textcoords="offset points", va="center", fontsize=8, bbox=behind)
        return axes.errorbar(at, y, yerr=ends, **how)
    handle = axes.errorbar(y, at, xerr=ends, **how)
    axes.set_yticks(range(len(y)), [str(x) for x in series.x])
    axes.set_ylim(len(y) - 0.4, -0.6)
    if series.labels:
        for k, text in enumerate(series.labels):
            if not math.isnan(y[k]):
                right = series.high[k] if series.high is not None else y[k]
                axes.annotate(text, (right, k), (8, 0), textcoords="offset points", va="center", fontsize=9)
        axes.margins(x=0.18)
    return handle


def _line(axes: Axes, series: Line, y: list[float], number: int, theme: Theme, hidden: bool) -> Any:
    if series.guide:
        axes.annotate(
            series.name, (series.x[-1], y[-1]), (-4, 4), textcoords="offset points", ha="right", fontsize=8, color=theme.weak
        )
        return axes.plot(series.x, y, linestyle=(0, (4, 3)), color=theme.weak, linewidth=1, zorder=1)[0]
    again = number // len(COLOURS)  # how often the colours have been used up
    marker = MARKERS[(number + again) % len(MARKERS)]
    every = 1 if len(series.x) <= 40 else max(1, len(series.x) // 8)
    kind = (DASHED if series.dashed else STYLES)[again % 2]
    width, size = (4.5, 9) if hidden else (1.6, 4.5)  # is seen on both sides of the line that is the same
    how: Any = {"linestyle": kind, "linewidth": width, "color": _colour(number), "marker": marker, "markersize": size}
    return axes.plot(series.x, y, markevery=(number % every, every), **how)[0]


def _told_apart(plot: Plot) -> bool:
    """Each name has one dot, so that a legend would only say again what stands there."""
    return (
        lies(plot)
        and all(isinstance(one, Dots) for one in plot.series)
        and all(sum(one.y[k] is not None for one in plot.series) <= 1 for k in range(len(plot.series[0].y)))
    )


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _scale(axes: Axes, plot: Plot, flat: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    plain = FuncFormatter(lambda x, _: f"{x:,.10g}")
    if plot.x_log:
        axes.set_xscale("log", base=2 if all(_power(x) for one in plot.series for x in one.x) else 10)
        axes.xaxis.set_major_formatter(plain)
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif not flat and all(isinstance(x, int) for one in plot.series for x in one.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if plot.y_log:
        (axes.set_xscale if flat else axes.set_yscale)("log")
        axis = axes.xaxis if flat else axes.yaxis
        least, most = (axes.get_xlim if flat else axes.get_ylim)()
        if 0 < least and most / least < 100:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    else:
        axis = axes.xaxis if flat else axes.yaxis
        if plot.y_zero:
            least, most = axis.get_view_interval()
            axis.set_view_interval(min(0, least), most + 0.03 * (most - min(0, least)), ignore=True)
        if max(map(abs, axis.get_view_interval())) >= 1e4:
            axis.set_major_formatter(plain)


def _power(x: Any) -> bool:
    return isinstance(x, int) and x > 0 and x & (x - 1) == 0


def _legend(axes: Axes, plot: Plot, handles: list[Any], beside: bool) -> None:
    shown = [k for k, one in enumerate(plot.series) if not (isinstance(one, Line) and one.guide)]
    where: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if beside else {}
    if long_names(plot):  # which would take the axes' room
        where = {"loc": "upper center", "bbox_to_anchor": (0.45, -0.17), "ncols": 2, "fontsize": "small"}
    # Named afterwards, as matplotlib leaves names that begin with "_" out of a legend.
    legend = axes.legend([handles[k] for k in shown], [str(k) for k in shown], frameon=not where, **where)
    for text, k in zip(legend.get_texts(), shown, strict=True):
        text.set_text(plot.series[k].name)


# ---- matrices and images ----


def _matrix(figure: FigureBase, matrix: Matrix) -> None:
    axes: Axes = figure.subplots()
    shares = [[100 * value / max(sum(row), 1) for value in row] for row in matrix.values]
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axes.set(title=matrix.title, xlabel=matrix.x_label, ylabel=matrix.y_label)
    for ticks, names in ((axes.set_xticks, matrix.columns), (axes.set_yticks, matrix.rows)):
        every = -(-len(names) // MOST_NAMES)
        shown = range(0, len(names), every)
        ticks(shown, [names[k] for k in shown])
    if sum(map(len, matrix.columns)) > MOST_LETTERS:
        axes.tick_params(axis="x", rotation=45)
    if len(matrix.columns) <= MOST_CELLS:
        for i, row in enumerate(matrix.values):
            for j, value in enumerate(row):
                if value:  # the colour says what is none
                    ink = "#0d0d0d" if shares[i][j] > 55 else "#f7f7f7"
                    axes.text(j, i, f"{value:,}", ha="center", va="center", fontsize=8, color=ink)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=matrix.unit)


def columns_of(images: Images) -> int:
    """How many images stand beside each other."""
    return images.across or max(6, min(12, math.ceil(math.sqrt(2 * len(images.images)))))


def _images(figure: FigureBase, block: Images) -> None:
    across = columns_of(block)
    down = -(-len(block.images) // across)
    axes = figure.subplots(down, across, squeeze=False)
    most = max((float(abs(image).max()) for image in block.images if image.size), default=1.0) or 1.0
    for at in axes.ravel():
        at.set_axis_off()
    for number, (at, image) in enumerate(zip(axes.ravel(), block.images, strict=False)):
        if image.ndim == 3:
            at.imshow(image, interpolation="nearest")
        elif block.signed:
            at.imshow(image, cmap="PuOr", vmin=-most, vmax=most, interpolation="nearest")
        else:
            at.imshow(image, cmap="gray", interpolation="nearest")
        if number < len(block.captions) and block.captions[number]:
            at.set_title(block.captions[number], fontsize=8, pad=3)
    figure.suptitle(block.title)
