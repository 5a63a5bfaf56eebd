"""Writes reports: HTML with the plots inside it, Markdown with the plots beside it, JSON. For chaos.report."""

from __future__ import annotations

import html
import json
import math
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..formats.atomic import write_atomically
from .draw import ADAPTS, LIGHT, Drawn, Theme, to_png, to_svg
from .structure import Heading, Images, Paragraph, Plot, Report, Table, shown

FORMATS = (".html", ".md", ".json", ".svg", ".png")

STYLE = (
    f"""\
{ADAPTS}
@media (prefers-color-scheme: dark) {{ body {{ color: #e6e8eb; background: #15181c; }} th, td {{ border-color: #444; }} }}
"""
    + """\
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #8884; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; }
"""
)


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
        elif isinstance(block, Drawn):
            plots += 1
            svg = to_svg(block, salt=f"plot-{plots}", adapts=False)
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
        elif isinstance(block, Drawn):
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
        if isinstance(source, Images):
            block["images"] = [image.tolist() for image in source.images]
    found = _finite({"title": report.title, "data": report.data, "blocks": blocks})
    return json.dumps(found, separators=(",", ":"), allow_nan=False) + "\n"


def write(report: Report, path: str | os.PathLike[str], theme: Theme = LIGHT) -> list[Path]:
    """Writes a report; the ending of the path decides how.

    Parameters
    ----------
    report : Report
    path : str or path
        .html, .md (plots beside it, as NAME-1.svg and so on), .json, or of the plots alone .svg and .png. What is there is
        replaced.
    theme : Theme
        Of a .png; what else is drawn follows the reader's choice of light or dark.

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
    if ending in (".svg", ".png"):
        drawn = [block for block in report.blocks if isinstance(block, Drawn)]
        if not drawn:
            raise ValueError(f"{path}: there is nothing to draw; .html, .md and .json hold the rest")
        picture = to_png(drawn, theme) if ending == ".png" else to_svg(drawn).encode("utf-8", "backslashreplace")
        write_atomically(path, picture)
        return [path]
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
