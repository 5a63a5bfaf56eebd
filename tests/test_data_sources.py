"""Where data sets come from: data directory, cache, mirrors (on this machine), .npz, embedded digits."""

import gzip
import hashlib
import http.server
import io
import os
import pwd
import random
import re
import runpy
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from chaos.data import download, load, mnist, places, read_npz
from chaos.data.digits import read_digits
from chaos.errors import DataError, DataNotFound

NAME = "train-images-idx3-ubyte"


def idx_bytes(array):
    lengths = b"".join(struct.pack(">I", length) for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


def small_mnist(n=12, test=5, side=28, seed=0):
    """Four small files in MNIST's form, {name: content}."""
    rng = np.random.default_rng(seed)
    contents = {}
    for part, count in (("train", n), ("t10k", test)):
        images = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
        labels = rng.integers(0, 9, count, dtype=np.uint8)
        contents[f"{part}-images-idx3-ubyte"] = idx_bytes(images)
        contents[f"{part}-labels-idx1-ubyte"] = idx_bytes(labels)
    return contents


def put(folder, contents, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
        else:
            (folder / name).write_bytes(content)


@pytest.fixture(autouse=True)
def closed_world(tmp_path, monkeypatch):
    """An empty cache, no data directory, no network, no waiting: for every test of this file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CHAOS_DATA_DIR", raising=False)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/",))
    monkeypatch.setattr(download, "TIMEOUT", 2)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "chaos" / "mnist"


class Mirror:
    """A web server on this machine; `answers` maps paths to bytes, a status or a function of the handler."""

    def __init__(self):
        self.answers, self.asked = {}, []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.asked.append(self.path)
                answer = mirror.answers.get(self.path, 404)
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer if isinstance(answer, int) else 200)
                body = b"" if isinstance(answer, int) else answer
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def mirror(monkeypatch):
    """A mirror that holds a small MNIST in /good/, whose checksums are the expected ones."""
    server = Mirror()
    contents = small_mnist()
    for name, content in contents.items():
        server.answers[f"/good/{name}.gz"] = gzip.compress(content)
    sums = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()}
    monkeypatch.setattr(mnist, "FILES", sums)
    server.contents = contents
    yield server
    server.close()


# Names


NO_NAMES = [(name, f"must be a text or a path, not {type(name).__name__}") for name in (3, None, b"mnist")]


@pytest.mark.parametrize("name", ["mnits", "MNIST", "", "cifar10\n"])
def test_unknown_names(name):
    with pytest.raises(DataError, match="unknown data set .*known: mnist, digits, .*, and paths of folders") as caught:
        load(name)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, DataNotFound)


@pytest.mark.parametrize(
    "name, told", [("data.npy", "data.npy: no such file"), ("no/where", "no/where: no such"), *NO_NAMES]
)
def test_names_that_are_none(name, told):
    with pytest.raises(DataError, match=told):
        load(name)


# Data directory and cache


@pytest.mark.parametrize("zipped", [False, True])
def test_data_dir_from_environment_and_argument(tmp_path, monkeypatch, zipped):
    put(tmp_path / "a" / "mnist", small_mnist(), zipped)
    put(tmp_path / "b" / "mnist", small_mnist(n=9), zipped)
    monkeypatch.setenv("CHAOS_DATA_DIR", str(tmp_path / "a"))
    train, test = load("mnist")
    assert (len(train), len(test), train.shape, train.classes, test.classes) == (12, 5, (1, 28, 28), 10, 10)
    assert len(load("mnist", data_dir=tmp_path / "b")[0]) == 9
    content = small_mnist()[NAME]
    assert train.images.tobytes() == content[16:]


def test_size(tmp_path):
    put(tmp_path / "mnist", small_mnist())
    train, test = load("mnist", data_dir=tmp_path)
    padded, padded_test = load("mnist", size=29, data_dir=tmp_path)
    assert padded.shape == padded_test.shape == (1, 29, 29) and padded.images.dtype == np.uint8
    assert np.array_equal(padded.images[..., :28, :28], train.images)
    assert not padded.images[..., 28, :].any() and not padded.images[..., 28].any()
    assert (padded.classes, padded.name, padded.labels.tolist()) == (10, train.name, train.labels.tolist())
    assert load("mnist", size=(14, 40), data_dir=tmp_path)[1].shape == (1, 14, 40)


def test_download_is_yes_or_no(tmp_path):
    for bad in ("no", 0, None):
        with pytest.raises(ValueError, match="download must be True or False"):
            load("digits", download=bad)


@pytest.mark.parametrize("zipped", [False, True])
def test_incomplete_data_dir(tmp_path, cache, zipped):
    contents = small_mnist()
    put(cache, contents)
    del contents["t10k-labels-idx1-ubyte"]
    put(tmp_path / "mnist", contents, zipped)
    with pytest.raises(DataError, match=r"mnist: holds part of mnist but not t10k-labels-idx1-ubyte \("):
        load("mnist", data_dir=tmp_path)


def test_data_dir_without_the_set_goes_on_to_the_cache(tmp_path, cache, monkeypatch):
    put(cache, small_mnist(n=7))
    for folder in (tmp_path / "absent", tmp_path, ""):
        monkeypatch.setenv("CHAOS_DATA_DIR", str(folder))
        assert len(load("mnist", download=False)[0]) == 7
    (tmp_path / "mnist").mkdir()
    assert len(load("mnist", data_dir=tmp_path, download=False)[0]) == 7


def test_default_cache_is_below_home(tmp_path, monkeypatch):
    put(tmp_path / "home" / ".cache" / "chaos" / "mnist", small_mnist(n=6))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert len(load("mnist", download=False)[0]) == 6
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert len(load("mnist", download=False)[0]) == 6


def test_cache_where_no_home_is_known(tmp_path, monkeypatch):
    """A user whom the system does not know, as in containers: never a folder below the current one."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Path(places.cache_folder("mnist"))
    assert folder == tmp_path / f"chaos-{os.getuid()}" / "mnist"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    put(folder, small_mnist(n=6))
    assert len(load("mnist", download=False)[0]) == 6
    shutil.rmtree(folder.parent)
    (tmp_path / "another's").mkdir()
    folder.parent.symlink_to(tmp_path / "another's")
    with pytest.raises(DataNotFound, match="belongs to somebody else; set XDG_CACHE_HOME"):
        load("mnist", download=False)


def test_nothing_anywhere(tmp_path, cache):
    with pytest.raises(DataNotFound) as caught:
        load("mnist", data_dir=tmp_path, download=False)
    text = str(caught.value)
    assert str(tmp_path / "mnist") in text and str(cache) in text and "CHAOS_DATA_DIR" in text
    assert "switched off" in text and "\n" not in text
    assert not cache.exists()


def test_damaged_files_are_named(tmp_path):
    contents = small_mnist()
    put(tmp_path / "mnist", {**contents, NAME: contents[NAME][:-1]})
    with pytest.raises(DataError, match=f"{NAME}: payload: expected 9408 bytes .* got 9407"):
        load("mnist", data_dir=tmp_path)
    (tmp_path / "mnist" / NAME).unlink()
    (tmp_path / "mnist" / NAME).mkdir()
    with pytest.raises(DataError, match=f"{NAME}: not a regular file"):
        load("mnist", data_dir=tmp_path)
    other = small_mnist(side=20)
    put(tmp_path / "x" / "mnist", {n: (other if n.startswith("t10k") else contents)[n] for n in contents})
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: dimensions: test images"):
        load("mnist", data_dir=tmp_path / "x")


# Downloads


def test_download_fills_the_cache(mirror, cache, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/good/",))
    train, test = load("mnist")
    assert (len(train), len(test), len(mirror.asked)) == (12, 5, 4)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == mirror.contents
    load("mnist")
    assert len(mirror.asked) == 4
    (cache / NAME).unlink()
    load("mnist")
    assert mirror.asked[4:] == [f"/good/{NAME}.gz"]


def test_plain_files_on_a_mirror(mirror, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/good/",))
    for name, content in mirror.contents.items():
        mirror.answers[f"/good/{name}.gz"] = content
    assert len(load("mnist")[0]) == 12


def cut(handler):
    """Promises more bytes than it sends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.wfile.write(b"\x1f\x8b" + bytes(100))


def silent(handler):
    """Closes without an answer."""
    handler.close_connection = True


def flood(handler):
    """Sends without end."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(2**16))
    except OSError:
        pass


GOOD_FILE = small_mnist()[NAME]
FAULTS = {
    # Answer, words of the message, how often the mirror is asked.
    "404": (404, "HTTP status 404", 1),
    "503": (503, "HTTP status 503", 2),
    "empty": (b"", "content is not .* bytes but 0", 1),
    "page": (b"<html>hotel network</html>", "content is not", 1),
    "other content": (gzip.compress(GOOD_FILE[:-1] + b"\7"), "checksum mismatch", 1),
    "longer": (gzip.compress(GOOD_FILE + b"\7"), "bytes but more", 1),
    "shorter": (gzip.compress(GOOD_FILE[:-1]), "bytes but 9423", 1),
    "bomb": (gzip.compress(bytes(2**24)), "bytes but more", 1),
    "half": (gzip.compress(GOOD_FILE)[:500], "content is not", 1),
    "damaged": (gzip.compress(GOOD_FILE)[:20] + b"\xff" * 500, "damaged gzip stream|content is not", 1),
    "cut": (cut, "connection ended after 102 of 1000000 bytes", 2),
    "silent": (silent, "closed|bad answer", 2),
    "flood": (flood, "sends more than", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_mirror(mirror, cache, monkeypatch, fault):
    """A fault at the first mirror is passed over; at the only one it is reported, and nothing is left."""
    answer, message, times = FAULTS[fault]
    mirror.answers[f"/bad/{NAME}.gz"] = answer
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/bad/",))
    with pytest.raises(DataNotFound) as caught:
        load("mnist")
    text = str(caught.value)
    assert re.search(message, text) and f"{mirror.url}/bad/{NAME}.gz" in text and str(cache) in text, text
    assert "\n" not in text
    assert mirror.asked == [f"/bad/{NAME}.gz"] * times
    assert not cache.exists() or not list(cache.iterdir())

    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/bad/", f"{mirror.url}/good/"))
    assert len(load("mnist")[0]) == 12
    assert (cache / NAME).read_bytes() == mirror.contents[NAME]


def test_a_passing_fault_is_tried_once_more(mirror, monkeypatch):
    good = mirror.answers[f"/good/{NAME}.gz"]

    def recover(handler):
        mirror.answers[f"/good/{NAME}.gz"] = good
        handler.send_error(500)

    mirror.answers[f"/good/{NAME}.gz"] = recover
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/good/",))
    assert len(load("mnist")[0]) == 12 and len(mirror.asked) == 5


def test_timeouts(mirror, monkeypatch):
    release = threading.Event()
    mirror.answers[f"/slow/{NAME}.gz"] = lambda handler: release.wait(5)
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/slow/",))
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    try:
        with pytest.raises(DataNotFound, match="timed out"):
            load("mnist")
    finally:
        release.set()


def test_deadline(mirror, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/good/",))
    monkeypatch.setattr(download, "DEADLINE", -1)
    with pytest.raises(DataNotFound, match="not done after -1 s"):
        load("mnist")


def test_no_connection(cache):
    with pytest.raises(DataNotFound, match="not be downloaded: http://127.0.0.1:9/.*: Connection refused"):
        load("mnist")
    assert not cache.exists()


def test_unwritable_cache(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/good/",))
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataNotFound, match=f"{NAME}: cannot be written: "):
        load("mnist")


def test_interrupted_write_leaves_nothing(mirror, cache, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/good/",))

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert list(cache.iterdir()) == []


def test_several_at_once(mirror, cache, tmp_path):
    """Processes that find the same cache empty all get the whole set, and leave nothing else behind."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from chaos.data import load, mnist\n"
        f"mnist.MIRRORS, mnist.FILES = ({mirror.url + '/good/'!r},), {mnist.FILES!r}\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(len(load('mnist')[0]))\n"
    )
    running = [
        subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    try:
        for process in running:
            assert process.stdout.readline() == b"ready\n"
        for process in running:
            process.stdin.write(b"go\n")
            process.stdin.flush()
        found = [process.communicate(timeout=60) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert found == [(b"12\n", b"")] * 4
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == mirror.contents


def test_another_file_of_a_set_that_is_partly_there(mirror, cache, monkeypatch):
    """A file that could not be brought leaves those that are there."""
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror.url}/good/",))
    del mirror.answers[f"/good/{NAME}.gz"]
    put(cache, {name: content for name, content in mirror.contents.items() if name != NAME})
    with pytest.raises(DataNotFound, match="HTTP status 404"):
        load("mnist")
    assert {path.name for path in cache.iterdir()} == set(mirror.contents) - {NAME}


def test_real_checksums_and_mirrors():
    """The constants themselves, as no test may use the network."""
    assert len(mnist.FILES) == 4
    for name, (size, sha256) in mnist.FILES.items():
        count = 60000 if name.startswith("train") else 10000
        assert size == (16 + 784 * count if "images" in name else 8 + count)
        assert re.fullmatch("[0-9a-f]{64}", sha256)


# .npz


X = np.arange(6 * 4 * 5).reshape(6, 4, 5).astype(np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])
KERAS = {"x_train": X, "y_train": Y, "x_test": X[:3], "y_test": Y[:3] + 3}


def save(path, arrays, compressed=True):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("keys", [list(KERAS), "train_images train_labels test_images test_labels".split()])
def test_npz(tmp_path, keys, compressed):
    path = save(tmp_path / "six.npz", dict(zip(keys, KERAS.values(), strict=True)), compressed)
    for name in (path, str(path)):
        train, test = load(name)
        assert (len(train), len(test), train.shape, train.name) == (6, 3, (1, 4, 5), "six/train")
        assert train.classes == test.classes == 6  # the larger of the two
        assert np.array_equal(train.images[:, 0], X)
    assert load(path, size=8)[0].shape == (1, 8, 8)


def test_npz_without_test_arrays(tmp_path):
    path = save(tmp_path / "a.npz", {"x_train": X, "y_train": Y, "other": X})
    train, test = load(path, size=5)
    assert train.shape == (1, 5, 5) and test is None


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((6, 4, 5, 3), (3, 4, 5)),
        ((6, 4, 5, 1), (1, 4, 5)),
        ((6, 3, 4, 5), (3, 4, 5)),
        ((6, 1, 4, 3), (1, 4, 3)),
        ((6, 3, 4, 3), (3, 4, 3)),
        ((6, 4, 5, 2), (4, 5, 2)),
    ],
)
def test_npz_layout(tmp_path, shape, wanted):
    x = np.random.default_rng(0).random(shape)
    train, _ = load(save(tmp_path / "a.npz", {"x_train": x, "y_train": Y[:, None]}))
    assert train.shape == wanted and train.images.dtype == np.float32 and train.labels.tolist() == Y.tolist()
    if wanted != shape[1:]:
        assert np.array_equal(train.images, x.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no x_train and no y_train; found no arrays, wanted x_train, .* or train_images, "),
        ({"x_train": X}, "no y_train; found x_train, wanted"),
        ({"train_images": X}, "no train_labels; found train_images, wanted"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "no y_test; found x_train, y_train, x_test,"),
        ({"a": X, "b": Y}, "no x_train and no y_train; found a, b, wanted"),
        ({"x_train": X, "y_train": Y[:5]}, "training arrays: labels: 5 labels for 6 images"),
        ({**KERAS, "y_test": Y}, "test arrays: labels: 6 labels for 3 images"),
        ({**KERAS, "x_test": X[:3, :3]}, r"training images have shape \(1, 4, 5\), test images \(1, 3, 5\)"),
        ({"x_train": X.astype(object), "y_train": Y}, "x_train: holds Python objects"),
        ({"x_train": X.astype("U1"), "y_train": Y}, "training arrays: images: dtype is <U1"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    path = save(tmp_path / "a.npz", arrays)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {message}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_npz_that_is_none(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(tmp_path / "absent.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load(tmp_path / "folder.npz")
    for content in (b"", b"PK", b"not a zip file", b"\x80\x04N."):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(DataError, match="not a readable .npz file"):
            load(tmp_path / "a.npz")
    with pytest.raises(DataError):
        load("nul\0.npz")


def test_lying_npy_header(tmp_path):
    for shape in ((2**20, 2**13), (2**40, 2**40), (3,), (-1, 4)):
        buffer = io.BytesIO()
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("x_train.npy", buffer.getvalue() + bytes(4))
            archive.writestr("y_train.npy", b"")
        with pytest.raises(DataError, match="x_train: (expected|shape) "):
            load(tmp_path / "a.npz")


@pytest.mark.parametrize("compressed", [False, True])
def test_fuzzed_npz(tmp_path, compressed):
    """Damaged files are refused, or hold what was stored: zip checks every member."""
    good = save(tmp_path / "good.npz", KERAS, compressed).read_bytes()
    rng = random.Random(7)
    path = tmp_path / "bad.npz"
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            images, labels, test_images, test_labels = read_npz(path)
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert np.array_equal(images, X) and np.array_equal(labels, Y)
            assert test_images is None or np.array_equal(test_images, X[:3])
            assert test_labels is None or np.array_equal(test_labels, Y[:3] + 3)


# Digits


def test_digits():
    images, labels = read_digits()
    assert images.shape == (1797, 8, 8) and images.dtype == np.uint8 and images.max() == 16
    train, test = load("digits", download=False)
    assert (len(train), len(test), train.shape, train.classes, test.classes) == (1437, 360, (1, 8, 8), 10, 10)
    pixels = np.concatenate([train.images, test.images])[:, 0]
    wanted = [round(v * 255 / 16) for v in range(17)]
    assert np.array_equal(pixels, np.array(wanted, np.uint8)[images])
    assert np.array_equal(np.concatenate([train.labels, test.labels]), labels)
    assert np.bincount(train.labels).min() > 130 and np.bincount(test.labels).min() > 30
    assert load("digits", size=29)[1].shape == (1, 29, 29)


def test_digits_are_those_of_sklearn():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    images, labels = read_digits()
    assert np.array_equal(images, digits.images) and np.array_equal(labels, digits.target)


def test_digits_file_is_small_and_attributed():
    folder = Path(mnist.__file__).parent
    assert (folder / "digits.npz").stat().st_size <= 60_000
    text = (folder / "digits.txt").read_text()
    assert "Alpaydin" in text and "CC BY 4.0" in text and "UCI Machine Learning" in text


def test_make_digits_writes_the_same_arrays_twice(tmp_path):
    pytest.importorskip("sklearn.datasets")
    script = Path(__file__).resolve().parent.parent / "scripts" / "make_digits.py"
    if not script.exists():
        pytest.skip("the scripts are not installed with the package")
    names = runpy.run_path(str(script))
    arrays = names["source"]()
    for name in ("a.npz", "b.npz"):
        names["write"](tmp_path / name, arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert names["check"](tmp_path / "a.npz", arrays) and names["check"](names["TARGET"], arrays)
    assert not names["check"](tmp_path / "a.npz", {**arrays, "labels": arrays["labels"] + 1})
