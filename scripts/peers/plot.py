"""The figures as dots on a logarithmic axis, drawn by chaos.report; needs matplotlib. For the run."""

from __future__ import annotations

from chaos import report


def plot(document, path):
    """A panel per network: a dot for the median, a range from the fastest to the slowest turn; .png, .svg or .html."""
    report.write(report.measurements_report(document), path)
