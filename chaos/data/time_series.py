"""Sequences with labels from `.ts` files, the text format of the time-series classification archive; and the spoken vowels.
Anybody may use it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, DataNotFound
from .dataset import Dataset

VOWELS = "JapaneseVowels"
CARRIERS = ("aeon", "sktime")  # packages that bring the vowels along, in datasets/data/


def japanese_vowels(
    data_dir: str | os.PathLike[str] | None = None, *, length: int = 29, stretch: bool = False
) -> tuple[Dataset, Dataset]:
    """Utterances of two Japanese vowels by nine men, as 12 linear prediction coefficients per frame: 270 for training and
    370 for testing; who is speaking? (Kudo, Toyama, Shimbo 1999, "Multidimensional curve classification using
    passing-through regions"; UCI Machine Learning Repository.)

    Looked for in ``$CHAOS_DATA_DIR/JapaneseVowels/``, then among the files of the packages aeon and sktime, which bring it
    along; neither is imported.

    Parameters
    ----------
    data_dir : path, optional
        Instead of ``$CHAOS_DATA_DIR``.
    length : int
        Frames of every sequence; shorter ones (they have 7 to 29) are continued with zeros.
    stretch : bool
        Shorter ones are stretched to `length` frames instead, by linear interpolation: what is averaged over time is then
        not thinned by zeros.

    Returns
    -------
    (Dataset, Dataset)
        Training and test: sequences float32 (n, 12, length), each coefficient with mean 0 and deviation 1 over the frames
        for training.

    Raises
    ------
    DataNotFound
        Where the files are nowhere; the message says how to get them.
    DataError
        Where they are damaged, or a sequence is longer than `length`.
    """
    folder = folder_of_vowels(data_dir)
    parts = [read_ts(folder / f"{VOWELS}_{part}.ts") for part in ("TRAIN", "TEST")]
    frames = np.concatenate(parts[0][0], axis=1)
    mean, deviation = frames.mean(1, keepdims=True), frames.std(1, keepdims=True)
    names = sorted(set(parts[0][1]))
    found = []
    for (sequences, labels), part in zip(parts, ("train", "test"), strict=True):
        if unknown := sorted(set(labels) - set(names)):
            raise DataError(f"{folder}: test labels {', '.join(unknown)} are not among those for training")
        images = np.zeros((len(sequences), len(mean), length), np.float32)
        for image, sequence in zip(images, sequences, strict=True):
            if sequence.shape[0] != len(mean) or sequence.shape[1] > length:
                raise DataError(f"{folder}: a sequence of shape {sequence.shape} does not fit ({len(mean)}, {length})")
            normal = (sequence - mean) / deviation
            if stretch:
                normal = _stretched(normal, length)
            image[:, : normal.shape[1]] = normal
        classes = [names.index(label) for label in labels]
        found.append(Dataset((images,), classes, name=f"{VOWELS}/{part}", classes=len(names)))
    return found[0], found[1]


def _stretched(sequence: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """The sequence (dimensions, frames) at `length` places from its first frame to its last, as far from each other."""
    frames = sequence.shape[1]
    at = np.linspace(0, frames - 1, length)
    return np.stack([np.interp(at, np.arange(frames), row) for row in sequence])


def folder_of_vowels(data_dir: str | os.PathLike[str] | None) -> Path:
    """Where the vowels are."""
    given = os.environ.get("CHAOS_DATA_DIR") if data_dir is None else data_dir
    places = [Path(given) / VOWELS] if given else []
    for package in CARRIERS:
        spec = importlib.util.find_spec(package)
        places += [Path(place, "datasets", "data", VOWELS) for place in (spec and spec.submodule_search_locations) or ()]
    for place in places:
        if (place / f"{VOWELS}_TRAIN.ts").is_file():
            return place
    raise DataNotFound(
        f"{VOWELS}_TRAIN.ts and {VOWELS}_TEST.ts are in none of: {', '.join(map(str, places)) or 'no folder'}; "
        "they come with the package aeon: pip install --no-deps aeon"
    )


def read_ts(path: str | os.PathLike[str]) -> tuple[list[NDArray[np.float64]], list[str]]:
    """The sequences of a `.ts` file, float64 (dimensions, length) each, and their labels; DataError, with the line, where
    it is no such file, has no labels, time stamps or missing values."""
    sequences: list[NDArray[np.float64]] = []
    labels: list[str] = []
    for number, line in _lines(path):
        *dimensions, label = line.split(":")
        try:
            rows = [np.array(dimension.split(","), np.float64) for dimension in dimensions]
            sequence = np.stack(rows)
        except ValueError:
            raise DataError(f"{path}: line {number} holds no sequence of numbers with as many in each dimension") from None
        if not np.isfinite(sequence).all():
            raise DataError(f"{path}: line {number} holds NaN or infinity")
        if sequences and len(sequence) != len(sequences[0]):
            raise DataError(f"{path}: line {number} has {len(sequence)} dimensions, those before {len(sequences[0])}")
        sequences.append(sequence)
        labels.append(label.strip())
    if not sequences:
        raise DataError(f"{path}: holds no sequences")
    return sequences, labels


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """The lines with data, numbered from 1."""
    data = labelled = False
    try:
        with open(path, encoding="utf-8") as file:
            for number, raw in enumerate(file, 1):
                line = raw.strip()
                if data and line:
                    yield number, line
                    continue
                word, *rest = line.lower().split() or [""]
                if word == "@timestamps" and rest[:1] == ["true"]:
                    raise DataError(f"{path}: line {number}: sequences with time stamps are not read")
                labelled |= word == "@classlabel" and rest[:1] == ["true"]
                if word == "@data":
                    if not labelled:
                        raise DataError(f"{path}: has no labels (@classLabel true)")
                    data = True
    except FileNotFoundError:
        raise DataNotFound(f"{path} is not there") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text") from None
    if not data:
        raise DataError(f"{path}: has no line @data")
