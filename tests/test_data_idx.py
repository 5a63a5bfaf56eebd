"""The IDX reader: every dtype, every defect, and a fuzz of damaged files."""

import gzip
import os
import random
import re
import struct
import tracemalloc

import numpy as np
import pytest

from chaos.data import idx, read_idx
from chaos.data.idx import read_images_and_labels
from chaos.errors import DataError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def header(code, *shape):
    return bytes([0, 0, code, len(shape)]) + b"".join(struct.pack(">I", length) for length in shape)


def encode(array):
    """The bytes of an IDX file."""
    code = CODES[array.dtype.str[1:]]
    return header(code, *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


def decode(data):
    """What a well-formed IDX file holds, or None: an independent, slow reader for the fuzz."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in CODES.values() or not 1 <= data[3] <= 32:
        return None
    start = 4 + 4 * data[3]
    if len(data) < start:
        return None
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    letters = {0x08: "B", 0x09: "b", 0x0B: "h", 0x0C: "i", 0x0D: "f", 0x0E: "d"}[data[2]]
    count = 1
    for length in shape:
        count *= length
    if count == 0 or len(data) - start != count * struct.calcsize(">" + letters):
        return None
    return shape, struct.unpack(f">{count}{letters}", data[start:])


def numbers(dtype, shape=(3, 4, 5)):
    return (np.arange(np.prod(shape)).reshape(shape) * 7 % 120 - (0 if dtype == "u1" else 60)).astype(dtype)


@pytest.fixture(params=["plain", "gzip"])
def save(request, tmp_path):
    """Writes bytes as a file, plain or compressed; the name never tells which."""

    def write(data, name="some.file"):
        path = tmp_path / name
        path.write_bytes(data if request.param == "plain" else gzip.compress(data, 1))
        return path

    write.kind = request.param
    return write


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (2, 1, 3, 1, 2)])
def test_round_trip(save, dtype, shape):
    array = numbers(dtype, shape)
    for path in (save(encode(array)), str(save(encode(array)))):
        got = read_idx(path)
        assert got.dtype == np.dtype(dtype) and got.dtype.isnative and got.shape == shape
        assert np.array_equal(got, array) and got.flags.c_contiguous and got.flags.writeable


def test_content_larger_than_one_chunk(save):
    array = np.random.default_rng(0).integers(0, 4, (3, 1000, 1001), dtype=np.uint8)
    assert np.array_equal(read_idx(save(encode(array))), array)


def test_name_does_not_decide(tmp_path):
    array = numbers("u1")
    (tmp_path / "plain.gz").write_bytes(encode(array))
    (tmp_path / "zipped").write_bytes(gzip.compress(encode(array)))
    assert np.array_equal(read_idx(tmp_path / "plain.gz"), array)
    assert np.array_equal(read_idx(tmp_path / "zipped"), array)


def test_gzip_with_several_members(tmp_path):
    data = encode(numbers("u1"))
    path = tmp_path / "file"
    path.write_bytes(b"".join(gzip.compress(part) for part in (data[:3], b"", data[3:30], data[30:])))
    assert np.array_equal(read_idx(path), numbers("u1"))


GOOD = encode(numbers("i2"))

DEFECTS = {
    "empty": (b"", "magic: the file ends after 0 of 4 bytes"),
    "two bytes": (b"\0\0", "magic: the file ends after 2 of 4 bytes"),
    "magic": (b"\x01\0" + GOOD[2:], "magic: starts with bytes 01 00, IDX starts with 00 00"),
    "text": (b"<html>not found</html>", "magic: starts with bytes 3c 68"),
    "dtype code": (header(0x0A, 4) + bytes(4), "dtype code: 0x0a, must be one of 0x08, 0x09, 0x0b, "),
    "no dimensions": (header(0x08) + b"\1", "number of dimensions: 0, must be from 1 to 32"),
    "many dimensions": (header(0x08, *[1] * 33) + b"\1", "number of dimensions: 33"),
    "header": (GOOD[:10], "dimension 1: the file ends after 2 of 4 bytes"),
    "zero": (header(0x08, 3, 0, 5), "dimension 1: 0, must be at least 1"),
    "no payload": (GOOD[:16], "payload: expected 120 bytes for 3 x 4 x 5, got 0"),
    "payload": (GOOD[:-1], "payload: expected 120 bytes for 3 x 4 x 5, got 119"),
    "trailing": (GOOD + b"\0", "payload: expected 120 bytes for 3 x 4 x 5, got (121|more)"),
    "overflow": (header(0x08, *[2**32 - 1] * 8) + bytes(9), "dimensions: .* the limit is 4294967296"),
    "wraps to 0": (header(0x08, *[2**31] * 4), "dimensions: .* the limit is"),
    "wraps to 4": (header(0x08, 2**31 + 1, 2**31 + 1, 4) + bytes(4), "dimensions: .* the limit is"),
    "4 GiB": (header(0x08, 2**16, 2**16) + bytes(9), "payload: expected 4294967296 bytes"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects(save, defect):
    data, message = DEFECTS[defect]
    path = save(data)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    assert re.match(message, text.removeprefix(f"{path}: ")), text


def test_what_is_no_file(tmp_path):
    with pytest.raises(DataError, match="absent: cannot be read: No such file"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="not a regular file"):
        read_idx(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_idx(tmp_path / "pipe")
    for path in ("nul\0byte", None, 3.5):
        with pytest.raises(DataError):
            read_idx(path)


def test_permission_denied(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(GOOD)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_idx(path)


def zipped_defects():
    good = gzip.compress(GOOD, 1)
    crc = bytearray(good)
    crc[-5] ^= 1
    method = bytearray(good)
    method[2] = 7
    return {
        "half": good[: len(good) // 2],
        "no trailer": good[:-8],
        "half trailer": good[:-3],
        "crc": bytes(crc),
        "method": bytes(method),
        "only magic": b"\x1f\x8b",
        "garbage after": good + b"garbage",
        "zeros and garbage after": good + bytes(4) + b"garbage",
        "second member": good + gzip.compress(b"x"),
        "deflate": good[:12] + b"\xff" * 40,
    }


@pytest.mark.parametrize("defect", zipped_defects())
def test_damaged_gzip(tmp_path, defect):
    path = tmp_path / "file.gz"
    path.write_bytes(zipped_defects()[defect])
    with pytest.raises(DataError, match=r"file\.gz: (gzip stream|payload|magic): ") as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zeros", [1, 4, 512, 2**20 - 1, 2**20 + 1])
def test_gzip_padded_with_zeros(tmp_path, zeros):
    """As tapes and some archives leave it: between the members and behind them, as gunzip reads it."""
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(GOOD[:20]) + bytes(zeros) + gzip.compress(GOOD[20:]) + bytes(zeros))
    assert gzip.decompress(path.read_bytes()) == GOOD
    plain = tmp_path / "plain"
    plain.write_bytes(GOOD)
    assert np.array_equal(read_idx(path), read_idx(plain))


def test_gzip_bomb_is_not_unpacked(tmp_path):
    """64 MiB behind a header that promises 16 bytes: at most 17 are decompressed."""
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(header(0x08, 16) + bytes(2**26), 9))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="payload: expected 16 bytes for 16, got more"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_gzip_that_promises_more_than_it_can_hold(tmp_path):
    path = tmp_path / "liar"
    path.write_bytes(gzip.compress(header(0x08, 2**30) + bytes(100)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="payload: expected 1073741824 bytes, more than"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_best_compressed_gzip_is_accepted(tmp_path):
    """The bound on what deflate can hold must not refuse a good file of zeros."""
    path = tmp_path / "zeros"
    path.write_bytes(gzip.compress(header(0x08, 2**24) + bytes(2**24), 9))
    assert not read_idx(path).any()


def test_limit(save, monkeypatch):
    monkeypatch.setattr(idx, "MOST_BYTES", 119)
    with pytest.raises(DataError, match="dimensions: 3 x 4 x 5 is 120 bytes, the limit is 119"):
        read_idx(save(GOOD))


def mutate(data, rng):
    """One to three damages: bytes changed, cut, added, repeated, or a header field replaced."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(7)
        at = rng.randrange(len(data) + 1)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 3:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 4:
            field = rng.choice([0, 2, 3])
            data[field : field + 1] = bytes([rng.choice([0, 1, 2, 3, 8, 9, 11, 12, 13, 14, 32, 255])])
        elif kind == 5:
            field = 4 + 4 * rng.randrange(3)
            length = rng.choice([0, 1, 2, 3, 4, 5, 6, 10, 20, 60, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
            data[field : field + 4] = struct.pack(">I", length)
        elif data:
            data[at % len(data)] = rng.randrange(256)
    return bytes(data)


def test_fuzz(tmp_path):
    """2,000 damaged files, plain, compressed after or before the damage: no crash, no nonsense."""
    rng = random.Random(20240607)
    seeds = [encode(numbers(dtype, shape)) for dtype in CODES for shape in ((6,), (2, 3), (1, 2, 3))]
    accepted = rejected = 0
    for i in range(2000):
        path = tmp_path / f"{i}"
        good = rng.choice(seeds)
        if i % 4 == 0:
            stored = mutate(gzip.compress(good, 6, mtime=0), rng)
        elif i % 4 == 1:
            stored = gzip.compress(mutate(good, rng), 1, mtime=0)
        else:
            stored = mutate(good, rng)
        path.write_bytes(stored)
        content = stored
        if stored[:2] == b"\x1f\x8b":
            try:
                content = gzip.decompress(stored)
            except Exception:
                content = b""
        wanted = decode(content)
        try:
            got = read_idx(path)
        except DataError as error:
            rejected += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            # The standard library forgives zero bytes after a gzip member, this reader does not.
            assert wanted is None or (content is not stored and stored.endswith(b"\0")), error
        else:
            accepted += 1
            assert wanted is not None and got.shape == wanted[0]
            np.testing.assert_array_equal(got.ravel(), np.array(wanted[1], got.dtype))
        path.unlink()
    assert accepted > 100 and rejected > 1000, (accepted, rejected)


# Pairs, as MNIST has them


IMAGES = numbers("u1", (6, 4, 5))
DIGITS = np.array([0, 9, 3, 4, 5, 9], np.uint8)


def test_pair(save):
    images, labels = read_images_and_labels(save(encode(IMAGES), "a"), save(encode(DIGITS), "b"))
    assert np.array_equal(images, IMAGES) and np.array_equal(labels, DIGITS)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype("f4"), DIGITS, "a: dtype code: images are float32, must be uint8"),
        (IMAGES, DIGITS.astype("i4"), "b: dtype code: labels are int32, must be uint8"),
        (IMAGES[0], DIGITS, "a: number of dimensions: 2, must be 3 for images"),
        (IMAGES, DIGITS[:, None], "b: number of dimensions: 2, must be 1 for labels"),
        (DIGITS, IMAGES, "a: number of dimensions: 1, must be 3"),
        (IMAGES, DIGITS[:5], "b: dimension 0: 5 labels for 6 images in .*a$"),
        (IMAGES, DIGITS + 1, "b: payload: label 1 is 10, must be at most 9"),
    ],
)
def test_bad_pair(save, images, labels, message):
    with pytest.raises(DataError, match=message):
        read_images_and_labels(save(encode(images), "a"), save(encode(labels), "b"))
