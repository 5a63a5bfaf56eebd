"""Training on a stream: the same as on arrays, whatever batches and buffer; and how it ends where the source fails."""

import os
import signal
import threading

import numpy as np
import pytest

import chaos
from chaos.data import Dataset, Stream
from chaos.errors import DataError
from chaos.training import Threads
from chaos.training.feeding import Fed

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (200, 1, 6, 6), np.uint8)
LABELS = RNG.integers(0, 4, 200)
DATA = Dataset(IMAGES, LABELS)


def small(outputs=4):
    return chaos.Network((1, 6, 6), [chaos.Conv2d(2, 3), chaos.Tanh(), chaos.Flatten(), chaos.Linear(outputs)])


def batches(size, *arrays):
    return [tuple(array[at : at + size] for array in arrays) for at in range(0, len(arrays[0]), size)]


def trained(data, net=None, **options):
    """(weights, history) after some epochs."""
    net = net or small()
    run = chaos.train(net, data, **{"workers": 1, "epochs": 2, "progress": False, "shuffle": False, "lr": 0.01} | options)
    return net.weights.tobytes(), run.history


@pytest.mark.parametrize("buffer", [1, 7, 64, 199, 200, 10**6])
@pytest.mark.parametrize("size", [1, 30, 200])
def test_the_bits_are_those_of_arrays(size, buffer):
    wanted, history = trained(DATA)
    found, told = trained(Stream(batches(size, IMAGES, LABELS), length=200, buffer=buffer))
    assert found == wanted
    for mine, other in zip(told, history, strict=True):
        assert mine["train_error"] == other["train_error"]
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-12)  # summed in pieces
        assert (mine["updates"], mine["worker_images"]) == (other["updates"], other["worker_images"])


CASES = {
    "steps": dict(batch_size=8, update="momentum"),
    "synchronous, several workers": dict(batch_size=16, strategy="synchronous", workers=2),
    "sequential": dict(strategy="sequential"),
    "float": dict(images=(IMAGES / 255).astype(np.float32)),
    "float64 and lists": dict(images=IMAGES / 255, source=list),
    "weights": dict(weights=RNG.random(200)),
    "values": dict(targets=RNG.random((200, 4)), loss="mse"),
    "columns": dict(column=True),
}


@pytest.mark.parametrize("case", CASES)
def test_what_arrays_can_do(case):
    options = dict(CASES[case])
    images, weights, targets = (options.pop(name, None) for name in ("images", "weights", "targets"))
    source, column = options.pop("source", tuple), options.pop("column", False)
    images, answers = IMAGES if images is None else images, LABELS if targets is None else targets
    whole = Dataset(images, None if targets is not None else answers, targets=targets, weights=weights)
    parts = (images, answers[:, None] if column else answers, *([weights] if weights is not None else []))
    made = [source(part) for part in batches(30, *parts)]
    stream = Stream(made, length=200, buffer=50, targets=targets is not None)
    assert trained(stream, **options)[0] == trained(whole, **options)[0]


def test_several_inputs():
    def net():
        two = [chaos.Input((1, 6, 6)), chaos.Input((3,))]
        return chaos.Network(two, chaos.Linear(4)(chaos.Concat()(chaos.Flatten()(two[0]), two[1])))

    more = RNG.random((200, 3)).astype(np.float32)
    parts = [((x, y), labels) for x, y, labels in batches(30, IMAGES, more, LABELS)]
    assert trained(Stream(parts, length=200, buffer=64), net())[0] == trained(Dataset((IMAGES, more), LABELS), net())[0]


def test_images_of_a_buffer_are_drawn_in_another_order_each_epoch():
    def order(epoch):
        rows = np.arange(200)
        rng = np.random.default_rng([5, epoch])
        for start in range(0, 200, 60):
            rng.shuffle(rows[start : start + 60])
        return rows

    net = small()
    for epoch in (1, 2):  # a row of the buffers for each of these
        images = order(epoch)
        trained(DATA[images], net, epochs=1)
    stream = Stream(batches(30, IMAGES, LABELS), length=200, buffer=60)
    assert trained(stream, shuffle=True, seed=5, lr_decay=1.0)[0] == net.weights.tobytes()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("workers", [2, 3])
def test_every_image_is_seen_once(workers, shuffle):
    """With a learning rate that changes nothing the loss of an epoch is that of all images."""
    net = small()
    wanted = chaos.evaluate(net, DATA, workers=1)
    stream = Stream(batches(30, IMAGES, LABELS), length=200, buffer=64)
    _, (record, *_) = trained(stream, net, workers=workers, shuffle=shuffle, lr=1e-30)
    assert record["train_loss"] == pytest.approx(wanted["loss"], rel=1e-6) and record["train_error"] == wanted["error"]
    assert sum(record["worker_images"]) == 200


def test_sources():
    asked = []

    def numbered(epoch):
        asked.append(epoch)
        return iter(batches(50, IMAGES, LABELS))

    def endless():
        while True:
            yield from batches(50, IMAGES, LABELS)

    wanted = trained(DATA)[0]
    assert trained(Stream(numbered, length=200))[0] == wanted and asked == [1, 2]
    assert trained(Stream(endless, length=200, buffer=64))[0] == wanted
    assert trained(Stream(lambda: batches(50, IMAGES, LABELS), length=200))[0] == wanted

    class Loader:
        """What a DataLoader of PyTorch shows."""

        def __init__(self, drop_last):
            self.sampler, self.batch_size, self.drop_last = range(200), 30, drop_last

        def __iter__(self):
            made = batches(30, IMAGES, LABELS)
            return iter(made[:-1] if self.drop_last else made)

    assert trained(Stream(Loader(False)))[0] == wanted
    assert len(Stream(Loader(True))) == 180 and trained(Stream(Loader(True)))[0] == trained(DATA[:180])[0]


def test_loader_of_pytorch():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
    loader = torch.utils.data.DataLoader(data, batch_size=32)
    assert trained(Stream(loader, buffer=64))[0] == trained(DATA)[0]


def test_names_and_scales_are_kept():
    names = np.array(["ant", "bee", "cat", "dog"])
    net = small()
    stream = Stream(batches(50, IMAGES, names[LABELS]), length=200, class_names=names.tolist())
    assert trained(stream, net)[0] == trained(DATA)[0] and net.class_names == tuple(names) and net.trained_on[0].pixels
    with pytest.raises(DataError, match="^test: class 0 is 'bee'"):
        chaos.train(net, stream, Dataset(IMAGES, names[LABELS % 3 + 1]), progress=False)
    rising = np.linspace(-1, 1, 200, dtype=np.float32)[:, None, None, None] * np.ones((1, 6, 6), np.float32)
    trained(Stream(batches(50, rising, LABELS), length=200, buffer=64), net)
    assert (net.trained_on[0].least, net.trained_on[0].most) == (-1, 1)
    assert repr(stream) == "<Stream 'stream': 200 images 1x6x6 uint8 per epoch, 200 at a time>"


class Stop(chaos.Callback):
    """Ends the training in the second epoch."""

    def step(self, event):
        if event.epoch == 2 and event.position >= 100:
            event.stop()


@pytest.mark.parametrize("buffer", [30, 64, 200])
def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path, buffer):
    def epochs(epoch):
        order = np.random.default_rng(epoch).permutation(200)
        for part in batches(7, IMAGES[order], LABELS[order]):
            if epoch == 2 and holding.is_set():
                seen.append(len(part))
                if len(seen) == 20:
                    os.kill(os.getpid(), signal.SIGINT)
            yield part

    def stream():
        return Stream(epochs, length=200, buffer=buffer)

    seen, holding = [], threading.Event()
    options = {"epochs": 3, "shuffle": True, "batch_size": 4, "update": "momentum"}
    wanted, history = trained(stream(), **options)
    holding.set()
    with pytest.raises(KeyboardInterrupt):
        trained(stream(), run_dir=tmp_path / "run", **options)
    holding.clear()
    found, told = trained(stream(), run_dir=tmp_path / "run", resume=True, **options)
    assert found == wanted and [one["train_error"] for one in told] == [one["train_error"] for one in history]
    with pytest.raises(chaos.CheckpointError, match="different: .*train"):
        trained(Stream(epochs, length=180), run_dir=tmp_path / "run", resume=True, **options)


def failing(at, error=None, then=None):
    """Batches of 20, of which one is another, or an error."""

    def source(epoch):
        for k, part in enumerate(batches(20, IMAGES, LABELS)):
            if (epoch, k) == at:
                if error is not None:
                    raise error
                if then is None:
                    return
                part = then
            yield part

    return source


NAN = np.full((20, 1, 6, 6), np.nan, np.float32)
FAULTS = {
    "error": (dict(error=RuntimeError("disk on fire")), "the source failed with RuntimeError: disk on fire"),
    "end": ({}, "the source has ended"),
    "shape": (
        dict(then=(IMAGES[:3, :, :5], LABELS[:3])),
        r"images are uint8 \(1, 5, 6\), and those of the first batch uint8 \(1, 6, 6\)",
    ),
    "type": (dict(then=(IMAGES[:3] / 255, LABELS[:3])), "images are float32"),
    "NaN": (dict(then=(NAN, LABELS[:20])), r"images: pixel \(0, 0, 0, 0\) is nan"),
    "lengths": (dict(then=(IMAGES[:3], LABELS[:2])), "labels: 2 labels for 3 images"),
    "label": (dict(then=(IMAGES[:3], [0, 4, 1])), r"label 4 of image 1 is not in 0\.\.3"),
    "weights": (dict(then=(IMAGES[:1], [0], [1.0])), "weights are True, and those of the first batch False"),
    "no batch": (dict(then=IMAGES), r"a batch must be \(images, labels\)"),
    "one of four": (dict(then=(IMAGES, LABELS, LABELS, LABELS)), "a batch must be .*, not tuple of 4"),
}


@pytest.mark.parametrize("at", [(1, 1), (1, 7), (2, 0), (2, 9)])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_source_that_fails_ends_the_training(fault, at, tmp_path):
    known, message = FAULTS[fault]
    stream = Stream(failing(at, **known), length=200, buffer=40)
    epoch, k = at
    net = small()
    with pytest.raises(DataError, match=f"^stream: epoch {epoch}, after {20 * k} of 200 images: {message}") as caught:
        trained(stream, net, workers=2, run_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)
    if "error" in known:
        assert caught.value.__cause__ is known["error"]
    assert np.isfinite(net.weights).all()
    assert (tmp_path / "run" / "model.safetensors").exists() == (epoch == 2)
    found = trained(Stream(failing(None), length=200, buffer=40), run_dir=tmp_path / "run", resume=True, workers=2)
    assert len(found[1]) == 2


def test_a_source_that_hangs_can_be_interrupted():
    release = threading.Event()

    def source():
        yield from batches(50, IMAGES, LABELS)[:2]
        os.kill(os.getpid(), signal.SIGINT)
        release.wait()

    try:
        for buffer in (30, 200):
            with pytest.raises(KeyboardInterrupt):
                trained(Stream(source, length=200, buffer=buffer))
    finally:
        release.set()
    assert len(trained(DATA)[1]) == 2


def test_bad_streams():
    good = batches(50, IMAGES, LABELS)
    for source, options, message in (
        (iter(good), {"length": 200}, "can be gone through only once; give the function that makes it"),
        (3, {"length": 200}, "source is 3, which can be gone through only once"),
        (good, {}, "length= is needed"),
        (good, {"length": 0}, "length is 0; it must be at least 1"),
        (good, {"length": 2.0}, "length is 2.0; it must be an int"),
        (good, {"length": 200, "buffer": True}, "buffer is True; it must be an int"),
        ([], {"length": 200}, "the source gives no batch"),
        ([IMAGES], {"length": 200}, r"a batch must be \(images, labels\) or .*, not ndarray"),
        ([(IMAGES, LABELS[:3])], {"length": 200}, "3 labels for 200 images"),
        ([(IMAGES, ["a"] * 200)], {"length": 200}, "class_names="),
        (good, {"length": 200, "channels": "middle"}, "channels is 'middle'"),
        (good, {"length": 200, "class_names": "abc"}, "class_names must be a list"),
        (DATA, {"length": 200}, "a Dataset needs no Stream"),
    ):
        with pytest.raises(DataError, match=message):
            Stream(source, **options)


def test_what_needs_all_images():
    stream = Stream(batches(50, IMAGES, LABELS), length=200)
    for asked, what in (
        ({"evaluate_train": True}, "evaluate_train needs the training images again"),
        ({"validation_split": 0.1}, "validation_split needs a part of the training images"),
        ({"class_weight": "balanced"}, "class_weight needs all labels beforehand"),
        ({"class_weight": np.ones(4)}, "class_weight needs all labels beforehand"),
    ):
        with pytest.raises(ValueError, match=what):
            trained(stream, **asked)
    options = dict(validation_data=DATA, metrics=["accuracy"], patience=5, accumulate=2, epochs=2)
    weights, history = trained(stream, **options)
    whole, records = trained(DATA, **options)
    assert weights == whole and history[-1]["validation_accuracy"] == records[-1]["validation_accuracy"]
    with pytest.raises(
        DataError, match="test must be a chaos.data.Dataset, not Stream.*a chaos.data.Stream is for training"
    ):
        chaos.train(small(), DATA, stream, progress=False)
    with pytest.raises(DataError, match="data must be a chaos.data.Dataset, not Stream"):
        chaos.evaluate(small(), stream)
    with pytest.raises(ValueError, match="a chaos.data.Stream feeds real workers"):
        trained(stream, runner=Threads())


def test_answers_that_are_ignored_are_not_counted():
    labels = np.where(np.arange(200) % 3 > np.arange(200) // 100, -100, LABELS)
    options = {"ignore_index": -100}
    wanted = trained(Dataset(IMAGES, targets=labels), loss_options=options)
    found = trained(Stream(batches(30, IMAGES, labels), length=200, buffer=64, targets=True), loss_options=options)
    assert found[0] == wanted[0] and [r["train_error"] for r in found[1]] == [r["train_error"] for r in wanted[1]]


def test_the_state_is_kept_within_an_epoch(digits, tmp_path, monkeypatch):
    """A phase that is cut for that goes on in the buffers as they are: the source is gone through once."""
    asked, cuts = [], []
    images, labels = np.tile(digits[0].images, (2, 1, 1, 1)), np.tile(digits[0].labels, 2)
    layers = [chaos.Conv2d(8, 4), chaos.Tanh(), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Dropout(), chaos.Linear(10)]

    def source(epoch):
        asked.append(epoch)
        return batches(100, images, labels)

    def trains(self, *arguments, **more):
        result, seconds = train(self, *arguments, **more)
        cuts.append(result["status"])
        return result, seconds

    train = Fed.train
    monkeypatch.setattr(Fed, "train", trains)
    stream = Stream(source, length=len(images), buffer=1000)
    wanted, history = trained(stream, chaos.Network((1, 29, 29), layers), shuffle=True, update="momentum")
    assert asked == [1, 2] and cuts == ["done"] * 2

    class Looks(chaos.Callback):  # often, however fast the machine is
        interval = 1

        def step(self, event):
            pass

    options = {"run_dir": tmp_path / "run", "checkpoint_every": 1e-9, "shuffle": True, "update": "momentum"}
    again = Stream(source, length=len(images), buffer=1000)
    found, told = trained(again, chaos.Network((1, 29, 29), layers), callbacks=[Looks()], **options)
    assert found == wanted and asked == [1, 2, 1, 2]
    assert "stopped" in cuts
    assert [one["train_error"] for one in told] == [one["train_error"] for one in history]


def test_images_of_a_stream_are_augmented():
    stream = Stream(batches(30, IMAGES, LABELS), length=200, buffer=64)
    found = [trained(stream, augment=["flip", "shift"], seed=seed)[0] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2] and trained(stream)[0] not in found
    with pytest.raises(ValueError, match="mixes any two images, and a chaos.data.Stream shows each once"):
        trained(stream, augment=["mixup"])
