"""Correctness before speed: all sides compute the same outputs, loss, gradients and step. For the run."""

from __future__ import annotations

import numpy as np

from .chain import is_chain
from .jax_xla import jax_loss
from .onnx_runtime import session
from .pytorch import descend, torch_twin
from .surroundings import has

TOLERANCE = 1e-4
LOOSE = 2e-2
NEAR_TIE = 1e-6
TRIES = 32


class Mismatch(Exception):
    """Two sides do not compute the same."""


def clear(twin, x):
    """Whether no max-pooling and no ReLU of a step on these images is a near tie.

    Where two different entries of a window agree to the last digits, or what a ReLU sees is nearly 0, rounding in float32
    decides; both choices are right, and the gradients differ visibly. Exact ties come from equal patches of the images and
    do no harm.

    Parameters
    ----------
    twin : torch.nn.Module
    x : ndarray of float32, (n, ...)
    """
    import copy

    import torch
    from torch import nn

    near = []

    def look(layer, inputs, output):
        (value,) = inputs
        scale = value.abs().max()
        if isinstance(layer, nn.MaxPool2d):
            n, c, *_ = value.shape
            parts = torch.nn.functional.unfold(value, layer.kernel_size, 1, layer.padding, layer.stride)
            gap = parts.reshape(n, c, -1, parts.shape[-1]).topk(2, 2).values
            gap = gap[:, :, 0] - gap[:, :, 1]
        else:
            gap = value.abs()
        near.append(bool(((gap > 1e-12 * scale) & (gap < NEAR_TIE * scale)).any()))

    wide = copy.deepcopy(twin).double()
    for layer in wide.modules():
        if isinstance(layer, nn.MaxPool2d | nn.ReLU):
            layer.register_forward_hook(look)
    with torch.no_grad():
        wide(torch.from_numpy(x).double())
    return not any(near)


def choose(twin, x, count):
    """(which `count` images to compare on, whether no near tie is among them): the first batch that has none, else the
    first."""
    if x.size > 4_000_000:  # large images always have some
        return slice(0, count), False
    for first in range(0, min(len(x), TRIES * count) - count + 1, count):
        if clear(twin, x[first : first + count]):
            return slice(first, first + count), True
    return slice(0, count), False


def check(file, x, y, lr=0.01, count=64):
    """Compares chaos with PyTorch, and with JAX and onnxruntime where installed: outputs, loss, gradients, one SGD step.

    Gradients must agree to 1e-4 of the largest entry of their tensor. An entry sums up to about 4e4 products
    (64 images, 26x26 positions) with relative rounding errors of 6e-8 each, which add up like a random walk
    to 1.2e-5; the layers above bring in a few times as much. Steps may differ by lr times that, plus the
    rounding of both sums, 2 * 2**-24 of the largest weight. Where no batch without near ties is found (see `clear`), as in
    large images, the gradient of a tensor must agree in norm to 2e-2: one position of thousands that took another way.

    Parameters
    ----------
    file : path
        Of the network.
    x : ndarray of float32, (n, ...)
        Several times `count` images, of which some may be unsuitable.
    y : ndarray of int64, (n, ...)
    lr : float
    count : int

    Returns
    -------
    dict
        Largest deviation of outputs and loss, and of gradients and steps as fractions of what is tolerated.

    Raises
    ------
    Mismatch
        Naming what differs and by how much.
    """
    import torch

    import chaos

    net, twin = chaos.load(file), torch_twin(file)
    state = net.state_dict()
    use, strict = choose(twin, x, count)
    x, y = np.ascontiguousarray(x[use]), np.ascontiguousarray(y[use])
    tolerance = TOLERANCE if strict else LOOSE
    report = {"images": count, "tolerance": tolerance, "outputs": 0.0, "loss": 0.0, "gradient": 0.0, "step": 0.0}

    def size(values):
        return float(np.abs(values).max() if strict else np.linalg.norm(values))

    twin.eval()
    with torch.no_grad():
        expected = twin(torch.from_numpy(x)).numpy()
    twin.train()
    sides = {"chaos": net.forward(x)}
    if has("onnxruntime"):
        sides["onnxruntime"] = session(file, 1).run(None, {"input": x})[0]
    for who, found in sides.items():
        off = float(np.abs(found - expected).max() / np.abs(expected).max())
        report["outputs"] = max(report["outputs"], off)
        if not off <= TOLERANCE:
            raise Mismatch(f"{who}: outputs differ from PyTorch's by {off:.1e} of the largest; tolerated is {TOLERANCE:g}")

    def compare(who, loss, gradients, reference_loss, reference):
        off = abs(loss - reference_loss) / abs(reference_loss)
        report["loss"] = max(report["loss"], off)
        if not off <= TOLERANCE:
            raise Mismatch(f"{who}: loss {loss:.8g}, PyTorch {reference_loss:.8g}")
        if list(gradients) != list(reference):
            raise Mismatch(f"{who}: parameters {list(gradients)}, PyTorch {list(reference)}")
        least = 1e-6 * max(map(size, reference.values()))  # a bias before a normalisation has 0 but for rounding
        for key, expected in reference.items():
            off = size(gradients[key] - expected) / max(size(expected), least)
            report["gradient"] = max(report["gradient"], off / tolerance)
            if not off <= tolerance:
                raise Mismatch(
                    f"{who}: the gradient of {key} is off by {off:.1e} of its largest entry; tolerated is {tolerance:g}"
                )

    def torch_gradients(images, labels):
        loss = torch.nn.functional.cross_entropy(twin(torch.from_numpy(images)), torch.from_numpy(labels))
        parameters = dict(twin.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()))
        return loss.item(), {k: g.numpy() for k, g in zip(parameters, found, strict=True)}

    loss, gradients = net.loss_and_gradients(x, y)
    expected_loss, expected = torch_gradients(x, y)
    compare("chaos", float(loss), gradients, expected_loss, expected)
    if has("jax") and is_chain(net.config()):
        import jax

        loss, gradients = jax.value_and_grad(jax_loss(net.config()))(
            {k: jax.numpy.asarray(v) for k, v in state.items()}, x, y
        )
        compare("JAX", float(loss), {k: np.asarray(gradients[k]) for k in expected}, expected_loss, expected)

    # The step of the whole batch, and the very phase that is timed first: one image, strategy chaos.
    for n, strategy in ((count, "sequential"), (1, "chaos")):
        net.load_state_dict(state)
        engine = chaos._core.Engine(
            net.plan, net.weights, strategy=strategy, batch_size=n, loss=net.core_loss("cross_entropy")
        )
        engine.run("train", inputs=[x[:n].reshape(-1)], labels=y[:n].reshape(-1), lr=lr)
        twin.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()}, strict=False)
        _, step = torch_gradients(x[:n], y[:n])
        parameters = dict(twin.named_parameters())
        descend(list(parameters.values()), [torch.from_numpy(g) for g in step.values()], lr)
        after, least = net.state_dict(), 1e-6 * max(map(size, step.values()))
        for key, value in parameters.items():
            off = size(after[key] - value.detach().numpy())
            tolerated = lr * tolerance * max(size(step[key]), least) + 2**-23 * size(state[key])
            report["step"] = max(report["step"], off / tolerated)
            if not off <= tolerated:
                raise Mismatch(
                    f"chaos: after one step on {n} images {key} differs from PyTorch's by {off / tolerated:.1f} times what "
                    "is tolerated"
                )
            if np.array_equal(after[key], state[key]) and size(step[key]) > 1e3 * least:
                raise Mismatch(f"chaos: one step on {n} images left {key} as it was")
    return report
