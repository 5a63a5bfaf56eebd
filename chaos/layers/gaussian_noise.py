"""Noise added while a network trains. Imported by chaos.layers; the fast half is cext/layers/gaussian_noise.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape, any_shape
from .random import normal, of_values


@dataclass(frozen=True, eq=False, repr=False)
class GaussianNoise(Layer):
    """y = x + sigma * z while the network trains, z independent and normal with mean 0 and variance 1; nothing happens
    otherwise (Sietsma, Dow 1991; Keras's ``GaussianNoise``). What is added depends on seed, epoch, image and layer alone,
    as in `Dropout`.

    Parameters
    ----------
    sigma : float
        The noise's standard deviation.
    """

    sigma: float

    kind: ClassVar[str] = "gaussian_noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.sigma, (int, float, np.number)) and not isinstance(self.sigma, bool)
        if not number or not 0 <= self.sigma < np.inf:
            raise ValueError(f"GaussianNoise: sigma must be a number of at least 0, not {self.sigma!r}")

    def core(self, *shapes: Shape) -> Core:
        return Core("gaussian_noise", real=(float(self.sigma),))

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        (x,) = inputs
        if not context.training:
            return x
        assert context.keys is not None
        found: Array = x + self.sigma * of_values(normal(context.keys, x[0].size), x.shape[1:])
        return found

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        return [dy], {}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        return cls(pick((0.1, 1.0, 0.0))), [any_shape(pick)]
