"""Networks of depthwise separable convolutions. Imported by chaos.models."""

from __future__ import annotations

from collections.abc import Sequence

from ..hints import ZOO, explained
from ..initialisers import kaiming_normal
from ..layers import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Layer, Linear, ReLU
from ..layers.base import whole
from ..network import Network

# maps and stride of the pairs of a depthwise and a 1x1 convolution (the paper's table 1)
MOBILENET = (*((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)), *((512, 1),) * 5, *((1024, 2), (1024, 1)))
SMALL = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1))


@explained(ZOO)
def separable(
    blocks: Sequence[tuple[int, int]],
    seed: int = 0,
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    stem_stride: int = 2,
) -> Network:
    """A 3x3 convolution to 32 maps, then pairs of a depthwise 3x3 and a 1x1 convolution, each with batch normalisation and
    ReLU, the mean of each map, and one fully connected layer.

    Parameters
    ----------
    blocks : sequence of (maps, stride)
    width : float
        Factor of all numbers of maps, rounded down (the paper's width multiplier).
    stem_stride : int
        Of the first convolution.
    """
    if not isinstance(width, (int, float)) or isinstance(width, bool) or not width > 0:
        raise ValueError(f"width must be a number above 0, not {width!r}")

    def maps(n: int) -> int:
        return whole(f"maps, {n} times width {width},", int(n * width))

    layers: list[Layer] = []

    def add(name: str, n: int, kernel: int, stride: int, groups: int = 1) -> None:
        conv = Conv2d(n, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name=f"{name}.conv")
        layers.extend((conv, BatchNorm2d(name=f"{name}.bn"), ReLU()))

    before = maps(32)
    add("stem", before, 3, stem_stride)
    for i, (n, stride) in enumerate(blocks, 1):
        add(f"block{i}.depthwise", before, 3, stride, before)
        before = maps(n)
        add(f"block{i}.pointwise", before, 1, 1)
    net = Network(input_shape, [*layers, AdaptiveAvgPool2d(1), Flatten(), Linear(classes, name="classifier")], seed=seed)
    net.initialise(kaiming_normal(mode="fan_in", nonlinearity="relu"), pattern="*.conv.weight", seed=seed)
    return net


@explained(ZOO)
def mobilenet(
    seed: int = 0, *, input_shape: tuple[int, int, int] = (3, 224, 224), classes: int = 1000, width: float = 1.0
) -> Network:
    """3x224x224, a convolution and thirteen depthwise separable ones, 1000 outputs: 4,231,976 parameters. Howard et al.
    2017, "MobileNets: efficient convolutional neural networks for mobile vision applications" (MobileNetV1), table 1.

    Parameters
    ----------
    width : float
        Factor of all numbers of maps: 0.75, 0.5 and 0.25 are the paper's, with 2,585,560, 1,331,592 and 470,072 parameters.
    """
    return separable(MOBILENET, seed, input_shape=input_shape, classes=classes, width=width)


@explained(ZOO)
def mobilenet_cifar(seed: int = 0, *, input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> Network:
    """3x32x32, a convolution and five depthwise separable ones, 10 outputs: 136,778 parameters. The first half of
    `mobilenet`, beginning without subsampling, for images of 32 pixels."""
    return separable(SMALL, seed, input_shape=input_shape, classes=classes, stem_stride=1)
