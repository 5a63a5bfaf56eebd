"""Reader of picture files. Used by `chaos predict` and by `folders`; needs Pillow.

A picture is seen as a person sees it, or refused: what Pillow's conversions would silently saturate, turn or blacken is
converted here first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
GREY = ("1", "L", "LA", "La", "I")
ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def read_picture(
    path: str | os.PathLike[str],
    channels: int | None,
    size: tuple[int, int] | None = None,
    tell: Callable[[int, tuple[int, int]], None] | None = None,
    opened: BinaryIO | None = None,
) -> np.ndarray:
    """Read one picture.

    Parameters
    ----------
    path : str or os.PathLike
        A picture in any format that Pillow knows; of several frames the first.
    channels : int or None
        1 for grey, 3 for red, green and blue; None: what the picture has.
    size : (int, int), optional
        Height and width that are wanted in the end. A direction that is larger is reduced to it (by weighted means of
        the pixels that fall together, so that thin strokes stay); a smaller one is left to `chaos.data.fit`.
    tell : callable, optional
        Called with the number of frames, and the height and width that the picture has.
    opened : binary file, optional
        What is read instead of the file at `path`, which is its name in messages then.

    Returns
    -------
    ndarray (1, channels, h, w)
        uint8.

    Raises
    ------
    DataError
        Pillow is missing, the file is damaged, the number of channels is another, or what the pixels mean is not sure:
        floating-point or 32-bit pixels, other colours than RGB, CMYK and YCbCr, and white ink on transparent ground.
    OSError
        The file cannot be opened.

    Notes
    -----
    The orientation that a camera has noted is applied. Pixels of 16 bits become 8 bits. Transparent parts are white, as on
    paper.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError(
            f"{path}: pictures need the package pillow, which is not installed (pip install 'chaos-sgd[data]'); "
            "without it IDX files (plain or .gz), .npy and .npz are read"
        ) from None
    if channels not in (None, 1, 3):
        raise DataError(f"{path}: pictures have 1 or 3 channels, the network wants {channels}")
    try:
        # Opened here: a TIFF that Pillow opens by its name is mapped, and then one that is to be turned is garbled (13.0).
        with opened or open(path, "rb") as file, Image.open(file) as picture:
            ImageOps.exif_transpose(picture, in_place=True)  # in place, as a copy would not know its TIFF tags
            channels = channels or (1 if picture.mode in GREY or picture.mode.startswith("I;16") else 3)
            seen = _opaque(_eight_bits(picture)).convert("L" if channels == 1 else "RGB")
            frames = 1
            with contextlib.suppress(Exception):  # later ones may be damaged, but are not taken
                frames = getattr(picture, "n_frames", 1)
        whole = (seen.height, seen.width)
        if size is not None:
            smaller = (min(seen.width, size[1]), min(seen.height, size[0]))
            seen = seen.resize(smaller, Image.Resampling.BILINEAR)
        pixels = np.array(seen)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # Pillow's own kinds for damaged or huge pictures, of which some are an OSError
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path}: not a readable picture: {error or type(error).__name__}") from None
    if tell is not None:
        tell(frames, whole)
    return pixels[None, None] if channels == 1 else pixels.transpose(2, 0, 1)[None]


def _eight_bits(picture: Image) -> Image:
    """The picture with at most 8 bits per channel; DataError where white is not known."""
    from PIL import Image

    # The tags of a TIFF: bits of a pixel, and whether 0 is black. Older Pillow opens 16-bit PNG and PGM as 32-bit pixels.
    tags = getattr(picture, "tag_v2", None)
    if picture.mode.startswith("I;16") and (tags is None or (tags.get(258) == (16,) and tags.get(262) == 1)):
        sixteen = np.array(picture)
    elif picture.mode == "I" and picture.format in ("PNG", "PPM"):
        sixteen = np.array(picture)
    elif picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        raise DataError(
            f"its pixels (mode {picture.mode}) have no agreed white; save it with 8 or 16 bits and 0 for black, or as .npy"
        )
    elif picture.mode in MODES:
        return picture
    else:
        raise DataError(f"its pixels (mode {picture.mode}) are neither grey nor colours of a known kind; save it as RGB")
    if "transparency" in picture.info:
        raise DataError("one of its 16-bit greys is transparent; put it on a ground of another colour first")
    return Image.fromarray(np.rint(sixteen / 257).astype(np.uint8))


def _opaque(picture: Image) -> Image:
    """The picture on a white ground; DataError where nothing would be left to see."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    alpha, colours = np.asarray(picture)[..., 3], np.asarray(shown)
    if alpha.min() != alpha.max() and (colours == colours[0, 0]).all():
        raise DataError("white on transparent ground; put it on a ground of another colour first")
    return shown
