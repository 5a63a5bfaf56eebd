"""Downloads that are verified before anybody sees them. Used by the data room, when a file is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from ..errors import DataNotFound

TIMEOUT = 10
"""Seconds without an answer after which a mirror is given up."""
DEADLINE = 300
"""Seconds for one whole file."""
ATTEMPTS = 2

_CHUNK = 2**16


def fetch(urls: Sequence[str], size: int, sha256: str, folder: str, name: str) -> str:
    """Download one file from the first mirror that has it, and put it into a folder in one step.

    Parameters
    ----------
    urls : sequence of str
        The same file at several mirrors, gzip or plain.
    size : int
        Bytes of the uncompressed content.
    sha256 : str
        SHA-256 of the uncompressed content, in hex.
    folder : str
        Made if it does not exist.
    name : str
        File name in that folder; the file is stored uncompressed.

    Returns
    -------
    str
        Path of the file. It is written under another name, flushed to disk and renamed, so that a file of
        this name is always whole, also if several processes download at the same time.

    Raises
    ------
    DataNotFound
        No mirror has it, or it cannot be written. The message says in one line what went wrong at each
        mirror.
    """
    failures = []
    for url in urls:
        for attempt in range(ATTEMPTS):
            try:
                content = _get(url, size, sha256)
            except _Refused as error:
                failures.append(f"{url}: {error}")
                break
            except OSError as error:
                if attempt == ATTEMPTS - 1:
                    failures.append(f"{url}: {_reason(error)}")
            else:
                return _store(content, folder, name)
    raise DataNotFound("; ".join(failures))


class _Refused(Exception):
    """The mirror answered, but not with the file: asking again would not help."""


def _get(url: str, size: int, sha256: str) -> bytes:
    """The verified content behind one address; OSError for passing faults, _Refused for lasting ones."""
    import hashlib
    import http.client
    import urllib.error
    import urllib.request

    deadline = time.monotonic() + DEADLINE
    most = size + size // 8 + 65536  # gzip never makes a file much larger
    data = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            expected = answer.length
            while chunk := answer.read(_CHUNK):
                data += chunk
                if len(data) > most:
                    raise _Refused(f"sends more than {most} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done after {DEADLINE} s")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500:
            raise _Refused(f"HTTP status {error.code}") from None
        raise OSError(f"HTTP status {error.code}") from None
    except http.client.HTTPException as error:
        raise OSError(f"bad answer ({type(error).__name__})") from None
    if expected is not None and len(data) < expected:
        raise OSError(f"connection ended after {len(data)} of {expected} bytes")

    content = _uncompressed(bytes(data), size)
    if len(content) != size:
        got = "more" if len(content) > size else f"{len(content)}"
        raise _Refused(f"content is not {size} bytes but {got}")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise _Refused(f"checksum mismatch, SHA-256 is {found[:16]}..., must be {sha256[:16]}...")
    return content


def _uncompressed(data: bytes, size: int) -> bytes:
    """The content of a gzip stream, at most size + 1 bytes of it; anything else as it is."""
    if data[:2] != b"\x1f\x8b":
        return data
    import zlib

    try:
        return zlib.decompressobj(wbits=31).decompress(data, size + 1)
    except zlib.error as error:
        raise _Refused(f"damaged gzip stream ({error})") from None


def _store(content: bytes, folder: str, name: str) -> str:
    """Write a file so that it appears whole or not at all."""
    import tempfile

    path = os.path.join(folder, name)
    temporary = None
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise DataNotFound(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            os.unlink(temporary)
    return path


def _reason(error: OSError) -> str:
    """One line for an OSError, without urllib's wrapping."""
    reason = getattr(error, "reason", error)
    return " ".join(str(getattr(reason, "strerror", None) or reason).split()) or type(error).__name__
