"""Tables in which a row is an image: a column per pixel or feature, and one for the label. Used by the data room; needs
pandas."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .dataset import Dataset

if TYPE_CHECKING:
    from pandas import DataFrame

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".feather")
LABELS = ("label", "labels", "class", "target", "y")


def read_table(path: str | os.PathLike[str], *, label: str | None = None, shape: tuple[int, ...] | None = None) -> Dataset:
    """Read a table.

    Parameters
    ----------
    path : str or os.PathLike
        CSV (first line: names of the columns), TSV, Parquet or Feather.
    label : str, optional
        Name of the column of labels: numbers, text or categories. Unless given, the one column named ``label``, ``labels``,
        ``class``, ``target`` or ``y``.
    shape : tuple of int, optional
        Of an image (c, h, w) or a sequence (c, l), which a row holds channel after channel; a row of one number more or less
        is refused. Without it a row is a vector of features.

    Returns
    -------
    Dataset
        Integers are pixels of 0..255 and become uint8, all other numbers float32.

    Raises
    ------
    DataError
        pandas is missing, the file is damaged, there is no such column, a column is not of numbers, or a cell is empty.
    """
    text = os.fspath(path)
    frame = _read(text)
    label = _label_column(text, list(map(str, frame.columns)), label)
    frame.columns = list(map(str, frame.columns))
    labels, pixels = frame[label], frame.drop(columns=label)
    if not len(frame) or not len(pixels.columns):
        raise DataError(f"{text}: {len(frame)} rows and {len(pixels.columns)} columns beside {label!r}; there must be some")
    if labels.isna().any():
        raise DataError(f"{text}: row {int(np.argmax(labels.isna()))} has no {label!r}")
    images = _numbers(text, pixels)
    if shape is not None:
        if math.prod(shape) != images.shape[1]:
            times = " x ".join(map(str, shape))
            raise DataError(f"{text}: {images.shape[1]} columns beside {label!r}, and {times} is {math.prod(shape)}")
        images = images.reshape(-1, *shape)
    name = os.path.basename(text).split(".")[0]
    try:
        return Dataset(images, labels, name=name, channels="first")
    except DataError as error:
        raise DataError(f"{text}: {error}") from None


def _read(path: str) -> DataFrame:
    try:
        import pandas
    except ImportError:
        raise DataError(
            f"{path}: tables need the package pandas, which is not installed (pip install 'chaos-sgd[data]')"
        ) from None
    ending = path.lower().removesuffix(".gz").rpartition(".")[2]
    try:
        with open(path, "rb"):  # a clear error where it is not there
            pass
        if ending in ("csv", "tsv"):
            return pandas.read_csv(path, sep="\t" if ending == "tsv" else ",")
        return pandas.read_parquet(path) if ending == "parquet" else pandas.read_feather(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ImportError:
        raise DataError(
            f"{path}: .{ending} files need the package pyarrow, which is not installed (pip install 'chaos-sgd[data]')"
        ) from None
    except Exception as error:  # of pandas and pyarrow, for damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable table: {reason}") from None


def _label_column(path: str, columns: list[str], label: str | None) -> str:
    """The name of the column of labels."""
    known = ", ".join(columns[:8]) + ", ..." * (len(columns) > 8)
    if label is not None:
        if columns.count(label) != 1:
            count = columns.count(label) or "no"
            raise DataError(
                f"{path}: {count} column{'s' if columns.count(label) > 1 else ''} named {label!r}; columns: {known}"
            )
        return label
    found = [name for name in columns if name.lower() in LABELS]
    if len(found) != 1:
        what = "no column of labels" if not found else f"several columns that may be labels ({', '.join(found)})"
        raise DataError(f"{path}: {what}; name it with label= (--label); columns: {known}")
    return found[0]


def _numbers(path: str, pixels: DataFrame) -> np.ndarray:
    """The columns as an array."""
    for name, kind in pixels.dtypes.items():
        if getattr(kind, "kind", "O") not in "uif":
            raise DataError(f"{path}: column {name!r} is of {kind}, and pixels are numbers")
    empty: Any = pixels.isna().to_numpy()
    if empty.any():
        row, column = np.unravel_index(int(np.argmax(empty)), empty.shape)
        raise DataError(f"{path}: row {int(row)} has no number in column {pixels.columns[column]!r}")
    whole = all(kind.kind in "ui" for kind in pixels.dtypes)
    array: np.ndarray = pixels.to_numpy(np.int64 if whole else np.float32)
    if whole and (array.min() < 0 or array.max() > 255):  # whole numbers, and no pixels
        array = array.astype(np.float32)
    return array
