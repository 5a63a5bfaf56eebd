"""Telemetry: what is counted per layer and per worker adds up, is zero where it must be, and sees what is there to see."""

import threading
import time

import numpy as np
import pytest
from nets import graph, images, one_layer

import chaos
from chaos import _core
from chaos.sync import STRATEGIES
from chaos.training.records import counts, merged, no_counts, staleness

WORKERS = [(name, n) for name, strategy in STRATEGIES.items() for n in ((1,) if strategy.single else (1, 2, 5))]
PARTS = {"forward", "backward", "publish", "wait", "evaluate"}


def run(net, x, y, workers, strategy, **options):
    engine = _core.Engine(net.plan, net.weights, workers=workers, strategy=strategy, **options)
    return engine.run("train", inputs=net.take_images(x)["inputs"], labels=y, lr=0.01)


@pytest.mark.parametrize("strategy, workers", WORKERS)
def test_counts_add_up(strategy, workers):
    net = graph()
    x, y = images(503, net.input_shape, classes=5)
    found = run(net, x, y, workers, strategy, batch_size=3, stripe_bytes=256)
    layers = found["layers"].values()
    assert {net.nodes()[node][1] for node in found["layers"]} == {
        name for node, name in net.nodes()[1:] if node.layer.part_names
    }
    for layer in (found, *layers):
        assert sum(layer["staleness"]) == layer["updates"] > 0
        assert len(layer["staleness"]) == min(layer["staleness_max"] + 1, 512)
        if layer["staleness_max"] < 511:
            assert sum(i * n for i, n in enumerate(layer["staleness"])) == layer["staleness_sum"]
        assert layer["lock_failures"] >= 0
    for key in ("updates", "staleness_sum"):
        assert sum(layer[key] for layer in layers) == found[key]
    assert sum(layer["lock_failures"] for layer in layers) <= found["lock_failures"]
    assert max(layer["staleness_max"] for layer in layers) == found["staleness_max"]
    assert len(found["worker_images"]) == workers and min(found["worker_images"]) >= 0
    assert sum(found["worker_images"]) == found["images"] == 503
    spent = found["time"]
    assert min(spent.values()) >= -1e-6 and spent["forward"] > 0 and spent["backward"] > 0
    assert sum(spent[part] for part in ("forward", "backward", "publish", "wait")) == pytest.approx(spent["total"])
    for layer in layers:
        # a stripe waits within its worker's time, and no longer than the phase
        assert 0 <= layer["pending_seconds"] <= spent["total"] * layer["updates"]
        if STRATEGIES[strategy].exact:
            assert layer["overlaps"] == 0, "writers that exclude each other were in one stripe together"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_worker_meets_nobody(strategy):
    net = graph()
    x, y = images(100, net.input_shape, classes=5)
    found = run(net, x, y, 1, strategy)
    assert found["staleness"] == [found["updates"]] and found["staleness_max"] == found["lock_failures"] == 0
    for layer in found["layers"].values():
        assert layer["staleness_sum"] == layer["overlaps"] == 0


def test_a_phase_that_does_not_train_counts_images_and_time_only():
    net = chaos.models.small()
    x, y = images(300, net.input_shape)
    engine = _core.Engine(net.plan, net.weights, workers=2, strategy="chaos")
    for what in ("train", "test"):
        found = engine.run(what, inputs=net.take_images(x)["inputs"], labels=y)
    assert found["updates"] == 0 and found["staleness"] == [0] and sum(found["worker_images"]) == 300
    assert all(layer["updates"] == 0 for layer in found["layers"].values())
    assert found["time"]["total"] > 0 and found["time"]["forward"] == found["time"]["backward"] == 0


def held(seconds):
    """Trains with one worker of `chaos` while somebody else holds the third stripe, and lets go so many seconds after the
    second image has been picked."""
    net = one_layer((64,), chaos.Linear(8))
    x, y = images(50, net.input_shape, classes=8)
    engine = _core.Engine(net.plan, net.weights, workers=1, strategy="chaos", stripe_bytes=256)
    assert engine.stripes > 2 and _core.Exchange(engine).hold(2) and not _core.Exchange(engine).hold(2)

    def let_go():
        while engine.position < 2:
            time.sleep(0.001)
        time.sleep(seconds)
        _core.Exchange(engine).release(2)

    thread = threading.Thread(target=let_go)
    start = time.perf_counter()
    thread.start()
    found = engine.run("train", inputs=net.take_images(x)["inputs"], labels=y, lr=0.01)
    took = time.perf_counter() - start
    thread.join()
    assert _core.Exchange(engine).hold(2), "the worker has not given the lock back"
    return engine, found, took


def test_a_held_stripe_is_seen():
    """The first image's update of the stripe is postponed, tried again, and waited for, because the second image needs its
    buffer."""
    for _ in range(10):  # until the worker was not without a core all the while
        engine, found, took = held(0.1)
        (layer,) = found["layers"].values()
        # the second image was read before the first one's update of that stripe had come through
        assert layer["updates"] == 50 * engine.stripes and layer["staleness"] == [layer["updates"] - 1, 1]
        assert layer["lock_failures"] == found["lock_failures"] > 0, "nothing was postponed"
        assert 0.099 < layer["pending_seconds"] < took * 1.02
        assert found["time"]["wait"] <= layer["pending_seconds"]
        assert layer["pending_seconds"] <= found["time"]["total"] < took * 1.02
        if found["give_ways"] and found["time"]["wait"] > 0.05:
            return
    raise AssertionError("the worker has not waited for the stripe")


def test_a_stripe_held_by_none_costs_nothing():
    net = one_layer((64,), chaos.Linear(8))
    x, y = images(50, net.input_shape, classes=8)
    found = run(net, x, y, 1, "chaos", stripe_bytes=256)
    (layer,) = found["layers"].values()
    assert found["time"]["wait"] == layer["pending_seconds"] == layer["lock_failures"] == found["give_ways"] == 0


def test_staleness_is_no_more_than_the_others_did():
    """Of two workers, one cannot find more updates between its reading and writing than the other one has made, and one of
    its own, which was pending."""
    net = one_layer((64,), chaos.Linear(8))
    x, y = images(4000, net.input_shape, classes=8)
    engine = _core.Engine(net.plan, net.weights, workers=2, strategy="chaos", stripe_bytes=256)
    stripes = engine.stripes
    found = engine.run("train", inputs=net.take_images(x)["inputs"], labels=y, lr=0.01)
    (layer,) = found["layers"].values()
    assert sum(found["staleness"]) == 4000 * stripes == sum(engine.versions())
    assert layer["staleness_max"] <= max(found["worker_images"]) + 1


def test_records(digits, tmp_path):
    net = chaos.models.small(seed=0)
    history = chaos.train(
        net, digits[0][:700], digits[1], workers=3, epochs=2, lr=0.01, evaluate_train=True, progress=False
    ).history
    for record in history:
        assert list(record["layers"]) == ["0", "3", "7", "9"]
        assert sum(record["worker_images"]) == 700 and len(record["worker_images"]) == 3
        assert record["time_split"].keys() == PARTS and sum(record["time_split"].values()) == pytest.approx(1)
        assert 0 < min(record["time_split"][part] for part in ("forward", "backward", "evaluate"))
        for layer in (record, *record["layers"].values()):
            stale = layer["staleness"]
            assert stale.keys() == {"mean", "p50", "p99", "max", "histogram"}
            assert 0 <= stale["p50"] <= stale["p99"] <= stale["max"] and stale["mean"] <= stale["max"]
            assert sum(stale["histogram"]) == layer["updates"]
        for layer in record["layers"].values():
            assert layer.keys() == {"staleness", "updates", "lock_failures", "pending_seconds", "lost_estimate"}
            assert layer["updates"] % 700 == 0
        assert sum(layer["updates"] for layer in record["layers"].values()) == record["updates"]


def test_time_of_evaluation(digits):
    """Without a test set nothing is evaluated."""

    def share(*data):
        (record,) = chaos.train(chaos.models.small(), *data, epochs=1, workers=1, progress=False).history
        return record["time_split"]["evaluate"]

    assert share(digits[0][:100]) == 0
    assert 0 < share(digits[0][:20], digits[0]) < 1


@pytest.mark.parametrize(
    "histogram, p50, p99",
    [
        ([], 0, 0),
        ([7], 0, 0),
        ([1, 1], 0, 1),
        ([0, 0, 3], 2, 2),
        ([98, 1, 1], 0, 1),
        ([99, 0, 1], 0, 0),
        ([49, 1, 50], 1, 2),
        ([0] * 511 + [5], 511, 511),
    ],
)
def test_percentiles(histogram, p50, p99):
    counts = {
        "staleness": histogram,
        "staleness_sum": sum(i * n for i, n in enumerate(histogram)),
        "staleness_max": max(len(histogram) - 1, 0),
    }
    found = staleness(counts)
    assert (found["p50"], found["p99"], found["histogram"]) == (p50, p99, histogram)
    assert found["mean"] == (np.average(np.arange(len(histogram)), weights=histogram) if histogram else 0)


def test_pieces_add_up():
    """Counts of an epoch that was stopped and resumed, with another number of workers."""
    net = chaos.models.small()
    x, y = images(200, net.input_shape)
    values = net.take_images(x)["inputs"]
    pieces = []
    for workers, begin, end in ((3, 0, 120), (2, 120, 200)):
        engine = _core.Engine(net.plan, net.weights, workers=workers, strategy="chaos", stripe_bytes=1024)
        found = engine.run("train", inputs=values, labels=y, lr=0.01, begin=begin, end=end)
        pieces.append({**found, "layers": {str(node): layer for node, layer in found["layers"].items()}})
    together = counts(counts(no_counts(), pieces[0], 1.5), pieces[1], 2)
    assert together["seconds"] == 3.5 and together["position"] == 200
    first, second = pieces
    for key in ("images", "errors", "updates", "lock_failures", "staleness_sum"):
        assert together[key] == first[key] + second[key]
    assert sum(together["worker_images"]) == 200 and len(together["worker_images"]) == 3
    assert together["worker_images"][2] == first["worker_images"][2]
    assert together["staleness_max"] == max(first["staleness_max"], second["staleness_max"])
    for node, layer in together["layers"].items():
        a, b = first["layers"][node], second["layers"][node]
        assert layer["updates"] == sum(layer["staleness"]) == a["updates"] + b["updates"]
        assert layer["staleness_max"] == max(a["staleness_max"], b["staleness_max"])
        assert layer["pending_seconds"] == a["pending_seconds"] + b["pending_seconds"]
    assert together["time"] == {part: first["time"][part] + second["time"][part] for part in first["time"]}


def test_counts_of_several_ranks():
    """Sums of what is counted, the largest of what is a maximum, every rank's workers by themselves."""

    def one(k):
        layer = {
            "staleness": [k] * k,
            "staleness_sum": k,
            "staleness_max": k,
            "updates": k,
            "lock_failures": k,
            "overlaps": k,
        }
        return {
            "status": "done",
            "failed_at": None,
            "seconds": float(k),
            "images": k,
            "lock_failures": 10 * k,
            "staleness_max": k,
            "staleness": [k] * k,
            "worker_images": [k, k],
            "layers": {2: layer, **({3: layer} if k == 5 else {})},
            "time": {"wait": k},
        }

    found = merged([one(2), one(5), one(3)])
    layer = {"staleness": [10, 10, 8, 5, 5], "staleness_max": 5, "staleness_sum": 10, "updates": 10, "lock_failures": 10}
    assert found == {
        "status": "done",
        "failed_at": None,
        "seconds": 5.0,
        "images": 10,
        "lock_failures": 100,
        "staleness_max": 5,
        "staleness": [10, 10, 8, 5, 5],
        "worker_images": [2, 2, 5, 5, 3, 3],
        "layers": {2: layer | {"overlaps": 10}, 3: one(5)["layers"][3]},
        "time": {"wait": 10},
    }
    assert merged([one(1) | {"status": "stopped"}, one(1) | {"status": "diverged", "failed_at": 7}])["failed_at"] == 7
