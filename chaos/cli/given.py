"""What commands are given: data sets and weights by name or file, run directories. For the files of this folder."""

import functools
import sys
from pathlib import Path

import numpy as np

from .. import data
from ..errors import CheckpointError, DataError, DataNotFound
from ..formats.json_text import parse_json
from ..streams import is_terminal
from ..training import CONFIG
from ..training.phases import with_weights
from ..training.settings import ABOUT, KEPT, Flag, Name, OptionsOf
from .common import say

DATA = "auto|NAME|FILE|FOLDER"
DATA_HELP = (
    f"data set: {', '.join(data.NAMES)}, or a path ({data.FILES}); auto: mnist or, where it cannot be had, the small digits "
    "that come with chaos"
)
# what config.json holds as text and as objects
NAMES = {"model", "data", "cluster", *(name for name in KEPT if isinstance(ABOUT[name], Name))}
FLAGS = {name for name in KEPT if isinstance(ABOUT[name], Flag)}
TABLES = {"virtual", *(name for name, about in ABOUT.items() if isinstance(about, OptionsOf))}


def read_config(run_dir):
    """config.json of a run directory as a dict, empty if there is none; CheckpointError if it is damaged."""
    path = Path(run_dir) / CONFIG
    try:
        config = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: damaged: holds no settings")
    for keys, kind, what in ((NAMES, str, "a name"), (FLAGS, bool, "true or false"), (TABLES, dict, "an object")):
        for key in keys & config.keys():
            if not isinstance(config[key], kind):
                raise CheckpointError(f"{path}: damaged: {key} must be {what}, not {config[key]!r}")
    return config


def load_data(name, net=None, tell=True, label=None):
    """Data for a network: (name of what was found, train, test), in the size of the network's input, or without a network as
    they are. `tell`: say it where a file's images are resized. `label`: a table's column of labels."""
    load = functools.partial(data.load, label=label)
    size = net.input_shape[1:] if net is not None and len(net.input_shape) == 3 else None
    if name != "auto" and (what := data.kind(name)) != "arrays":
        if what == "name":
            return name, *load(name, size=size)
        # rows and pictures have the shape that is wanted of them
        other = []
        found = load(name, shape=net and net.input_shape, tell=other.append)
        if other and tell:
            h, w = other[0]
            more = f" and other sizes, {len(other)} in all," if len(set(other)) > 1 else ""
            say(f"{name}: pictures of {h}x{w}{more} are brought to the network's {'x'.join(map(str, size))} pixels")
        return name, *found
    if name != "auto":
        train, test = load(name)
        if size is None or len(train.shape) != 3 or train.shape[1:] == size:
            return name, train, test
        if tell:
            found, wanted = ("x".join(map(str, one)) for one in (train.shape[1:], size))
            say(f"{name}: images of {found} pixels are brought to the network's {wanted}")
        return name, train.sized(size), None if test is None else test.sized(size)
    try:
        return "mnist", *load("mnist", size=size, download=False)
    except DataNotFound:
        if is_terminal(sys.stderr):
            say("mnist is not on this machine, trying to download it ...")
    try:
        return "mnist", *load("mnist", size=size)
    except DataNotFound:
        say(
            "mnist is neither on this machine nor can it be downloaded (--data mnist says why); "
            "taking the small digits that come with chaos instead"
        )
        return "digits", *data.load("digits", size=size)


def load_weights(path, images):
    """The images with the weights in a .npy file, one for each; as they are where there is no path."""
    if path is None:
        return images
    try:
        weights = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy raises several kinds for damaged bytes
        raise DataError(f"{path}: not a readable .npy file: {error or type(error).__name__}") from None
    if not isinstance(weights, np.ndarray):
        weights.close()
        raise DataError(f"{path}: holds several arrays; the weights of the training images are a .npy file of one")
    try:
        return with_weights(images, weights)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def load_validation(path, net, label=None):
    """The validation set in a file, in the size of the network's input; None where there is no path. `label` as above, where
    it is a table."""
    if path is None:
        return None
    _, images, others = load_data(path, net, label=label if data.kind(path) == "table" else None)
    if others is not None:
        raise DataError(f"{path} holds training and test images; a validation set is a file that holds one set")
    return images


def need_test(name, test):
    """`test`, or a DataError where the data set has no test images."""
    if test is None:
        raise DataError(f"{name} holds no test images")
    return test
