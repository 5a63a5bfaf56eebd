"""The network that read zip codes (LeCun et al. 1989). Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..layers import Add, Conv2d, Flatten, Input, Linear, Node, Pad, Parameter, ScaledTanh
from ..network import Network
from .lecun_start import lecun_start

# Of each map of H2 the eight maps of H1 that it sees. The paper prints no table; this is the one of the well-known
# re-implementations: thirds of the maps see the first eight, the last eight, and the outer eight.
H2_TABLE = (*(tuple(range(8)),) * 4, *(tuple(range(4, 12)),) * 4, *((*range(4), *range(8, 12)),) * 4)


@explained(ZOO)
def zipcode(seed: int = 0) -> Network:
    """1x16x16, 12 maps 8x8 (H1), 12 maps 4x4 (H2), 30 units (H3), 10 outputs: 9,760 parameters, 1,068 + 2,592 + 5,790 +
    310, 64,660 connections. LeCun, Boser, Denker, Henderson, Howard, Hubbard, Jackel 1989, "Backpropagation applied to
    handwritten zip code recognition".

    Kernels of 5x5 move by two pixels, over an image that is surrounded by background, -1. Weights are shared, biases are
    not: every unit of H1 and H2 has its own. All units, the outputs too, are scaled tanh.

    Differs from the paper: the choice of the eight maps of H1 that a map of H2 sees is not printed there (`H2_TABLE`); units
    at the border of H2 see -1 outside as those of H1 do. The paper's loss is the squared error of targets -1 and 1:
    ``Dataset(images, targets=2.0 * one_hot - 1)`` with loss="mse"; classes with "mse" or "cross_entropy" work as well.
    """
    x = Input((1, 16, 16))
    y: Node = x
    for name, layer, units in (
        ("H1", Conv2d(12, 5, stride=2, bias=False, name="H1"), (12, 8, 8)),
        ("H2", Conv2d(12, 5, stride=2, bias=False, connection_table=H2_TABLE, name="H2"), (12, 4, 4)),
    ):
        y = layer(Pad((2, 1, 2, 1), value=-1.0)(y))
        y = ScaledTanh()(Add()(y, Parameter(units, name=f"{name}.bias")(x)))
    y = ScaledTanh()(Linear(30, name="H3")(Flatten()(y)))
    y = ScaledTanh()(Linear(10, name="output")(y))
    return lecun_start(Network(x, y, seed=seed), seed, layers=("H1", "H2", "H3", "output"))
