"""`chaos predict`: labels for images in files."""

from pathlib import Path

import numpy as np

from .. import data
from ..data import pictures
from ..errors import DataError
from .common import add_command, open_model, show_json

KINDS = "IDX files (plain or .gz), .npy and .npz"


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "predict",
        run,
        help="label images with a trained network",
        usage="RUN_OR_MODEL IMAGES... [options]",
        description="Prints a line per image: file[index], the most likely label and its probability. Images "
        f"are read from {KINDS} (array x_test, else the first one); pictures such as PNG need "
        "the package pillow; transparent parts of them are white. Images of another size are brought to "
        "the network's. Whole numbers are pixels of 0..255; other numbers are taken as the network sees "
        "them, -1 (black) to 1 (white).",
        examples=["chaos predict runs/first t10k-images-idx3-ubyte.gz", "chaos predict model.safetensors mine.npy --json"],
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run directory or .safetensors file")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="files with one or more images each")
    parser.add_argument("--proba", action="store_true", help="print the probabilities of all labels")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per image")


def run(arguments):
    """Runs the command."""
    net, _ = open_model(arguments.model)
    if len(net.output_shape) > 1 and not arguments.json:
        raise ValueError(
            f"{arguments.model}: the output is an image of shape {net.output_shape}; --json shows the label of each pixel"
        )
    # All files are read before the first line is printed, so that a bad one does not end half of the output.
    batches = [(path, read_images(path, net.input_shape)) for path in arguments.images]
    found = []
    for path, images in batches:
        for i, row in enumerate(net.predict_proba(images)):
            label, share = row.argmax(0), row.max(0)  # of an image for each pixel
            if arguments.json:
                one = {"file": path, "index": i, "label": label.tolist(), "probability": share.tolist()}
                found.append(one | ({"probabilities": row.tolist()} if arguments.proba else {}))
            else:
                shown = row if arguments.proba else [share]
                print(f"{path}[{i}]  {label}  {'  '.join(f'{p:.4f}' for p in shown)}")
    if arguments.json:
        show_json(found)


def read_images(path, shape):
    """Images for a network from one file.

    Parameters
    ----------
    path : str
    shape : tuple of int
        The network's input, (c, h, w) or (features,).

    Returns
    -------
    ndarray, (n, *shape)
        uint8 or float32.

    Raises
    ------
    DataError
        The file is missing, damaged or holds no images for this network.
    """
    kind = Path(path).suffix.lower()
    channels = shape[0] if len(shape) == 3 else 1
    if kind in (".npy", ".npz"):
        images = _read_numpy(path)
    elif kind in pictures.ENDINGS:
        images = pictures.read_picture(path, channels, shape[1:] if len(shape) == 3 else None)
    else:
        images = data.read_idx(path)
    if images.ndim == 2 and len(shape) == 1 and images.shape[1:] == shape:
        return data.Dataset(images, np.zeros(len(images), np.int64)).images
    if images.ndim == 2 or (images.ndim == 3 and channels > 1 and images.shape[0] == channels):
        images = images[None]  # a single image
    if images.ndim == 4 and images.shape[3] == channels != images.shape[1]:
        images = images.transpose(0, 3, 1, 2)
    try:
        images = data.Dataset(images, np.zeros(len(images), np.int64)).images
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if len(shape) == 1:
        images = images.reshape(len(images), -1)
    elif images.shape[1] == channels:
        images = data.fit(images, shape[1:])
    if images.shape[1:] != shape:
        raise DataError(f"{path}: images have shape {images.shape[1:]}, the network wants {shape}")
    return images


def _read_numpy(path):
    try:
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            if not content.files:
                raise DataError(f"{path}: holds no arrays")
            return content["x_test" if "x_test" in content.files else content.files[0]]
    except (DataError, OSError):
        raise
    except Exception as error:  # NumPy and zipfile raise a dozen kinds between them for damaged bytes
        raise DataError(f"{path}: not a readable NumPy file: {error or type(error).__name__}") from None
