"""Layers of the field's networks, one of each geometry. For bench_geometries."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Geometry:
    """A layer as it stands in a network.

    Attributes
    ----------
    network : str
    kind : str
        Name of chaos's and PyTorch's layer.
    shape : tuple
        Of one image.
    out : int
        Maps or features of the output.
    kernel : int
        0: fully connected.
    options : dict
        stride, padding, groups, dilation where they are not 1 and 0.
    """

    network: str
    kind: str
    shape: tuple
    out: int
    kernel: int = 0
    options: dict = field(default_factory=dict)

    @property
    def name(self):
        told = {"stride": "/", "padding": "p", "groups": "g", "dilation": "d"}
        words = [f"{told[key]}{value}" for key, value in self.options.items()]
        what = {"Conv2d": "conv", "Conv1d": "conv1d", "ConvTranspose2d": "transposed", "Linear": "linear"}[self.kind]
        size = f" {self.kernel}x{self.kernel}" if self.kind.endswith("2d") else f" {self.kernel}" * bool(self.kernel)
        return " ".join([f"{what}{size}", *words, f"{self.shape[0]}-{self.out}", *[f"on {self.pixels}"] * bool(self.kernel)])

    @property
    def pixels(self):
        return "x".join(map(str, self.shape[1:]))

    @property
    def batch(self):
        """Images together: eight, fewer where they are large."""
        size = self.shape[0] * self.shape[-1] ** (len(self.shape) - 1)
        return 8 if size <= 1 << 17 else 2


def _conv(network, *rows, kind="Conv2d"):
    return [
        Geometry(network, kind, (maps, *[size] * (int(kind[-2]))), out, kernel, options)
        for maps, size, out, kernel, options in rows
    ]


def _linear(network, *rows):
    return [Geometry(network, "Linear", (wide,), out) for wide, out in rows]


P1, P2, P3, S2 = {"padding": 1}, {"padding": 2}, {"padding": 3}, {"stride": 2}
S2P1 = S2 | P1


def _depthwise(*rows):
    return [(maps, size, maps, 3, (S2 if stride == 2 else {}) | P1 | {"groups": maps}) for maps, size, stride in rows]


GEOMETRIES = [
    *_conv("CHAOS large", (1, 29, 20, 4, {}), (20, 26, 60, 5, {}), (60, 11, 100, 6, {})),
    *_conv("LeNet-5", (1, 32, 6, 5, {}), (6, 14, 16, 5, {})),
    *_linear("LeNet-5", (400, 120), (120, 84), (84, 10)),
    *_linear("MLP", (784, 256), (256, 128)),
    *_conv("AlexNet", (3, 224, 64, 11, {"stride": 4} | P2), (64, 27, 192, 5, P2)),
    *_conv("AlexNet", (192, 13, 384, 3, P1), (384, 13, 256, 3, P1), (256, 13, 256, 3, P1)),
    *_linear("AlexNet", (9216, 4096), (4096, 4096), (4096, 1000)),
    *_conv("VGG-16", (3, 224, 64, 3, P1), (64, 224, 64, 3, P1), (64, 112, 128, 3, P1), (128, 112, 128, 3, P1)),
    *_conv("VGG-16", (128, 56, 256, 3, P1), (256, 56, 256, 3, P1), (256, 28, 512, 3, P1), (512, 28, 512, 3, P1)),
    *_conv("VGG-16", (512, 14, 512, 3, P1)),
    *_conv("ResNet-20", (3, 32, 16, 3, P1), (16, 32, 16, 3, P1), (16, 32, 32, 3, S2P1), (32, 16, 32, 3, P1)),
    *_conv("ResNet-20", (32, 16, 64, 3, S2P1), (64, 8, 64, 3, P1)),
    *_conv("ResNet-50", (3, 224, 64, 7, S2 | P3), (64, 56, 64, 1, {}), (64, 56, 64, 3, P1), (64, 56, 256, 1, {})),
    *_conv("ResNet-50", (256, 56, 64, 1, {}), (256, 56, 512, 1, S2), (128, 56, 128, 3, S2P1), (128, 28, 128, 3, P1)),
    *_conv("ResNet-50", (512, 28, 128, 1, {}), (128, 28, 512, 1, {}), (256, 14, 256, 3, P1), (1024, 14, 256, 1, {})),
    *_conv("ResNet-50", (256, 14, 1024, 1, {}), (512, 7, 512, 3, P1), (2048, 7, 512, 1, {})),
    *_linear("ResNet-50", (2048, 1000)),
    *_conv("MobileNet", (3, 224, 32, 3, S2P1), (32, 112, 64, 1, {}), (64, 56, 128, 1, {}), (512, 14, 512, 1, {})),
    *_conv("MobileNet", (512, 7, 1024, 1, {})),
    *_conv("MobileNet", *_depthwise((32, 112, 1), (64, 112, 2), (128, 56, 1), (512, 14, 1), (1024, 7, 1))),
    *_conv("U-Net", (1, 32, 16, 3, P1), (48, 16, 32, 3, P1), (16, 32, 4, 1, {})),
    *_conv("U-Net", (64, 8, 32, 2, S2), (32, 16, 16, 2, S2), kind="ConvTranspose2d"),
    *_conv("TDNN", (16, 15, 8, 3, {}), (8, 13, 3, 5, {}), kind="Conv1d"),
    *_conv("x-vector TDNN", (24, 200, 512, 5, {}), (512, 196, 512, 3, {"dilation": 2}), kind="Conv1d"),
    *_conv("x-vector TDNN", (512, 192, 512, 3, {"dilation": 3}), (512, 186, 1500, 1, {}), kind="Conv1d"),
]
