"""Reader of IDX files (the format of MNIST), plain or gzip, that trusts nothing. Used by the data room.

Format, after Y. LeCun's description at the MNIST site: two zero bytes, one byte with the type of the data,
one byte with the number of dimensions, each dimension as 32-bit big-endian integer, then the data,
big-endian, row-major.
"""

from __future__ import annotations

import os
import stat
from typing import Any, BinaryIO, Protocol

import numpy as np

from ..errors import DataError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

MOST_DIMENSIONS = 32
MOST_BYTES = 2**32
"""Largest payload that is read, 4 GiB; a header that promises more is taken for damage."""

_DEFLATE_RATIO = 1032  # no deflate stream expands more than this (zlib's technical details)
_CHUNK = 2**20


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file.

    Parameters
    ----------
    path : str or os.PathLike
        File, plain or gzip; which of the two is seen from its content, not from its name.

    Returns
    -------
    ndarray
        uint8, int8, int16, int32, float32 or float64 in native byte order, of the shape in the header.

    Raises
    ------
    DataError
        The file cannot be read, or anything in it is wrong: magic, dtype code, number of dimensions, a
        dimension, a payload shorter or longer than the header says, a damaged gzip stream. The message names
        file and field.
    """
    name = str(path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{name}: not a regular file")
        with open(path, "rb") as file:
            return read_idx_from(file, name, status.st_size)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name!r}: not a path: {error}") from None


def read_idx_from(file: BinaryIO, name: str, size: int) -> np.ndarray:
    """As `read_idx`, from an open file of so many bytes, which errors call `name`."""
    import zlib

    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    source: Any = _Gunzip(file) if zipped else file
    try:
        return _read(source, name, size, zipped)
    except (zlib.error, EOFError) as error:
        raise DataError(f"{name}: gzip stream: {error}") from None


def read_images_and_labels(
    images_path: str | os.PathLike[str], labels_path: str | os.PathLike[str], classes: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Read a pair of IDX files as MNIST has them.

    Parameters
    ----------
    images_path, labels_path : str or os.PathLike
        Files for `read_idx`.
    classes : int
        All labels must be below it.

    Returns
    -------
    images : ndarray (n, h, w)
        uint8.
    labels : ndarray (n,)
        uint8.

    Raises
    ------
    DataError
        As `read_idx`; images that are not 3-D uint8; labels that are not 1-D uint8; counts that differ; a
        label that is too large.
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    check_pair(str(images_path), images, str(labels_path), labels, classes)
    return images, labels


def check_pair(images_path: str, images: np.ndarray, labels_path: str, labels: np.ndarray, classes: int) -> None:
    """DataError unless the content of two files is images (n, h, w) and as many labels below `classes`, all uint8."""
    for path, array, ndim, what in ((images_path, images, 3, "images"), (labels_path, labels, 1, "labels")):
        if array.dtype != np.uint8:
            raise DataError(f"{path}: dtype code: {what} are {array.dtype}, must be uint8")
        if array.ndim != ndim:
            raise DataError(f"{path}: number of dimensions: {array.ndim}, must be {ndim} for {what}")
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: dimension 0: {len(labels)} labels for {len(images)} images in {images_path}")
    if labels.max() >= classes:
        at = int(np.argmax(labels >= classes))
        raise DataError(f"{labels_path}: payload: label {at} is {labels[at]}, must be at most {classes - 1}")


def _read(file: _Source, name: str, size: int, zipped: bool) -> np.ndarray:
    """Header, payload and end of the file; `size` is that of the file on disk in bytes."""
    magic = _take(file, 4, name, "magic")
    if magic[:2] != b"\0\0":
        raise DataError(f"{name}: magic: starts with bytes {magic[:2].hex(' ')}, IDX starts with 00 00")
    code, ndim = magic[2], magic[3]
    if code not in DTYPES:
        known = ", ".join(f"0x{c:02x}" for c in DTYPES)
        raise DataError(f"{name}: dtype code: 0x{code:02x}, must be one of {known}")
    if not 1 <= ndim <= MOST_DIMENSIONS:
        raise DataError(f"{name}: number of dimensions: {ndim}, must be from 1 to {MOST_DIMENSIONS}")
    shape = []
    for axis in range(ndim):
        length = int.from_bytes(_take(file, 4, name, f"dimension {axis}"), "big")
        if length == 0:
            raise DataError(f"{name}: dimension {axis}: 0, must be at least 1")
        shape.append(length)

    dtype = np.dtype(DTYPES[code])
    promised = dtype.itemsize
    for length in shape:
        promised *= length
    if promised > MOST_BYTES:
        raise DataError(f"{name}: dimensions: {_times(shape)} is {promised} bytes, the limit is {MOST_BYTES}")
    # Before anything is allocated: what cannot be in the file need not be looked for.
    header = 4 + 4 * ndim
    if not zipped and size != header + promised:
        got = size - header
        raise DataError(f"{name}: payload: expected {promised} bytes for {_times(shape)}, got {got}")
    if zipped and promised > _DEFLATE_RATIO * size:
        raise DataError(f"{name}: payload: expected {promised} bytes, more than {size} of gzip can hold")

    data = np.empty(promised, np.uint8)
    got = file.readinto(data.data)
    if got < promised:
        raise DataError(f"{name}: payload: expected {promised} bytes for {_times(shape)}, got {got}")
    if file.readinto(memoryview(bytearray(1))):
        raise DataError(f"{name}: payload: expected {promised} bytes for {_times(shape)}, got more")
    return data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _take(file: _Source, count: int, name: str, field: str) -> bytes:
    """Exactly `count` bytes of the header."""
    data = bytearray(count)
    got = file.readinto(memoryview(data))
    if got < count:
        raise DataError(f"{name}: {field}: the file ends after {got} of {count} bytes")
    return bytes(data)


def _times(shape: list[int]) -> str:
    """4 x 28 x 28, for messages."""
    return " x ".join(map(str, shape))


class _Source(Protocol):
    """A file, or what stands for one."""

    def readinto(self, view: memoryview, /) -> int: ...


class _Gunzip:
    """Decompresses exactly as many bytes as are asked for.

    The standard library's GzipFile reads ahead, so it cannot promise this for hostile files.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.input = b""
        self.decoder = self._new_decoder()

    @staticmethod
    def _new_decoder() -> Any:
        import zlib

        return zlib.decompressobj(wbits=31)

    def readinto(self, view: memoryview) -> int:
        """Fill `view`; returns the number of bytes, less than its length only at the end of the content."""
        got = 0
        while got < len(view):
            if self.decoder.eof:
                # A gzip file may have several members, and zeros between and behind them.
                self.input = self.decoder.unused_data.lstrip(b"\0")
                while not self.input and (chunk := self.file.read(_CHUNK)):
                    self.input = chunk.lstrip(b"\0")
                if not self.input:
                    break
                self.decoder = self._new_decoder()
            self.input = self.input or self.file.read(_CHUNK)
            at_end = not self.input
            piece = self.decoder.decompress(self.input, min(_CHUNK, len(view) - got))
            self.input = self.decoder.unconsumed_tail
            if at_end and not piece and not self.decoder.eof:
                raise EOFError("the file ends inside it")
            view[got : got + len(piece)] = piece
            got += len(piece)
        return got
