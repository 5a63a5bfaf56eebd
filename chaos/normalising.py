"""A network that brings its images to mean 0 and standard deviation 1 first. Above chaos.network and the layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .layers import ChannelScale, Input, Node
from .network import Network

NAME = "normalise"


def normalise(net: Network, mean: ArrayLike, std: ArrayLike) -> Network:
    """A network that computes what `net` does of (x - mean) / std, channel by channel.

    ``net = chaos.normalise(net, *train.mean_std())``. The numbers are kept with the network, in its files and in what is
    exported, so that images need no preparation, wherever they come from; those of uint8 stay bytes until a worker takes
    them.

    Parameters
    ----------
    net : Network
        With one input.
    mean, std : array_like (channels,), or float
        Of images as the network sees them: pixels of uint8 as x / 127.5 - 1, floats as they are. A standard deviation of
        0, of a channel that is everywhere the same, counts as 1.

    Returns
    -------
    Network
        With weights of its own, behind a `ChannelScale` named "normalise" that is frozen, with the weight 1 / std and the
        bias -mean / std. Layers with a name keep it, the others are numbered anew.

    Raises
    ------
    ValueError
        Numbers that are not finite, or not as many as channels; a negative standard deviation; several inputs, or a network
        that normalises already.
    """
    if not isinstance(net, Network):
        raise TypeError(f"normalise takes a chaos.Network, not {type(net).__name__}")
    if len(net.input_shapes) > 1:
        raise ValueError(f"normalise takes a network of one input, not of {len(net.input_shapes)}")
    if is_normalised(net):
        raise ValueError(f'the network has a layer "{NAME}" already')
    channels = net.input_shapes[0][0]
    shift, spread = (_numbers(what, value, channels) for what, value in (("mean", mean), ("std", std)))
    if (spread < 0).any():
        raise ValueError(f"std must not be negative, and is {spread.tolist()}")
    spread = np.where(spread == 0, 1, spread)
    made: dict[Node, Node] = {}
    for node, _ in net.nodes():
        if node.layer is None:
            start = Input(node.shape)
            made[node] = ChannelScale(name=NAME)(start)
        else:
            made[node] = node.layer(*(made[source] for source in node.inputs))
    found = Network(start, [made[node] for node in net.outputs], seed=None)
    called = {
        node.layer.part_name(net.part_owner(node), part): node.layer.part_name(found.part_owner(made[node]), part)
        for node, _ in net.nodes()
        if node.layer is not None
        for part in node.layer.part_names
    }
    state = {called[name]: value for name, value in net.state_dict().items()}
    found.load_state_dict(state | {f"{NAME}.weight": 1 / spread, f"{NAME}.bias": -shift / spread})
    found.freeze_named([f"{NAME}.weight", f"{NAME}.bias", *(called[name] for name in net.frozen)])
    found.trained_on, found.class_names = net.trained_on, net.class_names
    return found


def is_normalised(net: Network) -> bool:
    """Whether it is such a network."""
    return any(name == NAME for _, name in net.nodes())


def _numbers(what: str, value: ArrayLike, channels: int) -> np.ndarray:
    """One finite number for each channel."""
    array = np.asarray(value)
    if array.dtype.kind not in "uif" or array.shape not in ((), (channels,)):
        raise ValueError(f"{what} must be a number or {channels}, one for each channel, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} must be finite, and is {array.tolist()}")
    return np.broadcast_to(array.astype(np.float64), (channels,))
