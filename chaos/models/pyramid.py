"""The neural abstraction pyramid. Imported by chaos.models."""

from __future__ import annotations

from ..hints import ZOO, explained
from ..layers import Add, Conv2d, ConvTranspose2d, Input, Layer, Node, Sigmoid, Slice
from ..layers.base import whole
from ..network import Network


@explained(ZOO)
def pyramid(
    seed: int = 0, *, steps: int = 8, features: tuple[int, int, int, int] = (4, 8, 16, 32), every_step: bool = False
) -> Network:
    """1x28x28 to 1x28x28, four levels of 4, 8, 16 and 32 feature arrays, 8 steps: 57,520 parameters. Behnke 2001, "Learning
    iterative image reconstruction in the Neural Abstraction Pyramid"; Behnke 2003, "Hierarchical neural networks for image
    interpretation", section 9.3.

    A recurrent network: levels of 28x28, 14x14, 7x7 and 1x1 cells, each with forward connections from the level below (4x4
    windows that move by two; from all of 7x7 to the top), lateral ones within the level (3x3), and feedback from the level
    above (2x2, side by side). Weights are the same in all steps: it is the same layer objects, unrolled. In a step the
    levels follow each other from the bottom to the top, and each reads what is newest. All cells are logistic, around
    borders the image goes on at its other side. The output is the first feature array of the bottom level after the last
    step, 0 .. 1, for loss="mse" against the image that is to be seen (`chaos.data.generated.occluded`).

    Parameters
    ----------
    steps : int
        At least 5: so long it takes until what the top says has come down, and its lateral connections count.
    features : four ints
        Feature arrays of the levels.
    every_step : bool
        One output for each step instead of that of the last; for loss="mse + mse@1 + mse@2 + ...", with one target for all.

    Differs from the thesis: twice as many feature arrays; 8 steps instead of 12; no prior for low activity; trained by the
    update rules there are, not by RPROP.
    """
    whole("steps", steps, 5)
    if len(features) != 4:
        raise ValueError(f"pyramid: features must be four numbers, of the levels from the bottom, not {features!r}")
    forward: list[Layer] = [_around(features[0], 3, "level0.up")]
    lateral: list[Layer] = [_around(maps, 3, f"level{i}.lateral", bias=False) for i, maps in enumerate(features[:3])]
    back: list[Layer] = []
    for level in (1, 2):
        forward.append(_around(features[level], 4, f"level{level}.up", stride=2))
        back.append(ConvTranspose2d(features[level - 1], 2, stride=2, bias=False, name=f"level{level - 1}.down"))
    forward.append(Conv2d(features[3], 7, name="level3.up"))
    lateral.append(Conv2d(features[3], 1, bias=False, name="level3.lateral"))
    back.append(ConvTranspose2d(features[2], 7, bias=False, name="level2.down"))

    image = Input((1, 28, 28))
    cells: list[Node] = []
    outputs: list[Node] = []
    for _ in range(steps):
        now: list[Node] = []
        for level in range(4):
            into = [forward[level](now[-1] if now else image)]
            if cells:
                into.append(lateral[level](cells[level]))
                into += [back[level](cells[level + 1])] if level < 3 else []
            now.append(Sigmoid()(Add()(*into) if len(into) > 1 else into[0]))
        cells = now
        outputs.append(Slice(1, 0, 1)(cells[0]))
    net = Network(image, outputs if every_step else outputs[-1], seed=seed)
    net.initialise("xavier_uniform", "zeros", seed=seed)
    return net


def _around(maps: int, kernel: int, name: str, *, stride: int = 1, bias: bool = True) -> Layer:
    """A convolution for which the image goes on at its other side."""
    return Conv2d(maps, kernel, stride=stride, padding=1, padding_mode="circular", bias=bias, name=name)
