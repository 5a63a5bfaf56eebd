"""A small Fast R-CNN: what is in given boxes of an image. Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..layers import Conv1d, Conv2d, Input, MaxPool2d, Node, Permute, ReLU, Reshape, RoIPool
from ..layers.base import whole
from ..network import Network


@explained(ZOO)
def fast_rcnn(
    seed: int = 0,
    *,
    input_shape: tuple[int, int, int] = (1, 48, 48),
    proposals: int = 16,
    classes: int = 3,
    hidden: int = 64,
    regression: bool = False,
) -> Network:
    """Image 1x48x48 and 16 boxes to the classes of the boxes, 4x16 (0: background): 89,156 parameters; 89,416 with
    regression. The head of Girshick 2015, "Fast R-CNN", on three convolutions.

    Inputs: the image, and `proposals` boxes (x1, y1, x2, y2 in pixels) as an input (proposals, 4). The convolutions see the
    image once; RoIPool cuts 4x4 windows out of their maps for every box, and the same two fully connected layers look at
    each box. Outputs are (classes + 1, proposals), for loss="cross_entropy" with a class for each box as targets
    (`chaos.data.generated.detection`).

    Parameters
    ----------
    regression : bool
        A second output, (4, proposals), as the paper's: how the box is to be moved, dx and dy in widths and heights of the
        box, dw and dh as logarithms of factors; for loss="cross_entropy + smooth_l1@1".

    Differs from the paper: one box regression for all classes instead of one for each; convolutions of our own size instead
    of VGG-16's, trained from the beginning; all boxes of an image in one step.
    """
    whole("proposals", proposals)
    image, boxes = Input(input_shape), Input((proposals, 4))
    y: Node = image
    for i, maps in enumerate((16, 32, 64), 1):
        y = ReLU()(Conv2d(maps, 3, padding=1, name=f"conv{i}")(y))
        if i < 3:
            y = MaxPool2d(2)(y)
    y = RoIPool(4, 1 / 4)(y, boxes)  # (proposals * maps, 4, 4)
    y = Permute((0, 2, 1))(Reshape((proposals, -1))(y))  # a column for each box
    y = ReLU()(Conv1d(hidden, 1, name="fc")(y))
    ends: list[Node] = [Conv1d(classes + 1, 1, name="score")(y)]
    if regression:
        ends.append(Conv1d(4, 1, name="box")(y))
    net = Network([image, boxes], ends, seed=seed)
    net.initialise("kaiming_normal", "zeros", seed=seed)
    return net
