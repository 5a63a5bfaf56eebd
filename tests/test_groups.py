"""Parameters without decay and with another learning rate: against the definition, in every strategy, against PyTorch."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from nets import close, images

import chaos
from chaos import _core, groups, reference, virtual
from chaos.cli import main
from chaos.errors import CheckpointError
from chaos.network import run_key
from chaos.sync import STRATEGIES
from chaos.training import CONFIG
from chaos.updates import UPDATES
from chaos.updates.base import patterns, scales

GROUPS = dict(no_decay="*.bias", lr_scale="0.*=0.25,5.weight=2")


def network(seed=0):
    layers = [
        chaos.Conv2d(18, 3),
        chaos.ReLU(),
        chaos.MaxPool2d(2),
        chaos.Conv2d(6, 2, groups=2),
        chaos.Flatten(),
        chaos.Linear(5),
    ]
    return chaos.Network((2, 8, 8), layers, seed=seed)


def data(n=48):
    return chaos.data.Dataset(*images(n, (2, 8, 8), classes=5))


def factor(name):
    return 2.0 if name == "5.weight" else 0.25 if name.startswith("0.") else 1.0


def by_definition(net, x, y, rule, options, touch=lambda a: a):
    """The parameters after one step per image."""
    state = {name: touch(value.astype(np.float64)) for name, value in net.state_dict().items()}
    moments = {name: np.zeros((rule.moments, *value.shape)) for name, value in state.items()}
    resolved = rule.resolve(options)
    own = {k: resolved[k] for k in (*rule.options, "weight_decay", "l1") if k != "correct_asynchrony"}
    for t in range(len(x)):
        at = slice(t, t + 1)
        _, found = reference.loss_and_gradients(net, x[at], y[at], state=state, touch=touch, key=run_key(0, 0))
        for name, g in found.items():
            less = dict(weight_decay=0.0, l1=0.0) if name.endswith(".bias") else {}
            state[name], moments[name] = rule.apply(
                state[name], g, moments[name], 0.05 * factor(name), t + 1, **(own | less)
            )
    return state


@pytest.mark.parametrize(
    "name, options",
    [
        ("sgd", {}),
        ("sgd", dict(weight_decay=0.2, l1=0.01)),
        ("momentum", dict(weight_decay=0.2)),
        ("adamw", dict(weight_decay=2.0)),
    ],
)
def test_the_definition(isa, name, options):
    """Tolerance: as in nets.Oracle, 64 times what moving every result by a rounding changes, and one rounding."""
    net = network()
    x, y = images(6, net.input_shape, classes=5)
    rng = np.random.default_rng(1)
    exact = by_definition(net, x, y, UPDATES[name], options)
    moved = [
        by_definition(net, x, y, UPDATES[name], options, lambda a: a * (1 + 2.0**-24 * rng.uniform(-1, 1, a.shape)))
        for _ in range(4)
    ]
    more = dict(strategy="sequential", epochs=1, lr=0.05, update=name, update_options=options | GROUPS, shuffle=False)
    chaos.train(net, chaos.data.Dataset(x, y), progress=False, **more)
    for parameter, value in net.state_dict().items():
        most = max(np.abs(one[parameter] - exact[parameter]).max() for one in moved)
        close(value, exact[parameter], 64 * most + 2.0**-23 * np.abs(exact[parameter]).max())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_knows_the_groups(strategy):
    """With the loss "score", whose gradient does not depend on the weights, and one step: a factor of 2 of the update is
    exact. Biases of 1 are what decay would change."""
    x, y = images(12, (40,), classes=20)

    def trained(**options):
        net = chaos.Network((40,), [chaos.Linear(20)])
        net.initialise("zeros", "ones")
        more = dict(
            strategy=strategy, workers=1, batch_size=12, epochs=1, lr=0.5, loss="score", shuffle=False, progress=False
        )
        chaos.train(net, chaos.data.Dataset(x, y, classes=20), update_options=options, **more)
        return net.state_dict()

    plain, double = trained(), trained(lr_scale="*.weight=2")
    assert plain["0.weight"].any() and (double["0.weight"] == 2 * plain["0.weight"]).all()
    assert (double["0.bias"] == plain["0.bias"]).all() and (plain["0.bias"] != 1).any()
    spared, decayed = trained(weight_decay=0.5, no_decay="*.bias"), trained(weight_decay=0.5)
    assert (spared["0.bias"] == plain["0.bias"]).all() and (decayed["0.bias"] < plain["0.bias"]).all()


@pytest.mark.parametrize("strategy", virtual.ORDERS)
def test_virtual_workers_know_them(strategy):
    if not STRATEGIES[strategy].deterministic:
        pytest.skip("real workers do not give the same bits")
    nets = network(), network()
    more = dict(strategy=strategy, workers=1, epochs=1, lr=0.05, batch_size=4, progress=False)
    for net, runner in zip(nets, (None, virtual.Virtual()), strict=True):
        chaos.train(net, data(), update_options=GROUPS | {"weight_decay": 0.1}, runner=runner, **more)
    assert (nets[0].weights == nets[1].weights).all()


def test_a_factor_of_one_and_no_decay_of_nothing_change_no_bit():
    nets = network(), network()
    for net, options in zip(nets, ({}, dict(lr_scale="*=1", no_decay="*")), strict=True):
        chaos.train(net, data(), strategy="sequential", epochs=2, lr=0.05, update_options=options, progress=False)
    assert (nets[0].weights == nets[1].weights).all()


def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    net = network()
    modules = [torch.nn.Conv2d(2, 18, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(18, 6, 2, groups=2)]
    model = torch.nn.Sequential(*modules, torch.nn.Flatten(), torch.nn.Linear(24, 5))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in net.state_dict().items()})
    x, y = images(8, net.input_shape, classes=5)
    parts = [
        {"params": [p], "lr": 0.05 * factor(name), "weight_decay": 0.0 if name.endswith(".bias") else 0.1}
        for name, p in model.named_parameters()
    ]
    rule = torch.optim.SGD(parts, lr=0.05, momentum=0.9)
    for at in range(0, 8, 2):
        rule.zero_grad()
        pixels, labels = (torch.from_numpy(one[at : at + 2]) for one in (x, y))
        torch.nn.functional.cross_entropy(model(pixels), labels).backward()
        rule.step()
    more = dict(strategy="sequential", batch_size=2, epochs=1, lr=0.05, shuffle=False, progress=False, update="momentum")
    chaos.train(net, chaos.data.Dataset(x, y), update_options=GROUPS | {"weight_decay": 0.1}, **more)
    for name, value in net.state_dict().items():
        want = model.state_dict()[name].numpy()
        close(value, want, 1e-5 * np.abs(want).max())  # four steps, sums of up to 200 terms


def test_classes():
    def at(*bounds):
        return SimpleNamespace(index=np.arange(*bounds))

    places = {"a.weight": at(20), "a.bias": at(32, 40), "b.weight": at(48, 64)}
    assert groups.classes(places, 64, [], []) == ([], None)
    assert groups.classes(places, 64, [], [("a.*", 1.0)]) == ([], None)
    known, of = groups.classes(places, 64, ["*.bias"], [("a.*", 0.5), ("a.weight", 3.0)])
    assert known == [(1.0, False), (3.0, False), (0.5, True)] and of.tolist() == [1, 1, 2, 0]
    with pytest.raises(ValueError, match=r"a.bias and a.weight lie together in memory"):
        groups.classes({"a.weight": at(8), "a.bias": at(8, 12)}, 16, ["*.bias"], [])


def test_runs_are_continued_with_them(tmp_path):
    more = dict(strategy="sequential", lr=0.005, progress=False, update="momentum")
    whole, parts = network(), network()
    options = GROUPS | {"weight_decay": 0.01}
    chaos.train(whole, data(), epochs=3, update_options=options, **more)
    chaos.train(parts, data(), epochs=1, run_dir=tmp_path, update_options=options, **more)
    assert json.loads((tmp_path / CONFIG).read_text())["update_options"]["no_decay"] == "*.bias"
    with pytest.raises(CheckpointError, match=r"update_options no_decay \('\*.bias' there, None now\)"):
        chaos.train(network(), data(), epochs=3, run_dir=tmp_path, resume=True, **more)
    again = network(seed=3)
    chaos.train(again, data(), epochs=3, run_dir=tmp_path, resume=True, update_options=options, **more)
    assert (again.weights == whole.weights).all()


def test_the_command_line(tmp_path):
    given = ["--update-option", "lr_scale=0.*=0.5,3.*=2", "--update-option", "no-decay=*.bias"]
    train = ["train", "small", "--data", "digits", "--subset", "50", "--epochs", "1", "--quiet", "--workers", "1"]
    assert main([*train, *given, "--run-dir", str(tmp_path / "run")]) == 0
    kept = json.loads((tmp_path / "run" / CONFIG).read_text())["update_options"]
    assert kept["lr_scale"] == "0.*=0.5,3.*=2" and kept["no_decay"] == "*.bias"


def test_mistakes_are_told():
    net = network()
    for options, text in (
        (dict(no_decay="norm.*"), r"no parameter is named like 'norm.\*'"),
        (dict(no_decay=3), "option no_decay of update rule 'sgd' must be a text, not 3"),
        (dict(no_decay="a,,b"), "must be patterns of parameter names with commas between them, not 'a,,b'"),
        (dict(lr_scale="0.*"), r"must be PATTERN=FACTOR, several with commas, factors above 0, not '0.\*'"),
        (dict(lr_scale="0.*=0"), "factors above 0"),
        (dict(lr_scale="0.*=nan"), "factors above 0"),
        (dict(lr_scale="tail.*=2"), r"no parameter is named like 'tail.\*'"),
    ):
        with pytest.raises(ValueError, match=text):
            chaos.train(net, data(), update_options=options, progress=False)
    assert patterns("x", " a , b.* ") == ["a", "b.*"] and scales("x", "a=2, b.*=1e-3") == [("a", 2.0), ("b.*", 1e-3)]
    for more in (
        dict(classes=[(1.0, False)]),
        dict(class_of=np.zeros(4, np.uint8)),
        dict(classes=[(1.0, False)], class_of=np.ones(net.plan.weight_size // 16, np.uint8)),
        dict(classes=[(1.0, False)], class_of=np.zeros(3, np.uint8)),
    ):
        with pytest.raises(ValueError, match="class"):
            _core.Engine(net.plan, net.weights, **more)
