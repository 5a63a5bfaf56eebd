"""Validation sets, the best epoch, early ends, accumulated gradients, weights of classes and images: in chaos.train, on the
command line, and across interruptions."""

import hashlib
import json
import logging

import numpy as np
import pytest

import chaos
from chaos.cli import main
from chaos.training import BEST, CONFIG, METRICS, MODEL, parts
from chaos.training.monitor import Monitor

OPTIONS = dict(lr=0.01, progress=False, strategy="sequential")


def train(net, *data, **options):
    return chaos.train(net, *data, **{**OPTIONS, **options})


def small(digits, n=300):
    return digits[0][:n]


# ---- what is held out ----


@pytest.mark.parametrize("share", [0.003, 0.1, 0.25, 0.5, 0.9])
def test_a_split_is_a_partition_with_each_class_in_both(share):
    rng = np.random.default_rng(0)
    labels = rng.choice(7, 1003, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01])
    stay, held = parts.split(labels, 1003, share, 5)
    assert np.array_equal(np.sort(np.concatenate([stay, held])), np.arange(1003)) and len(held) == round(share * 1003)
    counts, whole = (np.bincount(one, minlength=7) for one in (labels[held], labels))
    assert (np.abs(counts - whole * len(held) / 1003) < 1).all()
    assert np.array_equal(held, parts.split(labels, 1003, share, 5)[1])
    if share == 0.5:
        assert not np.array_equal(held, parts.split(labels, 1003, share, 6)[1])


def test_a_split_holds_out_one_image_at_least_and_leaves_one():
    for share in (0.001, 0.999):
        stay, held = parts.split(None, 5, share, 0)
        assert len(stay) + len(held) == 5 and min(len(stay), len(held)) == 1
    with pytest.raises(ValueError, match="at least 2 training images"):
        parts.split(None, 1, 0.5, 0)


def test_a_split_trains_and_measures_like_the_two_sets_apart(digits):
    """Without shuffling the two trainings pick the same images in the same order."""
    data, one, other = small(digits), chaos.models.small(seed=1), chaos.models.small(seed=1)
    split = train(one, data, epochs=2, validation_split=0.2, seed=3, shuffle=False)
    stay, held = parts.split(data.labels, len(data), 0.2, 3)
    apart = train(other, data[stay], validation_data=data[held], epochs=2, seed=3, shuffle=False)
    assert one.weights.tobytes() == other.weights.tobytes()
    for key in ("train_loss", "train_error", "validation_loss", "validation_error"):
        assert [record[key] for record in split.history] == [record[key] for record in apart.history]
    assert split.history[-1]["validation_loss"] == chaos.evaluate(other, data[held], workers=1)["loss"]
    assert split.history[-1]["worker_images"] == [240] and split.best_epoch


def test_the_held_out_images_train_nothing(digits):
    data = small(digits, 100)
    _, held = parts.split(data.labels, 100, 0.3, 0)
    images = data.images.copy()
    images[held] = 255 - images[held]
    nets = [chaos.models.small(seed=1) for _ in range(2)]
    runs = [
        train(net, one, epochs=1, validation_split=0.3)
        for net, one in zip(nets, (data, chaos.data.Dataset(images, data.labels)), strict=True)
    ]
    assert nets[0].weights.tobytes() == nets[1].weights.tobytes()
    assert runs[0].history[0]["validation_loss"] != runs[1].history[0]["validation_loss"]


def test_training_images_are_measured_again_by_their_own_name(digits):
    net = chaos.models.small(seed=1)
    run = train(net, small(digits), epochs=1, evaluate_train=True)
    record = run.history[0]
    assert record["train_eval_loss"] == chaos.evaluate(net, small(digits), workers=1)["loss"] != record["train_loss"]
    assert "validation_loss" not in record and run.best_epoch is None and run.best_weights is None
    with pytest.warns(FutureWarning, match="validate is now called evaluate_train"):
        again = train(chaos.models.small(seed=1), small(digits), epochs=1, validate=True)
    assert again.history[0]["train_eval_loss"] == record["train_eval_loss"]


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(validation_split=1.0), "validation_split must be a number of at least 0 and at most 0.999"),
        (dict(validation_split=0.5, validation_data="it"), "two validation sets; give one"),
        (dict(patience=3), "patience needs something to watch: give validation_data or validation_split"),
        (dict(restore_best=True), "restore_best needs something to watch"),
        (dict(lr_schedule="plateau"), "lr_schedule 'plateau' needs something to watch"),
        (dict(lr_schedule="plateau", lr_decay=1, monitor="train_loss"), "lr_decay, which must be below 1, not 1"),
        (dict(monitor="validation_loss"), "monitor 'validation_loss' is not measured; what is: train_loss, train_error"),
        (dict(monitor=3), "monitor must be the name of a number in the records"),
        (dict(monitor_mode="most"), "unknown monitor_mode 'most'; known: auto, min, max"),
        (dict(patience=0), "patience must be a whole number of at least 1"),
        (dict(min_delta=-1), "min_delta must be"),
        (dict(accumulate=0), "accumulate must be a whole number of at least 1"),
        (dict(class_weight="equal"), 'class_weight must be "balanced", a dict'),
        (dict(class_weight={}), "class_weight must be"),
        (dict(class_weight={"cat": 1}), "class_weight: 'cat' is no class"),
        (dict(class_weight={1: -1}), "class_weight of class 1 must be"),
        (dict(class_weight={10: 1}), "there is no class 10; the network tells 0..9 apart"),
        (dict(sample_weight=[1.0, 2.0]), r"sample weights have shape \(2,\), expected \(50,\)"),
        (dict(sample_weight=[-1.0] * 50), "must be finite and not negative"),
    ],
)
def test_what_makes_no_sense_is_refused(digits, options, words):
    if "validation_data" in options:
        options = options | {"validation_data": digits[1]}
    with pytest.raises(ValueError, match=words):
        train(chaos.models.small(), small(digits, 50), epochs=1, **options)


# ---- the best epoch and the early end ----


def records(values, key="validation_loss"):
    return [{key: value} for value in values]


def test_the_best_epoch_and_the_patience():
    monitor = Monitor("validation_loss", patience=2, min_delta=0.1)
    seen = []
    for record in records([1.0, 0.95, 0.8, 0.75, 0.74]):
        monitor.note(record)
        seen.append((monitor.best_epoch, monitor.waited, monitor.ends() is not None))
    assert seen == [(1, 0, False), (2, 1, False), (3, 0, False), (4, 1, False), (5, 2, True)]
    assert monitor.ends() == (
        "ended early after epoch 5: validation_loss has not improved for 2 epochs; the best was 0.74 in epoch 5"
    )
    larger = Monitor("f1", larger=True, patience=1)
    larger.replay(records([None, 0.5, 0.5], "f1"))
    assert larger.best_epoch == 2 and larger.waited == 1 and "the best was 0.5 in epoch 2" in larger.ends()
    nothing = Monitor("f1", patience=2)
    nothing.replay(records([None, float("nan")], "f1"))
    assert nothing.best_epoch is None and nothing.ends().endswith("for 2 epochs")


class Kept(chaos.Callback):
    def __init__(self):
        self.weights, self.ending = [], None

    def epoch_end(self, event, record):
        self.weights.append(event.network.weights.copy())

    def train_end(self, event):
        self.ending = event.ending


ROUGH = dict(lr=0.2, lr_schedule="constant", seed=4, batch_size=4)  # its validation loss goes up and down


def test_ends_early_with_the_best_weights(digits, tmp_path):
    data, kept = small(digits), Kept()
    net = chaos.models.small(seed=1)
    run = train(
        net,
        data,
        validation_data=digits[1],
        epochs=30,
        patience=2,
        restore_best=True,
        run_dir=tmp_path,
        callbacks=[kept],
        **ROUGH,
    )
    losses = [record["validation_loss"] for record in run.history]
    assert run.best_epoch == 1 + int(np.argmin(losses)) == len(losses) - 2 < 28 and not run.stopped
    assert kept.ending.startswith(f"ended early after epoch {len(losses)}: validation_loss has not improved for 2 epochs")
    assert net.weights.tobytes() == kept.weights[run.best_epoch - 1].tobytes()
    assert all((run.best_weights[name] == value).all() for name, value in net.state_dict().items())
    best, last = (chaos.load(tmp_path / name).weights for name in (BEST, MODEL))
    assert best.tobytes() == net.weights.tobytes() and last.tobytes() == kept.weights[-1].tobytes()
    # what has ended stays ended, unless it is to wait for longer
    again = chaos.models.small(seed=1)
    options = dict(validation_data=digits[1], epochs=30, run_dir=tmp_path, resume=True, **ROUGH)
    assert len(train(again, data, patience=2, restore_best=True, **options).history) == len(losses)
    assert again.weights.tobytes() == best.tobytes()
    longer = train(chaos.models.small(seed=1), data, **options | dict(patience=3, epochs=len(losses) + 1))
    assert len(longer.history) == len(losses) + 1


def test_interrupted_and_resumed_ends_alike(digits, tmp_path):
    data = small(digits)
    options = dict(validation_split=0.3, patience=2, restore_best=True, epochs=30, **ROUGH)
    whole = chaos.models.small(seed=1)
    straight = train(whole, data, **options)
    end = straight.best_epoch + 1  # later than the best, before the end
    train(chaos.models.small(seed=1), data, run_dir=tmp_path, **options | {"epochs": end})
    for _ in range(2):
        net = chaos.models.small(seed=1)
        run = train(net, data, run_dir=tmp_path, resume=True, **options)
        assert net.weights.tobytes() == whole.weights.tobytes() and run.best_epoch == straight.best_epoch
        assert [record["validation_loss"] for record in run.history] == [
            record["validation_loss"] for record in straight.history
        ]


def test_best_weights_that_are_lost(digits, tmp_path, caplog):
    data, options = small(digits, 60), dict(validation_data=digits[1][:20], run_dir=tmp_path, **ROUGH)
    run = train(chaos.models.small(seed=1), data, epochs=1, **options)
    assert run.best_epoch == 1
    (tmp_path / BEST).unlink()  # as if killed before it was written: the last state is the same
    assert train(chaos.models.small(seed=1), data, epochs=1, resume=True, **options).best_weights is not None
    assert (tmp_path / BEST).exists()
    while run.best_epoch == len(run.history):
        run = train(chaos.models.small(seed=1), data, epochs=len(run.history) + 1, resume=True, **options)
    (tmp_path / BEST).write_bytes((tmp_path / MODEL).read_bytes())
    epochs, words = len(run.history), "holds other weights than those of the best epoch"
    with pytest.raises(chaos.CheckpointError, match=f"{words}.*without restore_best the run can be continued"):
        train(chaos.models.small(), data, epochs=epochs, resume=True, restore_best=True, **options)
    with caplog.at_level(logging.WARNING, "chaos"):
        assert train(chaos.models.small(), data, epochs=epochs, resume=True, **options).best_weights is None
    assert words in caplog.text


def test_old_runs_keep_their_meaning(digits, tmp_path):
    """A run of an earlier version, whose validation measured the training images, goes on with today's names."""
    data, options = small(digits, 60), dict(evaluate_train=True, run_dir=tmp_path)
    net = chaos.models.small(seed=1)
    run = train(net, data, epochs=2, **options)
    old = [{key.replace("train_eval", "validation"): value for key, value in record.items()} for record in run.history]
    text = "".join(json.dumps(record) + "\n" for record in old).encode()
    (tmp_path / METRICS).write_bytes(text)
    kept, metadata, tensors = chaos.loading.load_with_state(tmp_path / MODEL)
    state = json.loads(metadata["training"])
    identity = state["identity"]
    new = ("validation", "validation_split", "accumulate", "class_weight", "monitor", "monitor_mode", "min_delta")
    for name in new:
        del identity[name]
    identity["validate"] = identity.pop("evaluate_train")
    state["metrics"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    kept.save(tmp_path / MODEL, {"training": json.dumps(state)}, tensors)
    for epochs in (3, 4):  # the second time with lines of both kinds
        again = train(chaos.models.small(), data, epochs=epochs, resume=True, **options)
        assert again.history[:2] == run.history and "train_eval_loss" in again.history[-1]
    whole = chaos.models.small(seed=1)
    train(whole, data, epochs=4, evaluate_train=True)
    assert again.network.weights.tobytes() == whole.weights.tobytes()


# ---- accumulated gradients ----


@pytest.mark.parametrize("strategy", ["sequential", "synchronous"])
def test_accumulated_batches_are_a_larger_batch(digits, strategy):
    def weights(**options):
        net = chaos.models.small(seed=2)
        workers = {} if strategy == "sequential" else {"workers": 2}
        train(net, small(digits, 101), epochs=2, update="adam", lr=1e-3, strategy=strategy, **workers, **options)
        return net.weights.tobytes()

    assert weights(batch_size=4, accumulate=3) == weights(batch_size=12) != weights(batch_size=4)
    assert weights(accumulate=2) == weights(batch_size=2)


def test_layers_that_see_whole_batches_say_how_gradients_accumulate(digits):
    def net(**options):
        return chaos.Network(
            (1, 29, 29), [chaos.Conv2d(4, 5), chaos.BatchNorm2d(**options), chaos.Flatten(), chaos.Linear(10)]
        )

    options = dict(epochs=1, batch_size=8, accumulate=2)
    with pytest.raises(ValueError, match="would see all 16 images of accumulate x batch_size.*groups_of=8"):
        train(net(), small(digits, 96), **options)
    grouped, larger = net(groups_of=8), net(groups_of=8)
    train(grouped, small(digits, 96), **options)
    train(larger, small(digits, 96), epochs=1, batch_size=16)
    assert grouped.weights.tobytes() == larger.weights.tobytes()


# ---- weights of classes and images ----


def test_weights_of_images_and_classes(digits):
    data = small(digits, 120)
    table = np.linspace(0.5, 2, 10)
    own = np.random.default_rng(0).uniform(0.5, 1.5, 120)

    def result(data, **options):
        net = chaos.models.small(seed=2)
        run = train(net, data, epochs=2, validation_data=digits[1], **options)
        return net.weights.tobytes(), run.history[-1]["train_loss"], run.history[-1]["validation_loss"]

    def weighted(weights):
        return result(chaos.data.Dataset(data.images, data.labels, weights=weights))

    assert result(data, class_weight=table) == result(data, class_weight=dict(enumerate(table)))
    assert result(data, class_weight=list(table)) == weighted(table[data.labels])
    assert result(data, class_weight={3: 2.0}) == weighted(np.where(data.labels == 3, 2, 1)) != result(data)
    assert result(data, sample_weight=own) == weighted(own)
    assert result(data, sample_weight=own, class_weight=table) == weighted(own.astype(np.float32) * table[data.labels])
    counts = np.bincount(data.labels, minlength=10)
    assert result(data, class_weight="balanced") == weighted((120 / (10 * counts))[data.labels])
    with pytest.raises(chaos.DataError, match="has weights already"):
        train(chaos.models.small(), chaos.data.Dataset(data.images, data.labels, weights=own), sample_weight=own)


def test_balanced_weights_are_scikit_learns_of_the_images_that_train(digits):
    utils = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.array([0, 0, 0, 2, 2, 5, -1, 5, 5, 5])
    images = np.array([0, 1, 3, 5, 6, 7])
    found = parts.image_weights("balanced", labels, images, 7, None)
    there = labels[images][labels[images] >= 0]
    wanted = dict(zip([0, 2, 5], utils.compute_class_weight("balanced", classes=np.unique(there), y=there), strict=True))
    np.testing.assert_allclose(found, [wanted.get(label, 1) for label in labels], rtol=1e-6)


def test_class_weights_need_a_class_per_image():
    net = chaos.Network((1, 6, 6), [chaos.Conv2d(3, 3, padding="same")])
    x = np.zeros((4, 1, 6, 6), np.float32)
    maps = chaos.data.Dataset(x, targets=np.zeros((4, 6, 6), int))
    with pytest.raises(ValueError, match="class_weight needs one class for each image"):
        train(net, maps, class_weight="balanced", epochs=1)


# ---- the command line ----


def test_the_command_line_validates_ends_early_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    digits = chaos.data.load("digits")
    held = {"x_train": digits[0].images[1000:1100], "y_train": digits[0].labels[1000:1100]}
    np.savez("held.npz", **held)
    np.savez("two.npz", **held, x_test=held["x_train"], y_test=held["y_train"])
    words = "train small --data digits --subset 200 --workers 1 --lr 0.2 --lr-schedule constant --batch-size 4".split()
    more = "--validation-split 0.3 --patience 2 --restore-best --epochs 30 --metrics accuracy,top_3 --class-weight 1=2,3=0.5"
    assert main([*words, *more.split(), "--run-dir", "a", "--quiet"]) == 0
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    assert config["validation_split"] == 0.3 and config["patience"] == 2 and config["metrics"] == ["accuracy", "top_3"]
    assert config["class_weight"] == {"1": 2.0, "3": 0.5} and config["restore_best"] is True
    lines = [json.loads(line) for line in (tmp_path / "a" / METRICS).read_text().splitlines()]
    assert 3 <= len(lines) < 30 and lines[-1]["validation_accuracy"] == pytest.approx(1 - lines[-1]["validation_error"])
    assert lines[-1]["test_top_3"] >= lines[-1]["test_accuracy"]
    best = 1 + int(np.argmin([line["validation_loss"] for line in lines]))
    assert f"best epoch  {best} (validation_loss {lines[best - 1]['validation_loss']:.4g})" in capsys.readouterr().out
    assert main(["train", "--resume", "--run-dir", "a", "--quiet"]) == 0  # ended already
    assert len((tmp_path / "a" / METRICS).read_text().splitlines()) == len(lines)
    assert main([*words, "--epochs", "1", "--validation-data", "held.npz", "--accumulate", "2", "--run-dir", "b"]) == 0
    monkeypatch.chdir("/")
    assert main(["train", "--resume", "--epochs", "2", "--run-dir", str(tmp_path / "b")]) == 0
    monkeypatch.chdir(tmp_path)
    both = [json.loads(line) for line in (tmp_path / "b" / METRICS).read_text().splitlines()]
    assert len(both) == 2 and all(line["validation_loss"] for line in both)
    assert main([*words, "--epochs", "1", "--validation-data", "two.npz"]) == 2
    assert "two.npz holds training and test images" in capsys.readouterr().err
    assert main([*words, "--epochs", "1", "--validate", "--run-dir", "c", "--quiet"]) == 0
    assert "warning: --validate is now --evaluate-train" in capsys.readouterr().err
    assert json.loads((tmp_path / "c" / CONFIG).read_text())["evaluate_train"] is True
    assert main([*words, "--epochs", "1", "--metrics", "acuracy"]) == 2
    assert "unknown metric 'acuracy'; did you mean accuracy?" in capsys.readouterr().err
