"""Networks as PyTorch modules. Needs torch. Imported by chaos.interop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers
from ..errors import UnsupportedError
from ..layers import Layer
from ..layers.base import Shape
from ..network import Network
from .needing import needing


def to_torch(net: Network) -> Any:
    """The network as a ``torch.fx.GraphModule`` made of PyTorch's own layers, with the network's weights.

    Its ``state_dict`` has the network's names (and PyTorch's counters of batches). It is in training mode, as all new
    modules are.

    Raises
    ------
    UnsupportedError
        For layers that PyTorch has no equal of, all at once.
    """
    with needing("torch"):
        import torch

    root, graph = torch.nn.Module(), torch.fx.Graph()
    known: dict[Any, Any] = {}
    problems: list[str] = []
    made: set[str] = set()
    for node, name in net.nodes():
        layer = node.layer
        if layer is None:
            known[node] = graph.placeholder(f"input_{len(known) + 1}" if len(net.input_shapes) > 1 else "input")
            continue
        shapes = [source.shape for source in node.inputs]
        inputs = [known[source] for source in node.inputs]
        owner, kind = net.part_owner(node), type(layer).__name__
        try:
            if kind in _FUNCTIONS:
                known[node] = _FUNCTIONS[kind](torch, graph, layer, shapes, inputs)
            elif isinstance(layer, layers.Parameter):
                value = torch.zeros(layer.shape if layer.stored is None else layer.stored)
                _attach(torch, root, owner, torch.nn.Parameter(value) if kind == "Parameter" else value)
                known[node] = graph.call_function(whole_batch, (graph.get_attr(owner), inputs[0], tuple(layer.shape)))
            else:
                if owner not in made:
                    _attach(torch, root, owner, _module(torch.nn, layer, shapes))
                    made.add(owner)
                known[node] = _called(torch, graph, owner, layer, shapes, inputs)
        except UnsupportedError as error:
            problems.append(f"{name} ({layer}): {error}")
            known[node] = inputs[0]
    if problems:
        raise UnsupportedError("PyTorch has no layers for\n  " + "\n  ".join(problems))
    ends = [known[node] for node in net.outputs]
    graph.output(ends[0] if len(ends) == 1 else tuple(ends))
    graph.lint()
    module = torch.fx.GraphModule(root, graph)
    module.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in net.state_dict().items()})
    return module


def whole_batch(value: Any, like: Any, shape: tuple[int, ...]) -> Any:
    """A parameter as a tensor with an entry for each image."""
    return value.reshape(shape).expand(like.shape[0], *shape)


def _called(torch: Any, graph: Any, owner: str, layer: Any, shapes: list[Shape], inputs: list[Any]) -> Any:
    """A module's output, with the layout and the border of its input that PyTorch's modules have not."""
    if _over_channels(layer, shapes[0]):
        moved = graph.call_method("movedim", (inputs[0], 1, -1))
        return graph.call_method("movedim", (graph.call_module(owner, (moved,)), -1, 1))
    if _uneven(layer, shapes[0]):
        top, bottom, left, right = layer.core(*shapes).whole[4:8]
        sides = [left, right, top, bottom][: 2 * (len(shapes[0]) - 1)]
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        return graph.call_module(owner, (graph.call_function(torch.nn.functional.pad, (inputs[0], sides, mode)),))
    return graph.call_module(owner, tuple(inputs))


def _over_channels(layer: Any, shape: Shape) -> bool:
    """Over each pixel's channels, which are the last dimension in PyTorch."""
    return bool(getattr(layer, "channels_only", False)) and len(shape) > 1


def _uneven(layer: Any, shape: Shape) -> bool:
    """A convolution with borders of other widths on both sides."""
    padding = getattr(layer, "padding", None)
    if type(layer).__name__ not in ("Conv1d", "Conv2d") or not isinstance(padding, (tuple, list)):
        return False
    return len(padding) == 2 * (len(shape) - 1) and list(padding[::2]) != list(padding[1::2])


def _attach(torch: Any, root: Any, path: str, what: Any) -> None:
    """Puts a module, a parameter or a buffer at a name with dots."""
    *parents, last = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, torch.nn.Module())
        root = root._modules[name]
    if isinstance(what, torch.nn.Module):
        for name, child in (root._modules.get(last) or torch.nn.Module())._modules.items():
            what.add_module(name, child)
        root.add_module(last, what)
    elif isinstance(what, torch.nn.Parameter):
        root.register_parameter(last, what)
    else:
        root.register_buffer(last, what)


# options that PyTorch names as we do, and what it wants to know of the input first
_INPUT = {
    "Conv1d": 1, "Conv2d": 1, "ConvTranspose1d": 1, "ConvTranspose2d": 1, "Linear": 1, "BatchNorm1d": 1, "BatchNorm2d": 1,
    "InstanceNorm1d": 1, "InstanceNorm2d": 1,
}  # fmt: skip
_SAME = set(_INPUT) | {
    "ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "Hardtanh",
    "Tanh", "Tanhshrink", "Sigmoid", "LogSigmoid", "Softplus", "Softsign", "Threshold", "Hardshrink", "Softshrink",
    "Identity", "Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "Flatten", "MaxPool1d", "MaxPool2d", "AvgPool1d",
    "AvgPool2d", "LPPool1d", "LPPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "LocalResponseNorm", "PixelShuffle", "PixelUnshuffle", "Upsample", "PReLU", "GroupNorm",
}  # fmt: skip


def _options(layer: Layer) -> dict[str, Any]:
    return {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer) if f.name != "name"}


def _module(nn: Any, layer: Layer, shapes: list[Shape]) -> Any:
    kind, options, shape = type(layer).__name__, _options(layer), shapes[0]
    if kind in _MODULES:
        return _MODULES[kind](nn, layer, options, shape)
    if kind not in _SAME:
        raise UnsupportedError("there is no such module")
    known = set(getattr(nn, kind).__init__.__code__.co_varnames)
    strange = {name: value for name, value in options.items() if name not in known and value != _default(layer, name)}
    if strange:
        raise UnsupportedError(f"no module has {', '.join(f'{name}={value!r}' for name, value in strange.items())}")
    return getattr(nn, kind)(*shape[: _INPUT.get(kind, 0)], **{k: v for k, v in options.items() if k in known})


def _default(layer: Layer, name: str) -> Any:
    return next(f.default for f in dataclasses.fields(layer) if f.name == name)


def _upsample(nn: Any, layer: Any, options: dict[str, Any], shape: Shape) -> Any:
    return nn.Upsample(**options | {"align_corners": layer.align_corners if "linear" in layer.mode else None})


def _channel_shuffle(nn: Any, layer: Any, options: dict[str, Any], shape: Shape) -> Any:
    shuffle = nn.ChannelShuffle(layer.groups)  # which takes no vectors
    return shuffle if len(shape) > 1 else nn.Sequential(nn.Unflatten(1, (shape[0], 1)), shuffle, nn.Flatten())


def _group_norm(nn: Any, layer: Any, options: dict[str, Any], shape: Shape) -> Any:
    return nn.GroupNorm(layer.num_groups, shape[0], eps=layer.eps, affine=layer.affine)


def _prelu(nn: Any, layer: Any, options: dict[str, Any], shape: Shape) -> Any:
    return nn.PReLU(math.prod(layer.parts(shape)["weight"].shape))


def _layer_norm(nn: Any, layer: Any, options: dict[str, Any], shape: Shape) -> Any:
    width = shape[:1] if _over_channels(layer, shape) else shape
    return nn.LayerNorm(width, eps=layer.eps, elementwise_affine=layer.elementwise_affine, bias=layer.bias)


def _rms_norm(nn: Any, layer: Any, options: dict[str, Any], shape: Shape) -> Any:
    width = shape[:1] if _over_channels(layer, shape) else shape
    # PyTorch's None follows the precision of the module: said, or `.double()` would be another function
    eps = float(np.finfo(np.float32).eps) if layer.eps is None else layer.eps
    return nn.RMSNorm(width, eps=eps, elementwise_affine=layer.elementwise_affine)


def _conv(nn: Any, layer: Any, options: dict[str, Any], shape: Shape) -> Any:
    """The table of connections is chaos's own; borders that PyTorch has not are around the input already."""
    kind = type(layer).__name__
    if options.pop("connection_table", None) is not None:
        raise UnsupportedError("with connection_table")
    padding = layer.padding
    if isinstance(padding, (tuple, list)) and len(padding) == 2 * (len(shape) - 1):
        options["padding"] = tuple(padding[::2]) if len(padding) > 2 else padding[0]
        if _uneven(layer, shape):
            options |= {"padding": 0, "padding_mode": "zeros"}
    return getattr(nn, kind)(shape[0], **options)


_MODULES: dict[str, Callable[..., Any]] = {
    "Conv1d": _conv,
    "Conv2d": _conv,
    "ChannelShuffle": _channel_shuffle,
    "Upsample": _upsample,
    "GroupNorm": _group_norm,
    "PReLU": _prelu,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "Softmax": lambda nn, layer, options, shape: nn.Softmax(1),
    "LogSoftmax": lambda nn, layer, options, shape: nn.LogSoftmax(1),
}


# ---- what is a function in PyTorch ----


def _chained(name: str) -> Callable[..., Any]:
    def write(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
        result = inputs[0]
        for other in inputs[1:]:
            result = graph.call_function(getattr(torch, name), (result, other))
        return result

    return write


def _method(name: str, arguments: Callable[[Any, Shape], tuple[Any, ...]]) -> Callable[..., Any]:
    def write(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
        return graph.call_method(name, (inputs[0], *arguments(layer, shapes[0])))

    return write


def _concat(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
    return graph.call_function(torch.cat, (inputs, layer.dim))


def _pad(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
    top, bottom, left, right = layer._sides(shapes[0])
    sides = [left, right, top, bottom][: 4 if len(shapes[0]) == 3 else 2]
    value = layer.value if layer.mode == "constant" else None
    return graph.call_function(torch.nn.functional.pad, (inputs[0], sides, layer.mode, value))


def _scaled_tanh(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
    inner = graph.call_function(torch.mul, (inputs[0], 2 / 3))
    return graph.call_function(torch.mul, (graph.call_function(torch.tanh, (inner,)), 1.7159))


def _affine(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
    scaled = graph.call_function(torch.mul, (inputs[0], layer.scale))
    return graph.call_function(torch.add, (scaled, layer.shift))


def _slice(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
    import operator

    dims, x = len(shapes[0]) + 1, inputs[0]
    dim = layer.dim % dims
    start, stop, step = slice(layer.start, layer.stop, layer.step).indices(shapes[0][dim - 1])
    if step < 0:  # PyTorch's slices do not go backwards
        x = graph.call_method("flip", (x, dim))
        count, start, step = len(range(start, stop, step)), shapes[0][dim - 1] - 1 - start, -step
        stop = start + step * (count - 1) + 1
    at = [slice(None)] * dims
    at[dim] = slice(start, stop, step)
    return graph.call_function(operator.getitem, (x, tuple(at)))


def _reshape(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
    flat = graph.call_method("flatten", (inputs[0], 1)) if len(shapes[0]) > 1 else inputs[0]
    shape = layer.output_shape(shapes[0])
    return graph.call_method("unflatten", (flat, 1, tuple(shape))) if len(shape) > 1 else flat


def _rearrange(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
    flat = graph.call_method("flatten", (inputs[0], 1))
    return graph.call_function(as_strided, (flat, layer.shape, layer.sizes, layer.strides, layer.start))


def as_strided(x: Any, shape: Any, sizes: Any, strides: Any, start: int) -> Any:
    """The loops of `Rearrange` through each of a batch of vectors."""
    index = x.new_full((1,), start).long()
    for size, stride in zip(sizes, strides, strict=True):
        index = index[..., None] + stride * x.new_ones(size).long().cumsum(0) - stride
    return x[:, index.reshape(-1)].reshape(len(x), *shape)


def _reduction(name: str) -> Callable[..., Any]:
    def write(torch: Any, graph: Any, layer: Any, shapes: Any, inputs: list[Any]) -> Any:
        over = layer._over(len(shapes[0]) + 1)
        result = graph.call_function(getattr(torch, name), (inputs[0], tuple(over)), {"keepdim": layer.keepdim})
        if not layer.keepdim and len(over) == len(shapes[0]):
            result = graph.call_method("unsqueeze", (result, 1))
        return result

    return write


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": _chained("add"),
    "Subtract": _chained("sub"),
    "Multiply": _chained("mul"),
    "Divide": _chained("div"),
    "Maximum": _chained("maximum"),
    "Minimum": _chained("minimum"),
    "Abs": lambda torch, graph, layer, shapes, inputs: graph.call_function(torch.abs, (inputs[0],)),
    "Concat": _concat,
    "Pad": _pad,
    "ScaledTanh": _scaled_tanh,
    "Affine": _affine,
    "Slice": _slice,
    "Rearrange": _rearrange,
    "Reshape": _reshape,
    "Permute": _method("permute", lambda layer, shape: tuple(layer.dims)),
    "Flip": _method("flip", lambda layer, shape: tuple(layer.dims) if isinstance(layer.dims, tuple) else (layer.dims,)),
    "Squeeze": _method("squeeze", lambda layer, shape: (_squeezed(layer, shape),)),
    "Unsqueeze": _method("unsqueeze", lambda layer, shape: (layer.dim,)),
    "Expand": _method("expand", lambda layer, shape: (-1, *layer.output_shape(shape))),
    "Sum": _reduction("sum"),
    "Mean": _reduction("mean"),
    "Max": _reduction("amax"),
    "Min": _reduction("amin"),
}


def _squeezed(layer: Any, shape: Shape) -> tuple[int, ...]:
    asked = range(1, len(shape) + 1) if layer.dim is None else layer.dim if isinstance(layer.dim, tuple) else (layer.dim,)
    return tuple(asked)
