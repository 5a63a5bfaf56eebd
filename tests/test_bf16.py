"""precision="bf16": factors are rounded to bfloat16, sums are of float32. The unit in plain C is held to NumPy, on every
instruction set; AMX has the same bits."""

import json
import pickle

import numpy as np
import pytest
from nets import images

import chaos
from chaos import _core, precision
from chaos.layers.base import EVALUATION

PASSES = ("forward", "weight_gradient", "data_gradient")
ALL = ";".join(f"{kind}.{what}=bf16" for kind in ("conv2d", "linear") for what in PASSES)
needs_amx = pytest.mark.skipif(bool(_core.bf16_missing()), reason=f"needs AMX: {_core.bf16_missing()}")
UNITS = [pytest.param("plain", id="plain"), pytest.param("", id="amx", marks=needs_amx)]


def rounded(x):
    """bfloat16 by the bits: to nearest, ties to even; what is below the normal numbers is 0."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    up = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    small = bits & 0x7FFFFFFF < 0x00800000
    return np.where(small, bits & 0x80000000, up).astype(np.uint32).view(np.float32)


@pytest.fixture(params=UNITS)
def unit(request, monkeypatch):
    """Sets what multiplies, and asks for the loops of bf16 wherever they give the right result."""
    monkeypatch.setenv(precision.VARIABLE, request.param)
    before = _core.get_loops()
    _core.set_loops(ALL)
    yield request.param or "amx"
    _core.set_loops(before)


@pytest.fixture(params=_core.instruction_sets())
def plain(request, monkeypatch):
    """The unit in plain C, on each instruction set."""
    monkeypatch.setenv(precision.VARIABLE, precision.PLAIN)
    isa, loops = _core.get_isa(), _core.get_loops()
    _core.set_isa(request.param)
    _core.set_loops(ALL)
    yield
    _core.set_isa(isa)
    _core.set_loops(loops)


def loops_of(net, batch=1):
    return {row.name: row.loops for row in net.summary(batch).rows if row.layer in ("Linear", "Conv2d")}


def test_rounding(unit):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(3000, np.float32) * 2.0 ** rng.integers(-125, 125, 3000)
    bits = np.arange(0x3F800000, 0x3F840000, 0x1000, np.uint32)  # ties among them
    x = np.concatenate([x.astype(np.float32), bits.view(np.float32), np.float32([1e-40, -1e-40, 1.1754944e-38, 0, -0.0])])
    net = chaos.Network((1,), [chaos.Linear(1, bias=False)])
    net.load_state_dict({"0.weight": [[1.0]]})
    net.precision = "bf16"
    np.testing.assert_array_equal(net.forward(x[:, None])[:, 0], rounded(x))


def definition(net, x, target):
    """(outputs, gradients) by the layers' own definitions in float64, of factors that are rounded; loss: mse."""
    state = {name: value.astype(float) for name, value in net.state_dict().items()}
    values, nodes = {}, net.nodes()

    def seen(node):
        a = [values[source] for source in node.inputs]
        own = {p: state[node.layer.part_name(net.part_owner(node), p)] for p in node.layer.part_names}
        if node.layer.kind in ("linear", "conv2d"):
            a, own = [rounded(v).astype(float) for v in a], {**own, "weight": rounded(own["weight"]).astype(float)}
        return a, own

    for node, _ in nodes:
        values[node] = x.astype(float) if node.layer is None else node.layer.forward(*seen(node), EVALUATION)
    end = nodes[-1][0]
    deltas, gradients = {end: 2 * (values[end] - target) / target.size}, {}
    for node, name in reversed(nodes):
        if node.layer is None:
            continue
        a, own = seen(node)
        dy = deltas[node]
        narrow = rounded(dy).astype(float) if own else dy
        into, of = node.layer.backward(a, own, values[node], narrow, EVALUATION)
        if "bias" in of:  # a plain sum
            of["bias"] = node.layer.backward(a, own, values[node], dy, EVALUATION)[1]["bias"]
        gradients |= {f"{name}.{part}": g for part, g in of.items()}
        for source, delta in zip(node.inputs, into, strict=True):
            deltas[source] = deltas.get(source, 0) + delta
    return values[end], gradients


C = chaos.Conv2d
CHAINS = {
    "linear": (16, (37,), [chaos.Linear(45), chaos.Linear(32)]),
    "linear, many samples": (128, (70,), [chaos.Linear(33), chaos.Linear(16)]),
    "conv": (2, (3, 9, 11), [C(17, 3), C(8, 2), chaos.Flatten(), chaos.Linear(32)]),
    "padding": (4, (5, 8, 8), [C(20, 3, padding=1), C(16, 5, padding=2), chaos.Flatten(), chaos.Linear(16)]),
    "stride": (2, (4, 11, 10), [C(18, 3, stride=2, padding=1), C(33, 2, stride=(1, 3)), chaos.Flatten(), chaos.Linear(8)]),
    "dilation": (2, (3, 12, 9), [C(16, 3, dilation=2), C(8, (3, 1), padding=(1, 0)), chaos.Flatten(), chaos.Linear(4)]),
    "one by one": (4, (33, 5, 4), [C(19, 1), C(16, 1, stride=2), chaos.Flatten(), chaos.Linear(4)]),
    "circular": (2, (4, 8, 8), [C(16, 3, padding=1, padding_mode="circular"), C(8, 3), chaos.Flatten(), chaos.Linear(8)]),
    "behind pooling": (
        2,
        (2, 13, 13),
        [C(16, 3), chaos.MaxPool2d(2), C(20, 2, padding=1), chaos.MaxPool2d((3, 2)), chaos.Flatten(), chaos.Linear(8)],
    ),
}


def whole_numbers(net, rng, most):
    """Weights of which those of the first layer need rounding, the others are small."""
    state = {}
    for i, (name, value) in enumerate(net.state_dict().items()):
        state[name] = rng.integers(-most if i < 2 else -1, (most if i < 2 else 1) + 1, value.shape).astype(np.float32)
    net.load_state_dict(state)


def check_chain(chain):
    """Bit for bit: all numbers are whole ones, and sums so small that none of them is rounded, in whatever order."""
    n, shape, layers = CHAINS[chain]
    rng = np.random.default_rng(1)
    net = chaos.Network(shape, layers)
    whole_numbers(net, rng, 400)
    x = rng.integers(-1, 2, (n, *shape)).astype(np.float32)
    net.precision = "bf16"
    out = net.forward(x)
    zeros = np.zeros_like(out)
    outputs, _ = definition(net, x, zeros)
    np.testing.assert_array_equal(out, outputs)
    target = outputs - rng.integers(-2, 3, out.shape)
    _, gradients = definition(net, x, target)
    loops = loops_of(net, n)
    assert {loop for of in loops.values() for loop in of.values()} <= {"bf16", "left to the update"}, loops
    _, found = net.loss_and_gradients(x, target.astype(np.float32), "mse")
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(found[name], gradient, name)
    assert any(np.any(rounded(v) != v) for v in net.state_dict().values())


@pytest.mark.parametrize("chain", CHAINS)
def test_whole_numbers(unit, chain):
    check_chain(chain)


@pytest.mark.parametrize("chain", ["linear", "padding", "stride", "behind pooling"])
def test_whole_numbers_on_every_instruction_set(plain, chain):
    check_chain(chain)


@pytest.mark.parametrize("layer", [chaos.Linear(40), C(24, 3, padding=1)], ids=["linear", "conv2d"])
def test_error_bound(unit, layer):
    """A sum of n products, exact as factors have 8 bits, is off by at most n roundings to 24 bits of the sum of sizes; the
    bias and the two halves of a block are one more each."""
    shape = (200,) if layer.kind == "linear" else (13, 9, 9)
    net = chaos.Network(shape, [layer, *[chaos.Flatten()] * (len(shape) > 1)])
    x, _ = images(4, shape, 3)
    net.precision = "bf16"
    w, b = rounded(net.state_dict()["0.weight"]).astype(float), net.state_dict()["0.bias"].astype(float)
    a = rounded(x).astype(float)
    exact = layer.forward([a], {"weight": w, "bias": b}, EVALUATION).reshape(4, -1)
    sizes = layer.forward([abs(a)], {"weight": abs(w), "bias": abs(b)}, EVALUATION).reshape(4, -1)
    off = np.abs(net.forward(x) - exact)
    assert (off <= (w[0].size + 3) * 2.0**-24 * sizes).all()
    assert off.max() > 0
    net.precision = "float32"
    assert np.abs(net.forward(x) - exact).max() > 2.0**-12 * np.abs(exact).max()  # factors were rounded


def pictures(n=96):
    train, test = chaos.data.load("digits", size=14)
    return train[:n], test[:40]


def network(seed=0):
    layers = [C(16, 3, padding=1), chaos.ReLU(), C(32, 3), chaos.Tanh(), chaos.MaxPool2d(2), C(32, 3), chaos.ReLU()]
    return chaos.Network(
        (1, 14, 14), [*layers, chaos.Flatten(), chaos.Linear(40), chaos.ReLU(), chaos.Linear(10)], seed=seed
    )


def train(net, **options):
    data = pictures()
    asked = {"epochs": 2, "lr": 0.01, "batch_size": 8, "workers": 1, "precision": "bf16", "progress": False}
    return chaos.train(net, *data, **(asked | options))


@pytest.fixture
def plain_unit(monkeypatch):
    monkeypatch.setenv(precision.VARIABLE, precision.PLAIN)


@needs_amx
def test_units_have_the_same_bits(monkeypatch):
    found = []
    for asked in ("plain", ""):
        monkeypatch.setenv(precision.VARIABLE, asked)
        train(net := network())
        found.append(net.weights.copy())
    np.testing.assert_array_equal(*found)


def test_one_worker_is_sequential(plain_unit):
    nets = [network(), network(), network()]
    train(nets[0], strategy="sequential")
    train(nets[1], strategy="chaos")
    train(nets[2], strategy="sequential", precision="float32")
    np.testing.assert_array_equal(nets[0].weights, nets[1].weights)
    assert (nets[0].weights != nets[2].weights).any()
    assert nets[0].precision == "bf16" and nets[2].precision == "float32"


def test_a_run_keeps_it(plain_unit, tmp_path):
    train(whole := network())
    train(network(), epochs=1, run_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "bf16"
    with pytest.raises(ValueError, match=r"precision \('bf16' there, 'float32' now\)"):
        train(network(), run_dir=tmp_path / "run", resume=True, precision="float32")
    train(net := network(), run_dir=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(net.weights, whole.weights)


def test_is_learnt_with(plain_unit):
    run = train(network(), epochs=8, lr=0.05)
    assert run.history[-1]["train_error"] < run.history[0]["train_error"]


def test_is_a_choice_of_a_network(plain_unit):
    net, (x, _) = network(), images(16, (1, 14, 14))
    before = net.forward(x)
    net.precision = "bf16"
    there = pickle.loads(pickle.dumps(net))
    assert there.precision == "bf16"
    narrow = net.forward(x)
    assert (narrow != before).any() and np.abs(narrow - before).max() < 0.02
    np.testing.assert_array_equal(there.forward(x), narrow)
    assert "bf16" in str(net.summary(16))
    net.precision = "float32"
    np.testing.assert_array_equal(net.forward(x), before)
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, not 'half'"):
        net.precision = "half"


def test_only_where_it_is_faster(plain_unit):
    net = network()
    net.precision = "bf16"
    assert all("bf16" not in loop for loop in loops_of(net, 8)["0"].values())  # an image of one channel
    assert set(loops_of(net, 8)["2"].values()) == {"bf16"}
    net = chaos.Network((784,), [chaos.Linear(256), chaos.ReLU(), chaos.Linear(10)])
    net.precision = "bf16"
    assert "bf16" not in loops_of(net, 1)["0"].values()
    assert set(loops_of(net, 64)["0"].values()) == {"bf16"}


def test_a_processor_without(monkeypatch, capsys):
    monkeypatch.delenv(precision.VARIABLE, raising=False)
    monkeypatch.setattr(_core, "bf16_units", lambda: ("plain",))
    monkeypatch.setattr(_core, "bf16_missing", lambda: "the processor has AVX512_BF16 alone, not AMX_BF16")
    net = network()
    with pytest.raises(chaos.UnsupportedError, match=r"needs a processor with AMX_BF16.*has AVX512_BF16 alone"):
        train(net)
    with pytest.raises(chaos.UnsupportedError):
        net.precision = "bf16"
    assert net.precision == "float32" and np.isfinite(net.forward(images(1, (1, 14, 14))[0])).all()
    monkeypatch.setenv(precision.VARIABLE, "fast")
    with pytest.raises(ValueError, match="CHAOS_BF16='fast'"):
        net.precision = "bf16"


def test_an_instruction_set_below_has_none():
    before = _core.get_isa()
    _core.set_isa("generic")
    try:
        assert _core.bf16_units() == ("plain",) and _core.bf16_missing()
        with pytest.raises(ValueError, match="no unit 'amx'"):
            _core.Plan("amx")
    finally:
        _core.set_isa(before)


def test_doctor_tells(monkeypatch, capsys):
    from chaos.cli import doctor

    monkeypatch.setenv(precision.VARIABLE, precision.PLAIN)
    assert chaos.info()["bf16"] == "plain"
    assert "same bits as AMX" in doctor._bf16("plain").text
    assert "AMX" in doctor._bf16("amx").text
    assert doctor._bf16("").text.startswith("not here")


def test_command_line(plain_unit, tmp_path, capsys):
    from chaos.cli import main

    run = tmp_path / "run"
    main(["train", "small", "--data", "digits", "--subset", "50", "--epochs", "1", "--workers", "1", "--batch-size", "8",
          "--precision", "bf16", "--quiet", "--run-dir", str(run)])  # fmt: skip
    assert json.loads((run / "config.json").read_text())["precision"] == "bf16"
    capsys.readouterr()
    main(["evaluate", str(run), "--data", "digits", "--precision", "bf16", "--json"])
    assert 0 <= json.loads(capsys.readouterr().out)["error"] <= 1
