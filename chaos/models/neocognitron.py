"""Pairs of S- and C-layers in the manner of the neocognitron and the cresceptron, for back-propagation. Imported by
chaos.models."""

from __future__ import annotations

from collections.abc import Callable

from ..hints import ZOO, explained
from ..layers import AvgPool2d, Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Softsign
from ..network import Network


@explained(ZOO)
def neocognitron(seed: int = 0, *, classes: int = 10) -> Network:
    """1x16x16, three pairs of S- and C-layers of 24 planes each, `classes` outputs: 20,506 parameters with ten. In the
    manner of Fukushima 1980, "Neocognitron: a self-organizing neural network model for a mechanism of pattern recognition
    unaffected by shift in position".

    The planes have that paper's sizes: S1 16x16, C1 10x10, S2 8x8, C2 6x6, S3 2x2, C3 1x1. S-cells are rectified; C-cells
    average a window of one S-plane and saturate, x / (1 + x).

    Differs from the paper: trained by back-propagation of labels instead of without a teacher, with ten linear outputs
    behind C3; the inhibitory cells' division is left to a trained bias; no window reaches over a plane's border.
    """
    return _pairs(lambda size: [AvgPool2d(size, 1), Softsign()], seed, classes)


@explained(ZOO)
def cresceptron(seed: int = 0, *, classes: int = 10) -> Network:
    """As `neocognitron`, with the largest of a window instead of the average: 20,506 parameters. In the manner of Weng,
    Ahuja, Huang 1992, "Cresceptron: a self-organizing neural network which grows adaptively".

    Differs from the paper, which adds planes while it learns: their number is fixed, and back-propagation trains them.
    """
    return _pairs(lambda size: [MaxPool2d(size, stride=1)], seed, classes)


def _pairs(cells: Callable[[int], list[Layer]], seed: int, classes: int) -> Network:
    """S-layers, each followed by `cells(size of the window)`."""
    layers: list[Layer] = []
    for number, (kernel, padding, window) in enumerate(((5, 2, 7), (3, 0, 3), (5, 0, 2)), 1):
        layers += [Conv2d(24, kernel, padding=padding, name=f"S{number}"), ReLU(), *cells(window)]
    net = Network((1, 16, 16), [*layers, Flatten(), Linear(classes, name="output")], seed=seed)
    net.initialise("kaiming_normal", "zeros", seed=seed)
    return net
