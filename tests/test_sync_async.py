"""Asynchronous strategies: what each option means, against a plain simulation where one worker makes it deterministic."""

import math

import numpy as np
import pytest
from nets import graph, images, one_layer

import chaos
from chaos import _core
from chaos.network import aligned_zeros
from chaos.sync import STRATEGIES
from chaos.sync.base import STALENESS_BINS, Asynchronous
from chaos.updates import UPDATES

ASYNCHRONOUS = [name for name, strategy in STRATEGIES.items() if isinstance(strategy, Asynchronous)]


def run(net, x, y, strategy, lr=0.05, workers=1, options=None, epochs=1, step_scale=None, **engine_options):
    """Trains with the core's engine; the results of the phases."""
    options = STRATEGIES[strategy].resolve(options or {})
    engine = _core.Engine(
        net.plan,
        net.weights,
        workers=workers,
        strategy=strategy,
        stripe_bytes=options["stripe_bytes"],
        strategy_options=STRATEGIES[strategy].core_options(options),
        max_staleness=options.get("max_staleness"),
        **engine_options,
    )
    data = net.take_images(x)
    return [
        engine.run("train", data["inputs"], labels=np.asarray(y, np.int64), lr=lr, step_scale=step_scale)
        for _ in range(epochs)
    ]


@pytest.mark.parametrize("strategy", [name for name in ASYNCHRONOUS if STRATEGIES[name].equals_sequential])
@pytest.mark.parametrize("rule", UPDATES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_worker_keeps_the_rules_state_as_sequential_does(strategy, rule, batch_size):
    """Weights, moments and numbers of updates, after several phases, to the last bit."""
    found = []
    for name in ("sequential", strategy):
        net = graph(seed=4)
        x, y = images(40, net.input_shape, classes=5)
        moments = aligned_zeros((UPDATES[rule].moments, len(net.weights)))
        engine = _core.Engine(
            net.plan,
            net.weights,
            strategy=name,
            update=rule,
            moments=moments,
            batch_size=batch_size,
            update_options=UPDATES[rule].core_options(UPDATES[rule].resolve({})),
        )
        for begin in (0, 11, 29):
            engine.run("train", inputs=net.take_images(x)["inputs"], labels=y, begin=begin, lr=0.01)
        found.append((net.weights.tobytes(), moments.tobytes(), engine.versions()))
    assert found[0] == found[1]


def visits(strategy, workers, n=503, epochs=1, **options):
    """How often each image was applied, and the results: image i is the one-hot vector i, so column i of a linear layer
    changes by 1 for each time."""
    net = one_layer((n,), chaos.Linear(2, bias=False))
    net.load_state_dict({"0.weight": np.zeros((2, n), np.float32)})
    y = np.arange(n) % 2
    results = run(net, np.eye(n, dtype=np.float32), y, strategy, 1.0, workers, options, epochs, loss="score")
    assert all(result["status"] == "done" and result["images"] == n for result in results)
    weight = net.state_dict()["0.weight"]
    assert not weight[1 - y, np.arange(n)].any()
    return weight[y, np.arange(n)], results


# ---- options that they have in common ----


def resolved(name="chaos", **options):
    return STRATEGIES[name].resolve(options)


def test_common_options_are_offered_where_they_make_sense():
    assert "chaos" in ASYNCHRONOUS and "hogwild" in ASYNCHRONOUS and "sequential" not in ASYNCHRONOUS
    with pytest.raises(ValueError, match="strategy 'sequential' has no option 'max_staleness'; its options: stripe_bytes"):
        STRATEGIES["sequential"].resolve({"max_staleness": 3})
    with pytest.raises(ValueError, match="staleness_step of .* must be one of none, inverse, tail, fleet, not 'x'"):
        resolved(staleness_step="x")
    with pytest.raises(ValueError, match="max_staleness .* at least 0"):
        resolved(max_staleness=-1)


def test_step_scale_tables():
    scale = STRATEGIES["chaos"].step_scale
    assert scale(resolved(), 4, []) is None and scale(resolved(staleness_step="tail"), 4, []) is None
    np.testing.assert_array_equal(
        scale(resolved(staleness_step="inverse"), 4, []), (1 / np.arange(1, STALENESS_BINS + 1)).astype(np.float32)
    )
    # a quarter of the updates had staleness 0, half 1, a quarter 3: less stale than 0, 1, 2, 3, 4 were 0, 1/4, 3/4, 3/4, 1
    tail = scale(resolved(staleness_step="tail"), 4, [25, 50, 0, 25])
    assert tail[:5].tolist() == [2, 1.5, 0.5, 0.5, 0] and not tail[4:].any()
    assert np.dot(tail[:4], [25, 50, 0, 25]) / 100 == pytest.approx(1.375)
    # t = 3: exp(-b t / 2) = 1 / (1 + t / 2)
    for histogram in ([], [1, 2, 996, 1], [3, 0, 0, 997]):
        fleet = scale(resolved(staleness_step="fleet"), 4 if not histogram else 50, histogram)
        t = 2 if sum(histogram[:3]) == 999 else 3
        assert fleet[0] == 1 and fleet[4] == pytest.approx(math.exp(-8 / t * math.log(1 + t / 2)), rel=1e-6)
        assert (np.diff(fleet[:50]) < 0).all()
    assert scale(resolved(staleness_step="fleet"), 1, [100])[1] == pytest.approx(math.exp(-2 * math.log(1.5)))


@pytest.mark.parametrize("strategy", ASYNCHRONOUS)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_step_scale_multiplies_the_rate(strategy, batch_size):
    """With one worker nothing is stale: a factor of 1/2 for staleness 0 is half the rate, to the last bit."""
    weights = []
    for lr, table in ((0.05, [0.5] + [math.nan] * 511), (0.025, None)):
        net = graph(seed=4)
        x, y = images(40, net.input_shape, classes=5)
        run(net, x, y, strategy, lr, batch_size=batch_size, step_scale=table and np.array(table, np.float32))
        weights.append(net.weights.tobytes())
    assert weights[0] == weights[1]
    with pytest.raises(ValueError, match="512 factors, not 3"):
        run(net, x, y, strategy, step_scale=np.ones(3, np.float32))


@pytest.mark.parametrize("strategy", ASYNCHRONOUS)
@pytest.mark.parametrize("bound, workers", [(0, 4), (1, 8), (2, 4), (5, 8)])
def test_staleness_stays_within_the_bound(strategy, bound, workers):
    """More workers than cores, so that some lose their core in the middle of a step; stripes are small, so that walks
    interleave."""
    net = chaos.models.small()
    x, y = images(300, net.input_shape)
    options = {"max_staleness": bound, "stripe_bytes": 256}
    if strategy == "replicated":
        options["group"] = workers - 1  # alone, nobody is ever late
    for batch_size in (1, 3):
        for result in run(net, x, y, strategy, 1e-3, workers, options, 3, batch_size=batch_size):
            assert result["status"] == "done" and result["images"] == 300
            assert result["staleness_max"] <= bound and sum(result["staleness"]) == result["updates"]


@pytest.mark.parametrize("strategy, bound", [(s, b) for s in ASYNCHRONOUS for b in (None, 0, 1, 3)] + [("elastic", None)])
def test_nobody_is_left_waiting(strategy, bound):
    """Fewer images than workers; a phase that fails; a phase that was stopped; and one after them."""
    net = chaos.models.small()
    x, y = images(60, net.input_shape)
    before = net.weights.copy()
    options = resolved(strategy)
    engine = _core.Engine(
        net.plan,
        net.weights,
        workers=8,
        strategy=strategy,
        max_staleness=bound,
        strategy_options=STRATEGIES[strategy].core_options(options),
    )
    values = net.take_images(x)["inputs"]
    assert engine.run("train", inputs=values, labels=y, end=3, lr=1e-3)["images"] == 3
    assert engine.run("train", inputs=values, labels=y, begin=60, lr=1e-3)["status"] == "done"
    assert engine.run("train", inputs=values, labels=y, order=np.arange(60).repeat(50), lr=1e38)["status"] == "diverged"
    net.weights[:] = before
    engine.stop()
    assert engine.run("train", inputs=values, labels=y, lr=1e-3)["images"] == 0
    engine.clear()
    result = engine.run("train", inputs=values, labels=y, lr=1e-3)
    assert result["images"] == 60 and (bound is None or result["staleness_max"] <= bound)
    assert engine.run("test", inputs=values, labels=y)["images"] == 60


def test_rate_scales_with_workers():
    train, _ = chaos.data.load("digits", size=29)
    for how, want in (("none", 1), ("linear", 4), ("sqrt", 2)):
        run = chaos.train(
            chaos.models.small(),
            train[:50],
            workers=4,
            epochs=2,
            lr=1e-3,
            progress=False,
            strategy_options={"lr_scale": how},
        )
        assert [record["lr"] for record in run.history] == [want * 1e-3, want * 1e-3 * 0.9]
    run = chaos.train(
        chaos.models.small(),
        train[:50],
        workers=4,
        epochs=2,
        lr=1e-3,
        progress=False,
        lr_schedule="cosine",
        schedule_options={"t_max": 1, "eta_min": 5e-4},
        strategy_options={"lr_scale": "linear"},
    )
    assert [record["lr"] for record in run.history] == [4e-3, 2e-3], "the whole schedule is scaled"
    with pytest.raises(ValueError, match="lead to a learning rate of 4e\\+38 in epoch 1"):
        chaos.train(
            chaos.models.small(),
            train[:50],
            workers=4,
            epochs=1,
            lr=1e38,
            progress=False,
            strategy_options={"lr_scale": "linear"},
        )


def test_training_with_every_staleness_step():
    train, _ = chaos.data.load("digits", size=29)
    for kind in ("inverse", "tail", "fleet"):
        history = chaos.train(
            chaos.models.small(),
            train[:300],
            workers=4,
            epochs=3,
            lr=5e-3,
            progress=False,
            strategy_options={"staleness_step": kind, "max_staleness": 6},
        ).history
        assert history[2]["train_loss"] < history[0]["train_loss"]
        assert all(record["staleness"]["max"] <= 6 for record in history)


# ---- hogwild ----


@pytest.mark.parametrize("batch_size", [1, 3, 20, 100])
def test_instant_grain_is_sgd(isa, batch_size):
    """One linear layer: no input gradient, so only rounding differs from SGD, and the chunks of a large step, each of which
    reads what the one before has written."""
    net, other = (one_layer((37,), chaos.Linear(10), seed=3) for _ in range(2))
    count, together = 2 * net.plan.together + 5, net.plan.together
    x, y = images(count, net.input_shape)
    result = run(net, x, y, "hogwild", 0.1, options={"grain": "instant"}, batch_size=batch_size)[0]
    assert result["images"] == count and result["updates"] == -(-count // batch_size)
    for step in range(0, count, batch_size):
        end = min(step + batch_size, count)
        for chunk in range(step, end, together):
            part = slice(chunk, min(chunk + together, end))
            _, gradients = other.loss_and_gradients(x[part], y[part])
            share = np.float32(0.1 * len(y[part]) / (end - step))
            other.load_state_dict({k: v - share * gradients[k] for k, v in other.state_dict().items()})
    np.testing.assert_allclose(net.weights, other.weights, rtol=0, atol=count * 2.0**-24 * np.abs(net.weights).max() * 4)


@pytest.mark.parametrize("workers", [1, 4])
def test_instant_grain_trains_whole_networks(isa, workers):
    """The padding stays zero, every image is seen, the error falls."""
    net = graph(seed=1)
    x, y = images(60, net.input_shape, classes=5)
    results = run(net, x, y, "hogwild", 0.02, workers, {"grain": "instant"}, 20, batch_size=2)
    assert results[-1]["loss"] < 0.8 * results[0]["loss"]
    kept = net.weights.copy()
    net.load_state_dict({k: np.ones_like(v) for k, v in net.state_dict().items()})
    places = net.weights != 0
    assert not kept[~places].any() and kept[places].any()


def test_instant_grain_at_rate_zero():
    net = graph(seed=1)
    x, y = images(20, net.input_shape, classes=5)
    before = net.weights.copy()
    run(net, x, y, "hogwild", 0.0, options={"grain": "instant"})
    assert (net.weights == before).all()


def test_instant_grain_is_for_plain_sgd():
    train, _ = chaos.data.load("digits", size=29)
    with pytest.raises(ValueError, match="grain='instant' .* staleness_step must be 'none', not 'tail'"):
        chaos.train(
            chaos.models.small(),
            train[:10],
            strategy="hogwild",
            progress=False,
            strategy_options={"grain": "instant", "staleness_step": "tail"},
        )
    with pytest.raises(ValueError, match="the update rule 'sgd' without options, not 'adam', beta1=0.9; grain"):
        STRATEGIES["hogwild"].check(resolved("hogwild", grain="instant"), "adam", {"beta1": 0.9, "weight_decay": 0})
    STRATEGIES["hogwild"].check(resolved("hogwild"), "adam", {"beta1": 0.9})
    STRATEGIES["hogwild"].check(resolved("hogwild", grain="instant"), "sgd", {"weight_decay": 0})


# ---- leashed ----


@pytest.mark.parametrize("workers", [1, 4, 8])
@pytest.mark.parametrize("persistence", [None, 0, 2])
def test_persistence(workers, persistence):
    """What was given up is counted, and missing: nothing else is, nothing twice."""
    applied, results = visits("leashed", workers, persistence=persistence, stripe_bytes=64, epochs=2)
    dropped = sum(result["dropped"] for result in results)
    assert set(applied) <= {0, 1, 2} and applied.sum() == 2 * 503 - dropped
    stripes = 504  # of 64 bytes: a row of 2 weights is padded to 16, and there is a row for the bias
    assert sum(result["updates"] for result in results) == (2 * 503 - dropped) * stripes
    if persistence is None or workers == 1:
        assert dropped == 0
    # what is not given up has failed at most `persistence` times
    failures = sum(result["lock_failures"] for result in results)
    if persistence is not None:
        assert dropped * (persistence + 1) <= failures <= dropped * (persistence + 1) + (2 * 503 - dropped) * persistence


# ---- elastic ----


@pytest.mark.parametrize(
    "options, batch_size",
    [({}, 1), ({"period": 3}, 1), ({"period": 1, "alpha": 0.25}, 4), ({"period": 1000, "alpha": 1}, 3)],
)
def test_elastic_with_one_worker(options, batch_size):
    net, replica = graph(seed=2), graph(seed=2)
    x, y = images(50, net.input_shape, classes=5)
    run(net, x, y, "elastic", options=options, epochs=2, batch_size=batch_size)
    period, alpha = options.get("period", 10), np.float32(options.get("alpha", 0.9))
    centre = replica.weights.copy()

    def exchange():
        d = alpha * (replica.weights - centre)
        replica.weights[:] -= d
        centre[:] += d

    for _ in range(2):
        replica.weights[:] = centre
        for step, begin in enumerate(range(0, 50, batch_size), 1):
            part = slice(begin, begin + batch_size)
            run(replica, x[part], y[part], "sequential", batch_size=batch_size)
            if step % period == 0:
                exchange()
        exchange()
    np.testing.assert_allclose(net.weights, centre, rtol=0, atol=1e-6)


@pytest.mark.parametrize("workers", [2, 8])
def test_elastic_trains(workers):
    net = graph(seed=1)
    x, y = images(60, net.input_shape, classes=5)
    results = run(net, x, y, "elastic", 0.05, workers, {"period": 2}, 60, batch_size=2)
    assert results[-1]["loss"] < 0.8 * results[0]["loss"]
    assert all(result["staleness_max"] == 0 and result["images"] == 60 for result in results)
    with pytest.raises(ValueError, match="alpha of strategy 'elastic' must be a number of more than 0 and at most 1, not 0"):
        resolved("elastic", alpha=0)
    with pytest.raises(ValueError, match="has no option 'max_staleness'"):
        resolved("elastic", max_staleness=1)


# ---- replicas' state ----


@pytest.mark.parametrize(
    "strategy, options",
    [("elastic", {}), ("elastic", {"period": 1}), ("replicated", {}), ("replicated", {"group": 2, "rule": "sum"})],
)
@pytest.mark.parametrize("images", [1, 3, 200])
def test_the_state_goes_with_the_number_of_updates(strategy, options, images):
    """All gradients are 1, so each update brings Adam's moments nearer to 1 by the factor beta, whatever the weights.
    Replicas that were never updated, of which there are some wherever images are few, count for nothing."""
    net, rule = one_layer((4,), chaos.Linear(1, bias=False)), UPDATES["adam"]
    moments = aligned_zeros((2, len(net.weights)))
    engine = _core.Engine(
        net.plan,
        net.weights,
        workers=6,
        strategy=strategy,
        loss="score",
        update="adam",
        moments=moments,
        strategy_options=STRATEGIES[strategy].core_options(resolved(strategy, **options)),
        update_options=rule.core_options(rule.resolve({})),
    )
    x, y, at = np.ones(4 * images, np.float32), np.zeros(images, int), np.empty(4, np.int64)
    net.plan.positions(1, "weight", at)
    updates, away = 0, np.ones(2)  # from 1
    for _ in range(3):
        counts = engine.run("train", inputs=[x], labels=y, lr=0.01)["worker_images"]
        groups = np.add.reduceat(counts, np.arange(0, 6, options.get("group", 1)))
        away *= [np.dot(groups, beta ** groups.astype(float)) / images for beta in (0.9, 0.999)]
        np.testing.assert_allclose(np.abs(moments[:, at]), 1 - away[:, None].repeat(4, 1), rtol=1e-3)
        updates += groups.max()
        assert engine.versions() == [updates]


# ---- replicated ----


@pytest.mark.parametrize("workers", [2, 3, 8])
@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("period", [1, 7, 64])
@pytest.mark.parametrize("strategy, more", [("replicated", {"rule": "sum"}), ("domains", {"mix": 1})])
def test_every_update_reaches_the_sum_once(workers, group, period, strategy, more):
    applied, _ = visits(strategy, workers, group=group, period=period, **more, stripe_bytes=256, epochs=3)
    assert (applied == 3).all()


def test_one_group_is_chaos():
    weights = []
    for strategy, options in (
        ("chaos", {}),
        ("replicated", {}),
        ("replicated", {"group": 5, "rule": "sum"}),
        ("domains", {}),
    ):
        net = graph(seed=3)
        x, y = images(50, net.input_shape, classes=5)
        run(net, x, y, strategy, options=options, epochs=2)
        weights.append(net.weights.tobytes())
    assert len({*weights}) == 1


@pytest.mark.parametrize("workers", [2, 3])
def test_one_exchange_by_the_mixing_rule(workers):
    """Of a single update u: with the token, B u is left in the group's replica and B u given to the next; without, it stays
    where it is. Then the mean."""
    beta = np.roots([1, *[0] * (workers - 2), 1, -1])
    beta = next(b.real for b in beta if abs(b.imag) < 1e-9 and 0 < b.real < 1)
    rate = 1 - beta ** (workers - 1)
    left = (1 - rate) + (beta + rate - 1)
    for _ in range(30):
        applied, _ = visits("replicated", workers, n=1)
        near = [share for share in (1 / workers, (left + beta) / workers) if abs(applied[0] - share) < 1e-6]
        assert near, applied
    assert (left + beta) == pytest.approx(2 * beta)


@pytest.mark.parametrize("rule", ["sum", "mix"])
@pytest.mark.parametrize("workers, group", [(2, 1), (4, 2), (5, 2)])
def test_replicated_trains(rule, workers, group):
    net = graph(seed=1)
    x, y = images(60, net.input_shape, classes=5)
    results = run(net, x, y, "replicated", 0.05, workers, {"group": group, "period": 4, "rule": rule}, 40, batch_size=2)
    assert results[-1]["loss"] < 0.8 * results[0]["loss"]
