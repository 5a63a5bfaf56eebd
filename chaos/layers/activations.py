"""Activations, entry by entry: a class of few lines each, with PyTorch's names, options and numerics. Imported by
chaos.layers; the fast half, a row each, is cext/layers/activations.c."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape, any_shape

_row = dataclass(frozen=True, eq=False, repr=False)


class Activation(Layer):
    """A layer y = f(x), entry by entry. The kinds define `f(x)`, `derivative(x, y)`, and where f has `kinks`; their options
    are real numbers, which the core is given in the order of the fields."""

    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((),)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in self._options().items():
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise ValueError(f"{type(self).__name__}: {name} must be a finite number, not {value!r}")

    def _options(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "name"}

    def core(self, *shapes: Shape) -> Core:
        return Core(self.kind, real=tuple(map(float, self._options().values())))

    def f(self, x: Array) -> Array:
        raise TypeError(f"{type(self).__name__} has no definition")

    def derivative(self, x: Array, y: Array) -> Array:
        raise TypeError(f"{type(self).__name__} has no definition")

    def kinks(self) -> tuple[float, ...]:
        """Where the derivative is not continuous."""
        return ()

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return self.f(inputs[0])

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [dy * self.derivative(inputs[0], y)], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        shape = any_shape(pick)
        return cls(*pick(cls.options_to_try)), [shape]

    def smooth(self, x: Array) -> Array:
        for kink in self.kinks():
            x = np.where(np.abs(x - kink) < 1e-3, kink + 0.01, x)
        return x


def _positive(layer: Layer, name: str) -> None:
    if not getattr(layer, name) > 0:
        raise ValueError(f"{type(layer).__name__}: {name} must be above 0, not {getattr(layer, name)!r}")


def _each(function: Callable[[float], float], x: Array) -> Array:
    found: Array = np.vectorize(function, otypes=[x.dtype])(x)
    return found


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    found: Array = np.where(x < 0, e, 1) / (1 + e)
    return found


def _log_1_exp(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _exp_below(x: Array) -> Array:
    return np.exp(np.minimum(x, 0))


def _normal_up_to(x: Array) -> Array:
    return 0.5 * _each(math.erfc, -x / math.sqrt(2))


@_row
class ReLU(Activation):
    """y = max(x, 0); dy/dx = 1 where y > 0, else 0."""

    kind: ClassVar[str] = "relu"

    def f(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def derivative(self, x: Array, y: Array) -> Array:
        return (y > 0).astype(y.dtype)

    def kinks(self) -> tuple[float, ...]:
        return (0.0,)


@_row
class ReLU6(Activation):
    """y = min(max(x, 0), 6)."""

    kind: ClassVar[str] = "relu6"

    def f(self, x: Array) -> Array:
        return np.clip(x, 0, 6)

    def derivative(self, x: Array, y: Array) -> Array:
        return ((x > 0) & (x < 6)).astype(y.dtype)

    def kinks(self) -> tuple[float, ...]:
        return (0.0, 6.0)


@_row
class LeakyReLU(Activation):
    """y = x where x > 0, else negative_slope x."""

    negative_slope: float = 0.01

    kind: ClassVar[str] = "leaky_relu"
    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((), (0.2,), (0.0,), (-0.5,))

    def f(self, x: Array) -> Array:
        return np.where(x > 0, x, self.negative_slope * x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x > 0, 1, self.negative_slope)

    def kinks(self) -> tuple[float, ...]:
        return (0.0,)


@_row
class ELU(Activation):
    """y = x where x > 0, else alpha (exp(x) - 1)."""

    alpha: float = 1.0

    kind: ClassVar[str] = "elu"
    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((), (0.3,), (-0.5,))

    def f(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x > 0, 1, self.alpha * _exp_below(x))

    def kinks(self) -> tuple[float, ...]:
        return (0.0,)


@_row
class SELU(Activation):
    """y = s (x where x > 0, else a (exp(x) - 1)) with the constants of Klambauer et al. (2017)."""

    kind: ClassVar[str] = "selu"
    _SCALE: ClassVar[float] = 1.0507009873554804934
    _ALPHA: ClassVar[float] = 1.6732632423543772848

    def f(self, x: Array) -> Array:
        return self._SCALE * np.where(x > 0, x, self._ALPHA * np.expm1(np.minimum(x, 0)))

    def derivative(self, x: Array, y: Array) -> Array:
        return self._SCALE * np.where(x > 0, 1, self._ALPHA * _exp_below(x))

    def kinks(self) -> tuple[float, ...]:
        return (0.0,)


@_row
class CELU(Activation):
    """y = x where x > 0, else alpha (exp(x / alpha) - 1); alpha above 0."""

    alpha: float = 1.0

    kind: ClassVar[str] = "celu"
    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((), (0.3,), (2.5,))

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "alpha")

    def f(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x > 0, 1, _exp_below(x / self.alpha))


@_row
class GELU(Activation):
    """y = x P(x), P the normal distribution; with approximate="tanh" y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    (Hendrycks, Gimpel 2016)."""

    approximate: str = "none"

    kind: ClassVar[str] = "gelu"
    options_to_try: ClassVar[tuple[Any, ...]] = ((), ("tanh",))

    def __post_init__(self) -> None:
        Layer.__post_init__(self)
        if self.approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', not {self.approximate!r}")

    def core(self, *shapes: Shape) -> Core:
        return Core("gelu" if self.approximate == "none" else "gelu_tanh")

    def f(self, x: Array) -> Array:
        if self.approximate == "none":
            return x * _normal_up_to(x)
        found: Array = 0.5 * x * (1 + self._tanh(x))
        return found

    def _tanh(self, x: Array) -> Array:
        return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))

    def derivative(self, x: Array, y: Array) -> Array:
        if self.approximate == "none":
            return _normal_up_to(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        t = self._tanh(x)
        found: Array = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return found


@_row
class SiLU(Activation):
    """y = x / (1 + exp(-x)), also called swish."""

    kind: ClassVar[str] = "silu"

    def f(self, x: Array) -> Array:
        return x * _sigmoid(x)

    def derivative(self, x: Array, y: Array) -> Array:
        s = _sigmoid(x)
        found: Array = s * (1 + x * (1 - s))
        return found


@_row
class Mish(Activation):
    """y = x tanh(log(1 + exp(x))) (Misra 2019)."""

    kind: ClassVar[str] = "mish"

    def f(self, x: Array) -> Array:
        return x * np.tanh(_log_1_exp(x))

    def derivative(self, x: Array, y: Array) -> Array:
        t = np.tanh(_log_1_exp(x))
        found: Array = t + x * _sigmoid(x) * (1 - t * t)
        return found


@_row
class Hardswish(Activation):
    """y = x min(max(x + 3, 0), 6) / 6 (Howard et al. 2019)."""

    kind: ClassVar[str] = "hardswish"

    def f(self, x: Array) -> Array:
        found: Array = x * np.clip(x + 3, 0, 6) / 6
        return found

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x >= 3, 1, np.where(x > -3, x / 3 + 0.5, 0))

    def kinks(self) -> tuple[float, ...]:
        return (-3.0, 3.0)


@_row
class Hardsigmoid(Activation):
    """y = min(max(x + 3, 0), 6) / 6."""

    kind: ClassVar[str] = "hardsigmoid"

    def f(self, x: Array) -> Array:
        found: Array = np.clip(x + 3, 0, 6) / 6
        return found

    def derivative(self, x: Array, y: Array) -> Array:
        return ((x > -3) & (x < 3)) / 6

    def kinks(self) -> tuple[float, ...]:
        return (-3.0, 3.0)


@_row
class Hardtanh(Activation):
    """y = min(max(x, min_val), max_val); min_val below max_val."""

    min_val: float = -1.0
    max_val: float = 1.0

    kind: ClassVar[str] = "hardtanh"
    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((), (-0.5, 2.0), (0.1, 0.6))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.min_val < self.max_val:
            raise ValueError(f"Hardtanh: min_val must be below max_val, not {self.min_val!r} and {self.max_val!r}")

    def f(self, x: Array) -> Array:
        return np.clip(x, self.min_val, self.max_val)

    def derivative(self, x: Array, y: Array) -> Array:
        return ((x > self.min_val) & (x < self.max_val)).astype(y.dtype)

    def kinks(self) -> tuple[float, ...]:
        return (self.min_val, self.max_val)


@_row
class Tanh(Activation):
    """y = tanh(x); dy/dx = 1 - y^2."""

    kind: ClassVar[str] = "tanh"

    def f(self, x: Array) -> Array:
        return np.tanh(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 - y * y


@_row
class ScaledTanh(Activation):
    """y = 1.7159 tanh(2x/3); dy/dx = 2/3 (1.7159 - y^2 / 1.7159) (LeCun et al., Efficient BackProp, 1998)."""

    kind: ClassVar[str] = "scaled_tanh"

    def f(self, x: Array) -> Array:
        return 1.7159 * np.tanh(x * 2 / 3)

    def derivative(self, x: Array, y: Array) -> Array:
        return 2 / 3 * (1.7159 - y * y / 1.7159)


@_row
class Tanhshrink(Activation):
    """y = x - tanh(x)."""

    kind: ClassVar[str] = "tanhshrink"

    def f(self, x: Array) -> Array:
        return x - np.tanh(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.tanh(x) ** 2


@_row
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)); dy/dx = y (1 - y)."""

    kind: ClassVar[str] = "sigmoid"

    def f(self, x: Array) -> Array:
        return _sigmoid(x)

    def derivative(self, x: Array, y: Array) -> Array:
        found: Array = y * (1 - y)
        return found


@_row
class LogSigmoid(Activation):
    """y = log(1 / (1 + exp(-x)))."""

    kind: ClassVar[str] = "log_sigmoid"

    def f(self, x: Array) -> Array:
        return -_log_1_exp(-x)

    def derivative(self, x: Array, y: Array) -> Array:
        return _sigmoid(-x)


@_row
class Softplus(Activation):
    """y = log(1 + exp(beta x)) / beta, x where beta x > threshold; beta above 0."""

    beta: float = 1.0
    threshold: float = 20.0

    kind: ClassVar[str] = "softplus"
    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((), (2.0, 1.5), (0.5, 20.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "beta")

    def f(self, x: Array) -> Array:
        return np.where(x * self.beta > self.threshold, x, _log_1_exp(x * self.beta) / self.beta)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x * self.beta > self.threshold, 1, _sigmoid(x * self.beta))

    def kinks(self) -> tuple[float, ...]:
        return (self.threshold / self.beta,)


@_row
class Softsign(Activation):
    """y = x / (1 + |x|)."""

    kind: ClassVar[str] = "softsign"

    def f(self, x: Array) -> Array:
        found: Array = x / (1 + np.abs(x))
        return found

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 / (1 + np.abs(x)) ** 2


@_row
class Threshold(Activation):
    """y = x where x > threshold, else value."""

    threshold: float
    value: float

    kind: ClassVar[str] = "threshold"
    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((0.1, 0.1), (0.5, -1.0), (-0.2, 3.0))

    def f(self, x: Array) -> Array:
        return np.where(x > self.threshold, x, self.value)

    def derivative(self, x: Array, y: Array) -> Array:
        return (x > self.threshold).astype(y.dtype)

    def kinks(self) -> tuple[float, ...]:
        return (self.threshold,)


class _Shrink(Activation):
    """0 where |x| <= lambd, which is not negative."""

    lambd: float
    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((), (0.1,), (0.0,))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambd < 0:
            raise ValueError(f"{type(self).__name__}: lambd must be at least 0, not {self.lambd!r}")

    def derivative(self, x: Array, y: Array) -> Array:
        return (np.abs(x) > self.lambd).astype(y.dtype)

    def kinks(self) -> tuple[float, ...]:
        return (-self.lambd, self.lambd)


@_row
class Hardshrink(_Shrink):
    """y = x where |x| > lambd, else 0."""

    lambd: float = 0.5

    kind: ClassVar[str] = "hardshrink"

    def f(self, x: Array) -> Array:
        return np.where(np.abs(x) > self.lambd, x, 0)


@_row
class Softshrink(_Shrink):
    """y = x - lambd where x > lambd, x + lambd where x < -lambd, else 0."""

    lambd: float = 0.5

    kind: ClassVar[str] = "softshrink"

    def f(self, x: Array) -> Array:
        return np.sign(x) * np.maximum(np.abs(x) - self.lambd, 0)


@_row
class Identity(Activation):
    """y = x."""

    kind: ClassVar[str] = "identity"

    def f(self, x: Array) -> Array:
        return x.copy()

    def derivative(self, x: Array, y: Array) -> Array:
        return np.ones_like(x)


@_row
class Affine(Activation):
    """y = scale x + shift, with the same two numbers everywhere."""

    scale: float = 1.0
    shift: float = 0.0

    kind: ClassVar[str] = "affine"
    options_to_try: ClassVar[tuple[tuple[float, ...], ...]] = ((), (-2.0, 0.5), (0.3,), (0.0, 1.0))

    def f(self, x: Array) -> Array:
        return self.scale * x + self.shift

    def derivative(self, x: Array, y: Array) -> Array:
        return np.full_like(x, self.scale)


@_row
class Abs(Activation):
    """y = |x|; the gradient at 0 is 0."""

    kind: ClassVar[str] = "abs"

    def f(self, x: Array) -> Array:
        return np.abs(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.sign(x)

    def kinks(self) -> tuple[float, ...]:
        return (0.0,)
