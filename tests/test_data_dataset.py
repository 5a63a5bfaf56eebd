"""Dataset and image sizes: what they accept, refuse, share and compute."""

import ast
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import chaos.data
from chaos.data import Dataset, fit, load, pad, resize
from chaos.data.sizes import check_size
from chaos.errors import DataError


def images(n=6, *shape, dtype=np.uint8):
    """Images that differ from one another, (n, 1, 4, 5) unless another shape is given."""
    shape = shape or (1, 4, 5)
    return (np.arange(n * int(np.prod(shape))) % 251).reshape(n, *shape).astype(dtype)


LABELS = np.array([0, 1, 2, 0, 1, 2])


def test_attributes():
    data = Dataset(images(), LABELS, name="six")
    assert data.images.dtype == np.uint8 and data.images.flags.c_contiguous
    assert data.labels.dtype == np.int64 and data.labels.shape == (6,)
    assert (data.shape, data.classes, len(data)) == ((1, 4, 5), 3, 6)
    assert repr(data) == "<Dataset 'six': 6 images 1x4x5 uint8, 3 classes>"
    assert Dataset(images(), LABELS, classes=np.int32(7)).classes == 7


def test_images_without_channels_get_one():
    assert Dataset(images(6, 4, 5), LABELS).shape == (1, 4, 5)


def test_good_arrays_are_not_copied():
    x = images()
    assert np.shares_memory(Dataset(x, LABELS).images, x)
    x = images(dtype=np.float32)
    assert np.shares_memory(Dataset(x, LABELS).images, x)
    assert np.shares_memory(Dataset(x, LABELS).scaled(), x)


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", ">f8", "f4"])
def test_floats_become_native_float32(dtype):
    data = Dataset(images(dtype=dtype), LABELS)
    assert data.images.dtype == np.float32 and data.images.dtype.isnative
    assert np.array_equal(data.images, images())


@pytest.mark.parametrize("dtype", ["i2", "i4", "i8", "u2", "u8", ">i4"])
def test_integers_become_uint8(dtype):
    data = Dataset(images(dtype=dtype), LABELS)
    assert data.images.dtype == np.uint8 and np.array_equal(data.images, images())


def test_strided_and_unaligned_images_become_contiguous():
    x = images(6, 3, 4, 5)
    assert Dataset(x.transpose(0, 1, 3, 2), LABELS).images.flags.c_contiguous
    raw = np.zeros(6 * 20 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(6, 1, 4, 5)
    assert Dataset(raw, LABELS).images.flags.aligned


def test_lists_and_whole_float_labels():
    data = Dataset([[[0, 255]], [[3, 4]]], [1.0, 0.0])
    assert data.shape == (1, 1, 2) and data.labels.tolist() == [1, 0] and data.labels.dtype == np.int64


def with_value(value, dtype=float):
    x = images(dtype=dtype)
    x[2, 0, 1, 3] = value
    return x


BAD_IMAGES = {
    "1-D": (np.zeros(6), r"images: 1 dimensions, shape \(6,\); shape must be \(n, c, h, w\)"),
    "5-D": (images(6, 1, 1, 4, 5), "images: 5 dimensions"),
    "scalar": (3, "images: 0 dimensions"),
    "none": (np.zeros((0, 1, 4, 5), np.uint8), "images: shape .* is empty"),
    "no pixels": (np.zeros((6, 1, 0, 5), np.uint8), "images: shape .* is empty"),
    "NaN": (with_value(np.nan), r"images: pixel \(2, 0, 1, 3\) is nan"),
    "infinity": (with_value(np.inf), r"images: pixel \(2, 0, 1, 3\) is inf"),
    "-infinity": (with_value(-np.inf, np.float32), r"images: pixel \(2, 0, 1, 3\) is -inf"),
    "beyond float32": (with_value(1e39), r"images: pixel \(2, 0, 1, 3\) is 1e\+39"),
    "256": (with_value(256, int), r"images: pixel \(2, 0, 1, 3\) is 256; integer pixels must be from 0 to"),
    "-1": (with_value(-1, np.int8), r"images: pixel .* is -"),
    "bool": (images(dtype=bool), "images: dtype is bool"),
    "complex": (images(dtype=complex), "images: dtype is complex128"),
    "object": (images(dtype=object), "images: dtype is object"),
    "text": (images().astype("U3"), "images: dtype is <U3"),
    "times": (images(dtype="m8[s]"), "images: dtype is timedelta64"),
    "ragged": ([[[1, 2]], [[1]]], "images: "),
    "masked": (np.ma.masked_equal(images(), images()[0, 0, 0, 0]), r"images: \d+ numbers are masked; fill them first"),
    "None": (None, "images: dtype is object"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(case):
    bad, message = BAD_IMAGES[case]
    with pytest.raises(DataError, match=f"^{message}") as caught:
        Dataset(bad, LABELS)
    assert "\n" not in str(caught.value)


BAD_LABELS = {
    "fewer": ([0, 1, 2], "labels: 3 labels for 6 images"),
    "more": ([0] * 7, "labels: 7 labels for 6 images"),
    "none": ([], "labels: there are none"),
    "not one-hot": (np.eye(6) / 2, r"labels: 2 dimensions, shape \(6, 6\), and row 0 is not one-hot; .* targets="),
    "two hot": (np.eye(6)[:, ::-1] + np.eye(6), "labels: .* row 0 is not one-hot"),
    "three dimensions": (np.zeros((6, 2, 2), int), r"labels: 3 dimensions, shape \(6, 2, 2\); shape must be \(n,\)"),
    "scalar": (1, "labels: 0 dimensions"),
    "fraction": ([0, 1, 1.5, 2, 0.5, 0], "labels: label 2 is 1.5"),
    "NaN": ([0, np.nan, 1, 1, 1, 1], "labels: label 1 is nan"),
    "infinity": ([0, 1, 1, 1, 1, np.inf], "labels: label 5 is inf"),
    "negative": ([0, 1, 2, -1, -2, 0], "labels: label 3 is -1"),
    "of two": ([-1, 1] * 3, r"labels: label 0 is -1; .*; np.unique\(labels, return_inverse=True\)\[1\] numbers them so"),
    "huge": (np.array([2**63 + 5] * 6, np.uint64), "labels: label 0 is 9223372036854775813"),
    "bool": ([True] * 6, r"labels: dtype is bool; labels.astype\(int\)"),
    "complex": ([1j] * 6, "labels: dtype is complex128"),
    "text and numbers": (np.array(["a", "b", 1, "c", None, "a"], object), "labels: label 2 is 1, and others are text"),
    "bytes that are no text": ([b"\xff"] * 6, "labels: b'.xff' is no text"),
    "object": ([None] * 6, "labels: label 0 is None; they must be all whole numbers, or all text"),
    "masked": (np.ma.masked_equal([0, 1, 2, 0, 1, 2], 2), "labels: 2 numbers are masked"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(case):
    bad, message = BAD_LABELS[case]
    with pytest.raises(DataError, match=f"^{message}") as caught:
        Dataset(images(), bad)
    assert "\n" not in str(caught.value)


BAD_NUMBERS = {
    "complex": np.ones(6) * 1j,
    "text": list("123456"),
    "bytes": np.array([b"1"] * 6),
    "bool": [True] * 6,
    "object": [None] * 6,
    "ragged": [[1], [2, 3]] * 3,
    "masked": np.ma.masked_equal(np.arange(6), 3),
    "times": np.arange(6).astype("M8[s]"),
    "records": np.zeros(6, [("a", float)]),
}


@pytest.mark.parametrize("case", BAD_NUMBERS)
def test_bad_targets_and_weights(case):
    for name, known in (("targets", {}), ("weights", {"labels": LABELS})):
        with pytest.raises(DataError, match=f"^{name}: ") as caught:
            Dataset(images(), **known, **{name: BAD_NUMBERS[case]})
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="weights: weight 2 is 1e\\+39"):
        Dataset(images(), LABELS, weights=[1, 1, 1e39, 1, 1, 1])


def test_bad_classes():
    with pytest.raises(DataError, match="label 2 is 2; with 2 classes the most is 1"):
        Dataset(images(), LABELS, classes=2)
    for classes in (0, -1, 2.5, "3", True):
        with pytest.raises(DataError, match="classes is "):
            Dataset(images(), LABELS, classes=classes)


def test_slices_share_memory_and_keep_classes():
    data = Dataset(images(), LABELS, name="six")
    part = data[1:3]
    assert np.shares_memory(part.images, data.images) and np.shares_memory(part.labels, data.labels)
    assert (len(part), part.classes, part.name) == (2, 3, "six")
    assert np.array_equal(part.images, data.images[1:3]) and part.labels.tolist() == [1, 2]
    assert len(data[:100]) == 6


@pytest.mark.parametrize(
    "index",
    [
        slice(None, None, -1),
        slice(None, None, 2),
        [4, 0, 4],
        np.array([5, -1], np.int32),
        np.array([True, False, True, False, False, True]),
    ],
)
def test_other_parts_are_contiguous_copies(index):
    data = Dataset(images(), LABELS)
    part = data[index]
    assert np.array_equal(part.images, data.images[index]) and np.array_equal(part.labels, data.labels[index])
    assert part.images.flags.c_contiguous and part.labels.flags.c_contiguous
    assert not np.shares_memory(part.images, data.images)


def test_bad_indices():
    data = Dataset(images(), LABELS)
    for index in (0, -1, np.int64(2), True, None, "a", 1.5):
        with pytest.raises(TypeError, match=r"data\[i:i \+ 1\]"):
            data[index]
    for index in ((slice(1), 0), [0.5], [[0]], np.zeros((6, 1), bool)):
        with pytest.raises(TypeError, match="index"):
            data[index]
    for index in ([6], [True], np.array([-7])):
        with pytest.raises(IndexError):
            data[index]
    for index in (slice(3, 3), [], np.zeros(6, bool)):
        with pytest.raises(DataError, match="empty"):
            data[index]
    with pytest.raises(TypeError, match=r"data\[i:i \+ 1\]"):
        list(data)


def test_scaled():
    x = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    scaled = Dataset(x, [0]).scaled()
    assert scaled.dtype == np.float32 and scaled.shape == x.shape
    assert scaled.min() == -1 and scaled.max() == 1
    np.testing.assert_allclose(scaled, x / 127.5 - 1, atol=1e-7)
    floats = np.full((1, 1, 2, 2), 7.5, np.float32)
    assert np.array_equal(Dataset(floats, [0]).scaled(), floats)


def test_fingerprint_depends_on_content_shape_and_dtype():
    data = Dataset(images(), LABELS)
    same = Dataset(images(dtype=int), LABELS.tolist(), name="other")
    assert data.fingerprint() == same.fingerprint()
    assert len(data.fingerprint()) == 16 and int(data.fingerprint(), 16) >= 0
    changed = images()
    changed[5, 0, 3, 4] ^= 1
    others = [
        Dataset(changed, LABELS),
        Dataset(images(), LABELS[::-1]),
        Dataset(images(6, 1, 5, 4), LABELS),
        Dataset(images(dtype=np.float32), LABELS),
        data[:5],
        data[::-1],
    ]
    prints = {other.fingerprint() for other in others} | {data.fingerprint()}
    assert len(prints) == len(others) + 1
    assert data[::1].fingerprint() == data.fingerprint()


def test_a_fingerprint_copies_no_images():
    data = Dataset(np.zeros((2_000, 1, 29, 29), np.uint8), np.zeros(2_000, int))
    tracemalloc.start()
    try:
        data.fingerprint()
        assert tracemalloc.get_traced_memory()[1] < data.images.nbytes / 10
    finally:
        tracemalloc.stop()


# Sizes


def bilinear(image, height, width):
    """Bilinear value of every pixel of one (h, w) image, straight from the definition."""
    h, w = image.shape
    result = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            sy = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            sx = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = sy - y0, sx - x0
            top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
            bottom = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
            result[y, x] = top * (1 - fy) + bottom * fy
    return result


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (16, 16), (7, 6), (13, 2), (8, 7)])
def test_resize_is_the_definition(size):
    x = np.random.default_rng(1).normal(size=(2, 3, 7, 6))
    wanted = np.array([[bilinear(channel, *size) for channel in image] for image in x])
    np.testing.assert_allclose(resize(x, size), wanted, atol=1e-12)
    single = resize(x.astype(np.float32), size)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, wanted, atol=1e-6)


def test_resize_rounds_uint8():
    x = np.random.default_rng(2).integers(0, 256, (700, 1, 5, 6), dtype=np.uint8)  # more than one chunk
    got = resize(x, (7, 11))
    assert got.dtype == np.uint8 and got.shape == (700, 1, 7, 11)
    for i in (0, 511, 512, 699):
        wanted = bilinear(x[i, 0].astype(float), 7, 11)
        assert np.abs(got[i, 0] - wanted).max() <= 0.5 + 1e-9


def test_resize_known_values():
    x = np.array([[0.0, 4.0]])
    assert resize(x, (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert resize(np.array([[0, 1, 2, 3]], np.uint8), (1, 2)).tolist() == [[0, 2]]  # from 0.5 and 2.5
    constant = np.full((1, 9, 9), 200, np.uint8)
    assert (resize(constant, (5, 31)) == 200).all()


def test_pad():
    x = images()
    padded = pad(x, (6, 5))
    assert padded.shape == (6, 1, 6, 5) and padded.dtype == np.uint8
    assert np.array_equal(padded[..., :4, :], x) and not padded[..., 4:, :].any()
    assert pad(x, (4, 5)) is x
    with pytest.raises(ValueError, match="cannot be padded"):
        pad(x, (3, 9))


def test_fit_pads_up_to_four_pixels_and_resizes_otherwise():
    x = images(2, 1, 28, 28)
    assert np.array_equal(fit(x, 29), pad(x, 29)) and not fit(x, 29)[..., 28:].any()
    assert np.array_equal(fit(x, 32), pad(x, 32))
    assert np.array_equal(fit(x, 33), resize(x, 33))
    assert np.array_equal(fit(x, 27), resize(x, 27))
    assert np.array_equal(fit(x, (29, 56)), pad(resize(x, (28, 56)), (29, 56)))
    assert np.array_equal(fit(x, (14, 30)), pad(resize(x, (14, 28)), (14, 30)))
    assert fit(x, 28) is x


@pytest.mark.parametrize(
    "size", [0, -1, 1.5, "29", True, (29,), (29, 29, 29), (29, 0), (29, None), 10**9, [3, 2.0], {}, np.zeros((2, 2))]
)
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="size is"):
        check_size(size)
    with pytest.raises(ValueError, match="size is"):
        load("digits", size=size)


def test_good_sizes():
    assert check_size(29) == check_size(np.int64(29)) == check_size([29, 29]) == (29, 29)
    assert check_size(np.array([3, 4])) == (3, 4)


def test_images_that_cannot_be_sized():
    for bad in (np.zeros(3), np.zeros((2, 0, 3)), np.zeros((2, 3, 3), int), np.zeros((2, 3, 3), complex)):
        with pytest.raises(ValueError, match="images have"):
            resize(bad, 5)


def test_importing_the_room_is_light():
    light = {
        "__future__",
        "collections",
        "contextlib",
        "functools",
        "math",
        "operator",
        "os",
        "stat",
        "time",
        "typing",
        "numpy",
    }
    light |= {"dataclasses", "inspect"}
    later = {"cifar", "folders", "mnist", "svhn", "time_series", "unpickled"}  # which `load` imports when it needs them
    files = sorted(Path(chaos.data.__file__).parent.glob("*.py"))
    assert len(files) >= 7
    for file in files:
        if file.stem in later:
            assert f"import {file.stem}" not in (file.parent / "__init__.py").read_text().split("def ")[0]
            continue
        for node in ast.parse(file.read_text()).body:  # the top level only; `if TYPE_CHECKING` is not in it
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= light, file.name
            elif isinstance(node, ast.ImportFrom):
                inside = node.level == 1 or (node.level == 2 and node.module in ("arrays", "errors", "hints", "options"))
                assert inside or (node.level == 0 and node.module.split(".")[0] in light), file.name
