"""The model zoo: networks of the field's history, and of its textbooks. Each function returns a fresh chaos.Network; its
docstring names the source, and says what differs from it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..hints import answers
from ..network import Network
from .alexnet import alexnet, alexnet_cifar
from .all_cnn import all_cnn
from .fast_rcnn import fast_rcnn
from .googlenet import googlenet
from .lenet import lenet5, lenet5_modern
from .mcdnn import at_width, columns, mcdnn_column
from .mobilenet import mobilenet, mobilenet_cifar, separable
from .neocognitron import cresceptron, neocognitron
from .paper import large, medium, small
from .pattern import pattern
from .pyramid import pyramid
from .resnet import (
    preact_resnet20,
    resnet,
    resnet18,
    resnet20,
    resnet20_b,
    resnet32,
    resnet34,
    resnet50,
    resnet56,
    resnet_cifar,
)
from .shift_invariant import shift_invariant
from .tdnn import tdnn, tdnn2d, tdnn_modern
from .unet import unet
from .vgg import vgg, vgg11, vgg13, vgg16, vgg19
from .zipcode import zipcode

# The CHAOS paper's: what is measured where no name is given.
PAPER = ("small", "medium", "large")

# What the command line offers: name -> function(seed=...).
MODELS: dict[str, Callable[..., Network]] = {
    made.__name__: made
    for made in (
        small,
        medium,
        large,
        neocognitron,
        cresceptron,
        zipcode,
        tdnn,
        tdnn_modern,
        tdnn2d,
        shift_invariant,
        lenet5,
        lenet5_modern,
        mcdnn_column,
        pyramid,
        alexnet,
        alexnet_cifar,
        vgg11,
        vgg13,
        vgg16,
        vgg19,
        googlenet,
        all_cnn,
        fast_rcnn,
        unet,
        resnet20,
        resnet32,
        resnet56,
        resnet20_b,
        preact_resnet20,
        resnet18,
        resnet34,
        resnet50,
        mobilenet,
        mobilenet_cifar,
    )
}

__all__ = ["MODELS", "PAPER", "at_width", "columns", "pattern", "resnet", "resnet_cifar", "separable", "vgg", *MODELS]

if not TYPE_CHECKING:  # who would take any name for one that there is
    __getattr__ = answers(__name__, __all__)
