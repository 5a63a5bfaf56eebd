"""The networks that are measured, what they are given, and in which batches. For bench_networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """A network and how it is measured.

    Attributes
    ----------
    make : function of the module chaos, giving a network
    told : str
        What it is, in a table.
    ours, theirs : tuple of int
        Batch sizes of training.
    images : int
        How many there are; a multiple of all batch sizes.
    together : int
        Batch size of prediction on all cores.
    slow : bool
        Left out unless it is named.
    """

    make: Callable
    told: str
    ours: tuple = (1, 8, 16, 64)
    theirs: tuple = (1, 16, 64, 256)
    images: int = 1024
    together: int = 64
    slow: bool = False


def _convolutions(chaos, shape, plan, *end):
    """A chain: (maps, kernel, stride, groups) are convolutions with ReLU that keep the size but for the stride, numbers are
    max-poolings."""
    layers = []
    for step in plan:
        if isinstance(step, int):
            layers.append(chaos.MaxPool2d(step))
        else:
            maps, kernel, stride, groups = (*step, *(1, 1)[len(step) - 2 :])
            layers += [chaos.Conv2d(maps, kernel, stride=stride, padding=kernel // 2, groups=groups), chaos.ReLU()]
    net = chaos.Network(shape, [*layers, *end], seed=0)
    net.initialise("kaiming_normal", "zeros", seed=0)
    return net


def conv5x5(chaos):
    return _convolutions(chaos, (3, 32, 32), [(32, 5), 2, (32, 5), 2, (64, 5), 2], chaos.Flatten(), chaos.Linear(10))


def conv3x3(chaos):
    plan = [(32, 3), (32, 3), 2, (64, 3), (64, 3), 2, (128, 3), (128, 3), 2]
    return _convolutions(chaos, (3, 32, 32), plan, chaos.Flatten(), chaos.Linear(10))


def all_convolutional(chaos):
    plan = [(48, 3), (48, 3, 2), (96, 3), (96, 3, 2), (96, 1)]
    return _convolutions(chaos, (3, 32, 32), plan, chaos.Conv2d(10, 1), chaos.AdaptiveAvgPool2d(1), chaos.Flatten())


def separable(chaos):
    plan, before = [(32, 3)], 32
    for maps, stride in ((64, 1), (128, 2), (128, 1), (128, 2)):
        plan += [(before, 3, stride, before), (maps, 1)]
        before = maps
    return _convolutions(chaos, (3, 32, 32), plan, chaos.AdaptiveAvgPool2d(1), chaos.Flatten(), chaos.Linear(10))


def mlp(chaos):
    net = chaos.Network((784,), [chaos.Linear(256), chaos.ReLU(), chaos.Linear(128), chaos.ReLU(), chaos.Linear(10)], seed=0)
    net.initialise("kaiming_normal", "zeros", seed=0)
    return net


def _without(chaos, net, *kinds):
    """The network without layers of these kinds, which give what they get; with its weights."""
    made = {}
    for node, _ in net.nodes():
        sources = [made[source] for source in node.inputs]
        if node.layer is None:
            made[node] = chaos.Input(node.shape)
        elif isinstance(node.layer, kinds):
            made[node] = sources[0]
        else:
            made[node] = node.layer(*sources)
    (start,), (end,) = [made[node] for node, _ in net.nodes() if node.layer is None], net.outputs
    found = chaos.Network(start, made[end], seed=0)
    found.initialise("kaiming_normal", "zeros", seed=0)
    return found


def resnet20_plain(chaos):
    """With residual branches that begin small: without normalisation they would add up."""
    net = _without(chaos, chaos.models.resnet20(), chaos.BatchNorm2d)
    state = net.state_dict()
    net.load_state_dict({name: value * (0.3 if "conv2" in name else 1) for name, value in state.items()})
    return net


def resnet20_imported(chaos):
    """ResNet-20 (He, Zhang, Ren, Sun 2015) as a module of PyTorch's, read by chaos.from_torch."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, into, out):
            super().__init__()
            self.conv1 = nn.Conv2d(into, out, 3, stride=1 if into == out else 2, padding=1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
            self.shortcut = nn.Sequential()
            if into != out:
                self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride=2, bias=False), nn.BatchNorm2d(out))

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
            widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
            self.blocks = nn.Sequential(*map(Block, widths, widths[1:]))
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            return self.linear(self.blocks(torch.relu(self.bn1(self.conv1(x)))).mean((2, 3)))

    torch.manual_seed(0)
    return chaos.from_torch(ResNet(), (3, 32, 32))


def vgg16(chaos):
    return _without(chaos, chaos.models.vgg16(), chaos.Dropout)


PAPER = {"ours": (1, 8, 64), "theirs": (1, 8, 64, 256), "images": 8192}
LARGE = {"ours": (8,), "theirs": (8,), "images": 16, "together": 8, "slow": True}
NETWORKS = {
    "small": Case(lambda chaos: chaos.models.small(), "the CHAOS paper's small network, 29x29x1", **PAPER),
    "medium": Case(lambda chaos: chaos.models.medium(), "the CHAOS paper's medium network, 29x29x1", **PAPER),
    "large": Case(lambda chaos: chaos.models.large(), "the CHAOS paper's large network, 29x29x1", **PAPER),
    "LeNet-5": Case(lambda chaos: chaos.models.lenet5_modern(), "LeNet-5 with max-pooling and ReLU, 32x32x1", images=4096),
    "conv5x5": Case(conv5x5, "5x5 convolutions of 32, 32, 64 maps, max-pooling, 32x32x3"),
    "conv3x3": Case(conv3x3, "3x3 convolutions of 32, 32, 64, 64, 128, 128 maps, max-pooling, 32x32x3"),
    "all-conv": Case(all_convolutional, "all-convolutional, stride 2, 1x1, 48 and 96 maps, 32x32x3"),
    "separable": Case(separable, "depthwise 3x3 and 1x1, 32 to 128 maps, 32x32x3"),
    "ResNet-20 plain": Case(resnet20_plain, "ResNet-20 without normalisation, 32x32x3"),
    "ResNet-20": Case(lambda chaos: chaos.models.resnet20(), "ResNet-20 with batch normalisation, 32x32x3"),
    "ResNet-20 imported": Case(
        resnet20_imported,
        "ResNet-20 with batch normalisation, a module of PyTorch's, 32x32x3",
        ours=(32,),
        theirs=(16, 32, 64, 128),
        slow=True,
    ),
    "MLP": Case(mlp, "784-256-128-10, ReLU", ours=(1, 8, 16, 64, 256), images=8192),
    "TDNN": Case(lambda chaos: chaos.models.tdnn(), "time-delay network, 16x15", ours=(1, 8, 64, 256), images=8192),
    "U-Net": Case(lambda chaos: chaos.models.unet(), "U-Net of 16, 32, 64 maps, 32x32x1", images=256),
    "VGG-16": Case(vgg16, "VGG-16 without dropout, 224x224x3", **LARGE),
    "ResNet-50": Case(lambda chaos: chaos.models.resnet50(), "ResNet-50, 224x224x3", **LARGE),
}


def data(chaos, net, count):
    """(images, labels) for a network: MNIST or CIFAR-10 where that is its shape and they are on this machine, else normal
    numbers and labels by chance.

    Returns
    -------
    float32 (count, *input_shape), int64 (count,) or (count, *map)
    """
    rng = np.random.default_rng(0)
    shape, classes, pixels = net.input_shape, net.output_shape[0], net.output_shape[1:]
    flat = (1, math.isqrt(shape[0]), math.isqrt(shape[0])) if len(shape) == 1 else shape
    name = {1: "mnist", 3: "cifar10"}.get(flat[0]) if len(flat) == 3 and flat[1] <= 32 and not pixels else None
    if name:
        try:
            train, _ = chaos.data.load(name, size=flat[1], download=False)
            use = rng.permutation(len(train))[:count]
            x = train.images[use].astype(np.float32) / np.float32(127.5) - 1
            return np.ascontiguousarray(x.reshape(count, *shape)), train.labels[use]
        except chaos.DataError:
            pass
    x = rng.standard_normal((count, *shape)).astype(np.float32)
    return x, rng.integers(0, classes, (count, *pixels))
