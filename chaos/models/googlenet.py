"""GoogLeNet with its auxiliary outputs. Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..initialisers import constant
from ..layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Node,
    ReLU,
)
from ..network import Network

# maps of 1x1, of 3x3 and the 1x1 before it, of 5x5 and the 1x1 before it, and of 1x1 behind the pooling (the paper's table
# 1)
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@explained(ZOO)
def googlenet(seed: int = 0, *, classes: int = 1000, auxiliary: bool = False) -> Network:
    """3x224x224, nine inception modules, mean of each map, 1000 outputs: 6,998,552 parameters; 13,378,280 with the auxiliary
    outputs. Szegedy et al. 2014, "Going deeper with convolutions" (Inception v1), table 1.

    Parameters
    ----------
    auxiliary : bool
        Three outputs instead of one: the last, then those behind modules 4a and 4d, which are for training only; the names
        of the other parameters are the same with and without. As in the paper:
        loss="cross_entropy + 0.3*cross_entropy@1 + 0.3*cross_entropy@2".

    Differs from the paper: first values are Caffe's (uniform by fan_in, biases 0.2), which it does not print. torchvision's
    network of this name is another one: batch normalisation instead of local response normalisation, 3x3 in place of 5x5.
    """
    x = Input((3, 224, 224))
    y = _conv("conv1", x, 64, 7, stride=2, padding=3)
    y = _norm(_shrink(y))
    y = _conv("conv2.reduce", y, 64, 1)
    y = _norm(_conv("conv2", y, 192, 3, padding=1))
    more: list[Node] = []
    for name, sizes in MODULES.items():
        if name in ("3a", "4a", "5a"):
            y = _shrink(y)
        y = _inception(f"inception{name}", y, *sizes)
        if auxiliary and name in ("4a", "4d"):
            more.append(_auxiliary(f"aux{len(more) + 1}", y, classes))
    y = Dropout(0.4)(Flatten()(AdaptiveAvgPool2d(1)(y)))
    y = Linear(classes, name="classifier")(y)
    net = Network(x, [y, *more] if more else y, seed=seed)
    net.initialise("lecun_uniform", constant(0.2), seed=seed)
    return net


def _conv(name: str, x: Node, maps: int, kernel: int, stride: int = 1, padding: int = 0) -> Node:
    return ReLU()(Conv2d(maps, kernel, stride=stride, padding=padding, name=name)(x))


def _norm(x: Node) -> Node:
    return LocalResponseNorm(5, 1e-4, 0.75, 1.0)(x)


def _shrink(x: Node) -> Node:
    return MaxPool2d(3, stride=2, ceil_mode=True)(x)


def _inception(name: str, x: Node, one: int, three_in: int, three: int, five_in: int, five: int, pool: int) -> Node:
    return Concat()(
        _conv(f"{name}.1x1", x, one, 1),
        _conv(f"{name}.3x3", _conv(f"{name}.3x3_reduce", x, three_in, 1), three, 3, padding=1),
        _conv(f"{name}.5x5", _conv(f"{name}.5x5_reduce", x, five_in, 1), five, 5, padding=2),
        _conv(f"{name}.pool_proj", MaxPool2d(3, stride=1, padding=1)(x), pool, 1),
    )


def _auxiliary(name: str, x: Node, classes: int) -> Node:
    y = _conv(f"{name}.conv", AvgPool2d(5, 3)(x), 128, 1)
    y = ReLU()(Linear(1024, name=f"{name}.fc")(Flatten()(y)))
    return Linear(classes, name=f"{name}.classifier")(Dropout(0.7)(y))
