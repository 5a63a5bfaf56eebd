"""Batch normalisation. Imported by chaos.layers; the fast half is cext/layers/batch_norm.c."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained


@dataclass(frozen=True, eq=False, repr=False)
class _BatchNorm(Layer):
    _: KW_ONLY
    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = True

    dims: ClassVar[tuple[int, ...]]
    inferred: ClassVar[str | None] = "num_features"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias", "running_mean", "running_var")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("eps", 0.0), ("momentum", 0.0)):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not number or not low <= value < np.inf or (name == "momentum" and value > 1):
                wanted = "in 0..1" if name == "momentum" else "of at least 0"
                raise ValueError(f"{type(self).__name__}: {name} must be a number {wanted}, not {value!r}")
        if not isinstance(self.affine, (bool, np.bool_)):
            raise ValueError(f"{type(self).__name__}: affine must be True or False, not {self.affine!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) not in self.dims:
            wanted = "(channels, height, width)" if 3 in self.dims else "(features,) or (channels, length)"
            raise ValueError(f"{self} needs inputs {wanted}, not of shape {shapes[0]}")
        return shapes[0]

    def core(self, *shapes: Shape) -> Core:
        return Core("batch_norm", whole=(int(self.affine),), real=(float(self.eps), float(self.momentum)))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        channels = shapes[0][:1]
        trained: dict[str, Trained | State] = {"weight": Trained(channels, fill=1.0), "bias": Trained(channels, fill=0.0)}
        return (trained if self.affine else {}) | {"running_mean": State(channels), "running_var": State(channels, fill=1.0)}

    def least_images(self, *shapes: Shape) -> int:
        return 1 if math.prod(shapes[0][1:]) > 1 else 2  # one value has no variance

    @staticmethod
    def _by_channel(values: Array, x: Array) -> Array:
        return values.reshape(-1, *[1] * (x.ndim - 2))

    def _statistics(self, x: Array, parts: Parts, context: Context) -> tuple[Array, Array]:
        if not context.training:
            return parts["running_mean"], parts["running_var"]
        axes = (0, *range(2, x.ndim))
        return x.mean(axes), x.var(axes)

    def _normal(self, x: Array, parts: Parts, context: Context) -> Array:
        mean, var = self._statistics(x, parts, context)
        found: Array = (x - self._by_channel(mean, x)) / np.sqrt(self._by_channel(var, x) + self.eps)
        return found

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        normal = self._normal(x, parts, context)
        if not self.affine:
            return normal
        return self._by_channel(parts["weight"], x) * normal + self._by_channel(parts["bias"], x)

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x, axes = inputs[0], (0, *range(2, inputs[0].ndim))
        mean, var = self._statistics(x, parts, context)
        normal, m = self._normal(x, parts, context), x.size / x.shape[1]
        product, total = (dy * normal).sum(axes), dy.sum(axes)
        own = {"weight": product, "bias": total} if self.affine else {}
        rest = (self._by_channel(total, x) + normal * self._by_channel(product, x)) / m
        factor = parts["weight"] if self.affine else np.ones_like(var)
        if not context.training:
            return [self._by_channel(factor / np.sqrt(var + self.eps), x) * dy], own
        into = self._by_channel(factor / np.sqrt(var + self.eps), x) * (dy - rest)
        return [into], own | {"running_mean": mean, "running_var": var * m / max(m - 1, 1)}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        # of few numbers the normalised ones are (nearly) always the same, and gradients nothing but rounding
        sizes = (pick.whole(3, 6), pick.whole(3, 6)) if 3 in cls.dims else (pick.whole(8, 20),)
        shape = (pick.whole(1, 35), *sizes)
        return cls(eps=pick((1e-5, 0.1)), affine=pick((True, True, False))), [shape]


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm1d(_BatchNorm):
    """As `BatchNorm2d`, for vectors (features,), feature by feature, and sequences (channels, length)."""

    kind: ClassVar[str] = "batch_norm1d"
    dims: ClassVar[tuple[int, ...]] = (1, 2)


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm2d(_BatchNorm):
    """Each channel by mean and variance of the worker's step in training, by running ones otherwise, with the numerics of
    ``torch.nn.BatchNorm2d`` (Ioffe, Szegedy 2015): y = weight * (x - mean) / sqrt(var + eps) + bias; running statistics move
    by `momentum` towards each step's mean and unbiased variance. Strategies that cut a step into lanes refuse it."""

    kind: ClassVar[str] = "batch_norm2d"
    dims: ClassVar[tuple[int, ...]] = (3,)
