"""What the contract lets a network be beside a chain with one input and classes: shared weights, several inputs, outputs
that are images, other targets. What needs kinds of its own is in test_registration.py."""

import pickle

import numpy as np
import pytest
from nets import Oracle

import chaos
from chaos import _core, bench, virtual
from chaos.errors import DataError
from chaos.sync import STRATEGIES


def siamese(seed=2):
    """Two inputs through one convolution and one linear layer, which is used a third time further on."""
    a, b = chaos.Input((1, 8, 8)), chaos.Input((1, 8, 8))
    conv, deep = chaos.Conv2d(4, 3, name="conv"), chaos.Linear(6, name="deep")
    ends = [deep(chaos.Flatten()(chaos.MaxPool2d(3)(chaos.Tanh()(conv(x))))) for x in (a, b)]
    joined = chaos.Add()(*[chaos.Tanh()(end) for end in ends])
    again = chaos.Linear(16)(joined)
    return chaos.Network([a, b], chaos.Linear(5)(chaos.Add()(joined, deep(chaos.Tanh()(again)))), seed=seed)


def pairs(n=40, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 1, 8, 8), np.uint8), rng.standard_normal((n, 1, 8, 8), np.float32)
    return chaos.data.Dataset(images, rng.integers(0, 5, n), classes=5)


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("n", [1, 3, 20])
def test_shared_weights_and_several_inputs_against_the_definition(isa, n):
    data = pairs(n)
    Oracle(siamese(), data.images, data.labels).check(data.images)


def test_shared_weights_have_one_name():
    net = siamese()
    names = [name.rpartition(".")[0] for name in net.state_dict()]
    assert names[::2] == names[1::2] and len(set(names)) == 4 and {"conv", "deep"} < set(names)
    assert net.n_parameters == 4 * 9 + 4 + 16 * 6 + 6 + 6 * 16 + 16 + 6 * 5 + 5


def test_described_saved_and_pickled(tmp_path):
    net, x = siamese(), pairs().images
    net.save(tmp_path / "net.safetensors")
    for other in (chaos.load(tmp_path / "net.safetensors"), pickle.loads(pickle.dumps(net))):
        assert other.config() == net.config() and same(other.state_dict(), net.state_dict())
        np.testing.assert_array_equal(other.forward(x), net.forward(x))
        np.testing.assert_array_equal(other.predict(x), net.forward(x).argmax(1))


@pytest.mark.parametrize("strategy", [name for name, s in STRATEGIES.items() if s.equals_sequential])
@pytest.mark.parametrize("batch_size", [1, 9])
def test_one_worker_is_sequential_with_shared_weights(strategy, batch_size):
    found = []
    for one in ("sequential", strategy):
        net = siamese()
        options = dict(epochs=2, lr=0.02, batch_size=batch_size, workers=1, update="momentum", progress=False)
        chaos.train(net, pairs(), strategy=one, **options)
        found.append(net.state_dict())
    if strategy == "synchronous" and batch_size > 1:
        return  # its sums are put into brackets by lanes
    assert same(*found)


@pytest.mark.parametrize("strategy", ["synchronous", "hybrid"])
def test_shared_weights_in_lanes(strategy):
    found = []
    for workers in (1, 3):
        net = siamese()
        chaos.train(net, pairs(), strategy=strategy, epochs=2, lr=0.02, batch_size=12, workers=workers, progress=False)
        found.append(net.state_dict())
    assert same(*found)


def test_no_update_of_shared_weights_is_lost():
    """The score's gradient does not depend on the weights of a linear network, so its sum over a run is known."""
    a, b = chaos.Input((3,)), chaos.Input((3,))
    layer = chaos.Linear(2, bias=False)
    net = chaos.Network([a, b], chaos.Add()(layer(a), layer(b)))
    rng = np.random.default_rng(0)
    x, labels = [rng.integers(-3, 4, (600, 3)).astype(np.float32) for _ in range(2)], rng.integers(0, 2, 600)
    net.weights[:] = 0
    data = net.take_images(x)
    engine = _core.Engine(net.plan, net.weights, workers=4, strategy="chaos", loss="score", stripe_bytes=64)
    engine.run("train", data["inputs"], labels=labels, lr=1.0)
    wanted = np.stack([sum(one[labels == k].sum(0) for one in x) for k in range(2)])
    np.testing.assert_array_equal(net.state_dict()["0.weight"], wanted)


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_shared_weights_traced_and_replayed(tmp_path, batch_size):
    net = siamese()
    with virtual.Traced(tmp_path / "trace") as runner:
        chaos.train(net, pairs(), epochs=2, lr=0.02, batch_size=batch_size, workers=3, runner=runner, progress=False)
    for jobs in (1, 2):
        assert same(virtual.replay(tmp_path / "trace", pairs(), jobs=jobs).state_dict(), net.state_dict())


def two_inputs():
    a, b = chaos.Input((1, 8, 8)), chaos.Input((1, 8, 8))
    return chaos.Network([a, b], chaos.Linear(5)(chaos.Add()(chaos.Flatten()(a), chaos.Linear(64)(chaos.Flatten()(b)))))


def test_several_inputs_are_not_simulated_nor_timed():
    net = two_inputs()
    times = virtual.nominal(chaos.models.small())
    for call in (
        lambda: chaos.train(net, pairs(), epochs=1, workers=9, runner=virtual.Virtual(), progress=False),
        lambda: chaos.train(net, pairs(), epochs=1, workers=9, runner=virtual.Virtual(times=times), progress=False),
        lambda: virtual.predict(net, 9, images=10),
        lambda: virtual.predict(net, 9, images=10, times=times),
        lambda: virtual.nominal(net),
        lambda: virtual.measured(net),
    ):
        with pytest.raises(ValueError, match="2 inputs cannot be simulated"):
            call()
    for call in (bench.kernels, bench.throughput, bench.scaling):
        with pytest.raises(ValueError, match="2 inputs cannot be measured"):
            call(net)


def test_no_input_is_timed_as_a_layer():
    net, data = two_inputs(), pairs()
    engine = _core.Engine(net.plan, net.weights)
    timer = _core.Bench(engine, times=True)
    engine.run("gradients", net.take_images(data.images)["inputs"], labels=data.labels, end=1)
    inputs = [i for i, (node, _) in enumerate(net.nodes()) if node.layer is None]
    assert len(inputs) == 2
    for i in inputs:
        for what in _core.PASSES:
            with pytest.raises(ValueError, match=f"node {i} is an input"):
                timer.time(i, what)
            with pytest.raises(ValueError, match=f"of node {i}"):
                timer.loop(i, what)


def test_shared_weights_are_not_simulated():
    with pytest.raises(ValueError, match="share weights"):
        chaos.train(siamese(), pairs(), epochs=1, workers=9, runner=virtual.Virtual(), progress=False)


def test_wrong_inputs():
    net, data = siamese(), pairs(4)
    for bad, words in (
        (data.images[0], "2 inputs"),
        ([data.images[0]], "2 inputs"),
        ([data.images[0], data.images[1][:3]], "different numbers"),
        ([data.images[0], data.images[1][:, :, 1:]], "the network wants"),
    ):
        with pytest.raises(DataError, match=words):
            net.forward(bad)
    with pytest.raises(DataError, match="as many are needed"):
        chaos.data.Dataset((data.images[0], data.images[1][:2]), [0, 1, 2, 3])


def test_images_that_come_out_are_in_pytorchs_order():
    net = chaos.Network((2, 1, 3), [chaos.ReLU()])
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 2, 1, 3)
    np.testing.assert_array_equal(net.forward(x), x)
    assert net.predict(x).tolist() == [[[1, 1, 1]]]


def test_a_map_of_classes_is_learned():
    """A pixel's class is whether it is bright: error and loss are per pixel."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (200, 1, 6, 6), np.uint8)
    data = chaos.data.Dataset(x, targets=(x[:, 0] > 127).astype(int))
    net = chaos.Network((1, 6, 6), [chaos.Conv2d(4, 1), chaos.Tanh(), chaos.Conv2d(2, 1)], seed=0)
    run = chaos.train(net, data, data, epochs=6, lr=0.5, lr_decay=1.0, batch_size=4, workers=1, progress=False)
    wrong = (net.predict(x) != data.labels).mean()
    assert run.history[-1]["test_error"] == pytest.approx(wrong, abs=1e-12) and wrong < 0.05
    assert chaos.evaluate(net, data, workers=1)["error"] == run.history[-1]["test_error"]


def test_values_and_several_answers_are_learned():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 3), np.float32)
    y = x @ rng.standard_normal((3, 2)).astype(np.float32)
    options = dict(epochs=8, lr=0.1, lr_decay=1.0, workers=1, progress=False)
    net = chaos.Network((3,), [chaos.Linear(2)])
    run = chaos.train(net, chaos.data.Dataset(x, targets=y), loss="mse", **options)
    assert run.history[-1]["train_error"] is None and run.history[-1]["train_loss"] < 1e-3
    answers = chaos.data.Dataset(x, targets=(y > 0).astype(np.float32))
    run = chaos.train(net, answers, answers, loss="binary_cross_entropy", **options)
    assert run.history[-1]["test_error"] == ((net.forward(x) > 0) != (y > 0)).mean() < 0.05


def test_weights_of_images():
    """An image of weight 2 is one that comes twice; one of weight 0 changes nothing."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 4), np.float32), np.arange(6) % 3
    net = chaos.Network((4,), [chaos.Linear(3)])
    twice = np.r_[0, 0, 1:5]
    loss, gradients = net.loss_and_gradients(x, y, sample_weight=[2, 1, 1, 1, 1, 0])
    wanted_loss, wanted = net.loss_and_gradients(x[twice], y[twice])
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    for name in wanted:
        np.testing.assert_allclose(gradients[name], wanted[name], rtol=0, atol=1e-6)
    data = chaos.data.Dataset(x, y, weights=np.zeros(6))
    before = net.state_dict()
    chaos.train(net, data, epochs=1, workers=1, progress=False)
    assert same(net.state_dict(), before)
    with pytest.raises(DataError, match="must not be negative"):
        chaos.data.Dataset(x, y, weights=[1, 1, 1, 1, 1, -1])


def test_sequences_against_the_definition(isa):
    net = chaos.Network(
        (3, 30),
        [chaos.Conv1d(8, 5, padding="same"), chaos.ReLU(), chaos.Conv1d(4, 3, stride=2), chaos.Flatten(), chaos.Linear(4)],
        seed=1,
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3, 30), np.float32)
    Oracle(net, x, rng.integers(0, 4, 5)).check(x)
