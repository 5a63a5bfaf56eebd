"""First values as LeCun drew them. For the networks of this folder that are of his time."""

from __future__ import annotations

from collections.abc import Iterable

from ..initialisers import uniform
from ..layers.base import Trained
from ..network import Network


def lecun_start(net: Network, seed: int, *, layers: Iterable[str]) -> Network:
    """Draws weights and biases uniformly from +-2.4 / F, where F is the number of inputs of a unit (LeCun, Bottou, Bengio,
    Haffner 1998, appendix A); of maps that see different numbers of maps F is the mean. Returns the network.

    Parameters
    ----------
    layers : names
        Of the layers that are to have them.
    """
    wanted = set(layers)
    for node, name in net.nodes():
        if node.layer is not None and name in wanted:
            weight = node.layer.parts(*(source.shape for source in node.inputs))["weight"]
            bound = 2.4 / weight.fan_in if isinstance(weight, Trained) else 0.0
            net.initialise(uniform(-bound, bound), uniform(-bound, bound), pattern=f"{name}.*", seed=seed)
    return net
