"""Folders and archives of pictures, one folder per class. Used by the data room; needs Pillow.

FOLDER/CLASS/*.png                      one set
FOLDER/train/CLASS/*.png, FOLDER/test/  training and test set (also val, valid or validation, where there is no test)
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .pictures import ENDINGS, read_picture
from .sizes import check_size, fit

TESTS = ("test", "val", "valid", "validation")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
MOST_BYTES = 2**28
"""Largest member of an archive that is read, 256 MiB."""

Pair = tuple[Dataset, Dataset | None]
Wanted = tuple[int | None, tuple[int, int] | None]  # channels, and height and width
Tell = Callable[[tuple[int, int]], None]


class _Picture(NamedTuple):
    """A picture that is still to be read."""

    half: str  # the folder of the training or test images, "" where there is only one set
    label: str  # name of the class
    name: str  # for messages
    open: Callable[[], BinaryIO]


def read_folder(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    shape: tuple[int, ...] | None = None,
    class_names: Iterable[str] | None = None,
    tell: Tell | None = None,
) -> Pair:
    """Read a folder of pictures.

    Parameters
    ----------
    path : str or os.PathLike
        A folder that holds a folder for each class, or ``train`` and ``test`` that do. What is no picture by its name's
        ending is passed over, and so are hidden files.
    size : int or (int, int), optional
        Height and width to which all are brought: larger ones are reduced by weighted means, see `chaos.data.fit` for
        smaller ones. Without it all must have one size.
    shape : (int, int, int), optional
        Channels, height and width, instead of `size`. Without it the pictures are grey where all are, else colour.
    class_names : iterable of str, optional
        The classes in their order; the names of the folders, sorted, unless given (as numbers where all are).
    tell : callable, optional
        Called with the height and width of each picture that is brought to another size.

    Returns
    -------
    train, test : Dataset, Dataset or None
        uint8. In the order of classes, then of names: ``chaos.train`` shuffles, and so does ``train.split``; a slice holds
        the first classes only.

    Raises
    ------
    DataError
        No pictures, a class without pictures, a class of the test that is none of the training, pictures of several sizes,
        a damaged one.
    """
    top, wanted = os.fspath(path), _wanted(size, shape)
    try:
        if not os.path.isdir(top):
            raise DataError(f"{top}: not a folder")
        pictures = list(_walk(top))
    except OSError as error:
        raise DataError(f"{error.filename or top}: cannot be read: {error.strerror or error}") from None
    name = os.path.basename(os.path.abspath(top))
    return _sets(top, name, pictures, iter(pictures), wanted, class_names, tell)


def read_archive(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    shape: tuple[int, ...] | None = None,
    class_names: Iterable[str] | None = None,
    tell: Tell | None = None,
) -> Pair:
    """As `read_folder`, of a tar or zip archive of such a folder, of which nothing is written to the disk."""
    text, wanted = os.fspath(path), _wanted(size, shape)
    stem = os.path.basename(text)
    stem = next((stem[: -len(ending)] for ending in sorted(ARCHIVES, key=len)[::-1] if stem.lower().endswith(ending)), stem)
    try:
        with open(text, "rb") as file:
            if text.lower().endswith(".zip"):
                with zipfile.ZipFile(file) as archive:
                    pictures = _arranged(text, archive.namelist(), lambda one: io.BytesIO(archive.read(one)))
                    return _sets(text, stem, pictures, iter(pictures), wanted, class_names, tell)
            with tarfile.open(fileobj=file) as tar:
                members = {member.name: member for member in tar if member.isfile() and member.size <= MOST_BYTES}

                def opened(member: str) -> BinaryIO:
                    return io.BytesIO(tar.extractfile(members[member]).read())  # type: ignore[union-attr]

                pictures = _arranged(text, members, opened)
                # in the order of the archive: going back means to unpack it from its beginning
                at = {member.name: k for k, member in enumerate(members.values())}
                stored = sorted(pictures, key=lambda one: at[one.name])
                return _sets(text, stem, pictures, iter(stored), wanted, class_names, tell)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{text}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # tarfile, zipfile, zlib and lzma raise a dozen kinds between them for damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{text}: not a readable archive: {reason}") from None


def _walk(top: str) -> Iterator[_Picture]:
    """The pictures of a folder, half by half, class by class."""
    folders = _folders(top)
    test = next((name for name in TESTS if name in folders), None)
    halves = ["train", *([test] if test else [])] if "train" in folders else [""]
    for half in halves:
        inside = os.path.join(top, half) if half else top
        labels = _folders(inside)
        if not labels:
            raise DataError(f"{inside}: holds no folders; there must be one for each class, with its pictures")
        for label in labels:
            count = 0
            for folder, below, files in os.walk(os.path.join(inside, label)):
                below[:] = sorted(one for one in below if not one.startswith("."))
                for file in sorted(files):
                    if _is_picture(file):
                        path = os.path.join(folder, file)
                        count += 1
                        yield _Picture(half, label, path, lambda path=path: open(path, "rb"))  # type: ignore[misc]
            if not count:
                raise DataError(f"{os.path.join(inside, label)}: holds no pictures ({', '.join(ENDINGS)})")


def _folders(top: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(top) if entry.is_dir() and not entry.name.startswith("."))


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS


def _arranged(path: str, members: Iterable[str], opened: Callable[[str], BinaryIO]) -> list[_Picture]:
    """The pictures of an archive, sorted; it may hold the folder itself, or what is in it."""
    split = sorted((member.split("/"), member) for member in members if _is_picture(member.split("/")[-1]))
    rows = [(parts, member) for parts, member in split if not any(part.startswith(".") and part != "." for part in parts)]
    rows = [([part for part in parts if part != "."], member) for parts, member in rows]
    while rows and len({parts[0] for parts, _ in rows}) == 1 and min(len(parts) for parts, _ in rows) > 2:
        if rows[0][0][0] == "train":  # there is no test
            break
        rows = [(parts[1:], member) for parts, member in rows]
    firsts = {parts[0] for parts, _ in rows if len(parts) > 2}
    test = next((name for name in TESTS if name in firsts), None)
    found = []
    for parts, member in rows:
        half = parts.pop(0) if "train" in firsts else ""
        if half not in ("", "train", test):
            continue
        if len(parts) < 2:
            raise DataError(f"{path}: {member} is in no folder of a class")
        found.append(_Picture(half, parts[0], member, lambda member=member: opened(member)))  # type: ignore[misc]
    return found


def _sets(
    path: str,
    name: str,
    pictures: list[_Picture],
    stored: Iterator[_Picture],
    form: Wanted,
    class_names: Iterable[str] | None,
    tell: Tell | None,
) -> Pair:
    """Training and test set; `stored` are the pictures in the order in which they are best read."""
    if not pictures:
        raise DataError(f"{path}: holds no pictures ({', '.join(ENDINGS)}) in folders of classes")
    channels, wanted = form
    halves = {"train" if one.half in ("", "train") else "test" for one in pictures}
    training = {one.label for one in pictures if one.half in ("", "train")}
    if not training:
        raise DataError(f"{path}: holds no pictures for training")
    names = tuple(class_names) if class_names is not None else _sorted(training)
    if others := sorted({one.label for one in pictures} - set(names)):
        where = "none of the classes" if class_names is not None else "not among the folders for training"
        raise DataError(
            f"{path}: the folder {others[0]!r} is {where} ({', '.join(names[:10])}{', ...' * (len(names) > 10)})"
        )
    rows: dict[str, list[_Picture]] = {
        half: [one for one in pictures if (one.half in ("", "train")) == (half == "train")] for half in halves
    }
    rows = {half: sorted(ones, key=lambda one: names.index(one.label)) for half, ones in rows.items()}
    place = {one.name: (half, k) for half, ones in rows.items() for k, one in enumerate(ones)}
    arrays = {half: _Growing(len(ones)) for half, ones in rows.items()}
    for one in stored:
        half, k = place[one.name]
        arrays[half].put(k, _pixels(one, channels, wanted, tell), one.name)
    if len({array.images.shape[1:] for array in arrays.values()}) > 1 and wanted is None:
        train, test = (arrays[half].images.shape[2:] for half in ("train", "test"))
        if train != test:
            raise DataError(f"{path}: pictures for training have {train} pixels, those of the test {test}; give size=")
    most = max(array.images.shape[1] for array in arrays.values())
    found = {
        half: Dataset(
            arrays[half].with_channels(most),
            [names.index(one.label) for one in ones],
            name=f"{name}/{half}",
            classes=len(names),
            class_names=names,
        )
        for half, ones in rows.items()
    }
    return found["train"], found.get("test")


def _wanted(size: int | tuple[int, int] | None, shape: tuple[int, ...] | None) -> tuple[int | None, tuple[int, int] | None]:
    """Channels, and height and width."""
    if shape is None:
        return None, None if size is None else check_size(size)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"pictures have 1 or 3 channels, height and width; shape is {shape}")
    return shape[0], check_size(shape[1:] if size is None else size)


def _sorted(names: set[str]) -> tuple[str, ...]:
    """By the alphabet; numbers by size."""
    numeric = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numeric else (0, name)))


def _pixels(one: _Picture, channels: int | None, size: tuple[int, int] | None, tell: Tell | None) -> np.ndarray:
    """One picture (c, h, w), brought to the size."""

    def told(_: int, found: tuple[int, int]) -> None:
        if tell is not None and size is not None and found != size:
            tell(found)

    with one.open() as file:
        pixels = read_picture(one.name, channels, size, told, file)[0]
    return pixels if size is None else fit(pixels, size)


class _Growing:
    """An array of images that takes its size from the first one, and its channels from the first that has colours."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.images = np.empty((0, 0, 0, 0), np.uint8)
        self.first = ""

    def put(self, k: int, pixels: np.ndarray, name: str) -> None:
        """Takes an image (c, h, w)."""
        if not self.images.size:
            self.images, self.first = np.empty((self.count, *pixels.shape), np.uint8), name
        if pixels.shape[1:] != self.images.shape[2:]:
            (h, w), (height, width) = pixels.shape[1:], self.images.shape[2:]
            raise DataError(f"{name}: {h}x{w} pixels, where {self.first} has {height}x{width}; size= brings all to one size")
        if len(pixels) > self.images.shape[1]:
            self.images = self.with_channels(len(pixels))
        self.images[k] = pixels  # grey ones are the same in all channels

    def with_channels(self, channels: int) -> np.ndarray:
        """The images, grey ones as colours of equal parts where colours are wanted."""
        if self.images.shape[1] == channels:
            return self.images
        return np.repeat(self.images, channels, axis=1)
