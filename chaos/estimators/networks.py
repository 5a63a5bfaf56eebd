"""What an estimator's `network` becomes: a chaos.Network for the shape of the data. For the files of this folder; knows
nothing of scikit-learn."""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers
from ..interop import from_torch
from ..network import Network

Shape = tuple[int, ...]
HIDDEN = (128, 64)  # units of the default for tables
FIRST, MOST = 16, 128  # channels of the first and of all further convolutions of the default for images
SMALLEST = 6  # sides that are still halved
INPUT, OUTPUT = "input_scale", "output_scale"


def build(network: Any, shape: Shape, outputs: int, seed: int, x: NDArray[Any], y: NDArray[Any] | None) -> Network:
    """A network of its own for images of `shape` and so many outputs.

    Parameters
    ----------
    network : list of Layer, chaos.Network, torch.nn.Module, callable, or None
        As the estimators explain it.
    shape : tuple of int
    outputs : int
    seed : int
        Of first values.
    x, y : array
        The training data; the default network takes mean and deviation from them. `y` only where outputs are real numbers.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or does not fit the data.
    """
    if network is None:
        return default(shape, outputs, seed, x, y)
    found = _made(network, shape, seed)
    if found is None and callable(network):
        found = _made(answer := _called(network, shape, outputs), shape, seed)
        if found is None:
            raise TypeError(f"the function network must give a list of layers or a network, not {answer!r}")
    if found is None:
        zoo = "; the zoo's are made by the functions of chaos.models" if isinstance(network, str) else ""
        raise TypeError(
            "network must be a list of layers, a function of the input shape, a chaos.Network, a torch.nn.Module or None, "
            f"not {network!r}{zoo}"
        )
    if len(found.input_shapes) != 1 or found.input_shape != shape:
        raise ValueError(f"the network has inputs of shape {found.input_shape}, and the data are of shape {shape}")
    if len(found.output_shapes) != 1 or math.prod(found.output_shape) != outputs:
        raise ValueError(
            f"the network has outputs of shape {found.output_shape}, and y needs {outputs}: the last layer must be one such "
            f"as chaos.Linear({outputs}); a function network(input_shape, n_outputs) can make it fit every y"
        )
    return found


def _made(network: Any, shape: Shape, seed: int) -> Network | None:
    """The network that this is already; None: it is none."""
    if isinstance(network, Network):
        return copy.deepcopy(network)
    if isinstance(network, (list, tuple)):
        return Network(shape, network, seed=seed)
    torch = sys.modules.get("torch")  # where there is a module it is loaded
    if torch is not None and isinstance(network, torch.nn.Module):
        return from_torch(network, shape)
    return None


def _called(function: Callable[..., Any], shape: Shape, outputs: int) -> Any:
    """function(shape, outputs), or function(shape) where it takes one argument only."""
    try:
        inspect.signature(function).bind(shape, outputs)
    except TypeError:
        return function(shape)
    return function(shape, outputs)


# ---- the default ----


def default(shape: Shape, outputs: int, seed: int, x: NDArray[Any], y: NDArray[Any] | None) -> Network:
    """The network for data that nothing is known about: a perceptron for tables, convolutions for images and sequences.

    Its inputs are brought to mean 0 and deviation 1, by feature or by channel as `x` has them, its outputs, where they are
    real numbers, from these to mean and deviation of `y`; both by layers that are not trained, so that a saved or exported
    network takes and gives what the data are.
    """
    body = _perceptron() if len(shape) == 1 else _convolutions(shape)
    ends: list[layers.Layer] = [layers.Linear(outputs)]
    if y is not None:
        ends.append(layers.ChannelScale(name=OUTPUT))
    net = Network(shape, [layers.ChannelScale(name=INPUT), *body, *ends], seed=seed)
    state: dict[str, Any] = dict(net.state_dict())
    seen = x.astype(np.float32) / np.float32(127.5) - 1 if x.dtype == np.uint8 else x
    mean, deviation = _moments(seen)
    state[f"{INPUT}.weight"], state[f"{INPUT}.bias"] = 1 / deviation, -mean / deviation
    if y is not None:
        mean, deviation = _moments(y)
        state[f"{OUTPUT}.weight"], state[f"{OUTPUT}.bias"] = deviation, mean
    net.load_state_dict(state)
    for name in (INPUT, OUTPUT) if y is not None else (INPUT,):
        net.freeze(f"{name}.*")
    return net


def _moments(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation by channel; of what does not vary 1."""
    axes = (0, *range(2, values.ndim))
    mean = values.mean(axes, dtype=np.float64)
    deviation = values.std(axes, dtype=np.float64)
    varies = deviation > 1e-6 * np.abs(mean)  # single precision sees no less
    return mean, np.where(varies, deviation, 1.0)


def _perceptron() -> Iterable[layers.Layer]:
    for units in HIDDEN:
        yield layers.Linear(units)
        yield layers.ReLU()


def _convolutions(shape: Shape) -> Iterable[layers.Layer]:
    """Convolutions of 3, each followed by a pooling, while there is something to halve."""
    sides, channels = list(shape[1:]), FIRST
    flat = len(sides) == 1
    convolution: Any = layers.Conv1d if flat else layers.Conv2d
    pooling: Any = layers.MaxPool1d if flat else layers.MaxPool2d
    halved = False
    while min(sides) >= SMALLEST or not halved:
        yield convolution(channels, 3, padding=1)
        yield layers.ReLU()
        if min(sides) < SMALLEST:
            break
        yield pooling(2)
        sides, channels, halved = [side // 2 for side in sides], min(2 * channels, MOST), True
    yield layers.Flatten()
    yield layers.Linear(HIDDEN[0])
    yield layers.ReLU()
