"""scripts/train_zoo.py: recipes fit their networks, and runs are told as they were."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import chaos
from chaos.data import generated
from chaos.losses import LOSSES
from chaos.training import Settings

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "train_zoo.py"
if not SCRIPT.exists():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


@pytest.fixture(scope="module")
def zoo():
    spec = importlib.util.spec_from_file_location("train_zoo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_zoo"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["train_zoo"]


@pytest.fixture
def tiny(zoo, monkeypatch):
    """One recipe of a moment."""
    recipe = zoo.Recipe(
        "digits",
        lambda seed: chaos.models.small(seed),
        lambda: chaos.data.load("digits", size=29),
        {"epochs": 2, "lr": 0.01, "lr_schedule": "cosine"},
        0.5,
        "nothing",
        augment=("flip",),
        members=2,
    )
    monkeypatch.setattr(zoo, "recipes", lambda: {"digits": recipe})
    return zoo


def test_recipes_are_possible(zoo):
    for name, recipe in zoo.recipes().items():
        net = recipe.network(0)
        settings = Settings(**recipe.settings).resolved()
        terms = LOSSES.terms(settings.loss, settings.loss_options, len(net.outputs))
        assert {term.output for term in terms} == set(range(len(net.outputs))), name
        assert recipe.target is None or 0 < recipe.target < 1
        assert len(chaos.augment.steps(recipe.augment)) == len(recipe.augment)


def test_a_run_is_told(tiny, tmp_path, monkeypatch, capsys):
    path = tmp_path / "there" / "digits.json"
    words = "digits --seeds 0 3 --subset 200 --epochs 1 --workers 1 --virtual 4 --json".split()
    monkeypatch.setattr(sys, "argv", ["train_zoo.py", *words, str(path)])
    tiny.main()
    found = json.loads(path.read_text())
    assert [(run["side"], run["seed"]) for run in found["runs"]] == [
        *(("1 worker", 0), ("1 worker", 3), ("4 virtual workers", 0), ("4 virtual workers", 3))
    ]
    for run in found["runs"]:
        assert run["images"] == 200 and len(run["test_error"]) == 1 and len(run["members"]) == 2
        assert run["settings"]["lr"] == 0.01 and run["settings"]["epochs"] == 1
        assert run["settings"]["augment"] == ["flip"]
    first = [run["result"] for run in found["runs"][:2]]
    assert found["mean"]["1 worker"] == pytest.approx(np.mean(first))
    assert found["machine"]["cpu"] and found["target"] == 0.5
    assert capsys.readouterr().out.count("seed") == 4


def test_runs_are_kept_and_measured_on_held_out_images(tiny, tmp_path, monkeypatch):
    recipe = dataclasses.replace(tiny.recipes()["digits"], views=(None, tiny.width(20)))
    monkeypatch.setattr(tiny, "recipes", lambda: {"digits": recipe})
    path = tmp_path / "found.json"
    words = ["digits", "--validate", "0.25", "--subset", "200", "--run-dir", str(tmp_path / "runs"), "--json", str(path)]
    found = []
    for epochs in ("1", "1"):  # the second goes on where the first has ended
        monkeypatch.setattr(sys, "argv", ["train_zoo.py", *words, "--epochs", epochs])
        tiny.main()
        found.append(json.loads(path.read_text())["runs"][0])
    assert found[0]["images"] == 150 and found[0]["result"] == found[1]["result"]
    assert found[0]["seconds"] == found[1]["seconds"] and len(list((tmp_path / "runs").iterdir())) == 2
    train = chaos.data.load("digits", size=29)[0][:200]
    held = train.split(0.25, stratify=True, seed=0)[1]
    folders = sorted((tmp_path / "runs").iterdir())
    nets = [chaos.load(folder / "model.safetensors") for folder in folders]
    committee = chaos.Committee(nets, views=[None, lambda images: chaos.models.at_width(images, 20)])
    assert found[0]["result"] == (committee.predict(held.images) != held.labels).mean()
    assert json.loads(path.read_text())["command"] == (
        "scripts/train_zoo.py digits --seeds 0 --workers 1 --epochs 1 --subset 200 --validate 0.25"
    )


def test_the_page_is_that_of_the_measurements():
    """docs/reference/proofs.md: once more scripts/zoo_page.py docs/zoo/*.json > docs/reference/proofs.md."""
    docs = SCRIPT.parent.parent / "docs"
    files = sorted((docs / "zoo").glob("*.json"))
    done = subprocess.run([sys.executable, SCRIPT.with_name("zoo_page.py"), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (docs / "reference" / "proofs.md").read_text()
    for file in files:
        found = json.loads(file.read_text())
        for side, mean in found.get("mean", {}).items():  # none: an epoch beside PyTorch's
            assert mean == pytest.approx(np.mean([run["result"] for run in found["runs"] if run["side"] == side]))


def test_what_a_side_refuses_is_told(zoo, monkeypatch, tmp_path):
    recipe = zoo.Recipe(
        "shared weights",
        lambda seed: chaos.models.pyramid(seed, steps=5),
        lambda: (generated.occluded(np.zeros((4, 1, 28, 28), np.uint8)),) * 2,
        {"epochs": 1, "loss": "mse"},
        None,
        "nothing",
        measure=lambda net, test: 0.0,
    )
    monkeypatch.setattr(zoo, "recipes", lambda: {"p": recipe})
    monkeypatch.setattr(
        sys, "argv", ["train_zoo.py", "p", "--workers", "--virtual", "2", "--json", str(tmp_path / "p.json")]
    )
    zoo.main()
    (run,) = json.loads((tmp_path / "p.json").read_text())["runs"]
    assert "share weights" in run["refused"]


def test_data_that_are_nowhere_are_told(tiny, monkeypatch, tmp_path):
    recipe = tiny.recipes()["digits"]
    missing = dataclasses.replace(recipe, data=lambda: chaos.data.load(tmp_path / "nothing.npz"))
    monkeypatch.setattr(tiny, "recipes", lambda: {"digits": missing})
    monkeypatch.setattr(sys, "argv", ["train_zoo.py", "digits"])
    with pytest.raises(SystemExit, match="digits: .*nothing.npz"):
        tiny.main()


def test_an_epoch_beside_pytorch(zoo, monkeypatch, tmp_path):
    """Both sides do the same work: the seconds are stretched to all images."""
    pytest.importorskip("torch")
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    task = chaos.data.Dataset(images, np.arange(40) % 10)
    recipe = zoo.Recipe(
        "noise",
        lambda seed: chaos.models.resnet_cifar(8, seed, input_shape=(1, 8, 8)),
        lambda: (task, task),
        {"lr": 0.1, "batch_size": 8, "update": "momentum", "update_options": {"momentum": 0.9}},
        None,
        "nothing",
        augment=("crop:2", "flip"),
    )
    monkeypatch.setattr(zoo, "recipes", lambda: {"noise": recipe})
    monkeypatch.setattr(sys, "argv", ["train_zoo.py", "noise", "--torch", "20", "--json", str(tmp_path / "found.json")])
    zoo.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["images_timed"] == 20 and found["outputs_apart"] < 1e-4
    assert found["torch_epoch_seconds"] == pytest.approx(2 * np.median([one for _, one in found["seconds"]]))
    assert found["chaos_epoch_seconds"] == pytest.approx(2 * np.median([one for one, _ in found["seconds"]]))


def test_measures(zoo):
    """Of a network that knows the answers, and of one that always says the same."""
    task = generated.detection(6).dataset(regression=True)
    labels, deltas = task.labels

    class Knows:
        def forward(self, inputs):
            return np.eye(4)[labels].transpose(0, 2, 1), deltas

    class Guesses:
        def forward(self, inputs):
            scores = np.zeros((6, 4, 16))
            scores[:, 0] = 1
            return scores, 0 * deltas

    assert zoo.misjudged(Knows(), task) == 0
    assert zoo.misjudged(Guesses(), task) == (labels > 0).mean()
    shapes = generated.shapes(4)

    class Maps:
        def predict(self, images):
            return shapes.labels

    assert zoo.uncovered(Maps(), shapes) == 0


def test_one_step(zoo, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_zoo.py", "--step", "lenet5_modern", "--images", "2"])
    zoo.main()
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 61_706 and found["weights_changed"] > 0.1 and found["peak_bytes"] > 1 << 20
