"""MNIST: where its four files are looked for, what they must be. Used by the data room.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), 1998. 60,000 training and 10,000 test images of 28x28 pixels.
"""

from __future__ import annotations

import os
import stat

from ..errors import DataError, DataNotFound
from .dataset import Dataset
from .idx import read_images_and_labels

FILES = {
    "train-images-idx3-ubyte": (47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
"""Name: (bytes, SHA-256), both of the uncompressed content."""

MIRRORS = ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")


def load_mnist(*, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> tuple[Dataset, Dataset]:
    """Load MNIST from the first of: data directory, cache, mirrors.

    Parameters
    ----------
    data_dir : str or os.PathLike, optional
        Looked into before the cache, at ``data_dir/mnist/``; ``$CHAOS_DATA_DIR`` unless given. Files there
        are trusted for what they show (they may be another set in MNIST's form) but not for their format.
    download : bool
        Whether files that are missing may be downloaded into the cache.

    Returns
    -------
    train, test : Dataset, Dataset
        uint8 (n, 1, h, w), 10 classes.

    Raises
    ------
    DataError
        The data directory holds some of the four files but not all, or a file is damaged.
    DataNotFound
        Files are missing and could not be (or were not to be) downloaded.
    """
    paths, looked = None, []
    data_dir = os.environ.get("CHAOS_DATA_DIR") if data_dir is None else os.fspath(data_dir)
    if data_dir:
        folder = os.path.join(data_dir, "mnist")
        looked.append(folder)
        paths = find_files(folder)
        missing = [name for name in FILES if name not in paths]
        if paths and missing:
            raise DataError(f"{folder}: holds part of mnist but not {', '.join(missing)} (plain or .gz)")
    if not paths:
        looked.append(cache_folder())
        paths = _from_cache(looked, download)

    arrays = [
        read_images_and_labels(paths[f"{part}-images-idx3-ubyte"], paths[f"{part}-labels-idx1-ubyte"])
        for part in ("train", "t10k")
    ]
    if arrays[0][0].shape[1:] != arrays[1][0].shape[1:]:
        raise DataError(
            f"{paths['t10k-images-idx3-ubyte']}: dimensions: test images of {arrays[1][0].shape[1:]} pixels, "
            f"training images of {arrays[0][0].shape[1:]}"
        )
    train, test = (
        Dataset(images, labels, name=name, classes=10)
        for (images, labels), name in zip(arrays, ("mnist/train", "mnist/test"), strict=True)
    )
    return train, test


def cache_folder() -> str:
    """``mnist`` in the user's cache for chaos: ``$XDG_CACHE_HOME/chaos``, with ``~/.cache`` if that is unset.

    Always an absolute path: where no home is known (as for a user of a container without an entry in
    ``/etc/passwd``), a folder of the user's own among the temporary files.
    """
    import platformdirs

    try:
        base = platformdirs.user_cache_dir("chaos")
    except RuntimeError:  # no home is known
        base = ""
    if not os.path.isabs(base):  # older platformdirs take a relative $XDG_CACHE_HOME as it is
        base = os.path.join(os.path.expanduser("~"), ".cache", "chaos")
    if not os.path.isabs(base):
        base = _temporary_folder()
    return os.path.join(base, "mnist")


def _temporary_folder() -> str:
    """``/tmp/chaos-UID``, which must not be another's: what lies there is believed."""
    import tempfile

    folder = os.path.join(tempfile.gettempdir(), f"chaos-{os.getuid()}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        status = os.lstat(folder)
        if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
            raise DataNotFound(
                f"no home directory is known, and {folder} belongs to somebody else; set XDG_CACHE_HOME or CHAOS_DATA_DIR"
            ) from None
    except OSError:  # a message will name the folder when something is to be written into it
        pass
    return folder


def find_files(folder: str) -> dict[str, str]:
    """The files of MNIST in a folder as {usual name: path}; plain ones before ``.gz`` ones."""
    found = {}
    for name in FILES:
        for path in (os.path.join(folder, name), os.path.join(folder, name + ".gz")):
            # A broken link or a directory of that name counts: reading it will say what is wrong.
            if name not in found and os.path.lexists(path):
                found[name] = path
    return found


def _from_cache(looked: list[str], download: bool) -> dict[str, str]:
    """Paths of the four files in the cache, which is filled if need be; `looked` is for the message."""
    folder = looked[-1]
    paths = find_files(folder)
    missing = [name for name in FILES if name not in paths]
    if not missing:
        return paths
    where = f"mnist is not on this machine (looked in {' and '.join(looked)})"
    hint = "put its four IDX files into $CHAOS_DATA_DIR/mnist/"
    if not download:
        raise DataNotFound(f"{where} and downloading is switched off; {hint}")

    from .download import fetch

    for name in missing:
        size, sha256 = FILES[name]
        try:
            paths[name] = fetch([f"{mirror}{name}.gz" for mirror in MIRRORS], size, sha256, folder, name)
        except DataNotFound as error:
            raise DataNotFound(f"{where} and could not be downloaded: {error}; {hint}") from None
    return paths
