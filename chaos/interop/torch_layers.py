"""What layers of PyTorch become: operations with weights, windows, the modules of torch.nn. For chaos.interop.from_torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import layers
from ..errors import UnsupportedError
from ..layers import Layer
from .graph import Value
from .torch_reader import OPERATIONS, Operation, Reader, operation

# ---- layers with weights ----


def _one_or(value: Any) -> Any:
    value = tuple(int(n) for n in value) if isinstance(value, (tuple, list)) else value
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def _convolution(axes: int) -> Operation:
    kind = layers.Conv1d if axes == 1 else layers.Conv2d

    def read(
        r: Reader,
        x: Value,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> Value:
        out, _, *kernel = weight.shape

        def make(name: str) -> Layer:
            return kind(
                int(out),
                kernel_size=_one_or(kernel),
                stride=_one_or(stride),
                padding=_one_or(padding),
                dilation=_one_or(dilation),
                groups=groups,
                bias=bias is not None,
                padding_mode=padding_mode,
                name=name,
            )

        return r.with_state("conv", {"weight": weight, "bias": bias}, make, x)

    return read


OPERATIONS |= {"conv1d": _convolution(1), "conv2d": _convolution(2)}


def _transposed(axes: int) -> Operation:
    def read(
        r: Reader,
        x: Value,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Value:
        _, out, *kernel = weight.shape

        def make(name: str) -> Layer:
            kind: Any = layers.ConvTranspose1d if axes == 1 else layers.ConvTranspose2d
            layer: Layer = kind(
                int(out) * groups,
                kernel_size=_one_or(kernel),
                stride=_one_or(stride),
                padding=_one_or(padding),
                output_padding=_one_or(output_padding),
                groups=groups,
                bias=bias is not None,
                dilation=_one_or(dilation),
                name=name,
            )
            return layer

        return r.with_state("conv_transpose", {"weight": weight, "bias": bias}, make, x)

    return read


OPERATIONS |= {"conv_transpose1d": _transposed(1), "conv_transpose2d": _transposed(2)}


@operation("linear")
def _linear(r: Reader, x: Value, weight: Any, bias: Any = None) -> Value:
    if len(x.shape) != 1:
        raise UnsupportedError(f"over the last of {len(x.shape) + 1} dimensions: vectors (n, features) are needed")

    def make(name: str) -> Layer:
        return layers.Linear(int(weight.shape[0]), bias=bias is not None, name=name)

    return r.with_state("linear", {"weight": weight, "bias": bias}, make, x)


@operation("prelu", "_prelu_kernel")
def _prelu(r: Reader, x: Value, weight: Any) -> Value:
    return r.with_state("prelu", {"weight": weight}, lambda name: layers.PReLU(math.prod(weight.shape), name=name), x)


def _both(weight: Any, bias: Any) -> None:
    if (weight is None) != (bias is None):
        raise UnsupportedError("a weight without a bias, or the other way round")


@operation("batch_norm")
def _batch_norm(
    r: Reader,
    x: Value,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: Any = None,
    momentum: Any = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    if running_mean is None:
        raise UnsupportedError("without running statistics (track_running_stats=False)")
    if momentum is None:
        raise UnsupportedError("momentum=None, the mean over all steps so far: give a number")
    _both(weight, bias)
    kind = layers.BatchNorm2d if len(x.shape) == 3 else layers.BatchNorm1d
    tensors = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}

    def make(name: str) -> Layer:
        return kind(eps=eps, momentum=momentum, affine=weight is not None, name=name)

    return r.with_state("batch_norm", tensors, make, x)


@operation("group_norm")
def _group_norm(
    r: Reader, x: Value, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Value:
    _both(weight, bias)

    def make(name: str) -> Layer:
        return layers.GroupNorm(num_groups, eps=eps, affine=weight is not None, name=name)

    if weight is None:
        return r.graph.apply(layers.GroupNorm(num_groups, eps=eps, affine=False), x)
    return r.with_state("group_norm", {"weight": weight, "bias": bias}, make, x)


@operation("local_response_norm")
def _lrn(r: Reader, x: Value, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Value:
    return r.graph.apply(layers.LocalResponseNorm(size, alpha, beta, k), x)


@operation("instance_norm")
def _instance_norm(
    r: Reader,
    x: Value,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    if running_mean is not None:
        raise UnsupportedError("with running statistics (track_running_stats=True): without them it works")
    _both(weight, bias)
    kind = layers.InstanceNorm2d if len(x.shape) == 3 else layers.InstanceNorm1d
    if weight is None:
        return r.graph.apply(kind(eps=eps, affine=False), x)
    return r.with_state("instance_norm", {"weight": weight, "bias": bias}, lambda n: kind(eps=eps, affine=True, name=n), x)


@operation("aten.batch_norm")
def _aten_batch_norm(r: Reader, x: Value, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Value:
    return _batch_norm(r, x, mean, var, weight, bias, *rest)


@operation("aten.instance_norm")
def _aten_instance_norm(r: Reader, x: Value, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Value:
    return _instance_norm(r, x, mean, var, weight, bias, *rest)


def _over_the_last(
    r: Reader, x: Value, what: str, normalized_shape: Any, tensors: dict[str, Any], make: Callable[..., Layer]
) -> Value:
    """A normalisation of the whole image, or over its last dimensions: then one of the channels at each pixel."""
    last = tuple(normalized_shape)
    if not last or last != x.shape[-len(last) :]:
        raise UnsupportedError(f"over {last} of an image of shape {x.shape}: it must be its last dimensions")
    options = {"bias": tensors["bias"] is not None} if tensors["weight"] is not None and "bias" in tensors else {}
    if last != x.shape:
        if tensors["weight"] is not None and len(last) > 1:
            raise UnsupportedError(f"over {last} of an image of shape {x.shape}, with weights of more than one dimension")
        options |= {"channels_only": True}
    rows = math.prod(x.shape[: -len(last)])
    lined = x if last == x.shape else x.view(lambda places: places.reshape(rows, -1).T)
    if tensors["weight"] is None:
        found = r.graph.apply(make(None, elementwise_affine=False, **options), lined)
    else:
        found = r.with_state(what, tensors, lambda name: make(name, **options), lined)
    return found if last == x.shape else found.view(lambda places: places.T.reshape(x.shape))


@operation("layer_norm")
def _layer_norm(
    r: Reader, x: Value, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Value:
    def make(name: str | None, **options: bool) -> Layer:
        return layers.LayerNorm(eps=eps, name=name, **options)

    return _over_the_last(r, x, "layer_norm", normalized_shape, {"weight": weight, "bias": bias}, make)


@operation("rms_norm")
def _rms_norm(r: Reader, x: Value, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Value:
    def make(name: str | None, **options: bool) -> Layer:
        return layers.RMSNorm(eps=eps, name=name, **options)

    return _over_the_last(r, x, "rms_norm", normalized_shape, {"weight": weight}, make)


# ---- windows ----


def _of(axes: int, x: Value) -> None:
    """PyTorch takes a tensor of one dimension less for a single image: here the first dimension always counts images."""
    if len(x.shape) != axes + 1:
        raise UnsupportedError(f"a window of {axes} dimensions over an image of shape {x.shape}")


def _pool(axes: int, kind: Any) -> Operation:
    def read(r: Reader, x: Value, kernel_size: Any, stride: Any = None, *args: Any, **options: Any) -> Value:
        if options.pop("return_indices", False):
            raise UnsupportedError("the places of the maxima as an output")
        _of(axes, x)
        stride = None if isinstance(stride, (list, tuple)) and not stride else stride
        named = {name: _one_or(value) for name, value in options.items()}
        return r.graph.apply(kind(_one_or(kernel_size), _one_or(stride), *map(_one_or, args), **named), x)

    return read


def _lp_pool(axes: int, kind: Any) -> Operation:
    def read(r: Reader, x: Value, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Value:
        _of(axes, x)
        return r.graph.apply(kind(norm_type, _one_or(kernel_size), _one_or(stride), ceil_mode=ceil_mode), x)

    return read


def _adaptive(axes: int, kind: Any) -> Operation:
    def read(r: Reader, x: Value, output_size: Any, return_indices: bool = False) -> Value:
        if return_indices:
            raise UnsupportedError("the places of the maxima as an output")
        _of(axes, x)
        size = tuple(output_size) if isinstance(output_size, (tuple, list)) else output_size
        return r.graph.apply(kind(size[0] if isinstance(size, tuple) and len(size) == 1 else size), x)

    return read


OPERATIONS |= {
    "max_pool1d": _pool(1, layers.MaxPool1d),
    "max_pool2d": _pool(2, layers.MaxPool2d),
    "avg_pool1d": _pool(1, layers.AvgPool1d),
    "avg_pool2d": _pool(2, layers.AvgPool2d),
    "lp_pool1d": _lp_pool(1, layers.LPPool1d),
    "lp_pool2d": _lp_pool(2, layers.LPPool2d),
    "adaptive_avg_pool1d": _adaptive(1, layers.AdaptiveAvgPool1d),
    "adaptive_avg_pool2d": _adaptive(2, layers.AdaptiveAvgPool2d),
    "adaptive_max_pool1d": _adaptive(1, layers.AdaptiveMaxPool1d),
    "adaptive_max_pool2d": _adaptive(2, layers.AdaptiveMaxPool2d),
}


@operation("interpolate", "upsample")
def _interpolate(
    r: Reader,
    x: Value,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Value:
    if antialias or recompute_scale_factor or mode not in ("nearest", "nearest-exact", "linear", "bilinear"):
        raise UnsupportedError(f"mode {mode!r}, antialias or recompute_scale_factor: nearest, linear and bilinear work")
    return r.graph.apply(layers.Upsample(_one_or(size), _floats(scale_factor), mode, bool(align_corners)), x)


@operation("upsample_bilinear2d", "upsample_linear1d")
def _aten_linear(r: Reader, x: Value, size: Any, align_corners: bool, *scales: Any) -> Value:
    by = None if size is not None else scales[0]
    return _interpolate(r, x, size, by, "linear" if len(x.shape) == 2 else "bilinear", align_corners)


@operation("upsample_nearest2d", "upsample_nearest1d")
def _aten_nearest(r: Reader, x: Value, size: Any, *scales: Any) -> Value:
    return _interpolate(r, x, size, None if size is not None else scales[0], "nearest")


def _floats(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, (tuple, list)) else value


@operation("pad")
def _pad(r: Reader, x: Value, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    sides = [int(n) for n in pad]
    around = [(0, 0)] * len(x.shape)
    for i in range(len(sides) // 2):
        around[len(x.shape) - 1 - i] = (sides[2 * i], sides[2 * i + 1])
    return r.graph.pad(x, around, mode, float(value or 0.0))


# ---- modules: by operations with their options, or with their tensors ----

STATELESS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Identity": ("identity", ()),
    "ReLU": ("relu", ()),
    "ReLU6": ("relu6", ()),
    "LeakyReLU": ("leaky_relu", ("negative_slope",)),
    "ELU": ("elu", ("alpha",)),
    "SELU": ("selu", ()),
    "CELU": ("celu", ("alpha",)),
    "GELU": ("gelu", ("approximate",)),
    "SiLU": ("silu", ()),
    "Mish": ("mish", ()),
    "Hardswish": ("hardswish", ()),
    "Hardsigmoid": ("hardsigmoid", ()),
    "Hardtanh": ("hardtanh", ("min_val", "max_val")),
    "Tanh": ("tanh", ()),
    "Sigmoid": ("sigmoid", ()),
    "Softplus": ("softplus", ("beta", "threshold")),
    "Softsign": ("softsign", ()),
    "Tanhshrink": ("tanhshrink", ()),
    "Hardshrink": ("hardshrink", ("lambd",)),
    "Softshrink": ("softshrink", ("lambd",)),
    "LogSigmoid": ("logsigmoid", ()),
    "Threshold": ("threshold", ("threshold", "value")),
    "Softmax": ("softmax", ("dim",)),
    "LogSoftmax": ("log_softmax", ("dim",)),
    "Dropout": ("dropout", ("p",)),
    "Dropout1d": ("dropout1d", ("p",)),
    "Dropout2d": ("dropout2d", ("p",)),
    "AlphaDropout": ("alpha_dropout", ("p",)),
    "Flatten": ("flatten", ("start_dim", "end_dim")),
    "MaxPool1d": ("max_pool1d", ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")),
    "MaxPool2d": ("max_pool2d", ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")),
    "AvgPool1d": ("avg_pool1d", ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
    "AvgPool2d": ("avg_pool2d", ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")),
    "LPPool1d": ("lp_pool1d", ("norm_type", "kernel_size", "stride", "ceil_mode")),
    "LPPool2d": ("lp_pool2d", ("norm_type", "kernel_size", "stride", "ceil_mode")),
    "AdaptiveAvgPool1d": ("adaptive_avg_pool1d", ("output_size",)),
    "AdaptiveAvgPool2d": ("adaptive_avg_pool2d", ("output_size",)),
    "AdaptiveMaxPool1d": ("adaptive_max_pool1d", ("output_size",)),
    "AdaptiveMaxPool2d": ("adaptive_max_pool2d", ("output_size",)),
    "LocalResponseNorm": ("local_response_norm", ("size", "alpha", "beta", "k")),
    "PixelShuffle": ("pixel_shuffle", ("upscale_factor",)),
    "PixelUnshuffle": ("pixel_unshuffle", ("downscale_factor",)),
    "ChannelShuffle": ("channel_shuffle", ("groups",)),
    "Upsample": ("interpolate", ("size", "scale_factor", "mode", "align_corners")),
    "UpsamplingNearest2d": ("interpolate", ("size", "scale_factor", "mode", "align_corners")),
    "UpsamplingBilinear2d": ("interpolate", ("size", "scale_factor", "mode", "align_corners")),
}
Module = Callable[..., Value]
MODULES: dict[str, Module] = {}


def _tensors(r: Reader, path: str, *names: str) -> list[Any]:
    return [None if getattr(r.module.get_submodule(path), n, None) is None else r.attribute(f"{path}.{n}") for n in names]


def _conv_module(operation: str) -> Module:
    def read(r: Reader, m: Any, path: str, x: Value) -> Value:
        weight, bias = _tensors(r, path, "weight", "bias")
        options = (m.stride, m.padding, m.dilation, m.groups, m.padding_mode)
        result: Value = OPERATIONS[operation](r, x, weight, bias, *options)
        return result

    return read


def _transposed_module(operation: str) -> Module:
    def read(r: Reader, m: Any, path: str, x: Value, output_size: Any = None) -> Value:
        if output_size is not None:
            raise UnsupportedError("output_size: give output_padding")
        weight, bias = _tensors(r, path, "weight", "bias")
        options = (m.stride, m.padding, m.output_padding, m.groups, m.dilation)
        result: Value = OPERATIONS[operation](r, x, weight, bias, *options)
        return result

    return read


def _linear_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    return _linear(r, x, *_tensors(r, path, "weight", "bias"))


def _prelu_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    return _prelu(r, x, *_tensors(r, path, "weight"))


def _dimensions(m: Any, x: Value) -> None:
    """PyTorch takes some tensors of one dimension less for a single image: here the first always counts images."""
    name = type(m).__name__
    if len(x.shape) not in {"BatchNorm1d": (1, 2), "InstanceNorm1d": (2,)}.get(name, (3,)):
        raise UnsupportedError(f"an image of shape {x.shape}")


def _batch_norm_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    _dimensions(m, x)
    mean, var, weight, bias = _tensors(r, path, "running_mean", "running_var", "weight", "bias")
    return _batch_norm(r, x, mean, var, weight, bias, True, m.momentum, m.eps)


def _instance_norm_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    _dimensions(m, x)
    mean, var, weight, bias = _tensors(r, path, "running_mean", "running_var", "weight", "bias")
    return _instance_norm(r, x, mean, var, weight, bias, eps=m.eps)


def _group_norm_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    return _group_norm(r, x, m.num_groups, *_tensors(r, path, "weight", "bias"), m.eps)


def _layer_norm_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    return _layer_norm(r, x, m.normalized_shape, *_tensors(r, path, "weight", "bias"), m.eps)


def _rms_norm_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    (weight,) = _tensors(r, path, "weight")
    return _rms_norm(r, x, m.normalized_shape, weight, m.eps)


def _pad_module(mode: str) -> Module:
    def read(r: Reader, m: Any, path: str, x: Value) -> Value:
        result: Value = OPERATIONS["pad"](r, x, m.padding, mode, getattr(m, "value", None))
        return result

    return read


def _unflatten_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    result: Value = OPERATIONS["unflatten"](r, x, m.dim, m.unflattened_size)
    return result


def _softmax2d_module(r: Reader, m: Any, path: str, x: Value) -> Value:
    _of(2, x)
    result: Value = OPERATIONS["softmax"](r, x, 1)
    return result


MODULES |= {
    "Conv1d": _conv_module("conv1d"),
    "Conv2d": _conv_module("conv2d"),
    "ConvTranspose1d": _transposed_module("conv_transpose1d"),
    "ConvTranspose2d": _transposed_module("conv_transpose2d"),
    "Linear": _linear_module,
    "PReLU": _prelu_module,
    "BatchNorm1d": _batch_norm_module,
    "BatchNorm2d": _batch_norm_module,
    "InstanceNorm1d": _instance_norm_module,
    "InstanceNorm2d": _instance_norm_module,
    "GroupNorm": _group_norm_module,
    "LayerNorm": _layer_norm_module,
    "RMSNorm": _rms_norm_module,
    "Unflatten": _unflatten_module,
    "Softmax2d": _softmax2d_module,
    **{f"{name}{d}d": _pad_module(mode)
       for name, mode in (("ZeroPad", "constant"), ("ConstantPad", "constant"), ("ReflectionPad", "reflect"),
                          ("ReplicationPad", "replicate"), ("CircularPad", "circular"))
       for d in (1, 2)},
}  # fmt: skip
