"""The VGG networks. Imported by chaos.models."""

from __future__ import annotations

from typing import Any

from ..hints import ZOO, explained
from ..initialisers import kaiming_normal, normal
from ..layers import BatchNorm2d, Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU
from ..network import Network

# convolutions before each of the five poolings, of 64, 128, 256, 512 and 512 maps
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
MAPS = (64, 128, 256, 512, 512)


@explained(ZOO)
def vgg(
    depth: int,
    seed: int = 0,
    *,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    hidden: int = 4096,
    batch_norm: bool = False,
) -> Network:
    """A VGG network: 3x3 convolutions in five blocks, each ending in 2x2 max-pooling, and three fully connected layers.
    Simonyan, Zisserman 2014, "Very deep convolutional networks for large-scale image recognition", columns A, B, D and E.

    Layers are named as torchvision's, whose weights `load_state_dict` takes. First values as there: convolutions by
    `kaiming_normal` with fan_out, fully connected weights normal with deviation 0.01, biases 0.

    Parameters
    ----------
    depth : {11, 13, 16, 19}
        Layers with weights.
    input_shape : (int, int, int)
        Of at least 32 pixels a side, which the poolings make 1.
    hidden : int
        Units of the fully connected layers; 512 suits images of 32 pixels.
    batch_norm : bool
        Whether batch normalisation follows each convolution (not in the paper).
    """
    if depth not in CONVOLUTIONS:
        raise ValueError(f"vgg: depth must be one of {', '.join(map(str, CONVOLUTIONS))}, not {depth!r}")
    layers: list[Layer] = []

    def add(make: type[Layer], *arguments: int, **options: int) -> None:
        layers.append(make(*arguments, **options, name=f"features.{len(layers)}"))

    for count, maps in zip(CONVOLUTIONS[depth], MAPS, strict=True):
        for _ in range(count):
            add(Conv2d, maps, 3, padding=1)
            if batch_norm:
                add(BatchNorm2d)
            add(ReLU)
        add(MaxPool2d, 2)
    head: list[Layer] = [
        Linear(hidden, name="classifier.0"),
        ReLU(),
        Dropout(0.5),
        Linear(hidden, name="classifier.3"),
        ReLU(),
        Dropout(0.5),
        Linear(classes, name="classifier.6"),
    ]
    net = Network(input_shape, [*layers, Flatten(), *head], seed=None)  # all is drawn below
    net.initialise(kaiming_normal(mode="fan_out", nonlinearity="relu"), "zeros", pattern="features.*", seed=seed)
    net.initialise(normal(0, 0.01), "zeros", pattern="classifier.*", seed=seed)
    return net


def vgg11(seed: int = 0, **options: Any) -> Network:
    """3x224x224, 8 convolutions and 3 fully connected layers (column A): 132,863,336 parameters. Simonyan, Zisserman 2014;
    options: those of `vgg`."""
    return vgg(11, seed, **options)


def vgg13(seed: int = 0, **options: Any) -> Network:
    """3x224x224, 10 convolutions and 3 fully connected layers (column B): 133,047,848 parameters. Simonyan, Zisserman 2014;
    options: those of `vgg`."""
    return vgg(13, seed, **options)


def vgg16(seed: int = 0, **options: Any) -> Network:
    """3x224x224, 13 convolutions and 3 fully connected layers (column D): 138,357,544 parameters. Simonyan, Zisserman 2014;
    options: those of `vgg`."""
    return vgg(16, seed, **options)


def vgg19(seed: int = 0, **options: Any) -> Network:
    """3x224x224, 16 convolutions and 3 fully connected layers (column E): 143,667,240 parameters. Simonyan, Zisserman 2014;
    options: those of `vgg`."""
    return vgg(19, seed, **options)
