"""The door that an exchange of weights goes through: reading and adding beside running workers."""

import threading

import numpy as np
import pytest
from nets import images

import chaos
from chaos import _core


def engine_of(net, **options):
    return _core.Engine(net.plan, net.weights, strategy="chaos", **options)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("stripe_bytes", [64, 16384])
def test_nothing_is_lost_beside_running_workers(isa, workers, stripe_bytes):
    """Whole-numbered gradients (loss "score", pixels of 1) and whole-numbered additions: the sum is known to the last
    bit."""
    net = chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(10)])
    net.load_state_dict({k: np.zeros_like(v) for k, v in net.state_dict().items()})
    n = 4000
    x, y = np.ones((n, 1, 8, 8), np.float32), images(n, (1, 8, 8))[1]
    engine = engine_of(net, workers=workers, loss="score", stripe_bytes=stripe_bytes)
    door = _core.Exchange(engine)
    data = net.take_images(x)
    running, added, seen = threading.Event(), [], np.empty_like(net.weights)

    def beside():
        ones = np.ones_like(net.weights)
        running.set()
        while not ended.is_set() or not added:
            door.add_weights(ones, 2.0)
            door.read_weights(seen)
            added.append(2)

    ended = threading.Event()
    thread = threading.Thread(target=beside)
    thread.start()
    running.wait()
    for _ in range(3):
        assert engine.run("train", data["inputs"], labels=y, lr=1.0)["images"] == n
    ended.set()
    thread.join()
    weight = net.state_dict()["1.weight"]
    expected = 3 * np.bincount(y, minlength=10) + sum(added)
    assert (weight == expected[:, None]).all()
    door.read_weights(seen)
    assert (seen == net.weights).all()
    assert engine.position == n
    door.rewind()
    assert engine.position == 0


def test_ranges_of_stripes():
    net = chaos.models.small()
    engine = engine_of(net, stripe_bytes=1024)
    door = _core.Exchange(engine)
    places = [engine.stripe(k) for k in range(engine.stripes)]
    assert places[0][0] == 0 and sum(size for _, size in places) == len(net.weights)
    before, out = net.weights.copy(), np.full_like(net.weights, np.nan)
    door.read_weights(out, 2, 4)
    at, end = places[2][0], places[4][0]
    assert (out[at:end] == before[at:end]).all() and np.isnan(out[:at]).all() and np.isnan(out[end:]).all()
    door.add_weights(np.ones_like(before), 0.5, 2, 4)
    assert (net.weights[at:end] == before[at:end] + np.float32(0.5)).all() and (net.weights[end:] == before[end:]).all()
    with pytest.raises(ValueError, match="3 floats"):
        door.read_weights(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="stripes 4..2"):
        door.add_weights(before, 1, 4, 2)
    with pytest.raises(IndexError):
        engine.stripe(engine.stripes)


def test_states_can_live_elsewhere(isa):
    """Two engines on one weight vector and one set of stripe states: together they lose nothing."""
    net = chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(10)])
    net.load_state_dict({k: np.zeros_like(v) for k, v in net.state_dict().items()})
    n = 5000
    x, y = np.ones((n, 1, 8, 8), np.float32), images(n, (1, 8, 8))[1]
    data = net.take_images(x)
    engines = [engine_of(net, loss="score", stripe_bytes=64) for _ in range(2)]
    doors = [_core.Exchange(engine) for engine in engines]
    room = np.zeros(doors[0].state_bytes + 128, np.uint8)
    start = -room.ctypes.data % 128
    place = room[start : start + doors[0].state_bytes]
    for door in doors:
        door.share_states(place)
    with pytest.raises(ValueError, match="already"):
        doors[0].share_states(place)
    with pytest.raises(ValueError, match="aligned"):
        _core.Exchange(engine_of(net)).share_states(np.zeros(64, np.uint8))
    threads = [threading.Thread(target=e.run, args=("train", data["inputs"], y, None, 0, None, 1.0)) for e in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (net.state_dict()["1.weight"] == 2 * np.bincount(y, minlength=10)[:, None]).all()
    assert place.any()
