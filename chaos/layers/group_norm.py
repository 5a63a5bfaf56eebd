"""Normalisation of each image by itself. Imported by chaos.layers; the fast half is cext/layers/group_norm.c."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, whole


def _check(layer: Layer, *flags: str) -> None:
    """ValueError where eps is no number of at least 0, or a flag is none."""
    eps = getattr(layer, "eps", None)
    number = isinstance(eps, (int, float, np.number)) and not isinstance(eps, bool)
    if eps is not None and not (number and 0 <= eps < np.inf):
        raise ValueError(f"{type(layer).__name__}: eps must be a number of at least 0, not {eps!r}")
    for flag in flags:
        if not isinstance(getattr(layer, flag), (bool, np.bool_)):
            raise ValueError(f"{type(layer).__name__}: {flag} must be True or False, not {getattr(layer, flag)!r}")


class _Normalisation(Layer):
    """Sets of values of an image, normalised; each kind says which, and of what its weights are."""

    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")
    centred: ClassVar[bool] = True

    def _epsilon(self) -> float:
        raise NotImplementedError

    def _has(self) -> tuple[bool, bool]:
        """Whether it has weights, and a bias."""
        raise NotImplementedError

    def _weight_shape(self, shape: Shape) -> Shape:
        return shape[:1]

    def _sets(self, x: Array) -> Array:
        """`x` with the values of a set along the last axis; what `_unset` puts back."""
        raise NotImplementedError

    def _unset(self, sets: Array, like: Array) -> Array:
        return sets.reshape(like.shape)

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        shape = self._weight_shape(shapes[0])
        found = {"weight": Trained(shape, fill=1.0), "bias": Trained(shape, fill=0.0)}
        return {name: part for (name, part), has in zip(found.items(), self._has(), strict=True) if has}

    def _moments(self, sets: Array) -> tuple[Array, Array]:
        """(normalised values, 1 / sqrt(var + eps))."""
        apart = sets - sets.mean(-1, keepdims=True) if self.centred else sets
        inverse = 1 / np.sqrt((apart * apart).mean(-1, keepdims=True) + self._epsilon())
        return apart * inverse, inverse

    def _spread(self, values: Array, x: Array) -> Array:
        """Weights, for each value of `x`."""
        return values.reshape(*values.shape, *[1] * (x.ndim - 1 - values.ndim))

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        y = self._unset(self._moments(self._sets(x))[0], x)
        if "weight" in parts:
            y = y * self._spread(parts["weight"], x)
        return y + self._spread(parts["bias"], x) if "bias" in parts else y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = inputs[0]
        normal, inverse = self._moments(self._sets(x))
        own, d = {}, dy
        if "weight" in parts:
            axes = (0, *range(1 + parts["weight"].ndim, x.ndim))
            own["weight"] = (dy * self._unset(normal, x)).sum(axes)
            d = dy * self._spread(parts["weight"], x)
            if "bias" in parts:
                own["bias"] = dy.sum(axes)
        d = self._sets(d)
        less = d.mean(-1, keepdims=True) if self.centred else 0
        return [self._unset(inverse * (d - less - normal * (d * normal).mean(-1, keepdims=True)), x)], own


@dataclass(frozen=True, eq=False, repr=False)
class GroupNorm(_Normalisation):
    """The channels of each image in groups, each group by its own mean and variance, also in evaluation, as
    ``torch.nn.GroupNorm`` (Wu, He 2018); the number of channels is inferred.

    y = weight * (x - mean) / sqrt(var + eps) + bias, with a weight and a bias for each channel. What an image becomes does
    not depend on the others of its step: it works at batch size 1, and under every strategy.

    Parameters
    ----------
    num_groups : int
        Divides the number of channels.
    eps : float
    affine : bool
        Whether there are weight and bias.
    """

    num_groups: int
    _: KW_ONLY
    eps: float = 1e-5
    affine: bool = True

    kind: ClassVar[str] = "group_norm"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("GroupNorm: num_groups", self.num_groups)
        _check(self, "affine")

    def _epsilon(self) -> float:
        return float(self.eps)

    def _has(self) -> tuple[bool, bool]:
        return bool(self.affine), bool(self.affine)

    def _sets(self, x: Array) -> Array:
        return x.reshape(len(x), self.num_groups, -1)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape[0] % self.num_groups:
            raise ValueError(
                f"{self} on input of shape {shape}: the channels are no multiple of num_groups={self.num_groups}"
            )
        if math.prod(shape) == self.num_groups:
            raise ValueError(f"{self} on input of shape {shape}: each group has one value, and one value has no variance")
        return shape

    def core(self, *shapes: Shape) -> Core:
        return Core("group_norm", whole=(self.num_groups, 0, *map(int, self._has()), 1), real=(self._epsilon(),))

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        # of few numbers the normalised ones are (nearly) always the same, and gradients nothing but rounding
        groups, each = pick((1, 2, 3, 5, 16)), pick((1, 2, 3, 4, 7, 17))
        shape = (groups * each, *pick(((3, 4), (6, 5), (9,), (8, 1))))
        return cls(groups, eps=pick((1e-5, 0.1)), affine=pick((True, True, False))), [shape]


@dataclass(frozen=True, eq=False, repr=False)
class InstanceNorm2d(_Normalisation):
    """Each channel of each image by its own mean and variance, also in evaluation, as ``torch.nn.InstanceNorm2d`` without
    running statistics (Ulyanov, Vedaldi, Lempitsky 2016).

    Parameters
    ----------
    eps : float
    affine : bool
        Whether there are a weight and a bias for each channel.
    """

    _: KW_ONLY
    eps: float = 1e-5
    affine: bool = False

    kind: ClassVar[str] = "instance_norm2d"
    dims: ClassVar[int] = 3
    inferred: ClassVar[str | None] = "num_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "affine")

    def _epsilon(self) -> float:
        return float(self.eps)

    def _has(self) -> tuple[bool, bool]:
        return bool(self.affine), bool(self.affine)

    def _sets(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], -1)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != self.dims:
            wanted = "(channels, height, width)" if self.dims == 3 else "(channels, length)"
            raise ValueError(f"{self} needs inputs {wanted}, not of shape {shape}")
        if math.prod(shape[1:]) == 1:
            raise ValueError(f"{self} on input of shape {shape}: each channel has one value, and one value has no variance")
        return shape

    def core(self, *shapes: Shape) -> Core:
        return Core("group_norm", whole=(shapes[0][0], 0, *map(int, self._has()), 1), real=(self._epsilon(),))

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        sizes = pick(((3, 4), (6, 5), (9, 1))) if cls.dims == 3 else (pick.whole(8, 20),)
        return cls(eps=pick((1e-5, 0.1)), affine=pick((True, False))), [(pick(ODD), *sizes)]


@dataclass(frozen=True, eq=False, repr=False)
class InstanceNorm1d(InstanceNorm2d):
    """As `InstanceNorm2d`, for sequences (channels, length)."""

    kind: ClassVar[str] = "instance_norm1d"
    dims: ClassVar[int] = 2


class _LayerNorm(_Normalisation):
    elementwise_affine: bool
    channels_only: bool

    inferred: ClassVar[str | None] = "normalized_shape"

    def _weight_shape(self, shape: Shape) -> Shape:
        return shape[:1] if self.channels_only else shape

    def _sets(self, x: Array) -> Array:
        return np.moveaxis(x, 1, -1) if self.channels_only else x.reshape(len(x), -1)

    def _unset(self, sets: Array, like: Array) -> Array:
        return np.moveaxis(sets, -1, 1) if self.channels_only else sets.reshape(like.shape)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if self.centred and math.prod(shape[:1] if self.channels_only else shape) == 1:
            raise ValueError(f"{self} on input of shape {shape}: one value has no variance")
        return shape

    def core(self, *shapes: Shape) -> Core:
        options = (0, int(self.channels_only), *map(int, self._has()), int(self.centred))
        return Core("group_norm", whole=options, real=(self._epsilon(),))

    @classmethod
    def _shape(cls, pick: Any, channels_only: bool) -> Shape:
        channels = pick((5, 7, 8, 9, 15, 16, 17, 31, 33, 70))
        sizes: Shape = pick(((), (6,), (3, 4), (1, 1)))
        few: Shape = pick(((1, 3, 4), (2, 5, 3), (1, 17), (3, 6)))
        return (channels, *sizes) if channels_only or pick((True, True, False)) else few


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(_LayerNorm):
    """Each image by mean and variance of all its values, also in evaluation, as ``torch.nn.LayerNorm`` whose
    normalized_shape is that of an image, (c, h, w), (c, l) or (k,) (Ba, Kiros, Hinton 2016); it is inferred.

    y = weight * (x - mean) / sqrt(var + eps) + bias, with a weight and a bias for each value.

    Parameters
    ----------
    eps : float
    elementwise_affine : bool
        Whether there are weights.
    bias : bool
        Whether there is a bias beside them.
    channels_only : bool
        Instead each pixel by mean and variance of its channels, with a weight and a bias for each channel, as ConvNeXt does
        it (Liu et al. 2022; ``torchvision.ops.misc.LayerNorm2d``).
    """

    _: KW_ONLY
    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True
    channels_only: bool = False

    kind: ClassVar[str] = "layer_norm"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "elementwise_affine", "channels_only")

    def _epsilon(self) -> float:
        return float(self.eps)

    def _has(self) -> tuple[bool, bool]:
        return bool(self.elementwise_affine), bool(self.elementwise_affine and self.bias)

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        only = pick((True, False))
        options = {"elementwise_affine": pick((True, True, False)), "bias": pick((True, True, False))}
        return cls(eps=pick((1e-5, 0.1)), channels_only=only, **options), [cls._shape(pick, only)]


@dataclass(frozen=True, eq=False, repr=False)
class RMSNorm(_LayerNorm):
    """Each image by the root of the mean square of all its values, as ``torch.nn.RMSNorm`` (Zhang, Sennrich 2019):
    y = weight * x / sqrt(mean of x^2 + eps), with a weight for each value.

    Parameters
    ----------
    eps : float, optional
        None: the spacing of float32 at 1, as in PyTorch.
    elementwise_affine : bool
        Whether there are weights.
    channels_only : bool
        Instead each pixel by its channels, as in `LayerNorm`.
    """

    _: KW_ONLY
    eps: float | None = None
    elementwise_affine: bool = True
    channels_only: bool = False

    kind: ClassVar[str] = "rms_norm"
    centred: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "elementwise_affine", "channels_only")

    def _epsilon(self) -> float:
        return float(np.finfo(np.float32).eps if self.eps is None else self.eps)

    def _has(self) -> tuple[bool, bool]:
        return bool(self.elementwise_affine), False

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        only = pick((True, False))
        layer = cls(eps=pick((None, 0.1)), elementwise_affine=pick((True, True, False)), channels_only=only)
        return layer, [cls._shape(pick, only)]
