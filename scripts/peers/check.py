"""Correctness before speed: chaos, PyTorch and JAX compute the same loss, gradients and step. For the run."""

from __future__ import annotations

import numpy as np

from .jax_xla import jax_loss
from .pytorch import descend, torch_twin
from .surroundings import has

TOLERANCE = 1e-4
NEAR_TIE = 1e-6


class Mismatch(Exception):
    """Two sides do not compute the same."""


def without_near_ties(twin, x, count):
    """Indices of the first `count` images for which no max-pooling is a near tie.

    Where two different entries of a window agree to the last digits, float32 rounding decides which is the
    larger; both choices are right, and the gradients differ visibly. Exact ties come from equal patches of
    the image and do no harm.

    Parameters
    ----------
    twin : torch.nn.Sequential
    x : ndarray of float32, (n, c, h, w)
    count : int
    """
    import copy

    import torch
    from torch import nn

    with torch.no_grad():
        value, clear = torch.from_numpy(x).double(), torch.ones(len(x), dtype=torch.bool)
        for layer in copy.deepcopy(twin).double():
            if isinstance(layer, nn.MaxPool2d):
                n, c, h, w = value.shape
                k = layer.kernel_size
                tiles = value[:, :, : h // k * k, : w // k * k].reshape(n, c, h // k, k, w // k, k)
                top = tiles.transpose(3, 4).reshape(n, -1, k * k).topk(2).values
                gap = top[..., 0] - top[..., 1]
                clear &= ~((gap > 1e-12) & (gap < NEAR_TIE)).any(1)
            value = layer(value)
    found = clear.nonzero().flatten().numpy()
    if len(found) < count:
        raise Mismatch(f"only {len(found)} of {len(x)} images have no near tie in max-pooling; {count} are needed")
    return found[:count]


def check(config, state, x, y, lr=0.01, count=64):
    """Compares chaos with PyTorch, and with JAX where installed: loss, gradients, one SGD step.

    Gradients must agree to 1e-4 of the largest entry of their tensor. An entry sums up to about 4e4 products
    (64 images, 26x26 positions) with relative rounding errors of 6e-8 each, which add up like a random walk
    to 1.2e-5; the layers above bring in a few times as much. Steps may differ by lr times that, plus the
    rounding of both sums, 2 * 2**-24 of the largest weight.

    Parameters
    ----------
    config, state : as for `torch_twin`
    x : ndarray of float32, (n, c, h, w)
        Several times `count` images, of which some may be unsuitable, see `without_near_ties`.
    y : ndarray of int64, (n,)
    lr : float
    count : int

    Returns
    -------
    dict
        Largest deviation of the loss, and of gradients and steps as fractions of what is tolerated.

    Raises
    ------
    Mismatch
        Naming what differs and by how much.
    """
    import torch

    import chaos

    twin = torch_twin(config, state)
    use = without_near_ties(twin, x, count)
    x, y = np.ascontiguousarray(x[use]), np.ascontiguousarray(y[use])
    report = {"images": count, "tolerance": TOLERANCE, "loss": 0.0, "gradient": 0.0, "step": 0.0}

    def compare(who, loss, gradients, reference_loss, reference):
        off = abs(loss - reference_loss) / abs(reference_loss)
        report["loss"] = max(report["loss"], off)
        if not off <= TOLERANCE:
            raise Mismatch(f"{who}: loss {loss:.8g}, PyTorch {reference_loss:.8g}")
        if list(gradients) != list(reference):
            raise Mismatch(f"{who}: parameters {list(gradients)}, PyTorch {list(reference)}")
        for key, expected in reference.items():
            largest = np.abs(expected).max()
            off = np.abs(gradients[key] - expected).max() / (TOLERANCE * largest)
            report["gradient"] = max(report["gradient"], float(off))
            if not off <= 1:
                raise Mismatch(
                    f"{who}: the gradient of {key} is off by {off * TOLERANCE:.1e} of its largest entry; "
                    f"tolerated is {TOLERANCE:g}"
                )

    def torch_gradients(images, labels):
        loss = torch.nn.functional.cross_entropy(twin(torch.from_numpy(images)), torch.from_numpy(labels))
        parameters = dict(twin.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()))
        return loss.item(), {k: g.numpy() for k, g in zip(parameters, found, strict=True)}

    net = chaos.Network.from_config(config)
    net.load_state_dict(state)
    loss, gradients = net.loss_and_gradients(x, y)
    expected_loss, expected = torch_gradients(x, y)
    compare("chaos", float(loss), gradients, expected_loss, expected)
    if has("jax"):
        import jax

        loss, gradients = jax.value_and_grad(jax_loss(config))({k: jax.numpy.asarray(v) for k, v in state.items()}, x, y)
        compare("JAX", float(loss), {k: np.asarray(gradients[k]) for k in expected}, expected_loss, expected)

    # The step of the whole batch, and the very phase that is timed: one image, strategy chaos.
    for n, strategy in ((count, "sequential"), (1, "chaos")):
        net.load_state_dict(state)
        engine = chaos._core.Engine(net.plan, net.weights, workers=1, strategy=strategy, batch_size=n)
        engine.run("train", values=x[:n].reshape(-1), labels=y[:n], lr=lr)
        twin.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})
        parameters = list(twin.parameters())
        _, step = torch_gradients(x[:n], y[:n])
        descend(parameters, [torch.from_numpy(g) for g in step.values()], lr)
        after = net.state_dict()
        for key, value in twin.state_dict().items():
            tolerated = lr * TOLERANCE * np.abs(step[key]).max() + 2**-23 * np.abs(state[key]).max()
            off = np.abs(after[key] - value.numpy()).max() / tolerated
            report["step"] = max(report["step"], float(off))
            if not off <= 1:
                raise Mismatch(
                    f"chaos: after one step on {n} images {key} differs from PyTorch's by {off:.1f} times what is tolerated"
                )
            if np.array_equal(after[key], state[key]):
                raise Mismatch(f"chaos: one step on {n} images left {key} as it was")
    return report
