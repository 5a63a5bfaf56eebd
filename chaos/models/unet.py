"""A small U-Net for segmentation. Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..layers import Concat, Conv2d, ConvTranspose2d, Input, MaxPool2d, Node, ReLU
from ..layers.base import whole
from ..network import Network


@explained(ZOO)
def unet(
    seed: int = 0, *, input_shape: tuple[int, int, int] = (1, 32, 32), classes: int = 4, maps: int = 16, levels: int = 3
) -> Network:
    """1x32x32 to 4x32x32, three levels of 16, 32 and 64 maps: 116,804 parameters. Ronneberger, Fischer, Brox 2015, "U-Net:
    convolutional networks for biomedical image segmentation", at the size of small images.

    Two 3x3 convolutions on each level, 2x2 max-pooling on the way down, 2x2 transposed convolutions on the way up, joined
    with what the way down had on the level, and a 1x1 convolution to one map for each class. For loss="cross_entropy" with
    a class per pixel as targets (`chaos.data.generated.shapes`).

    Parameters
    ----------
    input_shape : (int, int, int)
        Height and width must be multiples of 2 ** (levels - 1).
    maps : int
        Of the first level; each further one has twice as many.

    Differs from the paper: convolutions keep the size (the paper's cut the border away, and crop what they join); four times
    narrower and two levels less.
    """
    step = 2 ** (whole("levels", levels) - 1)
    if len(input_shape) != 3 or any(size % step for size in input_shape[1:]):
        raise ValueError(f"unet: height and width of an input must be multiples of {step}, its shape is {input_shape}")
    x = Input(input_shape)
    sides: list[Node] = []
    y: Node = x
    for level in range(levels):
        y = _two(f"down{level + 1}", MaxPool2d(2)(y) if level else y, maps * 2**level)
        sides.append(y)
    for level in reversed(range(levels - 1)):
        wide = maps * 2**level
        y = Concat()(ConvTranspose2d(wide, 2, stride=2, name=f"up{level + 1}.upsample")(y), sides[level])
        y = _two(f"up{level + 1}", y, wide)
    net = Network(x, Conv2d(classes, 1, name="output")(y), seed=seed)
    net.initialise("kaiming_normal", "zeros", seed=seed)
    return net


def _two(name: str, x: Node, maps: int) -> Node:
    for i in (1, 2):
        x = ReLU()(Conv2d(maps, 3, padding=1, name=f"{name}.conv{i}")(x))
    return x
