"""The engine: a step is SGD, staleness is counted, phases end as asked, bad calls are refused, the process is left as found.
What every strategy must do is in test_strategies.py."""

import os
import platform
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from nets import graph, images, one_layer

import chaos
from chaos import _core


def _plan(*shape):
    plan = _core.Plan()
    plan.add_input(*shape)
    return plan


def engine_of(net, workers=1, strategy="sequential", **options):
    return _core.Engine(net.plan, net.weights, workers=workers, strategy=strategy, **options)


def run(net, x, y, what="train", lr=0.05, workers=1, strategy="sequential", order=None, **options):
    data = net.take_images(x)
    return engine_of(net, workers, strategy, **options).run(
        what, data["inputs"], labels=np.asarray(y, np.int64), order=order, lr=lr
    )


@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_training_is_sgd(isa, batch_size):
    """A step of the engine is w - lr * gradient, with the gradient that loss_and_gradients gives for its images."""
    net, other = graph(seed=2), graph(seed=2)
    x, y = images(40, net.input_shape, classes=5)
    order = np.random.default_rng(0).permutation(40)
    run(net, x, y, order=order, batch_size=batch_size)
    for at in range(0, 40, batch_size):
        batch = order[at : at + batch_size]
        _, gradients = other.loss_and_gradients(x[batch], y[batch])
        other.load_state_dict({k: v - np.float32(0.05) * gradients[k] for k, v in other.state_dict().items()})
    for name, value in net.state_dict().items():
        # the same additions in the same order; a fused multiply-add saves one rounding per update
        np.testing.assert_allclose(value, other.state_dict()[name], rtol=0, atol=40 * 2.0**-24 * np.abs(value).max() * 4)


def test_staleness_and_updates_are_counted():
    net = chaos.models.small()
    x, y = images(500, net.input_shape)
    one = run(net, x, y)
    stripes = engine_of(net).stripes
    assert one["updates"] == 500 * stripes and one["staleness"] == [one["updates"]] and one["staleness_max"] == 0
    many = run(net, x, y, workers=4, strategy="chaos")
    assert many["updates"] == 500 * stripes == sum(many["staleness"])
    assert many["staleness_sum"] == sum(i * n for i, n in enumerate(many["staleness"]))


def test_stop_ends_a_phase_at_once_and_keeps_count():
    net = chaos.models.medium()
    x, y = images(4000, net.input_shape)
    data = net.take_images(x)
    engine = engine_of(net, 2, "chaos")
    timer = threading.Timer(0.1, engine.stop)
    timer.start()
    start = time.perf_counter()
    result = engine.run("train", inputs=data["inputs"], labels=y, order=np.arange(4000).repeat(20))
    assert result["status"] == "stopped" and result["images"] == result["position"] < 80000
    assert time.perf_counter() - start < 5
    assert engine.run("train", inputs=data["inputs"], labels=y)["images"] == 0, "a stop holds until it is cleared"
    engine.clear()
    assert engine.run("train", inputs=data["inputs"], labels=y, end=100)["status"] == "done"


def test_divergence_is_seen():
    net = chaos.models.small()
    x, y = images(200, net.input_shape)
    result = run(net, x, y, lr=1e38, workers=2, strategy="chaos")
    assert result["status"] == "diverged" and 0 <= result["failed_at"] < 200


@pytest.mark.parametrize("strategy, batch_size", [("sequential", 1), ("chaos", 20), ("hybrid", 20)])
def test_divergence_names_the_image(strategy, batch_size):
    """Not only the chunk that it passed in."""
    net = chaos.Network((3,), [chaos.Linear(2, bias=False)])
    net.load_state_dict({"0.weight": np.ones((2, 3), np.float32)})
    x, y = np.zeros((20, 3), np.float32), np.zeros(20, int)
    x[13] = 3e38
    order = np.arange(20)[::-1].copy()
    assert run(net, x, y, strategy=strategy, batch_size=batch_size, order=order)["failed_at"] == 6
    with pytest.raises(chaos.DivergedError, match="the loss of image 13 is not finite"):
        chaos.evaluate(net, chaos.data.Dataset(x, y), workers=1)


def test_bad_calls():
    net = chaos.models.small()
    x, y = images(10, net.input_shape)
    values = net.take_images(x)["inputs"]
    engine = engine_of(net)
    for bad in (
        dict(inputs=[values[0][:-1]], labels=y),
        dict(inputs=values),
        dict(inputs=values, labels=y[:5]),
        dict(inputs=values, labels=np.full(10, 10)),
        dict(inputs=values, labels=np.full(10, -2)),
        dict(inputs=values, labels=y, order=np.array([0, 10])),
        dict(inputs=values, labels=y, order=np.array([-1])),
        dict(inputs=values, labels=y, begin=11),
        dict(inputs=values, labels=y, end=11),
        dict(inputs=[], labels=y),
    ):
        with pytest.raises(ValueError):
            engine.run("train", **bad)
    for bad in (
        dict(workers=0),
        dict(workers=5000),
        dict(batch_size=0),
        dict(strategy="wild"),
        dict(loss="x"),
        dict(update="x"),
        dict(workers=2, strategy="sequential"),
        dict(stripe_bytes=1),
    ):
        with pytest.raises(ValueError):
            _core.Engine(net.plan, net.weights, **bad)
    with pytest.raises(ValueError):
        _core.Engine(net.plan, net.weights[:-16].copy())
    with pytest.raises(ValueError, match="no such layer kind"):
        _plan(1, 4, 4).add("nothing", [0], 1, [])
    with pytest.raises(ValueError, match="larger than the padded input"):
        _plan(1, 4, 4).add("conv2d", [0], 1, [5, 5, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="supported: generic"):
        _core.set_isa("mmx")


def test_forward_after_a_failed_phase_starts_anew():
    net = chaos.models.small()
    x, y = images(20, net.input_shape)
    values = net.take_images(x)["inputs"]
    engine = engine_of(net, 2, "chaos")
    weights = net.weights.copy()
    assert engine.run("train", inputs=values, labels=y, lr=1e38)["status"] == "diverged"
    net.weights[:] = weights
    assert engine.run("test", inputs=values, labels=y)["status"] == "done"


def test_predicting_from_several_threads():
    net = chaos.models.small()
    x, _ = images(200, net.input_shape)
    wanted, found = net.forward(x), []
    threads = [threading.Thread(target=lambda: found.append((net.forward(x) == wanted).all())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_too_few_threads_are_told_before_anything_is_trained():
    code = (
        "import chaos\ntrain, _ = chaos.data.load('digits', size=29)\n"
        "net = chaos.models.small()\nw = net.weights.copy()\n"
        "try: chaos.train(net, train, workers=2, epochs=1, progress=False)\n"
        "except RuntimeError as error: assert 'OMP_THREAD_LIMIT' in str(error) and (net.weights == w).all()\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "OMP_THREAD_LIMIT": "1"})


def test_huge_geometry_is_refused():
    for make in (
        lambda: chaos.Network((1, 50000, 50000), [chaos.Conv2d(1, 3)]),
        lambda: chaos.Network((1, 9, 9), [chaos.Conv2d(1, 3, padding=2**30 - 1, dilation=2**30)]),
        lambda: chaos.Network((1, 9, 9), [chaos.Conv2d(1, 3, padding=2**31)]),
        lambda: chaos.Network((65536, 256, 256), [chaos.Flatten()]),
        lambda: chaos.Network((1, 9, 9), [chaos.Flatten(), chaos.Linear(2**31)]),
        lambda: chaos.Network((2**31, 1, 1), [chaos.Tanh()]),
    ):
        with pytest.raises(ValueError):
            make()


def test_no_two_phases_at_once():
    net = chaos.models.small()
    x, y = images(2000, net.input_shape)
    values = net.take_images(x)["inputs"]
    engine = engine_of(net)
    order = np.arange(2000).repeat(50)
    thread = threading.Thread(target=engine.run, args=("train",), kwargs=dict(inputs=values, labels=y, order=order))
    thread.start()
    while not engine.position:
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="already running"):
        engine.run("test", inputs=values, labels=y)
    engine.stop()
    thread.join()


def test_image_formats_agree():
    net = chaos.models.small()
    x, _ = images(9, net.input_shape, bytes=True)
    as_floats = x.astype(np.float32) * np.float32(1 / 127.5) - 1
    np.testing.assert_allclose(net.forward(x), net.forward(as_floats), rtol=0, atol=1e-6)
    assert (net.forward(x) == net.forward(x[:, 0])).all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads MXCSR")
def test_floating_point_mode_is_restored():
    """FTZ/DAZ hold inside the workers (a denormal product is 0 there) and are gone afterwards."""
    tiny = np.float32(1e-38)
    denormal = np.array([[1e-41, 0]], np.float32)
    net = one_layer((2,), chaos.Linear(1, bias=False))
    net.load_state_dict({"0.weight": np.array([[1.0, 0]], np.float32)})
    assert net.forward(denormal)[0, 0] == 0
    net.load_state_dict({"0.weight": np.zeros((1, 2), np.float32)})
    x, y = np.full((500, 2), 1e-41, np.float32), np.zeros(500, int)
    run(net, x, y, lr=1, workers=4, strategy="chaos", loss="score")
    assert not net.weights.any(), "every worker flushes: the sum of 500 denormals would not be 0"
    assert tiny * np.float32(1e-3) > 0
    seen = []
    thread = threading.Thread(target=lambda: seen.append(float(np.float32(1e-38) * np.float32(1e-3))))
    thread.start()
    thread.join()
    assert seen[0] > 0


FORK = """
import os, sys, warnings, numpy as np, chaos
warnings.simplefilter("ignore", DeprecationWarning)
train, test = chaos.data.load("digits", size=29)
def go():
    net = chaos.models.small()
    return chaos.train(net, train[:300], workers=2, epochs=1, lr=0.01, progress=False).history[0]["train_error"], net
go()
child = os.fork()
if child == 0:
    error, net = go()
    net.predict(test.images[:5])
    os._exit(0 if 0 <= error < 1 else 1)
import time
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.1)
os.kill(child, 9)
sys.exit("the child hangs")
"""


def test_training_works_in_a_forked_child():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)


def test_import_is_light():
    code = (
        "import sys, chaos; first = {'numpy', 'chaos.layers', 'chaos.training'} & set(sys.modules); "
        "assert not first, first; [getattr(chaos, name) for name in chaos.__all__ if not name.startswith('from_')]; "
        "heavy = {'mpi4py', 'sklearn', 'torch', 'matplotlib', 'onnx', 'tqdm', 'safetensors'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("words", ["--help", "--version", "nonsense"])
def test_the_command_tells_what_it_is_without_numpy(words):
    """Its help is there before NumPy would be imported; an unknown command is told from the names."""
    code = (
        "import sys; from chaos.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code + 10 * bool({'numpy', 'chaos.training'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, timeout=60)
    assert done.returncode in ((12,) if words == "nonsense" else (0,)), done.stderr


@pytest.mark.parametrize("value, wanted", [("generic", "generic"), ("avx512", _core.instruction_sets()[-1]), ("", None)])
def test_chaos_isa_lowers_the_choice(value, wanted):
    out = subprocess.run(
        [sys.executable, "-c", "from chaos import _core; print(_core.get_isa())"],
        check=True,
        timeout=60,
        env={**os.environ, "CHAOS_ISA": value},
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert out == (wanted or _core.instruction_sets()[-1])


def test_unknown_chaos_isa():
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "info"],
        timeout=60,
        env={**os.environ, "CHAOS_ISA": "mmx"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "CHAOS_ISA='mmx'" in done.stderr and "generic, avx2, avx512" in done.stderr


def test_affinity_is_left_alone():
    before = os.sched_getaffinity(0)
    net = chaos.models.small()
    x, y = images(100, net.input_shape)
    run(net, x, y, workers=4, strategy="chaos")
    assert os.sched_getaffinity(0) == before


def test_weights_need_alignment():
    net = chaos.models.small()
    room = np.zeros(len(net.weights) + 32, np.float32)
    start = (-room.ctypes.data % 64 // 4) + 1
    with pytest.raises(ValueError, match="aligned"):
        _core.Engine(net.plan, room[start : start + len(net.weights)])
