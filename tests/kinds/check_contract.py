"""What the contract promises of random layers, of state and of whole batches; run by tests/test_registration.py in a copy of
the tree that knows the kinds of this folder."""

import numpy as np
import pytest

import chaos
from chaos import _core
from chaos.network import run_key
from chaos.reference import forward, loss_and_gradients
from chaos.virtual import ORDERS, Virtual

SHARING = ["chaos", "hogwild", "locked", "leashed", "delayed", "averaging", "elastic", "replicated"]


def images(n=48, seed=0):
    rng = np.random.default_rng(seed)
    return chaos.data.Dataset(rng.integers(0, 256, (n, 2, 9, 9), np.uint8), rng.integers(0, 5, n), classes=5)


def random_net(seed=3):
    return chaos.Network(
        (2, 9, 9),
        [
            chaos.Conv2d(6, 3),
            chaos.Ramp(0.2),
            chaos.MaxPool2d(2),
            chaos.Drops(0.3),
            chaos.Flatten(),
            chaos.Drops(0.5),
            chaos.Linear(5),
        ],
        seed=seed,
    )


def normal_net(seed=3):
    return chaos.Network(
        (2, 9, 9),
        [chaos.Conv2d(6, 3), chaos.RunningNorm(momentum=0.2, name="norm"), chaos.Ramp(), chaos.Flatten(), chaos.Linear(5)],
        seed=seed,
    )


def weights(make, **options):
    net = make()
    run = chaos.train(net, images(), epochs=2, lr=0.05, progress=False, **({"workers": 1} | options))
    return net.state_dict(), run.history


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("make", [random_net, normal_net])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 11])
@pytest.mark.parametrize("strategy", ["chaos", "locked", "leashed", "replicated"])
def test_one_worker_is_sequential(make, batch_size, strategy):
    wanted, history = weights(make, strategy="sequential", batch_size=batch_size)
    found, other = weights(make, strategy=strategy, batch_size=batch_size)
    assert same(found, wanted) and other[-1]["train_loss"] == history[-1]["train_loss"]


def test_masks_are_of_the_image_whoever_draws_them():
    """A step's mean gradient is the same sum of images' gradients in chunks, in lanes, and one by one, up to rounding; the
    masks are drawn as the definition says."""
    net, data = random_net(), images(16)
    loss, gradients = net.loss_and_gradients(data.images, data.labels, seed=7, epoch=2)
    wanted_loss, wanted = loss_and_gradients(net, data.images, data.labels, key=run_key(7, 2))
    assert abs(loss - wanted_loss) < 1e-5
    for name, value in wanted.items():
        np.testing.assert_allclose(gradients[name], value, rtol=0, atol=1e-5)
    other, _ = net.loss_and_gradients(data.images, data.labels, seed=8, epoch=2)
    assert other != loss


@pytest.mark.parametrize("strategy", ["synchronous", "hybrid"])
def test_masks_do_not_depend_on_the_number_of_workers(strategy):
    one, _ = weights(random_net, strategy=strategy, batch_size=16, workers=1)
    three, _ = weights(random_net, strategy=strategy, batch_size=16, workers=3)
    assert same(one, three)


def test_evaluation_is_neither_random_nor_of_the_batch():
    data = images(20)
    for net in (random_net(), normal_net()):
        chaos.train(net, data, epochs=1, batch_size=4, workers=1, lr=0.05, progress=False)
        wanted = forward(net, data.images)[net.outputs[0]]
        np.testing.assert_allclose(net.forward(data.images), wanted, rtol=0, atol=2e-5)
        np.testing.assert_array_equal(net.forward(data.images)[:3], net.forward(data.images[:3]))


def test_statistics_are_the_definition_step_by_step():
    net, data = normal_net(), images(40)
    state = {name: value.astype(float) for name, value in net.state_dict().items()}
    chaos.train(net, data, epochs=1, batch_size=10, workers=1, lr=0.05, strategy="sequential", shuffle=False, progress=False)
    for step in range(4):
        some = slice(10 * step, 10 * step + 10)
        _, gradients = loss_and_gradients(net, data.images[some], data.labels[some], state=state)
        for name in state:
            if name.startswith("norm.running"):
                state[name] = state[name] + 0.2 * (gradients[name] - state[name])
            else:
                state[name] = state[name] - 0.05 * gradients[name]
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(value, state[name], rtol=0, atol=1e-4)
    assert np.abs(net.state_dict()["norm.running_mean"]).max() > 0


@pytest.mark.parametrize("update", ["momentum", "adam", "adamw", "rmsprop"])
def test_update_rules_do_not_touch_state(update):
    """No decay, clipping or moments: at learning rate 0 (almost) what is observed is that of plain descent."""

    def statistics(**options):
        net = normal_net()
        chaos.train(
            net, images(), epochs=1, batch_size=8, workers=1, lr=1e-30, strategy="sequential", progress=False, **options
        )
        return {name: value for name, value in net.state_dict().items() if name.startswith("norm.running")}

    more = dict(weight_decay=0.5, clip_value=1e-3, clip_norm=1e-3, max_norm=5.0)
    assert same(statistics(), statistics(update=update, update_options=more))


@pytest.mark.parametrize("strategy", SHARING)
def test_several_workers_keep_state_sound(strategy):
    net = normal_net()
    run = chaos.train(net, images(96), epochs=3, batch_size=6, workers=3, lr=0.02, strategy=strategy, progress=False)
    state = net.state_dict()
    assert all(np.isfinite(value).all() for value in state.values())
    assert (state["norm.running_var"] > 0).all() and np.abs(state["norm.running_mean"]).max() > 0
    assert "norm" in run.history[-1]["layers"]


def test_instant_updates_observe_too():
    net = normal_net()
    options = dict(strategy="hogwild", strategy_options={"grain": "instant"})
    chaos.train(net, images(), epochs=1, batch_size=8, workers=1, lr=0.02, progress=False, **options)
    assert np.isfinite(net.weights).all() and np.abs(net.state_dict()["norm.running_mean"]).max() > 0


@pytest.mark.parametrize("strategy", ["synchronous", "hybrid"])
def test_steps_in_lanes_refuse_whole_batches(strategy):
    with pytest.raises(ValueError, match="RunningNorm.*whole"):
        chaos.train(normal_net(), images(), epochs=1, batch_size=8, workers=1, strategy=strategy, progress=False)


@pytest.mark.parametrize("make", [random_net, normal_net])
def test_stopped_and_resumed(make, tmp_path):
    wanted, _ = weights(make, strategy="sequential", batch_size=4)
    for epochs in (1, 2):
        net = make()
        chaos.train(
            net,
            images(),
            epochs=epochs,
            lr=0.05,
            workers=1,
            strategy="sequential",
            batch_size=4,
            progress=False,
            run_dir=tmp_path / "run",
            resume=epochs > 1,
        )
    assert same(net.state_dict(), wanted)
    assert same(chaos.load(tmp_path / "run/model.safetensors").state_dict(), wanted)


@pytest.mark.parametrize("make", [random_net, normal_net])
def test_traced_and_replayed(make, tmp_path):
    from chaos import virtual

    net, trace = make(), tmp_path / "trace"
    with virtual.Traced(trace) as runner:
        chaos.train(net, images(), epochs=2, lr=0.05, batch_size=4, workers=3, runner=runner, progress=False)
    assert same(virtual.replay(trace, images()).state_dict(), net.state_dict())


@pytest.mark.parametrize("make", [random_net, normal_net])
def test_virtual_workers(make):
    from chaos import virtual

    found = []
    for _ in range(2):
        net = make()
        runner = virtual.Virtual()
        chaos.train(net, images(), epochs=1, lr=0.02, batch_size=2, workers=7, runner=runner, progress=False)
        found.append(net.state_dict())
    assert same(*found) and all(np.isfinite(value).all() for value in found[0].values())


@pytest.mark.parametrize("strategy", ["chaos", "replicated"])
def test_state_stays_between_what_it_was_and_what_is_observed(strategy):
    """However stale: 100 virtual workers, a large rate, weights that (almost) stay, so that all observations are alike."""
    from chaos import virtual

    net = chaos.Network(
        (1, 3, 3),
        [chaos.Conv2d(2, 1), chaos.RunningNorm(momentum=0.5, name="norm"), chaos.Flatten(), chaos.Linear(2)],
        seed=0,
    )
    rng = np.random.default_rng(0)
    data = chaos.data.Dataset(rng.standard_normal((600, 1, 3, 3), np.float32), rng.integers(0, 2, 600), classes=2)
    options = {"group": 4, "period": 1, "rule": "sum"} if strategy == "replicated" else {}
    chaos.train(
        net,
        data,
        epochs=1,
        lr=1e-30,
        batch_size=2,
        workers=100,
        strategy=strategy,
        progress=False,
        runner=virtual.Virtual(),
        strategy_options=options,
    )
    state = net.state_dict()
    assert 0 < state["norm.running_var"].min() and state["norm.running_var"].max() < 3
    assert np.abs(state["norm.running_mean"]).max() < 3


def test_the_activation_moves_behind_the_pooling_where_it_increases():
    def first_kinds(slope):
        x = chaos.Input((2, 8, 8))
        net = chaos.Network(x, chaos.MaxPool2d(2)(chaos.Ramp(slope)(chaos.Conv2d(3, 3)(x))))
        return [type(layer).__name__ for _, layer, _ in net.core_layers()]

    assert first_kinds(0.1) == ["Conv2d", "MaxPool2d", "Ramp"]
    assert first_kinds(-0.1) == ["Conv2d", "Ramp", "MaxPool2d"]


def test_names_and_counts():
    net = normal_net()
    assert list(net.state_dict())[2:6] == ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]
    assert net.n_parameters == 6 * 18 + 6 + 12 + 294 * 5 + 5
    assert _core.layer_kinds()["running_norm"] == {"weight": False, "bias": False, "running_mean": True, "running_var": True}


def test_a_loss_without_right_and_wrong():
    rng = np.random.default_rng(0)
    data = chaos.data.Dataset(rng.standard_normal((32, 4), np.float32), targets=rng.standard_normal((32, 2), np.float32))
    net = chaos.Network((4,), [chaos.Linear(2)])
    run = chaos.train(
        net, data, data, loss="log_cosh", loss_options={"sharpness": 2.0}, epochs=2, lr=0.1, workers=1, progress=False
    )
    assert run.history[-1]["test_error"] is None and run.history[-1]["test_loss"] < run.history[0]["test_loss"]


def test_a_strategy_with_an_order_can_be_simulated():
    """Its worker does what the real one does, on the clock."""
    train = chaos.data.load("digits", size=29)[0][:60]
    nets = chaos.models.small(seed=4), chaos.models.small(seed=4)
    for net, runner in zip(nets, (None, Virtual()), strict=True):
        chaos.train(net, train, strategy="eager", workers=1, epochs=1, lr=0.01, progress=False, runner=runner)
    assert "eager" in ORDERS and (nets[0].weights == nets[1].weights).all()


def test_an_augmentation_is_known_by_its_name():
    data, steps = images(), ["inverts:threshold=100.5,p=0.7", "shift:1"]
    seen = chaos.augment.preview(data, steps, len(data))
    np.testing.assert_allclose(seen, chaos.augment.define(data.images, steps), atol=1e-6)
    assert (seen != chaos.augment.preview(data, "shift:1", len(data))).any()
    assert chaos.augment.steps("inverts")[0].config() == {"kind": "inverts", "p": 1.0, "top": 255.0, "threshold": 128.0}
    assert weights(random_net, augment=steps)[1][-1]["train_loss"] > 0
