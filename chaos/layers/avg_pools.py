"""Pooling by sums: means, norms, LeCun's subsampling, binomial filters. Imported by chaos.layers; the fast half is
cext/layers/avg_pools.c."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, whole
from .max_pool2d import AdaptivePool, Pool, Size, SlidingPool, check_flag

Matrix = NDArray[np.float64]


def mixed(matrices: tuple[Matrix, Matrix], x: Array) -> Array:
    """rows * x * columns of images (n, c, h, w)."""
    rows, columns = (matrix.astype(x.dtype) for matrix in matrices)
    found: Array = np.einsum("ih,jw,nchw->ncij", rows, columns, x, optimize=True)
    return found


class _Sum(Pool):
    """The definition of pooling by weighted sums, given as matrices by which rows and columns are multiplied."""

    def _matrices(self, shape: Shape) -> tuple[Matrix, Matrix]:
        """Of the windows' means."""
        sizes, found = self._image(shape)[1:], []
        for size, windows in zip(sizes, self._sides(shape), strict=True):
            matrix = np.zeros((len(windows), size))
            for i, window in enumerate(windows):
                matrix[i, window] = 1 / len(window)
            found.append(matrix)
        return found[0], found[1]

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        return self._lowered(mixed(self._matrices(x.shape[1:]), self._lifted(x)))

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        rows, columns = self._matrices(inputs[0].shape[1:])
        return [self._lowered(mixed((rows.T, columns.T), self._lifted(dy)))], {}


@dataclass(frozen=True, eq=False, repr=False)
class _SlidingAvg(_Sum, SlidingPool):
    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self, "count_include_pad")
        if self._divisor() is not None:
            whole(f"{type(self).__name__}: divisor_override", self._divisor())

    def _divisor(self) -> int | None:
        found: int | None = getattr(self, "divisor_override", None)
        return found

    def core(self, *shapes: Shape) -> Core:
        sizes = *self._pair("kernel_size"), *self._steps(), *self._paddings()
        counts = int(bool(getattr(self, "count_include_pad", True)))
        return Core("avg_pool", 0, (*sizes, int(self._rounds_up(shapes[0])), counts, self._divisor() or 0, 0, 0))

    def _matrices(self, shape: Shape) -> tuple[Matrix, Matrix]:
        found = super()._matrices(shape)
        for side, matrix in enumerate(found):
            size, kernel, step = self._image(shape)[1 + side], self._pair("kernel_size")[side], self._steps()[side]
            padding = self._paddings()[side]
            for i in range(len(matrix)):
                begin = i * step - padding
                divisor = min(begin + kernel, size + padding) - begin if getattr(self, "count_include_pad", True) else None
                if self._divisor() is not None:
                    divisor = 1 if side else self._divisor()
                if divisor is not None:
                    matrix[i] = (matrix[i] > 0) / divisor
        return found


@dataclass(frozen=True, eq=False, repr=False)
class AvgPool2d(_SlidingAvg):
    """Mean of each window, as ``torch.nn.AvgPool2d``.

    y[c, i, j] = sum over a, b of x[c, i*stride + a - padding, j*stride + b - padding] / divisor, where x is 0 outside the
    image. Output size: floor((size + 2*padding - kernel) / stride) + 1.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        The kernel size unless given.
    padding : int or (int, int)
        Zeros on both sides, at most half of the kernel size.
    ceil_mode : bool
        Rounds the output size up: windows may reach over the end, but none begins there.
    count_include_pad : bool
        Whether the divisor counts the zeros around the image; never what lies beyond them.
    divisor_override : int, optional
        Divides instead.
    """

    kernel_size: Size
    stride: Size | None = None
    padding: Size = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    kind: ClassVar[str] = "avg_pool2d"

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        options, shape = cls.any_geometry(pick)
        return cls(**options, count_include_pad=pick((True, False)), divisor_override=pick((None, None, 3))), [shape]


@dataclass(frozen=True, eq=False, repr=False)
class AvgPool1d(_SlidingAvg):
    """As `AvgPool2d`, for sequences (channels, length): ``torch.nn.AvgPool1d``."""

    kernel_size: int
    stride: int | None = None
    padding: int = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    kind: ClassVar[str] = "avg_pool1d"
    dims: ClassVar[int] = 1

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        options, shape = cls.any_geometry(pick)
        return cls(**options, count_include_pad=pick((True, False))), [shape]


class _AdaptiveAvg(_Sum, AdaptivePool):
    def core(self, *shapes: Shape) -> Core:
        return Core("avg_pool", 0, (1, 1, 1, 1, 0, 0, 0, 0, 0, *self._counts(shapes[0])))


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveAvgPool2d(_AdaptiveAvg):
    """Mean of each of so many windows over the whole image, as ``torch.nn.AdaptiveAvgPool2d``: window i of n along a side
    holds the entries from floor(i * size / n) up to ceil((i + 1) * size / n).

    Parameters
    ----------
    output_size : int, None, or (int or None, int or None)
        Height and width; None keeps the input's. 1 takes the mean of each channel (global average pooling).
    """

    kind: ClassVar[str] = "adaptive_avg_pool2d"


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveAvgPool1d(_AdaptiveAvg):
    """As `AdaptiveAvgPool2d`, for sequences (channels, length): ``torch.nn.AdaptiveAvgPool1d``."""

    kind: ClassVar[str] = "adaptive_avg_pool1d"
    dims: ClassVar[int] = 1


class _Norm(_Sum, SlidingPool):
    norm_type: float

    def __post_init__(self) -> None:
        super().__post_init__()
        p = self.norm_type
        if isinstance(p, bool) or not isinstance(p, (int, float, np.number)) or not 1 <= p < math.inf:
            raise ValueError(f"{type(self).__name__}: norm_type must be a finite number of at least 1, not {p!r}")

    def core(self, *shapes: Shape) -> Core:
        sizes = *self._pair("kernel_size"), *self._steps()
        return Core("lp_pool", 0, (*sizes, int(self._rounds_up(shapes[0]))), (float(self.norm_type),))

    def _matrices(self, shape: Shape) -> tuple[Matrix, Matrix]:
        rows, columns = super()._matrices(shape)
        high, wide = self._pair("kernel_size")
        return rows * high, columns * wide

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        with np.errstate(invalid="ignore"):
            found: Array = super().forward([inputs[0] ** self.norm_type], parts) ** (1 / self.norm_type)
        return found

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        p = self.norm_type
        if p == 1:
            return super().backward(inputs, parts, y, dy)
        down = y ** (p - 1)
        into, own = super().backward(inputs, parts, y, np.where(down == 0, 0, dy / np.where(down == 0, 1, down)))
        return [into[0] * inputs[0] ** (p - 1)], own

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        options, shape = cls.any_geometry(pick)
        options["norm_type"] = pick((1, 2, 2, 4))  # others want inputs of at least 0
        return cls(**options), [shape]

    def smooth(self, x: Array) -> Array:
        return np.where(np.abs(x) < 0.1, x + np.copysign(0.1, x), x)


@dataclass(frozen=True, eq=False, repr=False)
class LPPool2d(_Norm):
    """The p-norm of each window, (sum of x^p)^(1/p), as ``torch.nn.LPPool2d``: the sum for p = 1; NaN for negative sums, or
    negative inputs where p is no whole number. Where the sum is 0 there is no gradient. A window that reaches over the end
    (ceil_mode) is scaled to the size of a whole one.

    Parameters
    ----------
    norm_type : float
        p, at least 1.
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        The kernel size unless given.
    ceil_mode : bool
        Rounds the output size floor((size - kernel) / stride) + 1 up.
    """

    norm_type: float
    kernel_size: Size
    stride: Size | None = None
    ceil_mode: bool = False

    kind: ClassVar[str] = "lp_pool2d"


@dataclass(frozen=True, eq=False, repr=False)
class LPPool1d(_Norm):
    """As `LPPool2d`, for sequences (channels, length): ``torch.nn.LPPool1d``."""

    norm_type: float
    kernel_size: int
    stride: int | None = None
    ceil_mode: bool = False

    kind: ClassVar[str] = "lp_pool1d"
    dims: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, repr=False)
class Subsampling2d(_Sum, SlidingPool):
    """Mean of windows side by side, times a trained coefficient of each map, plus a trained bias of each map: the
    subsampling layer of LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, section II.B). Begins as average pooling.

    y[c, i, j] = weight[c] * mean over a, b of x[c, i*kernel + a, j*kernel + b] + bias[c].

    Parameters
    ----------
    kernel_size : int or (int, int)
    """

    kernel_size: Size

    kind: ClassVar[str] = "subsampling2d"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def core(self, *shapes: Shape) -> Core:
        return Core("subsampling", 0, self._pair("kernel_size"))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        channels = shapes[0][:1]
        return {"weight": Trained(channels, fill=1.0), "bias": Trained(channels, fill=0.0)}

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        weight, bias = (parts[name][:, None, None] for name in self.part_names)
        return weight * super().forward(inputs, parts) + bias

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        into, _ = super().backward(inputs, parts, y, dy * parts["weight"][:, None, None])
        return into, {"weight": (dy * super().forward(inputs, parts)).sum((0, 2, 3)), "bias": dy.sum((0, 2, 3))}


@dataclass(frozen=True, eq=False, repr=False)
class BlurPool2d(_Sum):
    """Subsampling of each channel behind a fixed binomial filter, which keeps shifts of the input from changing the output
    (Zhang 2019, "Making convolutional networks shift-invariant again"): behind a convolution or pooling of stride 1.

    The filter is the outer product of binomial coefficients over their sum, [1, 3, 3, 1] / 8 for size 4, over an image that
    is continued by (kernel_size - 1) // 2 pixels before and kernel_size // 2 behind. Output size: ceil(size / stride).

    Parameters
    ----------
    kernel_size : int
        At most 32.
    stride : int or (int, int)
    padding_mode : "reflect", "replicate" or "zeros"
        How the image is continued.
    """

    kernel_size: int = 4
    stride: Size = 2
    _: KW_ONLY
    padding_mode: str = "reflect"

    kind: ClassVar[str] = "blur_pool2d"
    modes: ClassVar[tuple[str, ...]] = ("reflect", "replicate", "zeros")

    def __post_init__(self) -> None:
        super().__post_init__()
        if whole("BlurPool2d: kernel_size", self.kernel_size) > 32:
            raise ValueError(f"BlurPool2d: kernel_size must be at most 32, not {self.kernel_size}")
        self._pair("stride")
        if self.padding_mode not in self.modes:
            raise ValueError(
                f"BlurPool2d: padding_mode must be {' or '.join(map(repr, self.modes))}, not {self.padding_mode!r}"
            )

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        _, high, wide = self._image(shape)
        if self.padding_mode == "reflect" and min(high, wide) <= self.kernel_size // 2:
            raise ValueError(
                f"{self} does not fit its input of shape {shape}: reflected are {self.kernel_size // 2} pixels, "
                "which must be less than its height and width"
            )
        return shape[0], *(-(-size // stride) for size, stride in zip((high, wide), self._pair("stride"), strict=True))

    def core(self, *shapes: Shape) -> Core:
        options = whole("", self.kernel_size), *self._pair("stride"), self.modes.index(self.padding_mode)
        return Core("blur_pool", 0, options)

    def _matrices(self, shape: Shape) -> tuple[Matrix, Matrix]:
        k, found = self.kernel_size, []
        mode = {"reflect": "reflect", "replicate": "edge", "zeros": "constant"}[self.padding_mode]
        binomial = np.array([math.comb(k - 1, a) for a in range(k)]) / 2 ** (k - 1)
        for size, stride in zip(shape[1:], self._pair("stride"), strict=True):
            # what the filter makes of each pixel alone
            padded = np.pad(np.eye(size), ((0, 0), ((k - 1) // 2, k // 2)), mode)  # type: ignore[call-overload]
            found.append(np.array([padded[:, i : i + k] @ binomial for i in range(0, size, stride)]))
        return found[0], found[1]

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        kernel, mode = pick((1, 2, 3, 4, 5, 7)), pick(cls.modes)
        least = kernel // 2 + 1 if mode == "reflect" else 1
        sizes = least + pick.whole(0, 6), least + pick.whole(0, 6)
        return cls(kernel, (pick.whole(1, 3), pick.whole(1, 3)), padding_mode=mode), [(pick(ODD), *sizes)]
