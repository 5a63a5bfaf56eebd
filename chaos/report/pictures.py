"""Draws images in rows, as SVG or PNG. Needs matplotlib. For the CLI."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ChaosError
from ..formats.atomic import write_atomically

PICTURE_FORMATS = (".png", ".svg")
SIDE, DOTS = 0.9, 110  # inches of an image; dots per inch of a PNG


def write_pictures(
    title: str,
    rows: Sequence[NDArray[Any]],
    columns: Sequence[str],
    bounds: tuple[float, float],
    path: str | os.PathLike[str],
) -> Path:
    """Writes images, atomically; what is there is replaced.

    Parameters
    ----------
    title : str
    rows : sequence of ndarray (k, c, h, w)
        Images of one channel, or of red, green and blue; of others the first channel is drawn.
    columns : sequence of str
        What stands above each of the k columns.
    bounds : (float, float)
        The numbers that are black and white.
    path : path
        Ends with .png or .svg.

    Raises
    ------
    ValueError
        Another ending, or no such folder.
    ChaosError
        matplotlib is not installed.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in PICTURE_FORMATS:
        raise ValueError(f"{path}: images are drawn as {', '.join(PICTURE_FORMATS)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no directory {path.parent}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ChaosError(f"pictures need matplotlib ({error}); pip install 'chaos-sgd[plot]'") from None
    low, high = bounds[0], max(bounds[1], np.nextafter(bounds[0], np.inf))
    with matplotlib.rc_context({"svg.hashsalt": "pictures", "text.parse_math": False}):
        figure = Figure(figsize=(SIDE * len(columns), SIDE * len(rows) + 0.6), layout="constrained")
        figure.suptitle(title, fontsize=9)
        axes = figure.subplots(len(rows), len(columns), squeeze=False)
        for number, row in enumerate(rows):
            for column, image in enumerate(row):
                place = axes[number, column]
                place.set_axis_off()
                if number == 0:
                    place.set_title(columns[column], fontsize=7)
                grey = np.clip((image - low) / (high - low), 0, 1)
                place.imshow(np.moveaxis(grey, 0, 2) if len(grey) == 3 else grey[0], cmap="gray", vmin=0, vmax=1)
        out = io.BytesIO()
        figure.savefig(out, format=ending[1:], dpi=DOTS, metadata={"Date": None} if ending == ".svg" else {})
    write_atomically(path, out.getvalue())
    return path
