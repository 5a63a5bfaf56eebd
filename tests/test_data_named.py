"""Data sets of other forms than MNIST's: CIFAR, EMNIST, SVHN, pictures in folders and archives, tables, mapped arrays."""

import gzip
import hashlib
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from chaos.data import NAMES, cifar, load, mnist, places, sources, svhn, tables
from chaos.data.unpickled import read_pickle
from chaos.errors import DataError, DataNotFound

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def closed_world(tmp_path, monkeypatch):
    """An empty cache, no data directory, nothing of the system."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "SYSTEM", (str(tmp_path / "system"),))
    monkeypatch.delenv("CHAOS_DATA_DIR", raising=False)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def put(folder, contents):
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tar(path, contents, mode="w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_list_of_names():
    assert [name for name in NAMES if name not in ("digits", "japanese_vowels")] == [*sources()]
    for name, source in sources().items():
        assert source.name == name and source.about and source.folders
        for remote in source.remotes():
            assert remote.name.removesuffix(".gz" * source.forms[0].zipped) in source.forms[0].files, remote
    for name in ("cifar-10", "cifar11", "MNIST", "fashion_mist"):
        with pytest.raises(DataError, match=f"unknown data set '{name}'; did you mean "):
            load(name)
    for name, source in sources().items():
        with pytest.raises(
            DataNotFound, match=rf"^{name} is not on this machine .* into \$CHAOS_DATA_DIR/{source.folders[0]}/"
        ):
            load(name, download=False)


def test_wanted_sums():
    """The constants themselves, as no test may use the network."""
    remotes = {remote for source in sources().values() for remote in source.remotes()}
    sums = [remote.checksum for remote in remotes]
    assert len(remotes) == len(set(sums)) == 4 + 4 + 4 + 1 + 2 + 3
    for remote in remotes:
        kind, digits = remote.checksum.split(":")
        assert len(bytes.fromhex(digits)) == getattr(hashlib, kind)().digest_size


# CIFAR


PIXELS, TEST_PIXELS = (RNG.integers(0, 256, (n, 3, 32, 32), np.uint8) for n in (15, 4))
TEN, TEST_TEN = RNG.integers(0, 10, 15), RNG.integers(0, 10, 4)
FINE, TEST_FINE = RNG.integers(0, 100, 15), RNG.integers(0, 100, 4)


def records(pixels, *labels):
    return b"".join(bytes([*map(int, each), *image.ravel()]) for image, *each in zip(pixels, *labels, strict=True))


class Python2(pickle._Pickler):
    """Writes text as Python 2 did."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, text):
        text = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_bytes


def pickled(pixels, protocol=2, **labels):
    """A batch, with protocol 2 as Python 2 has written it, and NumPy of its days."""
    columns = {name: list(map(int, values)) for name, values in labels.items()}
    content = {
        "batch_label": "one",
        "data": pixels.reshape(len(pixels), -1),
        "filenames": ["a.png"] * len(pixels),
        **columns,
    }
    if protocol > 2:
        return pickle.dumps(content, protocol)
    file = io.BytesIO()
    Python2(file, 2).dump(content)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def cifar10(kind):
    if kind == "bin":
        batches = {f"data_batch_{k + 1}.bin": records(PIXELS[k::5], TEN[k::5]) for k in range(5)}
        return "cifar-10-batches-bin", batches | {"test_batch.bin": records(TEST_PIXELS, TEST_TEN)}
    batches = {f"data_batch_{k + 1}": pickled(PIXELS[k::5], labels=TEN[k::5]) for k in range(5)}
    return "cifar-10-batches-py", batches | {"test_batch": pickled(TEST_PIXELS, labels=TEST_TEN), "batches.meta": b"other"}


def cifar100(kind):
    if kind == "bin":
        return "cifar-100-binary", {
            "train.bin": records(PIXELS, FINE // 5, FINE),
            "test.bin": records(TEST_PIXELS, TEST_FINE // 5, TEST_FINE),
        }
    return "cifar-100-python", {
        "train": pickled(PIXELS, fine_labels=FINE, coarse_labels=FINE // 5),
        "test": pickled(TEST_PIXELS, fine_labels=TEST_FINE, coarse_labels=TEST_FINE // 5),
    }


@pytest.mark.parametrize("place", ["folder", "inside", "beside", "archive", "cache"])
@pytest.mark.parametrize("kind", ["bin", "py"])
@pytest.mark.parametrize("make", [cifar10, cifar100])
def test_cifar(tmp_path, make, kind, place):
    name = make.__name__
    inside, contents = make(kind)
    archive = f"cifar-{name[5:]}-{'binary' if kind == 'bin' else 'python'}.tar.gz"
    home = tmp_path / ("cache/chaos" if place == "cache" else "data") / name
    if place in ("archive", "cache"):
        tar(home / archive, {f"{inside}/{file}": content for file, content in contents.items()})
    else:
        put({"inside": home / inside, "beside": home.parent / inside, "folder": home}[place], contents)
    train, test = load(name, data_dir=tmp_path / "data", download=False)
    order = np.concatenate([np.arange(15)[k::5] for k in range(5)]) if name == "cifar10" else np.arange(15)
    labels, test_labels = (TEN, TEST_TEN) if name == "cifar10" else (FINE, TEST_FINE)
    assert np.array_equal(train.images, PIXELS[order]) and np.array_equal(test.images, TEST_PIXELS)
    assert np.array_equal(train.labels, labels[order]) and np.array_equal(test.labels, test_labels)
    assert train.classes == test.classes == int(name[5:]) == len(train.class_names)
    assert train.name == f"{name}/train" and train.class_names == test.class_names
    if name == "cifar100":
        coarse, _ = load("cifar100-coarse", data_dir=tmp_path / "data", download=False)
        assert np.array_equal(coarse.labels, FINE // 5) and coarse.classes == 20 and len(coarse.class_names) == 20


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_cifar_that_python_3_has_pickled(tmp_path, protocol):
    contents = {
        "train": pickled(PIXELS, protocol, fine_labels=FINE),
        "test": pickled(TEST_PIXELS, protocol, fine_labels=FINE[:4]),
    }
    put(tmp_path / "cifar100", contents)
    assert np.array_equal(load("cifar100", data_dir=tmp_path)[0].images, PIXELS)
    array = np.asfortranarray(PIXELS[0, 0])
    assert np.array_equal(read_pickle(pickle.dumps({"a": array}, 2), "a")["a"], array)


def test_damaged_cifar(tmp_path):
    inside, contents = cifar10("bin")
    put(tmp_path / "a/cifar10", {**contents, "data_batch_3.bin": contents["data_batch_3.bin"][:-1]})
    with pytest.raises(DataError, match=r"data_batch_3.bin: 9218 bytes are no whole number of records of 3073"):
        load("cifar10", data_dir=tmp_path / "a")
    put(tmp_path / "b/cifar10", {"data_batch_3.bin": b""})
    with pytest.raises(DataError, match="holds part of cifar10 but not data_batch_1.bin, .*test_batch.bin"):
        load("cifar10", data_dir=tmp_path / "b")
    tar(tmp_path / "c/cifar10/cifar-10-binary.tar.gz", {f"{inside}/test_batch.bin": b""})
    with pytest.raises(DataError, match="holds no cifar-10-batches-bin/data_batch_1.bin"):
        load("cifar10", data_dir=tmp_path / "c")
    put(tmp_path / "d/cifar10", {"cifar-10-binary.tar.gz": b"\x1f\x8bnothing"})
    with pytest.raises(DataError, match="not a readable archive"):
        load("cifar10", data_dir=tmp_path / "d")
    put(tmp_path / "e/cifar10", {**contents, "test_batch.bin": b"\x0a" + bytes(3072)})
    with pytest.raises(DataError, match="label 0 is 10; with 10 classes"):
        load("cifar10", data_dir=tmp_path / "e")
    for bad, message in (
        (pickle.dumps([1]), "holds no 'data'"),
        (pickled(PIXELS[:2].astype(np.int16), labels=TEN[:2]), "another type than uint8"),
        (pickled(PIXELS[:2, :1], labels=TEN[:2]), r"data must be an array \(n, 3072\)"),
        (pickled(PIXELS[:2], labels=TEN[:3]), "3 labels for 2 images"),
        (pickled(PIXELS[:2], labels=[1, 10]), "labels must be a list of whole numbers from 0 to 9"),
        (pickled(PIXELS[:2], fine_labels=TEN[:2]), "holds no 'labels'"),
        (b"", "not a readable pickle"),
    ):
        put(tmp_path / "f/cifar10", cifar10("py")[1] | {"test_batch": bad})
        with pytest.raises(DataError, match=f"test_batch: .*{message}"):
            load("cifar10", data_dir=tmp_path / "f")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("here-was-evil",)


def test_nothing_of_a_pickle_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(DataError, match="asks for .*mkdir, which is not executed"):
            read_pickle(pickle.dumps({"data": Evil()}, protocol), "a")
    for module, name in (("builtins", "eval"), ("numpy", "load"), ("numpy.core.multiarray", "fromfile"), ("os", "system")):
        with pytest.raises(DataError, match=f"asks for {module}.{name}"):
            read_pickle(f"c{module}\n{name}\n(S'1'\ntR.".encode(), "a")
    with pytest.raises(DataError, match="outside the file"):
        read_pickle(b"Pfile\n.", "a")
    assert not list(tmp_path.iterdir())


def test_fuzzed_pickles_are_refused_or_harmless():
    good = pickled(PIXELS[:1], labels=TEN[:1])
    assert {opcode.name for opcode, _, _ in pickletools.genops(good)} >= {"REDUCE", "BUILD"}
    for _ in range(300):
        bad = bytearray(good)
        for at in RNG.integers(0, 400, 3):
            bad[at] = RNG.integers(256)
        try:
            read_pickle(bytes(bad), "a")
        except DataError as error:
            assert "\n" not in str(error)


def picture(pixels, kind="png"):
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)).save(file, kind)
    return file.getvalue()


def test_cifar_from_jpeg(tmp_path):
    """The archive gives what its unpacked official layout gives: the same images in the same order."""
    halves = {"train": [], "test": []}
    contents = {}
    for half, count in (("test", 2), ("train", 3)):
        for label, name in enumerate(cifar.NAMES):
            for k in range(count):
                content = picture(RNG.integers(0, 256, (3, 32, 32), np.uint8), "jpeg")
                contents[f"{half}/{name}/{k:04}.jpg"] = content
                pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
                halves[half].append((label, pixels))
    tar(tmp_path / "cifar10" / "cifar10-jpeg.tar.xz", contents, "w:xz")
    for found, (half, seed) in zip(load("cifar10", data_dir=tmp_path), (("train", 1), ("test", 2)), strict=True):
        wanted = [halves[half][i] for i in np.random.default_rng(seed).permutation(len(halves[half]))]
        assert np.array_equal(found.images, [pixels for _, pixels in wanted])
        assert found.labels.tolist() == [label for label, _ in wanted]
        assert (found.name, found.class_names) == (f"cifar10-jpeg/{half}", cifar.NAMES)


# MNIST's kin, SVHN


@pytest.mark.parametrize("name, folder", [("fashion_mnist", "fashion-mnist"), ("kmnist", "kmnist"), ("mnist", "mnist")])
@pytest.mark.parametrize("place", ["data", "other", "system", "cache"])
def test_kin_of_mnist(tmp_path, name, folder, place):
    images, labels = RNG.integers(0, 256, (7, 28, 28), np.uint8), np.arange(7, dtype=np.uint8)
    contents = {
        f"{half}-{what}-ubyte.gz": gzip.compress(idx(array))
        for half in ("train", "t10k")
        for what, array in (("images-idx3", images), ("labels-idx1", labels))
    }
    homes = {
        "data": tmp_path / "data" / name,
        "other": tmp_path / "data" / sources()[name].folders[-1],
        "system": tmp_path / "system" / folder,
        "cache": tmp_path / "cache/chaos" / name,
    }
    put(homes[place], contents)
    if place == "system" and name == "kmnist":
        with pytest.raises(DataNotFound):
            load(name, download=False)
        return
    train, test = load(name, data_dir=tmp_path / "data", download=False)
    assert np.array_equal(train.images[:, 0], images) and train.labels.tolist() == test.labels.tolist() == labels.tolist()
    assert train.classes == 10 and (train.class_names is None or len(train.class_names) == 10)
    assert load(name.replace("_", "-"), size=29, data_dir=tmp_path / "data", download=False)[1].shape == (1, 29, 29)


@pytest.mark.parametrize("part", mnist.EMNIST)
@pytest.mark.parametrize("archive", [False, True])
def test_emnist(tmp_path, part, archive):
    names = mnist.EMNIST[part]
    first = part == "letters"
    labels = np.arange(first, len(names) + first, dtype=np.uint8)
    images = RNG.integers(0, 256, (len(names), 28, 28), np.uint8)
    contents = {
        f"gzip/emnist-{part}-{half}-{what}-ubyte.gz": gzip.compress(idx(array))
        for half in ("train", "test")
        for what, array in (("images-idx3", images.transpose(0, 2, 1)), ("labels-idx1", labels))
    }
    name = "emnist" if part == "balanced" else f"emnist_{part}"
    if archive:
        (tmp_path / "emnist").mkdir()
        with zipfile.ZipFile(tmp_path / "emnist" / "gzip.zip", "w") as packed:
            for member, content in contents.items():
                packed.writestr(member, content)
    else:
        put(tmp_path / "emnist", contents)
    train, test = load(name, data_dir=tmp_path)
    assert np.array_equal(train.images[:, 0], images) and np.array_equal(test.images, train.images)
    assert train.labels.tolist() == list(range(len(names))) and train.class_names == names


def test_classes_of_emnist():
    """After table II and the mapping files of the set: 62 characters, or 47 without small ones that look like capitals."""
    assert len(mnist.EMNIST["byclass"]) == 62 and len(mnist.EMNIST["balanced"]) == 47
    assert set(mnist.EMNIST["byclass"]) - set(mnist.EMNIST["balanced"]) == set("cijklmopsuvwxyz")
    assert mnist.EMNIST["byclass"][10] == "A" and mnist.EMNIST["byclass"][36] == "a"


def test_damaged_emnist(tmp_path):
    put(tmp_path / "emnist", {"gzip.zip": b"PK"})
    with pytest.raises(DataError, match="gzip.zip: not a readable zip archive"):
        load("emnist", data_dir=tmp_path)
    with zipfile.ZipFile(tmp_path / "emnist" / "gzip.zip", "w") as packed:
        packed.writestr("other", b"")
    with pytest.raises(DataError, match="holds no gzip/emnist-balanced-train-images-idx3-ubyte.gz"):
        load("emnist", data_dir=tmp_path)


def test_svhn(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    (tmp_path / "svhn").mkdir()
    arrays = {}
    for name, count in (("train", 6), ("extra", 5), ("test", 10)):
        images, labels = RNG.integers(0, 256, (count, 3, 32, 32), np.uint8), np.arange(count, dtype=np.uint8) % 10
        arrays[name] = images, labels
        stored = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]}
        savemat(tmp_path / "svhn" / f"{name}_32x32.mat", stored, do_compression=True)
    train, test = load("svhn", data_dir=tmp_path)
    assert np.array_equal(train.images, arrays["train"][0]) and np.array_equal(train.labels, arrays["train"][1])
    assert np.array_equal(test.images, arrays["test"][0]) and test.labels[0] == 0 and train.classes == 10
    more, _ = load("svhn_extra", data_dir=tmp_path / "svhn")  # the files beside other sets
    assert np.array_equal(more.images, np.concatenate([arrays["train"][0], arrays["extra"][0]]))
    for stored, message in (
        ({"X": images.transpose(2, 3, 1, 0)}, "must hold a label y for each of its 10 images"),
        ({"y": labels}, "must hold images X"),
        ({"X": images.transpose(2, 3, 1, 0), "y": labels[:, None]}, "labels y must be from 1 to 10"),
    ):
        savemat(tmp_path / "bad.mat", stored)
        with pytest.raises(DataError, match=message):
            svhn.read_mat(str(tmp_path / "bad.mat"))
    good = (tmp_path / "svhn" / "test_32x32.mat").read_bytes()
    for bad in (b"", b"nothing", good[:1000]):
        (tmp_path / "bad.mat").write_bytes(bad)
        with pytest.raises(DataError, match="bad.mat: (not a readable|must hold|cannot be read)"):
            svhn.read_mat(str(tmp_path / "bad.mat"))


def test_spoken_vowels(tmp_path):
    text = "@classLabel true 1 2\n@data\n1,2,3:0,1,0:a\n4,5:1,1:b\n"
    put(tmp_path / "JapaneseVowels", {f"JapaneseVowels_{part}.ts": text.encode() for part in ("TRAIN", "TEST")})
    for name in ("japanese_vowels", "japanese-vowels"):
        train, test = load(name, data_dir=tmp_path)
        assert train.shape == test.shape == (2, 29) and train.labels.tolist() == [0, 1]


# Pictures


GREY = RNG.integers(0, 256, (12, 6, 5), np.uint8)


def picture_folder(top, halves=("train", "test"), label=str):
    """Two classes of three pictures each in every half, with things that are none between them."""
    put(
        top,
        {
            f"{half}/{label(k)}/{i}.png": picture(GREY[6 * (half in halves[1:]) + 3 * k + i])
            for half in halves
            for k in range(2)
            for i in range(3)
        },
    )
    put(
        top,
        {f"{halves[0]}/{label(0)}/notes.txt": b"", f"{halves[0]}/.hidden/a.png": b"", f"{halves[0]}/{label(0)}/.a.png": b""},
    )


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation", None])
def test_picture_folder(tmp_path, test):
    name = {0: "cat", 1: "dog"}.get
    if test:
        picture_folder(tmp_path / "pets", ("train", test), name)
    else:
        picture_folder(tmp_path / "pets", (".",), name)
    train, other = load(tmp_path / "pets")
    assert np.array_equal(train.images[:, 0], GREY[:6]) and train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (train.class_names, train.classes, train.name) == (("cat", "dog"), 2, "pets/train")
    if test:
        assert np.array_equal(other.images[:, 0], GREY[6:]) and other.class_names == train.class_names
    else:
        assert other is None
    assert load(tmp_path / "pets", size=9)[0].shape == (1, 9, 9)
    assert load(tmp_path / "pets", shape=(3, 9, 8))[0].shape == (3, 9, 8)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize("prefix", ["", "./", "pets/", "a/pets/"])
@pytest.mark.parametrize("halves", [("train", "test"), (".",)])
def test_archives_are_as_their_folder(tmp_path, ending, prefix, halves):
    picture_folder(tmp_path / "pets", halves)
    paths = sorted(path for path in (tmp_path / "pets").rglob("*") if path.is_file())[::-1]
    contents = {f"{prefix}{path.relative_to(tmp_path / 'pets')}": path.read_bytes() for path in paths}
    path = tmp_path / f"pets{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        tar(path, contents, f"w:{ending[5:]}")
    for found, wanted in zip(load(path), load(tmp_path / "pets"), strict=True):
        assert (found is None) == (wanted is None)
        if found is not None:
            assert (found.fingerprint(), found.class_names, found.name) == (
                wanted.fingerprint(),
                wanted.class_names,
                wanted.name,
            )


def test_folders_named_by_numbers_are_sorted_as_numbers(tmp_path):
    put(tmp_path, {f"{k}/a.png": picture(GREY[k]) for k in range(12)})
    train, _ = load(tmp_path)
    assert train.class_names == tuple(map(str, range(12))) and np.array_equal(train.images[:, 0], GREY)


def test_grey_and_colour_in_one_folder(tmp_path):
    colour = RNG.integers(0, 256, (3, 6, 5), np.uint8)
    put(tmp_path, {"a/0.png": picture(GREY[0]), "a/1.png": picture(colour), "b/2.png": picture(GREY[1])})
    train, _ = load(tmp_path)
    assert np.array_equal(train.images, [GREY[[0, 0, 0]], colour, GREY[[1, 1, 1]]])
    put(tmp_path / "two", {"train/a/0.png": picture(GREY[0]), "test/a/0.png": picture(colour)})
    train, test = load(tmp_path / "two")
    assert np.array_equal(train.images, [GREY[[0, 0, 0]]]) and np.array_equal(test.images, [colour])
    assert load(tmp_path / "two", shape=(1, 6, 5))[1].shape == (1, 6, 5)


def test_bad_picture_folders(tmp_path):
    for contents, message in (
        ({"a/0.png": picture(GREY[0]), "b/1.png": picture(GREY[0, :5])}, "1.png: 5x5 pixels, where .*0.png has 6x5; size="),
        ({"a/0.png": picture(GREY[0]), "b/notes.txt": b""}, "b: holds no pictures"),
        ({"0.png": picture(GREY[0])}, "holds no folders; there must be one for each class"),
        ({"a/0.png": b"no picture"}, "0.png: not a readable picture"),
        (
            {"train/a/0.png": picture(GREY[0]), "test/b/0.png": picture(GREY[0])},
            r"the folder 'b' is not among the folders for training \(a\)",
        ),
        (
            {"train/a/0.png": picture(GREY[0]), "test/a/0.png": picture(GREY[0, :5])},
            r"for training have \(6, 5\) pixels, those of the test \(5, 5\)",
        ),
    ):
        home = tmp_path / message[:9]
        put(home, contents)
        with pytest.raises(DataError, match=message):
            load(home)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no folders"):
        load(tmp_path / "empty")
    put(tmp_path, {"bad.zip": b"PK", "bad.tar": b"x"})
    for name in ("bad.zip", "bad.tar"):
        with pytest.raises(DataError, match="not a readable archive"):
            load(tmp_path / name)
    with pytest.raises(DataError, match="shape is"):
        load(tmp_path / "holds no ", shape=(2, 5, 5))


def test_pictures_of_many_sizes_are_told(tmp_path):
    put(tmp_path, {"a/0.png": picture(GREY[0]), "b/1.png": picture(GREY[0, :5])})
    told = []
    train, _ = load(tmp_path, size=(5, 5), tell=told.append)
    assert train.shape == (1, 5, 5) and told == [(6, 5)]


# Tables


def frame(tmp_path, images=GREY, labels=("cat", "dog") * 6, column="label"):
    pandas = pytest.importorskip("pandas")
    found = pandas.DataFrame(images.reshape(len(images), -1), columns=[f"pixel{k}" for k in range(images[0].size)])
    found.insert(0, column, labels)
    return found


@pytest.mark.parametrize("ending", tables.ENDINGS)
def test_tables(tmp_path, ending):
    table = frame(tmp_path)
    path = tmp_path / f"pets{ending}"
    if "sv" in ending:
        table.to_csv(path, index=False, sep="\t" if "tsv" in ending else ",")
    else:
        pytest.importorskip("pyarrow")
        getattr(table, f"to_{ending[1:]}")(path)
    train, test = load(path, shape=(1, 6, 5))
    assert np.array_equal(train.images[:, 0], GREY) and train.images.dtype == np.uint8 and test is None
    assert train.labels.tolist() == [0, 1] * 6 and (train.class_names, train.name) == (("cat", "dog"), "pets")
    assert load(path)[0].shape == (30,)
    assert load(path, shape=(5, 6))[0].shape == (5, 6)  # sequences
    assert load(path, shape=(1, 6, 5), size=8)[0].shape == (1, 8, 8)


def test_columns_of_labels(tmp_path):
    path = tmp_path / "a.csv"
    frame(tmp_path, column="animal").to_csv(path, index=False)
    with pytest.raises(
        DataError, match=r"no column of labels; name it with label= .--label.; columns: animal, pixel0, .*\.\.\.$"
    ):
        load(path)
    assert load(path, label="animal")[0].class_names == ("cat", "dog")
    with pytest.raises(DataError, match="no column named 'nothing'"):
        load(path, label="nothing")
    with pytest.raises(DataError, match="names the column of a table"):
        load("digits", label="animal")
    both = frame(tmp_path)
    both["Class"] = 1
    both.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"several columns that may be labels \(label, Class\)"):
        load(path)


def test_bad_tables(tmp_path):
    path = tmp_path / "a.csv"
    good = frame(tmp_path)
    for change, message in (
        ({"pixel3": "x"}, "column 'pixel3' is of .*, and pixels are numbers"),
        ({"pixel3": [None, 1.0] * 6}, "row 0 has no number in column 'pixel3'"),
        ({"label": [None, "a"] * 6}, "row 0 has no 'label'"),
    ):
        good.assign(**change).to_csv(path, index=False)
        with pytest.raises(DataError, match=message):
            load(path)
    good.to_csv(path, index=False)
    with pytest.raises(DataError, match="30 columns beside 'label', and 3 x 6 x 5 is 90"):
        load(path, shape=(3, 6, 5))
    for content, message in (
        (b"", "not a readable table"),
        (b"label,a\n", "0 rows and 1 columns"),
        (b"label\n1\n", "0 columns"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            load(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(tmp_path / "absent.csv")
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable table"):
        load(tmp_path / "a.parquet")


def test_numbers_of_tables(tmp_path):
    path = tmp_path / "a.csv"
    for images, kind in ((GREY / 255, np.float32), (GREY.astype(int) * 2, np.float32), (GREY.astype(int) - 300, np.float32)):
        frame(tmp_path, images).to_csv(path, index=False)
        found = load(path)[0].images
        assert found.dtype == kind and np.allclose(found, images.reshape(12, -1))


# Mapped arrays


def mapped(array):
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


@pytest.mark.parametrize("keys", ["x_train y_train x_test y_test", "x_train y_train", "train_images train_labels"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_npy_files_are_mapped(tmp_path, keys, dtype):
    for key in keys.split():
        np.save(
            tmp_path / key, GREY.astype(dtype) if key[0] == "x" or key.endswith("images") else np.arange(12)[:, None] % 3
        )
    train, test = load(tmp_path)
    assert mapped(train.images) and train.images.dtype == dtype and np.array_equal(train.images[:, 0], GREY)
    assert train.classes == 3 and (test is None) == ("test" not in keys) and mapped(train[3:].images)
    rest, part = train.split(0.25, shuffle=False)
    assert mapped(rest.images) and mapped(part.images) and len(part) == 3


def test_bad_npy_folders(tmp_path):
    np.save(tmp_path / "x_train", GREY)
    with pytest.raises(DataError, match="holds x_train.npy but no y_train.npy"):
        load(tmp_path)
    (tmp_path / "y_train.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match="y_train.npy: not a readable .npy file"):
        load(tmp_path)
    np.save(tmp_path / "y_train", np.array([{}] * 12))
    with pytest.raises(DataError, match="y_train.npy: not a readable .npy file"):
        load(tmp_path)
    np.save(tmp_path / "y_train", np.arange(12))
    np.save(tmp_path / "x_train", np.zeros((12, 6, 5, 3), np.uint8))
    with pytest.raises(DataError, match="channels last, which would be copied as a whole"):
        load(tmp_path)


def test_own_idx_files(tmp_path):
    labels = np.arange(12, dtype=np.uint8)
    for half in ("train", "t10k"):
        put(tmp_path / "mine", {f"{half}-images-idx3-ubyte": idx(GREY), f"{half}-labels-idx1-ubyte": idx(labels)})
    train, test = load(tmp_path / "mine")
    assert (train.classes, test.classes, train.name) == (12, 12, "mine/train") and np.array_equal(train.images[:, 0], GREY)
    (tmp_path / "mine" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="but no t10k-labels-idx1-ubyte"):
        load(tmp_path / "mine")


def test_the_data_room_loads_nothing_before_it_is_needed():
    heavy = "pandas scipy PIL pyarrow pooch requests torch"
    code = (
        "import sys, chaos; chaos.data.load('digits'); chaos.data.sources(); "
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
