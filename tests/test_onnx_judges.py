"""ONNX's own test cases of operators, read by `chaos.from_onnx`: every case of an operator that is read passes, or its kind
of exclusion is named here. Counted for the README by scripts/judges.py."""

import warnings

import numpy as np
import pytest

import chaos

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, numpy_helper  # noqa: E402

from chaos.interop.onnx_context import OPERATORS  # noqa: E402

# inputs that ONNX gives as tensors and a network has as weights or options, by operator: all but these many first ones
DATA = dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Concat"), 99)
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, 0)
READ = set(OPERATORS) - {"Shape", "Size"}


@pytest.fixture(scope="module")
def cases():
    """{first operator: [cases]} of all cases whose nodes are operators that are read, or fold. That takes ten seconds: it is
    done in the one process that runs them, not wherever tests are listed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    by_operator = {}
    for case in found:
        nodes = case.model.graph.node
        if {node.op_type for node in nodes} <= READ and all(node.domain in ("", "ai.onnx") for node in nodes):
            by_operator.setdefault(nodes[0].op_type, []).append(case)
    return by_operator


def excluded(case):
    """Why a case is nothing for a network of images, before it is tried; None if there is no such reason."""
    graph = case.model.graph
    if any(t.type.WhichOneof("value") != "tensor_type" for t in (*graph.input, *graph.output)):
        return "sequences and optional values"
    floats = [t.type.tensor_type.elem_type in FLOATS for t in (*graph.input[:1], *graph.output)]
    if not all(floats):
        return "integers, bytes, truth values or strings"
    if case.name.startswith("test_training_dropout") and "zero_ratio" not in case.name:
        return "random masks"
    inputs, outputs = case.data_sets[0]
    inputs, outputs = arrays_of(inputs), arrays_of(outputs)
    if any(not a.size for a in (*inputs, *outputs)):
        return "empty tensors"
    if not all(np.isfinite(a).all() for a in inputs if a.dtype.kind == "f"):
        return "NaN or infinity as input"
    return None


def arrays_of(values):
    return [numpy_helper.to_array(a) if isinstance(a, TensorProto) else np.asarray(a) for a in values]


def tried(case):
    """The case as a batch of images, and as one image; None if it passes either way, else the reasons."""
    reasons = []
    for images_first in (True, False):
        try:
            run(case, images_first)
            return None
        except chaos.UnsupportedError as error:
            reasons.append(str(error).splitlines()[-1].strip())
    return reasons


def run(case, images_first):
    graph = case.model.graph
    first = DATA.get(graph.node[0].op_type, 1) if len(graph.node) == 1 else 1
    for given, results in case.data_sets:
        inputs, outputs = arrays_of(given), arrays_of(results)
        constants = {value.name: array for value, array in list(zip(graph.input, inputs, strict=True))[first:]}
        net = chaos.from_onnx(case.model, images_first=images_first, constants=constants)
        data = [np.asarray(a, np.float32) for a in inputs[:first]]
        got = net.forward(*(a if images_first else a[None] for a in data))
        got = got if isinstance(got, tuple) else (got,)
        for y, wanted in zip(got, outputs, strict=True):
            y = y if images_first else y[0]
            wanted = np.asarray(wanted, np.float64)
            if not images_first and not wanted.ndim:
                y = y.reshape(())
            np.testing.assert_allclose(y, wanted, rtol=max(case.rtol, 1e-3), atol=max(case.atol, 1e-5))


@pytest.mark.parametrize("operator", sorted(READ))
def test_cases_of(cases, operator, record_property):
    """Every case passes, or says what about it is not in scope."""
    outcomes, wrong = [], {}
    for case in cases.get(operator, []):
        reasons = excluded(case) or tried(case)
        if isinstance(reasons, list):
            if not any(reasons):
                wrong[case.name] = reasons
            reasons = "; ".join(reasons)
        outcomes.append(reasons)
    record_property("outcomes", outcomes)
    assert not wrong
    if not outcomes:
        pytest.skip("there are no cases of it")
    if all(outcomes):
        pytest.skip("; ".join(sorted(set(outcomes))))


def light_models():
    import glob
    import os

    return sorted(glob.glob(os.path.join(os.path.dirname(onnx.__file__), "backend/test/data/light/*.onnx")))


def with_random_weights(model, rng):
    """The light models hold constants for weights: random ones in their place, so that an order matters."""
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[0])
            array = rng.standard_normal(tuple(shape)).astype(np.float32) * np.sqrt(2 / max(np.prod(shape[1:]), 1))
            if len(shape) < 2:
                array = np.abs(array) + np.float32(0.5)
            tensor = numpy_helper.from_array(array.astype(np.float32), node.output[0])
            model.graph.initializer.append(tensor)
    kept = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    if kept[-1].op_type == "Softmax":  # which would magnify the last digits of large numbers
        kept[-1].op_type = "Identity"
        del kept[-1].attribute[:]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def light(path):
    """Those with a hundred million weights take up to half a minute each."""
    name = path.rpartition("light_")[2].removesuffix(".onnx")
    return pytest.param(path, id=name, marks=pytest.mark.nightly if name in ("bvlc_alexnet", "vgg19", "zfnet512") else ())


@pytest.mark.parametrize("path", [light(path) for path in light_models()])
def test_light_models(path):
    """The zoo's networks: every parameter is there, and the outputs are onnxruntime's."""
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    model = with_random_weights(onnx.load(path), rng)
    net = chaos.from_onnx(model)
    there = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    used = {name for node in model.graph.node for name in node.input}
    # what average pooling with unequal borders is multiplied with is the reader's own
    pools = {node.name or node.output[0] for node in model.graph.node if node.op_type == "AveragePool"}
    own = {name for node, name in net.nodes() if isinstance(node.layer, chaos.Constant) and name in pools}
    values = sum(value.size for name, value in net.state_dict().items() if name not in own)
    assert values == sum(n for name, n in there.items() if name in used)
    x = rng.standard_normal((1, *net.input_shape)).astype(np.float32)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: x})[0]
    y = net.forward(x)
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.nightly
@pytest.mark.parametrize("path", light_models(), ids=lambda path: path.rpartition("light_")[2].removesuffix(".onnx"))
def test_a_training_step_of_the_light_models(path):
    """Two images: the loss that is told is the one that onnxruntime's outputs have, where nothing depends on the batch or on
    chance, and every parameter moves, but those behind units that are all dead."""
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    model = with_random_weights(onnx.load(path), rng)
    net = chaos.from_onnx(model)
    x = rng.standard_normal((2, *net.input_shape)).astype(np.float32)
    labels = np.array([3, 500])
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name  # the models want one image
    y = np.array([session.run(None, {name: one[None]})[0].ravel() for one in x], np.float64)
    y -= y.max(1, keepdims=True)
    wanted = (np.log(np.exp(y).sum(1)) - y[np.arange(2), labels]).mean()
    before = net.state_dict()
    data = chaos.data.Dataset(x, labels, classes=1000)
    run = chaos.train(net, data, epochs=1, batch_size=2, workers=1, lr=1e-3, progress=False)
    plain = not any(isinstance(node.layer, (chaos.BatchNorm2d, chaos.Dropout)) for node, _ in net.nodes())
    if plain:
        np.testing.assert_allclose(run.history[-1]["train_loss"], wanted, rtol=1e-3)
    after = net.state_dict()
    assert all(np.isfinite(value).all() for value in after.values()) and np.isfinite(run.history[-1]["train_loss"])
    moved = [name for name, value in after.items() if (value != before[name]).any()]
    assert len(moved) > 0.9 * len(net.trained_places()), sorted(set(after) - set(moved))


def stored_cases():
    """The folders of onnx's `simple` and `pytorch-converted` models."""
    import os
    from pathlib import Path

    data = Path(os.path.dirname(onnx.__file__), "backend/test/data")
    return [p for kind in ("simple", "pytorch-converted", "pytorch-operator") for p in sorted((data / kind).glob("test_*"))]


@pytest.mark.parametrize("folder", stored_cases(), ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_stored_case(folder):
    """As a batch of images, or as one image."""
    model = onnx.load(folder / "model.onnx")
    sets = [
        [[read(file) for file in sorted(data.glob(f"{what}_*.pb"))] for what in ("input", "output")]
        for data in sorted(folder.glob("test_data_set_*"))
    ]
    reasons = []
    for images_first in (True, False):
        try:
            for inputs, outputs in sets:
                check_stored(model, images_first, inputs, outputs)
            return
        except chaos.UnsupportedError as error:
            reasons.append(str(error).splitlines()[-1].strip())
    pytest.skip("; ".join(reasons))


def read(file):
    from google.protobuf.message import DecodeError

    tensor = TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        return numpy_helper.to_array(tensor)
    except (DecodeError, TypeError, ValueError):
        pytest.skip("sequences and optional values")


def check_stored(model, images_first, inputs, outputs):
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in weights]
    if not all(a.dtype.kind == "f" for a in (*inputs, *outputs)):
        pytest.skip("integers, bytes, truth values or strings")
    if any(np.abs(a).max(initial=0) > np.finfo(np.float32).max for a in inputs):
        pytest.skip("numbers too large for single precision")
    net = chaos.from_onnx(model, images_first=images_first)
    assert len(names) == len(inputs)
    got = net.forward(*(np.asarray(a if images_first else a[None], np.float32) for a in inputs))
    for y, wanted in zip(got if isinstance(got, tuple) else (got,), outputs, strict=True):
        y = y if images_first else y[0]
        np.testing.assert_allclose(y.reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-5 * (1 + np.abs(wanted).max()))
