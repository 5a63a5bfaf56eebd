"""Downloads that are verified before anybody sees them. Used by the data room, when a file is missing.

`pooch` brings the file, compares its checksum and puts it into its place in one step; here are the mirrors in turn,
the limits of what a mirror may send, and one line for what went wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import DataNotFound

if TYPE_CHECKING:
    from requests import RequestException, Response

TIMEOUT = 10
"""Seconds without an answer after which a mirror is given up."""
DEADLINE = 300
"""Seconds for one whole file, beside what it takes at SLOW."""
SLOW = 200_000
"""Bytes per second."""
ATTEMPTS = 2

_CHUNK = 2**14


def fetch(urls: Sequence[str], size: int, checksum: str, folder: str, name: str) -> str:
    """Download one file from the first mirror that has it, and put it into a folder in one step.

    Parameters
    ----------
    urls : sequence of str
        The same file at several mirrors; with SHA-256 gzip or plain.
    size : int
        With SHA-256, bytes of the uncompressed content; with MD5 what the file may have at most.
    checksum : str
        ``"sha256:"`` and the sum of the uncompressed content in hex, and the file is stored uncompressed; or ``"md5:"`` and
        that of the file as it is sent, which is stored so.
    folder : str
        Made if it does not exist.
    name : str
        File name in that folder.

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
    import requests

    path, was_there = os.path.join(folder, name), os.path.isdir(folder)
    failures = []
    try:
        for url in urls:
            for attempt in range(ATTEMPTS):
                try:
                    _retrieve(url, size, checksum, folder, name)
                    return path
                except _Refused as error:
                    failures.append(f"{url}: {error}")
                    break
                except requests.RequestException as error:
                    lasting = error.response is not None and error.response.status_code < 500
                    if lasting or attempt == ATTEMPTS - 1:
                        failures.append(f"{url}: {_reason(error)}")
                    if lasting:
                        break
                except OSError as error:
                    raise DataNotFound(f"{path}: cannot be written: {error.strerror or error}") from None
        raise DataNotFound("; ".join(failures))
    except DataNotFound:
        if not was_there:
            _remove_if_empty(folder)
        raise


class _Refused(Exception):
    """The mirror answered, but not with the file: asking again would not help."""


def _retrieve(url: str, size: int, checksum: str, folder: str, name: str) -> None:
    """The verified file from one address; RequestException for passing faults, _Refused for lasting ones."""
    import pooch  # type: ignore[import-untyped]

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # it would print a line for each file
    try:
        pooch.retrieve(url, checksum, fname=name, path=folder, downloader=_Downloader(size, checksum.startswith("md5:")))
    except ValueError as error:
        if isinstance(error, OSError):  # an address that makes no sense is both
            raise
        kind, _, digits = checksum.partition(":")
        what = {"sha256": "SHA-256", "md5": "MD5"}[kind]
        raise _Refused(f"checksum mismatch, {what} must be {digits[:16]}...") from None
    finally:
        logger.setLevel(level)


class _Downloader:
    """What `pooch` calls to bring a file: its own HTTP downloader, writing through `_Content`."""

    def __init__(self, size: int, as_sent: bool) -> None:
        self.size, self.as_sent = size, as_sent

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool | None = False) -> None:
        from pooch import HTTPDownloader

        answers: list[Response] = []
        hooks = {"response": lambda answer, *_, **__: answers.append(answer)}
        with open(output_file, "wb") as file:
            content = _Content(file, self.size, self.as_sent)
            try:
                HTTPDownloader(chunk_size=_CHUNK, timeout=TIMEOUT, hooks=hooks)(url, content, pooch)
            finally:
                for answer in answers:  # an answer that was not read to its end keeps its connection
                    answer.close()
            content.finish()
            file.flush()
            os.fsync(file.fileno())


class _Content:
    """A file to write to that uncompresses gzip, unless it is to be kept as it is sent, and refuses more than the file
    can be.

    Parameters
    ----------
    file : binary file
    size : int
        Bytes of the uncompressed content; of what is kept as it is sent, at most so many.
    as_sent : bool
    """

    def __init__(self, file: BinaryIO, size: int, as_sent: bool = False) -> None:
        self.file, self.size, self.as_sent = file, size, as_sent
        self.most = size if as_sent else size + size // 8 + 65536  # gzip never makes a file much larger
        self.allowed = DEADLINE + self.most // SLOW
        self.end = time.monotonic() + self.allowed
        self.received = self.written = 0
        self.start = b""
        self.decoder: Any = None

    def write(self, chunk: bytes) -> None:
        """Takes what was received."""
        self.received += len(chunk)
        if self.received > self.most:
            raise _Refused(f"sends more than {self.most} bytes")
        if time.monotonic() > self.end:
            from requests import Timeout

            raise Timeout(f"not done after {self.allowed} s")
        if self.as_sent:
            self.file.write(chunk)
            return
        if len(self.start) < 2:
            self.start += chunk
            if len(self.start) < 2:
                return
            chunk = self.start
            if chunk[:2] == b"\x1f\x8b":
                import zlib

                self.decoder = zlib.decompressobj(wbits=31)
        self._put(chunk)

    def _put(self, chunk: bytes) -> None:
        if self.decoder is not None:
            import zlib

            try:
                chunk = self.decoder.decompress(chunk, self.size + 1 - self.written)
            except zlib.error as error:
                raise _Refused(f"damaged gzip stream ({error})") from None
            if self.written + len(chunk) > self.size:
                raise _Refused(f"content is not {self.size} bytes but more")
        self.file.write(chunk)
        self.written += len(chunk)

    def flush(self) -> None:
        """Nothing: the file is flushed once, at the end."""

    def finish(self) -> None:
        """_Refused unless the content has the size that it must have; of what is kept as it is sent the checksum decides."""
        if self.as_sent:
            return
        if len(self.start) < 2:
            self._put(self.start)
        if self.written != self.size:
            got = "more" if self.written > self.size else f"{self.written}"
            raise _Refused(f"content is not {self.size} bytes but {got}")


def _reason(error: RequestException) -> str:
    """One line for a failure, without the wrapping of requests and urllib3."""
    from urllib3.exceptions import IncompleteRead

    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    reason: BaseException = error
    for reason in _causes(error):
        if isinstance(reason, IncompleteRead) and reason.expected is not None:
            return f"connection ended after {reason.partial} of {reason.partial + reason.expected} bytes"
    return " ".join(str(getattr(reason, "strerror", None) or reason).split()) or type(reason).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, the one that it wraps, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _remove_if_empty(folder: str) -> None:
    """Takes away a folder that `pooch` made for a file that did not come."""
    import contextlib

    with contextlib.suppress(OSError):
        os.rmdir(folder)
