"""Residual networks, for CIFAR-10 and for ImageNet. Imported by chaos.models."""

from __future__ import annotations

from typing import Any

from ..hints import ZOO, explained
from ..initialisers import kaiming_normal
from ..layers import (
    AdaptiveAvgPool2d,
    Add,
    Affine,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Node,
    ReLU,
)
from ..network import Network

SHORTCUTS = ("A", "B")


@explained(ZOO)
def resnet_cifar(
    depth: int,
    seed: int = 0,
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    shortcut: str = "A",
    preactivation: bool = False,
) -> Network:
    """A residual network of `depth` = 6n + 2 layers: a 3x3 convolution, then three stages of n blocks of two 3x3
    convolutions with 16, 32 and 64 maps on 32x32, 16x16 and 8x8 pixels, the mean of each map, and one fully connected
    layer. He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition", section 4.2.

    Parameters
    ----------
    depth : int
        20, 32, 44, 56, 110, ...
    shortcut : {"A", "B"}
        Where a stage begins: A takes every other pixel and adds maps of zeros behind the others, without parameters, as the
        paper's networks for CIFAR-10; B is a 1x1 convolution with batch normalisation.
    preactivation : bool
        Batch normalisation and ReLU before the convolutions instead of behind them, and nothing behind the sum: He, Zhang,
        Ren, Sun 2016, "Identity mappings in deep residual networks". B's convolution then has no normalisation of its own.

    Notes
    -----
    First values: `kaiming_normal` with fan_out, which is He's of 2015. Batch normalisation wants steps of several images:
    the paper's batch size is 128, spread over two processors."""
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
        raise ValueError(f"resnet_cifar: depth must be 6n + 2, such as 20, 32, 56, not {depth!r}")
    if shortcut not in SHORTCUTS:
        raise ValueError(f"resnet_cifar: shortcut must be 'A' or 'B', not {shortcut!r}")
    x = Input(input_shape)
    y = _conv("conv1", x, 16)
    if not preactivation:
        y = ReLU()(BatchNorm2d(name="bn1")(y))
    block = _preactivated if preactivation else _basic
    for stage, maps in enumerate((16, 32, 64), 1):
        for i in range((depth - 2) // 6):
            y = block(f"layer{stage}.{i}", y, maps, 2 if stage > 1 and i == 0 else 1, shortcut)
    if preactivation:
        y = ReLU()(BatchNorm2d(name="bn")(y))
    return _finished(x, y, "linear", classes, seed)


def resnet20(seed: int = 0, **options: Any) -> Network:
    """3x32x32, 20 layers, shortcuts without parameters: 269,722 parameters. He, Zhang, Ren, Sun 2015; options: those of
    `resnet_cifar`."""
    return resnet_cifar(20, seed, **options)


def resnet32(seed: int = 0, **options: Any) -> Network:
    """3x32x32, 32 layers, shortcuts without parameters: 464,154 parameters. He, Zhang, Ren, Sun 2015; options: those of
    `resnet_cifar`."""
    return resnet_cifar(32, seed, **options)


def resnet56(seed: int = 0, **options: Any) -> Network:
    """3x32x32, 56 layers, shortcuts without parameters: 853,018 parameters. He, Zhang, Ren, Sun 2015; options: those of
    `resnet_cifar`."""
    return resnet_cifar(56, seed, **options)


def resnet20_b(seed: int = 0, **options: Any) -> Network:
    """3x32x32, 20 layers, 1x1 convolutions as shortcuts where stages begin: 272,474 parameters. He, Zhang, Ren, Sun 2015;
    options: those of `resnet_cifar`."""
    return resnet_cifar(20, seed, shortcut="B", **options)


def preact_resnet20(seed: int = 0, **options: Any) -> Network:
    """3x32x32, 20 layers, normalisation and ReLU before the convolutions: 269,722 parameters. He, Zhang, Ren, Sun 2016;
    options: those of `resnet_cifar`."""
    return resnet_cifar(20, seed, preactivation=True, **options)


@explained(ZOO)
def resnet(depth: int, seed: int = 0, *, input_shape: tuple[int, int, int] = (3, 224, 224), classes: int = 1000) -> Network:
    """A residual network for ImageNet: a 7x7 convolution, max-pooling, four stages, the mean of each map, and one fully
    connected layer. He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition", table 1.

    Parameters
    ----------
    depth : {18, 34, 50}
        18 and 34 have blocks of two 3x3 convolutions, 50 of 1x1, 3x3 and 1x1.

    Notes
    -----
    Layers are named as torchvision's, whose weights `load_state_dict` takes; as there, and unlike in the paper, it is the
    3x3 convolution of a block that subsamples (ResNet v1.5). Shortcuts are the paper's option B."""
    if depth not in _STAGES:
        raise ValueError(f"resnet: depth must be one of {', '.join(map(str, _STAGES))}, not {depth!r}")
    x = Input(input_shape)
    y = _conv("conv1", x, 64, 7, 2)
    y = MaxPool2d(3, stride=2, padding=1)(ReLU()(BatchNorm2d(name="bn1")(y)))
    for stage, (blocks, maps) in enumerate(zip(_STAGES[depth], (64, 128, 256, 512), strict=True), 1):
        for i in range(blocks):
            block = _bottleneck if depth == 50 else _basic
            y = block(f"layer{stage}.{i}", y, maps, 2 if stage > 1 and i == 0 else 1, "downsample")
    return _finished(x, y, "fc", classes, seed)


_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def resnet18(seed: int = 0, **options: Any) -> Network:
    """3x224x224, 18 layers: 11,689,512 parameters. He, Zhang, Ren, Sun 2015; options: those of `resnet`."""
    return resnet(18, seed, **options)


def resnet34(seed: int = 0, **options: Any) -> Network:
    """3x224x224, 34 layers: 21,797,672 parameters. He, Zhang, Ren, Sun 2015; options: those of `resnet`."""
    return resnet(34, seed, **options)


def resnet50(seed: int = 0, **options: Any) -> Network:
    """3x224x224, 50 layers: 25,557,032 parameters. He, Zhang, Ren, Sun 2015; options: those of `resnet`."""
    return resnet(50, seed, **options)


def _finished(x: Input, y: Node, name: str, classes: int, seed: int) -> Network:
    """The network with the mean of each map and one fully connected layer, and its first values."""
    net = Network(x, Linear(classes, name=name)(Flatten()(AdaptiveAvgPool2d(1)(y))), seed=seed)
    net.initialise(kaiming_normal(mode="fan_out", nonlinearity="relu"), pattern="*conv*", seed=seed)
    return net


def _conv(name: str, x: Node, maps: int, kernel: int = 3, stride: int = 1) -> Node:
    return Conv2d(maps, kernel, stride=stride, padding=kernel // 2, bias=False, name=name)(x)


def _shortcut(name: str, x: Node, maps: int, stride: int, option: str, norm: bool = True) -> Node:
    """What a block adds to its convolutions' output."""
    if x.shape[0] == maps and stride == 1:
        return x
    if option == "A":
        y = AvgPool2d(1, stride)(x)  # every stride-th pixel
        return Concat()(y, Affine(0.0, 0.0)(y))
    name = f"{name}.{'shortcut' if option == 'B' else option}"
    y = _conv(f"{name}.0", x, maps, 1, stride)
    return BatchNorm2d(name=f"{name}.1")(y) if norm else y


def _basic(name: str, x: Node, maps: int, stride: int, option: str) -> Node:
    y = ReLU()(BatchNorm2d(name=f"{name}.bn1")(_conv(f"{name}.conv1", x, maps, 3, stride)))
    y = BatchNorm2d(name=f"{name}.bn2")(_conv(f"{name}.conv2", y, maps))
    return ReLU()(Add()(y, _shortcut(name, x, maps, stride, option)))


def _bottleneck(name: str, x: Node, maps: int, stride: int, option: str) -> Node:
    y = ReLU()(BatchNorm2d(name=f"{name}.bn1")(_conv(f"{name}.conv1", x, maps, 1)))
    y = ReLU()(BatchNorm2d(name=f"{name}.bn2")(_conv(f"{name}.conv2", y, maps, 3, stride)))
    y = BatchNorm2d(name=f"{name}.bn3")(_conv(f"{name}.conv3", y, 4 * maps, 1))
    return ReLU()(Add()(y, _shortcut(name, x, 4 * maps, stride, option)))


def _preactivated(name: str, x: Node, maps: int, stride: int, option: str) -> Node:
    before = ReLU()(BatchNorm2d(name=f"{name}.bn1")(x))
    y = _conv(f"{name}.conv1", before, maps, 3, stride)
    y = _conv(f"{name}.conv2", ReLU()(BatchNorm2d(name=f"{name}.bn2")(y)), maps)
    changes = x.shape[0] != maps or stride != 1
    return Add()(y, _shortcut(name, before if changes and option == "B" else x, maps, stride, option, norm=False))
