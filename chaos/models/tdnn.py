"""Time-delay networks for sequences. Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..layers import (
    BatchNorm1d,
    Conv1d,
    Conv2d,
    Flatten,
    GaussianNoise,
    Input,
    Linear,
    Mean,
    Multiply,
    Node,
    ReLU,
    Reshape,
    Sigmoid,
    Sum,
)
from ..network import Network


@explained(ZOO)
def tdnn(
    seed: int = 0, *, input_shape: tuple[int, int] = (16, 15), classes: int = 3, hidden: int = 8, noise: float = 0.0
) -> Network:
    """16 coefficients x 15 frames, 8 units that see 3 frames, 3 units that see 5, summed over time: 515 parameters, 392 +
    123. Waibel, Hanazawa, Hinton, Shikano, Lang 1989, "Phoneme recognition using time-delay neural networks".

    A unit is a convolution along time; all are logistic. An output is the sum of the squares of one unit of the last layer
    over all times, so that where in time something happens makes no difference.

    Parameters
    ----------
    input_shape : (int, int)
        Coefficients, frames.
    classes, hidden : int
        Units of the second and of the first layer.
    noise : float
        Deviation of the normal noise that training adds to the input (not in the paper): helps where sequences are few.

    Differs from the paper: the outputs are meant for softmax cross-entropy, where the paper has the squared error.
    """
    x = Input(input_shape)
    y: Node = GaussianNoise(noise)(x) if noise else x
    y = Sigmoid()(Conv1d(hidden, 3, name="hidden1")(y))
    y = Sigmoid()(Conv1d(classes, 5, name="hidden2")(y))
    net = Network(x, Flatten()(Sum(2)(Multiply()(y, y))), seed=seed)
    net.initialise("xavier_uniform", "zeros", seed=seed)
    return net


@explained(ZOO)
def tdnn_modern(
    seed: int = 0, *, input_shape: tuple[int, int] = (16, 15), classes: int = 3, hidden: int = 64, noise: float = 0.0
) -> Network:
    """16 coefficients x 15 frames, 64 units that see 3 frames, 64 that see 5, their means over time, 3 outputs: 24,003
    parameters. A time-delay network as speakers are told apart by today, after Snyder, Garcia-Romero, Sell, Povey, Khudanpur
    2018, "X-vectors: robust DNN embeddings for speaker recognition": ReLU and batch normalisation, a pooling over time.

    Parameters
    ----------
    input_shape, classes, noise
        As of `tdnn`.
    hidden : int
        Units of both layers.

    Differs from the paper: two layers of five, means without deviations, no embedding behind them.
    """
    x = Input(input_shape)
    y: Node = GaussianNoise(noise)(x) if noise else x
    for width, name in ((3, "hidden1"), (5, "hidden2")):
        y = ReLU()(BatchNorm1d()(Conv1d(hidden, width, bias=False, name=name)(y)))
    return Network(x, Linear(classes, name="output")(Flatten()(Mean(2)(y))), seed=seed)


@explained(ZOO)
def tdnn2d(seed: int = 0, *, input_shape: tuple[int, int] = (16, 15), classes: int = 3, hidden: int = 8) -> Network:
    """As `tdnn`, with windows over coefficients and time, 5x3 and then 5x5: 731 parameters, 128 + 603. After Hampshire,
    Waibel 1990, "Connectionist architectures for multi-speaker phoneme recognition": what is found does not depend on where
    it is, neither in time nor in frequency.

    Differs from the paper: there this is one module among several, of other window sizes.
    """
    x = Input(input_shape)
    y = Reshape((1, *input_shape))(x)
    y = Sigmoid()(Conv2d(hidden, (5, 3), name="hidden1")(y))
    y = Sigmoid()(Conv2d(classes, (5, 5), name="hidden2")(y))
    y = Flatten()(Sum(2)(Mean(2)(Multiply()(y, y))))
    net = Network(x, y, seed=seed)
    net.initialise("xavier_uniform", "zeros", seed=seed)
    return net
