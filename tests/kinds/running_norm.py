"""Batch normalisation. A kind for tests/test_registration.py; the fast half is running_norm.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import EVALUATION, Core, Layer, State, Trained


@dataclass(frozen=True, eq=False, repr=False)
class RunningNorm(Layer):
    """Each channel by mean and variance of the step's images in training, by running ones otherwise, with the numerics of
    ``torch.nn.BatchNorm2d``."""

    eps: float = 1e-5
    momentum: float = 0.1

    kind: ClassVar[str] = "running_norm"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias", "running_mean", "running_var")

    def core(self, *shapes):
        return Core("running_norm", real=(self.eps, self.momentum))

    def parts(self, *shapes):
        channels = shapes[0][:1]
        return {
            "weight": Trained(channels, fill=1.0),
            "bias": Trained(channels, fill=0.0),
            "running_mean": State(channels),
            "running_var": State(channels, fill=1.0),
        }

    def _by_channel(self, values, x):
        return values.reshape(-1, *[1] * (x.ndim - 2))

    def _statistics(self, x, parts, context):
        if not context.training:
            return parts["running_mean"], parts["running_var"]
        axes = (0, *range(2, x.ndim))
        return x.mean(axes), x.var(axes)

    def _normal(self, x, parts, context):
        mean, var = self._statistics(x, parts, context)
        return (x - self._by_channel(mean, x)) / np.sqrt(self._by_channel(var, x) + self.eps)

    def forward(self, inputs, parts, context=EVALUATION):
        x = inputs[0]
        normal = self._normal(x, parts, context)
        return self._by_channel(parts["weight"], x) * normal + self._by_channel(parts["bias"], x)

    def backward(self, inputs, parts, y, dy, context=EVALUATION):
        x, axes = inputs[0], (0, *range(2, inputs[0].ndim))
        mean, var = self._statistics(x, parts, context)
        normal, m = self._normal(x, parts, context), x.size / x.shape[1]
        own = {"weight": (dy * normal).sum(axes), "bias": dy.sum(axes)}
        own |= {"running_mean": mean, "running_var": var * m / max(m - 1, 1)}
        rest = (self._by_channel(own["bias"], x) + normal * self._by_channel(own["weight"], x)) / m
        scale = self._by_channel(parts["weight"] / np.sqrt(var + self.eps), x)
        return [scale * (dy - rest)], own

    @classmethod
    def example(cls, pick):
        # of one or two numbers the normalised ones are always the same, and gradients nothing but rounding
        return cls(pick((1e-5, 0.1))), [(pick.whole(1, 20), pick.whole(2, 5), pick.whole(2, 5))]
