"""Small tasks that are generated: segmentation, detection, reconstruction of what is hidden. Anybody may use it.

Nothing here is random but for `seed`: the same arguments give the same arrays, and image i is the same however many there
are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .dataset import Dataset

CLASSES = ("background", "disc", "square", "triangle")
FOREGROUND = 0.5  # overlap (intersection over union) from which a proposal counts as its object, as in Girshick 2015
NEAR = 0.1


class Detection(NamedTuple):
    """A detection task: images with proposals, and what is to be said of them.

    Attributes
    ----------
    images : uint8 (n, 1, size, size)
    proposals : float32 (n, k, 4)
        Boxes x1, y1, x2, y2 in pixels, the last pixel included.
    labels : int64 (n, k)
        What is in each box, a place in `CLASSES`: that of the object that it overlaps by at least half (intersection over
        union), else 0.
    deltas : float32 (n, 4, k)
        How each box is to be moved onto its object (Girshick et al. 2014, eq. 6-9): dx, dy in widths and heights of the box,
        dw, dh as logarithms of factors; 0 where it overlaps none.
    objects : list of float32 (m, 5)
        The objects of each image: class, x1, y1, x2, y2.
    """

    images: NDArray[np.uint8]
    proposals: NDArray[np.float32]
    labels: NDArray[np.int64]
    deltas: NDArray[np.float32]
    objects: list[NDArray[np.float32]]

    def dataset(self, name: str = "detection", *, regression: bool = False) -> Dataset:
        """Images and proposals with the classes as targets; with `regression` the deltas as targets of a second output."""
        targets = (self.labels, self.deltas) if regression else self.labels
        return Dataset((self.images, self.proposals), targets=targets, name=name)


def shapes(n: int, *, size: int = 32, seed: int = 0) -> Dataset:
    """Discs, squares and triangles of several sizes and grey levels on a noisy background, some over others.

    Returns
    -------
    Dataset
        Images uint8 (n, 1, size, size), targets int64 (n, size, size): of each pixel a place in `CLASSES`.
    """
    _check(n, size, 12)
    images, maps = np.empty((n, 1, size, size), np.uint8), np.zeros((n, size, size), np.int64)
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        canvas = _background(rng, size)
        for _ in range(rng.integers(1, 5)):
            kind, _, inside = _place(rng, size)
            canvas[inside] = rng.uniform(110, 230)
            maps[i][inside] = kind
        images[i, 0] = _finished(rng, canvas)
    return Dataset(images, targets=maps, name="shapes")


def centres(n: int, *, size: int = 32, wanted: int = 1, seed: int = 0) -> Dataset:
    """Images as of `shapes`, without overlaps, and maps that say where the objects of one class have their middle.

    Returns
    -------
    Dataset
        Images uint8 (n, 1, size, size), targets float32 (n, 1, size, size): 1 at the 3x3 pixels around the centre of each
        object of the class `wanted` (a place in `CLASSES`), else 0.
    """
    _check(n, size, 12)
    if not 1 <= wanted < len(CLASSES):
        raise DataError(f"wanted must be a class of objects, 1..{len(CLASSES) - 1}, not {wanted!r}")
    images, maps = np.empty((n, 1, size, size), np.uint8), np.zeros((n, 1, size, size), np.float32)
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        canvas, taken = _background(rng, size), np.zeros((size, size), bool)
        for kind, (x1, y1, x2, y2) in _apart(rng, size, canvas, taken):
            if kind == wanted:
                x, y = round((x1 + x2) / 2), round((y1 + y2) / 2)
                maps[i, 0, y - 1 : y + 2, x - 1 : x + 2] = 1
        images[i, 0] = _finished(rng, canvas)
    return Dataset(images, targets=maps, name="centres")


def detection(n: int, *, size: int = 48, proposals: int = 16, seed: int = 0) -> Detection:
    """Images as of `centres`, each with boxes some of which hold an object: a third around objects, moved and scaled by up
    to a fifth, a third near them, the rest anywhere. Their order says nothing."""
    _check(n, size, 16)
    if proposals < 1:
        raise DataError(f"proposals must be at least 1, not {proposals!r}")
    images = np.empty((n, 1, size, size), np.uint8)
    boxes, labels = np.empty((n, proposals, 4), np.float32), np.zeros((n, proposals), np.int64)
    deltas, objects = np.zeros((n, 4, proposals), np.float32), []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        canvas, taken = _background(rng, size), np.zeros((size, size), bool)
        found = np.array([(kind, *box) for kind, box in _apart(rng, size, canvas, taken)], np.float32)
        images[i, 0] = _finished(rng, canvas)
        for k, place in enumerate(rng.permutation(proposals)):
            spread = (0.2, 0.6, None)[3 * k // proposals]
            box = _proposal(rng, size, found[rng.integers(len(found)), 1:], spread)
            overlap = iou(box[None], found[:, 1:])[0]
            best = int(overlap.argmax())
            boxes[i, place] = box
            if overlap[best] >= FOREGROUND:
                labels[i, place] = int(found[best, 0])
            if overlap[best] >= NEAR:
                deltas[i, :, place] = box_deltas(box[None], found[best : best + 1, 1:])[0]
        objects.append(found)
    return Detection(images, boxes, labels, deltas, objects)


def occluded(images: NDArray[np.uint8], *, side: int = 8, border: int = 4, grey: float = 0.125, seed: int = 0) -> Dataset:
    """Images of which a square is hidden, and what is to be seen: the filling-in of Behnke 2003, "Hierarchical neural
    networks for image interpretation", section 9.3.

    Parameters
    ----------
    images : uint8 (n, 1, height, width)
        Such as those of MNIST.
    side : int
        Of the square, which lies anywhere at least `border` pixels from the edges.
    grey : float
        Its intensity, 0..1.

    Returns
    -------
    Dataset
        Images uint8, targets float32 0..1 of the same shape.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"occluded needs images uint8 (n, c, h, w), not {images.dtype} of shape {images.shape}")
    height, width = images.shape[2:]
    if side < 1 or border < 0 or min(height, width) < side + 2 * border or not 0 <= grey <= 1:
        raise DataError(
            f"a square of {side} pixels (grey {grey}, 0..1) at least {border} from the edges does not fit {height}x{width}"
        )
    hidden = images.copy()
    for i, image in enumerate(hidden):
        rng = np.random.default_rng([seed, i])
        y, x = rng.integers(border, height - side - border + 1), rng.integers(border, width - side - border + 1)
        image[:, y : y + side, x : x + side] = round(255 * grey)
    return Dataset(hidden, targets=images.astype(np.float32) / 255, name="occluded")


# ---- boxes ----


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of boxes (n, 4) and (m, 4), x1, y1, x2, y2 with the last pixel included: (n, m)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(2, dtype=np.float64)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(1, dtype=np.float64) for boxes in (a, b)]
    overlaps: NDArray[np.float64] = shared / (areas[0][:, None] + areas[1] - shared)
    return overlaps


def box_deltas(boxes: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """dx, dy, dw, dh that move boxes (n, 4) onto targets (n, 4): (n, 4)."""
    sizes, wanted = (array[:, 2:] - array[:, :2] + 1 for array in (boxes, targets))
    moved = (targets[:, :2] + wanted / 2 - boxes[:, :2] - sizes / 2) / sizes
    return np.concatenate((moved, np.log(wanted / sizes)), 1).astype(np.float32)


def move_boxes(boxes: NDArray[np.float32], deltas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes (n, 4) moved by deltas (n, 4): the way back of `box_deltas`."""
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    middle, wanted = boxes[:, :2] + sizes / 2 + deltas[:, :2] * sizes, sizes * np.exp(deltas[:, 2:])
    return np.concatenate((middle - wanted / 2, middle + wanted / 2 - 1), 1).astype(np.float32)


# ---- drawing ----


def _check(n: int, size: int, least: int) -> None:
    if n < 1 or size < least:
        raise DataError(f"n must be at least 1 and size at least {least}, not {n!r} and {size!r}")


def _background(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return np.full((size, size), rng.uniform(10, 70))


def _finished(rng: np.random.Generator, canvas: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The image with noise."""
    return np.clip(canvas + rng.normal(0, 12, canvas.shape), 0, 255).astype(np.uint8)


def _place(rng: np.random.Generator, size: int) -> tuple[int, tuple[int, int, int, int], NDArray[np.bool_]]:
    """An object somewhere in the image: class, box, and which pixels it covers."""
    kind, side = int(rng.integers(1, len(CLASSES))), int(rng.integers(7, max(8, size // 3) + 1))
    x1, y1 = (int(v) for v in rng.integers(0, size - side + 1, 2))
    y, x = np.mgrid[:size, :size]
    u, v = (x - x1) / (side - 1), (y - y1) / (side - 1)  # 0..1 within the box
    box = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
    if kind == 1:
        inside = np.hypot(u - 0.5, v - 0.5) <= 0.5
    elif kind == 2:
        inside = box
    else:
        inside = box & (np.abs(u - 0.5) <= v / 2)
    return kind, (x1, y1, x1 + side - 1, y1 + side - 1), inside


def _apart(
    rng: np.random.Generator, size: int, canvas: NDArray[np.float64], taken: NDArray[np.bool_]
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Draws one to four objects whose boxes do not touch: [(class, box), ...]."""
    found = []
    for _ in range(rng.integers(1, 5)):
        kind, box, inside = _place(rng, size)
        x1, y1, x2, y2 = box
        around = slice(max(y1 - 1, 0), y2 + 2), slice(max(x1 - 1, 0), x2 + 2)
        if not taken[around].any():
            taken[around] = True
            canvas[inside] = rng.uniform(110, 230)
            found.append((kind, box))
    return found


def _proposal(rng: np.random.Generator, size: int, box: NDArray[np.float32], spread: float | None) -> NDArray[np.float32]:
    """A box near `box`, moved and scaled by at most that share of its sides; None: anywhere."""
    if spread is None:
        side = rng.uniform(7, size / 3, 2)
        corner = rng.uniform(0, size - side)
        found = np.concatenate((corner, corner + side - 1))
    else:
        found = move_boxes(box[None], rng.uniform(-spread, spread, (1, 4)).astype(np.float32))[0]
    low, high = np.clip(found[:2], 0, size - 2), np.clip(found[2:], 1, size - 1)
    return np.concatenate((low, np.maximum(high, low + 1))).astype(np.float32)
