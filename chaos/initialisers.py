"""How weights begin: the distributions of ``torch.nn.init``, under its names, and LeCun's. For chaos.network.

Each is a function that returns an `Initialiser`; its name alone means its defaults. The fans of a weight are PyTorch's: its
second, and its first dimension, times the entries of its kernel; of a convolution with groups as well, whose weight has the
shape (out_channels, in_channels / groups, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .layers.base import Trained

Shape = tuple[int, ...]
Draw = Callable[["np.random.Generator", Shape], NDArray[np.float64]]  # numpy.random is loaded where it draws

MODES = ("fan_in", "fan_out")
DEFAULT = "default"
LEAST = 0.01  # of a normal distribution that trunc_normal must be able to hit


@dataclass(frozen=True)
class Initialiser:
    """What gives parameters their first values.

    Attributes
    ----------
    name : str
        With its arguments.
    least : int
        The fewest dimensions that a parameter must have: 2 where fans, or a matrix, are needed.
    draw : callable
        ``draw(rng, shape)`` is a float64 array of that shape.
    """

    name: str
    least: int
    draw: Draw

    def __call__(self, rng: np.random.Generator, shape: Shape) -> NDArray[np.float32]:
        """The values of a parameter of that shape; ValueError where they are not defined."""
        if len(shape) < self.least:
            raise ValueError(f"{self.name} needs a parameter of at least {self.least} dimensions, not of shape {shape}")
        return np.asarray(self.draw(rng, shape), np.float32)

    def __repr__(self) -> str:
        return self.name


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight, as PyTorch counts them."""
    if len(shape) < 2:
        raise ValueError(f"fans are defined for weights of at least 2 dimensions, not of shape {shape}")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def gain(nonlinearity: str, param: float | None = None) -> float:
    """What a nonlinearity wants weights to be multiplied with, as ``torch.nn.init.calculate_gain``; `param` is the slope of
    leaky_relu (0.01 unless given)."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else _number("a", param)) ** 2))
    known = {
        **dict.fromkeys(("linear", "conv1d", "conv2d", "sigmoid"), 1.0),
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "selu": 3 / 4,
    }
    if nonlinearity not in known:
        raise ValueError(f"unknown nonlinearity {nonlinearity!r}; known: {', '.join((*known, 'leaky_relu'))}")
    return known[nonlinearity]


# ---- one number, and plain distributions ----


def constant(val: float) -> Initialiser:
    """`val` everywhere."""
    val = _number("val", val)
    return Initialiser(f"constant({val:g})", 0, lambda rng, shape: np.full(shape, val))


def zeros() -> Initialiser:
    """0 everywhere."""
    return Initialiser("zeros()", 0, lambda rng, shape: np.zeros(shape))


def ones() -> Initialiser:
    """1 everywhere."""
    return Initialiser("ones()", 0, lambda rng, shape: np.ones(shape))


def uniform(a: float = -0.05, b: float = 0.05) -> Initialiser:
    """Uniform in a .. b (PyTorch's defaults are 0 .. 1, which no network learns with)."""
    a, b = _number("a", a), _number("b", b)
    if a > b:
        raise ValueError(f"uniform: a must be at most b, not {a!r} and {b!r}")
    return Initialiser(f"uniform({a:g}, {b:g})", 0, lambda rng, shape: rng.uniform(a, b, shape))


def normal(mean: float = 0.0, std: float = 1.0) -> Initialiser:
    """Normal with this mean and standard deviation."""
    mean, std = _number("mean", mean), _number("std", std, 0)
    return Initialiser(f"normal({mean:g}, {std:g})", 0, lambda rng, shape: rng.normal(mean, std, shape))


def trunc_normal(mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Initialiser:
    """Normal, given that it is in a .. b: what is not is drawn again. ValueError where that is less than a hundredth."""
    mean, std, a, b = _number("mean", mean), _number("std", std, 0), _number("a", a), _number("b", b)
    name = f"trunc_normal({mean:g}, {std:g}, {a:g}, {b:g})"
    below = [math.erf((end - mean) / std / math.sqrt(2)) / 2 if std else math.copysign(0.5, end - mean) for end in (a, b)]
    inside = below[1] - below[0]
    if not inside >= LEAST:
        raise ValueError(f"{name}: a .. b holds {inside:.2g} of the normal distribution, {LEAST} are needed")

    def draw(rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        values = rng.normal(mean, std, shape)
        while (outside := (values < a) | (values > b)).any():
            values[outside] = rng.normal(mean, std, int(outside.sum()))
        return values

    return Initialiser(name, 0, draw)


# ---- by the fans of a weight ----


def xavier_uniform(gain: float = 1.0) -> Initialiser:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot, Bengio 2010)."""
    gain = _number("gain", gain, 0)
    return _uniform(f"xavier_uniform({gain:g})", lambda into, out: gain * math.sqrt(2 / (into + out)))


def xavier_normal(gain: float = 1.0) -> Initialiser:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot, Bengio 2010)."""
    gain = _number("gain", gain, 0)
    return _normal(f"xavier_normal({gain:g})", lambda into, out: gain * math.sqrt(2 / (into + out)))


def kaiming_uniform(a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Initialiser:
    """Uniform in +-gain * sqrt(3 / fan) (He, Zhang, Ren, Sun 2015).

    Parameters
    ----------
    a : float
        Slope of leaky_relu for negative numbers; of no other nonlinearity.
    mode : str
        "fan_in" keeps the variance of the forward pass, "fan_out" that of the gradients.
    nonlinearity : str
        What comes behind the layer, see `gain`.
    """
    name, std = _kaiming("kaiming_uniform", a, mode, nonlinearity)
    return _uniform(name, std)


def kaiming_normal(a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Initialiser:
    """Normal with standard deviation gain / sqrt(fan); arguments as for `kaiming_uniform`."""
    name, std = _kaiming("kaiming_normal", a, mode, nonlinearity)
    return _normal(name, std)


def lecun_uniform() -> Initialiser:
    """Uniform in +-sqrt(3 / fan_in) (LeCun, Bottou, Orr, Müller 1998)."""
    return _uniform("lecun_uniform()", lambda into, out: math.sqrt(1 / into))


def lecun_normal() -> Initialiser:
    """Normal with standard deviation sqrt(1 / fan_in) (LeCun, Bottou, Orr, Müller 1998; for SELU: Klambauer et al. 2017)."""
    return _normal("lecun_normal()", lambda into, out: math.sqrt(1 / into))


def orthogonal(gain: float = 1.0) -> Initialiser:
    """A random matrix with orthonormal rows, or columns if they are fewer, times `gain` (Saxe, McClelland, Ganguli 2014). A
    kernel is seen as the matrix (first dimension, product of the others)."""
    gain = _number("gain", gain)

    def draw(rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)  # else it would not be uniform among such matrices
        found: NDArray[np.float64] = gain * (q if rows >= columns else q.T)
        return found.reshape(shape)

    return Initialiser(f"orthogonal({gain:g})", 2, draw)


INITIALISERS: dict[str, Callable[..., Initialiser]] = {
    made.__name__: made
    for made in (
        constant,
        zeros,
        ones,
        uniform,
        normal,
        trunc_normal,
        xavier_uniform,
        xavier_normal,
        kaiming_uniform,
        kaiming_normal,
        lecun_uniform,
        lecun_normal,
        orthogonal,
    )
}


def resolve(what: str | Initialiser) -> Initialiser:
    """The initialiser of that name, with its defaults; or the one that is given."""
    if isinstance(what, Initialiser):
        return what
    if not isinstance(what, str):
        made = getattr(what, "__name__", None)
        hint = f"; call it: {made}()" if made in INITIALISERS else ""
        raise TypeError(f"an initialiser must be a name or made by chaos.initialisers, not {what!r}{hint}")
    name = what.removesuffix("_")  # PyTorch's
    if name not in INITIALISERS:
        raise ValueError(f"unknown initialiser {what!r}; known: {', '.join(INITIALISERS)}, default")
    if name == "constant":
        raise ValueError("constant needs its number: chaos.initialisers.constant(0.1)")
    return INITIALISERS[name]()


def draw(
    parameters: Mapping[str, Trained], weight: str | Initialiser | None, bias: str | Initialiser | None, seed: int
) -> dict[str, NDArray[np.float32]]:
    """{name: new values} of those parameters ("LAYER.weight", "LAYER.bias") that have an initialiser which is defined for
    them; "default": what they are made with. They depend on the seed and the name only."""
    chosen = {
        kind: what if what in (None, DEFAULT) else resolve(what) for kind, what in (("weight", weight), ("bias", bias))
    }
    values = {}
    for name, part in parameters.items():
        what = chosen.get(name.rpartition(".")[2])
        if what == DEFAULT:
            what = default(part)
        if isinstance(what, Initialiser) and len(part.shape) >= what.least:
            values[name] = what(np.random.default_rng([seed, *name.encode()]), part.shape)
    return values


def default(part: Trained) -> Initialiser:
    """What a parameter is made with: PyTorch's default."""
    bound = 1 / math.sqrt(part.fan_in)
    return uniform(-bound, bound) if part.fill is None else constant(part.fill)


def _uniform(name: str, std: Callable[[int, int], float]) -> Initialiser:
    def draw(rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        bound = math.sqrt(3) * std(*fans(shape))
        return rng.uniform(-bound, bound, shape)

    return Initialiser(name, 2, draw)


def _normal(name: str, std: Callable[[int, int], float]) -> Initialiser:
    return Initialiser(name, 2, lambda rng, shape: rng.normal(0, std(*fans(shape)), shape))


def _kaiming(name: str, a: float, mode: str, nonlinearity: str) -> tuple[str, Callable[[int, int], float]]:
    if mode not in MODES:
        raise ValueError(f"{name}: mode must be 'fan_in' or 'fan_out', not {mode!r}")
    factor = gain(nonlinearity, _number("a", a))
    fan = MODES.index(mode)
    return f"{name}({a:g}, {mode!r}, {nonlinearity!r})", lambda *both: factor / math.sqrt(both[fan])


def _number(what: str, value: float, least: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be at least {least:g}, not {value!r}")
    return float(value)
