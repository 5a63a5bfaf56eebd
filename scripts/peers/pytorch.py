"""Competitor: eager PyTorch, or torch.compile, on the same network with the same weights. For sides, hogwild, check."""

from __future__ import annotations

import numpy as np

from .chain import chain
from .side import WARM_UP, Side


def torch_twin(config, state):
    """The network as torch.nn.Sequential with the same indices, so that the keys of the state agree.

    Parameters
    ----------
    config : dict
        chaos.Network.config() of a chain of layers with default strides and no padding.
    state : dict of str to ndarray
        chaos.Network.state_dict().
    """
    import torch
    from torch import nn

    makers = {
        "conv2d": lambda layer, w: nn.Conv2d(w.shape[1], w.shape[0], layer["kernel_size"]),
        "linear": lambda layer, w: nn.Linear(w.shape[1], w.shape[0]),
        "max_pool2d": lambda layer, w: nn.MaxPool2d(layer["kernel_size"]),
        "flatten": lambda layer, w: nn.Flatten(),
        "tanh": lambda layer, w: nn.Tanh(),
    }
    net = nn.Sequential(*(makers[layer["kind"]](layer, state.get(f"{i}.weight")) for i, layer in chain(config)))
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    return net


class TorchSide(Side):
    """Eager PyTorch, or torch.compile, whichever of the variants is fastest here."""

    net = None  # set where the tensors are shared: they are then neither replaced nor reset here

    def set_up(self):
        import torch
        from torch.nn.functional import cross_entropy

        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)
        self.torch, self.cross_entropy = torch, cross_entropy
        self.x, self.y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        self.initial = {k: torch.from_numpy(np.array(v)) for k, v in self.job["state"].items()}
        if self.net is not None:
            self.use("contiguous", self.net)
            return
        variants = ["contiguous", "channels_last"] + ["compiled"] * self.job["compile"]
        best = {}
        for name in variants:
            self.use(name)
            self.advance(self.batch)
            best[name] = min(seconds / done for done, seconds, _ in (self.work(WARM_UP), self.work(WARM_UP)))
        self.use(min(best, key=best.get))

    def use(self, variant, net=None):
        self.variant = variant
        self.net = net if net is not None else torch_twin(self.job["config"], self.job["state"])
        layout = self.torch.contiguous_format
        if variant == "channels_last":
            layout = self.torch.channels_last
            self.net.to(memory_format=layout)
        self.x = self.x.contiguous(memory_format=layout)
        self.parameters = list(self.net.parameters())
        self.call = self.torch.compile(self.net) if variant == "compiled" else self.net

    def reset(self):
        self.net.load_state_dict(self.initial)

    def advance(self, images):
        x, y, net, parameters, lr = self.x, self.y, self.call, self.parameters, self.job["lr"]
        for part in self.batches(images):
            loss = self.cross_entropy(net(x[part]), y[part])
            descend(parameters, self.torch.autograd.grad(loss, parameters), lr)
        return images

    def loss(self):
        with self.torch.no_grad():
            return self.cross_entropy(self.net(self.x[:512]), self.y[:512]).item()


def descend(parameters, gradients, lr):
    """Plain SGD on all parameters in one call; faster than torch.optim.SGD, its fused form included."""
    import torch

    with torch.no_grad():
        torch._foreach_add_(parameters, list(gradients), alpha=-lr)
