"""Convolution. Imported by chaos.layers; the fast half is cext/layers/conv2d.c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Layer, pair, whole


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(Layer):
    """Two-dimensional cross-correlation, as ``torch.nn.Conv2d``; the number of input channels is inferred.

    y[o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] * x[c, i*stride + a - top, j*stride + b - left],
    where x is 0 outside the image. Output size: floor((size + padding before and after - kernel) / stride) + 1.

    Parameters
    ----------
    out_channels : int
    kernel_size, stride : int or (int, int)
        Vertical, horizontal.
    padding : int, (int, int), "same" or "valid"
        Zeros on both sides; "same" keeps the size (stride 1 only; the odd zero of an even kernel comes after, as in
        PyTorch), "valid" is 0.
    bias : bool
    """

    out_channels: int
    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] | str = 0
    bias: bool = True

    kind: ClassVar[str] = "conv2d"
    parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __post_init__(self):
        super().__post_init__()
        whole("Conv2d: out_channels", self.out_channels)
        pair("Conv2d: kernel_size", self.kernel_size)
        pair("Conv2d: stride", self.stride)
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(f"Conv2d: padding must be numbers, 'same' or 'valid', not {self.padding!r}")
            if self.padding == "same" and pair("stride", self.stride) != (1, 1):
                raise ValueError(f"Conv2d: padding='same' needs stride 1, not {self.stride}")
        else:
            pair("Conv2d: padding", self.padding, 0)

    def _pads(self):
        """Zeros (top, bottom, left, right)."""
        if self.padding == "valid":
            return 0, 0, 0, 0
        if self.padding == "same":
            (h, w) = (k - 1 for k in pair("kernel_size", self.kernel_size))
            return h // 2, h - h // 2, w // 2, w - w // 2
        h, w = pair("padding", self.padding, 0)
        return h, h, w, w

    def output_shape(self, *shapes):
        (shape,) = shapes
        if len(shape) != 3:
            raise ValueError(f"{self} needs images (c, h, w), its input has shape {shape}")
        sizes = []
        pads = self._pads()
        for axis, side in enumerate(("height", "width")):
            size, kernel = shape[1 + axis], pair("", self.kernel_size)[axis]
            pad, stride = pads[2 * axis] + pads[2 * axis + 1], pair("", self.stride)[axis]
            if size + pad < kernel:
                raise ValueError(f"{self} does not fit its input of shape {shape}: output {side} = floor(({size} + {pad} "
                                 f"- {kernel}) / {stride}) + 1 < 1")
            sizes.append((size + pad - kernel) // stride + 1)
        return self.out_channels, *sizes

    def core_options(self, *shapes):
        return self.out_channels, (*pair("", self.kernel_size), *pair("", self.stride), *self._pads(), int(self.bias))

    def parameter_shapes(self, *shapes):
        found = {"weight": (self.out_channels, shapes[0][0], *pair("", self.kernel_size))}
        if self.bias:
            found["bias"] = (self.out_channels,)
        return found

    def macs(self, *shapes):
        return int(np.prod(self.output_shape(*shapes)) * np.prod(self.parameter_shapes(*shapes)["weight"][1:]))

    def _patches(self, x):
        """View (n, c, i, j, a, b) of the padded input."""
        top, bottom, left, right = self._pads()
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        sh, sw = pair("", self.stride)
        windows = np.lib.stride_tricks.sliding_window_view(x, pair("", self.kernel_size), axis=(2, 3))
        return windows[:, :, ::sh, ::sw]

    def forward(self, inputs, params):
        y = np.einsum("ncijab,ocab->noij", self._patches(inputs[0]), params["weight"], optimize=True)
        return y + params["bias"][:, None, None] if self.bias else y

    def backward(self, inputs, params, y, dy):
        x, weight = inputs[0], params["weight"]
        grads = {"weight": np.einsum("noij,ncijab->ocab", dy, self._patches(x), optimize=True)}
        if self.bias:
            grads["bias"] = dy.sum((0, 2, 3))
        top, bottom, left, right = self._pads()
        n, c, h, w = x.shape
        frame = np.zeros((n, c, h + top + bottom, w + left + right), dy.dtype)
        (sh, sw), (kh, kw), (oh, ow) = pair("", self.stride), weight.shape[2:], dy.shape[2:]
        for a in range(kh):
            for b in range(kw):
                part = np.einsum("noij,oc->ncij", dy, weight[:, :, a, b])
                frame[:, :, a:a + sh * (oh - 1) + 1:sh, b:b + sw * (ow - 1) + 1:sw] += part
        return [frame[:, :, top:top + h, left:left + w]], grads
