"""Virtual workers: the clock's orders are possible ones, the executor is the engine, and each strategy its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import graph, images, one_layer
from orders import (
    ORDERS,
    PRIVATE,
    SIMULATED,
    codes_of,
    default_order,
    engine_of,
    events_of,
    flat_times,
    options_of,
    run_events,
    small_net,
    without_tail,
)

import chaos
from chaos import _core
from chaos.sync import STRATEGIES
from chaos.updates import UPDATES
from chaos.virtual import Machine, Order, Times, Virtual

SEVERAL = [name for name in SIMULATED if not STRATEGIES[name].single]
times = st.floats(1e-7, 1e-4)


@settings(max_examples=60, deadline=None)
@given(
    strategy=st.sampled_from(sorted(ORDERS)),
    workers=st.integers(1, 9),
    n=st.integers(0, 60),
    batch=st.sampled_from([1, 3, 20]),
    stripe=st.sampled_from([64, 512, 16384]),
    seed=st.integers(0, 99),
    jitter=st.sampled_from([0.0, 0.3, 2.0]),
    cores=st.integers(1, 5),
    pending=st.sampled_from([None, 1, 3]),
    stragglers=st.integers(0, 1),
    scale=st.tuples(times, times, times, times),
    period=st.integers(1, 9),
    group=st.integers(1, 3),
)
def test_orders_are_possible(
    strategy, workers, n, batch, stripe, seed, jitter, cores, pending, stragglers, scale, period, group
):
    """Every image begins and ends once, each worker's events are in its own order, and where locks are promised no two
    publications of a stripe overlap in time. The executor refuses anything else (test_impossible_orders_are_refused)."""
    net, workers = small_net(), 1 if strategy == "sequential" else workers
    nodes = len(net.nodes()) - 1
    clock_times = Times("test", 1.0, scale[0], *((s,) * nodes for s in scale[1:]))
    known = strategy if strategy in STRATEGIES else "chaos"
    asked = {"max_pending": pending, "period": period, "group": group}
    options = options_of(known, **{name: value for name, value in asked.items() if name in STRATEGIES[known].options})
    engine = engine_of(
        net, workers, known, batch_size=batch, stripe_bytes=stripe, strategy_options=STRATEGIES[known].core_options(options)
    )
    group = options.get("group", 1)
    machine = Machine(
        cores=cores, threads_per_core=2, slowdown=(1.0, 1.5), jitter=jitter, stragglers=stragglers, straggling=5.0
    )
    order = Order(net, engine, clock_times, machine, strategy, options, [seed])
    found = events_of(order, n, times=True)
    assert [e[4] for e in found] == sorted(e[4] for e in found) and all(e[3] <= e[4] for e in found)
    again = events_of(Order(net, engine, clock_times, machine, strategy, options, [seed]), n, times=True)
    assert found == again

    begun = [what for kind, _, what, *_ in found if kind == "step"]
    if order.lanes:
        assert not begun
    elif strategy == "hybrid":
        stages = [engine.stages(min(batch, n - at)) for at in range(0, n, batch)]
        wanted = [list(range(sum(count for *_, count in step))) for step in stages]
        assert [what for kind, _, what, *_ in found if kind == "piece"] == sum(wanted, [])
        begun = None  # updates are pieces
    else:
        assert sorted(begun) == list(range(-(-n // batch)))
    for stripe_number in range(engine.stripes):
        updates = [
            (worker // group if strategy in PRIVATE else 0, since, when)
            for kind, worker, what, since, when in found
            if kind in ("publish", "reduce") and what == stripe_number
        ]
        assert len(updates) == (0 if begun is None else -(-n // batch))
        exchanges = [
            (worker, since, when)
            for kind, worker, what, since, when in found
            if kind == "exchange" and what == stripe_number
        ]
        if strategy == "replicated":  # by mixing: with the next group's replica
            groups = -(-workers // group)
            updates += [(g % groups, *span) for worker, *span in exchanges for g in (worker // group, worker // group + 1)]
        else:
            updates += [(-1, *span) for _, *span in exchanges]
        spans = sorted(updates)
        if strategy != "hogwild":
            assert all(a[0] != b[0] or a[2] <= b[1] for a, b in zip(spans, spans[1:], strict=False))
    x, y = images(max(n, 1), net.input_shape, classes=5)
    codes = np.array([_core.event(*event[:3]) for event in found], np.uint64)
    result = engine.run(
        "train", inputs=net.take_images(x)["inputs"], labels=y, end=n, lr=0.01, events=[codes], lanes=order.lanes
    )
    assert result["status"] == "done" and result["images"] == n == result["position"]
    assert result["updates"] == engine.stripes * -(-n // batch)
    if strategy == "synchronous":
        assert result["staleness_max"] == 0
    if strategy == "delayed":
        assert result["staleness_max"] <= workers - 1


@pytest.mark.parametrize("make", [small_net, graph])
def test_executor_is_sequential_for_one_worker(isa, make):
    x, y = images(40, make().input_shape, classes=5)
    nets = make(), make()
    values = nets[0].take_images(x)["inputs"]
    wanted = engine_of(nets[0], 1, "sequential").run("train", inputs=values, labels=y, lr=0.05)
    engine = engine_of(nets[1], 1, "sequential")
    found = engine.run("train", inputs=values, labels=y, lr=0.05, events=[codes_of(default_order(nets[1], engine, 40))])
    assert (nets[0].weights == nets[1].weights).all()
    assert all(found[key] == wanted[key] for key in ("loss", "errors", "updates", "staleness", "images", "status"))


@pytest.mark.parametrize("batch_size", [1, 20])
@pytest.mark.parametrize(
    "strategy, workers",
    [
        ("sequential", 1),
        *((s, 1) for s in SEVERAL),
        ("synchronous", 3),
        ("synchronous", 8),
        ("delayed", 2),
        ("delayed", 5),
        ("averaging", 2),
        ("averaging", 4),
        ("hybrid", 2),
        ("hybrid", 4),
    ],
)
def test_executor_is_the_engine_where_the_engine_is_deterministic(few_digits, strategy, workers, batch_size):
    nets = chaos.models.small(seed=4), chaos.models.small(seed=4)
    update = "sgd" if batch_size == 1 else "adam"
    histories = [
        chaos.train(
            net,
            *few_digits,
            strategy=strategy,
            workers=workers,
            epochs=2,
            lr=0.01,
            batch_size=batch_size,
            update=update,
            progress=False,
            runner=runner,
        ).history
        for net, runner in zip(nets, (None, Virtual()), strict=True)
    ]
    assert (nets[0].weights == nets[1].weights).all()
    for real, simulated in zip(*histories, strict=True):
        assert all(real[key] == simulated[key] for key in ("train_error", "test_error", "updates", "staleness"))


@settings(max_examples=40, deadline=None)
@given(
    workers=st.integers(1, 6),
    n=st.integers(0, 60),
    batch=st.sampled_from([1, 3, 20]),
    period=st.one_of(st.none(), st.integers(1, 12)),
    seed=st.integers(0, 99),
    jobs=st.sampled_from([1, 2]),
    update=st.sampled_from(["sgd", "adam"]),
    isa=st.sampled_from(_core.instruction_sets()),
)
def test_averaging_is_that_of_real_workers(workers, n, batch, period, seed, jobs, update, isa):
    """To the last bit, in weights, moments and numbers of updates, in each of two epochs."""
    before = _core.get_isa()
    _core.set_isa(isa)
    try:
        nets, found = (graph(seed=2), graph(seed=2)), []
        x, y = images(n, nets[0].input_shape, classes=5)
        options, rule = options_of("averaging", period=period), UPDATES[update]
        for net, virtually in zip(nets, (False, True), strict=True):
            moments = chaos.network.aligned_zeros((rule.moments, net.plan.weight_size))
            engine = engine_of(
                net,
                workers,
                "averaging",
                batch_size=batch,
                stripe_bytes=512,
                update=update,
                moments=moments,
                update_options=rule.core_options(rule.resolve({})),
                strategy_options=STRATEGIES["averaging"].core_options(options),
            )
            order = Order(
                net, engine, flat_times(net), Machine(jitter=0.5, stragglers=1, straggling=3.0), "averaging", options, [seed]
            )
            for _ in range(2):
                asked = dict(events=order.blocks(n), jobs=jobs) if virtually else {}
                result = engine.run("train", inputs=[x.reshape(-1)], labels=y, lr=0.05, **asked)
                found.append(
                    (
                        result["status"],
                        result["images"],
                        result["errors"],
                        result["loss"],
                        result["updates"],
                        result["staleness"],
                        result["worker_images"],
                        net.weights.tobytes(),
                        moments.tobytes(),
                        engine.versions(),
                    )
                )
        assert found[:2] == found[2:]
    finally:
        _core.set_isa(before)


@settings(max_examples=60, deadline=None)
@given(
    make=st.sampled_from([graph, without_tail, lambda: chaos.models.small(seed=3)]),
    workers=st.integers(1, 9),
    real=st.integers(1, 3),
    n=st.integers(0, 60),
    batch=st.integers(1, 40),
    lanes=st.one_of(st.none(), st.integers(1, 12)),
    slices=st.one_of(st.none(), st.integers(1, 9)),
    seed=st.integers(0, 99),
    jobs=st.sampled_from([1, 2, 3]),
    update=st.sampled_from(["sgd", "adam"]),
    clip=st.sampled_from([0.0, 0.1]),
)
def test_hybrid_is_that_of_real_workers(make, workers, real, n, batch, lanes, slices, seed, jobs, update, clip):
    """To the last bit, for any numbers of them."""
    found, rule = [], UPDATES[update]
    options = options_of("hybrid", lanes=lanes, slices=slices)
    rule_options = rule.core_options(rule.resolve({"clip_norm": clip} if clip and make is not without_tail else {}))
    for virtually in (False, True):
        net = make()
        x, y = images(n, net.input_shape, classes=5)
        moments = chaos.network.aligned_zeros((rule.moments, net.plan.weight_size))
        engine = engine_of(
            net,
            workers if virtually else real,
            "hybrid",
            batch_size=batch,
            stripe_bytes=512,
            update=update,
            moments=moments,
            update_options=rule_options,
            strategy_options=STRATEGIES["hybrid"].core_options(options),
        )
        order = Order(net, engine, flat_times(net), Machine(jitter=0.5), "hybrid", options, [seed])
        for _ in range(2):
            asked = dict(events=order.blocks(n), jobs=jobs, lanes=order.lanes) if virtually else {}
            result = engine.run("train", inputs=[x.reshape(-1)], labels=y, lr=0.05, **asked)
            found.append(
                (
                    result["status"],
                    result["images"],
                    result["errors"],
                    result["loss"],
                    result["updates"],
                    result["staleness"],
                    result["position"],
                    net.weights.tobytes(),
                    moments.tobytes(),
                    engine.versions(),
                )
            )
        assert engine.run("test", inputs=[x.reshape(-1)], labels=y)["images"] == n
    assert found[:2] == found[2:]


def test_any_number_of_threads_finds_the_same_divergence_in_stages():
    x = images(40, small_net().input_shape, classes=5)[0].copy()
    x[[30, 33]] = np.nan
    net = small_net()
    engine = engine_of(net, 8, "hybrid", batch_size=40)
    codes = codes_of(events_of(Order(net, engine, flat_times(net), Machine(), "hybrid", options_of("hybrid"), [0]), 40))
    for jobs in (1, 2, 5):
        result = run_events(small_net, codes, workers=8, jobs=jobs, n=40, x=x, strategy="hybrid", batch_size=40)[1]
        assert (result["status"], result["failed_at"]) == ("diverged", 30)


def test_impossible_pieces_are_refused():
    net = small_net()
    x, y = images(40, net.input_shape, classes=5)
    engine = engine_of(net, 2, "hybrid", batch_size=20)
    found = events_of(Order(net, engine, flat_times(net), Machine(), "hybrid", options_of("hybrid"), [0]), 40)
    for events, message in (
        ([*found[:2], found[0]], "done before"),
        (found[-1:], "not one of the stage under way"),
        ([*found, found[0]], "fewer steps"),
        ([("step", 0, 0)], "made of pieces"),
        ([("lane", 0, 0)], "fewer lanes"),
        (found[:-1], "not every image"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.run("train", inputs=[x.reshape(-1)], labels=y, lr=0.01, events=[codes_of(events)])
    with pytest.raises(ValueError, match="have no pieces"):
        engine_of(net, 2).run("train", inputs=[x.reshape(-1)], labels=y, lr=0.01, events=[codes_of(found)])
    assert engine.run("train", inputs=[x.reshape(-1)], labels=y, lr=0.01, events=[codes_of(found)])["images"] == 40


@settings(max_examples=30, deadline=None)
@given(
    workers=st.integers(1, 6),
    n=st.integers(0, 60),
    batch=st.sampled_from([1, 3]),
    period=st.integers(1, 12),
    alpha=st.one_of(st.none(), st.floats(0.01, 1)),
    seed=st.integers(0, 99),
    jobs=st.sampled_from([1, 2]),
)
def test_elastic_is_its_definition_in_the_given_order(workers, n, batch, period, alpha, seed, jobs):
    net, replicas = graph(seed=2), [graph(seed=2) for _ in range(workers)]
    x, y = images(n, net.input_shape, classes=5)
    options = options_of("elastic", period=period, alpha=alpha)
    engine = engine_of(
        net,
        workers,
        "elastic",
        batch_size=batch,
        stripe_bytes=512,
        strategy_options=STRATEGIES["elastic"].core_options(options),
    )
    order = Order(net, engine, flat_times(net), Machine(jitter=0.5), "elastic", options, [seed])
    found = events_of(order, n)
    result = engine.run("train", inputs=[x.reshape(-1)], labels=y, lr=0.05, events=[codes_of(found)], jobs=jobs)
    assert result["status"] == "done" and result["images"] == n and result["staleness_max"] == 0

    centre, rate = replicas[0].weights.copy(), np.float32(alpha or 0.9 / workers)
    engines = [engine_of(replica, 1, "sequential", batch_size=batch) for replica in replicas]
    steps, exchanges = [0] * workers, [0] * workers
    for kind, w, what in found:
        if kind == "step":  # nobody else sees the replica: all of the step may happen at once
            assert exchanges[w] == steps[w] // period * engine.stripes
            engines[w].run(
                "train", inputs=[x.reshape(-1)], labels=y, lr=0.05, begin=what * batch, end=min(n, (what + 1) * batch)
            )
            steps[w] += 1
        elif kind == "exchange":
            at, size = engine.stripe(what)
            part = slice(at, at + size)
            d = rate * (replicas[w].weights[part] - centre[part])
            replicas[w].weights[part] -= d
            centre[part] += d
            exchanges[w] += 1
    assert exchanges == [(count // period + 1) * engine.stripes for count in steps]
    np.testing.assert_allclose(net.weights, centre, rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    workers=st.integers(1, 9),
    group=st.integers(1, 4),
    period=st.integers(1, 9),
    rule=st.sampled_from(["mix", "sum"]),
    n=st.integers(0, 80),
    batch=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
    publish=st.sampled_from([1e-8, 1e-5]),
)
def test_replicated_is_its_definition_in_the_given_order(workers, group, period, rule, n, batch, seed, publish):
    """Gradients that do not depend on the weights: image i changes column i of a linear layer by 1 / batch. So the weights
    are the sum of the updates, as far as exchanges have carried them."""

    def make():
        net = one_layer((max(n, 1),), chaos.Linear(2, bias=False))
        net.load_state_dict({"0.weight": np.zeros((2, max(n, 1)), np.float32)})
        return net

    net, options = make(), options_of("replicated", group=group, period=period, rule=rule)
    asked = dict(batch_size=batch, stripe_bytes=256, strategy_options=STRATEGIES["replicated"].core_options(options))
    engine = engine_of(net, workers, "replicated", **asked, loss="score")
    order = Order(
        net, engine, flat_times(net, publish=publish), Machine(jitter=0.5, line_ns=100), "replicated", options, [seed]
    )
    found = events_of(order, n)
    codes, x = codes_of(found), np.eye(n, dtype=np.float32)
    y, ends = np.arange(n) % 2, []
    for jobs in (1, 2, 3):
        net = make()
        result = engine_of(net, workers, "replicated", **asked, loss="score").run(
            "train", inputs=[x.reshape(-1)], labels=y, lr=1.0, events=[codes], jobs=jobs
        )
        assert result["status"] == "done" and result["images"] == n
        ends.append(net.weights.tobytes())
    assert ends[0] == ends[1] == ends[2]

    groups, position = -(-workers // group), np.empty(2 * max(n, 1), np.int64)
    net.plan.positions(1, "weight", position)
    beta = (
        next(b.real for b in np.roots([1, *[0] * (groups - 2), 1, -1]) if abs(b.imag) < 1e-9 and 0 < b.real < 1)
        if groups > 1
        else 1.0
    )
    keep = 1 - beta ** (groups - 1)
    process = np.zeros(len(net.weights))
    replica, base, under_way = np.zeros((groups, len(net.weights))), np.zeros((groups, len(net.weights))), {}
    gradients, exchanges = np.zeros((-(-n // batch), len(net.weights))), [0] * groups
    for i in range(n):
        gradients[i // batch, position[y[i] * n + i]] = 1 / (min(n, (i // batch + 1) * batch) - i // batch * batch)
    waiting = {}  # of a worker: stripe to the step whose gradient it is
    for kind, w, what in found:
        g = w // group
        if kind == "step":
            under_way[w] = what
        elif kind == "backward":
            waiting |= {(w, k): under_way[w] for k in range(engine.stripes)}
        elif kind in ("publish", "exchange"):
            at, size = engine.stripe(what)
            part = slice(at, at + size)
        if kind == "publish":
            (process if groups == 1 else replica[g])[part] += gradients[waiting[w, what], part]
        elif kind == "exchange":
            assert w % group == 0 and groups > 1
            exchanges[g] += 1
            own, new, following = replica[g, part], replica[g, part] - base[g, part], replica[(g + 1) % groups, part]
            if rule == "sum":
                process[part] += new
                mixed = process[part].copy()
            else:
                mixed = keep * following + (1 - keep) * own + (beta + keep - 1) * new
                following += beta * new
            replica[g, part] = base[g, part] = mixed
    if groups > 1 and rule == "mix":
        process = replica.mean(axis=0)
    elif groups > 1:
        process += (replica - base).sum(axis=0)
        np.testing.assert_allclose(process, gradients.sum(axis=0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(net.weights, process, rtol=0, atol=1e-5)
    if groups > 1:
        assert all(count % engine.stripes == 0 for count in exchanges)
        the_token_goes_round(
            [(kind, w // group) for kind, w, _ in found if w % group == 0 and kind in ("step", "exchange")],
            groups,
            engine.stripes,
            period,
        )


def the_token_goes_round(found, groups, stripes, period):
    """Of groups' first workers: who exchanges has made a step, then makes `period` more, then the next one's turn comes. One
    that has made its last step may lose its turn, or the rest of it."""
    steps = [sum(kind == "step" and g == of for kind, g in found) for of in range(groups)]
    begun, turn, following, had, since = [0] * groups, None, 0, 0, 0
    for kind, g in found:
        if kind == "step":
            begun[g] += 1
            since += g == turn
        elif g == turn and had < stripes:
            had += 1
        else:
            assert turn is None or had == stripes and (since >= period or begun[turn] == steps[turn])
            while following != g:
                assert begun[following] == steps[following]
                following = (following + 1) % groups
            assert begun[g]
            turn, following, had, since = g, (g + 1) % groups, 1, 0


def test_reading_at_publication_with_one_worker_is_sequential(few_digits):
    nets = chaos.models.small(seed=4), chaos.models.small(seed=4)
    chaos.train(nets[0], *few_digits, strategy="sequential", epochs=2, lr=0.01, progress=False)
    chaos.train(
        nets[1],
        *few_digits,
        workers=1,
        epochs=2,
        lr=0.01,
        progress=False,
        runner=Virtual(),
        strategy_options={"read": "publication"},
    )
    assert (nets[0].weights == nets[1].weights).all()


@settings(max_examples=40, deadline=None)
@given(
    workers=st.integers(2, 9),
    n=st.integers(0, 60),
    batch=st.sampled_from([1, 3]),
    stripe=st.sampled_from([64, 512]),
    pending=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 99),
    publish=st.sampled_from([1e-8, 1e-5]),
)
def test_reading_at_publication(workers, n, batch, stripe, pending, seed, publish):
    """A stripe is read when it has just been published, or when the next step begins; passes read nothing else."""
    net, options = small_net(), options_of("chaos", read="publication", max_pending=pending)
    asked = dict(stripe_bytes=stripe, batch_size=batch, strategy_options=STRATEGIES["chaos"].core_options(options))
    engine = engine_of(net, workers, **asked)
    order = Order(net, engine, flat_times(net, publish=publish), Machine(jitter=0.5), "chaos", options, [seed])
    found = events_of(order, n)
    last, kept = {}, {}
    for kind, w, what in found:
        if kind == "read":
            before = last.get(w, ("step", 0))
            assert before == ("publish", what) or before[0] in ("step", "read")
            kept.setdefault(w, set()).add(what)
        elif kind == "backward":  # its stripes have to be read again before the next step's forward passes
            kept[w] -= {k for k, (node, _) in enumerate(engine.stripe_table) if node == what}
        elif kind == "forward":
            assert kept[w] == set(range(engine.stripes))
        last[w] = (kind, what)
    codes = codes_of(found)
    one, *others = (run_events(small_net, codes, workers=workers, jobs=jobs, n=n, **asked) for jobs in (1, 2, 3))
    assert one[1]["status"] == "done" and one[1]["images"] == n and all(other == one for other in others)


def test_reads_that_are_missing_are_refused():
    net = small_net()
    x, y = images(4, net.input_shape, classes=5)
    options = options_of("chaos", read="publication")
    engine = engine_of(net, 2, strategy_options=STRATEGIES["chaos"].core_options(options))
    found = events_of(Order(net, engine, flat_times(net), Machine(), "chaos", options, [0]), 4)
    with pytest.raises(ValueError, match="has not read all stripes"):
        engine.run("train", inputs=[x.reshape(-1)], labels=y, lr=0.01, events=[codes_of(found[1:])])
    step = [event[0] for event in found].index("step")
    with pytest.raises(ValueError, match="copied at the beginning"):
        engine.run(
            "train",
            inputs=[x.reshape(-1)],
            labels=y,
            lr=0.01,
            events=[codes_of([*found[: step + 1], ("copy", *found[step][1:])])],
        )
    with pytest.raises(ValueError, match="keep no copies"):
        engine_of(net, 2).run("train", inputs=[x.reshape(-1)], labels=y, lr=0.01, events=[codes_of(found)])
