"""Update rules: the core against the definitions and against PyTorch, state that is kept, bounds, schedules."""

import json
import os
import platform
import shutil
import signal
import threading

import numpy as np
import pytest
from nets import images, one_layer

import chaos
from chaos import _core
from chaos.cli import main
from chaos.formats import read_tensors, write_tensors
from chaos.network import STATE, aligned_zeros
from chaos.sync import STRATEGIES
from chaos.training import CONFIG, MODEL
from chaos.updates import SCHEDULES, UPDATES
from chaos.updates.base import clip, project
from chaos.updates.momentum import corrected

DECAY = dict(weight_decay=0.02, l1=0.003)
CASES = [(name, options) for name in UPDATES for options in ({}, DECAY)] + [
    ("momentum", dict(momentum=0.5, dampening=0.3)),
    ("momentum", dict(momentum=0.0)),
    ("momentum", dict(momentum=0.0, dampening=0.3)),
    ("nesterov", dict(momentum=0.6)),
    ("adagrad", dict(lr_decay=0.1, initial_accumulator_value=0.5, eps=1e-3)),
    ("rmsprop", dict(alpha=0.9, momentum=0.8, eps=1e-3)),
    ("rmsprop", dict(centered=True)),
    ("rmsprop", dict(centered=True, momentum=0.5, **DECAY)),
    ("adam", dict(beta1=0.6, beta2=0.9, eps=1e-2)),
    ("adam", dict(beta1=0.0, beta2=0.0)),
    ("adamw", dict(weight_decay=0.0)),
    ("adamw", dict(weight_decay=3.0)),
]
LR = float(np.float32(0.01))
IN, OUT, STEPS = 37, 21, 60


class Problem:
    """One linear layer with the score loss, whose gradient for one image does not depend on the weights: -1 times the image
    for the weights of its label, 0 elsewhere. So what an update rule gets is known to the last bit."""

    def __init__(self, bias=True):
        rng = np.random.default_rng(3)
        self.net = one_layer((IN,), chaos.Linear(OUT, bias=bias), seed=1)
        self.x = rng.standard_normal((STEPS, IN)).astype(np.float32)
        self.y = rng.integers(0, OUT, STEPS)
        self.before = self.net.state_dict()

    def gradients(self):
        for x, y in zip(self.x, self.y, strict=True):
            g = {name: np.zeros_like(value) for name, value in self.before.items()}
            g["0.weight"][y] = -x
            if "0.bias" in g:
                g["0.bias"][y] = -1
            yield g

    def train(self, name, options, **more):
        """The parameters and moments {moment: {parameter: array}} after training in the core."""
        rule, net = UPDATES[name], self.net
        net.load_state_dict(self.before)
        moments = aligned_zeros((rule.moments, net.plan.weight_size))
        resolved = rule.for_workers(rule.resolve(options), 1)
        rule.start(moments, resolved)
        engine = _core.Engine(
            net.plan,
            net.weights,
            update=name,
            moments=moments,
            loss="score",
            update_options=rule.core_options(resolved),
            **more,
        )
        assert engine.run("train", inputs=[self.x.ravel()], labels=self.y, lr=LR)["images"] == STEPS
        self.padding = np.ones(net.plan.weight_size, bool)
        for parameter in net.unpack(np.arange(net.plan.weight_size)).values():
            self.padding[parameter] = False
        self.moments = moments
        return net.state_dict(), {m: net.unpack(moment) for m, moment in zip(rule.state, moments, strict=True)}

    def define(self, name, options, dtype):
        """The same by the definition."""
        rule = UPDATES[name]
        resolved = rule.resolve(options)
        w = {p: v.astype(dtype) for p, v in self.before.items()}
        moments = {p: np.zeros((rule.moments, *v.shape), dtype) for p, v in w.items()}
        for m in moments.values():
            rule.start(m, resolved)
        own = {k: v for k, v in resolved.items() if k in (*rule.options, "weight_decay", "l1") and k != "correct_asynchrony"}
        for t, g in enumerate(self.gradients(), 1):
            for p in w:
                w[p], moments[p] = rule.apply(w[p], g[p].astype(dtype), moments[p], LR, t, **own)
        assert all(v.dtype == dtype for v in w.values())
        return w, {m: {p: moments[p][i] for p in w} for i, m in enumerate(rule.state)}


def tolerance(exact, rounded):
    """How far float32 may stray from the definition: eight times what the definition in float32 does (the same operations,
    some of them fused or in another order), and four roundings of the largest result."""
    return 8 * np.abs(rounded - exact).max() + 4 * 2.0**-24 * np.abs(exact).max()


def test_lists_agree():
    assert {name: rule.moments for name, rule in UPDATES.items()} == _core.updates()
    assert all(len(rule.common | rule.options) <= 12 for rule in UPDATES.values())


@pytest.mark.parametrize("name, options", CASES)
@pytest.mark.parametrize("stripe_bytes", [64, 16384])
def test_core_is_the_definition(isa, name, options, stripe_bytes):
    problem = Problem()
    found = problem.train(name, options, stripe_bytes=stripe_bytes)
    exact, rounded = (problem.define(name, options, dtype) for dtype in (np.float64, np.float32))
    pairs = [(found[0], exact[0], rounded[0])] + [(found[1][m], exact[1][m], rounded[1][m]) for m in found[1]]
    for got, want, close in pairs:
        for p in got:
            if isa == "generic" and platform.machine() == "x86_64":  # without fused multiply-adds
                assert (got[p] == close[p]).all(), p
            np.testing.assert_allclose(got[p], want[p], rtol=0, atol=tolerance(want[p], close[p]))
    assert not problem.net.weights[problem.padding].any(), "padding"
    assert np.isfinite(problem.moments).all()


def test_centered_rmsprop_of_a_constant_gradient(isa):
    """The mean of squares and the square of the mean approach each other; rounding must not make their difference negative
    and its root no number."""
    net = one_layer((64,), chaos.Linear(1, bias=False))
    rule = UPDATES["rmsprop"]
    moments = aligned_zeros((rule.moments, net.plan.weight_size))
    engine = _core.Engine(
        net.plan,
        net.weights,
        loss="score",
        update="rmsprop",
        moments=moments,
        update_options=rule.core_options(rule.resolve(dict(alpha=0.5, centered=True))),
    )
    x = np.tile(np.random.default_rng(0).standard_normal(64).astype(np.float32), 300)
    assert engine.run("train", inputs=[x], labels=np.zeros(300, np.int64), lr=1e-9)["status"] == "done"
    assert np.isfinite(net.weights).all() and np.isfinite(moments).all()
    square, _, mean = (net.unpack(m)["0.weight"] for m in moments)
    assert (square < mean.astype(np.float64) ** 2).any(), "rounding did not make it negative, so nothing was tested"


@pytest.mark.parametrize("name, options", CASES)
def test_agrees_with_pytorch(name, options):
    torch = pytest.importorskip("torch")
    if "l1" in options:
        options = {k: v for k, v in options.items() if k != "l1"}
    given = UPDATES[name].resolve(options)
    given = {k: v for k, v in given.items() if k not in ("l1", "clip_value", "clip_norm", "max_norm", "correct_asynchrony")}
    if "beta1" in given:
        given["betas"] = given.pop("beta1"), given.pop("beta2")
    kinds = {
        "sgd": "SGD",
        "momentum": "SGD",
        "nesterov": "SGD",
        "adagrad": "Adagrad",
        "rmsprop": "RMSprop",
        "adam": "Adam",
        "adamw": "AdamW",
    }
    problem = Problem()
    w = {p: torch.nn.Parameter(torch.tensor(v)) for p, v in problem.before.items()}
    optimizer = getattr(torch.optim, kinds[name])(
        w.values(), lr=LR, **given, **({"nesterov": True} if name == "nesterov" else {})
    )
    for g in problem.gradients():
        for p in w:
            w[p].grad = torch.tensor(g[p])
        optimizer.step()
    weights, moments = problem.train(name, options)
    exact, rounded = (problem.define(name, options, dtype) for dtype in (np.float64, np.float32))
    for p in w:
        got = w[p].detach().numpy()
        np.testing.assert_allclose(weights[p], got, rtol=0, atol=tolerance(exact[0][p], rounded[0][p]))
        for m, of in moments.items():
            if (theirs := optimizer.state[w[p]].get(m)) is not None:
                np.testing.assert_allclose(of[p], theirs.numpy(), rtol=0, atol=tolerance(exact[1][m][p], rounded[1][m][p]))


# ---- bounds ----


def odd_network(seed=0):
    """Every form of weight block: plain, depthwise and grouped convolutions, with and without bias, more outputs than one
    vector holds, and a branch."""
    x = chaos.Input((3, 9, 8))
    a = chaos.Tanh()(chaos.Conv2d(12, 3, padding="same")(x))
    b = chaos.Conv2d(12, 3, padding="same", groups=12)(a)
    c = chaos.Conv2d(12, 1, groups=2, bias=False)(a)
    d = chaos.Linear(37)(chaos.Flatten()(chaos.MaxPool2d(2)(chaos.Add()(b, c))))
    return chaos.Network(x, chaos.Linear(7, bias=False)(chaos.ReLU()(d)), seed=seed)


def layers_of(net, tensors):
    """{layer: {"weight", "bias"}}."""
    found = {}
    for name, value in tensors.items():
        layer, _, parameter = name.rpartition(".")
        found.setdefault(layer, {})[parameter] = value
    return found


def bounded_training(net, x, y, bounds, batch_size, lr):
    """Trains `net` in the engine, under bounds and penalties, and another network by the definitions; yields that one and
    its unbounded gradients after every step."""
    other = odd_network()
    rule = UPDATES["sgd"]
    options = rule.resolve(bounds)
    engine = _core.Engine(
        net.plan,
        net.weights,
        strategy="chaos",
        batch_size=batch_size,
        stripe_bytes=192,
        update_options=rule.core_options(options),
    )
    for at in range(0, len(y), batch_size):
        some = slice(at, at + batch_size)
        data = net.take_images(x[some])
        _, gradients = other.loss_and_gradients(x[some], y[some])
        engine.run("train", inputs=data["inputs"], labels=y[some], lr=lr)
        state = other.state_dict()
        for layer, g in layers_of(other, gradients).items():
            for parameter, value in clip(g, options["clip_value"], options["clip_norm"]).items():
                name = f"{layer}.{parameter}"
                state[name], _ = rule.apply(
                    state[name], value.astype(np.float32), [], lr, 1, weight_decay=options["weight_decay"], l1=options["l1"]
                )
            if options["max_norm"] is not None:
                state[f"{layer}.weight"] = project(state[f"{layer}.weight"], options["max_norm"])
        other.load_state_dict(state)
        yield other, gradients


@pytest.mark.parametrize(
    "bounds",
    [
        dict(clip_value=0.01),
        dict(clip_norm=0.1),
        dict(clip_value=0.02, clip_norm=0.1),
        dict(max_norm=0.5),
        dict(clip_norm=0.05, max_norm=0.4, **DECAY),
        dict(clip_norm=1e9),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_bounds_are_the_definitions(isa, bounds, batch_size):
    net = odd_network()
    x, y = images(30, net.input_shape, classes=7)
    used, unbounded = 0, bounds == dict(clip_norm=1e9)
    lr = float(np.float32(0.01 if unbounded else 0.3))
    for other, gradients in bounded_training(net, x, y, bounds, batch_size, lr):
        for name, value in other.state_dict().items():
            # up to 30 steps, each with gradients whose sums may be rounded differently
            np.testing.assert_allclose(net.state_dict()[name], value, rtol=0, atol=30 * 100 * 2.0**-24)
        norms = [np.sqrt(sum((g**2).sum() for g in layer.values())) for layer in layers_of(net, gradients).values()]
        used += max(norms) > bounds.get("clip_norm", 0) or "max_norm" in bounds
    assert used or unbounded, "no bound was reached, so nothing was tested"
    mask = np.ones(net.plan.weight_size, bool)
    for at in net.unpack(np.arange(net.plan.weight_size)).values():
        mask[at] = False
    assert not net.weights[mask].any(), "padding"
    if "max_norm" in bounds:
        for layer in layers_of(net, net.state_dict()).values():
            flat = layer["weight"].reshape(len(layer["weight"]), -1).astype(np.float64)
            norms = np.sqrt((flat**2).sum(1))
            assert norms.max() <= bounds["max_norm"] * (1 + 1e-6)


def test_definitions_of_bounds_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((6, 3, 2, 2)).astype(np.float32), rng.standard_normal(6).astype(np.float32)
    for value, norm in ((0.5, None), (None, 1.3), (0.5, 1.3), (None, 100.0)):
        p = [torch.nn.Parameter(torch.zeros(v.shape)) for v in (w, b)]
        p[0].grad, p[1].grad = torch.tensor(w), torch.tensor(b)
        if value:
            torch.nn.utils.clip_grad_value_(p, value)
        if norm:
            torch.nn.utils.clip_grad_norm_(p, norm)
        got = clip({"weight": w, "bias": b}, value, norm)
        np.testing.assert_allclose(got["weight"], p[0].grad.numpy(), rtol=1e-6)
        np.testing.assert_allclose(got["bias"], p[1].grad.numpy(), rtol=1e-6)
    np.testing.assert_allclose(project(w, 1.5), torch.renorm(torch.tensor(w), 2, 0, 1.5).numpy(), rtol=1e-6)


# ---- training ----


STATEFUL = dict(weight_decay=1e-4, l1=1e-6, clip_norm=5.0, max_norm=4.0)


def train(name, data, workers=None, strategy="sequential", seed=0, **options):
    net = chaos.models.small(seed=seed)
    run = chaos.train(
        net, *data, update=name, strategy=strategy, workers=workers, progress=False, **(UPDATES[name].tried_with | options)
    )
    return net, run


def pairs():
    """Every rule with every strategy of several workers; by day every third pair: each rule and each strategy with some."""
    several = [n for n, s in STRATEGIES.items() if not s.single]
    return [
        pytest.param(name, strategy, marks=pytest.mark.nightly if (i + k) % 3 else ())
        for k, strategy in enumerate(several)
        for i, name in enumerate(UPDATES)
    ]


@pytest.mark.parametrize("name, strategy", pairs())
def test_every_rule_trains_under_every_strategy(digits, name, strategy):
    """To an error far from chance, 0.9; where workers train copies each takes a third of the steps only. Where the number of
    workers changes no bit, one is enough."""
    net, run = train(name, digits, workers=1 if STRATEGIES[strategy].any_workers else 3, strategy=strategy, epochs=3)
    assert run.history[-1]["test_error"] < 0.25 and np.isfinite(net.weights).all()


@pytest.mark.parametrize("strategy", [n for n, s in STRATEGIES.items() if not s.single])
@pytest.mark.parametrize("batch_size", [1, 12])
def test_every_strategy_keeps_the_bounds(digits, strategy, batch_size):
    """A step moves no weight further than lr * clip_value, or a layer by lr * clip_norm; and no weight vector is much longer
    than max_norm afterwards. Without the bounds all are passed."""
    part = digits[0][:240], None
    options = dict(workers=3, strategy=strategy, epochs=1, lr_decay=1.0, batch_size=batch_size)
    steps, lr = 240 / batch_size, UPDATES["sgd"].tried_with["lr"]

    def moves(**bounds):
        start = chaos.models.small(seed=0).state_dict()
        found = train("sgd", part, update_options=bounds, **options)[0].state_dict()
        return layers_of(net, {name: found[name] - start[name] for name in start})

    def norms(tensors):
        return [np.sqrt(sum(float((value**2).sum()) for value in layer.values())) for layer in tensors.values()]

    net = chaos.models.small()
    largest = max(np.abs(value).max() for layer in moves().values() for value in layer.values())
    value, norm = largest / lr / steps / 4, max(norms(moves())) / lr / steps / 4
    clipped = moves(clip_value=value)
    assert max(np.abs(v).max() for layer in clipped.values() for v in layer.values()) <= lr * steps * value * 1.001
    assert max(norms(moves(clip_norm=norm))) <= lr * steps * norm * 1.001
    rows = [np.sqrt((v.reshape(len(v), -1) ** 2).sum(1)).max() for name, v in net.state_dict().items() if "weight" in name]
    found = train("sgd", part, update_options=dict(max_norm=min(rows) / 2), **options)[0].state_dict()
    for name, v in found.items():
        if "weight" in name:
            assert np.sqrt((v.reshape(len(v), -1) ** 2).sum(1)).max() < min(rows) / 2 * 1.2


@pytest.mark.parametrize("name", UPDATES)
def test_one_worker_is_sequential(digits, name):
    part = digits[0][:200], None
    weights = {
        train(name, part, workers=1, strategy=strategy, epochs=1, update_options=STATEFUL)[0].weights.tobytes()
        for strategy, s in STRATEGIES.items()
        if s.equals_sequential
    }
    assert len(weights) == 1


@pytest.mark.parametrize("name", UPDATES)
def test_resumed_is_uninterrupted(digits, tmp_path, name):
    part = digits[0][:300], None
    options = STATEFUL | ({"dampening": 0.1} if name == "momentum" else {})
    whole, _ = train(name, part, epochs=4, update_options=options)
    train(name, part, epochs=2, update_options=options, run_dir=tmp_path)
    net, run = train(name, part, epochs=4, update_options=options, run_dir=tmp_path, resume=True, seed=9)
    assert net.weights.tobytes() == whole.weights.tobytes() and len(run.history) == 4
    tensors, _ = read_tensors(tmp_path / MODEL)
    extra = {key for key in tensors if key.startswith(STATE)}
    parameters = list(net.state_dict())
    assert extra == (
        {f"{STATE}{m}.{p}" for m in UPDATES[name].state for p in parameters} | {f"{STATE}versions"}
        if UPDATES[name].state
        else set()
    )
    for m in UPDATES[name].state:
        assert all(tensors[f"{STATE}{m}.{p}"].shape == net.state_dict()[p].shape for p in parameters)
    # the file is a network as any other
    assert (chaos.load(tmp_path / MODEL).weights == net.weights).all()
    other = chaos.models.small(seed=3)
    other.load_state_dict(tensors)
    assert (other.weights == net.weights).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_one_worker_resumes_under_every_strategy(digits, tmp_path, name, strategy):
    part, how = (digits[0][:200], None), dict(workers=1, strategy=strategy, batch_size=8, update_options=STATEFUL)
    whole, _ = train(name, part, epochs=3, **how)
    train(name, part, epochs=1, run_dir=tmp_path, **how)
    assert train(name, part, epochs=3, run_dir=tmp_path, resume=True, **how)[0].weights.tobytes() == whole.weights.tobytes()


def test_interrupted_in_mid_epoch(digits, tmp_path):
    data = chaos.data.Dataset(np.tile(digits[0].images, (8, 1, 1, 1)), np.tile(digits[0].labels, 8)), None
    whole, _ = train("adam", data, epochs=1)
    timer = threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):  # a fast machine may have trained before the signal comes
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            train("adam", data, epochs=1, run_dir=tmp_path / "run")
    net, _ = train("adam", data, epochs=1, run_dir=tmp_path / "run", resume=True)
    assert net.weights.tobytes() == whole.weights.tobytes()


def test_damaged_state_is_refused(digits, tmp_path):
    part = digits[0][:50], None
    train("adam", part, epochs=1, run_dir=tmp_path)
    tensors, metadata = read_tensors(tmp_path / MODEL)
    first = f"{STATE}exp_avg.{next(iter(chaos.models.small().state_dict()))}"
    for damage, words in (
        ({first: None}, "missing .*exp_avg"),
        ({first: tensors[first][:1]}, "shape"),
        ({first: tensors[first] * np.float32(np.nan)}, "finite"),
        ({STATE + "x": tensors[first]}, "unknown"),
        ({f"{STATE}versions": tensors[f"{STATE}versions"][:1]}, "versions"),
    ):
        write_tensors(tmp_path / MODEL, {k: v for k, v in (tensors | damage).items() if v is not None}, metadata)
        with pytest.raises(chaos.CheckpointError, match=words):
            train("adam", part, epochs=2, run_dir=tmp_path, resume=True)


def test_settings_are_the_run(digits, tmp_path):
    part = digits[0][:50], None
    train(
        "momentum",
        part,
        epochs=1,
        run_dir=tmp_path,
        update_options=dict(momentum=0.5),
        lr_schedule="cosine",
        schedule_options=dict(t_max=5),
    )
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["update"] == "momentum" and config["update_options"]["momentum"] == 0.5
    assert config["lr_schedule"] == "cosine" and config["schedule_options"] == {"warmup": 0, "t_max": 5, "eta_min": 0.0}
    same = dict(run_dir=tmp_path, resume=True, epochs=1)
    for other, word in (
        (dict(update_options=dict(momentum=0.6)), "update_options"),
        (dict(update_options=dict(momentum=0.5), lr_schedule="step"), "lr_schedule"),
        (dict(update_options=dict(momentum=0.5), lr_schedule="cosine"), r"schedule_options t_max \(5"),
    ):
        with pytest.raises(chaos.CheckpointError, match=word) as caught:
            train("momentum", part, **same, **other)
        assert "dampening" not in str(caught.value), "what agrees need not be read"


def test_run_of_a_version_without_schedules_goes_on(digits, tmp_path):
    part = digits[0][:50], None
    whole, _ = train("sgd", part, epochs=2)
    train("sgd", part, epochs=1, run_dir=tmp_path)
    tensors, metadata = read_tensors(tmp_path / MODEL)
    training = json.loads(metadata["training"])
    for key in ("lr_schedule", "schedule_options", "update_options", "strategy_options"):
        del training["identity"][key]
    write_tensors(tmp_path / MODEL, tensors, metadata | {"training": json.dumps(training)})
    assert train("sgd", part, epochs=2, run_dir=tmp_path, resume=True)[0].weights.tobytes() == whole.weights.tobytes()


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("sgd", dict(momentum=0.9), "'sgd' has no option 'momentum'"),
        ("momentum", dict(momentum=1.5), "at most 1"),
        ("momentum", dict(momentum=-0.1), "at least 0"),
        ("adam", dict(beta1=1.0), "beta1"),
        ("adam", dict(eps=0.0), "eps"),
        ("adam", dict(beta2=float("nan")), "beta2"),
        ("nesterov", dict(momentum=0), "option momentum of update rule 'nesterov' must be a number of more than 0"),
        ("rmsprop", dict(centered=1), "True or False"),
        ("sgd", dict(weight_decay=-1), "weight_decay"),
        ("sgd", dict(clip_norm=0), "clip_norm"),
        ("sgd", dict(max_norm=-2), "max_norm"),
        ("adagrad", dict(lr_decay=-1), "lr_decay"),
        ("sgd", dict(l1="x"), "l1"),
    ],
)
def test_bad_options(digits, name, options, words):
    with pytest.raises(ValueError, match=words):
        train(name, (digits[0][:20], None), update_options=options)


def test_options_of_a_command_line():
    parse = UPDATES["rmsprop"].parse
    assert parse(["centered=yes", "weight-decay=0.1", "clip_norm=none"]) == {
        "centered": True,
        "weight_decay": 0.1,
        "clip_norm": None,
    }
    for text in ("centered=1", "alpha=much", "speed=3"):
        with pytest.raises(ValueError, match=text.split("=")[0]):
            parse([text])


def test_command_line(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = ["train", "small", "--data", "digits", "--subset", "50", "--strategy", "sequential", "--epochs", "2"]
    assert (
        main(
            [
                *common,
                "--run-dir",
                "a",
                "--update",
                "momentum",
                "--momentum",
                "0.8",
                "--weight-decay",
                "1e-4",
                "--update-option",
                "max-norm=3",
                "--lr-schedule",
                "step",
                "--schedule-option",
                "step_size=1",
                "--schedule-option",
                "warmup=1",
            ]
        )
        == 0
    )
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    options = config["update_options"]
    assert (options["momentum"], options["weight_decay"], options["max_norm"]) == (0.8, 1e-4, 3)
    assert config["schedule_options"] == {"step_size": 1, "warmup": 1}
    # what is not given again stays
    assert main(["train", "--resume", "--run-dir", "a", "--epochs", "3", "--momentum", "0.8"]) == 0
    capsys.readouterr()
    for arguments, words in (
        (["--momentum", "0.7"], "update_options momentum (0.8 there, 0.7 now)"),
        (["--update", "adam", "--momentum", "0.7"], "'adam' has no option 'momentum'"),
        (["--schedule-option", "step_size=x"], "step_size"),
        (["--momentum", "2"], "at most 1"),
    ):
        assert main(["train", "--resume", "--run-dir", "a", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1


# ---- momentum for asynchrony ----


@pytest.mark.parametrize(
    "momentum, workers, wanted",
    [(0.9, 1, 0.9), (0.9, 2, 8 / 9), (0.9, 4, 6 / 7), (0.9, 10, 0), (0.5, 2, 0), (0, 3, 0), (0.99, 8, 92 / 93), (1, 8, 1)],
)
def test_corrected_momentum(momentum, workers, wanted):
    assert abs(corrected(momentum, workers) - wanted) < 1e-12
    for name in ("momentum", "nesterov") if momentum else ("momentum",):  # nesterov is nothing without
        rule = UPDATES[name]
        options = rule.resolve(dict(momentum=momentum, correct_asynchrony=True))
        assert abs(rule.core_options(rule.for_workers(options, workers))[len(rule.common)] - wanted) < 1e-12
        assert rule.for_workers(rule.resolve(dict(momentum=momentum)), workers)["momentum"] == momentum


def test_dampening_counts_where_momentum_was_asked_for():
    """Also where nothing of the momentum is left beside that of asynchrony."""
    rule = UPDATES["momentum"]

    def numbers(workers, **options):
        return rule.core_options(rule.for_workers(rule.resolve(options), workers))[len(rule.common) :]

    assert numbers(1, momentum=0.0, dampening=0.3) == numbers(5, momentum=0.0, dampening=0.3) == [0.0, 0.0]
    assert numbers(1, momentum=0.5, dampening=0.3) == [0.5, 0.3]
    assert numbers(5, momentum=0.5, dampening=0.3, correct_asynchrony=True) == [0.0, 0.3]
    assert numbers(5, momentum=0.0, dampening=0.3, correct_asynchrony=True) == [0.0, 0.0]


def test_without_momentum_it_is_sgd(digits):
    """To the last bit, whatever the dampening."""
    train_set = digits[0][:40]
    found = [
        train(name, (train_set, None), lr=0.01, update_options=options)[0].weights.tobytes()
        for name, options in (("sgd", {}), ("momentum", dict(momentum=0.0, dampening=0.3)))
    ]
    assert found[0] == found[1]


def test_mean_delays_add_up():
    """What the formula rests on: a gradient passed through the averages of asynchrony and of momentum one after the other
    arrives with the sum of their mean delays."""

    def response(m):
        return (1 - m) * m ** np.arange(2000)

    for momentum, workers in ((0.9, 3), (0.95, 8)):
        both = np.convolve(response(corrected(momentum, workers)), response(1 - 1 / workers))
        assert abs(both @ np.arange(len(both)) - momentum / (1 - momentum)) < 1e-9


# ---- schedules ----


def rates(name, epochs, lr=0.1, decay=0.5, **options):
    schedule = SCHEDULES[name]
    options = schedule.settle(schedule.resolve(options), epochs)
    return [schedule.rate(lr, decay, e, **options) for e in range(1, epochs + 1)]


@pytest.mark.parametrize(
    "name, options, wanted",
    [
        ("constant", {}, [0.1] * 5),
        ("exponential", {}, [0.1, 0.05, 0.025, 0.0125, 0.00625]),
        ("step", dict(step_size=2), [0.1, 0.1, 0.05, 0.05, 0.025]),
        ("cosine", dict(t_max=4, eta_min=1e-9), [0.1, 0.05 * (1 + 0.5**0.5), 0.05, 0.05 * (1 - 0.5**0.5), 1e-9]),
        ("cosine", dict(t_max=2, eta_min=0.02), [0.1, 0.06, 0.02, 0.02, 0.02]),
        ("cosine", {}, [0.1 * (1 + np.cos(np.pi * e / 5)) / 2 for e in range(5)]),
        ("cosine", dict(warmup=1), [0.05, *(0.1 * (1 + np.cos(np.pi * e / 4)) / 2 for e in range(4))]),
        ("exponential", dict(warmup=2), [0.1 / 3, 0.2 / 3, 0.1, 0.05, 0.025]),
        ("constant", dict(warmup=9), [0.01, 0.02, 0.03, 0.04, 0.05]),
        ("step", dict(warmup=1, step_size=3), [0.05, 0.1, 0.1, 0.1, 0.05]),
        ("multistep", dict(milestones=[1, 3]), [0.1, 0.05, 0.05, 0.025, 0.025]),
        ("linear", dict(start_factor=0.5, total_iters=2), [0.05, 0.075, 0.1, 0.1, 0.1]),
        ("polynomial", {}, [0.1, 0.08, 0.06, 0.04, 0.02]),
        ("polynomial", dict(power=2, warmup=1), [0.05, 0.1, 0.05625, 0.025, 0.00625]),
        ("cosine_restarts", dict(t_0=2), [0.1, 0.05, 0.1, 0.05, 0.1]),
        ("one_cycle", dict(anneal="linear", pct_start=0.6, div_factor=10), [0.01, 0.055, 0.1, 0.0500005, 0.000001]),
        ("cyclic", dict(base=0.5, step_size_up=1, mode="triangular2"), [0.05, 0.1, 0.05, 0.075, 0.05]),
        ("plateau", dict(warmup=1), [0.05, 0.1, 0.1, 0.1, 0.1]),
    ],
)
def test_schedules(name, options, wanted):
    np.testing.assert_allclose(rates(name, 5, **options), wanted, rtol=1e-7)


@pytest.mark.parametrize(
    "name, theirs, options, given",
    [
        ("exponential", "ExponentialLR", {}, dict(gamma=0.5)),
        ("step", "StepLR", dict(step_size=3), dict(step_size=3, gamma=0.5)),
        ("multistep", "MultiStepLR", dict(milestones=[2, 3, 9]), dict(milestones=[2, 3, 9], gamma=0.5)),
        ("linear", "LinearLR", {}, {}),
        *(
            ("linear", "LinearLR", one, one)
            for one in [dict(start_factor=1.0, end_factor=0.1, total_iters=11), dict(start_factor=0.1, total_iters=12)]
        ),
        ("polynomial", "PolynomialLR", {}, dict(total_iters=12)),
        ("polynomial", "PolynomialLR", dict(total_iters=20, power=2.5), dict(total_iters=20, power=2.5)),
        ("cosine", "CosineAnnealingLR", dict(t_max=12, eta_min=0.01), dict(T_max=12, eta_min=0.01)),
        ("cosine_restarts", "CosineAnnealingWarmRestarts", dict(t_0=3, eta_min=0.01), dict(T_0=3, eta_min=0.01)),
        ("cosine_restarts", "CosineAnnealingWarmRestarts", dict(t_0=2, t_mult=2), dict(T_0=2, T_mult=2)),
        *(
            (
                "one_cycle",
                "OneCycleLR",
                {"anneal": one.get("anneal_strategy", "cos"), **{k: v for k, v in one.items() if k != "anneal_strategy"}},
                dict(max_lr=0.1, total_steps=12, cycle_momentum=False) | one,
            )
            for one in [
                {},
                dict(pct_start=0.4, div_factor=3.0, final_div_factor=7.0),
                dict(anneal_strategy="linear"),
                dict(three_phase=True),
                dict(pct_start=0.01),
            ]
        ),
        *(
            (
                "cyclic",
                "CyclicLR",
                {"base": 0.2, "step_size_up": 3} | one,
                dict(base_lr=0.02, max_lr=0.1, step_size_up=3, cycle_momentum=False) | one,
            )
            for one in [{}, dict(mode="triangular2"), dict(mode="exp_range", gamma=0.9), dict(step_size_down=1)]
        ),
    ],
)
def test_schedules_agree_with_pytorch(name, theirs, options, given):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = getattr(torch.optim.lr_scheduler, theirs)(optimizer, **given)
    found = rates(name, 12, **options)
    largest, _ = SCHEDULES[name].largest(0.1, 0.5, 12, **SCHEDULES[name].settle(SCHEDULES[name].resolve(options), 12))
    assert largest >= max(found) * (1 - 1e-12)
    for rate in found:
        assert abs(optimizer.param_groups[0]["lr"] - rate) < 1e-12
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(patience=0, cooldown=2),
        dict(patience=1, threshold=0.05),
        dict(patience=2, threshold=0.1, threshold_mode="abs"),
        dict(patience=0, min_lr=0.02),
    ],
)
@pytest.mark.parametrize("larger", [False, True])
def test_plateau_agrees_with_pytorch(options, larger):
    torch = pytest.importorskip("torch")
    values = 1.5 + np.random.default_rng(5).standard_normal(60).cumsum() * 0.1
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max" if larger else "min", factor=0.5, eps=0, **options
    )
    plateau = SCHEDULES["plateau"]
    ours = plateau.follow(0.1, 0.5, plateau.resolve(options))
    for value in np.abs(values):
        theirs.step(value)
        ours.note(-value if larger else value)
        rate = plateau.rate(0.1, 0.5, 1, factor=ours.factor, **plateau.resolve(options))
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert ours.factor < 1


def test_a_run_on_a_plateau_goes_on_as_if_it_had_not_been_stopped(digits, tmp_path):
    part = digits[0][:80], None
    options = dict(
        lr=0.2,
        lr_schedule="plateau",
        lr_decay=0.5,
        schedule_options=dict(patience=0),
        validation_data=digits[1][:40],
        batch_size=4,
    )
    whole, straight = train("sgd", part, epochs=8, **options)
    for epochs in (3, 5, 8):
        net, run = train("sgd", part, epochs=epochs, run_dir=tmp_path, resume=True, **options)
    found = [record["lr"] for record in run.history]
    assert found == [record["lr"] for record in straight.history] and found[-1] < 0.2
    assert net.weights.tobytes() == whole.weights.tobytes()


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "one_cycle"])
def test_a_schedule_that_spans_the_run_goes_on_with_more_epochs(digits, tmp_path, caplog, schedule):
    part = digits[0][:30], None
    train("sgd", part, epochs=4, lr_schedule=schedule, run_dir=tmp_path)
    _, run = train("sgd", part, epochs=8, lr_schedule=schedule, run_dir=tmp_path, resume=True)
    short, long = (rates(schedule, epochs, lr=0.01) for epochs in (4, 8))
    np.testing.assert_allclose([record["lr"] for record in run.history], short + long[4:])
    assert f"lr_schedule '{schedule}' spans all epochs, now 8: the learning rate of epoch 4 was" in caplog.text
    caplog.clear()
    train("sgd", part, epochs=8, lr_schedule=schedule, run_dir=tmp_path, resume=True)
    assert not caplog.text


def test_what_an_earlier_version_kept_of_a_span_is_no_difference(digits, tmp_path):
    """It kept t_max as if it had been asked for."""
    part, options = (digits[0][:30], None), dict(lr_schedule="cosine", run_dir=tmp_path)
    train("sgd", part, epochs=2, **options)
    tensors, metadata = read_tensors(tmp_path / MODEL)
    state = json.loads(metadata["training"])
    assert state["identity"]["schedule_options"]["t_max"] is None
    state["identity"]["schedule_options"]["t_max"] = 2
    write_tensors(tmp_path / MODEL, tensors, metadata | {"training": json.dumps(state)})
    with pytest.raises(chaos.CheckpointError, match=r"schedule_options t_max \(2 there, None now\)"):
        train("sgd", part, epochs=3, resume=True, **options)
    assert len(train("sgd", part, epochs=2, resume=True, **options)[1].history) == 2


def test_training_follows_the_schedule(digits):
    _, run = train(
        "sgd",
        (digits[0][:20], None),
        epochs=5,
        lr_decay=0.5,
        lr_schedule="step",
        schedule_options=dict(step_size=2, warmup=1),
    )
    np.testing.assert_allclose([r["lr"] for r in run.history], [0.005, 0.01, 0.01, 0.005, 0.005])


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(lr_schedule="sine"), "unknown learning-rate schedule 'sine'; did you mean cosine. known: exponential, step"),
        (dict(schedule_options=dict(step_size=2)), "'exponential' has no option 'step_size'"),
        (dict(schedule_options=dict(gamma=0.5)), "has no option 'gamma'; .*; the factor is lr_decay"),
        (dict(lr_schedule="step", schedule_options=dict(step_size=0)), "step_size"),
        (dict(schedule_options=dict(warmup=-1)), "warmup"),
        (dict(schedule_options=dict(warmup=1.5)), "warmup"),
        (dict(lr_decay=1e300, lr_schedule="step", epochs=50), "learning rate of"),
        (dict(lr_decay=1e30, epochs=3), "learning rate of"),
        (dict(lr_schedule="cosine", schedule_options=dict(t_max=2, warmup=1)), "0 from epoch 4 on"),
        (dict(lr_schedule="cosine", schedule_options=dict(eta_min=1e60)), "learning rate of"),
        (dict(lr_schedule="multistep"), "'multistep' needs milestones, whole numbers of epochs"),
        (dict(lr_schedule="multistep", schedule_options=dict(milestones=[1.5])), r"needs milestones.*not \[1.5\]"),
        (dict(lr_schedule="linear", schedule_options=dict(end_factor=0, total_iters=2)), "0 from epoch 3 on"),
        (dict(lr_schedule="polynomial", schedule_options=dict(total_iters=3)), "0 from epoch 4 on"),
        (dict(lr_schedule="one_cycle", schedule_options=dict(total_steps=3)), "ends with epoch 3, and the run has 4"),
        (dict(lr_schedule="one_cycle", epochs=2), "needs at least 3 epochs"),
        (dict(lr_schedule="step", schedule_options=dict(milestones=[1])), "multistep has it"),
        (dict(lr_schedule="step", schedule_options=dict(stepsize=1)), "did you mean step_size?"),
    ],
)
def test_bad_schedules(digits, options, words):
    with pytest.raises(ValueError, match=words):
        train("sgd", (digits[0][:20], None), **{"epochs": 4, **options})
