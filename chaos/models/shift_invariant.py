"""A network of convolutions only, whose outputs are maps (Zhang 1988). Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..layers import Conv2d, Layer, Tanh
from ..network import Network


@explained(ZOO)
def shift_invariant(
    seed: int = 0, *, input_shape: tuple[int, int, int] = (1, 32, 32), classes: int = 1, maps: int = 8
) -> Network:
    """1x32x32-8C5-8C5-1C5, all 32x32: 2,017 parameters. After Zhang, Tanida, Itoh, Ichioka 1988, "Shift-invariant pattern
    recognition neural network and its optical architecture", and Zhang, Itoh, Tanida, Ichioka 1990, "Parallel distributed
    processing model with local space-invariant interconnections and its optical architecture".

    No layer is fully connected and none subsamples, so an image that is shifted has outputs that are shifted. Each output is
    a map that says where a pattern is: values above 0 are a detection. For loss="binary_cross_entropy" with maps of 0 and 1
    as targets (`chaos.data.generated.centres`); centres are rare, so `pos_weight` helps.

    Differs from the papers: sizes are chosen for the generated task, tanh units, trained with cross-entropy.
    """
    layers: list[Layer] = []
    for name in ("hidden1", "hidden2"):
        layers += [Conv2d(maps, 5, padding="same", name=name), Tanh()]
    net = Network(input_shape, [*layers, Conv2d(classes, 5, padding="same", name="output")], seed=seed)
    net.initialise("xavier_uniform", "zeros", seed=seed)
    return net
