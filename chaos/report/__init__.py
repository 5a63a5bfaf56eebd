"""Reports: headings, paragraphs, tables and plots, written as self-contained HTML, as Markdown or as JSON.

Knows nothing of networks: whoever has results puts them into a `Report`. Plots need matplotlib (the extra `plot`), JSON does
not. For the CLI and scripts.
"""

from .draw import THEMES, to_png, to_svg
from .estimates import estimate_blocks, estimate_report
from .graph import GRAPH_FORMATS, Box, write_graph
from .measurements import measurements_report
from .pictures import PICTURE_FORMATS, write_pictures
from .run import read_metrics, run_report
from .runs import Course, runs_report
from .structure import Bars, Block, Cell, Dots, Heading, Images, Line, Matrix, Paragraph, Plot, Report, Table
from .write import FORMATS, need_format, to_html, to_json, to_markdown, write

__all__ = [
    "FORMATS",
    "GRAPH_FORMATS",
    "THEMES",
    "PICTURE_FORMATS",
    "Bars",
    "Block",
    "Box",
    "Cell",
    "Course",
    "Dots",
    "Heading",
    "Images",
    "Line",
    "Matrix",
    "Paragraph",
    "Plot",
    "Report",
    "Table",
    "estimate_blocks",
    "estimate_report",
    "measurements_report",
    "need_format",
    "read_metrics",
    "run_report",
    "runs_report",
    "to_html",
    "to_json",
    "to_markdown",
    "to_png",
    "to_svg",
    "write",
    "write_graph",
    "write_pictures",
]
