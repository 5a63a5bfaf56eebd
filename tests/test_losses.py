"""Losses: PyTorch's numbers, options that are lists, answers that are ignored, and what is refused. The definitions against
finite differences and the core against the definitions: test_layers.py."""

import json

import numpy as np
import pytest

import chaos
from chaos import _core, cli
from chaos.losses import CLASS, IGNORED, LOSSES, MAP, VALUES
from chaos.options import Numbers

SHAPES = [(7,), (3, 4, 5), (4, 6)]


def identity(shape):
    """A network whose outputs are its inputs."""
    return chaos.Network(shape, [chaos.Hardtanh(min_val=-100, max_val=100)])


def of_core(y, target, loss, **options):
    """(mean loss, gradient of the outputs) as the core has them, by a bias for every output of every sample."""
    y = np.asarray(y, np.float32)
    shape = y.shape[1:]
    size = int(np.prod(shape))
    net = chaos.Network((1,), [chaos.Linear(size), *([chaos.Unflatten(0, shape)] if len(shape) > 1 else [])])
    values, gradients = [], []
    name = next(iter(name for name in net.state_dict() if name.endswith("bias")))
    for one, right in zip(y, target, strict=True):
        net.load_state_dict({n: one.reshape(-1) if n == name else np.zeros_like(v) for n, v in net.state_dict().items()})
        value, found = net.loss_and_gradients(np.zeros((1, 1), np.float32), right[None], loss, loss_options=options)
        values.append(value)
        gradients.append(found[name].reshape(shape))
    return np.mean(values), np.stack(gradients) / len(y)
