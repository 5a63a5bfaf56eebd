"""Transposed convolutions. Imported by chaos.layers; the fast half is cext/layers/conv_transpose2d.c."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, pair, whole


class _ConvTranspose(Layer):
    """Images, and sequences as images of one row."""

    out_channels: int
    kernel_size: Any
    stride: Any
    padding: Any
    output_padding: Any
    groups: int
    bias: bool
    dilation: Any

    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")
    inferred: ClassVar[str | None] = "in_channels"
    sides: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        whole(f"{kind}: out_channels", self.out_channels)
        whole(f"{kind}: groups", self.groups)
        for option, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1)):
            value = getattr(self, option)
            if len(self.sides) == 1:
                whole(f"{kind}: {option}", value, least)
            else:
                pair(f"{kind}: {option}", value, least)
        if self.out_channels % self.groups:
            raise ValueError(f"{kind}: out_channels={self.out_channels} is no multiple of groups={self.groups}")
        for more, stride, dilation in zip(
            self._both(self.output_padding, 0), self._both(self.stride), self._both(self.dilation), strict=True
        ):
            if more >= max(stride, dilation) and more:
                raise ValueError(
                    f"{kind}: output_padding must be smaller than stride or dilation, not {more} with stride {stride} and "
                    f"dilation {dilation}"
                )

    def _both(self, value: Any, of_one_row: int = 1) -> tuple[int, int]:
        """(vertical, horizontal)"""
        return (of_one_row, value) if len(self.sides) == 1 else pair("", value, 0)

    def _sizes(self, shape: Shape) -> tuple[int, int]:
        """(height, width) of the output"""
        found = []
        dims = (1, shape[1]) if len(self.sides) == 1 else shape[1:]
        for axis, size in enumerate(dims):
            kernel, stride, dilation = (self._both(v)[axis] for v in (self.kernel_size, self.stride, self.dilation))
            pad, more = (self._both(v, 0)[axis] for v in (self.padding, self.output_padding))
            out = (size - 1) * stride - 2 * pad + dilation * (kernel - 1) + more + 1
            if out < 1:
                side = self.sides[axis - 2 + len(self.sides)]
                raise ValueError(
                    f"{self} does not fit its input of shape {shape}: output {side} = ({size} - 1) * {stride} - 2 * {pad} + "
                    f"{dilation} * ({kernel} - 1) + {more} + 1 < 1"
                )
            found.append(out)
        return found[0], found[1]

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != 1 + len(self.sides):
            wanted = "sequences (c, l)" if len(self.sides) == 1 else "images (c, h, w)"
            raise ValueError(f"{self} needs {wanted}, its input has shape {shape}")
        if shape[0] % self.groups:
            raise ValueError(f"{self} on input of shape {shape}: the channels are no multiple of groups={self.groups}")
        return self.out_channels, *self._sizes(shape)[2 - len(self.sides) :]

    def core(self, *shapes: Shape) -> Core:
        (top, left), kernel, stride = self._both(self.padding, 0), self._both(self.kernel_size), self._both(self.stride)
        inner = (*kernel, *stride, top, top, left, left, int(self.bias), *self._both(self.dilation), self.groups, 0, 0, 0, 0)
        return Core("conv_transpose2d", self.out_channels, (*inner, *self._sizes(shapes[0])))

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        kernel = self._both(self.kernel_size)[2 - len(self.sides) :]
        shape = (shapes[0][0], self.out_channels // self.groups, *kernel)
        fan_in = int(np.prod(shape[1:]))  # as PyTorch counts it
        found: dict[str, Trained | State] = {"weight": Trained(shape, fan_in)}
        if self.bias:
            found["bias"] = Trained((self.out_channels,), fan_in)
        return found

    def macs(self, *shapes: Shape) -> int:
        return int(np.prod(shapes[0]) * np.prod(self.parts(*shapes)["weight"].shape[1:]))

    def _images(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], *(1, *x.shape[2:])[-2:])

    def _taps(self, weight: Array, high: int, wide: int) -> Any:
        """(weights [group, input channel, output channel], rows, columns of the output in a frame) of every tap."""
        (kh, kw), (sh, sw), (dh, dw) = (self._both(v) for v in (self.kernel_size, self.stride, self.dilation))
        grouped = weight.reshape(self.groups, -1, self.out_channels // self.groups, kh, kw)
        for a in range(kh):
            for b in range(kw):
                rows, columns = (
                    slice(a * dh, a * dh + sh * (high - 1) + 1, sh),
                    slice(b * dw, b * dw + sw * (wide - 1) + 1, sw),
                )
                yield grouped[..., a, b], rows, columns, (a, b)

    def _frame(self, x: Array) -> tuple[Array, tuple[slice, slice]]:
        """Zeros (n, group, channel, ...) with room for every tap, and where in them the output is."""
        h, w = self._sizes(x.shape[1:])
        rows, columns = (
            (size - 1) * s + d * (k - 1) + 1 + more
            for size, s, d, k, more in zip(
                self._images(x).shape[2:],
                self._both(self.stride),
                self._both(self.dilation),
                self._both(self.kernel_size),
                self._both(self.output_padding, 0),
                strict=True,
            )
        )
        top, left = self._both(self.padding, 0)
        frame = np.zeros((len(x), self.groups, self.out_channels // self.groups, rows, columns), x.dtype)
        return frame, (slice(top, top + h), slice(left, left + w))

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = self._images(inputs[0])
        grouped = x.reshape(len(x), self.groups, -1, *x.shape[2:])
        frame, seen = self._frame(inputs[0])
        for weight, rows, columns, _ in self._taps(parts["weight"], *x.shape[2:]):
            frame[..., rows, columns] += np.einsum("ngcij,gco->ngoij", grouped, weight)
        y: Array = frame[..., *seen].reshape(len(x), *self.output_shape(inputs[0].shape[1:]))
        return y + parts["bias"].reshape(-1, *[1] * (y.ndim - 2)) if self.bias else y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = self._images(inputs[0])
        grouped = x.reshape(len(x), self.groups, -1, *x.shape[2:])
        frame, seen = self._frame(inputs[0])
        frame = frame.astype(dy.dtype)
        frame[..., *seen] = dy.reshape(*frame.shape[:3], *self._sizes(inputs[0].shape[1:]))
        into = np.zeros(grouped.shape, dy.dtype)
        own = np.zeros((self.groups, grouped.shape[2], frame.shape[2], *self._both(self.kernel_size)), dy.dtype)
        for weight, rows, columns, (a, b) in self._taps(parts["weight"], *x.shape[2:]):
            part = frame[..., rows, columns]
            into += np.einsum("ngoij,gco->ngcij", part, weight)
            own[..., a, b] = np.einsum("ngoij,ngcij->gco", part, grouped)
        grads = {"weight": own.reshape(parts["weight"].shape)}
        if self.bias:
            grads["bias"] = dy.sum((0, *range(2, dy.ndim)))
        return [into.reshape(inputs[0].shape)], grads

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        def sides(least: int, most: int) -> Any:
            found = tuple(pick.whole(least, most) for _ in cls.sides)
            return found if len(found) > 1 else found[0]

        groups = pick((1, 1, 1, 2, 3))
        channels, shape = (
            pick(ODD) * groups,
            (pick((1, 2, 3, 5, 16, 17, 20)) * groups, *(pick.whole(1, 7) for _ in cls.sides)),
        )
        if groups > 1 and pick((True, False)):  # depthwise
            channels = groups = shape[0]
        stride, dilation = sides(1, 3), sides(1, 2)
        least = min(np.maximum(stride, dilation).reshape(-1)) - 1
        options = {
            "stride": stride,
            "padding": sides(0, 2),
            "dilation": dilation,
            "output_padding": pick.whole(0, int(least)),
        }
        layer: Layer = cls(channels, sides(1, 4), **options, groups=groups, bias=pick((True, False)))  # type: ignore[call-arg]
        try:
            layer.output_shape(shape)
        except ValueError:  # the padding takes all
            return cls(channels, sides(1, 4), stride=stride, groups=groups), [shape]  # type: ignore[call-arg]
        return layer, [shape]


@dataclass(frozen=True, eq=False, repr=False)
class ConvTranspose1d(_ConvTranspose):
    """As `ConvTranspose2d`, of sequences (channels, length), as ``torch.nn.ConvTranspose1d``; options are single numbers."""

    out_channels: int
    kernel_size: int
    _: KW_ONLY
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    groups: int = 1
    bias: bool = True
    dilation: int = 1

    kind: ClassVar[str] = "conv_transpose1d"
    sides: ClassVar[tuple[str, ...]] = ("length",)


@dataclass(frozen=True, eq=False, repr=False)
class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution, as ``torch.nn.ConvTranspose2d``: what takes the gradient of a convolution's output to
    that of its input (Zeiler et al. 2010, Dumoulin and Visin 2016). The number of input channels is inferred. Options are
    given by name.

    Every x[c, i, j] adds x[c, i, j] * weight[c, o, a, b] to y[o, i*stride + a*dilation - padding, j*stride + b*dilation -
    padding], for the output channels o of its group; bias[o] is added to all. Output size:
    (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1.

    Parameters
    ----------
    out_channels : int
    kernel_size, stride, padding : int or (int, int)
        Vertical, horizontal; so much as `padding` is cut away on both sides.
    output_padding : int or (int, int)
        More rows and columns at the end; smaller than stride or dilation.
    groups : int
        As of `Conv2d`.
    bias : bool
    dilation : int or (int, int)
    """

    out_channels: int
    kernel_size: int | tuple[int, int]
    _: KW_ONLY
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    output_padding: int | tuple[int, int] = 0
    groups: int = 1
    bias: bool = True
    dilation: int | tuple[int, int] = 1

    kind: ClassVar[str] = "conv_transpose2d"
    sides: ClassVar[tuple[str, ...]] = ("height", "width")
