"""Compressed contents, which are not inflated beyond what they may be. For every room that reads files."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from zipfile import ZipFile

MOST_BYTES = 2**34
"""Largest array that is read of a .npz file, 16 GiB."""


def read_member(archive: ZipFile, key: str, name: str, error: type[Exception]) -> np.ndarray:
    """The array `key` of an open .npz file. Its header is compared with the size of its member before anything is allocated;
    of at most MOST_BYTES. What is wrong is raised as `error`, with the file's name."""
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read_header is None:
            raise error(f"{name}: {key}: .npy version {version[0]}.{version[1]}, must be 1.0 or 2.0")
        shape, _, dtype = read_header(member)
        header = member.tell()
    if dtype.hasobject:
        raise error(f"{name}: {key}: holds Python objects (dtype {dtype}), must hold numbers")
    promised = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or promised > MOST_BYTES:
        raise error(f"{name}: {key}: shape {shape} of {dtype} would be {promised} bytes")
    if header + promised != info.file_size:
        got = info.file_size - header
        raise error(f"{name}: {key}: expected {promised} bytes for shape {shape}, got {got}")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def inflate(content: bytes, most: int, *, gzip: bool = False) -> bytes:
    """What zlib (or gzip) has compressed. ValueError where it is more than `most` bytes, zlib.error where it is damaged."""
    if gzip and not content.startswith(b"\x1f\x8b"):
        raise zlib.error("not a gzipped file")
    decoder = zlib.decompressobj(wbits=31 if gzip else 15)
    found = decoder.decompress(content, most + 1)
    if len(found) > most:
        raise ValueError(f"more than {most:,} bytes, compressed into {len(content):,}")
    if not decoder.eof:
        raise zlib.error("incomplete or truncated stream")
    return found
