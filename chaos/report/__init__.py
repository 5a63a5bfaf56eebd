"""Reports: headings, paragraphs, tables and plots, written as self-contained HTML, as Markdown or as JSON.

Knows nothing of networks: whoever has results puts them into a `Report`. Plots need matplotlib (the extra `plot`), JSON does
not. For the CLI and scripts.
"""

from .estimates import estimate_blocks, estimate_report
from .graph import GRAPH_FORMATS, Box, write_graph
from .pictures import PICTURE_FORMATS, write_pictures
from .run import read_metrics, run_report
from .structure import Bars, Block, Cell, Heading, Line, Paragraph, Plot, Report, Table
from .write import FORMATS, need_format, to_html, to_json, to_markdown, to_svg, write

__all__ = [
    "FORMATS",
    "GRAPH_FORMATS",
    "PICTURE_FORMATS",
    "Bars",
    "Block",
    "Box",
    "Cell",
    "Heading",
    "Line",
    "Paragraph",
    "Plot",
    "Report",
    "Table",
    "estimate_blocks",
    "estimate_report",
    "need_format",
    "read_metrics",
    "run_report",
    "to_html",
    "to_json",
    "to_markdown",
    "to_svg",
    "write",
    "write_graph",
    "write_pictures",
]
