"""Labels of every kind, splits, folds, subsets, joined sets, weights of classes, channels last, mapped arrays."""

import hashlib
import warnings

import numpy as np
import pytest

import chaos
from chaos.arrays import extremes
from chaos.data import Dataset, concatenate, load
from chaos.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 1, 4, 5), np.uint8)
PETS = ["dog", "cat", "dog", "bird", "cat", "dog"]
NUMBERS = [2, 1, 2, 0, 1, 2]
NAMES = ("bird", "cat", "dog")


# Labels


def pandas_labels():
    pandas = pytest.importorskip("pandas")
    return {
        "column of text": pandas.Series(PETS, index=range(10, 16)),
        "categories": pandas.Categorical(PETS),
        "column of categories": pandas.Series(PETS, dtype="category"),
        "table of one column": pandas.DataFrame({"pet": PETS}),
        "table of categories": pandas.DataFrame({"pet": pandas.Categorical(PETS)}),
        "dummies": pandas.get_dummies(pandas.Series(PETS)),
        "dummies of numbers": pandas.get_dummies(pandas.Series(PETS), dtype=float),
        "text that may miss": pandas.Series(PETS, dtype="string"),
    }


@pytest.mark.parametrize("kind", ["list", "U", "S", "O", "column", "tuple"])
def test_text_becomes_numbers_by_the_alphabet(kind):
    made = {"list": PETS, "tuple": tuple(PETS), "column": np.array(PETS)[:, None]}
    data = Dataset(IMAGES, made[kind] if kind in made else np.array(PETS, kind))
    assert data.labels.tolist() == NUMBERS and data.labels.dtype == np.int64
    assert (data.class_names, data.classes) == (NAMES, 3)
    assert data[2:4].class_names == data.sized(7).class_names == NAMES


def test_text_is_numbered_as_sklearn_does():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    labels = RNG.choice(["b", "a", "Z", "10", "9", "é", "", "a "], 100)
    encoder = preprocessing.LabelEncoder().fit(labels)
    data = Dataset(np.zeros((100, 1, 1, 1), np.uint8), labels)
    assert data.labels.tolist() == encoder.transform(labels).tolist() and list(data.class_names) == list(encoder.classes_)


def test_labels_of_pandas():
    for what, labels in pandas_labels().items():
        data = Dataset(IMAGES, labels)
        assert (data.labels.tolist(), data.class_names, data.classes) == (NUMBERS, NAMES, 3), what


def test_categories_keep_their_order():
    pandas = pytest.importorskip("pandas")
    sizes = pandas.Categorical(["S", "L", "M", "S", "S", "L"], ["S", "M", "L", "XL"])
    data = Dataset(IMAGES, sizes)
    assert (data.labels.tolist(), data.class_names, data.classes) == ([0, 2, 1, 0, 0, 2], ("S", "M", "L", "XL"), 4)
    data = Dataset(IMAGES, sizes, class_names=["XL", "L", "M", "S"])
    assert data.labels.tolist() == [3, 1, 2, 3, 3, 1]
    assert Dataset(IMAGES, pandas.Series([3, 1, 1, 3, 3, 1], dtype="category")).class_names == ("1", "3")
    with pytest.raises(DataError, match="label 2 is missing"):
        Dataset(IMAGES, pandas.Categorical(["S", "L", None, "S", "S", "L"]))
    assert Dataset(IMAGES, pandas.Series(NUMBERS, dtype="Int64")).labels.tolist() == NUMBERS


def test_class_names():
    data = Dataset(IMAGES, PETS, class_names=["dog", "cat", "bird", "fish"])
    assert data.labels.tolist() == [0, 1, 0, 2, 1, 0] and data.classes == 4
    data = Dataset(IMAGES, NUMBERS, class_names=NAMES)
    assert data.labels.tolist() == NUMBERS and (data.class_names, data.classes) == (NAMES, 3)
    maps = Dataset(IMAGES, targets=np.zeros((6, 4, 5), int), class_names=NAMES)
    assert (maps.class_names, maps.classes) == (NAMES, 3)
    for known, message in (
        (
            {"labels": PETS, "class_names": ["dog", "cat", "birds"]},
            "label 3 is 'bird'; did you mean 'birds'. class_names are dog, ",
        ),
        ({"labels": PETS, "class_names": ["a"]}, "label 0 is 'dog'; class_names are a$"),
        ({"labels": PETS, "class_names": ["a", "a"]}, "class_names: 'a' is there twice"),
        ({"labels": PETS, "class_names": "abc"}, "class_names must be a list of texts"),
        ({"labels": PETS, "class_names": [1, 2, 3]}, "class_names must be a list of texts"),
        ({"labels": PETS, "class_names": []}, "class_names must be a list of texts"),
        ({"labels": PETS, "classes": 5}, "3 names, and classes is 5; class_names="),
        ({"labels": NUMBERS, "class_names": NAMES, "classes": 5}, "classes is 5, and there are 3 class_names"),
        ({"labels": NUMBERS, "class_names": NAMES[:2]}, r"label 0 is 2; with 2 classes \(class_names: bird, cat\)"),
        ({"targets": np.zeros((6, 2)), "class_names": NAMES}, "class_names go with labels"),
    ):
        with pytest.raises(DataError, match=message):
            Dataset(IMAGES, **known)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_one_hot_and_columns(dtype):
    data = Dataset(IMAGES, np.eye(4, dtype=dtype)[NUMBERS])
    assert data.labels.tolist() == NUMBERS and data.classes == 4 and data.class_names is None
    if dtype is not bool:
        assert Dataset(IMAGES, np.array(NUMBERS, dtype)[:, None]).labels.tolist() == NUMBERS


def test_labels_that_count_from_1():
    for labels, warned in (
        ([1, 2, 3, 1, 2, 7], False),
        ([1, 2, 3, 1, 2, 3], True),
        ([1] * 6, False),
        ([0, 1, 2] * 2, False),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert Dataset(IMAGES, labels).classes == max(labels) + 1
        assert len(caught) == warned
    assert caught == []
    with pytest.warns(UserWarning, match="from 1 to 3, which makes 4 classes, .* by labels - 1; classes=4") as caught:
        Dataset(IMAGES, [1, 2, 3] * 2)
    assert caught[0].filename == __file__
    Dataset(IMAGES, [1, 2, 3] * 2, classes=4)  # pytest makes an error of a warning
    with pytest.raises(
        DataError, match="with 3 classes the most is 2; labels that count from 1 become those from 0 by labels - 1"
    ):
        Dataset(IMAGES, [1, 2, 3] * 2, classes=3)


# Channels last, sequences


def test_channels():
    last = RNG.random((6, 4, 5, 3)).astype(np.float32)
    data = Dataset(last, NUMBERS, channels="last")
    assert data.shape == (3, 4, 5) and data.images.flags.c_contiguous
    assert np.array_equal(data.images, last.transpose(0, 3, 1, 2))
    assert Dataset(last, NUMBERS, channels="first").shape == Dataset(last, NUMBERS).shape == (4, 5, 3)
    sequences = last[..., 0]
    assert np.array_equal(Dataset(sequences, NUMBERS, channels="last").images, sequences.transpose(0, 2, 1))
    assert Dataset(sequences, NUMBERS, channels="first").shape == (4, 5)
    assert Dataset(sequences, NUMBERS).shape == (1, 4, 5)
    assert Dataset((last, sequences), NUMBERS, channels="last").shape == ((3, 4, 5), (5, 4))
    assert Dataset(last[:, 0, 0], NUMBERS, channels="last").shape == (3,)
    for bad in ("NHWC", 1, True):
        with pytest.raises(DataError, match='channels is .*; it must be "first" or "last"'):
            Dataset(last, NUMBERS, channels=bad)


def test_channels_last_where_a_network_wants_them_first():
    net = chaos.Network((3, 4, 5), [chaos.Flatten(), chaos.Linear(3)])
    images = RNG.random((6, 4, 5, 3))
    for call in (lambda: net.forward(images), lambda: chaos.evaluate(net, Dataset(images, NUMBERS), workers=1)):
        with pytest.raises(DataError, match="channels last: chaos.data.Dataset.*channels='last'"):
            call()
    assert np.array_equal(
        net.forward(np.moveaxis(images, -1, 1)), net.forward(Dataset(images, NUMBERS, channels="last").images)
    )


def test_sequences_may_be_given_as_images_are():
    net = chaos.Network((3, 8), [chaos.Conv1d(4, 3), chaos.Flatten(), chaos.Linear(3)])
    sequences = RNG.random((6, 3, 8)).astype(np.float32)
    ways = (Dataset(sequences, NUMBERS), Dataset(sequences, NUMBERS, channels="first"), Dataset((sequences,), NUMBERS))
    found = []
    for data in ways:
        copy = chaos.Network.from_config(net.config())
        copy.load_state_dict(net.state_dict())
        chaos.train(copy, data, data, workers=1, epochs=2, progress=False)
        found.append(copy.weights.tobytes())
    assert len(set(found)) == 1


# Splits


@pytest.fixture(scope="module")
def train():
    return load("digits")[0]


def ids(data):
    """Of images that hold their own number."""
    return data.images[:, 0].astype(int).tolist()


def numbered(labels, weights=False):
    n = len(labels)
    return Dataset(
        np.arange(n, dtype=np.float32)[:, None], labels, weights=np.arange(n) / n if weights else None, name="numbered"
    )


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("part, count", [(0.1, 3), (3, 3), (0.11, 4), (0.999, 29), (29, 29), (1, 1), (np.float32(0.5), 15)])
def test_split(part, count, shuffle):
    data = numbered(np.arange(30) % 3, True)
    rest, cut = data.split(part, shuffle=shuffle, seed=4) if count < 29 or part == 29 else data.split(29)
    assert (len(rest), len(cut)) == (30 - count, count)
    assert (
        sorted(ids(rest) + ids(cut)) == list(range(30)) and ids(cut) == sorted(ids(cut)) and ids(rest) == sorted(ids(rest))
    )
    for one in (rest, cut):
        assert np.array_equal(one.labels, np.array(ids(one)) % 3) and one.classes == 3 and one.name == "numbered"
        assert np.allclose(one.weights, np.array(ids(one)) / 30)
    if not shuffle and count < 29:
        assert ids(cut) == list(range(30 - count, 30)) and np.shares_memory(cut.images, data.images)
    if shuffle and count == 3:
        assert ids(cut) == ids(data.split(part, seed=4)[1]) != ids(data.split(part, seed=5)[1])


@pytest.mark.parametrize("seed", range(5))
def test_stratified_split(train, seed):
    """The share of each class differs from the whole by less than an image, as scikit-learn's."""
    rest, cut = train.split(0.1, stratify=True, seed=seed)
    assert len(cut) == 144 and len(rest) == 1437 - 144
    assert np.array_equal(rest.class_counts() + cut.class_counts(), train.class_counts())
    assert (np.abs(cut.class_counts() - train.class_counts() * 144 / 1437) < 1).all()
    labels = np.random.default_rng(seed).choice(5, 200, p=[0.01, 0.02, 0.07, 0.3, 0.6])
    labels[:10] = np.arange(10) % 5
    rest, cut = numbered(labels).split(0.2, stratify=True, seed=seed)
    assert len(cut) == 40 and (cut.class_counts() >= 1).all() and (rest.class_counts() >= 1).all()
    model_selection = pytest.importorskip("sklearn.model_selection")
    _, wanted = model_selection.train_test_split(labels, test_size=0.2, stratify=labels, random_state=seed)
    assert np.abs(cut.class_counts() - np.bincount(wanted, minlength=5)).max() <= 1


BAD_SPLITS = {
    "nothing": ({"part": 0}, r"part is 0: 0 of 6 images; both sets need at least one"),
    "everything": ({"part": 6}, "part is 6: 6 of 6 images"),
    "more": ({"part": 7}, "part is 7: 7 of 6 images"),
    "a tiny share": ({"part": 0.9999}, "6 of 6 images"),
    "a share of 1": ({"part": 1.0}, "must be a share between 0 and 1"),
    "negative": ({"part": -1}, "both sets need"),
    "a negative share": ({"part": -0.5}, "must be a share"),
    "NaN": ({"part": float("nan")}, "must be a share"),
    "true": ({"part": True}, "must be a share"),
    "text": ({"part": "10 %"}, "must be a share"),
    "stratified without drawing": ({"part": 3, "stratify": True, "shuffle": False}, "stratify draws .* needs shuffle=True"),
    "a class of one": ({"part": 3, "stratify": True}, r"stratify: class 0 \('bird'\) has one image"),
}


@pytest.mark.parametrize("case", BAD_SPLITS)
def test_bad_splits(case):
    options, message = BAD_SPLITS[case]
    with pytest.raises(DataError, match=message):
        Dataset(IMAGES, PETS).split(**options)


def test_bad_stratifying():
    with pytest.raises(DataError, match="stratify: 2 and 4 images, each of which cannot hold 3 classes"):
        numbered([0, 1, 2] * 2).split(2, stratify=True)
    for targets in (np.zeros((6, 4, 5), int), np.zeros((6, 2))):
        data = Dataset(IMAGES, targets=targets)
        for call in (lambda data=data: data.split(2, stratify=True), lambda data=data: data.k_folds(2, stratify=True)):
            with pytest.raises(DataError, match="stratify needs a class for each image"):
                call()
        assert len(data.split(2)[1]) == 2
    with pytest.raises(ValueError, match="stratify must be True or False"):
        numbered([0, 1, 2] * 2).split(3, stratify=1)


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"stratify": True}, {"seed": 3}])
@pytest.mark.parametrize("k", [2, 5, 7])
def test_k_folds(k, options):
    data = numbered(np.repeat([0, 1, 2], [9, 17, 11]))
    parts = [(ids(rest), ids(cut)) for rest, cut in data.k_folds(k, **options)]
    assert len(parts) == k and sorted(i for _, cut in parts for i in cut) == list(range(37))
    for rest, cut in parts:
        assert sorted(rest + cut) == list(range(37)) and len(cut) in (37 // k, 37 // k + 1)
        if "stratify" in options:
            counts = np.bincount(data.labels[cut], minlength=3)
            assert (np.abs(counts - np.array([9, 17, 11]) / k) < 1).all()
        if "shuffle" in options:
            assert cut == list(range(cut[0], cut[0] + len(cut)))
    assert parts == [(ids(rest), ids(cut)) for rest, cut in data.k_folds(k, **options)]


def test_bad_folds():
    data = Dataset(IMAGES, PETS)
    for k in (0, 1, 7, -1):
        with pytest.raises(DataError, match=f"k is {k}; it must be from 2 to the number of images, 6"):
            data.k_folds(k)
    for k in (2.5, "2", True, None):
        with pytest.raises(DataError, match="it must be an int of at least 2"):
            data.k_folds(k)
    with pytest.raises(DataError, match=r"class 1 has 2 images, too few for 3 folds"):
        numbered([0, 0, 0, 0, 1, 1]).k_folds(3, stratify=True)


def test_subset():
    data = Dataset(IMAGES, PETS, weights=np.arange(6))
    some = data.subset(["dog", "bird"])
    assert some.labels.tolist() == [0, 0, 1, 0] and (some.class_names, some.classes) == (("dog", "bird"), 2)
    assert np.array_equal(some.images, IMAGES[[0, 2, 3, 5]]) and some.weights.tolist() == [0, 2, 3, 5]
    assert data.subset([2, 0]).fingerprint() == some.fingerprint()
    assert data.subset("cat").labels.tolist() == [0, 0]
    assert Dataset(IMAGES, NUMBERS).subset([1]).class_names is None
    for bad, message in (
        (["fish"], "there is no class 'fish'; known: bird, cat, dog"),
        ([3], "there is no class 3"),
        ([-1], "there is no class -1"),
        ([], "at least one class"),
        ([0, "bird"], "class 'bird' is there twice"),
        ([True], "there is no class True"),
    ):
        with pytest.raises(DataError, match=message):
            data.subset(bad)
    with pytest.raises(DataError, match="is empty"):
        Dataset(IMAGES, PETS, class_names=["bird", "cat", "dog", "fish"]).subset(["fish"])
    with pytest.raises(DataError, match="needs a class for each image"):
        Dataset(IMAGES, targets=np.zeros((6, 2))).subset([0])


def test_concatenate():
    data = Dataset(IMAGES, PETS, weights=np.arange(6), name="pets")
    whole = data[:2] + data[2:]
    assert whole.fingerprint() == data.fingerprint() and whole.class_names == NAMES and whole.name == "pets"
    plain = Dataset(IMAGES, PETS)
    assert concatenate([plain, data[:2]], name="both").weights.tolist() == [1] * 6 + [0, 1]
    assert concatenate([plain, plain]).weights is None and len(concatenate(iter([plain] * 3))) == 18
    assert concatenate([Dataset(IMAGES, [0] * 6), Dataset(IMAGES, NUMBERS)]).classes == 3
    for other, message in (
        (plain.sized(8), "images"),
        (Dataset(IMAGES.astype(np.float32), PETS), "images"),
        (Dataset(IMAGES, NUMBERS), r"class_names \('bird', 'cat', 'dog'\) and None"),
        (Dataset(IMAGES, targets=np.zeros((6, 2))), "labels"),
    ):
        with pytest.raises(DataError, match=f"'arrays' and .* do not go together: {message}"):
            plain + other
    with pytest.raises(DataError, match="at least one"):
        concatenate([])
    with pytest.raises(TypeError):
        plain + 1


# Counts, weights, means


def test_class_weights_are_sklearn_s():
    class_weight = pytest.importorskip("sklearn.utils.class_weight")
    labels = RNG.choice(4, 100, p=[0.5, 0.3, 0.15, 0.05])
    data = numbered(labels)
    assert np.array_equal(data.class_counts(), np.bincount(labels))
    wanted = class_weight.compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(data.class_weights(), wanted, rtol=1e-6)
    more = Dataset(data.images, labels, classes=6)
    np.testing.assert_allclose(more.class_weights(), [*wanted, 0, 0], rtol=1e-6)
    maps = Dataset(IMAGES, targets=np.where(np.arange(6 * 20).reshape(6, 4, 5) % 7 == 0, -100, 1))
    assert maps.class_counts().tolist() == [0, 102] and maps.class_weights().tolist() == [0, 1]
    with pytest.raises(DataError, match="real numbers, and no classes"):
        Dataset(IMAGES, targets=np.zeros((6, 2))).class_weights()


def test_weights_of_classes_train(train):
    net = chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(10)])
    options = {"weight": train.class_weights()}
    run = chaos.train(net, train[:200], workers=1, epochs=1, progress=False, loss_options=options)
    assert np.isfinite(run.history[-1]["train_loss"])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(40, 3, 5, 4), (40, 7), (3000, 2, 30, 30)])
def test_mean_std(dtype, shape):
    x = RNG.integers(0, 256, shape) * np.linspace(0.2, 1, shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    data = Dataset((x.astype(dtype),), np.zeros(len(x), int))
    seen = data.images / 127.5 - 1 if dtype == np.uint8 else data.images.astype(np.float64)
    axes = (0, *range(2, x.ndim))
    for found, wanted in zip(data.mean_std(), (seen.mean(axes), seen.std(axes)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


# Arrays on a disk


@pytest.fixture
def on_disk(tmp_path):
    images = RNG.random((5000, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r"), np.arange(5000) % 3


def reads(monkeypatch, array):
    """Bytes of `array` that go through hashing and through looks for extremes, from now on."""
    seen = {"hashed": 0, "looked": 0}
    new = hashlib.sha256

    class Counting:
        def __init__(self, *content):
            self.own = new(*content)
            for one in content:
                self.count(one)

        def count(self, content):
            if memoryview(content).nbytes >= array.nbytes:
                seen["hashed"] += memoryview(content).nbytes

        def update(self, content):
            self.count(content)
            self.own.update(content)

        def __getattr__(self, name):
            return getattr(self.own, name)

    monkeypatch.setattr(hashlib, "sha256", Counting)

    def counting(values):
        if values.nbytes >= array.nbytes:
            seen["looked"] += values.nbytes
        return extremes(values)

    for module in ("chaos.arrays", "chaos.network", "chaos.scale", "chaos.taken", "chaos.data.labels"):
        monkeypatch.setattr(f"{module}.extremes", counting)
    return seen


def test_mapped_floats_are_read_as_seldom_as_can_be(on_disk, monkeypatch, tmp_path):
    """Once when they are taken for data, once when a training begins, once for its fingerprint however many trainings there
    are; and never copied."""
    images, labels = on_disk
    seen = reads(monkeypatch, images)
    data = Dataset(images, labels)
    assert np.shares_memory(data.images, images) and seen["looked"] == images.nbytes
    net = chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(3)])
    for number in range(2):
        before = dict(seen)
        chaos.train(net, data, workers=1, epochs=1, progress=False, run_dir=tmp_path / str(number))
        assert seen["looked"] - before["looked"] == images.nbytes
    assert seen["hashed"] == images.nbytes
    assert data.fingerprint() == Dataset(np.array(images), labels).fingerprint()


def test_copies_larger_than_memory_are_refused():
    images = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (2**20, 3, 4096, 4096), (0, 0, 0, 0))
    data = Dataset(IMAGES, NUMBERS)
    data.inputs = (images,)  # as if a file of 48 TiB were mapped
    data.targets = (np.zeros(2**20, np.int64),)
    for call in (lambda: data.split(0.1), lambda: next(data.k_folds(5)), lambda: data.subset([0])):
        with pytest.raises(
            DataError, match=r"a copy of \d+ images .* needs \d+ GiB, .* split\(shuffle=False\) copy nothing"
        ):
            call()


def test_a_kept_fingerprint_knows_its_file(on_disk, tmp_path):
    images, labels = on_disk
    data = Dataset(images, labels)
    first = data.fingerprint()
    assert data.fingerprint() == first
    writable = np.load(tmp_path / "images.npy", mmap_mode="r+")
    writable[7, 0, 0, 0] = 0.5
    writable.flush()
    assert data.fingerprint() != first
    data.labels[0] = 2
    third = data.fingerprint()
    data.labels[0] = 1
    assert len({first, third, data.fingerprint()}) == 3
    changing = Dataset(writable, labels)
    first = changing.fingerprint()
    writable[8, 0, 0, 0] = 0.25
    assert changing.fingerprint() != first


def test_extremes_of_parts():
    x = RNG.standard_normal((40, 100, 300)).astype(np.float32)
    assert x.nbytes > 2**22
    assert extremes(x) == (x.min(), x.max()) and extremes(x.ravel()) == (x.min(), x.max())
    assert extremes(x.transpose(2, 0, 1)) == (x.min(), x.max())
    for bad in (np.nan, np.inf, -np.inf):
        for at in ((0, 0, 0), (39, 99, 299)):
            y = x.copy()
            y[at] = bad
            assert extremes(y) is None
    assert extremes(x[:0]) is None and extremes(np.float32(3)) == (3, 3)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 32, 33, 50])
def test_extremes_of_few(n):
    """Each place counts, whatever the number of those beside it."""
    x = RNG.standard_normal(n).astype(np.float32)
    for at in range(n):
        low, high, bad = x.copy(), x.copy(), x.copy()
        low[at], high[at], bad[at] = -9, 9, np.nan
        assert extremes(low) == (-9, low.max()) and extremes(high) == (high.min(), 9) and extremes(bad) is None
