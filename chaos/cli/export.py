"""`chaos export`: a trained network in the formats of other programs."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np

from ..errors import ChaosError
from ..folding import fold
from ..formats.atomic import write_atomically
from ..options import unknown
from .common import add_command, declare_best
from .networks import open_model, weights_file

FORMATS = {
    ".onnx": "the network with its weights, operator set 21, checked (needs the package onnx)",
    ".pt": "the parameters as a PyTorch state dict, which torch.load(weights_only=True) reads (needs torch)",
    ".pth": "the same",
    ".safetensors": "network and parameters, without what a run needs to go on; chaos.load and safetensors read it",
    ".npz": "the parameters by name, which numpy.load reads",
}


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "export",
        run,
        usage="RUN_OR_MODEL FILE [options]",
        description="Writes a trained network for other programs. The ending of FILE says how. "
        + " ".join(f"{ending}: {text}." for ending, text in FORMATS.items())
        + " Parameters have PyTorch's names and shapes. What is there is replaced.",
        examples=[
            "chaos export runs/first net.onnx",
            "chaos export runs/first net.pt",
            "chaos export runs/first/model.safetensors weights.npz --fold",
        ],
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run directory, .safetensors or .onnx file")
    parser.add_argument("file", metavar="FILE", help=f"where to write: {', '.join(FORMATS)}")
    declare_best(parser)
    parser.add_argument(
        "--fold", action="store_true", help="fold batch normalisations into what is before them, where that is possible"
    )


def run(arguments):
    """Runs the command."""
    path = Path(arguments.file)
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ValueError(f"{path}: {unknown('there is no format', ending, FORMATS)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no directory {path.parent}")
    net, _ = open_model(arguments.model, arguments.best)
    if path.exists() and os.path.samefile(path, weights_file(arguments.model, arguments.best)):
        raise ValueError(f"{path} is what is to be exported; name another file")
    if arguments.fold:
        net = fold(net)
    write_network(net, path)
    print(f"{path}  {net.n_parameters:,} parameters, {path.stat().st_size:,} bytes")
    for number, scale in enumerate(net.trained_on or (), 1):
        name = "input" if len(net.trained_on) == 1 else f"input {number}"
        told = "pixels of 0..255 as x / 127.5 - 1" if scale.pixels else f"like those of its training, {scale}"
        print(f"{name}: float32 numbers, {told}" if ending == ".onnx" else f"{name} of the training: {scale}")


def write_network(net, path):
    """Writes a network as the ending of a path says; ChaosError where a package is missing, OSError where it cannot be
    written."""
    ending = path.suffix.lower()
    if ending == ".safetensors":
        net.save(path)
        return
    if ending == ".onnx":
        with _needing("onnx"):
            net.to_onnx(path)
        return
    out, state = io.BytesIO(), net.state_dict()
    if ending == ".npz":
        np.savez(out, **state)
    else:
        with _needing("torch"):
            import torch

            torch.save({name: torch.from_numpy(value) for name, value in state.items()}, out)
    write_atomically(path, out.getvalue())


@contextlib.contextmanager
def _needing(package):
    """Within it, a missing package is told with what installs it."""
    try:
        yield
    except ImportError as error:
        remedy = f"pip install 'chaos-sgd[{package}]'"
        raise ChaosError(
            f"{error}" if remedy in str(error) else f"this format needs {package} ({error}); {remedy}"
        ) from None
