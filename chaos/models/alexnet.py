"""AlexNet, and Krizhevsky's network of the same kind for CIFAR-10. Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..initialisers import constant, normal
from ..layers import AvgPool2d, Conv2d, Dropout, Flatten, Layer, Linear, LocalResponseNorm, MaxPool2d, ReLU
from ..network import Network


@explained(ZOO)
def alexnet(seed: int = 0, *, classes: int = 1000) -> Network:
    """3x227x227-96C11/4-256C5-384C3-384C3-256C3-4096N-4096N-1000N: 60,965,224 parameters. Krizhevsky, Sutskever, Hinton
    2012, "ImageNet classification with deep convolutional neural networks".

    With the groups of two by which the paper's network was laid on two processors (layers 2, 4 and 5), local response
    normalisation behind the first two layers, overlapping pooling, and dropout. First values as there: weights normal with
    deviation 0.01, biases 1 in layers 2, 4, 5 and the hidden fully connected ones, else 0.

    Differs from the paper: images have 227 pixels, which its 55x55 maps need, where it says 224; alpha is 5e-4 because it is
    divided by the 5 channels here.
    """

    def norm() -> Layer:
        return LocalResponseNorm(5, 5e-4, 0.75, 2.0)

    net = Network(
        (3, 227, 227),
        [
            Conv2d(96, 11, stride=4, name="conv1"),
            ReLU(),
            norm(),
            MaxPool2d(3, stride=2),
            Conv2d(256, 5, padding=2, groups=2, name="conv2"),
            ReLU(),
            norm(),
            MaxPool2d(3, stride=2),
            Conv2d(384, 3, padding=1, name="conv3"),
            ReLU(),
            Conv2d(384, 3, padding=1, groups=2, name="conv4"),
            ReLU(),
            Conv2d(256, 3, padding=1, groups=2, name="conv5"),
            ReLU(),
            MaxPool2d(3, stride=2),
            Flatten(),
            Linear(4096, name="fc6"),
            ReLU(),
            Dropout(0.5),
            Linear(4096, name="fc7"),
            ReLU(),
            Dropout(0.5),
            Linear(classes, name="fc8"),
        ],
        seed=seed,
    )
    net.initialise(normal(0, 0.01), "zeros", seed=seed)
    for name in ("conv2", "conv4", "conv5", "fc6", "fc7"):
        net.initialise(bias=constant(1.0), pattern=f"{name}.bias", seed=seed)
    return net


@explained(ZOO)
def alexnet_cifar(seed: int = 0, *, classes: int = 10) -> Network:
    """3x32x32-32C5-MP3/2-32C5-AP3/2-64C5-AP3/2-10N: 89,578 parameters. Krizhevsky's network for CIFAR-10 (cuda-convnet,
    2012; Caffe's "CIFAR-10 full"): AlexNet's parts at the size of small images. ReLU behind the first pooling and before
    the others, normalisation over 3 channels behind the first two.

    Differs from Caffe's: normalisation across channels, as in AlexNet, where Caffe's file has it within them.
    """

    def norm() -> Layer:
        return LocalResponseNorm(3, 5e-5, 0.75, 1.0)

    net = Network(
        (3, 32, 32),
        [
            Conv2d(32, 5, padding=2, name="conv1"),
            MaxPool2d(3, stride=2, ceil_mode=True),
            ReLU(),
            norm(),
            Conv2d(32, 5, padding=2, name="conv2"),
            ReLU(),
            AvgPool2d(3, 2, ceil_mode=True),
            norm(),
            Conv2d(64, 5, padding=2, name="conv3"),
            ReLU(),
            AvgPool2d(3, 2, ceil_mode=True),
            Flatten(),
            Linear(classes, name="ip1"),
        ],
        seed=seed,
    )
    net.initialise(normal(0, 0.01), "zeros", seed=seed)
    net.initialise(normal(0, 1e-4), pattern="conv1.weight", seed=seed)
    return net
