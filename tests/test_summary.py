"""Summaries: shapes, counts, loops, memory as it is allocated, what no window sees; as a table and on the command line."""

import ctypes
import json
import platform

import numpy as np
import pytest
from nets import graph, images

import chaos
from chaos import _core
from chaos.cli import main
from chaos.models import MODELS, PAPER
from chaos.summary import PASSES, unseen


@pytest.mark.parametrize("name", PAPER)
def test_rows_are_the_layers(name):
    net = MODELS[name]()
    found = net.summary()
    assert [row.name for row in found.rows] == [name for _, name in net.nodes()]
    assert [tuple(row.output_shape) for row in found.rows] == [node.shape for node, _ in net.nodes()]
    sizes = {}
    for parameter, value in net.state_dict().items():
        layer = parameter.rpartition(".")[0]
        sizes[layer] = sizes.get(layer, 0) + value.size
    assert {row.name: row.parameters for row in found.rows if row.parameters} == sizes
    assert found.parameters == net.n_parameters and found.frozen == 0
    assert sum(row.macs for row in found.rows) == found.macs["forward"] and found.macs == net.macs()
    assert [row.inputs for row in found.rows] == [[], *([i] for i in range(len(found.rows) - 1))]
    assert json.loads(json.dumps(found.to_dict()))["rows"][1]["layer"] == "Conv2d"


def test_several_inputs():
    first, second = chaos.Input((3,)), chaos.Input((4,))
    out = chaos.Add()(chaos.Linear(2)(first), chaos.Linear(2)(second))
    found = chaos.Network([first, second], out).summary()
    assert [row.inputs for row in found.rows] == [[], [], [0], [1], [2, 3]]
    assert [row.parameters for row in found.rows] == [0, 0, 8, 10, 0] and "Input   3" in str(found)
    assert all(row.loops["weight_gradient"] and "backward" not in row.loops for row in found.rows[2:4])


def test_loops_are_those_that_run(isa):
    """Also where a pooling and an activation have changed places; a pass that is not run has none."""
    net = chaos.models.small()
    found = {row.name: row.loops for row in net.summary().rows}
    engine = _core.Engine(net.plan, net.weights, strategy="chaos")
    bench = _core.Bench(engine)
    for i, (name, layer, _) in enumerate(net.core_layers(), 1):
        for what in PASSES:
            runs = what == "forward" or i > 1 or what == "weight_gradient"
            if layer.kind in ("conv2d", "linear"):
                assert found[name].get(what) == (bench.loop(i, what) if runs else None)
    assert found["9"]["weight_gradient"] == "left to the update" and "backward" not in found["0"]
    last = {batch: net.summary(batch).rows[-1].loops["weight_gradient"] for batch in (4, 16)}  # in one chunk, and in two
    assert last == {4: "left to the update", 16: "products"} and net.summary().isa == isa
    net.freeze("0.*")
    assert "weight_gradient" not in net.summary().rows[1].loops and "backward" not in net.summary().rows[4].loops


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def allocated():
    """Bytes that this process has from malloc and its relatives now, as the C library counts them in all its arenas."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        pytest.skip("the C library does not tell what it has allocated")
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return found.uordblks + found.hblkhd


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("make", [chaos.models.medium, chaos.models.large, graph])
def test_memory_is_what_is_allocated(make, batch_size):
    """Within 10 % per worker: pages, the C library's own headers, and what Python makes meanwhile come on top."""
    net = make()
    said = net.summary(batch_size).worker_bytes
    x, y = images(64, net.input_shape, classes=5)
    inputs, workers = net.take_images(x)["inputs"], 2
    run = dict(inputs=inputs, labels=y.astype(np.int64), lr=0.0)
    warm = _core.Engine(net.plan, net.weights, strategy="chaos", workers=workers, batch_size=batch_size)
    warm.run("train", **run)  # the team's threads have their memory now
    engine = _core.Engine(net.plan, net.weights, strategy="chaos", workers=workers, batch_size=batch_size)
    before = allocated()
    engine.run("train", **run)
    assert (allocated() - before) / workers == pytest.approx(said, rel=0.1)


def test_frozen_parameters_are_shown():
    net = graph()
    net.freeze("stem.*")
    net.freeze("4.bias")
    found = net.summary()
    assert found.parameters + found.frozen == net.n_parameters and found.frozen == 114 + 6
    text = str(found)
    assert "114 frozen" in text and "36 + 6 frozen" in text and "1,331 + 120 frozen" in text
    assert found.worker_bytes < graph().summary().worker_bytes


def test_shared_layers_are_counted_once():
    node = chaos.Input((6,))
    shared = chaos.Linear(6, name="twice")
    net = chaos.Network(node, chaos.Linear(3)(shared(chaos.Tanh()(shared(node)))))
    found = net.summary()
    assert [row.parameters for row in found.rows] == [0, 42, 0, 0, 21] and found.parameters == 63
    assert [row.shares for row in found.rows] == [None, None, None, "twice", None]
    assert "those of twice" in str(found)


@pytest.mark.parametrize(
    "layer, shape, wanted",
    [
        (chaos.MaxPool2d(2), (1, 8, 9), {"columns": [8]}),
        (chaos.MaxPool2d(2), (1, 8, 8), {}),
        (chaos.MaxPool2d(2, 3), (1, 8, 7), {"rows": [2, 5], "columns": [2, 5, 6]}),
        (chaos.Conv2d(1, 3, stride=2), (1, 8, 9), {"rows": [7]}),
        (chaos.Conv2d(1, 3, stride=2, padding=1), (1, 8, 9), {}),
        (chaos.Conv2d(1, (3, 2), stride=(4, 1), dilation=(2, 1)), (1, 10, 4), {"rows": [1, 3, 5, 7, 9]}),
        (chaos.Conv2d(1, 4, padding="same"), (1, 6, 5), {}),
        (chaos.Conv2d(1, 3, stride=5, padding=2), (1, 9, 3), {"rows": [1, 2, 6, 7], "columns": [1, 2]}),
        (chaos.Conv2d(1, 3, stride=5, padding=(2, 0, 0, 2)), (1, 9, 8), {"rows": [1, 2, 6, 7, 8], "columns": [3, 4]}),
        (chaos.Conv1d(1, 3, stride=4), (2, 9), {"positions": [3, 7, 8]}),
        (chaos.Conv1d(1, 3, stride=4, padding=(1, 2)), (2, 9), {"positions": [2, 6]}),
        (chaos.Linear(3), (5,), {}),
        (chaos.Tanh(), (1, 4, 4), {}),
    ],
    ids=repr,
)
def test_what_no_window_sees(layer, shape, wanted):
    """Told by the definition as well: an input that is seen changes the output, one that is not seen does not."""
    assert unseen(layer, shape, layer.output_shape(shape)) == wanted
    if not wanted:
        return
    rng = np.random.default_rng(0)
    parts = {name: rng.uniform(1, 2, part.shape) for name, part in layer.parts(shape).items()}
    x = rng.standard_normal((1, *shape))
    y = layer.forward([x], parts)
    axes = ("rows", "columns") if len(shape) == 3 else ("positions",)
    for axis, name in enumerate(axes, 2):
        for place in range(shape[axis - 1]):
            changed = x.copy()
            np.moveaxis(changed, axis, 0)[place] += 100
            assert (layer.forward([changed], parts) == y).all() == (place in wanted.get(name, []))


def test_they_are_named_in_the_table():
    net = chaos.Network((1, 30, 31), [chaos.Conv2d(8, 3, stride=4), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Linear(3)])
    text = " ".join(str(net.summary()).split())
    assert "0 (Conv2d) never sees rows 3, 7, 11, 15, 19, 23 ... (9 of them) and columns 3," in text
    assert "1 (MaxPool2d) never sees row 6 of its input" in text
    assert "never sees" not in str(chaos.models.small().summary())
    assert "positions 2 to 4 of" in str(chaos.Network((1, 5), [chaos.Conv1d(2, 2, stride=4)]).summary())


@pytest.mark.parametrize("name", PAPER)
def test_tables_fit_the_terminal(isa, name):
    for batch_size in (1, 8):
        lines = str(MODELS[name]().summary(batch_size)).splitlines()
        assert max(map(len, lines)) <= 80 and not any(line != line.rstrip() for line in lines)


def test_the_command(tmp_path, capsys):
    assert main(["summary", "small"]) == 0
    assert capsys.readouterr().out == f"{chaos.models.small().summary()}\n"
    net = graph()
    net.freeze("stem.*")
    net.save(tmp_path / "net.safetensors")
    assert main(["summary", str(tmp_path / "net.safetensors"), "--batch-size", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == net.summary(8).to_dict() and found["frozen"] == 114
    data = chaos.data.Dataset(*images(8, net.input_shape, classes=5), classes=5)
    chaos.train(net, data, epochs=1, run_dir=tmp_path / "run", progress=False)
    assert main(["summary", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{net.summary()}\n"
    for arguments, text in (
        (["smal"], "unknown model 'smal'; did you mean small?"),
        (["small", "--batch-size", "0"], "batch_size must be a whole number of at least 1, not 0"),
        ([str(tmp_path / "none.safetensors")], "none.safetensors"),
    ):
        assert main(["summary", *arguments]) == 2
        assert text in capsys.readouterr().err
