"""MNIST and the sets in its form: four IDX files each; where they come from, what they must be. Used by the data room.

MNIST: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of
the IEEE 86(11), 1998. Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf, arXiv 1708.07747, 2017. KMNIST: T. Clanuwat et al.,
"Deep Learning for Classical Japanese Literature", arXiv 1812.01718, 2018. EMNIST: G. Cohen, S. Afshar, J. Tapson, A. van
Schaik, "EMNIST: an extension of MNIST to handwritten letters", arXiv 1702.05373, 2017."""

from __future__ import annotations

import io
import os
import string
import zipfile
from functools import partial

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .idx import check_pair, read_idx, read_idx_from, read_images_and_labels
from .places import Form, Paths, Remote, Source

FILES = {
    "train-images-idx3-ubyte": (47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
"""Name: (bytes, SHA-256), both of the uncompressed content."""

MIRRORS = ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")

# MD5 sums of the compressed files, for Fashion-MNIST as its authors publish them, else as the field's libraries check them.
FASHION = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
FASHION_MIRRORS = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
FASHION_NAMES = tuple("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(","))

KUZUSHIJI = {
    "train-images-idx3-ubyte": "bdb82020997e1d708af4cf47b453dcf7",
    "train-labels-idx1-ubyte": "e144d726b3acfaa3e44228e80efcd344",
    "t10k-images-idx3-ubyte": "5c965bf0a639b31b8f53240b1b52f4d7",
    "t10k-labels-idx1-ubyte": "7320c461ea6c1c855c0b718fb2a4b134",
}
KUZUSHIJI_MIRRORS = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)
KUZUSHIJI_NAMES = tuple("o ki su tsu na ha ma ya re wo".split())

EMNIST_ARCHIVE = Remote(
    "gzip.zip",
    ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
    580_000_000,
    "md5:58c8d27c78d21e728a6bc7b3cc06412e",
)
_MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")
EMNIST = {
    "balanced": _MERGED,
    "bymerge": _MERGED,
    "byclass": (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase),
    "letters": tuple(string.ascii_lowercase),
    "digits": tuple(string.digits),
    "mnist": tuple(string.digits),
}
"""Part: names of its classes. Capital and small letters that look alike are one class of "balanced" and "bymerge"; all
are in "letters", whose files count from 1."""


def sources() -> tuple[Source, ...]:
    """All of them."""
    return (
        Source(
            "mnist",
            "handwritten digits: 60,000 and 10,000 images of 28x28, 10 classes",
            "put its four IDX files",
            (Form(tuple(FILES), partial(_read, "mnist", None), True),),
            lambda: [
                Remote(name, tuple(f"{url}{name}.gz" for url in MIRRORS), size, f"sha256:{digest}")
                for name, (size, digest) in FILES.items()
            ],
            ("mnist", "MNIST/raw"),
            ("mnist",),
        ),
        Source(
            "fashion_mnist",
            "pieces of clothing in MNIST's form, 10 classes",
            "install Debian's dataset-fashion-mnist, or put its four IDX files",
            (Form(tuple(FASHION), partial(_read, "fashion_mnist", FASHION_NAMES), True),),
            lambda: _packed(FASHION, FASHION_MIRRORS),
            ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
            ("fashion-mnist",),
        ),
        Source(
            "kmnist",
            "old Japanese characters in MNIST's form, 10 classes",
            "put its four IDX files",
            (Form(tuple(KUZUSHIJI), partial(_read, "kmnist", KUZUSHIJI_NAMES), True),),
            lambda: _packed(KUZUSHIJI, KUZUSHIJI_MIRRORS),
            ("kmnist", "KMNIST/raw"),
        ),
        *map(_emnist, EMNIST),
    )


def _emnist(part: str) -> Source:
    """A part of EMNIST; "balanced" is what is meant by the name alone."""
    name = "emnist" if part == "balanced" else f"emnist_{part}"
    files = tuple(
        f"emnist-{part}-{half}-{what}-ubyte" for half in ("train", "test") for what in ("images-idx3", "labels-idx1")
    )
    archives = [Form((file,), partial(_read_emnist_archive, name, part, files)) for file in ("gzip.zip", "emnist-gzip.zip")]
    return Source(
        name,
        f"EMNIST's part {part!r}: handwritten characters of 28x28, {len(EMNIST[part])} classes",
        "put gzip.zip, or what it holds,",
        (*archives, Form(files, partial(_read_emnist, name, part), True, ("gzip",))),
        lambda: [EMNIST_ARCHIVE],
        ("emnist", "EMNIST/raw"),
    )


def own_files(folder: str) -> tuple[Dataset, Dataset]:
    """The set of four IDX files in a folder, of however many classes."""
    paths = Form(tuple(FILES), partial(_read, "idx", None), True).find(folder)
    if missing := [name for name in FILES if name not in paths]:
        raise DataError(f"{folder}: holds {next(iter(paths))} but no {', '.join(missing)} (plain or .gz)")
    images, labels, test_images, test_labels = paths.values()
    train, test = read_images_and_labels(images, labels, 256), read_images_and_labels(test_images, test_labels, 256)
    classes = 1 + int(max(train[1].max(), test[1].max()))
    return _sets(os.path.basename(os.path.abspath(folder)), None, classes, train, test, test_images)


def _packed(sums: dict[str, str], mirrors: tuple[str, ...]) -> list[Remote]:
    """Files with the MD5 of their compressed form; none is much larger than MNIST's."""
    return [
        Remote(f"{name}.gz", tuple(f"{url}{name}.gz" for url in mirrors), FILES[name][0], f"md5:{digest}")
        for name, digest in sums.items()
    ]


def _read(name: str, names: tuple[str, ...] | None, paths: Paths) -> tuple[Dataset, Dataset]:
    """Training and test set of four files, of which those for training come first."""
    images, labels, test_images, test_labels = paths.values()
    train, test = read_images_and_labels(images, labels), read_images_and_labels(test_images, test_labels)
    return _sets(name, names, 10, train, test, test_images)


def _read_emnist(name: str, part: str, paths: Paths) -> tuple[Dataset, Dataset]:
    return _emnist_pairs(name, part, [(path, read_idx(path)) for path in paths.values()])


def _read_emnist_archive(name: str, part: str, files: tuple[str, ...], paths: Paths) -> tuple[Dataset, Dataset]:
    """From the archive as it is published."""
    (path,) = paths.values()
    try:
        with open(path, "rb") as opened, zipfile.ZipFile(opened) as archive:
            found = []
            for file in files:
                member = f"gzip/{file}.gz"
                if member not in archive.namelist():
                    raise DataError(f"{path}: holds no {member}")
                content = archive.read(member)
                found.append((f"{path}: {member}", read_idx_from(io.BytesIO(content), f"{path}: {member}", len(content))))
    except DataError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds between them for damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable zip archive: {reason}") from None
    return _emnist_pairs(name, part, found)


def _emnist_pairs(name: str, part: str, arrays: list[tuple[str, np.ndarray]]) -> tuple[Dataset, Dataset]:
    """EMNIST's images lie on their side, column by column, and its letters count from 1."""
    first = 1 if part == "letters" else 0
    turned = []
    for path, array in arrays:
        if array.ndim == 3:
            array = array.transpose(0, 2, 1)
        elif array.dtype == np.uint8 and first:
            if not array.min():
                raise DataError(f"{path}: payload: label {int(array.argmin())} is 0, must be from 1 to 26")
            array = array - np.uint8(1)
        turned.append((path, array))
    classes = len(EMNIST[part])
    for (path, images), (labels_path, labels) in (turned[:2], turned[2:]):
        check_pair(path, images, labels_path, labels, classes)
    (_, train), (_, labels), (path, test), (_, test_labels) = turned
    return _sets(name, EMNIST[part], classes, (train, labels), (test, test_labels), path)


def _sets(
    name: str,
    names: tuple[str, ...] | None,
    classes: int,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    path: str,
) -> tuple[Dataset, Dataset]:
    """The two sets of (images, labels); `path` is that of the test images."""
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{path}: dimensions: test images of {test[0].shape[1:]} pixels, training images of {train[0].shape[1:]}"
        )
    return (
        Dataset(*train, name=f"{name}/train", classes=classes, class_names=names),
        Dataset(*test, name=f"{name}/test", classes=classes, class_names=names),
    )
