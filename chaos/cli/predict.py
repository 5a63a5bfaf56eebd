"""`chaos predict`: labels for images in files."""

import math
from pathlib import Path

import numpy as np

from .. import data
from ..data import pictures
from ..errors import DataError
from .common import add_command, declare_best, declare_precision, say, show_json
from .networks import open_model

KINDS = "IDX files (plain or .gz), .npy and .npz"


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "predict",
        run,
        usage="RUN_OR_MODEL IMAGES... [options]",
        description="Prints a line per image: file[index], the most likely label, by its name where the network was "
        "trained on classes with names, and its probability. Images "
        f"are read from {KINDS} (array x_test, else the first one); pictures such as PNG need "
        "the package pillow; transparent parts of them are white. Images of another size are brought to "
        "the network's, which is said. Whole numbers are pixels of 0..255; other numbers are taken as the network "
        "sees them, -1 (black) to 1 (white), or as it saw them in its training; numbers unlike those of its "
        "training are refused or warned about.",
        examples=["chaos predict runs/first t10k-images-idx3-ubyte.gz", "chaos predict model.safetensors mine.npy --json"],
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run directory or .safetensors file")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="files with one or more images each")
    declare_best(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one per available core)")
    declare_precision(parser)
    parser.add_argument("--proba", action="store_true", help="print the probabilities of all labels")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per image")


def run(arguments):
    """Runs the command."""
    net, _ = open_model(arguments.model, arguments.best)
    net.precision = arguments.precision
    if len(net.output_shape) > 1 and not arguments.json:
        raise ValueError(
            f"{arguments.model}: the output is an image of shape {net.output_shape}; --json shows the label of each pixel"
        )
    # Everything is known before the first line is printed, so that a bad file does not end half of the output.
    notes = Notes()
    batches = [(path, read_images(path, net.input_shape, notes)) for path in arguments.images]
    notes.say(net.input_shape)
    shares = [(path, _shares(net, path, images, arguments.workers)) for path, images in batches]
    found, names = [], net.class_names or ()
    for path, rows in shares:
        for i, row in enumerate(rows):
            label, share = row.argmax(0), row.max(0)  # of an image for each pixel
            name = names[label] if label.ndim == 0 and label < len(names) else None
            if arguments.json:
                one = {"file": path, "index": i, "label": label.tolist(), "probability": share.tolist()}
                one |= {"name": name} if name is not None else {}
                found.append(one | ({"probabilities": row.tolist()} if arguments.proba else {}))
            else:
                shown = row if arguments.proba else [share]
                print(f"{path}[{i}]  {label if name is None else name}  {'  '.join(f'{p:.4f}' for p in shown)}")
    if arguments.json:
        show_json(found)


def _shares(net, path, images, workers):
    try:
        return net.predict_proba(images, workers=workers)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


class Notes:
    """What is done to images without having been asked for: told in a line each, however many files there are."""

    def __init__(self):
        self.resized, self.animated = [], []

    def seen(self, path, size, wanted, frames=1):
        """A file's images have that (height, width), and that many frames, of which the first is taken."""
        if tuple(size) != tuple(wanted):
            self.resized.append(f"{path} of {size[0]}x{size[1]}")
        if frames > 1:
            self.animated.append(f"{path} of {frames}")

    def say(self, shape):
        """Tells it on standard error."""
        for found, text in (
            (self.resized, f"of another size brought to the network's {'x'.join(map(str, shape[1:]))} pixels"),
            (self.animated, "with several frames, of which the first is taken"),
        ):
            if found:
                say(f"{len(found)} file{'s'[: len(found) > 1]} {text}: {', '.join(found[:3])}{', ...' * (len(found) > 3)}")


def read_images(path, shape, notes=None):
    """Images for a network from one file.

    Parameters
    ----------
    path : str
    shape : tuple of int
        The network's input, (c, h, w) or (features,).
    notes : Notes, optional
        Is told what is done to the images.

    Returns
    -------
    ndarray, (n, *shape)
        uint8 or float32.

    Raises
    ------
    DataError
        The file is missing, damaged or holds no images for this network.
    """
    kind, notes, image = Path(path).suffix.lower(), notes or Notes(), len(shape) == 3
    if kind in pictures.ENDINGS:
        wanted = shape[1:] if image else None
        images = pictures.read_picture(
            path, shape[0] if image else 1, wanted, lambda frames, size: notes.seen(path, size, wanted or size, frames)
        )
    else:
        images = _read_numpy(path) if kind in (".npy", ".npz") else _read_idx(path)
    if not images.ndim or not images.size:
        raise DataError(f"{path}: shape {images.shape} holds no images")
    try:
        images = (_layered if image else _flat)(images, shape)
        images = data.Dataset((images,), np.zeros(len(images), np.int64)).images
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if image and images.shape[1] == shape[0]:
        if kind not in pictures.ENDINGS:
            notes.seen(path, images.shape[2:], shape[1:])
        images = data.fit(images, shape[1:])
    if images.shape[1:] != shape:
        raise DataError(f"{path}: images have shape {images.shape[1:]}, the network wants {shape}")
    return images


def _read_idx(path):
    """The array in an IDX file; what is no file of a known kind is told so, not which of its bytes are wrong."""
    try:
        return data.read_idx(path)
    except DataError as error:
        if "idx" in Path(path).name or not Path(path).exists():
            raise
        raise DataError(
            f"{path}: is no file of a known kind, which are {KINDS} ({str(error).removeprefix(f'{path}: ')})"
        ) from None


def _layered(images, shape):
    """Images (n, c, h, w), of whatever size, for a network that takes (c, h, w)."""
    wanted, channels = ", ".join(map(str, shape)), shape[0]
    if images.ndim == 2 and images.shape[1] == math.prod(shape) and images.shape != shape[1:]:
        raise DataError(
            f"a table of {len(images)} rows of {images.shape[1]} numbers, where the network wants images (n, {wanted}); "
            f"where a row is an image, channel after channel, reshape(-1, {wanted}) makes them"
        )
    if images.ndim == 2 or (images.ndim == 3 and channels > 1 and images.shape[0] == channels):
        images = images[None]  # a single image
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise DataError(f"{images.ndim} dimensions, shape {images.shape}, where the network wants images (n, {wanted})")
    if images.shape[3] == channels != images.shape[1]:
        images = images.transpose(0, 3, 1, 2)
    return images


def _flat(images, shape):
    """(n, *shape) for a network that takes vectors or sequences, of arrays with as many numbers each."""
    one = images.shape == shape or (images.ndim == 2 and images.shape[1:] != shape)
    images = images[None] if one else images
    return images.reshape(len(images), *(shape if images[0].size == math.prod(shape) else (-1,)))


def _read_numpy(path):
    import zipfile

    from ..formats.zipped import read_member

    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return np.load(file, allow_pickle=False)
            with zipfile.ZipFile(file) as archive:
                there = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
                if not there:
                    raise DataError(f"{path}: holds no arrays")
                return read_member(archive, "x_test" if "x_test" in there else there[0], str(path), DataError)
    except (DataError, OSError):
        raise
    except Exception as error:  # NumPy and zipfile raise a dozen kinds between them for damaged bytes
        raise DataError(f"{path}: not a readable NumPy file: {error or type(error).__name__}") from None
