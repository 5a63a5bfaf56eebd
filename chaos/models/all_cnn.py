"""The all-convolutional network. Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..layers import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Layer, ReLU
from ..network import Network


@explained(ZOO)
def all_cnn(seed: int = 0, *, input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> Network:
    """3x32x32-96C3-96C3-96C3/2-192C3-192C3-192C3/2-192C3-192C1-10C1-mean: 1,369,738 parameters. Springenberg, Dosovitskiy,
    Brox, Riedmiller 2014, "Striving for simplicity: the all convolutional net", All-CNN-C.

    Convolutions that move by two pixels take the place of pooling, a mean over each map that of fully connected layers. With
    the paper's dropout: 0.2 of the image, 0.5 behind each convolution that subsamples.
    """
    layers: list[Layer] = [Dropout(0.2)]
    for maps, kernel, stride, padding in (
        *((96, 3, 1, 1), (96, 3, 1, 1), (96, 3, 2, 1)),
        *((192, 3, 1, 1), (192, 3, 1, 1), (192, 3, 2, 1)),
        *((192, 3, 1, 0), (192, 1, 1, 0), (classes, 1, 1, 0)),
    ):
        layers += [Conv2d(maps, kernel, stride=stride, padding=padding), ReLU()]
        layers += [Dropout(0.5)] if stride == 2 else []
    net = Network(input_shape, [*layers, AdaptiveAvgPool2d(1), Flatten()], seed=seed)
    net.initialise("kaiming_normal", "zeros", seed=seed)
    return net
