"""Writes reports: HTML with the plots inside it, Markdown with the plots beside it, JSON. For chaos.report."""

from __future__ import annotations

import html
import io
import json
import math
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import ChaosError
from ..formats.atomic import write_atomically
from .structure import Bars, Heading, Line, Paragraph, Plot, Report, Table, shown

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

FORMATS = (".html", ".md", ".json")
MOST_NAMES = 24  # below the bars of a plot

STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; }
"""


def to_html(report: Report) -> str:
    """The report as one HTML page that needs no other file; ChaosError where a plot needs matplotlib and there is none."""
    blocks, plots = [], 0
    for block in report.blocks:
        if isinstance(block, Heading):
            blocks.append(f"<h{block.level}>{html.escape(block.text)}</h{block.level}>")
        elif isinstance(block, Paragraph):
            blocks.append(f"<p>{html.escape(block.text)}</p>")
        elif isinstance(block, Table):
            rows = [
                f"<tr>{''.join(f'<{tag}>{html.escape(shown(cell))}</{tag}>' for cell in row)}</tr>"
                for tag, row in [("th", block.columns), *(("td", row) for row in block.rows)]
            ]
            caption = f"<caption>{html.escape(block.caption)}</caption>" if block.caption else ""
            blocks.append(f"<table>{caption}{''.join(rows)}</table>")
        elif isinstance(block, Plot):
            plots += 1
            svg = to_svg(block, salt=f"plot-{plots}")
            blocks.append(f"<figure>{svg[svg.index('<svg') :]}</figure>")
        else:
            raise TypeError(f"a report holds headings, paragraphs, tables and plots, not {block!r}")
    title = html.escape(report.title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n<style>\n{STYLE}</style>'
        f"</head>\n<body>\n<h1>{title}</h1>\n" + "\n".join(blocks) + "\n</body></html>\n"
    )


def to_markdown(report: Report, plot_name: str = "plot-{}.svg") -> tuple[str, dict[str, str]]:
    """The report as Markdown, and its plots.

    Parameters
    ----------
    report : Report
    plot_name : str
        Name of a plot's file, with {} for its number.

    Returns
    -------
    str, {name: SVG}
    """
    blocks = [f"# {_plain(report.title)}"]
    plots: dict[str, str] = {}
    for block in report.blocks:
        if isinstance(block, Heading):
            blocks.append(f"{'#' * block.level} {_plain(block.text)}")
        elif isinstance(block, Paragraph):
            blocks.append(_plain(block.text))
        elif isinstance(block, Table):
            lines = [f"| {' | '.join(_plain(shown(cell)) for cell in row)} |" for row in (block.columns, *block.rows)]
            lines.insert(1, "|" + "|".join(["---"] + ["---:"] * (len(block.columns) - 1)) + "|")
            blocks.append((f"{_plain(block.caption)}:\n\n" if block.caption else "") + "\n".join(lines))
        elif isinstance(block, Plot):
            name = plot_name.format(len(plots) + 1)
            plots[name] = to_svg(block)
            blocks.append(f"![{_plain(block.title)}]({quote(os.fsencode(name))})")
        else:
            raise TypeError(f"a report holds headings, paragraphs, tables and plots, not {block!r}")
    return "\n\n".join(blocks) + "\n", plots


def to_json(report: Report) -> str:
    """The report as JSON: {"title", "data", "blocks": [{"kind", ...}]}; numbers that JSON cannot hold become null."""
    blocks = [{"kind": type(block).__name__.lower(), **asdict(block)} for block in report.blocks]
    for block in blocks:
        block.pop("series", None)
    for block, source in zip(blocks, report.blocks, strict=True):
        if isinstance(source, Plot):
            block["series"] = [{"kind": type(one).__name__.lower(), **asdict(one)} for one in source.series]
    found = _finite({"title": report.title, "data": report.data, "blocks": blocks})
    return json.dumps(found, separators=(",", ":"), allow_nan=False) + "\n"


def to_svg(plot: Plot, salt: str = "plot") -> str:
    """A plot as SVG with its text as text; the same plot gives the same bytes.

    Parameters
    ----------
    plot : Plot
    salt : str
        Another one for each plot of a page, so that names inside them differ.

    Raises
    ------
    ChaosError
        matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ChaosError(
            f"plots need matplotlib ({error}); pip install 'chaos-sgd[plot]', or write .json, which needs none"
        ) from None
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif", "text.parse_math": False}
    ):
        out = io.StringIO()
        draw(plot).savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def draw(plot: Plot) -> Figure:
    """A plot as a matplotlib Figure. Not of pyplot, which would choose a window system and keep state of its own."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    below: list[float] | None = None
    handles: list[Artist | tuple[Artist, ...]] = []
    for series in plot.series:
        y = [math.nan if value is None else float(value) for value in series.y]
        if isinstance(series, Bars):
            names = any(isinstance(value, str) for value in series.x)
            handles.append(axes.bar(range(len(y)) if names else series.x, y, bottom=below))
            below = y if below is None else [a + b for a, b in zip(below, y, strict=True)]
            if names:
                every = -(-len(y) // MOST_NAMES)
                axes.set_xticks([at for at in range(len(y)) if at % every == 0 or at == len(y) - 1])
                axes.set_xticklabels([str(series.x[int(at)]) for at in axes.get_xticks()])
        elif isinstance(series, Line):
            marker = "o" if len(series.x) <= 40 else None
            handles += axes.plot(series.x, y, "--" if series.dashed else "-", marker=marker, markersize=4)
        else:
            raise TypeError(f"a plot holds lines or bars, not {series!r}")
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    if plot.x_log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    elif all(isinstance(x, int) for series in plot.series for x in series.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if plot.y_log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    if len(plot.series) > 1:
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if below else {}
        # Named afterwards, as matplotlib leaves names that begin with "_" out of a legend.
        legend = axes.legend(handles, [str(number) for number in range(len(handles))], **beside)
        for text, series in zip(legend.get_texts(), plot.series, strict=True):
            text.set_text(series.name)
    return figure


def write(report: Report, path: str | os.PathLike[str]) -> list[Path]:
    """Writes a report; the ending of the path decides how.

    Parameters
    ----------
    report : Report
    path : str or path
        .html, .md (plots beside it, as NAME-1.svg and so on) or .json. What is there is replaced.

    Returns
    -------
    list of Path
        The files written, the report first.

    Raises
    ------
    ValueError
        Another ending, or no such folder.
    ChaosError
        A plot needs matplotlib.
    OSError
        It cannot be written.
    """
    path = Path(path)
    ending = need_format(path)
    plots: dict[str, str] = {}
    if ending == ".md":
        text, plots = to_markdown(report, re.sub(r"[{}\s()]", "-", path.stem) + "-{}.svg")
    else:
        text = to_html(report) if ending == ".html" else to_json(report)
    # A path of a title may hold what UTF-8 cannot.
    files = {
        path.parent / name: content.encode("utf-8", "backslashreplace")
        for name, content in [(path.name, text), *plots.items()]
    }
    for where, content in files.items():
        write_atomically(where, content)
    return list(files)


def need_format(path: str | os.PathLike[str]) -> str:
    """The ending of a report's path; ValueError where a report is not written like that, or the folder is not there."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise ValueError(f"{path}: a report is written as {', '.join(FORMATS)}")
    if not Path(path).parent.is_dir():
        raise ValueError(f"{path}: there is no directory {Path(path).parent}")
    return ending


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no emphasis, code, link, formula, entity or cell, and no list where it
    begins a line."""
    line = re.sub(r"([\\`*_\[\]<>|#$~]|&(?=#?\w+;))", r"\\\1", " ".join(str(text).split()))
    return re.sub(r"^([0-9]*)([-+=.)])(?=\s|[-=]|$)", r"\1\\\2", line)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
