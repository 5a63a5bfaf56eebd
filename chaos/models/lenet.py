"""LeNet-5, as published and as it is taught today. Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..layers import LENET5_TABLE, RBF, Conv2d, Flatten, Linear, MaxPool2d, ReLU, ScaledTanh, Subsampling2d
from ..network import Network
from .lecun_start import lecun_start


@explained(ZOO)
def lenet5(seed: int = 0) -> Network:
    """1x32x32-6C5-S2-16C5-S2-120C5-84N-10RBF: 60,000 parameters, 156 + 12 + 1,516 + 32 + 48,120 + 10,164. LeCun, Bottou,
    Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".

    Layers are named as there. Maps of C3 see the maps of S2 that the paper's table 1 says (`chaos.layers.LENET5_TABLE`); S2
    and S4 add up windows with one trained coefficient and bias for each map; all units up to F6 are scaled tanh; outputs are
    the negated squared distances of F6 to ten fixed codes, 7x12 bitmaps (chaos.RBF, 840 numbers that are not trained).
    Train it with loss="rbf", loss_options={"j": 1.0}: the paper's eq. 9.

    Differs from the paper: bitmaps drawn in its manner, not copied; plain SGD instead of stochastic diagonal
    Levenberg-Marquardt; pixels are -1 .. 1 instead of -0.1 .. 1.175.
    """
    net = Network(
        (1, 32, 32),
        [
            Conv2d(6, 5, name="C1"),
            ScaledTanh(),
            Subsampling2d(2, name="S2"),
            ScaledTanh(),
            Conv2d(16, 5, connection_table=LENET5_TABLE, name="C3"),
            ScaledTanh(),
            Subsampling2d(2, name="S4"),
            ScaledTanh(),
            Conv2d(120, 5, name="C5"),
            ScaledTanh(),
            Flatten(),
            Linear(84, name="F6"),
            ScaledTanh(),
            RBF(name="output"),
        ],
        seed=seed,
    )
    return lecun_start(net, seed, layers=("C1", "C3", "C5", "F6"))


@explained(ZOO)
def lenet5_modern(seed: int = 0) -> Network:
    """1x32x32-6C5-MP2-16C5-MP2-120N-84N-10N: 61,706 parameters. LeNet-5 as it is taught today: full connections between
    maps, max-pooling, ReLU, softmax; for loss="cross_entropy"."""
    net = Network(
        (1, 32, 32),
        [
            Conv2d(6, 5),
            ReLU(),
            MaxPool2d(2),
            Conv2d(16, 5),
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Linear(120),
            ReLU(),
            Linear(84),
            ReLU(),
            Linear(10),
        ],
        seed=seed,
    )
    net.initialise("kaiming_normal", "zeros", seed=seed)
    return net
