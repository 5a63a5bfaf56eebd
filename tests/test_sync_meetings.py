"""The strategies whose workers meet or take turns: each is a simulation of its definition, for any number of workers."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from nets import graph, images, one_layer

import chaos
from chaos import _core
from chaos.network import aligned_zeros

TIMELESS = ("seconds", "images_per_second", "workers", "worker_images", "time_split", "layers")


def data_for(net, n, seed=0):
    x, y = images(n, net.input_shape, seed=seed, classes=net.output_shape[0])
    data = net.take_images(x)
    return dict(inputs=data["inputs"], labels=y)


def engine_of(net, strategy, workers=1, options=(), **others):
    return _core.Engine(net.plan, net.weights, workers=workers, strategy=strategy, strategy_options=options, **others)


def outcome(result):
    return {key: result[key] for key in ("status", "position", "images", "errors", "loss", "updates")}


BOUNDS = [0, 0, 0, 0.05, 0.5]  # clip_norm and max_norm, in the order of chaos/updates/base.py


# ---- the gradient of a part of a step, and the update by itself ----


@pytest.mark.parametrize("workers", [1, 3])
def test_lanes_are_gradients_of_parts_of_a_step(isa, workers):
    """With powers of two the scale 1 / n only moves the exponent, so a lane is the mean gradient of its images, exactly."""
    net = graph(seed=3)
    d = data_for(net, 30)
    order = np.random.default_rng(1).permutation(30)
    engine = engine_of(net, "synchronous", workers, batch_size=16)
    rows, alone = aligned_zeros((3, net.plan.weight_size)), np.empty(net.plan.weight_size, np.float32)
    for _ in range(2):  # what the first call leaves behind does no harm to the second
        result = _core.Exchange(engine).lane_gradients(4, 1, rows, **d, order=order, begin=5, end=21)
        assert result["status"] == "done" and result["images"] == 12
    one = engine_of(net, "sequential", batch_size=16)
    losses = errors = 0
    for j in (1, 2, 3):
        part = one.run("gradients", **d, order=order, begin=5 + 4 * j, end=9 + 4 * j)
        one.gradient(alone)
        assert (rows[j - 1] * 4 == alone).all()
        losses, errors = losses + part["loss"], errors + part["errors"]
    assert (result["loss"], result["errors"]) == (losses, errors)


def test_applying_is_one_update(isa):
    net = graph(seed=3)
    before, gradient = net.weights.copy(), aligned_zeros(net.plan.weight_size)
    gradient[:] = np.random.default_rng(0).standard_normal(len(gradient))
    engine = engine_of(net, "synchronous", 2, batch_size=4)
    engine.stop()  # says nothing about an update
    _core.Exchange(engine).apply(gradient, 0.1)
    np.testing.assert_allclose(net.weights, before - np.float32(0.1) * gradient.astype(np.float64), rtol=0, atol=2.0**-21)
    assert set(engine.versions()) == {1}


def test_applying_clips_and_bounds(isa):
    """As a step of one image does it with the same gradient."""
    bits = set()
    for applies in (False, True):
        net = graph(seed=3)
        d, row = data_for(net, 1), aligned_zeros((1, net.plan.weight_size))
        engine = engine_of(net, "sequential", update_options=BOUNDS)
        if applies:
            _core.Exchange(engine).lane_gradients(1, 0, row, **d)
            _core.Exchange(engine).apply(row[0], 0.5)
        else:
            engine.run("train", **d, lr=0.5)
        bits.add(net.weights.tobytes())
    assert len(bits) == 1


def test_parts_of_steps_are_checked():
    net = graph()
    d = data_for(net, 10)
    engine = engine_of(net, "synchronous", batch_size=4)
    rows = aligned_zeros((2, net.plan.weight_size))
    for lanes, first, bad in (
        (11, 0, {}),
        (0, 0, {}),
        (2, 1, {}),
        (2, -1, {}),
        (2, 0, {"out": rows[:, 16:]}),
        (1, 0, {}),
        (2, 0, {"out": aligned_zeros(2 * rows.size).reshape(2, -1)}),
        (2, 0, {"labels": None}),
        (2, 0, {"out": rows[:0]}),
        (2, 0, {"end": 1}),
        (2, 0, {"begin": 11}),
    ):
        with pytest.raises(ValueError):
            _core.Exchange(engine).lane_gradients(lanes, first, **{"out": rows, **d, **bad})
    with pytest.raises(ValueError, match="3 numbers for 2 lanes"):
        _core.Exchange(engine).lane_gradients(2, 0, rows, **d, reached=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="floats"):
        _core.Exchange(engine).apply(rows.ravel(), 0.1)
    engine.stop()
    assert _core.Exchange(engine).lane_gradients(2, 0, rows, **d)["status"] == "stopped"


def test_lanes_tell_how_far_they_are(isa):
    """When a lane is said to have a layer's gradient, that is final: it is added up at once, while the lanes go on."""
    net = graph(seed=3)
    d, engine = data_for(net, 64), engine_of(net, "synchronous", 2, batch_size=64)
    rows, sums = aligned_zeros((4, net.plan.weight_size)), aligned_zeros(net.plan.weight_size)
    reached = np.full(4, len(net.nodes()), np.int32)
    thread = threading.Thread(
        target=_core.Exchange(engine).lane_gradients, args=(4, 0, rows), kwargs=d | {"reached": reached}
    )
    thread.start()
    blocks = [net.plan.block(node) for node in range(len(net.nodes()))]
    for node, (first, size) in reversed(list(enumerate(blocks))):
        while size and _core.reached(reached) > node and thread.is_alive():
            time.sleep(0)
        if size:
            assert _core.reached(reached) <= node
            _core.add_rows(rows[:, first : first + size], sums[first : first + size])
    thread.join()
    assert not reached.any() and sums.any()
    total = np.empty_like(sums)
    _core.add_rows(rows, total)
    assert (sums == total).all()
    _core.add_rows(rows, rows[0])
    assert (rows[0] == total).all()
    assert _core.reached(reached[:0]) == 0
    with pytest.raises(ValueError, match="must follow each other"):
        _core.add_rows(rows[:, ::2], total[::2].copy())


# ---- synchronous ----


def simulate_synchronous(net, d, order, batch, lanes, lr, epochs, **options):
    engine = engine_of(net, "sequential", batch_size=batch, **options)
    n, results = len(order), []
    for _ in range(epochs):
        loss = errors = 0
        for begin in range(0, n, batch):
            end = min(begin + batch, n)
            here = min(lanes, end - begin)
            rows = aligned_zeros((here, net.plan.weight_size))
            for j in range(here):
                part = _core.Exchange(engine).lane_gradients(
                    here, j, rows[j : j + 1], **d, order=order, begin=begin, end=end
                )
                loss, errors = loss + part["loss"], errors + part["errors"]
            total = rows[0]
            for row in rows[1:]:
                total += row
            _core.Exchange(engine).apply(total, lr)
        results.append(
            {
                "status": "done",
                "position": n,
                "images": n,
                "errors": errors,
                "loss": loss,
                "updates": -(-n // batch) * engine.stripes,
            }
        )
    return results


@pytest.mark.parametrize("batch, lanes, bounds", [(7, None, ()), (7, 7, ()), (20, 3, BOUNDS), (64, None, ())])
def test_synchronous_is_its_definition(isa, batch, lanes, bounds):
    usual = min(64, -(-batch // 4))
    wanted = graph(seed=2)
    d = data_for(wanted, 150)
    order = np.random.default_rng(4).permutation(150)
    results = simulate_synchronous(wanted, d, order, batch, lanes or usual, 0.05, 2, update_options=bounds)
    for workers in range(1, 9):
        net = graph(seed=2)
        engine = engine_of(
            net, "synchronous", workers, (lanes or 0,), batch_size=batch, stripe_bytes=1024, update_options=bounds
        )
        for result in results:
            got = engine.run("train", **d, order=order, lr=0.05)
            assert outcome(got) == {**result, "updates": -(-150 // batch) * engine.stripes} and got["staleness_max"] == 0
        assert net.weights.tobytes() == wanted.weights.tobytes(), workers


@pytest.mark.parametrize("batch, lanes", [(1, None), (3, None), (20, 1)])
@pytest.mark.parametrize("workers", [1, 3])
def test_synchronous_with_one_lane_is_sequential(isa, batch, lanes, workers):
    seen = set()
    for strategy, options, p in (("sequential", (), 1), ("synchronous", (lanes or 0,), workers)):
        net = graph(seed=2)
        d = data_for(net, 50)
        engine = engine_of(net, strategy, p, options, batch_size=batch)
        results = [outcome(engine.run("train", **d, lr=0.05)) for _ in range(2)]
        seen.add((net.weights.tobytes(), str(results)))
    assert len(seen) == 1


def timeless(history):
    return [{key: value for key, value in record.items() if key not in TIMELESS} for record in history]


def interrupt_once(monkeypatch):
    """The next training phase is interrupted as soon as it has done something."""
    left = [1]

    def step(self, event):
        if left and event.position:
            left.pop()
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(chaos.training.progress.Progress, "step", step)
    monkeypatch.setattr(chaos.training.callbacks, "POLL", 1e-3)
    return left


@pytest.mark.parametrize(
    "strategy, batch_size", [("synchronous", 1), ("synchronous", 7), ("synchronous", 64), ("hybrid", 40)]
)
def test_same_bits_for_any_workers_and_across_resuming(digits, tmp_path, monkeypatch, strategy, batch_size):
    train, test = digits[0][:1000], digits[1]
    how = dict(strategy=strategy, batch_size=batch_size, epochs=2, lr=0.02, evaluate_train=True, progress=False)
    runs = []
    for workers in (1, 2, 3, 8):
        net = chaos.models.small(seed=1)
        history = chaos.train(net, train, test, workers=workers, **how).history
        runs.append((net.weights.tobytes(), timeless(history)))
    assert all(run == runs[0] for run in runs)
    left = interrupt_once(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        chaos.train(chaos.models.small(seed=1), train, test, workers=2, run_dir=tmp_path, **how)
    assert not left
    net = chaos.models.small(seed=1)
    history = chaos.train(net, train, test, workers=3, run_dir=tmp_path, resume=True, **how).history
    assert (net.weights.tobytes(), timeless(history)) == runs[0]


# ---- averaging ----


def average(arrays, shares):
    """In double precision, one by one in their order."""
    total = np.zeros(arrays[0].shape)
    for array, share in zip(arrays, shares, strict=True):
        if share:
            total += share * array.astype(np.float64)
    return (total / sum(shares)).astype(np.float32)


def simulate_averaging(make, d, order, workers, batch, period, lr, epochs, **options):
    """Each replica is a network of its own that `sequential` trains."""
    net = make()
    replicas = [make() for _ in range(workers)]
    engines = [engine_of(r, "sequential", batch_size=batch, **options) for r in replicas]
    for _ in range(epochs):
        at, n = 0, len(order)
        while at < n:
            trained = [0] * workers
            for _ in range(period or n):
                for i in range(workers):
                    end = min(at + batch, n)
                    if at < end:
                        engines[i].run("train", **d, order=order, begin=at, end=end, lr=lr)
                    trained[i] += end - at
                    at = end
            net.weights[:] = average([r.weights for r in replicas], trained)
            for r in replicas:
                r.weights[:] = net.weights
    return net


@pytest.mark.parametrize("batch, period", [(1, None), (1, 4), (7, 2), (16, 1)])
def test_averaging_is_its_definition(isa, batch, period):
    def make():
        return graph(seed=2)

    d = data_for(make(), 150)
    order = np.random.default_rng(4).permutation(150)
    for workers in range(1, 9):
        wanted = simulate_averaging(make, d, order, workers, batch, period, 0.05, 2)
        net = make()
        engine = engine_of(net, "averaging", workers, (period or 0,), batch_size=batch)
        for _ in range(2):
            result = engine.run("train", **d, order=order, lr=0.05)
            assert (result["status"], result["images"], result["position"]) == ("done", 150, 150)
        assert net.weights.tobytes() == wanted.weights.tobytes(), workers


# ---- delayed ----


def simulate_delayed(make, d, order, workers, batch, lr, epochs):
    """The weights after every update are kept; a gradient is formed from those of `workers` - 1 updates ago."""
    net, old = make(), make()
    engine, of_old = engine_of(net, "sequential", batch_size=batch), engine_of(old, "sequential", batch_size=batch)
    row = aligned_zeros((1, net.plan.weight_size))
    for _ in range(epochs):
        past = [net.weights.copy()]
        for t, begin in enumerate(range(0, len(order), batch)):
            old.weights[:] = past[max(t - (workers - 1), 0)]
            _core.Exchange(of_old).lane_gradients(
                1, 0, row, **d, order=order, begin=begin, end=min(begin + batch, len(order))
            )
            _core.Exchange(engine).apply(row[0], lr)
            past.append(net.weights.copy())
    return net


@pytest.mark.parametrize("batch", [1, 7, 16])
def test_delayed_is_its_definition(isa, batch):
    def make():
        return graph(seed=2)

    d = data_for(make(), 150)
    order = np.random.default_rng(4).permutation(150)
    for workers in range(2, 9):  # one worker is `sequential`: test_engine.py
        wanted = simulate_delayed(make, d, order, workers, batch, 0.05, 2)
        net = make()
        engine = engine_of(net, "delayed", workers, batch_size=batch)
        updates = -(-150 // batch)
        for _ in range(2):
            result = engine.run("train", **d, order=order, lr=0.05)
            assert (result["status"], result["images"], result["position"]) == ("done", 150, 150)
            staleness = np.bincount(np.minimum(np.arange(updates), workers - 1)) * engine.stripes
            assert result["staleness"] == staleness.tolist()
        assert net.weights.tobytes() == wanted.weights.tobytes(), workers


# ---- hybrid ----


def tail(seed=0):
    """Three linear layers, of which the first is cut into slices by default, behind a convolution."""
    return chaos.Network(
        (2, 9, 8),
        [
            chaos.Conv2d(6, 3, padding=1),
            chaos.MaxPool2d(2),
            chaos.Tanh(),
            chaos.Flatten(),
            chaos.Linear(37),
            chaos.ReLU(),
            chaos.Linear(21, bias=False),
            chaos.Sigmoid(),
            chaos.Linear(5),
            chaos.Tanh(),
        ],
        seed=seed,
    )


def only_linear(seed=0):
    return chaos.Network((150,), [chaos.Linear(70), chaos.ReLU(), chaos.Linear(5)], seed=seed)


def no_tail(seed=0):
    return chaos.Network((2, 9, 8), [chaos.Conv2d(5, (9, 8)), chaos.Flatten()], seed=seed)


@pytest.mark.parametrize("make", [graph, tail, only_linear, no_tail])
@pytest.mark.parametrize("batch, lanes, slices, bounds", [(1, 0, 0, ()), (7, 3, 1, ()), (30, 2, 9, BOUNDS), (64, 0, 0, ())])
def test_hybrid_steps_by_the_gradient(isa, make, batch, lanes, slices, bounds):
    """From the same weights: the sums are those of the mean gradient, in another order. The tolerance is for 2^6 roundings
    of numbers up to the largest change, and a last one of the largest weight; no more images are in a step."""
    net, other = make(seed=2), make(seed=2)
    d = data_for(net, 64)
    engine = engine_of(net, "hybrid", 2, (lanes, slices), batch_size=batch, update_options=bounds)
    reference = engine_of(other, "sequential", batch_size=batch, update_options=bounds)
    for begin in range(0, 64, batch):
        end, before = min(begin + batch, 64), other.weights.copy()
        net.weights[:] = other.weights
        got = engine.run("train", **d, begin=begin, end=end, lr=0.1)
        want = reference.run("train", **d, begin=begin, end=end, lr=0.1)
        assert got["images"] == want["images"] and got["updates"] == want["updates"]
        assert abs(got["loss"] - want["loss"]) < 1e-5 * abs(want["loss"])
        change = np.abs(other.weights - before).max()
        assert change > 1e-4
        tolerance = 2.0**-23 * (64 * change + np.abs(other.weights).max())
        np.testing.assert_allclose(net.weights, other.weights, rtol=0, atol=tolerance)


@pytest.mark.parametrize("batch", [8, 16, 64])
@pytest.mark.parametrize("slices", [0, 1, 2, 50])
def test_hybrid_is_exact_where_arithmetic_is(isa, batch, slices):
    """With whole numbers in weights and images every sum is exact, so its order is no excuse."""
    weights = set()
    for strategy, workers in (("sequential", 1), ("hybrid", 1), ("hybrid", 3)):
        x = chaos.Input((3, 7, 6))
        a = chaos.Flatten()(chaos.ReLU()(chaos.Conv2d(5, 3, padding=1)(x)))
        net = chaos.Network(x, chaos.Linear(11)(chaos.ReLU()(chaos.Linear(40, bias=False)(chaos.ReLU()(a)))))
        rng = np.random.default_rng(0)
        net.load_state_dict({k: rng.integers(-2, 3, v.shape).astype(np.float32) for k, v in net.state_dict().items()})
        pixels, labels = rng.integers(-2, 3, (batch, 3, 7, 6)).astype(np.float32), rng.integers(0, 11, batch)
        before = net.weights.copy()
        options = (0, slices) if strategy == "hybrid" else ()
        engine_of(net, strategy, workers, options, batch_size=batch, loss="score").run(
            "train", inputs=net.take_images(pixels)["inputs"], labels=labels, lr=1
        )
        assert (net.weights != before).mean() > 0.3 and np.abs(net.weights).max() < 2**20
        weights.add(net.weights.tobytes())
    assert len(weights) == 1


@pytest.mark.parametrize("make", [graph, tail, only_linear, no_tail])
@pytest.mark.parametrize("batch, n, options", [(1, 20, ()), (7, 80, (3, 4)), (64, 150, ())])
def test_hybrid_does_not_depend_on_workers(make, batch, n, options):
    seen = set()
    for workers in (1, 2, 3, 5, 8):
        net = make(seed=2)
        d = data_for(net, n)
        engine = engine_of(net, "hybrid", workers, options, batch_size=batch, stripe_bytes=512)
        results = [outcome(engine.run("train", **d, lr=0.05)) for _ in range(2)]
        assert results[0]["updates"] == -(-n // batch) * engine.stripes and results[0]["images"] == n
        assert engine.run("test", **d)["status"] == "done"
        seen.add((net.weights.tobytes(), str(results)))
    assert len(seen) == 1


# ---- all of them: ends that come early ----

STRATEGIES = ["synchronous", "averaging", "delayed", "hybrid"]


def within(seconds, body):
    """Runs the body in a thread; fails instead of hanging."""
    done = []
    thread = threading.Thread(target=lambda: done.append(body()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert done, "the body hangs or has failed"
    return done[0]


def stop_beyond(engine, position):
    """Stops the engine's phase as soon as it is seen beyond a position."""
    for _ in range(20000):
        if engine.position > position:
            break
        time.sleep(1e-5)
    engine.stop()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("n", [0, 1, 3, 11])
def test_fewer_images_than_workers(strategy, batch, n):
    net = graph()
    d = data_for(net, 11)
    result = within(60, lambda: engine_of(net, strategy, 8, batch_size=batch).run("train", **d, end=n, lr=0.01))
    assert (result["status"], result["images"], result["position"]) == ("done", n, n)


@pytest.mark.parametrize("strategy", [name for name, one in chaos.sync.STRATEGIES.items() if not one.single])
@pytest.mark.parametrize("batch", [1, 8])
def test_stopping_loses_and_repeats_no_image(strategy, batch):
    """Of every strategy. Image i is the one-hot vector i: column i of the weights tells what it was worth."""
    how = chaos.sync.STRATEGIES[strategy]
    n = 2000
    net = one_layer((n,), chaos.Linear(2, bias=False))
    x, y = np.eye(n, dtype=np.float32), np.arange(n) % 2
    d = dict(inputs=net.take_images(x)["inputs"], labels=y)
    engine = engine_of(net, strategy, 3, batch_size=batch, loss="score")
    want = np.zeros((2, n))
    want[y, np.arange(n)] = 1 / batch
    for _ in range(100):  # until an epoch has really been stopped
        net.load_state_dict({"0.weight": np.zeros((2, n), np.float32)})
        at = pieces = 0
        while at < n:
            stopper = threading.Thread(target=stop_beyond, args=(engine, at))
            stopper.start()
            result = within(60, lambda begin=at: engine.run("train", **d, begin=begin, lr=1))
            stopper.join()
            engine.clear()
            assert result["status"] == ("done" if result["position"] == n else "stopped")
            assert result["images"] == result["position"] - at and result["position"] % batch == 0
            at, pieces = result["position"], pieces + (result["images"] > 0)
        got = net.state_dict()["0.weight"]
        assert how.racing or ((got == want).all() if how.exact else ((got > 0) == (want > 0)).all())
        if pieces > 1:
            break
    else:
        pytest.fail("never stopped")
    engine.stop()
    result = within(60, lambda: engine.run("train", **d, lr=1))
    assert (result["status"], result["images"], result["position"]) == ("stopped", 0, 0)


@pytest.mark.parametrize("strategy", ["averaging", "elastic", "replicated"])
def test_replicas_copy_no_locks(strategy):
    """Somebody else (`read_weights`) holds a stripe while the replicas are made, and while they are made anew. A replica on
    which it stayed locked would never be let go."""
    net = graph()
    d = data_for(net, 40)
    engine = engine_of(net, strategy, 3, update_options=[0, 0, 0, 0, 0.1], stripe_bytes=256)

    def let_go():
        while not engine.position:
            time.sleep(1e-4)
        _core.Exchange(engine).release(1)

    for _ in range(2):
        _core.Exchange(engine).rewind()
        assert _core.Exchange(engine).hold(1)
        thread = threading.Thread(target=let_go, daemon=True)
        thread.start()
        assert within(30, lambda: engine.run("train", **d, lr=0.05))["images"] == 40
        thread.join()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batch", [1, 8])
def test_divergence_ends_the_phase_for_all(strategy, batch):
    net = graph()
    d = data_for(net, 200)
    engine = engine_of(net, strategy, 4, batch_size=batch)
    good = net.weights.copy()
    result = within(60, lambda: engine.run("train", **d, lr=1e38))
    assert result["status"] == "diverged" and 0 <= result["failed_at"] < 200
    net.weights[:] = good
    assert within(60, lambda: engine.run("train", **d, lr=1e-3))["images"] == 200


LARGE_STEP = """
import resource, numpy as np, chaos
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
layers = [chaos.Conv2d(4, 3), chaos.Tanh(), chaos.Flatten(), chaos.Linear(20), chaos.Tanh(), chaos.Linear(10)]
data = chaos.data.Dataset(np.zeros((1, 1, 8, 8), np.uint8), [0], classes=10)
before = peak()
chaos.train(chaos.Network((1, 8, 8), layers), data, strategy="{}", workers=2, batch_size=1_000_000, epochs=1, progress=False)
print(peak() - before)
"""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_that_could_be_large_takes_the_memory_of_the_images_there_are(strategy):
    done = subprocess.run([sys.executable, "-c", LARGE_STEP.format(strategy)], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100 << 20
