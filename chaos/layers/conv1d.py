"""One-dimensional convolution. Imported by chaos.layers; computed as a convolution of images of one row."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from .base import EVALUATION, ODD, Array, Arrays, Context, Core, Layer, Parts, Shape, State, Trained, pair, whole
from .conv2d import MODES, Conv2d, check_border, check_mode


@dataclass(frozen=True, eq=False, repr=False)
class Conv1d(Layer):
    """Cross-correlation of sequences (channels, length), as ``torch.nn.Conv1d``; the number of input channels is inferred.
    Options are given by name.

    y[o, i] = bias[o] + sum over c, a of weight[o, c, a] * x[c, i*stride + a*dilation - left], where x is 0 outside the
    sequence, or what `padding_mode` says, and c runs over the channels of o's group. Output length:
    floor((length + padding before and after - dilation * (kernel - 1) - 1) / stride) + 1.

    Parameters
    ----------
    out_channels, kernel_size, stride : int
    padding : int, (int, int), "same" or "valid"
        At both ends, or (before, behind); "same" keeps the length (stride 1 only), "valid" is 0.
    dilation, groups : int
    bias : bool
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        As of `Conv2d`.
    """

    out_channels: int
    kernel_size: int
    _: KW_ONLY
    stride: int = 1
    padding: int | tuple[int, int] | str = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    padding_mode: str = "zeros"

    kind: ClassVar[str] = "conv1d"
    part_names: ClassVar[tuple[str, ...]] = ("weight", "bias")
    inferred: ClassVar[str | None] = "in_channels"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("out_channels", "kernel_size", "stride", "dilation", "groups"):
            whole(f"Conv1d: {option}", getattr(self, option))
        check_mode("Conv1d", self.padding_mode)
        if isinstance(self.padding, (tuple, list)) and len(self.padding) != 2:
            raise ValueError(f"Conv1d: padding must be one number or (before, behind), not {self.padding!r}")
        if not isinstance(self.padding, str):
            pair("Conv1d: padding", self.padding, 0)
        if self.out_channels % self.groups:
            raise ValueError(f"Conv1d: out_channels={self.out_channels} is no multiple of groups={self.groups}")
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(f"Conv1d: padding must be a number, 'same' or 'valid', not {self.padding!r}")
            if self.padding == "same" and self.stride != 1:
                raise ValueError(f"Conv1d: padding='same' needs stride 1, not {self.stride}")

    def _rows(self) -> Conv2d:
        """The convolution of images of one row."""
        padding = self.padding if isinstance(self.padding, str) else (0, 0, *pair("", self.padding, 0))
        return Conv2d(
            self.out_channels,
            (1, self.kernel_size),
            stride=(1, self.stride),
            padding=padding,
            dilation=(1, self.dilation),
            groups=self.groups,
            bias=self.bias,
            padding_mode=self.padding_mode,
        )

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != 2:
            raise ValueError(f"{self} needs sequences (c, l), its input has shape {shape}")
        if shape[0] % self.groups:
            raise ValueError(f"{self} on input of shape {shape}: the channels are no multiple of groups={self.groups}")
        _, _, left, right = self._rows()._pads()
        check_border(self, shape, "length", self.padding_mode, shape[1], (left, right))
        reach = self.dilation * (self.kernel_size - 1) + 1
        if shape[1] + left + right < reach:
            raise ValueError(
                f"{self} does not fit its input of shape {shape}: output length = floor(({shape[1]} + {left + right} "
                f"- {reach}) / {self.stride}) + 1 < 1"
            )
        return self.out_channels, (shape[1] + left + right - reach) // self.stride + 1

    def core(self, *shapes: Shape) -> Core:
        return self._rows().core()

    def parts(self, *shapes: Shape) -> dict[str, Trained | State]:
        found = self._rows().parts((shapes[0][0], 1, shapes[0][1]))
        shape = found["weight"].shape
        found["weight"] = Trained((*shape[:2], self.kernel_size), shape[1] * self.kernel_size)
        return found

    def macs(self, *shapes: Shape) -> int:
        return self._rows().macs((shapes[0][0], 1, shapes[0][1]))

    def _lifted(self, inputs: Arrays, parts: Parts) -> tuple[Arrays, Parts]:
        return [inputs[0][:, :, None]], parts | {"weight": parts["weight"][:, :, None]}

    def forward(self, inputs: Arrays, parts: Parts, context: Context = EVALUATION) -> Array:
        return self._rows().forward(*self._lifted(inputs, parts))[:, :, 0]

    def backward(
        self, inputs: Arrays, parts: Parts, y: Array, dy: Array, context: Context = EVALUATION
    ) -> tuple[Arrays, Parts]:
        into, own = self._rows().backward(*self._lifted(inputs, parts), y[:, :, None], dy[:, :, None])
        return [into[0][:, :, 0]], own | {"weight": own["weight"][:, :, 0]}

    @classmethod
    def example(cls, pick: Any) -> tuple[Layer, list[Shape]]:
        groups, kernel = pick((1, 1, 2, 3)), pick((1, 2, 3, 5, 9, 17))
        padding, stride = pick((("same", 1), ("valid", 1), (0, 1), (2, 3), (1, 2), ((0, 3), 2)))
        shape = (pick((1, 2, 3, 5, 16, 17)) * groups, pick.whole(17, 40))
        options = {"stride": stride, "padding": padding, "groups": groups, "padding_mode": pick(("zeros", *MODES))}
        return cls(pick(ODD) * groups, kernel, **options, dilation=pick((1, 1, 2)) if kernel < 9 else 1), [shape]
