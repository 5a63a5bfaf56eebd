"""Batch normalisation. Imported by chaos.layers; the fast half is cext/layers/batch_norm.c."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, whole


@dataclass(frozen=True, eq=False, repr=False)
class _BatchNorm(Layer):
    _: KW_ONLY
    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = True
    use_running_stats: bool = False
    groups_of: int | None = None

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
        for name in ("affine", "use_running_stats"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{type(self).__name__}: {name} must be True or False, not {getattr(self, name)!r}")

        if self.groups_of is not None:
            whole(f"{type(self).__name__}: groups_of", self.groups_of)
            if self.use_running_stats:
                raise ValueError(f"{self}: with use_running_stats=True images are in no groups; leave groups_of out")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) not in self.dims:
            wanted = "(channels, height, width)" if 3 in self.dims else "(features,) or (channels, length)"
            raise ValueError(f"{self} needs inputs {wanted}, not of shape {shapes[0]}")
        if self.groups_of == 1 and math.prod(shapes[0][1:]) == 1:
            raise ValueError(
                f"{self} on input of shape {shapes[0]}: one value has no variance; groups_of must be at least 2"
            )
        return shapes[0]

    def core(self, *shapes: Shape) -> Core:
        options = int(self.affine), int(self.use_running_stats), self.groups_of or 0
        return Core("batch_norm", whole=options, real=(float(self.eps), float(self.momentum)))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        channels = shapes[0][:1]
        trained: dict[str, Trained | State] = {"weight": Trained(channels, fill=1.0), "bias": Trained(channels, fill=0.0)}
        return (trained if self.affine else {}) | {"running_mean": State(channels), "running_var": State(channels, fill=1.0)}

    def least_images(self, *shapes: Shape) -> int:
        return 1 if self.use_running_stats or math.prod(shapes[0][1:]) > 1 else 2  # one value has no variance

    def _groups(self, x: Array, context: Context) -> list[slice]:
        """The images that are normalised together."""
        each = self.groups_of if self.groups_of and context.training else len(x)
        return [slice(first, first + each) for first in range(0, len(x), each)]

    @staticmethod
    def _by_channel(values: Array, x: Array) -> Array:
        return values.reshape(-1, *[1] * (x.ndim - 2))

    def _statistics(self, x: Array, parts: Parts, context: Context) -> tuple[Array, Array]:
        if self.use_running_stats or not context.training:
            return parts["running_mean"], parts["running_var"]
        axes = (0, *range(2, x.ndim))
        return x.mean(axes), x.var(axes)

    def _normal(self, x: Array, parts: Parts, context: Context) -> Array:
        mean, var = self._statistics(x, parts, context)
        found: Array = (x - self._by_channel(mean, x)) / np.sqrt(self._by_channel(var, x) + self.eps)
        return found

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        normal: Array = np.concatenate([self._normal(x[some], parts, context) for some in self._groups(x, context)])
        if not self.affine:
            return normal
        return self._by_channel(parts["weight"], x) * normal + self._by_channel(parts["bias"], x)

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        into: Arrays = []
        own: Parts = {}
        for some in self._groups(dy, context):
            dx, found = self._backward(inputs[0][some], parts, dy[some], context)
            into.append(dx)
            for name, value in found.items():
                part = value * (len(dx) / len(dy) if name.startswith("running") else 1)  # observations are averaged
                own[name] = own[name] + part if name in own else part
        return [np.concatenate(into)], own

    def _backward(self, x: Array, parts: Parts, dy: Array, context: Context) -> tuple[Array, Parts]:
        """Of images that are normalised together."""
        axes = (0, *range(2, x.ndim))
        mean, var = self._statistics(x, parts, context)
        normal, m = self._normal(x, parts, context), x.size / x.shape[1]
        product, total = (dy * normal).sum(axes), dy.sum(axes)
        own = {"weight": product, "bias": total} if self.affine else {}
        factor = self._by_channel((parts["weight"] if self.affine else 1) / np.sqrt(var + self.eps), x)
        if not context.training:
            return factor * dy, own
        if self.use_running_stats:
            square = (x - self._by_channel(mean, x)) ** 2
            return factor * dy, own | {"running_mean": x.mean(axes), "running_var": square.mean(axes)}
        rest = (self._by_channel(total, x) + normal * self._by_channel(product, x)) / m
        return factor * (dy - rest), own | {"running_mean": mean, "running_var": var * m / max(m - 1, 1)}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        # of few numbers the normalised ones are (nearly) always the same, and gradients nothing but rounding
        sizes = (pick.whole(3, 6), pick.whole(3, 6)) if 3 in cls.dims else (pick.whole(8, 20),)
        shape = (pick.whole(1, 35), *sizes)
        options = {"affine": pick((True, True, False))} | pick(
            ({}, {"use_running_stats": True}, {"groups_of": pick.whole(1, 5)})
        )
        return cls(eps=pick((1e-5, 0.1)), **options), [shape]


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm1d(_BatchNorm):
    """As `BatchNorm2d`, for vectors (features,), feature by feature, and sequences (channels, length)."""

    kind: ClassVar[str] = "batch_norm1d"
    dims: ClassVar[tuple[int, ...]] = (1, 2)


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm2d(_BatchNorm):
    """Each channel by mean and variance of the worker's step in training, by running ones otherwise, with the numerics of
    ``torch.nn.BatchNorm2d`` (Ioffe, Szegedy 2015): y = weight * (x - mean) / sqrt(var + eps) + bias; running statistics move
    by `momentum` towards each step's mean and unbiased variance. Strategies that cut a step into lanes (`synchronous`,
    `hybrid`) need `groups_of` or `use_running_stats`.

    Parameters
    ----------
    eps, momentum : float
    affine : bool
        Whether there are weight and bias.
    use_running_stats : bool
        Whether the running statistics are used in training as well, where gradients take them for constants. Images of a
        step then do not depend on each other: it works at batch size 1, and under every strategy. The running statistics
        move towards the step's mean and its mean square distance from the running mean; with `momentum` 0 they stay, which
        is how a trained network is trained on (``use_global_stats`` of Caffe and MXNet).
    groups_of : int, optional
        Instead of all images of a step this many of them are normalised together: the step's first so many, the next, and
        so on (ghost batch normalisation, Hoffer, Hubara, Soudry 2017). The groups do not depend on the workers, so that
        `synchronous` keeps its bits for any number of them; the running statistics move towards the mean of what the groups
        observe, by their numbers of images.
    """

    kind: ClassVar[str] = "batch_norm2d"
    dims: ClassVar[tuple[int, ...]] = (3,)
