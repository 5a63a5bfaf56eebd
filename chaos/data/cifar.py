"""CIFAR-10 and CIFAR-100: the forms in which they are published, as folders or archives. Used by the data room.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: 50,000 and 10,000 colour images of 32x32. The
binary form are records of the label (of CIFAR-100 the coarse one, then the fine one) and 3,072 bytes: red, green, blue
plane. The "Python version" are pickled dictionaries, of which nothing is executed, see `unpickled`."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .folders import read_archive
from .places import Form, Paths, Remote, Source
from .unpickled import read_pickle

SHAPE = (3, 32, 32)
SIZE = 3 * 32 * 32
MOST_BYTES = 2**28
"""Largest file of the set that is read, 256 MiB."""

NAMES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
FINE = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
    forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
    mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
    willow_tree wolf woman worm""".split()
)
COARSE = tuple(
    """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
    insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2""".split()
)

URL = "https://www.cs.toronto.edu/~kriz/"
# The MD5 sums of the authors' page.
BINARY10, PYTHON10 = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
BINARY100, PYTHON100 = "cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"
SUMS = {BINARY10: "c32a1d4ab5d03f1284b67883e8d87530", BINARY100: "03b5dce01913d631647c71ecec9e9cb8"}
JPEG = "cifar10-jpeg.tar.xz"

_Read = Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]


def sources() -> tuple[Source, ...]:
    """CIFAR-10, and CIFAR-100 with its 100 fine classes or its 20 coarse ones."""
    batches = tuple(f"data_batch_{k}" for k in range(1, 6))
    binary = tuple(f"{name}.bin" for name in batches), ("test_batch.bin",)
    hundred = (("train.bin",), ("test.bin",)), (("train",), ("test",))
    hint = "put the folder or the archive of its binary or Python version"
    ten = _forms(
        "cifar10",
        NAMES,
        (binary, BINARY10, "cifar-10-batches-bin"),
        ((batches, ("test_batch",)), PYTHON10, "cifar-10-batches-py"),
    )
    return (
        Source(
            "cifar10",
            "photographs of 10 kinds of things, 50,000 and 10,000 images of 3x32x32",
            hint,
            (*ten, Form((JPEG,), _read_jpeg)),
            partial(_remotes, BINARY10),
            ("cifar10", "cifar-10"),
        ),
        *(
            Source(
                name,
                f"photographs, 50,000 and 10,000 images of 3x32x32, {len(names)} {'coarse ' * (names is COARSE)}classes",
                hint,
                _forms(
                    name, names, (hundred[0], BINARY100, "cifar-100-binary"), (hundred[1], PYTHON100, "cifar-100-python")
                ),
                partial(_remotes, BINARY100),
                ("cifar100", "cifar-100"),
            )
            for name, names in (("cifar100", FINE), ("cifar100_coarse", COARSE))
        ),
    )


def _remotes(archive: str) -> list[Remote]:
    return [Remote(archive, (URL + archive,), 180_000_000, f"md5:{SUMS[archive]}")]


def _forms(
    name: str, names: tuple[str, ...], *kinds: tuple[tuple[tuple[str, ...], tuple[str, ...]], str, str]
) -> tuple[Form, ...]:
    """The archives of the binary and of the Python form, then their content; of each kind the files for training and for the
    test, the archive, and the folder in it."""
    reads: tuple[_Read, _Read] = (partial(_binary, names), partial(_pickled, names))
    archives, folders = [], []
    for (halves, archive, folder), read in zip(kinds, reads, strict=True):
        archives.append(Form((archive,), partial(_read_archive, name, names, halves, folder, read)))
        folders.append(
            Form((*halves[0], *halves[1]), partial(_read_folder, name, names, len(halves[0]), read), inside=(folder,))
        )
    return (archives[0], *folders, *archives[1:])


def _read_folder(name: str, names: tuple[str, ...], training: int, read: _Read, paths: Paths) -> tuple[Dataset, Dataset]:
    """From files of which the first so many are for training."""
    parts = []
    for path in paths.values():
        try:
            with open(path, "rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
        parts.append(read(content, path))
    return _sets(name, names, parts[:training], parts[training:])


def _read_archive(
    name: str,
    names: tuple[str, ...],
    halves: tuple[tuple[str, ...], tuple[str, ...]],
    folder: str,
    read: _Read,
    paths: Paths,
) -> tuple[Dataset, Dataset]:
    """From a tar archive, of which nothing is written to the disk."""
    (path,) = paths.values()
    wanted = {f"{folder}/{file}": file for file in (*halves[0], *halves[1])}
    found: dict[str, Any] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = wanted.get(member.name)
                if file is not None and (opened := archive.extractfile(member)) is not None:
                    found[file] = opened.read(MOST_BYTES + 1)
    except Exception as error:  # tarfile, zlib and lzma raise a dozen kinds between them for damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable archive: {reason}") from None
    if missing := [member for member, file in wanted.items() if file not in found]:
        raise DataError(f"{path}: holds no {missing[0]}")
    train, test = ([read(found[file], f"{path}: {file}") for file in half] for half in halves)
    return _sets(name, names, train, test)


def _binary(names: tuple[str, ...], content: bytes, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the binary form."""
    before = 1 if names is NAMES else 2
    record = before + SIZE
    if not content or len(content) % record or len(content) > MOST_BYTES:
        raise DataError(f"{path}: {len(content)} bytes are no whole number of records of {record}")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, before:], records[:, 0 if names is COARSE else before - 1]


def _pickled(names: tuple[str, ...], content: bytes, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the Python form."""
    key = "labels" if names is NAMES else "coarse_labels" if names is COARSE else "fine_labels"
    found = read_pickle(content, path)
    for wanted in ("data", key):
        if not isinstance(found, dict) or wanted not in found:
            raise DataError(f"{path}: holds no {wanted!r}")
    images, labels = found["data"], found[key]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != SIZE:
        raise DataError(f"{path}: data must be an array (n, {SIZE}) of uint8")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < len(names) for label in labels):
        raise DataError(f"{path}: {key} must be a list of whole numbers from 0 to {len(names) - 1}")
    if len(labels) != len(images):
        raise DataError(f"{path}: {len(labels)} labels for {len(images)} images")
    return images, np.array(labels, np.uint8)


def _sets(name: str, names: tuple[str, ...], *halves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Dataset, Dataset]:
    """Training and test set of the parts of each."""
    train, test = (
        Dataset(
            np.concatenate([images for images, _ in parts]).reshape(-1, *SHAPE),
            np.concatenate([labels for _, labels in parts]),
            name=f"{name}/{half}",
            classes=len(names),
            class_names=names,
        )
        for half, parts in zip(("train", "test"), halves, strict=True)
    )
    return train, test


def _read_jpeg(paths: Paths) -> tuple[Dataset, Dataset]:
    """From an archive of JPEG files ``train|test/CLASS/NNNN.jpg``, whose pixels differ slightly from the original's. They
    lie there class by class, and come in a fixed random order here."""
    (path,) = paths.values()
    found = read_archive(os.fspath(path), shape=SHAPE, class_names=NAMES)
    if found[1] is None:
        raise DataError(f"{path}: holds no test images")
    train, test = (
        part[np.random.default_rng(seed).permutation(len(part))]._replaced(name=f"cifar10-jpeg/{half}")
        for part, seed, half in zip(found, (1, 2), ("train", "test"), strict=True)
        if part is not None
    )
    return train, test
