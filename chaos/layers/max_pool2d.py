"""Max-pooling, and what all pooling layers have in common. Imported by chaos.layers; the fast half is
cext/layers/max_pool2d.c."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, channels_first, pair, whole

Size = int | tuple[int, int]
Windows = list[Array]  # for each window the entries that it holds, along one axis


@dataclass(frozen=True, eq=False, repr=False)
class Pool(Layer):
    """A layer whose outputs are made of windows of an image (c, h, w), or with `dims` = 1 of a sequence (c, l), seen as an
    image of one row."""

    dims: ClassVar[int] = 2

    def _pair(self, option: str, least: int = 1, of_rows: int = 1) -> tuple[int, int]:
        """An option as (vertical, horizontal), `of_rows` being what it is for the one row of a sequence."""
        value, what = getattr(self, option), f"{type(self).__name__}: {option}"
        return pair(what, value, least) if self.dims == 2 else (of_rows, whole(what, value, least))

    def _image(self, shape: Shape) -> Shape:
        """The shape of the input as (c, h, w); ValueError where it is no input for this layer."""
        if len(shape) != self.dims + 1:
            wanted = "images (c, h, w)" if self.dims == 2 else "sequences (c, l)"
            raise ValueError(f"{self} needs {wanted}, its input has shape {shape}")
        return shape if self.dims == 2 else (shape[0], 1, shape[1])

    def _sides(self, shape: Shape) -> tuple[Windows, Windows]:
        """The windows of rows and of columns of an image of that shape."""
        raise TypeError(f"{type(self).__name__} has no windows")

    def _lifted(self, x: Array) -> Array:
        return x if self.dims == 2 else x[:, :, None]

    def _lowered(self, x: Array) -> Array:
        return x if self.dims == 2 else x[:, :, 0]


def check_flag(layer: Layer, name: str) -> None:
    if not isinstance(getattr(layer, name), (bool, np.bool_)):
        raise ValueError(f"{type(layer).__name__}: {name} must be True or False, not {getattr(layer, name)!r}")


@dataclass(frozen=True, eq=False, repr=False)
class SlidingPool(Pool):
    """Windows of one size at equal distances: for the kinds whose options are kernel_size and stride, and perhaps padding,
    dilation and ceil_mode."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kernels, paddings = self._pair("kernel_size"), self._paddings()
        self._steps(), self._dilations()
        if hasattr(self, "ceil_mode"):
            check_flag(self, "ceil_mode")
        for kernel, padding in zip(kernels, paddings, strict=True):
            if padding > kernel // 2:
                raise ValueError(
                    f"{type(self).__name__}: padding={padding} must be at most half of the kernel size {kernel}"
                )

    def _steps(self) -> tuple[int, int]:
        return self._pair("kernel_size" if getattr(self, "stride", None) is None else "stride")

    def _paddings(self) -> tuple[int, int]:
        return self._pair("padding", 0, 0) if hasattr(self, "padding") else (0, 0)

    def _dilations(self) -> tuple[int, int]:
        return self._pair("dilation") if hasattr(self, "dilation") else (1, 1)

    def _count(self, shape: Shape, side: int, ceil: bool | None = None) -> int:
        """The number of windows along one side of the image; ValueError where none fits. `ceil` instead of ceil_mode."""
        size, kernel, stride = self._image(shape)[1 + side], self._pair("kernel_size")[side], self._steps()[side]
        padding, reach = self._paddings()[side], self._dilations()[side] * (kernel - 1) + 1
        ceil = bool(getattr(self, "ceil_mode", False)) if ceil is None else ceil
        count = (size + 2 * padding - reach + (stride - 1 if ceil else 0)) // stride + 1
        if count < 1:
            around = f" + {2 * padding}" if padding else ""
            rounded = "ceil" if ceil else "floor"
            raise ValueError(
                f"{self} does not fit its input of shape {shape}: {rounded}(({size}{around} - {reach}) / {stride}) + 1 < 1"
                f"{channels_first(shape)}"
            )
        if ceil and (count - 1) * stride >= size + padding:
            count -= 1  # no window begins in the padding behind
        return count

    def _rounds_up(self, shape: Shape) -> bool:
        """Whether ceil_mode makes a difference; where it does not, the core has faster loops."""
        if not getattr(self, "ceil_mode", False):
            return False
        try:
            return any(self._count(shape, side) != self._count(shape, side, False) for side in (0, 1))
        except ValueError:
            return True

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        self._image(shape)
        counts = self._count(shape, 0), self._count(shape, 1)
        return (shape[0], *counts[2 - self.dims :])

    def _sides(self, shape: Shape) -> tuple[Windows, Windows]:
        found: tuple[Windows, Windows] = [], []
        for side, into in enumerate(found):
            size, kernel, padding = self._image(shape)[1 + side], self._pair("kernel_size")[side], self._paddings()[side]
            taps = np.arange(kernel) * self._dilations()[side] - padding
            for i in range(self._count(shape, side)):
                at = taps + i * self._steps()[side]
                into.append(at[(at >= 0) & (at < size)])
        return found

    @classmethod
    def any_geometry(cls, pick: Any) -> tuple[dict[str, Any], Shape]:
        """Options and a shape of the input, for `example`."""
        fields = cls.__dataclass_fields__
        kernels = [pick.whole(1, 4), pick.whole(1, 4)]
        options: dict[str, Any] = {"kernel_size": kernels}
        if "stride" in fields:
            options["stride"] = pick((None, [pick.whole(1, 4), pick.whole(1, 4)]))
        dilations = [1, 1]
        if "dilation" in fields:
            options["dilation"] = dilations = pick(([1, 1], [1, 1], [pick.whole(1, 2), pick.whole(1, 3)]))
        reaches = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(kernels, dilations, strict=True)]
        paddings = [0, 0]
        if "padding" in fields:
            options["padding"] = paddings = pick(([0, 0], [pick.whole(0, kernel // 2) for kernel in kernels]))
        if "ceil_mode" in fields:
            options["ceil_mode"] = pick((False, True))
        # from the smallest image that holds a window, in whose padding no window of entries far apart is lost
        over = [stride - 1 if options.get("ceil_mode") else 0 for stride in options.get("stride") or kernels]
        least = [
            reach if dilation > 1 else max(1, reach - 2 * padding - more)
            for reach, padding, dilation, more in zip(reaches, paddings, dilations, over, strict=True)
        ]
        sizes = [size + pick((0, 1, pick.whole(0, 8))) for size in least]
        if cls.dims == 1:
            options = {k: v[1] if isinstance(v, list) else v for k, v in options.items()}
            sizes = sizes[1:]
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return options, (pick(ODD), *sizes)

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        options, shape = cls.any_geometry(pick)
        return cls(**options), [shape]


@dataclass(frozen=True, eq=False, repr=False)
class AdaptivePool(Pool):
    """So many windows as `output_size` says, over the whole input: window i of n holds the entries from floor(i * size / n)
    up to ceil((i + 1) * size / n)."""

    output_size: int | None | tuple[int | None, int | None]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts((1,) * (self.dims + 1))

    def _counts(self, shape: Shape) -> tuple[int, int]:
        """The number of windows of rows and columns."""
        given, what = self.output_size, f"{type(self).__name__}: output_size"
        if self.dims == 1:
            return 1, whole(what, given)
        both = tuple(given) if isinstance(given, (tuple, list)) else (given, given)
        if len(both) != 2:
            raise ValueError(f"{what} must be one number or (height, width), not {given!r}")
        high, wide = (size if n is None else whole(what, n) for n, size in zip(both, shape[-2:], strict=True))
        return high, wide

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        self._image(shape)
        return (shape[0], *self._counts(shape)[2 - self.dims :])

    def _sides(self, shape: Shape) -> tuple[Windows, Windows]:
        high, wide = self._counts(shape)
        _, h, w = self._image(shape)
        return adaptive_windows(h, high), adaptive_windows(w, wide)

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        sizes = [pick.whole(1, 9) for _ in range(cls.dims)]
        outputs = tuple(pick((1, 1, None if cls.dims == 2 else 2, size, pick.whole(1, 5))) for size in sizes)
        return cls(outputs if cls.dims == 2 else outputs[0]), [(pick(ODD), *sizes)]


def adaptive_windows(size: int, count: int) -> Windows:
    return [np.arange(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def largest(x: Array, rows: Windows, columns: Windows) -> tuple[Array, Array]:
    """The largest entry of each window of images (n, c, h, w), and its place y * w + x, of the first of equals; 0 and -1 of
    an empty window."""
    y = np.zeros((*x.shape[:2], len(rows), len(columns)), x.dtype)
    won = np.full(y.shape, -1)
    for i, at_y in enumerate(rows):
        for j, at_x in enumerate(columns):
            if len(at_y) and len(at_x):
                window = x[:, :, at_y[:, None], at_x].reshape(*x.shape[:2], -1)
                y[:, :, i, j] = window.max(-1)
                won[:, :, i, j] = (at_y[:, None] * x.shape[3] + at_x).ravel()[window.argmax(-1)]
    return y, won


def to_winners(dy: Array, won: Array, shape: Shape) -> Array:
    """The gradient of images of that shape, whose entries at the places `won` have that of the outputs; -1: none."""
    n, c = np.indices(shape[:2])[:, :, :, None]
    dx = np.zeros((*shape[:2], shape[2] * shape[3] + 1), dy.dtype)
    np.add.at(dx, (n, c, won.reshape(*shape[:2], -1)), dy.reshape(*shape[:2], -1))
    return dx[:, :, :-1].reshape(shape)


class _Max(Pool):
    """The definition of pooling by maxima."""

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        return self._lowered(largest(self._lifted(x), *self._sides(x.shape[1:]))[0])

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = self._lifted(inputs[0])
        won = largest(x, *self._sides(inputs[0].shape[1:]))[1]
        return [self._lowered(to_winners(self._lifted(dy), won, x.shape))], {}


@dataclass(frozen=True, eq=False, repr=False)
class _SlidingMax(_Max, SlidingPool):
    def output_shape(self, *shapes: Shape) -> Shape:
        found = super().output_shape(*shapes)
        if max(self._dilations()) > 1 and not all(len(window) for side in self._sides(shapes[0]) for window in side):
            raise ValueError(f"{self} on input of shape {shapes[0]}: a window would hold nothing but padding")
        return found

    def core(self, *shapes: Shape) -> Core:
        options = *self._pair("kernel_size"), *self._steps(), *self._paddings(), *self._dilations()
        return Core("max_pool2d", 0, (*options, int(self._rounds_up(shapes[0])), 0, 0))


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool2d(_SlidingMax):
    """Largest value of each window, as ``torch.nn.MaxPool2d``; indices are not returned.

    y[c, i, j] = max over a, b of x[c, i*stride + a*dilation - padding, j*stride + b*dilation - padding], of what lies inside
    the image; the gradient goes to the first of equal maxima. Output size:
    floor((size + 2*padding - dilation*(kernel - 1) - 1) / stride) + 1.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        The kernel size unless given.
    padding : int or (int, int)
        On both sides, at most half of the kernel size.
    dilation : int or (int, int)
        Distance of the entries of a window.
    ceil_mode : bool
        Rounds the output size up: windows may reach over the end, but none begins there.
    """

    kernel_size: Size
    stride: Size | None = None
    padding: Size = 0
    dilation: Size = 1
    _: KW_ONLY
    ceil_mode: bool = False

    kind: ClassVar[str] = "max_pool2d"


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool1d(_SlidingMax):
    """As `MaxPool2d`, for sequences (channels, length): ``torch.nn.MaxPool1d``."""

    kernel_size: int
    stride: int | None = None
    padding: int = 0
    dilation: int = 1
    _: KW_ONLY
    ceil_mode: bool = False

    kind: ClassVar[str] = "max_pool1d"
    dims: ClassVar[int] = 1


class _AdaptiveMax(_Max, AdaptivePool):
    def core(self, *shapes: Shape) -> Core:
        (_, h, w), (high, wide) = self._image(shapes[0]), self._counts(shapes[0])
        if h % high == 0 and w % wide == 0:  # windows side by side
            sizes = h // high, w // wide
            return Core("max_pool2d", 0, (*sizes, *sizes, 0, 0, 1, 1, 0, 0, 0))
        return Core("max_pool2d", 0, (1, 1, 1, 1, 0, 0, 1, 1, 0, high, wide))


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveMaxPool2d(_AdaptiveMax):
    """Largest value of each of so many windows over the whole image, as ``torch.nn.AdaptiveMaxPool2d``: window i of n along
    a side holds the entries from floor(i * size / n) up to ceil((i + 1) * size / n).

    Parameters
    ----------
    output_size : int, None, or (int or None, int or None)
        Height and width; None keeps the input's. 1 takes the largest value of each channel.
    """

    kind: ClassVar[str] = "adaptive_max_pool2d"


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveMaxPool1d(_AdaptiveMax):
    """As `AdaptiveMaxPool2d`, for sequences (channels, length): ``torch.nn.AdaptiveMaxPool1d``."""

    kind: ClassVar[str] = "adaptive_max_pool1d"
    dims: ClassVar[int] = 1
