"""What the counterparts of other systems know of a network: a plain chain of five kinds of layers. For pytorch, jax_xla."""

from __future__ import annotations


def chain(config):
    """(index, layer) of a network that is a plain chain; ValueError for what the twins would get wrong."""
    known = {
        "conv2d": {"out_channels", "kernel_size"},
        "linear": {"out_features"},
        "max_pool2d": {"kernel_size"},
        "flatten": set(),
        "tanh": set(),
    }
    for i, layer in enumerate(config["layers"]):
        if layer["inputs"] != [i] or not set(layer) - {"kind", "inputs"} <= known.get(layer["kind"], set()):
            raise ValueError(f"the benchmark has no counterpart of layer {i}: {layer}")
        yield i, layer
