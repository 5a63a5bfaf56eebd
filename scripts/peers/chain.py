"""What JAX's counterpart knows of a network: a plain chain of six kinds of layers. For jax_xla and check."""

from __future__ import annotations


def chain(config):
    """(index, layer) of a network that is a plain chain; ValueError for what the twins would get wrong."""
    known = {
        "conv2d": {"out_channels", "kernel_size"},
        "linear": {"out_features"},
        "max_pool2d": {"kernel_size"},
        "flatten": set(),
        "tanh": set(),
        "relu": set(),
    }
    for i, layer in enumerate(config["layers"]):
        if layer["inputs"] != [i] or not set(layer) - {"kind", "inputs"} <= known.get(layer["kind"], set()):
            raise ValueError(f"the benchmark has no counterpart of layer {i}: {layer}")
        yield i, layer


def is_chain(config):
    """Whether `chain` takes it."""
    try:
        return bool(list(chain(config)))
    except ValueError:
        return False
