"""Networks: the paper's counts, names, graphs, state dicts, files, errors."""

import json
import pickle
import resource
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
from nets import close, graph, images

import chaos
from chaos import reference
from chaos.formats import write_tensors
from chaos.layers import LAYERS
from chaos.layers.examples import Picker
from chaos.places import Place


@pytest.mark.parametrize(
    "make, parameters, macs",
    [
        (chaos.models.small, 6_405, 160_330),
        (chaos.models.medium, 76_040, 1_891_820),
        (chaos.models.large, 383_160, 22_648_820),
    ],
)
def test_the_papers_counts(make, parameters, macs):
    net = make()
    assert net.n_parameters == parameters == sum(v.size for v in net.state_dict().values())
    assert net.macs()["forward"] == macs and net.macs()["weight_gradient"] == macs
    assert net.input_shape == (1, 29, 29) and net.output_shape == (10,)


def test_names_and_shapes_are_pytorchs():
    state = chaos.models.small().state_dict()
    assert {k: v.shape for k, v in state.items()} == {
        "0.weight": (5, 1, 4, 4),
        "0.bias": (5,),
        "3.weight": (10, 5, 5, 5),
        "3.bias": (10,),
        "7.weight": (50, 90),
        "7.bias": (50,),
        "9.weight": (10, 50),
        "9.bias": (10,),
    }
    assert "stem.weight" in graph().state_dict()
    for key, value in state.items():
        bound = 1 / np.sqrt(np.prod(state[key.replace("bias", "weight")].shape[1:]))
        assert np.abs(value).max() <= bound and value.dtype == np.float32


def test_seed_decides_the_initial_weights():
    one, same, other = chaos.models.small(seed=7), chaos.models.small(seed=7), chaos.models.small(seed=8)
    assert (one.weights == same.weights).all() and (one.weights != other.weights).any()


def test_layout_does_not_depend_on_the_instruction_set(isa):
    net = graph(seed=1)
    state = net.state_dict()
    padding = np.ones(len(net.weights), bool)
    for place in net._places.values():
        assert padding[place.index].all()
        padding[place.index] = False
    assert not net.weights[padding].any(), "padding starts at zero"
    x, y = images(5, net.input_shape, classes=5)
    chaos.train(net, chaos.data.Dataset(x, y), epochs=1, workers=2, lr=0.1, progress=False)
    assert not net.weights[padding].any(), "and stays there"
    net.load_state_dict(state)
    assert all((net.state_dict()[k] == v).all() for k, v in state.items())


@pytest.mark.parametrize("kind", [kind for kind, layer in LAYERS.items() if layer.part_names])
def test_strides_and_positions_agree(kind, isa):
    """Of every part: what its strides say is what the core says of each number, there and back."""
    pick, regular = Picker(np.random.default_rng(3)), 0
    for _ in range(8):
        layer, shapes = LAYERS[kind].example(pick)
        sources = [chaos.Input(shape) for shape in shapes]
        net = chaos.Network(sources, layer(*sources))
        (node,) = (i for i, (node, _) in enumerate(net.nodes()) if node.layer)
        for name, part in layer.parts(*shapes).items():
            at = np.empty(np.prod(part.shape, dtype=int), np.int64)
            net.plan.positions(node, name, at)
            place = Place(net.plan, node, name, part.shape)
            regular += place._index is None
            np.testing.assert_array_equal(place.index, at)
            vector = np.arange(len(net.weights), dtype=np.float32)
            np.testing.assert_array_equal(place.take(vector), at.reshape(part.shape))
            place.put(vector, -at.reshape(part.shape).astype(np.float32))
            assert (vector[at] == -at).all() and (np.delete(vector, at) >= 0).all()
    assert regular or kind == "locally_connected2d"


def test_without_a_seed_nothing_is_drawn():
    layers = [chaos.Conv2d(3, 3), chaos.BatchNorm2d(), chaos.Flatten(), chaos.Linear(4)]
    state = chaos.Network((1, 8, 8), layers, seed=None).state_dict()
    assert {name for name, value in state.items() if value.any()} == {"1.weight", "1.running_var"}


def test_state_dict_is_checked():
    net = chaos.models.small()
    state = net.state_dict()
    before = net.weights.copy()
    for change, word in (
        ({"0.weight": None}, "missing"),
        ({"0.weights": state["0.weight"]}, "unknown"),
        ({"0.weight": state["0.weight"][:4]}, r"\(4, 1, 4, 4\)"),
        ({"9.bias": np.full(10, np.inf)}, "NaN or infinity"),
        ({"9.bias": np.full(10, 1e300)}, "9.bias holds NaN or infinity"),
        ({"9.bias": np.zeros(10) + 1j}, "9.bias: dtype is complex128"),
        ({"9.bias": list("0123456789")}, "9.bias: dtype is <U1"),
        ({"9.bias": np.zeros(10, bool)}, "9.bias: dtype is bool"),
        ({"9.bias": [[1], [2, 3]]}, "9.bias: not an array of numbers"),
        ({3: 1.0}, "unknown"),
    ):
        bad = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(chaos.CheckpointError, match=word):
            net.load_state_dict(bad)
        assert (net.weights == before).all()
    for bad in (None, 3, list(state.values())):
        with pytest.raises(chaos.CheckpointError, match="must be a dict of names and arrays, not"):
            net.load_state_dict(bad)


def test_tensors_of_pytorch_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    net = chaos.Network((4,), [chaos.Linear(3)])
    state = {name: torch.tensor(value).bfloat16() for name, value in net.state_dict().items()}
    for change in (lambda t: t, lambda t: torch.nn.Parameter(t.float()), lambda t: t.double().requires_grad_()):
        net.load_state_dict({name: change(value) for name, value in state.items()})
        for name, value in net.state_dict().items():
            assert (value == state[name].float().numpy()).all()


BAD_NUMBERS = {
    "complex": np.ones(3) * (1 + 1j),
    "text": ["1", "2", "3"],
    "bytes": np.array([b"1"] * 3),
    "bool": [True, False, True],
    "object": [None] * 3,
    "ragged": [[1], [2, 3]],
    "masked": np.ma.masked_equal(np.arange(3.0), 1),
    "times": np.arange(3).astype("m8[s]"),
    "too large": [1e39, 0, 0],
}


def columns(bad, n):
    """`bad` as a row of n numbers for each of its entries."""
    if isinstance(bad, np.ma.MaskedArray):
        return np.ma.stack([bad] * n, 1)
    return bad if any(isinstance(one, list) for one in bad) else [[one] * n for one in bad]


@pytest.mark.parametrize("case", BAD_NUMBERS)
def test_what_is_no_real_number_is_refused_by_name(case):
    """Nothing is lost in silence, wherever arrays are taken."""
    net, bad = chaos.Network((4,), [chaos.Linear(3)]), BAD_NUMBERS[case]
    state, before, x = net.state_dict(), net.weights.copy(), np.zeros((3, 4), np.float32)
    with pytest.raises(chaos.CheckpointError, match=r"parameter 0\.bias"):
        net.load_state_dict({**state, "0.bias": bad})
    assert (net.weights == before).all()
    with pytest.raises(chaos.DataError, match="images"):
        net.forward(columns(bad, 4))
    with pytest.raises(chaos.DataError, match="labels|takes integers"):
        net.loss_and_gradients(x, bad)
    with pytest.raises(chaos.DataError, match="sample weights"):
        net.loss_and_gradients(x, [0, 1, 2], sample_weight=bad)
    with pytest.raises(chaos.DataError, match="labels|targets"):
        net.loss_and_gradients(x, columns(bad, 3), "mse")


def test_what_is_no_state_dict():
    net = chaos.Network((4,), [chaos.Linear(3)])
    state = net.state_dict()
    for bad, words in (
        (None, "must be a dict of names and arrays, not NoneType"),
        ([1, 2], "not list"),
        ({**state, 3: 1.0}, r"unknown \[3\]"),
        ({**state, 3: 1.0, "x": 2.0, None: 3.0}, r"unknown \[3, None, 'x'\]"),
    ):
        with pytest.raises(chaos.CheckpointError, match=words):
            net.load_state_dict(bad)


def test_weights_of_torch():
    torch = pytest.importorskip("torch")
    net = chaos.Network((4,), [chaos.Linear(3)])
    state = {name: torch.nn.Parameter(torch.tensor(value).bfloat16().float()) for name, value in net.state_dict().items()}
    for kind in (lambda t: t, lambda t: t.detach().bfloat16(), lambda t: t.double()):
        net.load_state_dict({name: kind(value) for name, value in state.items()})
        assert all((net.state_dict()[name] == value.detach().numpy()).all() for name, value in state.items())
    assert net.forward(torch.ones(2, 4, requires_grad=True)).shape == (2, 3)


@pytest.mark.parametrize("make", [chaos.models.medium, graph])
def test_files(tmp_path, make):
    net = make(seed=3)
    net.save(tmp_path / "m.safetensors", {"note": "mine"})
    again = chaos.load(tmp_path / "m.safetensors")
    assert again.config() == net.config() and (again.weights == net.weights).all()
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"], "no temporary file stays"
    x, _ = images(4, net.input_shape)
    assert (again.forward(x) == net.forward(x)).all()
    copy = pickle.loads(pickle.dumps(net))
    assert (copy.forward(x) == net.forward(x)).all()


def test_damaged_files(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(chaos.CheckpointError, match="no such file"):
        chaos.load(path)
    chaos.models.small().save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        bad = bytearray(whole)
        for at in rng.integers(0, 1500, 3):
            bad[at] = rng.integers(256)
        path.write_bytes(bytes(bad[: rng.integers(len(bad))] if rng.random() < 0.5 else bad))
        try:
            assert chaos.load(path).n_parameters
        except chaos.CheckpointError as error:
            refused += 1
            assert "m.safetensors" in str(error)
    assert refused > 200
    config = chaos.models.small().config()
    for network in (
        {**config, "layers": [{"kind": "warp", "inputs": [0]}]},
        {**config, "input": [1, 0, 3]},
        {},
        [],
        "x",
        {**config, "layers": [{"kind": "linear", "inputs": [5], "out_features": 3}]},
    ):
        write_tensors(path, {"a": np.zeros(3)}, {"format": "chaos-1", "network": json.dumps(network)})
        with pytest.raises(chaos.CheckpointError, match=r"m\.safetensors"):
            chaos.load(path)
    write_tensors(path, {"a": np.zeros(3)}, {})
    with pytest.raises(chaos.CheckpointError, match="no chaos network"):
        chaos.load(path)


def test_descriptions_that_ask_for_more_than_the_file_holds(tmp_path):
    """Nothing of that size is made."""
    path, config = tmp_path / "m.safetensors", chaos.Network((4,), [chaos.Linear(3)]).config()
    (layer,) = config["layers"]
    many = [{"kind": "relu", "inputs": [i]} for i in range(20_000)]
    for network, words in (
        ({**config, "layers": [{**layer, "out_features": 2**29}]}, "2,684,354,560 parameters, the file 3 values"),
        ({**config, "layers": many}, "do not fit"),
        ({**config, "input": [float("inf")]}, "shape must be"),
        ({**config, "input": [2**31]}, "an input has shape"),
        ({**config, "layers": [{**layer, "out_features": 2**31}]}, "the output of Linear"),
    ):
        write_tensors(path, {"a": np.zeros(3, np.float32)}, {"format": "chaos-1", "network": json.dumps(network)})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(chaos.CheckpointError, match=words):
            chaos.load(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    for text in ("[" * 100_000, "{", ""):
        write_tensors(path, {"a": np.zeros(3)}, {"format": "chaos-1", "network": text})
        with pytest.raises(chaos.CheckpointError, match=r"m\.safetensors"):
            chaos.load(path)


def test_shapes_that_the_core_cannot_count():
    with pytest.raises(ValueError, match=r"an input has shape \(1073741824, 1073741824, 1073741824\)"):
        chaos.Network((2**30,) * 3, [chaos.Flatten()])
    x = chaos.Input((1, 1, 2**20))
    with pytest.raises(ValueError, match=r"the output of Conv2d.* has shape .* at most 2,147,483,647 work"):
        chaos.Conv2d(4096, 1)(x)
    with pytest.raises(ValueError, match="1 to 16"):
        chaos.Add()(*[chaos.Input((1,))] * 17)


def test_copies_of_networks_that_have_diverged():
    net = chaos.Network((4,), [chaos.Linear(3)])
    net.weights[net.weights != 0] = np.nan
    for copy in (deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(copy.state_dict()["0.weight"], np.full((3, 4), np.nan, np.float32))


PREDICTS = """
import resource, numpy as np, chaos
layers = [chaos.Conv2d(8, 3), chaos.ReLU(), chaos.MaxPool2d(500), chaos.Flatten(), chaos.Linear(2)]
net = chaos.Network((1, 1000, 1000), layers)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
net.forward(np.zeros((1, 1, 1000, 1000), np.uint8))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


def test_predicting_needs_no_memory_for_what_it_does_not_use():
    """One image: neither room for the other images of a chunk, nor for back-propagation."""
    values = 4 * (1000**2 + 2 * 8 * 998**2)
    done = subprocess.run([sys.executable, "-c", PREDICTS], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 2 * values


def test_using_a_network():
    net = chaos.models.small()
    x, _ = images(6, net.input_shape)
    y = net.forward(x)
    assert y.shape == (6, 10) and y.dtype == np.float32
    assert (net.predict(x) == y.argmax(1)).all()
    np.testing.assert_allclose(net.predict_proba(x).sum(1), 1, rtol=1e-6)
    assert net.forward(x[:0]).shape == (0, 10)
    assert (net.forward(x.astype(np.float64)) == y).all()
    assert (net.forward(np.asfortranarray(x)) == y).all()
    for bad, word in (
        (x[:, :, :5], r"\(6, 1, 5, 29\)"),
        (x[0, 0], r"\(29, 29\)"),
        (x.astype(complex), "numbers"),
        (np.full_like(x, np.nan), "NaN"),
        (x.astype(str), "numbers"),
    ):
        with pytest.raises(chaos.DataError, match=word):
            net.forward(bad)
    with pytest.raises(chaos.DataError, match="at least one"):
        net.loss_and_gradients(x[:0], np.zeros(0, int))
    with pytest.raises(ValueError, match="unknown loss"):
        net.loss_and_gradients(x, np.zeros(6, int), "l3")


def test_predicting_changes_nothing_and_sees_new_weights():
    net = chaos.models.small()
    x, y = images(6, net.input_shape)
    before = net.weights.copy()
    net.forward(x)
    net.loss_and_gradients(x, y)
    assert (net.weights == before).all()
    first = net.forward(x)
    net.load_state_dict(chaos.models.small(seed=9).state_dict())
    assert (net.forward(x) != first).any()


def test_graphs_that_are_no_networks():
    x, other = chaos.Input((4,)), chaos.Input((4,))
    narrow = chaos.Linear(3)
    with pytest.raises(ValueError, match="weights do not fit"):
        chaos.Network(x, narrow(narrow(x)))
    with pytest.raises(ValueError, match="named twice"):
        chaos.Network([x, x], chaos.Tanh()(x))
    with pytest.raises(ValueError, match="another chaos.Input"):
        chaos.Network(x, chaos.Add()(x, other))
    with pytest.raises(ValueError, match="does not depend"):
        chaos.Network(x, chaos.Tanh()(other))
    with pytest.raises(ValueError, match="at least one layer"):
        chaos.Network((4,), [])
    with pytest.raises(ValueError, match="equal sizes, or 1, along every dimension"):
        chaos.Add()(x, chaos.Linear(3)(x))
    with pytest.raises(ValueError, match="equal shape"):
        chaos.Add()(x, x, chaos.Linear(3)(x))
    with pytest.raises(ValueError, match="two layers are named"):
        chaos.Network((4,), [chaos.Tanh(name="a"), chaos.Tanh(name="a")])
    with pytest.raises(TypeError, match="nodes of a graph"):
        chaos.Tanh()("x")
    with pytest.raises(TypeError, match="layers must be layers"):
        chaos.Network((4,), ["tanh"])
    with pytest.raises(ValueError, match="too many inputs|1 to 16"):
        chaos.Network(x, chaos.Add()(*[chaos.Tanh()(x) for _ in range(17)]))


def test_names_as_in_pytorch():
    """Dots and numbers; a layer without a name keeps clear of a number that another has."""
    net = chaos.Network((4,), [chaos.Linear(3, name="features.0"), chaos.Tanh(), chaos.Linear(2, name="1"), chaos.Linear(2)])
    assert list(net.state_dict()) == [f"{name}.{part}" for name in ("features.0", "1", "3") for part in ("weight", "bias")]
    assert [name for _, name in net.nodes()] == ["input", "features.0", "1_", "1", "3"]
    again = chaos.Network.from_config(net.config())
    again.load_state_dict({**net.state_dict(), "features.0.num_batches_tracked": 7})
    assert repr(again) == repr(net)


def test_deep_networks_do_not_recurse():
    net = chaos.Network((3,), [chaos.Tanh() for _ in range(3000)])
    assert net.forward(np.zeros((1, 3))).shape == (1, 3)


def test_the_printed_table():
    text = repr(chaos.models.small())
    assert "6,405 parameters" in text and "Conv2d(out_channels=5, kernel_size=4)" in text and "(10, 9, 9)" in text


def two_outputs(seed=0):
    x = chaos.Input((2, 5, 6))
    y = chaos.Conv2d(3, 3)(x)
    return chaos.Network(x, [y, chaos.Linear(4, name="head")(chaos.Flatten()(chaos.Tanh()(y)))], seed=seed)


def test_several_outputs(isa, tmp_path):
    """In their order and PyTorch's shapes, as the definition has them; kept in files."""
    net = two_outputs()
    assert net.output_shape == ((3, 3, 4), (4,))
    x = np.random.default_rng(0).standard_normal((9, 2, 5, 6)).astype(np.float32)
    image, vector = net.forward(x)
    values = reference.forward(net, x)
    for got, node in zip((image, vector), net.outputs, strict=True):
        close(got, values[node], 1e-5)
    net.save(tmp_path / "net.safetensors")
    again = chaos.load(tmp_path / "net.safetensors")
    assert again.config() == net.config() and repr(again) == repr(net)
    for got, wanted in zip(again.forward(x), (image, vector), strict=True):
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ValueError, match="the network has 2 outputs; `forward` gives all"):
        net.predict(x)
    with pytest.raises(ValueError, match="named twice among the outputs"):
        chaos.Network(net._inputs[0], [net.outputs[0]] * 2)


def test_many_outputs_and_inputs_one_by_one():
    xs = [chaos.Input((k + 1,)) for k in range(3)]
    net = chaos.Network(xs, [chaos.Affine(k + 1.0)(xs[k % 3]) for k in range(40)])
    arrays = [np.random.default_rng(k).standard_normal((2, k + 1)).astype(np.float32) for k in range(3)]
    for k, y in enumerate(net.forward(*arrays)):
        np.testing.assert_array_equal(y, np.float32(k + 1) * arrays[k % 3])


def test_an_output_that_is_not_the_last_node():
    x = chaos.Input((3,))
    hidden = chaos.Tanh()(x)
    net = chaos.Network(x, [hidden])
    assert net.output_shape == (3,) and "outputs" not in net.config()
    two = chaos.Network(x, [chaos.Abs()(hidden), hidden])
    y, h = chaos.Network.from_config(two.config()).forward(np.array([[-1, 0.5, 2]], np.float32))
    np.testing.assert_array_equal(y, np.abs(h))


def test_tensors_of_a_file_are_aligned(tmp_path):
    """safetensors asks for a header whose length is a multiple of 8: readers map the numbers behind it into memory."""
    for note in range(9):
        path = tmp_path / "x.safetensors"
        chaos.models.small().save(path, {"note": "x" * note})
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
