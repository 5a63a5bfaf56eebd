"""Competitor: PyTorch, eager or compiled, on the same network with the same weights. For sides, hogwild, check."""

from __future__ import annotations

from .side import Side


def torch_twin(file):
    """The network in a file as a PyTorch module with the same weights, under the same names."""
    import chaos

    return chaos.load(file).to_torch()


class TorchSide(Side):
    """Training: contiguous memory, channels_last, torch.compile, whichever is fastest here."""

    shared = None  # the module, where its tensors are shared: they are then neither replaced nor reset here

    def set_up(self):
        import torch
        from torch.nn.functional import cross_entropy

        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)
        self.torch, self.cross_entropy = torch, cross_entropy
        self.x, self.y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        module = torch_twin(self.job["network"]) if self.shared is None else self.shared
        self.initial = {name: value.clone() for name, value in module.state_dict().items()}
        if self.shared is None:
            images = self.x.dim() == 4
            self.variants = ("contiguous", *["channels_last"] * images, *["compiled"] * self.job["compile"])

    def use(self, variant):
        self.call = None
        self.net = torch_twin(self.job["network"]) if self.shared is None else self.shared
        layout = self.torch.contiguous_format
        if variant == "channels_last":
            layout = self.torch.channels_last
            self.net.to(memory_format=layout)
        if self.x.dim() == 4:
            self.x = self.x.contiguous(memory_format=layout)
        self.parameters = list(self.net.parameters())
        self.prepare()
        self.call = self.torch.compile(self.net, dynamic=False) if variant == "compiled" else self.net

    def prepare(self):
        """What has to be done to the module before it is compiled."""

    def advance(self, images):
        try:
            return self.pieces(images)
        except Exception as error:
            if self.call is self.net:
                raise
            raise ValueError("torch.compile cannot compile this network") from error

    def pieces(self, images):
        x, y, net, parameters, lr = self.x, self.y, self.call, self.parameters, self.job["lr"]
        for part in self.batches(images):
            loss = self.cross_entropy(net(x[part]), y[part])
            descend(parameters, self.torch.autograd.grad(loss, parameters), lr)
        return images // self.batch * self.batch

    def reset(self):
        self.net.load_state_dict(self.initial)

    def loss(self):
        some = min(512, len(self.y))
        with self.torch.no_grad():
            return self.cross_entropy(self.net(self.x[:some]), self.y[:some]).item()


class TorchPrediction(TorchSide):
    """Prediction: as in training, without gradients."""

    def prepare(self):
        self.net.eval()

    def pieces(self, images):
        with self.torch.inference_mode():
            for part in self.batches(images):
                self.call(self.x[part])
        return images // self.batch * self.batch

    def loss(self):
        return 0.0


def descend(parameters, gradients, lr):
    """Plain SGD on all parameters in one call; faster than torch.optim.SGD, its fused form included."""
    import torch

    with torch.no_grad():
        torch._foreach_add_(parameters, list(gradients), alpha=-lr)
