"""Local response normalisation. Imported by chaos.layers; the fast half is cext/layers/local_response_norm.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, whole


@dataclass(frozen=True, eq=False, repr=False)
class LocalResponseNorm(Layer):
    """Each value by the squares of its neighbours in other channels, as ``torch.nn.LocalResponseNorm`` (Krizhevsky,
    Sutskever, Hinton 2012, who do not divide alpha by `size`):

    y[c] = x[c] / (k + alpha / size * (sum of x[j]^2 over the channels j from c - size // 2 to c + (size - 1) // 2))^beta.

    Parameters
    ----------
    size : int
        Channels that are added up.
    alpha, beta, k : float
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    kind: ClassVar[str] = "local_response_norm"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("LocalResponseNorm: size", self.size)
        for name in ("alpha", "beta", "k"):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not number or not 0 <= value < np.inf or (name == "k" and value == 0):
                wanted = "greater than 0" if name == "k" else "of at least 0"
                raise ValueError(f"LocalResponseNorm: {name} must be a number {wanted}, not {value!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) == 1:
            raise ValueError(
                f"{self} needs inputs (channels, height, width) or (channels, length), not of shape {shapes[0]}"
            )
        return shapes[0]

    def core(self, *shapes: Shape) -> Core:
        size = min(self.size, 2 * shapes[0][0])  # a wider window holds no more, and alpha is divided by what was asked for
        if size != self.size:
            size += (size + self.size) % 2
        alpha = self.alpha * size / self.size
        return Core("local_response_norm", whole=(size,), real=(float(alpha), float(self.beta), float(self.k)))

    def _sums(self, x: Array, before: int) -> Array:
        """Sums over `size` channels, the first of them `before` channels further back."""
        pads = [(0, 0), (before, self.size - 1 - before), *[(0, 0)] * (x.ndim - 2)]
        total: Array = np.lib.stride_tricks.sliding_window_view(np.pad(x, pads), self.size, 1).sum(-1)
        return total

    def _divisor(self, x: Array) -> Array:
        return self.k + self.alpha / self.size * self._sums(x * x, self.size // 2)

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        found: Array = inputs[0] * self._divisor(inputs[0]) ** -self.beta
        return found

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        (x,) = inputs
        d = self._divisor(x)
        others = self._sums(dy * x * d ** (-self.beta - 1), (self.size - 1) // 2)
        return [dy * d**-self.beta - 2 * self.alpha * self.beta / self.size * x * others], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        options = {"alpha": pick((1e-4, 0.5, 2.0)), "beta": pick((0.75, 0.5, 1.0, 0.3)), "k": pick((1.0, 2.0))}
        return cls(pick((1, 2, 3, 5, 6, 90)), **options), [(pick(ODD), *pick(((3, 4), (1, 1), (5,))))]
