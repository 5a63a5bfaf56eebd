"""Networks that are used while they learn: single steps, and predictions from many threads."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from nets import graph, images

import chaos
from chaos import _core
from chaos.data import Dataset


def network(seed=0):
    return chaos.Network(
        (1, 8, 8), [chaos.Conv2d(4, 3), chaos.Tanh(), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Linear(10)], seed=seed
    )


def counters():
    """Two weights, to which a step with the loss "score" and label k adds lr at k, whatever they are."""
    net = chaos.Network((1,), [chaos.Linear(2, bias=False)])
    net.load_state_dict({"0.weight": np.zeros((2, 1))})
    return net


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize("rule, options", [("sgd", {}), ("adam", {}), ("momentum", {"weight_decay": 0.01})])
@pytest.mark.parametrize("batch", [1, 7])
def test_steps_are_those_of_a_training(rule, options, batch):
    x, y = images(30, (1, 8, 8), bytes=True)
    trained, updated = network(), network()
    settings = dict(update=rule, update_options=options)
    chaos.train(
        trained, Dataset(x, y), epochs=1, lr=0.01, lr_schedule="constant", shuffle=False, strategy="sequential",
        batch_size=batch, progress=False, **settings,
    )  # fmt: skip
    for i in range(0, 30, batch):
        updated.update(x[i : i + batch], y[i : i + batch], lr=0.01, **settings)
        if i == 14:
            updated = pickle.loads(pickle.dumps(updated))
    np.testing.assert_array_equal(updated.weights, trained.weights)


def test_steps_of_several_sizes_have_one_state():
    x, y = images(12, (1, 8, 8), bytes=True)
    one, other = network(), network()
    for net, sizes in ((one, (1, 4, 1, 2, 3, 1)), (other, (1, 4, 1, 2, 3, 1))):
        at = 0
        for size in sizes:
            net.update(x[at : at + size], y[at : at + size], update="adam")
            at += size
            if net is other:  # engines made anew
                net._learner._drop()
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one._learner.state()["steps"] == 6


def test_the_loss_is_that_of_the_weights_before():
    x, y = images(3, (1, 8, 8))
    net = network()
    want, _ = net.loss_and_gradients(x, y)
    assert net.update(x, y) == pytest.approx(want, rel=1e-6)
    weighted, _ = net.loss_and_gradients(x, y, sample_weight=[1, 0, 2])
    assert net.update(x, y, sample_weight=[1, 0, 2]) == pytest.approx(weighted, rel=1e-6)


def test_one_sample_needs_no_axis_of_samples():
    x, y = images(1, (1, 8, 8))
    forms = [(x, y), (x[0], y[0]), (x[0], int(y[0])), (x[0].tolist(), y), (np.asfortranarray(x[0]), y), (x.astype(float), y)]
    nets = [network() for _ in forms]
    for net, form in zip(nets, forms, strict=True):
        net.update(*form)
        np.testing.assert_array_equal(net.weights, nets[0].weights)
    line = chaos.Network((3,), [chaos.Linear(1)])
    lines = [copy.deepcopy(line) for _ in range(4)]
    for net, y in zip(lines, (0.5, np.float32(0.5), np.array([0.5], np.float32), [[0.5]]), strict=True):
        net.update(np.ones(3, np.float32), y, loss="mse")
        np.testing.assert_array_equal(net.weights, lines[0].weights)
    assert (lines[0].weights != line.weights).any()


def test_several_outputs():
    x = chaos.Input((3,))
    y = chaos.Tanh()(chaos.Linear(4)(x))
    net = chaos.Network(x, [chaos.Linear(2)(y), chaos.Linear(1)(y)])
    trained, updated = copy.deepcopy(net), copy.deepcopy(net)
    loss = "cross_entropy + 0.5*mse"
    images_, labels, values = np.eye(3, dtype=np.float32), np.array([0, 1, 1]), np.array([[0.5], [1], [2]], np.float32)
    data = Dataset(images_, targets=(labels, values))
    settings = dict(lr_schedule="constant", shuffle=False, strategy="sequential", progress=False)
    chaos.train(trained, data, epochs=1, lr=0.01, loss=loss, **settings)
    for k in range(2):
        updated.update(images_[k : k + 1], (labels[k : k + 1], values[k : k + 1]), lr=0.01, loss=loss)
    updated.update(images_[2], (labels[2], values[2]), lr=0.01, loss=loss)
    np.testing.assert_array_equal(updated.weights, trained.weights)


@pytest.mark.parametrize("labels", [np.array([3, 7]), np.array([3, 7], np.int32), np.array([3, 7], np.uint8), [3, 7]])
@pytest.mark.parametrize("ignored", [None, 3, -1])
def test_labels_of_every_kind(labels, ignored):
    """Those that take the short way too."""
    x, _ = images(2, (1, 8, 8))
    options = {} if ignored is None else {"ignore_index": ignored}
    net, one_hot = network(), network()
    net.update(x, labels, lr=0.1, loss_options=options)
    wanted = np.eye(10, dtype=np.float32)[[3, 7]]
    one_hot.update(x, wanted, lr=0.1, sample_weight=np.where(np.array([3, 7]) == ignored, 0, 1))
    for name, value in one_hot.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], value, rtol=1e-5, atol=1e-7)
    before = net.weights.copy()
    net.update(x[:1], int(labels[0]), lr=0.1, loss_options=options)
    assert (net.weights == before).all() == (ignored == 3)
    for wrong in (10, -2):
        with pytest.raises(chaos.DataError, match=f"label {wrong} of image 1"):
            net.update(x, np.array([3, wrong]), lr=0.1, loss_options=options)


def test_other_settings_begin_anew():
    x, y = images(2, (1, 8, 8))
    net, fresh = network(), network()
    net.update(x, y, update="adam")
    fresh.load_state_dict(net.state_dict())
    net.update(x, y, update="adam", update_options={"beta1": 0.5})
    fresh.update(x, y, update="adam", update_options={"beta1": 0.5})
    np.testing.assert_array_equal(net.weights, fresh.weights)
    assert net._learner.steps == 1
    net.update(x, y, update="adam", update_options={"beta1": 0.5})
    assert net._learner.steps == 2


def test_every_step_draws_other_numbers():
    """Dropout of one input of weight 1: what is not dropped counts twice."""
    net = chaos.Network((64,), [chaos.Dropout(0.5), chaos.Linear(2, bias=False)])
    x = np.ones(64, np.float32)
    seen = []
    for _ in range(3):
        before = net.state_dict()["1.weight"]
        net.update(x, 0, loss="score", lr=1)
        seen.append(tuple(np.flatnonzero(net.state_dict()["1.weight"][0] - before[0])))
    assert len(set(seen)) == 3
    again = chaos.Network((64,), [chaos.Dropout(0.5), chaos.Linear(2, bias=False)])
    for _ in range(3):
        again.update(x, 0, loss="score", lr=1)
    np.testing.assert_array_equal(again.weights, net.weights)


@pytest.mark.parametrize(
    "x, y, options, error",
    [
        (np.full((1, 8, 8), np.nan, np.float32), 1, {}, "NaN"),
        (np.zeros((1, 8, 7), np.float32), 1, {}, r"the network wants \(n, 1, 8, 8\)"),
        (np.zeros((0, 1, 8, 8), np.float32), [], {}, "at least one"),
        (np.zeros((1, 8, 8), np.float32), 10, {}, r"label 10 of image 0 is not in 0\.\.9"),
        (np.zeros((1, 8, 8), np.float32), -1, {}, r"label -1 of image 0 is not in 0\.\.9"),
        (np.zeros((1, 8, 8), np.float32), 0.5, {}, "takes"),
        (np.zeros((1, 8, 8), np.float32), [1, 2], {}, "one per image"),
        (np.zeros((1, 8, 8), np.float32), 1, {"lr": 0}, "lr must be"),
        (np.zeros((1, 8, 8), np.float32), 1, {"lr": np.nan}, "lr must be"),
        (np.zeros((1, 8, 8), np.float32), 1, {"update": "adm"}, "unknown update rule 'adm'"),
        (np.zeros((1, 8, 8), np.float32), 1, {"loss": "mes"}, "unknown loss 'mes'"),
        (np.zeros((1, 8, 8), np.float32), 1, {"sample_weight": -1}, "not negative"),
    ],
)
def test_what_cannot_be_learnt_is_refused(x, y, options, error):
    net = network()
    before = net.weights.copy()
    with pytest.raises(ValueError, match=error):
        net.update(x, y, **options)
    np.testing.assert_array_equal(net.weights, before)


def test_a_step_that_diverges_is_not_made():
    net = chaos.Network((1,), [chaos.Linear(1)])
    before = net.weights.copy()
    with pytest.raises(chaos.DivergedError, match="step 1, which was not made"):
        net.update(np.array([3e38], np.float32), np.array([-3e38], np.float32), loss="mse")
    np.testing.assert_array_equal(net.weights, before)


def test_layers_that_see_the_batch_need_one():
    net = chaos.Network((4,), [chaos.BatchNorm1d(), chaos.Linear(2)])
    with pytest.raises(ValueError, match="BatchNorm1d.* needs steps of at least 2 images"):
        net.update(np.ones(4, np.float32), 1)
    net.update(np.eye(4, dtype=np.float32), [0, 1, 0, 1])
    net.freeze()
    with pytest.raises(ValueError, match="frozen"):
        net.update(np.eye(4, dtype=np.float32), [0, 1, 0, 1])


def test_the_scale_of_what_comes_is_kept():
    net = network()
    pixels, floats = images(1, (1, 8, 8), bytes=True)[0], images(3, (1, 8, 8))[0]
    for x in floats:
        net.update(x, 1)
    assert net.trained_on == (chaos.scale.Scale(False, float(floats.min()), float(floats.max())),)
    with pytest.raises(chaos.DataError, match="trained on floats"):
        net.update(pixels, 1)
    other = network()
    other.update(pixels, 1)
    assert other.trained_on[0].pixels
    with pytest.raises(chaos.DataError, match="trained on pixels"):
        other.update(pixels.astype(np.float32), 1)
    other.update(pixels.astype(int), 1)  # integers are pixels to it


def test_frozen_and_moved_weights():
    net, x = network(), np.zeros((1, 8, 8), np.float32)
    net.update(x, 1)
    net.freeze("0.*")
    before = net.state_dict()
    net.update(x, 1)
    after = net.state_dict()
    assert (after["0.bias"] == before["0.bias"]).all() and (after["4.bias"] != before["4.bias"]).any()
    old = net.move_weights(chaos.network.aligned_zeros(net.weights.size))
    kept = old.copy()
    net.update(x, 1)
    np.testing.assert_array_equal(old, kept)
    assert (net.weights != kept).any()


# ---- threads ----


def test_threads_predict_what_one_does():
    net = graph()
    x = images(40, (2, 9, 8))[0]
    parts = [x[i : i + n] for i in range(0, 32, 4) for n in (1, 3, 8)]
    want = [net.forward(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for got, one in zip(pool.map(net.forward, parts), want, strict=True):
                np.testing.assert_array_equal(got, one)
    assert len(net._engines.idle[1]) <= 8 and not net._engines.lent


@pytest.mark.skipif(not chaos._core.OPENMP, reason="built without OpenMP")
@pytest.mark.parametrize("count", [2, 8, 9, 31, 64])
def test_any_number_of_workers_predicts_the_same_bits(count, monkeypatch):
    """Also by default, which is all cores for a batch with enough work, and one worker for others."""
    monkeypatch.setattr(chaos.engines, "ALONE", 1)
    net = graph()
    x = images(count, (2, 9, 8))[0]
    want = net.forward(x, workers=1)
    for workers in (2, 3, 7):
        np.testing.assert_array_equal(net.forward(x, workers=workers), want)
        np.testing.assert_array_equal(net.predict(x, workers=workers), want.argmax(1))
        assert len(net._engines.idle[workers]) == 1
    monkeypatch.setenv("CHAOS_NUM_THREADS", "5")
    other = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(other.forward(x), want)
    np.testing.assert_array_equal(other.forward(x[:1]), want[:1])
    assert {n: len(engines) for n, engines in other._engines.idle.items()} == {1: 1, 5: 1}


def test_little_work_and_predictions_at_the_same_time_get_one_worker(monkeypatch):
    monkeypatch.setenv("CHAOS_NUM_THREADS", "3")
    net, x = graph(), images(9, (2, 9, 8))[0]
    assert net._work() * 9 < chaos.engines.ALONE
    net.forward(x)
    assert list(net._engines.idle) == [1]
    monkeypatch.setattr(chaos.engines, "ALONE", 1)
    with net._predicting():
        net.forward(x)
    assert list(net._engines.idle) == [1]


def test_a_number_of_workers_that_is_none_is_refused():
    with pytest.raises(ValueError, match="workers=0"):
        graph().forward(images(2, (2, 9, 8))[0], workers=0)


def test_the_largest_output_is_that_of_numpy():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, (2_000, 7)).astype(np.float32)
    y[rng.random(y.shape) < 0.05] = np.nan
    y[rng.random(y.shape) < 0.05] = -np.inf
    found = np.empty(len(y), np.int64)
    _core.largest(y, found)
    np.testing.assert_array_equal(found, y.argmax(1))
    with pytest.raises(ValueError, match="3 rows of 0 numbers"):
        _core.largest(y[:3, :0].copy(), found[:3])
    with pytest.raises(ValueError, match="and 4 places"):
        _core.largest(y[:3], found[:4])


def test_short_calls_keep_the_interpreters_lock_and_long_ones_let_others_run():
    net, large = chaos.models.small(), chaos.models.large()
    image = np.zeros((1, 1, 29, 29), np.float32)
    for one in net, large:
        one.predict(image)
        one.update(image[0], 3)
    for one, brief in ((net, True), (large, False)):
        assert all((engine.brief > 0) == brief for engine in one._engines.idle[1])
        assert all((engine.brief > 0) == brief for engine in one._learner._engines.values())
    assert net._engines.idle[1][0].brief < 100  # images
    counted, over = [0], threading.Event()

    def count():
        while not over.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        many = np.zeros((2_000, 1, 29, 29), np.float32)
        for _ in range(100):
            before = counted[0]
            large.predict(many, workers=1)
            if counted[0] > before + 1_000:  # more than while this thread waits for the lock
                break
        else:
            pytest.fail("nobody else runs while a network predicts")
    finally:
        over.set()
        thread.join(60)


@pytest.mark.skipif(not chaos._core.OPENMP, reason="built without OpenMP")
def test_where_the_system_gives_no_threads_one_worker_predicts():
    code = (
        "import chaos, numpy as np\nnet = chaos.models.small()\nx = np.zeros((64, 1, 29, 29), np.float32)\n"
        "assert net._work() * 64 > chaos.engines.ALONE\n"
        "assert (net.forward(x) == net.forward(x, workers=1)).all()\n"
        "try: net.forward(x, workers=2)\n"
        "except RuntimeError as error: assert 'OMP_THREAD_LIMIT' in str(error)\n"
        "else: raise SystemExit('no error')"
    )
    environ = {**os.environ, "OMP_THREAD_LIMIT": "1", "CHAOS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environ)


def test_predictions_share_no_lock():
    net, x = graph(), images(2, (2, 9, 8))[0]
    want = net.forward(x)
    with net._lock, net._predicting(), net._predicting():  # others are about to change the network, and predict
        with ThreadPoolExecutor(1) as pool:
            np.testing.assert_array_equal(pool.submit(net.forward, x).result(timeout=60), want)


def test_weights_move_when_no_prediction_reads_them():
    net = network()
    lent = net._predicting()
    lent.__enter__()
    moved = threading.Event()

    def move():
        net.move_weights(chaos.network.aligned_zeros(net.weights.size))
        moved.set()

    thread = threading.Thread(target=move)
    thread.start()
    assert not moved.wait(0.05)
    lent.__exit__()
    thread.join(60)
    assert moved.is_set()


def test_updates_from_many_threads_are_all_there():
    net = counters()

    def count(label):
        for _ in range(200):
            net.update(ONE, label, loss="score", lr=1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, (0, 0, 0, 1)))
    np.testing.assert_array_equal(net.state_dict()["0.weight"].ravel(), [600, 200])


def test_a_prediction_reads_numbers_that_updates_have_left():
    """And never older ones than it has read before."""
    net = counters()
    over = threading.Event()

    def look():
        before, seen = np.zeros(2), 0
        while not over.is_set():
            found = net.forward(ONE[None])[0]
            assert (found == np.floor(found)).all() and (found >= before).all() and (found <= 2000).all()
            before, seen = found, seen + 1
        return seen

    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        for i in range(4000):
            net.update(ONE, i % 2, loss="score", lr=1)
        over.set()
        assert all(one.result() for one in looking)
    np.testing.assert_array_equal(net.forward(ONE[None]), [[2000, 2000]])
