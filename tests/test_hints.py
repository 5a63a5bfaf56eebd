"""What newcomers really type: each answer is one line that names what is meant here."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import chaos
from chaos import hints
from chaos.cli import main
from chaos.training import ABOUT

IMAGES = np.zeros((6, 1, 8, 8), np.uint8)
LABELS = np.arange(6) % 3


def data():
    return chaos.data.Dataset(IMAGES, LABELS)


def net():
    return chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(3)])


def run():
    return chaos.train(net(), data(), epochs=1, progress=False)


def one_output():
    return chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(1)])


def two_classes():
    return chaos.data.Dataset(IMAGES, LABELS % 2)


class Keras(chaos.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise AssertionError


class OneArgument:
    def epoch_end(self, record):
        raise AssertionError


class Module:
    """As PyTorch's."""

    def named_modules(self):
        return iter(())


class CrossEntropyLoss(Module):
    def __repr__(self):
        return "of several\nlines"


# (what is typed, what the one line must say)
CALLS = [
    (lambda: chaos.train(net(), data(), optimizer="adam"), "did you mean update?"),
    (lambda: chaos.train(net(), data(), learning_rate=0.1), "did you mean lr?"),
    (lambda: chaos.train(net(), data(), epoch=3), "did you mean epochs?"),
    (lambda: chaos.train(net(), data(), device="cuda"), "CPU"),
    (lambda: chaos.train(net(), data(), momentum=0.9), "update_options"),
    (lambda: chaos.train(net(), IMAGES, LABELS, 10), "chaos.data.Dataset(images, labels)"),
    (lambda: chaos.train(net(), data(), loss="sparse_categorical_crossentropy"), "did you mean cross_entropy?"),
    (lambda: chaos.train(net(), data(), loss="bce"), "did you mean binary_cross_entropy?"),
    (lambda: chaos.train(net(), data(), lr_schedule="ReduceLROnPlateau"), "did you mean plateau?"),
    (lambda: chaos.train([chaos.Flatten(), chaos.Linear(3)], data()), "chaos.Network(shape, layers)"),
    (lambda: chaos.train("small", data()), "chaos.models"),
    (lambda: chaos.train(Module(), data()), "chaos.from_torch(module, shape)"),
    (lambda: chaos.train(net(), data(), loss=CrossEntropyLoss()), "did you mean cross_entropy?"),
    (lambda: chaos.train(net(), data(), update=CrossEntropyLoss()), "of the type CrossEntropyLoss"),
    (lambda: chaos.evaluate(net(), IMAGES, LABELS), "chaos.data.Dataset(images, labels)"),
    (lambda: chaos.evaluate(data(), net()), "net must be a chaos.Network"),
    (lambda: chaos.Conv2d(8, 3, strides=2), "did you mean stride?"),
    (lambda: chaos.Conv2d(8, 3, activation="relu"), "layer of its own"),
    (lambda: chaos.Linear(units=3), "did you mean out_features?"),
    (lambda: chaos.GroupNorm(2, 8), "it takes"),
    (lambda: chaos.Network([chaos.Flatten(), chaos.Linear(3)]), "the shape of one image"),
    (lambda: chaos.Network((1, 8, 8), chaos.Flatten(), chaos.Linear(3)), "one list"),
    (lambda: chaos.Network(64, [chaos.Linear(3)]), "did you mean (64,)?"),
    (lambda: chaos.Network((None, 1, 8, 8), [chaos.Flatten()]), "without the number of images"),
    (lambda: chaos.Network((28, 28, 1), [chaos.Conv2d(4, 5)]), "(1, 28, 28)"),
    (lambda: chaos.Network((28, 28, 3), [chaos.MaxPool2d(4)]), "(3, 28, 28)"),
    (lambda: chaos.Conv2D, "did you mean Conv2d?"),
    (lambda: chaos.Dense, "chaos.Linear"),
    (lambda: chaos.Dataset, "chaos.data.Dataset"),
    (lambda: chaos.nn, "chaos.Conv2d"),
    (lambda: chaos.LSTM, "no recurrent layers"),
    (lambda: net().fit, "chaos.train(net"),
    (lambda: net().eval, "nothing to switch"),
    (lambda: net().parameters, "state_dict"),
    (lambda: net().predict_probas, "did you mean predict_proba?"),
    (lambda: net().save("net.pt"), "PyTorch"),
    (lambda: net().predict("digit.png"), "text such as 'digit.png'"),
    (lambda: run().train_loss, "run.history[-1]['train_loss']"),
    (lambda: run().histroy, "did you mean history?"),
    (lambda: chaos.Committee(net()), "list of networks"),
    (lambda: chaos.search(net(), data(), {"lr": [0.1]}), "not Network"),
    (lambda: chaos.train_many({"network": net(), "train": data()}), "[job]"),
    (lambda: chaos.train_many([{"net": net(), "train": data()}]), "did you mean network?"),
    (lambda: chaos.train_many([{"network": net(), "data": data()}]), "did you mean train?"),
    (lambda: chaos.search(net, data(), {"lr": [0.1]}, max_iter=2), "did you mean epochs?"),
    (lambda: chaos.callbacks.EarlyStopping, "patience=3"),
    (lambda: chaos.augment.Rotate, "did you mean Rotation?"),
    (lambda: chaos.augment.RandomCrop, "did you mean Crop?"),
    (lambda: chaos.augment.Shift(pixel=2), "did you mean pixels?"),
    (lambda: chaos.data.load_mnist, 'chaos.data.load("mnist")'),
    (lambda: chaos.models.resnet101, "did you mean resnet"),
    (lambda: chaos.train(net(), data(), callbacks=[Keras()]), "which nobody calls; here it is called epoch_end"),
    (lambda: chaos.train(net(), data(), callbacks=[OneArgument()]), "called with (event, record)"),
    (lambda: chaos.train(one_output(), two_classes()), "two outputs"),
    (lambda: chaos.train(one_output(), two_classes(), loss="binary_cross_entropy"), "of one number per image"),
    (lambda: chaos.data.load(IMAGES), "chaos.data.Dataset(images, labels)"),
    (lambda: chaos.data.load("digits", root="."), "did you mean data_dir?"),
    (lambda: chaos.data.load("nowhere/pictures"), "no such file or folder"),
    (lambda: chaos.data.Dataset(IMAGES, y=LABELS), "did you mean labels?"),
    (lambda: data().split(test_size=0.2), "did you mean part?"),
    (lambda: chaos.models.alexnet_cifar(num_classes=5), "did you mean classes?"),
    (lambda: chaos.models.resnet20(num_classes=5), "did you mean classes?"),
    (lambda: chaos.models.lenet5(pretrained=True), "no trained weights"),
]


@pytest.mark.parametrize("call, told", CALLS, ids=[told for _, told in CALLS])
def test_calls_are_answered_in_one_line(call, told):
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        call()
    assert told in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


COMMANDS = [
    ("small --data digits", "did you mean chaos train small?"),
    ("help train", "chaos COMMAND --help"),
    ("fit small", "did you mean chaos train?"),
    ("train mnist", "chaos train small --data mnist"),
    ("train small digits", "did you mean --data digits?"),
    ("train small --learning-rate 0.1", "did you mean --lr?"),
    ("train small --optimizer adam", "did you mean --update?"),
    ("train small -e 3", "did you mean --epochs?"),
    ("train small --gpu", "CPU"),
    ("train small --threads 2", "did you mean --workers?"),
    ("train small --data nowhere.npy", "no such file or folder"),
    ("train job.yaml", "TOML"),
    ("train --resume .", "did you mean --run-dir .?"),
    ("bench throughput small", "did you mean --model small?"),
    ("launch -np 2 train small", "did you mean --domains?"),
    ("export net.safetensors --to onnx", "ending of FILE"),
]


@pytest.mark.parametrize("command, told", COMMANDS, ids=[command for command, _ in COMMANDS])
def test_commands_are_answered_in_one_line(command, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_job_files_know_the_words_too(tmp_path, capsys):
    job = tmp_path / "job.toml"
    job.write_text('[network]\nname = "small"\n[data]\nname = "digits"\n[training]\nlearning_rate = 0.1\n')
    assert main(["train", str(job)]) == 2
    assert "did you mean lr?" in capsys.readouterr().err


def test_hints_name_what_there_is():
    """A hint that is no sentence is a name; each stands for something in its table."""
    named = {hint for hint in hints.TRAINING.values() if " " not in hint}
    assert named <= {*ABOUT, "train", "test", "net", "validation_data", "progress", "class_weight", "metrics"}
    for table in (hints.TRAINING, hints.LAYER, hints.ZOO, hints.SPLIT, hints.DATASET, hints.LOAD):
        assert not {word for word, hint in table.items() if word == hint}
    kinds = {*chaos.losses.LOSSES, *chaos.updates.UPDATES, *chaos.updates.SCHEDULES, *chaos.sync.STRATEGIES}
    assert {*hints.KINDS.values()} <= kinds | {*chaos.augment.KINDS} | {"bf16", "float32"}
    for owner, words in ((chaos, hints.NAMES), (net(), hints.NETWORK), (run(), hints.RUN)):
        assert not [word for word in words if hasattr(owner, word)]


def test_networks_are_called_as_pytorchs_and_copied_as_before():
    made = net()
    np.testing.assert_array_equal(made(IMAGES), made.forward(IMAGES))
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        np.testing.assert_array_equal(again(IMAGES), made(IMAGES))
    done = run()
    assert copy.copy(done).history == done.history


def test_columns_of_a_network_stand_under_each_other():
    shown = repr(
        chaos.Network(
            (3, 16, 16),
            [
                chaos.Conv2d(8, 3, padding=(1, 2, 0, 1), padding_mode="reflect", name="the_very_first"),
                chaos.ReLU(),
                chaos.Flatten(),
                chaos.Linear(3),
            ],
        )
    ).splitlines()[1:]
    assert len({line.index("(", 60) for line in shown}) == 1


@pytest.mark.parametrize(
    "shape, warned", [((4, 16, 16, 3), True), ((4, 28, 28, 1), True), ((4, 16, 1, 1), False), ((4, 3, 16, 3), False)]
)
def test_channels_that_look_last_are_told(shape, warned, recwarn):
    labels = np.arange(4) % 2
    chaos.data.Dataset(np.zeros(shape, np.uint8), labels)
    assert [("channels=" in str(one.message)) for one in recwarn] == [True] * warned
    recwarn.clear()
    for channels in ("first", "last"):
        chaos.data.Dataset(np.zeros(shape, np.uint8), labels, channels=channels)
    assert not recwarn.list


def test_estimators_know_other_words():
    pytest.importorskip("sklearn")
    from chaos.estimators import ChaosClassifier, ChaosRegressor

    for kind in (ChaosClassifier, ChaosRegressor):
        with pytest.raises(TypeError, match="has no argument 'max_iter'; did you mean epochs"):
            kind(max_iter=3)
        with pytest.raises(TypeError, match="did you mean network"):
            kind(hidden_layer_sizes=(10,))
    x = np.zeros((6, 16, 16, 3), np.uint8)
    with pytest.warns(UserWarning, match="channels="):
        ChaosClassifier(epochs=1).fit(x, LABELS)
    for channels in ("first", "last"):
        ChaosClassifier(epochs=1, channels=channels).fit(x, LABELS)


@pytest.mark.parametrize("package, call", [("torch", "from_torch(None, (1,))"), ("onnx", "from_onnx('net.onnx')")])
def test_missing_packages_are_named_with_what_brings_them(package, call):
    script = f"import sys; sys.modules[{package!r}] = None; import chaos; chaos.{call}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"pip install 'chaos-sgd[{package}]'" in done.stderr.splitlines()[-1]


def test_processes_of_a_launcher_that_train_alone_are_told(monkeypatch, capsys):
    said = "2 processes of one job"
    for rank in ("0", "1"):
        for name, value in (("PMI_SIZE", "2"), ("PMI_RANK", rank), ("MPI_LOCALNRANKS", "2")):
            monkeypatch.setenv(name, value)
        chaos.train(net(), data(), epochs=1, workers=1)
        assert (said in capsys.readouterr().err) == (rank == "0")
    monkeypatch.setenv("PMI_RANK", "0")
    chaos.train(net(), data(), epochs=1, workers=1, progress=False)
    assert said not in capsys.readouterr().err


@pytest.mark.parametrize("layer, loss", [(chaos.Softmax(), "cross_entropy"), (chaos.Sigmoid(), "binary_cross_entropy")])
def test_functions_that_a_loss_applies_itself_are_told(layer, loss, recwarn):
    targets = np.eye(3, dtype="f")[LABELS]
    for end, told in ((layer, 1), (chaos.Identity(), 0)):
        made = chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(3), end])
        chaos.train(made, chaos.data.Dataset(IMAGES, targets=targets), epochs=1, loss=loss, progress=False)
        assert len(recwarn) == told and all("applied twice" in str(one.message) for one in recwarn)
        recwarn.clear()


def test_callbacks_with_methods_of_both_kinds_or_with_defaults_are_taken():
    class Both(chaos.Callback):
        told = 0

        def epoch_end(self, event, record=None, *, more=0):
            self.told += 1

        on_epoch_end = epoch_end

    both = Both()
    chaos.train(net(), data(), epochs=2, callbacks=[both], progress=False)
    assert both.told == 2
