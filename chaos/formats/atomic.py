"""Files that are either there as a whole or not at all. For every room that writes a file which is to be kept."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import warnings
from collections.abc import Iterable
from pathlib import Path

LOST = {errno.EIO, errno.ENOSPC, errno.EDQUOT}  # a flush that fails so has not kept what was written
PIECE = 1 << 20  # bytes that are read back at a time
ROOM = 200  # bytes of a name that its temporary file repeats; 255 is what most file systems take


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes bytes to a temporary file beside `path`, flushes it to the disk, reads it back and renames it over `path`.

    A symbolic link stays, and what it points to is replaced; a file keeps its mode. Where `path` is no regular file, such
    as a pipe or a device, nothing can be renamed: the bytes are written to it.

    OSError, naming `path`, where that fails; what was there is still there then. Steps that not every file system knows (to
    change a mode, to flush a directory) may fail.
    """
    if not os.fspath(path):
        raise FileNotFoundError(errno.ENOENT, "the path of a file must not be empty", "")
    try:
        _write(Path(os.path.realpath(path)), data)
    except OSError as error:  # a full disk names no file, the rest the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def _write(path: Path, data: bytes) -> None:
    try:
        there = path.stat().st_mode
    except FileNotFoundError:
        there = None
    if there is not None and not stat.S_ISREG(there):
        _write_through(path, there, data)
        return
    temporary = path.with_name(f"{_stem(path.name)}{secrets.token_hex(4)}")
    mode = 0o666 if there is None else stat.S_IMODE(there)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            _flush(file.fileno())
            _check(file.fileno(), memoryview(data))
        if there is not None:
            with contextlib.suppress(OSError):  # beyond what umask has left of it
                os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_directory(path.parent)


def _write_through(path: Path, mode: int, data: bytes) -> None:
    """Writes to a pipe or a device."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        handle = os.open(path, os.O_WRONLY | (os.O_NONBLOCK if stat.S_ISFIFO(mode) else 0))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        warnings.warn(f"{path} is a pipe that nobody reads: nothing is written to it", RuntimeWarning, stacklevel=4)
        return
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _flush(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in LOST:
            raise


def _check(handle: int, data: memoryview) -> None:
    """OSError where a file does not hold what has been written to it."""
    at = 0
    while at < len(data):
        piece = os.pread(handle, min(PIECE, len(data) - at), at)
        if not piece or piece != data[at : at + len(piece)]:
            raise OSError(errno.EIO, f"what was written is not what is read back, from byte {at} on")
        at += len(piece)


def _flush_directory(folder: Path) -> None:
    """Keeps a renaming, where that can be done: a directory may be written to but not opened, and some cannot be flushed."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        _flush(handle)
    finally:
        os.close(handle)


def _stem(name: str) -> str:
    """How the names of a file's temporary files begin; eight hexadecimal digits follow."""
    short = os.fsdecode(os.fsencode(name)[:ROOM])
    return f".{short}."


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Removes the temporary files that killed processes have left of files called so; for who may be sure that nobody is
    writing them."""
    stems = tuple(map(_stem, names))
    for found in os.listdir(folder):
        if found.startswith(stems) and len(found.rpartition(".")[2]) == 8:
            with contextlib.suppress(OSError):
                os.unlink(folder / found)
