"""`chaos data`: the data sets there are, and what a file holds before anything is trained on it."""

import os
import shlex
import warnings
import zipfile
from pathlib import Path

import numpy as np

from .. import data
from ..data import time_series
from ..errors import DataError, DataNotFound
from ..scale import BEYOND, Scale
from .common import add_command, complain, percent, print_table, show_json

MANY = 20  # classes that are shown one by one
UNEVEN = 10.0  # the largest class has so many times the images of the smallest


def add(commands):
    """Adds the command and its kinds to the parser."""
    parser = add_command(
        commands,
        "data",
        None,
        usage="list|check [options]",
        description="Says what data sets there are by name, and what a file or folder holds.",
        examples=["chaos data list", "chaos data check mine.npz"],
    )
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", prog="chaos data", required=True)
    listing = add_command(
        kinds,
        "list",
        list_sets,
        help="the data sets that have names",
        usage="[options]",
        description="Lists the data sets that have names, and whether they are on this machine. Nothing is downloaded.",
        examples=["chaos data list", "chaos data list --json"],
    )
    checking = add_command(
        kinds,
        "check",
        check,
        help="what a file or folder holds, and what would be refused",
        usage="FILE [options]",
        description="Reads a data set as a training would and shows shape, type, classes, how many images each has, and "
        "the scale of the numbers; then what is odd. Where a training would refuse it: the reason, what the file "
        "holds instead, the call that makes it right, and exit code 2.",
        examples=["chaos data check mine.npz", "chaos data check mnist --json"],
    )
    checking.add_argument("file", metavar="FILE", help="a name of chaos data list, a file or a folder")
    for one in (listing, checking):
        one.add_argument("--json", action="store_true", help="print JSON")


def list_sets(arguments):
    """Runs `chaos data list`."""
    found = [_listed(name) for name in data.NAMES]
    if arguments.json:
        show_json(found)
        return
    rows = [("name", "here", ""), *((one["name"], "yes" if one["here"] else "no", one["about"]) for one in found)]
    print_table(rows, left=3)
    print("\nWhat is not here is downloaded when it is asked for, except for japanese_vowels: pip install --no-deps aeon")
    print(f"And paths: {data.FILES}")


def _listed(name):
    """What there is to say about a data set without reading it: name, here, folder (None where it comes with the package),
    about."""
    folder, here = None, True
    if name in data.sources():
        source = data.sources()[name]
        folder, about = source.where(), source.about
        here = folder is not None
    elif name == "digits":
        about = "handwritten digits that come with chaos: 1,437 and 360 images of 8x8, 10 classes"
    else:
        about = "two vowels spoken by nine men: 270 and 370 sequences of 12 numbers, 9 classes"
        try:
            folder = str(time_series.folder_of_vowels(None))
        except DataNotFound:
            here = False
    return {"name": name, "here": here, "folder": folder, "about": about}


def check(arguments):
    """Runs `chaos data check`."""
    name = arguments.file
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            train, test = data.load(name)
    except DataError as error:
        held = held_in(name)
        if arguments.json:
            show_json({"data": name, "refused": str(error), "arrays": held, "call": right_call(name, held)})
        else:
            if held:
                print_table(
                    [("array", "shape", "type"), *((key, _size(shape), kind) for key, (shape, kind) in held.items())]
                )
            if call := right_call(name, held):
                print(f"to make it right:  {call}")
        raise SystemExit(complain(error)) from None
    parts = {"training": train} | ({} if test is None else {"test": test})
    found = {
        "data": name,
        "parts": {part: describe(one) for part, one in parts.items()},
        "notes": [str(one.message) for one in told] + oddities(train, test),
    }
    if arguments.json:
        show_json(found)
        return
    for part, about in found["parts"].items():
        print(f"{part:10}  {about['images']:,} images {' and '.join(map(_size, about['shapes']))}, {about['type']}")
        print(f"{'scale':10}  {about['scale']}")
        if about["classes"]:
            counts = about["counts"]
            told = (
                ", ".join(f"{label}: {count:,}" for label, count in zip(about["names"], counts, strict=True))
                if len(counts) <= MANY
                else f"{min(counts):,} to {max(counts):,} images each"
            )
            print(f"{'classes':10}  {about['classes']} ({told})")
        else:
            print(f"{'targets':10}  {about['targets']}")
    for note in found["notes"]:
        print(f"note        {note}")
    print(f"train       chaos train MODEL --data {shlex.quote(name)}")


def describe(part):
    """What a data set holds.

    Returns
    -------
    dict
        images, shapes (of an image, for each input), type, scale (in words), classes, names (of the classes), counts (images
        of each), and targets (in words, where there are no classes).
    """
    scales = [Scale.of(array) for array in part.inputs]
    seen = [f"{one}, seen as -1..1" if one.pixels else f"{one}, seen as they are" for one in scales]
    return {
        "images": len(part),
        "shapes": [list(array.shape[1:]) for array in part.inputs],
        "type": " and ".join(str(array.dtype) for array in part.inputs),
        "scale": "; ".join(seen),
        "classes": part.classes,
        "names": list(part.class_names or range(part.classes)),
        "counts": _counts(part).tolist() if part.classes else [],
        "targets": f"{part.labels.dtype}, {_size(part.labels.shape[1:]) or 'one'} per image",
    }


def oddities(train, test):
    """What is not refused and yet hardly meant, in words."""
    notes = []
    for scale in (Scale.of(array) for array in train.inputs):
        if not scale.pixels and scale.largest > BEYOND:
            notes.append(
                f"floats from {scale.least:.4g} to {scale.most:.4g} are taken as they are; networks learn better from about "
                "-1..1 (pixels as uint8 are brought there)"
            )
    if train.classes:
        counts = _counts(train)
        empty = [label for label, count in enumerate(counts) if not count]
        if empty and empty != [0]:  # which is told when the data are loaded
            notes.append(
                f"no training image of class {', '.join(map(str, empty[:5]))}{', ...' * (len(empty) > 5)}, though the "
                f"largest label makes {train.classes} classes; labels count from 0"
            )
        there = counts[counts > 0]
        if there.max() > UNEVEN * there.min():
            notes.append(
                f"class {int(counts.argmax())} has {there.max() / there.min():.0f} times as many images as another; "
                "class weights are for that"
            )
    if test is not None and len(train.inputs) == len(test.inputs) == 1:
        seen = {row.tobytes() for row in np.ascontiguousarray(train.images)}
        twice = sum(row.tobytes() in seen for row in np.ascontiguousarray(test.images))
        if twice:
            notes.append(f"{twice:,} of {len(test):,} test images ({percent(twice / len(test))}) are training images, too")
    return notes


def held_in(name):
    """{array: (shape, type)} of a .npz or .npy file, as far as it can be read; {} of anything else."""
    try:
        if Path(name).suffix.lower() == ".npy":
            array = np.load(name, mmap_mode="r", allow_pickle=False)
            return {"(the array)": (array.shape, str(array.dtype))}
        found = {}
        with zipfile.ZipFile(name) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                    shape, _, kind = read(file)
                    found[os.path.splitext(member)[0]] = (shape, str(kind))
        return found
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError):
        return {}


def right_call(name, held):
    """The line of Python that makes a data set of the arrays that a file holds, as far as their shapes tell; None else."""
    if not held:
        return None
    images = [key for key, (shape, _) in held.items() if len(shape) >= 2 and shape[1:] != (1,)]
    labels = [key for key, (shape, _) in held.items() if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)]
    if "(the array)" in held:
        return f'np.savez("data.npz", x_train=np.load("{name}"), y_train=LABELS)'
    pairs = [(x, y) for x in images for y in labels if held[x][0][:1] == held[y][0][:1]]
    if not pairs or set(held) & {*data.npz.KEYS[0], *data.npz.KEYS[1]} > {"x_train", "y_train"}:
        return None
    x, y = pairs[0]
    return f'd = np.load("{name}"); np.savez("data.npz", x_train=d["{x}"], y_train=d["{y}"])'


def _counts(part):
    labels = part.labels[part.labels >= 0].ravel()
    return np.bincount(labels.astype(np.int64), minlength=part.classes)


def _size(shape):
    return "x".join(map(str, shape))
