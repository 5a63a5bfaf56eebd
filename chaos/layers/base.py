"""What every layer kind is: its options, shapes, parts, initial values, NumPy definition and examples. For the files of this
folder and chaos.network.

The contract with the other half (cext/layers/layer.h): a layer says in `core` which C kind computes it, with which options;
`parts` names what it keeps in the weight vector."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..hints import LAYER, refuse_unknown

MOST_VALUES = 2**31 - 1  # of an image at a node: the core counts them in 32 bits

Shape = tuple[int, ...]
Array = NDArray[Any]
Arrays = list[Array]  # one per input
Parts = dict[str, Array]  # by name


class Node:
    """A tensor in a network being described: the output of ``layer`` applied to ``inputs``.

    Made by `Input` and by calling a layer; ``chaos.Network`` turns the graph into a plan.
    """

    def __init__(self, layer: Layer | None, inputs: Iterable[Node], shape: Shape) -> None:
        self.layer = layer
        self.inputs = tuple(inputs)
        self.shape = shape
        if math.prod(shape) > MOST_VALUES:
            what = f"the output of {layer}" if layer else "an input"
            raise ValueError(f"{what} has shape {shape}, {math.prod(shape):,} values; at most {MOST_VALUES:,} work")

    def __repr__(self) -> str:
        return f"<{type(self.layer).__name__ if self.layer else 'Input'} output, shape {self.shape}>"


class Input(Node):
    """The images that enter a network.

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width), (channels, length), or (features,) for vectors.
    """

    def __init__(self, shape: Any) -> None:
        super().__init__(None, (), check_shape(shape))


def check_shape(shape: Any) -> Shape:
    """`shape` as a tuple (c, h, w), (c, l) or (k,) of positive ints; ValueError otherwise."""
    wanted = "shape must be (channels, height, width), (channels, length) or (features,)"
    if isinstance(shape, (int, np.integer)):
        raise ValueError(f"{wanted}, not {shape!r}; did you mean ({shape},)?")
    if isinstance(shape, (list, tuple)) and len(shape) > 1 and shape[0] is None:
        raise ValueError(f"{wanted} of one image, without the number of images, not {shape!r}")
    try:
        shape = tuple(shape)
        whole = all(int(n) == n for n in shape)
    except (TypeError, ValueError, OverflowError):  # inf
        raise ValueError(f"{wanted}, not {shape!r}") from None
    if len(shape) not in (1, 2, 3) or not whole or min(shape) < 1:
        raise ValueError(f"{wanted} with positive sizes, not {shape!r}")
    return tuple(int(n) for n in shape)


def channels_first(shape: Shape) -> str:
    """What is added to the message about a layer that does not fit an input whose channels may stand last."""
    if len(shape) == 3 and shape[-1] in (1, 3) and min(shape[:-1]) > 3:
        return f"; shapes have their channels first: ({shape[-1]}, {shape[0]}, {shape[1]})"
    return ""


def whole(what: str, value: Any, least: int = 1) -> int:
    """`value` as an int >= least; ValueError that names `what` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def pair(what: str, value: Any, least: int = 1) -> tuple[int, int]:
    """An int or a pair of ints as a pair."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{what} must be one number or (vertical, horizontal), not {value!r}")
        return whole(what, value[0], least), whole(what, value[1], least)
    return (whole(what, value, least),) * 2


def _plain(value: Any) -> Any:
    """For JSON, which knows no tuples and none of NumPy's numbers."""
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


@dataclasses.dataclass(frozen=True)
class Trained:
    """A part that gradients change. Its initial values are PyTorch's default, uniform in +-1/sqrt(fan_in), unless `fill`
    gives one number for all."""

    shape: tuple[int, ...]
    fan_in: int = 1
    fill: float | None = None


@dataclasses.dataclass(frozen=True)
class State:
    """A part that is not trained but observed, such as a running mean: state += rate * (observed - state), without decay,
    clipping, moments or schedule; `backward` gives what is observed, as a mean over the samples."""

    shape: tuple[int, ...]
    fill: float = 0.0


@dataclasses.dataclass(frozen=True)
class Core:
    """What computes a layer: a kind of the core, the channels or features of the output if the layer sets them (else 0), and
    its options, whole and real numbers."""

    kind: str
    channels: int = 0
    whole: tuple[int, ...] = ()
    real: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Context:
    """How a definition is evaluated: as in training or not (nor where the layer's state is frozen); and per sample where its
    random numbers in this layer begin (see chaos.layers.random)."""

    training: bool = False
    keys: NDArray[np.uint64] | None = None


EVALUATION = Context()


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One layer, independent of where it is used: options as dataclass fields, everything else derived from the shapes
    of its inputs. In the NumPy definition samples come first: (n, c, h, w), (n, c, l) or (n, k).

    Attributes
    ----------
    kind : str
        Its name in files; also of its C half, unless `core` names another.
    inputs : (int, int or None)
        The fewest and the most inputs that it takes.
    part_names : tuple of str
        Of all parts that it may have.
    no_gradient : tuple of int
        The inputs that get none, whatever the output's derivatives are: boxes, for example.
    inferred : str or None
        What PyTorch's layer of this name has as its first argument, and this one takes from its input.
    """

    name: str | None = dataclasses.field(default=None, kw_only=True)

    kind: ClassVar[str]
    inputs: ClassVar[tuple[int, int | None]] = (1, 1)
    part_names: ClassVar[tuple[str, ...]] = ()
    no_gradient: ClassVar[tuple[int, ...]] = ()
    inferred: ClassVar[str | None] = None

    def __new__(cls, *positional: Any, **named: Any) -> Self:
        """TypeError for arguments in an order that may mean something else, such as PyTorch's."""
        known = [field.name for field in dataclasses.fields(cls) if field.init and not field.kw_only]
        if cls.inferred and cls.inferred in named:
            raise TypeError(f"{cls.__name__}: {cls.inferred} is inferred from the input; leave it out")
        refuse_unknown(cls.__name__, named, (field.name for field in dataclasses.fields(cls) if field.init), LAYER)
        if len(positional) > len(known):
            given = ", ".join(map(repr, positional))
            text = f"{cls.__name__}({given}): {' and '.join(known) or 'nothing'} may be given by position, the rest by name"
            if cls.inferred:
                own = ", ".join(map(repr, positional[1 : len(known) + 1]))
                text += f"; {cls.inferred} is inferred, so PyTorch's {cls.__name__}({given}) is {cls.__name__}({own})"
            else:
                text += f"; it takes {', '.join(field.name for field in dataclasses.fields(cls) if field.init)}"
            raise TypeError(text)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        bias = getattr(self, "bias", True)
        if not isinstance(bias, (bool, np.bool_)):
            raise ValueError(f"{type(self).__name__}: bias must be True or False, not {bias!r}")
        name = self.name
        if name is not None and (not isinstance(name, str) or not all(name.split(".")) or name == "input"):
            raise ValueError(f"name must be words, joined by dots if there are several, and not 'input', not {name!r}")

    def __call__(self, *inputs: Node) -> Node:
        """Applies the layer to nodes of a graph and returns its output node."""
        for node in inputs:
            if not isinstance(node, Node):
                raise TypeError(
                    f"{type(self).__name__}()(...) takes nodes of a graph (chaos.Input or another layer's "
                    f"output), not {type(node).__name__}"
                )
        least, most = self.inputs
        if not least <= len(inputs) <= (most or len(inputs)):
            wanted = (
                "one input"
                if (least, most) == (1, 1)
                else f"{least} inputs"
                if least == most
                else f"at least {'one input' if least == 1 else f'{least} inputs'}"
                if most is None
                else f"{least} to {most} inputs"
            )
            raise ValueError(f"{type(self).__name__} takes {wanted}, not {len(inputs)}")
        return Node(self, inputs, self.output_shape(*(node.shape for node in inputs)))

    def config(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON-able values."""
        options = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                options[field.name] = _plain(value)
        return options

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"

    def output_shape(self, *shapes: Shape) -> Shape:
        """Output shape for the given input shapes; ValueError with the formula where the geometry is impossible."""
        return shapes[0]

    def core(self, *shapes: Shape) -> Core:
        """The `Core` that computes it."""
        return Core(self.kind)

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        """{name: Trained or State}, in the order of `part_names`."""
        return {}

    def macs(self, *shapes: Shape) -> int:
        """Multiply-adds of one sample's forward pass; the weight and data gradients take as many each."""
        return 0

    def part_name(self, owner: str, part: str) -> str:
        """What a part is called in files, of a layer that is named `owner`."""
        return f"{owner}.{part}"

    def least_images(self, *shapes: Shape) -> int:
        """The fewest images that a training step may have."""
        return 1

    def initial_values(self, rng: np.random.Generator | None, *shapes: Shape) -> dict[str, NDArray[np.float32]]:
        """{name: float32 array} of all parts; without a generator of those that are not random."""
        values = {}
        for name, part in self.parts(*shapes).items():
            if part.fill is None and rng is None:
                continue
            if part.fill is None:
                assert rng
                bound = 1 / np.sqrt(part.fan_in)
                values[name] = rng.uniform(-bound, bound, part.shape).astype(np.float32)
            else:
                values[name] = np.full(part.shape, part.fill, np.float32)
        return values

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        """The definition: list of input arrays and {name: array} to the output array, in the dtype given."""
        raise TypeError(f"{type(self).__name__} has no definition")

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        """The gradients of sum(y * dy): (list of gradients of the inputs, {name: gradient}); of a `State` what is
        observed instead of a gradient."""
        raise TypeError(f"{type(self).__name__} has no definition")

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        """One of the geometries that the kind is to be tried with: (layer, [shape of an input, ...]).

        Parameters
        ----------
        pick : callable
            ``pick(values)`` chooses one of them, ``pick.whole(least, most)`` a whole number.
        """
        shape = any_shape(pick)
        return cls(), [shape] * (cls.inputs[0] if cls.inputs[1] == cls.inputs[0] else cls.inputs[0] + pick.whole(0, 2))

    def smooth(self, x: Array) -> Array:
        """`x` moved away from where the kind has kinks: there central differences say nothing of a derivative."""
        return x


def any_shape(pick: Any) -> Shape:
    """A vector or an image, for `example`."""
    return (pick(ODD),) if pick((True, False)) else (pick.whole(1, 5), pick.whole(1, 7), pick.whole(1, 7))


# channels around the widths of the vectors
ODD = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 33, 48, 65, 70)
