"""Frozen parameters: no bit of them changes, the others change as the definition says, and no work is done for them."""

import copy
import pickle

import numpy as np
import pytest
from nets import close, graph, images, one_layer

import chaos
from chaos import _core, freezing, reference, virtual
from chaos.errors import CheckpointError
from chaos.formats import read_tensors, write_tensors
from chaos.layers import LAYERS
from chaos.layers.base import Trained
from chaos.layers.examples import Picker
from chaos.network import run_key
from chaos.sync import STRATEGIES
from chaos.updates import UPDATES
from chaos.updates.base import clip

PATTERNS = ["0.*", "0.weight", "0.bias", "5.*", "[05].bias", "3.weight"]
RULES = [
    ("sgd", {}),
    ("sgd", dict(weight_decay=0.1, l1=0.01, max_norm=0.3)),
    ("momentum", dict(weight_decay=0.1, clip_norm=0.5)),
    ("adam", dict(max_norm=0.3, clip_value=0.1)),
]


def network(seed=0):
    """Two convolutions (with more channels than a vector, and with groups) and a linear layer."""
    layers = [
        chaos.Conv2d(18, 3),
        chaos.ReLU(),
        chaos.MaxPool2d(2),
        chaos.Conv2d(6, 2, groups=2),
        chaos.Flatten(),
        chaos.Linear(5),
    ]
    return chaos.Network((2, 8, 8), layers, seed=seed)


def data(n=48, classes=5, shape=(2, 8, 8)):
    return chaos.data.Dataset(*images(n, shape, classes=classes))


def unchanged(net, before):
    """Which parameters have the same bits as before."""
    return {name for name, value in net.state_dict().items() if value.tobytes() == before[name].tobytes()}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_strategy_changes_what_is_frozen(strategy, pattern):
    net = network()
    net.weights[net.weights < -0.1] = -0.0  # whose sign a sum with 0 takes away
    net.freeze(pattern)
    before = net.state_dict()
    options = {"grain": "instant"} if strategy == "hogwild" and pattern != "3.weight" else {}
    workers = 1 if STRATEGIES[strategy].single else 3
    chaos.train(
        net,
        data(),
        strategy=strategy,
        strategy_options=options,
        workers=workers,
        epochs=2,
        lr=0.05,
        batch_size=2,
        progress=False,
    )
    assert unchanged(net, before) == set(net.frozen) == set(freezing.matching(before, pattern))


@pytest.mark.parametrize("rule, options", RULES + [(name, {}) for name in UPDATES])
@pytest.mark.parametrize("strategy", ["sequential", "chaos", "leashed", "synchronous", "replicated", "hybrid"])
def test_no_rule_changes_what_is_frozen(strategy, rule, options):
    net = network()
    net.freeze("*.weight")
    net.freeze("3.*")
    net.unfreeze("0.weight")
    before = net.state_dict()
    assert net.frozen == ("3.weight", "3.bias", "5.weight")
    workers = 1 if strategy == "sequential" else 2
    more = dict(strategy=strategy, workers=workers, epochs=2, lr=0.02, batch_size=2, progress=False)
    chaos.train(net, data(), update=rule, update_options=options, **more)
    assert unchanged(net, before) == set(net.frozen)


def test_options_of_strategies_that_copy_weights():
    for options in (dict(read="publication"), dict(read="publication", stripe_bytes=64), dict(max_staleness=0)):
        net = network()
        net.freeze("3.*")
        net.freeze("5.bias")
        before = net.state_dict()
        chaos.train(net, data(), strategy_options=options, workers=2, epochs=2, lr=0.05, progress=False)
        assert unchanged(net, before) == set(net.frozen)


def by_definition(net, x, y, rule, options, touch=lambda a: a):
    """The parameters after one step per image, with what is frozen left out of the norm, the penalties and the update."""
    state = {name: touch(value.astype(np.float64)) for name, value in net.state_dict().items()}
    moments = {name: np.zeros((rule.moments, *value.shape)) for name, value in state.items()}
    resolved = rule.resolve(options)
    own = {k: resolved[k] for k in (*rule.options, "weight_decay", "l1") if k != "correct_asynchrony"}
    for t in range(len(x)):
        at = slice(t, t + 1)
        _, gradients = reference.loss_and_gradients(net, x[at], y[at], state=state, touch=touch, key=run_key(0, 0))
        for layer in {name.rpartition(".")[0] for name in state}:
            mine = {n: g for n, g in gradients.items() if n.rpartition(".")[0] == layer and n not in net.frozen}
            for name, g in clip(mine, clip_norm=resolved["clip_norm"]).items():
                state[name], moments[name] = rule.apply(state[name], g, moments[name], 0.05, t + 1, **own)
    return state


@pytest.mark.parametrize("pattern", [*PATTERNS, "graph"])
@pytest.mark.parametrize("name, options", [("sgd", {}), ("momentum", dict(weight_decay=0.1, clip_norm=0.5)), ("adam", {})])
def test_the_others_are_trained_as_defined(isa, pattern, name, options):
    """Tolerance: as in nets.Oracle, 64 times what moving every result by a rounding changes, and one rounding."""
    net = graph() if pattern == "graph" else network()
    for one in ("stem.*", "4.weight") if pattern == "graph" else (pattern,):
        net.freeze(one)
    x, y = images(6, net.input_shape, classes=5)
    rng = np.random.default_rng(1)
    exact = by_definition(net, x, y, UPDATES[name], options)
    moved = [
        by_definition(net, x, y, UPDATES[name], options, lambda a: a * (1 + 2.0**-24 * rng.uniform(-1, 1, a.shape)))
        for _ in range(4)
    ]
    more = dict(strategy="sequential", epochs=1, lr=0.05, update=name, update_options=options, shuffle=False, progress=False)
    chaos.train(net, chaos.data.Dataset(x, y), **more)
    for parameter, value in net.state_dict().items():
        most = max(np.abs(one[parameter] - exact[parameter]).max() for one in moved)
        close(value, exact[parameter], 64 * most + 2.0**-23 * np.abs(exact[parameter]).max())


def gradients(net, x, y):
    """The vector in which the core has left the gradient, and its single layers."""
    inputs = net.take_images(x)["inputs"]
    engine = _core.Engine(net.plan, net.weights, batch_size=len(x))
    bench = _core.Bench(engine, times=True)
    engine.run("gradients", inputs=inputs, labels=y)
    vector = np.empty_like(net.weights)
    engine.gradient(vector)
    return net.unpack(vector), bench


def test_no_gradient_is_formed_of_frozen_layers():
    """Its place keeps the zeros that it is born with."""
    net = network()
    x, y = images(4, net.input_shape, classes=5)
    want, bench = gradients(net, x, y)
    assert all(value.any() for value in want.values()) and all(bench.engine.learns(node) for node in range(1, 7))
    free = bench.engine.worker_bytes
    net.freeze("3.*")
    found, bench = gradients(net, x, y)
    assert {name for name, value in found.items() if not value.any()} == {"3.weight", "3.bias"}
    assert all((found[name] == want[name]).all() for name in found if name not in net.frozen)
    assert all(bench.engine.learns(node) for node in range(1, 7)) and [bench.engine.trains(i) for i in range(7)] == [
        node in (1, 6) for node in range(7)
    ]
    assert bench.time(4, "weight_gradient") is None and bench.time(4, "update") is None
    assert bench.time(4, "backward") >= 0 and bench.time(1, "weight_gradient") >= 0
    net.freeze("0.*")  # now nothing below the last layer learns: no delta has a place
    found, bench = gradients(net, x, y)
    assert {name for name, value in found.items() if value.any()} == {"5.weight", "5.bias"}
    assert [bench.engine.learns(node) for node in range(7)] == [False] * 6 + [True]
    assert bench.engine.worker_bytes < free
    assert all(bench.time(node, "backward") is None for node in range(1, 6))


def test_work_is_counted_without_what_is_frozen():
    net = network()
    each = [layer.macs(*shapes) for _, layer, shapes in net.core_layers()]
    first, second, last = (each[i] for i in (0, 3, 5))
    total = first + second + last
    assert net.macs() == {"forward": total, "weight_gradient": total, "data_gradient": second + last}
    net.freeze("3.*")
    assert net.macs() == {"forward": total, "weight_gradient": first + last, "data_gradient": second + last}
    net.freeze("0.weight")
    assert net.macs() == {"forward": total, "weight_gradient": first + last, "data_gradient": second + last}
    net.freeze("0.bias")
    assert net.macs() == {"forward": total, "weight_gradient": last, "data_gradient": 0}
    times = virtual.nominal(net)
    assert not any(times.backward[:5]) and times.backward[5] > 0
    net.unfreeze()
    assert net.macs()["data_gradient"] == second + last and net.frozen == ()


def test_gradients_are_of_what_is_trained():
    net = graph()
    x, y = images(5, net.input_shape, classes=5)
    loss, want = net.loss_and_gradients(x, y)
    net.freeze("stem.*")
    net.freeze("*.bias")
    again, found = net.loss_and_gradients(x, y)
    assert again == loss and found.keys() == want.keys() - set(net.frozen)
    assert all((found[name] == want[name]).all() for name in found)


@pytest.mark.parametrize("kind", [kind for kind, layer in LAYERS.items() if layer.part_names])
def test_every_part_can_be_frozen(kind):
    """Alone (running statistics together), and all of them."""
    for seed in range(4):
        layer, shapes = LAYERS[kind].example(Picker(np.random.default_rng(seed)))
        inputs = [chaos.Input(shape) for shape in shapes]
        out = layer(*inputs)
        net = chaos.Network(inputs, chaos.Linear(3)(chaos.Flatten()(out) if len(out.shape) > 1 else out), seed=seed)
        node = net.nodes()[len(inputs)][0]
        alone = [name for name, what in freezing.parts(node, "0").items() if isinstance(what, Trained)]
        for name in alone:
            net.unfreeze()
            net.freeze(name)
            x = [images(4, shape, seed)[0] for shape in shapes]
            before = net.state_dict()
            engine = _core.Engine(net.plan, net.weights, batch_size=4, update_options=[0.1], stripe_bytes=64)
            flat = net.take_images(x if len(x) > 1 else x[0])["inputs"]
            assert engine.run("train", inputs=flat, labels=np.arange(4) % 3, lr=0.1)["status"] == "done"
            same = unchanged(net, before)
            assert name in same and f"{net.nodes()[-1][1]}.weight" not in same, (layer, name)
        net.freeze_named([name for name in net.state_dict() if name in freezing.parts(node, net.part_owner(node))])
        engine = _core.Engine(net.plan, net.weights, batch_size=4)
        number = next(i for i, (there, _) in enumerate(net.nodes()) if there is node)
        assert not engine.trains(number) and not engine.learns(number), layer


def test_frozen_running_statistics_are_used_in_training():
    """As in `eval()`: no batch is needed, and strategies that cut steps may train the rest."""
    shape = (3, 6, 6)
    layers = [chaos.Conv2d(4, 3), chaos.BatchNorm2d(), chaos.ReLU(), chaos.Flatten(), chaos.Linear(5)]
    net = chaos.Network(shape, layers)
    x, y = images(8, shape, classes=5)
    chaos.train(net, chaos.data.Dataset(x, y, classes=5), strategy="sequential", batch_size=4, epochs=2, progress=False)
    with pytest.raises(
        ValueError, match="1.running_mean and 1.running_var can be frozen together only; 1.running_var would not"
    ):
        net.freeze("1.running_mean")
    with pytest.raises(ValueError, match="whole batch"):
        chaos.train(net, chaos.data.Dataset(x, y, classes=5), strategy="synchronous", batch_size=4, progress=False)
    for pattern in ("1.running_*", "1.*", "[01].*"):
        net.unfreeze()
        net.freeze(pattern)
        state, exact = net.state_dict(), {}
        loss, exact = reference.loss_and_gradients(net, x, y, key=run_key(0, 0))
        output = reference.forward(net, x)[net.nodes()[-1][0]]
        picked = -np.log(np.exp(output) / np.exp(output).sum(1, keepdims=True))[np.arange(len(y)), y].mean()
        assert loss == pytest.approx(picked, rel=1e-12)  # the loss of evaluation is that of training
        found_loss, found = net.loss_and_gradients(x, y)
        assert found_loss == pytest.approx(loss, rel=1e-5)
        for name, value in found.items():
            close(value, exact[name], 64 * 2.0**-24 * max(1, np.abs(exact[name]).max()) * np.sqrt(8 * 16))
        chaos.train(
            net,
            chaos.data.Dataset(x, y, classes=5),
            strategy="synchronous",
            batch_size=4,
            workers=2,
            epochs=2,
            progress=False,
        )
        assert unchanged(net, state) == set(net.frozen)


def test_fixed_normalisation_has_the_derivatives_of_its_forward_pass():
    rng = np.random.default_rng(0)
    layer = chaos.BatchNorm2d()
    x, dy = rng.standard_normal((2, 3, 2, 4, 3))
    parts = {"weight": rng.uniform(1, 2, 3), "bias": rng.uniform(1, 2, 3), "running_mean": rng.uniform(0, 1, 3)}
    parts["running_var"] = rng.uniform(1, 2, 3)
    x = rng.standard_normal((2, 3, 4, 3))
    dy = rng.standard_normal(x.shape)
    into, own = layer.backward([x], parts, layer.forward([x], parts), dy)

    def slope(array, index):
        h, before = 1e-6, array[index]
        values = []
        for step in (h, -h):
            array[index] = before + step
            values.append((layer.forward([x], parts) * dy).sum())
        array[index] = before
        return (values[0] - values[1]) / (2 * h)

    for array, gradient in ((x, into[0]), (parts["weight"], own["weight"]), (parts["bias"], own["bias"])):
        for index in np.ndindex(array.shape):
            assert slope(array, index) == pytest.approx(gradient[index], abs=1e-7)
    assert own.keys() == {"weight", "bias"}


def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    layers = [chaos.Conv2d(4, 3), chaos.BatchNorm2d(), chaos.ReLU(), chaos.Conv2d(5, 2), chaos.Flatten(), chaos.Linear(5)]
    net = chaos.Network((3, 6, 6), layers)
    modules = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 2)]
    model = torch.nn.Sequential(*modules, torch.nn.Flatten(), torch.nn.Linear(45, 5))
    state = {name: torch.from_numpy(value) for name, value in net.state_dict().items()}
    model.load_state_dict(state, strict=False)
    x, y = images(8, net.input_shape, classes=5)
    net.freeze("[01].*")
    net.freeze("3.bias")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in net.frozen)
    model.train()
    model[1].eval()
    rule = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9, weight_decay=0.01)
    for at in range(0, 8, 2):
        rule.zero_grad()
        torch.nn.functional.cross_entropy(
            model(torch.from_numpy(x[at : at + 2])), torch.from_numpy(y[at : at + 2])
        ).backward()
        rule.step()
    more = dict(strategy="sequential", batch_size=2, epochs=1, lr=0.05, shuffle=False, progress=False)
    chaos.train(net, chaos.data.Dataset(x, y), update="momentum", update_options=dict(weight_decay=0.01), **more)
    for name, value in net.state_dict().items():
        want = model.state_dict()[name].numpy()
        close(value, want, 0 if name in net.frozen else 1e-5 * np.abs(want).max())  # four steps, sums of up to 200 terms


def test_it_is_kept(tmp_path):
    net = network()
    net.freeze("0.*")
    net.freeze("5.bias")
    assert "(weight, bias frozen)" in repr(net) and "(bias frozen)" in repr(net)
    net.save(tmp_path / "net.safetensors")
    for other in (chaos.load(tmp_path / "net.safetensors"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert other.frozen == net.frozen == ("0.weight", "0.bias", "5.bias")
        assert other.config() == net.config()
    assert "frozen" not in network().config()
    tensors, metadata = read_tensors(tmp_path / "net.safetensors")
    for damage in ('["0.nothing"]', '"0.weight"', "[1]"):
        broken = metadata["network"].replace('["0.weight", "0.bias", "5.bias"]', damage)
        assert broken != metadata["network"]
        write_tensors(tmp_path / "broken.safetensors", tensors, metadata | {"network": broken})
        with pytest.raises(CheckpointError, match="not names of its parameters"):
            chaos.load(tmp_path / "broken.safetensors")


def test_runs_are_continued_with_it(tmp_path):
    more = dict(strategy="sequential", lr=0.05, progress=False, update="momentum")
    whole, parts = network(), network()
    for net in (whole, parts):
        net.freeze("3.*")
        net.freeze("0.bias")
    chaos.train(whole, data(), epochs=3, **more)
    chaos.train(parts, data(), epochs=1, run_dir=tmp_path, **more)
    assert chaos.load(tmp_path / "model.safetensors").frozen == parts.frozen
    again = network(seed=5)
    with pytest.raises(CheckpointError, match="network"):
        chaos.train(again, data(), epochs=3, run_dir=tmp_path, resume=True, **more)
    again.freeze("3.*")
    again.freeze("0.bias")
    chaos.train(again, data(), epochs=3, run_dir=tmp_path, resume=True, **more)
    assert all((value == again.state_dict()[name]).all() for name, value in whole.state_dict().items())


@pytest.mark.parametrize("strategy", virtual.ORDERS)
@pytest.mark.parametrize("pattern", ["3.*", "[05].bias"])
def test_virtual_workers_leave_it(strategy, pattern):
    net = network()
    net.freeze(pattern)
    before = net.state_dict()
    workers = 1 if STRATEGIES[strategy].single else 5
    more = dict(strategy=strategy, workers=workers, epochs=2, lr=0.05, batch_size=5, progress=False)
    chaos.train(net, data(), runner=virtual.Virtual(), **more)
    assert unchanged(net, before) == set(net.frozen)


@pytest.mark.parametrize("pattern", ["0.*", "3.*", "[05].bias"])
@pytest.mark.parametrize("strategy", virtual.TRACEABLE)
def test_traces_are_replayed(tmp_path, strategy, pattern):
    net = network()
    net.freeze(pattern)
    before, workers = net.state_dict(), 1 if STRATEGIES[strategy].single else 2
    with virtual.Traced(tmp_path / "trace") as runner:
        chaos.train(net, data(), strategy=strategy, workers=workers, epochs=2, lr=0.05, progress=False, runner=runner)
    assert unchanged(net, before) == set(net.frozen)
    again = virtual.replay(tmp_path / "trace", data())
    assert again.frozen == net.frozen and (again.weights == net.weights).all()


def test_nothing_to_train_is_an_error():
    net = network()
    net.freeze()
    with pytest.raises(ValueError, match="all parameters of the network are frozen"):
        chaos.train(net, data(), progress=False)


def test_patterns_that_name_nothing_are_errors():
    net = network()
    with pytest.raises(ValueError, match=r"no parameter is named like 'head\.\*'; the network has 0.weight, 0.bias"):
        net.freeze("head.*")
    with pytest.raises(ValueError, match=r"no parameter is named like '0'; did you mean '0\.\*'\?"):
        net.freeze("0")
    with pytest.raises(TypeError, match="pattern"):
        net.freeze(3)
    assert net.frozen == ()


def test_layers_that_share_weights_are_frozen_together():
    node = chaos.Input((6,))
    shared = chaos.Linear(6)
    net = chaos.Network(node, chaos.Linear(3)(shared(chaos.Tanh()(shared(node)))))
    net.freeze("0.*")
    before = net.state_dict()
    chaos.train(net, data(24, 3, (6,)), workers=2, epochs=2, lr=0.05, progress=False)
    assert unchanged(net, before) == {"0.weight", "0.bias"}


def test_max_norm_leaves_frozen_weights():
    """Also where only the bias is trained, which max-norm itself leaves alone."""
    net = one_layer((5,), chaos.Linear(3))
    net.freeze("0.weight")
    before = net.state_dict()
    more = dict(strategy="sequential", epochs=1, lr=0.05, progress=False)
    chaos.train(net, data(9, 3, (5,)), update_options=dict(max_norm=1e-3), **more)
    assert unchanged(net, before) == {"0.weight"}
    net.unfreeze()
    net.freeze("0.bias")
    chaos.train(net, data(9, 3, (5,)), update_options=dict(max_norm=1e-3), **more)
    assert np.linalg.norm(net.state_dict()["0.weight"], axis=1).max() <= 1.001e-3
