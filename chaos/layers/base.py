"""What every layer kind is: its options, shapes, initial values and NumPy definition. For the files of this folder and
chaos.network."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np


class Node:
    """A tensor in a network being described: the output of ``layer`` applied to ``inputs``.

    Made by :class:`Input` and by calling a layer; ``chaos.Network`` turns the graph into a plan.
    """

    def __init__(self, layer, inputs, shape):
        self.layer = layer
        self.inputs = tuple(inputs)
        self.shape = shape

    def __repr__(self):
        return f"<{type(self.layer).__name__ if self.layer else 'Input'} output, shape {self.shape}>"


class Input(Node):
    """The images that enter a network.

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width), or (features,) for vectors.
    """

    def __init__(self, shape):
        super().__init__(None, (), check_shape(shape))


def check_shape(shape):
    """`shape` as a tuple (c, h, w) or (k,) of positive ints; ValueError otherwise."""
    try:
        shape = tuple(shape)
        whole = all(int(n) == n for n in shape)
    except TypeError:
        raise ValueError(f"shape must be (channels, height, width) or (features,), not {shape!r}") from None
    if len(shape) not in (1, 3) or not whole or min(shape) < 1:
        raise ValueError(f"shape must be (channels, height, width) or (features,) with positive sizes, not {shape!r}")
    return tuple(int(n) for n in shape)


def whole(what, value, least=1):
    """`value` as an int >= least; ValueError that names `what` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def pair(what, value, least=1):
    """An int or a pair of ints as a pair."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{what} must be one number or (vertical, horizontal), not {value!r}")
        return whole(what, value[0], least), whole(what, value[1], least)
    return (whole(what, value, least),) * 2


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One layer, independent of where it is used: options as dataclass fields, everything else derived from the shapes
    of its inputs. In the NumPy definition samples come first: (n, c, h, w) or (n, k)."""

    name: str | None = dataclasses.field(default=None, kw_only=True)

    kind: ClassVar[str]
    one_input: ClassVar[bool] = True
    parameters: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if not isinstance(getattr(self, "bias", True), (bool, np.bool_)):
            raise ValueError(f"{type(self).__name__}: bias must be True or False, not {self.bias!r}")
        if self.name is not None and (
            not isinstance(self.name, str) or not self.name or "." in self.name or self.name.isdigit()
        ):
            raise ValueError(f"name must be a word without dots that is no number, not {self.name!r}")

    def __call__(self, *inputs):
        """Applies the layer to nodes of a graph and returns its output node."""
        for node in inputs:
            if not isinstance(node, Node):
                raise TypeError(
                    f"{type(self).__name__}()(...) takes nodes of a graph (chaos.Input or another layer's "
                    f"output), not {type(node).__name__}"
                )
        if not inputs or (self.one_input and len(inputs) != 1):
            raise ValueError(
                f"{type(self).__name__} takes {'one input' if self.one_input else 'at least one input'}, not {len(inputs)}"
            )
        return Node(self, inputs, self.output_shape(*(node.shape for node in inputs)))

    def config(self):
        """The options that differ from their defaults, as JSON-able values."""
        options = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                # NumPy's numbers are welcome as options but not in JSON
                value = [int(v) for v in value] if isinstance(value, (tuple, list)) else value
                options[field.name] = int(value) if isinstance(value, np.integer) else value
        return options

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"

    def output_shape(self, *shapes):
        """Output shape for the given input shapes; ValueError with the formula where the geometry is impossible."""
        return shapes[0]

    def core_options(self, *shapes):
        """(channels or features of the output if the layer sets them else 0, the integers that the C half takes)."""
        return 0, ()

    def parameter_shapes(self, *shapes):
        """{name: PyTorch shape}, in the order of `parameters`."""
        return {}

    def macs(self, *shapes):
        """Multiply-adds of one sample's forward pass; the weight and data gradients take as many each."""
        return 0

    def initial_values(self, rng, *shapes):
        """PyTorch's default initial values: every parameter uniform in +-1/sqrt(fan_in)."""
        shapes = self.parameter_shapes(*shapes)
        values = {}
        for name, shape in shapes.items():
            bound = 1 / np.sqrt(np.prod(shapes["weight"][1:]))
            values[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        return values

    def forward(self, inputs, params):
        """The definition: list of input arrays and {name: array} to the output array, in the dtype given."""
        raise TypeError(f"{type(self).__name__} has no definition")

    def backward(self, inputs, params, y, dy):
        """The gradients of sum(y * dy): (list of gradients of the inputs, {name: gradient})."""
        raise TypeError(f"{type(self).__name__} has no definition")


class Elementwise(Layer):
    """A layer y = f(x) with f increasing and a derivative that is a function of y; the kinds define `f(x)` and
    `derivative(y)`."""

    def forward(self, inputs, params):
        return self.f(inputs[0])

    def backward(self, inputs, params, y, dy):
        return [dy * self.derivative(y)], {}
