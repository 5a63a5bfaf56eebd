"""Trace files: the order of events of a training run. Knows arrays and dicts, no network. For chaos.virtual.

A file is the magic, then records: tag (4 bytes), length of the payload (8 bytes) and its CRC-32 (4 bytes), all
little-endian, then the payload. "HEAD": JSON, about the run. "WGHT": the initial weights. Per training phase "PHAS": JSON,
then any number of "EVNT": events in their order. "DONE": JSON, with the SHA-256 of the weights behind the phase. "LAST": the
end; a file without it is cut short.

An event takes at most 7 bytes before compression (worker 2, kind 1, what 4), and compressed a fraction of it: the order in
which workers come is stored as it is, each worker's own events by themselves, where they hardly ever differ from step to
step.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import TraceError
from .json_text import parse_json
from .zipped import inflate

MAGIC = b"chaostrace1\n"
MOST_BYTES = 2**32  # of initial weights
BLOCK = 1 << 20  # events
STEP = 1  # the kind whose `what` counts up
_RECORD = struct.Struct("<4sQI")


def digest(weights: np.ndarray) -> str:
    """SHA-256 of an array's bytes, in hex."""
    return hashlib.sha256(np.ascontiguousarray(weights).data).hexdigest()


class TraceWriter:
    """Writes a trace file, as a context manager. A file that is there already is replaced.

    Parameters
    ----------
    path : path
    """

    file: BinaryIO

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.phases = Path(path), 0

    def __enter__(self) -> TraceWriter:
        try:
            self.file = open(self.path, "wb")
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.file.write(MAGIC)
        return self

    def __exit__(self, *exception: object) -> None:
        with self.file:
            self._record(b"LAST", json.dumps({"phases": self.phases}).encode())

    def head(self, about: dict[str, Any], weights: np.ndarray) -> None:
        """What the run is, a JSON-able dict, and its initial weights, float32."""
        self._record(b"HEAD", json.dumps(about).encode())
        self._record(b"WGHT", zlib.compress(np.ascontiguousarray(weights, "<f4").data))

    def phase(self, about: dict[str, Any], events: np.ndarray, weights: np.ndarray) -> None:
        """A training phase: a JSON-able dict, its events (uint64) and the weights behind it."""
        self._record(b"PHAS", json.dumps(about | {"events": len(events)}).encode())
        for at in range(0, len(events), BLOCK):
            self._record(b"EVNT", pack(events[at : at + BLOCK]))
        self._record(b"DONE", json.dumps({"weights": digest(weights)}).encode())
        self.phases += 1

    def _record(self, tag: bytes, payload: bytes) -> None:
        self.file.write(_RECORD.pack(tag, len(payload), zlib.crc32(payload)))
        self.file.write(payload)


class TraceReader:
    """A trace file, opened and checked as far as its head.

    Attributes
    ----------
    about : dict
    weights : ndarray of float32
        The initial ones.

    Raises
    ------
    TraceError
        If the file is missing, none of ours, damaged, or cut short.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.file = open(self.path, "rb")
        except IsADirectoryError:
            raise TraceError(f"{path}: a directory; a trace is a file, as chaos train --trace FILE writes it") from None
        except OSError as error:
            raise TraceError(f"{path}: {error.strerror}") from None
        try:
            self._open()
        except BaseException:
            self.file.close()
            raise

    def _open(self) -> None:
        magic = self.file.read(len(MAGIC))
        if magic != MAGIC:
            known = magic[:10] == MAGIC[:10]
            raise TraceError(
                f"{self.path}: "
                + (
                    f"a trace of version {magic[10:].decode(errors='replace').strip()}, this chaos reads version "
                    f"{MAGIC[10:].decode().strip()}"
                    if known
                    else "not a trace of chaos"
                )
            )
        self.about = self._json(b"HEAD")
        weights = self._payload(b"WGHT")
        try:
            self.weights = np.frombuffer(inflate(weights, MOST_BYTES), "<f4").astype(np.float32)
        except (zlib.error, ValueError) as error:
            raise TraceError(f"{self.path}: damaged: {error}") from None

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def phases(self) -> Iterator[tuple[dict[str, Any], Iterator[np.ndarray], Callable[[], Any]]]:
        """Yields (about, events, end) for each phase in order: the dict, an iterator over arrays of events, and a function
        that must be called then and gives the SHA-256 that the weights must have."""
        found = 0
        while True:
            tag, payload = self._read()
            if tag == b"LAST":
                if self._parse(payload).get("phases") != found or self.file.read(1):
                    raise TraceError(f"{self.path}: damaged: {found} phases, or something behind the end")
                return
            if tag != b"PHAS":
                raise TraceError(f"{self.path}: damaged: a record {tag!r} where a phase begins")
            about = self._parse(payload)
            events = self._events(about.get("events"))
            yield about, events, partial(self._end, events)
            found += 1

    def _end(self, events: Iterator[np.ndarray]) -> Any:
        for _ in events:  # those that nobody wanted
            pass
        return self._json(b"DONE").get("weights")

    def _events(self, count: Any) -> Iterator[np.ndarray]:
        left = count if isinstance(count, int) else -1
        if left < 0:
            raise TraceError(f"{self.path}: damaged: a phase of {count!r} events")
        while left:
            block = unpack(self._payload(b"EVNT"), self.path)
            left -= len(block)
            if left < 0:
                raise TraceError(f"{self.path}: damaged: more than the {count} events announced")
            yield block

    def _read(self) -> tuple[bytes, bytes]:
        head = self.file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            raise TraceError(f"{self.path}: cut short; the run that wrote it did not end properly")
        tag, size, crc = _RECORD.unpack(head)
        left = self.path.stat().st_size - self.file.tell()
        payload = self.file.read(size) if size <= left else b""
        if len(payload) < size:
            raise TraceError(f"{self.path}: cut short, or damaged: a record of {size} bytes where {left} are left")
        if zlib.crc32(payload) != crc:
            raise TraceError(f"{self.path}: damaged: the checksum of record {tag!r} is wrong")
        return tag, payload

    def _payload(self, tag: bytes) -> bytes:
        found, payload = self._read()
        if found != tag:
            raise TraceError(f"{self.path}: damaged: a record {found!r} where {tag!r} is expected")
        return payload

    def _parse(self, payload: bytes) -> dict[str, Any]:
        try:
            found = parse_json(payload)
        except ValueError as error:
            raise TraceError(f"{self.path}: damaged: {error}") from None
        if not isinstance(found, dict):
            raise TraceError(f"{self.path}: damaged: no object where one is expected")
        return found

    def _json(self, tag: bytes) -> dict[str, Any]:
        return self._parse(self._payload(tag))


def pack(events: np.ndarray) -> bytes:
    """Events as bytes, see `unpack`."""
    events = np.ascontiguousarray(events, np.uint64)
    worker = (events & np.uint64(0xFFFF)).astype("<u2")
    by_worker = np.argsort(worker, kind="stable")
    kind = (events >> np.uint64(16) & np.uint64(0xFF)).astype(np.uint8)
    what = (events >> np.uint64(32)).astype(np.int64)
    steps = np.flatnonzero(kind == STEP)
    if len(steps):  # nearly one after the other
        what[steps] = np.diff(what[steps], prepend=0)
    what = (what[by_worker] & 0xFFFFFFFF).astype("<u4")
    parts = [worker.view(np.uint8).reshape(-1, 2).T, kind[by_worker], what.view(np.uint8).reshape(-1, 4).T]
    return struct.pack("<I", len(events)) + zlib.compress(b"".join(np.ascontiguousarray(p).tobytes() for p in parts), 6)


def unpack(payload: bytes, where: object = "trace") -> np.ndarray:
    """The events in what `pack` gave; TraceError naming `where` if it is none."""
    try:
        (n,) = struct.unpack_from("<I", payload)
        if n > BLOCK:
            raise ValueError(f"a block of {n} events")
        decoder = zlib.decompressobj()
        data = np.frombuffer(decoder.decompress(payload[4:], 7 * n + 1), np.uint8)
        if len(data) != 7 * n:
            raise ValueError(f"{len(data)} bytes for {n} events")
    except (struct.error, zlib.error, ValueError) as error:
        raise TraceError(f"{where}: damaged: {error}") from None
    worker = np.ascontiguousarray(data[: 2 * n].reshape(2, n).T).view("<u2")[:, 0].astype(np.uint64)
    by_worker = np.argsort(worker, kind="stable")
    kind, what = np.empty(n, np.uint64), np.empty(n, np.int64)
    kind[by_worker] = data[2 * n : 3 * n]
    what[by_worker] = np.ascontiguousarray(data[3 * n :].reshape(4, n).T).view("<u4")[:, 0]
    steps = np.flatnonzero(kind == STEP)
    what[steps] = np.cumsum(what[steps]) & 0xFFFFFFFF
    events: np.ndarray = worker | kind << np.uint64(16) | what.astype(np.uint64) << np.uint64(32)
    return events
