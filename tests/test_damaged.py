"""Every reader of a file that chaos has written, on files in which something has been replaced, flipped, cut off or nested:
only the error that it documents may come out."""

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

import chaos
from chaos import report, virtual
from chaos.cli.given import read_config
from chaos.cli.predict import _read_numpy
from chaos.formats import trace, write_tensors
from chaos.perfmodel import read_machine
from chaos.reproduce import store
from chaos.training import CONFIG, METRICS, MODEL

VALUES = [
    None,
    True,
    0,
    -1,
    10**30,
    1e400,
    float("nan"),
    1e-320,
    "",
    "x",
    "\0",
    [],
    [[]],
    {},
    {"a": None},
    [1] * 50,
    "9" * 5000,
]
TRIES = 120


def places(value, path=()):
    """Where the parts of a value of JSON are."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def replaced(rng, value):
    """A copy of a value of JSON in which one part is another, or not there, or there twice."""
    value = json.loads(json.dumps(value))
    found = list(places(value))[1:]
    *path, last = found[rng.integers(len(found))]
    there = value
    for key in path:
        there = there[key]
    what = rng.integers(4)
    if what == 0:
        del there[last]
    elif what == 1 and isinstance(there, dict):
        there[f"{last}x"] = there.pop(last)
    elif what == 1:
        there.append(there[last])
    else:
        there[last] = VALUES[rng.integers(len(VALUES))]
    return value


def damaged_bytes(rng, good):
    """Bytes that are flipped, cut off, put in, or taken out."""
    bad, at = bytearray(good), int(rng.integers(len(good)))
    what = rng.integers(4)
    if what == 0:
        for _ in range(3):
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
    elif what == 1:
        del bad[at:]
    elif what == 2:
        bad[at:at] = rng.bytes(int(rng.integers(1, 9)))
    else:
        del bad[at : at + int(rng.integers(1, 50))]
    return bytes(bad)


def damaged_json(rng, good):
    """Text of JSON, sometimes damaged as bytes."""
    if rng.random() < 0.2:
        return damaged_bytes(rng, json.dumps(good).encode())
    if rng.random() < 0.02:
        return b"[" * 100_000
    return json.dumps(replaced(rng, good)).encode()


def digits():
    return chaos.data.load("digits", size=29)[0][:30]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory, with a trace of the run beside it."""
    folder = tmp_path_factory.mktemp("run")
    with virtual.Traced(folder / "trace") as runner:
        chaos.train(
            chaos.models.small(),
            digits(),
            epochs=2,
            workers=2,
            update="momentum",
            progress=False,
            run_dir=folder / "run",
            config={"model": "small", "data": "digits"},
            runner=runner,
        )
    return folder


def check(path, read, error, files):
    """Reads every content; how many were refused."""
    refused = 0
    for content in files:
        path.write_bytes(content)
        try:
            read()
        except error as caught:
            refused += 1
            assert path.name in str(caught), f"{caught} does not name the file"
        except Exception as other:
            raise AssertionError(f"{type(other).__name__}: {other}; read from {content[:3000]!r}") from other
    return refused


def test_models_and_checkpoints(run, tmp_path):
    """The header of safetensors and the descriptions in it."""
    rng, path = np.random.default_rng(0), tmp_path / MODEL
    good = (run / "run" / MODEL).read_bytes()
    (size,) = struct.unpack_from("<Q", good)
    head, tail = json.loads(good[8 : 8 + size]), good[8 + size :]

    def files():
        for k in range(2 * TRIES):
            if k % 4 == 0:
                yield damaged_bytes(rng, good[: 8 + size]) + tail
                continue
            bad = json.loads(json.dumps(head))
            if k % 4 == 1:
                bad = replaced(rng, head)
            else:
                key = ("network", "training")[k % 4 - 2]
                bad["__metadata__"][key] = damaged_json(rng, json.loads(head["__metadata__"][key])).decode("latin-1")
            text = json.dumps(bad).encode()
            yield struct.pack("<Q", len(text)) + text + tail

    def resumes():
        metrics = (run / "run" / METRICS).read_bytes()
        (tmp_path / METRICS).write_bytes(metrics)
        chaos.train(chaos.models.small(), digits(), epochs=2, workers=2, update="momentum", progress=False, run_dir=tmp_path,
                    resume=True)  # fmt: skip

    assert check(path, lambda: chaos.load(path), chaos.CheckpointError, files()) > TRIES
    assert check(path, resumes, chaos.CheckpointError, files()) > TRIES


def test_configs(run, tmp_path):
    rng, path = np.random.default_rng(1), tmp_path / CONFIG
    good = json.loads((run / "run" / CONFIG).read_bytes())
    check(path, lambda: read_config(tmp_path), chaos.CheckpointError, (damaged_json(rng, good) for _ in range(TRIES)))


def test_metrics(run, tmp_path):
    rng, path = np.random.default_rng(2), tmp_path / METRICS
    first, second = map(json.loads, (run / "run" / METRICS).read_text().splitlines())

    def reports():
        report.run_report(report.read_metrics(path), "run")

    files = (json.dumps(first).encode() + b"\n" + damaged_json(rng, second) + b"\n" for _ in range(TRIES))
    assert check(path, reports, chaos.CheckpointError, files) > TRIES / 20


def test_traces(run, tmp_path):
    """The descriptions in a trace, under checksums that are right."""
    rng, path, good = np.random.default_rng(3), tmp_path / "trace", (run / "trace").read_bytes()
    start, records, at = good.index(b"HEAD"), [], good.index(b"HEAD")
    while at < len(good):
        tag, size, _ = struct.unpack_from("<4sQI", good, at)
        records.append((tag, good[at + 16 : at + 16 + size]))
        at += 16 + size
    described = [i for i, (tag, _) in enumerate(records) if tag in (b"HEAD", b"PHAS", b"DONE", b"LAST")]

    def files():
        for _ in range(TRIES):
            which = described[rng.integers(len(described))]
            text = damaged_json(rng, json.loads(records[which][1]))
            changed = [(tag, text if i == which else payload) for i, (tag, payload) in enumerate(records)]
            yield good[:start] + b"".join(struct.pack("<4sQI", tag, len(p), zlib.crc32(p)) + p for tag, p in changed)
        for _ in range(TRIES // 4):
            yield damaged_bytes(rng, good)

    assert check(path, lambda: virtual.replay(path, digits()), chaos.TraceError, files()) > TRIES / 2
    assert virtual.replay(run / "trace", digits()).n_parameters == 6405


def test_times(tmp_path):
    rng, path, net = np.random.default_rng(4), tmp_path / "times.json", chaos.models.small()
    virtual.nominal(net).write(path)
    good = json.loads(path.read_bytes())
    files = (damaged_json(rng, good) for _ in range(TRIES))
    assert check(path, lambda: virtual.read_times(path, net), ValueError, files) > TRIES / 2


def test_machines(tmp_path):
    rng, path = np.random.default_rng(5), tmp_path / "machine.toml"
    from chaos.perfmodel.machine import FOLDER

    good = (FOLDER / "xeon-phi-7120p.toml").read_bytes()
    files = [
        *(damaged_bytes(rng, good) for _ in range(TRIES)),
        b"a = " + b"[" * 100_000,
        b'name = "x"\ncores = ' + b"9" * 5000,
    ]
    assert check(path, lambda: read_machine(path), ValueError, files) > TRIES / 4


def test_results_of_a_reproduction(tmp_path):
    rng, path = np.random.default_rng(6), tmp_path / store.RESULTS
    good = {
        "format": store.WHOLE,
        "experiments": {"a": {"format": store.FORMAT, "experiment": {}, "history": []}},
        "here": {},
    }

    def files():
        for k in range(TRIES):
            text = damaged_json(rng, good)
            yield damaged_bytes(rng, gzip.compress(text)) if k % 4 == 0 else gzip.compress(text)

    assert check(path, lambda: store.results(tmp_path, ()), chaos.CheckpointError, files()) > TRIES / 4


def test_tensors_of_other_kinds(tmp_path):
    """A model whose tensors have the right names and other types or shapes."""
    path, net = tmp_path / MODEL, chaos.Network((4,), [chaos.Linear(3)])
    state, metadata = net.state_dict(), {"format": "chaos-1", "network": json.dumps(net.config())}
    for change in (np.float64, np.float16, np.int64, np.uint8):
        write_tensors(path, {name: value.astype(change) for name, value in state.items()}, metadata)
        assert chaos.load(path).n_parameters == 15
    for bad in (np.zeros((3, 4), bool), np.zeros((4, 3), np.float32), np.full((3, 4), np.inf, np.float16)):
        write_tensors(path, state | {"0.weight": bad}, metadata)
        with pytest.raises(chaos.CheckpointError, match=r"0\.weight"):
            chaos.load(path)


def test_arrays_whose_header_is_no_python(tmp_path):
    """NumPy reads it with Python's tokenizer, whose errors are no ValueError."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as file:
        file.writestr("x.npy", data)
    with pytest.raises(chaos.CheckpointError, match="w.npz"):
        chaos.interop.read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda graph: graph.node[2].ClearField("output"), "the output: it does not depend on an input"),
        (lambda graph: (graph.ClearField("node"), graph.ClearField("input")), "it has no inputs, or no outputs"),
        (lambda graph: graph.ClearField("output"), "it has no inputs, or no outputs"),
        (lambda graph: graph.node[2].ClearField("attribute"), "MaxPool .*: is not as the operator set says"),
        (lambda graph: graph.node[0].ClearField("input"), "Conv .*: is not as the operator set says"),
        (lambda graph: setattr(graph.initializer[0], "data_type", 0), "initialiser '0.weight': .*UNDEFINED"),
        (lambda graph: setattr(graph.initializer[0], "data_type", 53), "initialiser '0.weight': 53"),
        (lambda graph: graph.initializer[0].dims.append(7), "initialiser '0.weight': "),
    ],
)
def test_onnx_models_that_are_not_as_they_should_be(damage, words, tmp_path):
    pytest.importorskip("onnx")
    model = chaos.models.small().to_onnx()
    damage(model.graph)
    with pytest.raises(chaos.UnsupportedError, match=words):
        chaos.from_onnx(model)


@pytest.mark.parametrize("kind", ["trace", "results", "weights", "images"])
def test_what_is_compressed_is_not_inflated_beyond_a_bound(kind, monkeypatch, tmp_path):
    """64 MiB of zeros in 64 KiB, where 1 MiB is the bound or 4 bytes are promised."""
    zeros = bytes(2**26)
    if kind == "trace":
        monkeypatch.setattr(trace, "MOST_BYTES", 2**20)
        path, error, words = tmp_path / "t", chaos.TraceError, "more than 1,048,576 bytes"
        with trace.TraceWriter(path) as writer:
            writer.head({}, np.zeros(2**24, np.float32))
        read = trace.TraceReader
    elif kind == "results":
        monkeypatch.setattr(store, "MOST_BYTES", 2**20)
        path, error, words = tmp_path / store.RESULTS, chaos.CheckpointError, "more than 1,048,576 bytes"
        path.write_bytes(gzip.compress(b'{"a": "' + zeros + b'"}'))
        read = lambda path: store.results(path.parent, ())  # noqa: E731
    else:
        images = kind == "images"
        path, error = tmp_path / "w.npz", chaos.DataError if images else chaos.CheckpointError
        words = r"expected 4 bytes for shape \(1,\), got 671"
        array = io.BytesIO()
        np.save(array, np.ones(1, np.float32))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.npy", array.getvalue() + zeros)
        read = _read_numpy if images else chaos.interop.read_weights
    tracemalloc.start()
    try:
        with pytest.raises(error, match=words):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
