"""Convolution. Imported by chaos.layers; the fast half is cext/layers/conv2d.c."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from .base import (
    EVALUATION,
    ODD,
    Array,
    Arrays,
    Context,
    Core,
    Layer,
    Parts,
    Shape,
    State,
    Trained,
    channels_first,
    pair,
    whole,
)

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
MODES = tuple(NUMPY_MODES)  # as the core counts them

MOST_CONNECTIONS = 1457  # bits in whole options of the core: (MAX_WHOLE of cext/layers/layer.h - 16) words of 31, but one

# Of each map of LeNet-5's layer C3 the maps of S2 that it sees (LeCun et al. 1998, table 1).
LENET5_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


def check_mode(kind: str, mode: Any) -> None:
    if mode not in MODES:
        raise ValueError(f"{kind}: padding_mode must be one of {', '.join(MODES)}, not {mode!r}")


def check_border(layer: Layer, shape: Shape, side: str, mode: str, size: int, pads: tuple[int, ...]) -> None:
    most = {"reflect": size - 1, "circular": size}.get(mode)
    if most is not None and max(pads) > most:
        raise ValueError(
            f"{layer} on input of shape {shape}: {mode} padding of {max(pads)} is wider than its {side} of {size} gives; "
            f"at most {most}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(Layer):
    """Two-dimensional cross-correlation, as ``torch.nn.Conv2d``; the number of input channels is inferred. Options are given
    by name.

    y[o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] * x[c, i*stride + a*dilation - top, j*stride + b*dilation -
    left], where x is 0 outside the image (or what `padding_mode` says) and c runs over the channels of o's group. Output
    size: floor((size + padding before and after - dilation * (kernel - 1) - 1) / stride) + 1.

    Parameters
    ----------
    out_channels : int
    kernel_size, stride : int or (int, int)
        Vertical, horizontal.
    padding : int, (int, int), (int, int, int, int), "same" or "valid"
        On both sides, or (top, bottom, left, right); "same" keeps the size (stride 1 only; the odd one of an even kernel
        comes after, as in PyTorch), "valid" is 0.
    dilation : int or (int, int)
        Distance between the entries of the kernel.
    groups : int
        The channels are divided into this many groups, each with a convolution of its own; as many groups as channels give
        a depthwise convolution.
    bias : bool
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        Zeros, the mirror image (without the edge itself), the edge, or the other side of the image.
    connection_table : sequence of sequences of int, optional
        Of each output channel the input channels that it sees, such as `chaos.layers.LENET5_TABLE`; all of them unless
        given. The weight has shape (connections, kernel height, kernel width) then, output by output with their inputs
        ascending; what is not connected has no weights. Without groups only.
    """

    out_channels: int
    kernel_size: int | tuple[int, int]
    _: KW_ONLY
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] | tuple[int, int, int, int] | str = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True
    padding_mode: str = "zeros"
    connection_table: Sequence[Sequence[int]] | None = None

    kind: ClassVar[str] = "conv2d"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")
    inferred: ClassVar[str | None] = "in_channels"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("Conv2d: out_channels", self.out_channels)
        pair("Conv2d: kernel_size", self.kernel_size)
        pair("Conv2d: stride", self.stride)
        pair("Conv2d: dilation", self.dilation)
        if self.out_channels % whole("Conv2d: groups", self.groups):
            raise ValueError(f"Conv2d: out_channels={self.out_channels} is no multiple of groups={self.groups}")
        check_mode("Conv2d", self.padding_mode)
        if self.connection_table is not None:
            self._check_table()
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(f"Conv2d: padding must be numbers, 'same' or 'valid', not {self.padding!r}")
            if self.padding == "same" and pair("stride", self.stride) != (1, 1):
                raise ValueError(f"Conv2d: padding='same' needs stride 1, not {self.stride}")
        elif isinstance(self.padding, (tuple, list)) and len(self.padding) == 4:
            for width in self.padding:
                whole("Conv2d: padding", width, 0)
        elif isinstance(self.padding, (tuple, list)) and len(self.padding) != 2:
            raise ValueError(
                "Conv2d: padding must be one number, (vertical, horizontal) or (top, bottom, left, right), "
                f"not {self.padding!r}"
            )
        else:
            pair("Conv2d: padding", self.padding, 0)

    def _check_table(self) -> None:
        try:
            table = [[whole("", i, 0) for i in seen] for seen in self.connection_table or ()]
        except (TypeError, ValueError):
            table = []
        if len(table) != self.out_channels or not all(seen and len(set(seen)) == len(seen) for seen in table):
            raise ValueError(
                f"Conv2d: connection_table must hold, for each of the {self.out_channels} output channels, one or more "
                f"different numbers of input channels, not {self.connection_table!r}"
            )
        if self.groups != 1:
            raise ValueError(f"Conv2d: connection_table needs groups=1, not {self.groups}")

    def _connected(self, channels: int) -> Array:
        """Whether (output channel, input channel) are connected."""
        found = np.ones((self.out_channels, channels // self.groups), bool)
        if self.connection_table is not None:
            for row, seen in zip(found, self.connection_table, strict=True):
                row[:] = np.isin(np.arange(channels), seen)
        return found

    def _pads(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right)"""
        if self.padding == "valid":
            return 0, 0, 0, 0
        if self.padding == "same":
            h, w = ((k - 1) * d for k, d in zip(pair("", self.kernel_size), pair("", self.dilation), strict=True))
            return h // 2, h - h // 2, w // 2, w - w // 2
        if isinstance(self.padding, (tuple, list)) and len(self.padding) == 4:
            top, bottom, left, right = self.padding
            return top, bottom, left, right
        h, w = pair("padding", self.padding, 0)
        return h, h, w, w

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != 3:
            raise ValueError(f"{self} needs images (c, h, w), its input has shape {shape}")
        if shape[0] % self.groups:
            raise ValueError(f"{self} on input of shape {shape}: the channels are no multiple of groups={self.groups}")
        if self.connection_table is not None:
            if max(map(max, self.connection_table)) >= shape[0]:
                raise ValueError(
                    f"{self} on input of shape {shape}: its connection_table names more than {shape[0]} channels"
                )
            if self.out_channels * shape[0] > MOST_CONNECTIONS:
                raise ValueError(
                    f"{self} on input of shape {shape}: a connection_table may have {MOST_CONNECTIONS} places, not "
                    f"{self.out_channels} x {shape[0]}"
                )
        sizes = []
        pads = self._pads()
        for axis, side in enumerate(("height", "width")):
            size, kernel = shape[1 + axis], pair("", self.kernel_size)[axis]
            pad, stride = pads[2 * axis] + pads[2 * axis + 1], pair("", self.stride)[axis]
            check_border(self, shape, side, self.padding_mode, size, pads[2 * axis : 2 * axis + 2])
            reach = pair("", self.dilation)[axis] * (kernel - 1) + 1
            if size + pad < reach:
                raise ValueError(
                    f"{self} does not fit its input of shape {shape}: output {side} = floor(({size} + {pad} "
                    f"- {reach}) / {stride}) + 1 < 1{channels_first(shape)}"
                )
            sizes.append((size + pad - reach) // stride + 1)
        return self.out_channels, *sizes

    def core(self, *shapes: Shape) -> Core:
        options: tuple[int, ...] = (
            *pair("", self.kernel_size),
            *pair("", self.stride),
            *self._pads(),
            int(self.bias),
            *pair("", self.dilation),
            self.groups,
            MODES.index(self.padding_mode),
        )
        if self.connection_table is not None:
            bits = self._connected(shapes[0][0]).reshape(-1)
            words = (sum(1 << int(i) for i in np.flatnonzero(bits[k : k + 31])) for k in range(0, len(bits), 31))
            options = (*options, 0, 0, 1, *words)  # behind the sizes of the output, which follow from the others
        return Core("conv2d", self.out_channels, options)

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        shape: tuple[int, ...] = (self.out_channels, shapes[0][0] // self.groups, *pair("", self.kernel_size))
        fan_in = int(np.prod(shape[1:]))
        if self.connection_table is not None:
            connections = int(self._connected(shapes[0][0]).sum())
            shape = (connections, *shape[2:])
            fan_in = max(1, connections * int(np.prod(shape[1:])) // self.out_channels)  # on average
        found: dict[str, Trained | State] = {"weight": Trained(shape, fan_in)}
        if self.bias:
            found["bias"] = Trained((self.out_channels,), fan_in)
        return found

    def macs(self, *shapes: Shape) -> int:
        kernels = int(self._connected(shapes[0][0]).sum())
        return int(np.prod(self.output_shape(*shapes)[1:]) * kernels * np.prod(pair("", self.kernel_size)))

    def _patches(self, x: Array) -> Array:
        """View (n, group, c, i, j, a, b) of the padded input."""
        top, bottom, left, right = self._pads()
        mode: Any = NUMPY_MODES[self.padding_mode]
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), mode)
        (sh, sw), (dh, dw), (kh, kw) = (pair("", v) for v in (self.stride, self.dilation, self.kernel_size))
        reach = (kh - 1) * dh + 1, (kw - 1) * dw + 1
        windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
        return windows.reshape(len(x), self.groups, -1, *windows.shape[2:])

    def _grouped(self, weight: Array, channels: int) -> Array:
        if self.connection_table is not None:
            found = np.zeros((self.out_channels, channels, *weight.shape[1:]), weight.dtype)
            found[self._connected(channels)] = weight
            weight = found
        return weight.reshape(self.groups, -1, *weight.shape[1:])

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        x = inputs[0]
        weight = self._grouped(parts["weight"], x.shape[1])
        y: Array = np.einsum("ngcijab,gocab->ngoij", self._patches(x), weight, optimize=True)
        y = y.reshape(len(y), self.out_channels, *y.shape[3:])
        return y + parts["bias"][:, None, None] if self.bias else y

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        x = inputs[0]
        weight = self._grouped(parts["weight"], x.shape[1])
        grouped = dy.reshape(len(dy), self.groups, -1, *dy.shape[2:])
        own = np.einsum("ngoij,ngcijab->gocab", grouped, self._patches(x), optimize=True)
        own = own.reshape(self.out_channels, *own.shape[2:])
        grads = {"weight": own if self.connection_table is None else own[self._connected(x.shape[1])]}
        if self.bias:
            grads["bias"] = dy.sum((0, 2, 3))
        taps = (
            (a, b, np.einsum("ngoij,goc->ngcij", grouped, weight[..., a, b]).reshape(len(x), x.shape[1], *dy.shape[2:]))
            for a in range(weight.shape[3])
            for b in range(weight.shape[4])
        )
        return [self._joined(x.shape, dy, taps)], grads

    def _joined(self, shape: Shape, dy: Array, taps: Iterable[tuple[int, int, Array]]) -> Array:
        """The gradient of inputs of `shape` from what every entry (row, column) of the kernel sends to all pixels."""
        top, bottom, left, right = self._pads()
        n, c, h, w = shape
        (sh, sw), (dh, dw), (oh, ow) = pair("", self.stride), pair("", self.dilation), dy.shape[2:]
        frame = np.zeros((n, c, h + top + bottom, w + left + right), dy.dtype)
        for a, b, part in taps:
            rows, columns = (
                slice(k * d, k * d + s * (size - 1) + 1, s) for k, d, s, size in ((a, dh, sh, oh), (b, dw, sw, ow))
            )
            frame[..., rows, columns] += part
        if self.padding_mode == "zeros":
            return frame[:, :, top : top + h, left : left + w]
        mode: Any = NUMPY_MODES[self.padding_mode]
        at: Any = np.pad(np.arange(h), (top, bottom), mode)[:, None], np.pad(np.arange(w), (left, right), mode)
        dx = np.zeros(shape, dy.dtype)
        np.add.at(dx, (slice(None), slice(None), *at), frame)
        return dx

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        kernel, groups = (pick.whole(1, 5), pick.whole(1, 5)), pick((1, 1, 1, 2, 3, 5))
        dilation = pick((1, 1, 1, 2, (1, 3), (2, 1)))
        if pick((True, False)):
            padding, stride = pick(("same", "valid")), (1, 1)
        else:
            padding, stride = (pick.whole(0, 2), pick.whole(0, 2)), (pick.whole(1, 3), pick.whole(1, 3))
            if pick((True, False, False)):
                padding = (*padding, pick.whole(0, 3), pick.whole(0, 3))
        mode = pick(("zeros", "zeros", *MODES[1:]))
        shape = (pick((1, 2, 3, 4, 5, 16, 17, 20)) * groups, pick.whole(5, 11), pick.whole(5, 11))
        channels = pick(ODD) * groups
        if groups > 1 and pick((True, False)):  # depthwise
            channels = groups = shape[0]
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
        if groups == 1 and channels * shape[0] <= MOST_CONNECTIONS and pick((True, False, False, False)):
            seen = [sorted({pick.whole(0, shape[0] - 1) for _ in range(3)}) for _ in range(channels)]
            options["connection_table"] = seen
        layer = cls(channels, kernel, **options, bias=pick((True, False)))
        try:
            layer.output_shape(shape)
        except ValueError:  # the dilated kernel or its border is too large
            return cls(channels, (1, 2), groups=groups), [shape]
        return layer, [shape]
