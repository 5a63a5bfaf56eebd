"""Virtual workers: the clock's orders are possible ones, the executor is the engine, the same seed gives the same bits."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import graph, images, one_layer

import chaos
from chaos import _core, cli, virtual
from chaos.sync import STRATEGIES
from chaos.updates import UPDATES
from chaos.virtual import Machine, Order, Times, Virtual

ORDERS, SIMULATED = virtual.ORDERS, list(STRATEGIES)
PRIVATE = ("averaging", "elastic", "replicated")  # every worker, or group of them, trains a replica of its own
SEVERAL = [name for name in SIMULATED if not STRATEGIES[name].single]


@pytest.fixture(scope="module")
def digits():
    train, test = chaos.data.load("digits", size=29)
    return train[:300], test[:100]


def engine_of(net, workers, strategy="chaos", **options):
    return _core.Engine(net.plan, net.weights, workers=workers, strategy=strategy, **options)


def options_of(strategy, **given):
    return STRATEGIES[strategy].resolve(given)


def events_of(order, n, times=False):
    """[(kind, worker, what)], and if asked the seconds since when and when."""
    order.clock.begin(n)
    room, since, when = np.empty(1 << 12, np.uint64), np.empty(1 << 12), np.empty(1 << 12)
    found = []
    while count := order.clock.next(room, since, when):
        found += [
            (_core.EVENTS[int(e) >> 16 & 0xFFFF], int(e) & 0xFFFF, int(e) >> 32, s, w)
            for e, s, w in zip(room[:count], since[:count], when[:count], strict=True)
        ]
    return found if times else [event[:3] for event in found]


def small_net():
    return chaos.Network(
        (1, 8, 8),
        [
            chaos.Conv2d(4, 3),
            chaos.Tanh(),
            chaos.MaxPool2d(2),
            chaos.Flatten(),
            chaos.Linear(30),
            chaos.Tanh(),
            chaos.Linear(5),
        ],
    )


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


def default_order(net, engine, n):
    """One worker, everything in turn, as event tuples."""
    nodes = [node for node in range(1, len(net.nodes())) if net.plan.block(node)[1]]
    of = {node: [k for k, (owner, _) in enumerate(engine.stripe_table) if owner == node] for node in nodes}
    found = []
    for image in range(n):
        found += [("step", 0, image), *(("forward", 0, node) for node in nodes)]
        for node in reversed(nodes):
            found += [("backward", 0, node), *(("publish", 0, k) for k in of[node])]
    return found


def codes_of(events):
    return np.array([_core.event(*event) for event in events], np.uint64)


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
def test_executor_is_the_engine_where_the_engine_is_deterministic(digits, strategy, workers, batch_size):
    nets = chaos.models.small(seed=4), chaos.models.small(seed=4)
    update = "sgd" if batch_size == 1 else "adam"
    histories = [
        chaos.train(
            net,
            *digits,
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


def without_tail():
    """Its last layer with weights is a convolution."""
    return chaos.Network(
        (2, 9, 8), [chaos.Conv2d(6, 3), chaos.Tanh(), chaos.MaxPool2d(2), chaos.Conv2d(5, 3), chaos.Flatten()], seed=2
    )


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


def test_reading_at_publication_with_one_worker_is_sequential(digits):
    nets = chaos.models.small(seed=4), chaos.models.small(seed=4)
    chaos.train(nets[0], *digits, strategy="sequential", epochs=2, lr=0.01, progress=False)
    chaos.train(
        nets[1],
        *digits,
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


def any_order(net, engine, workers, steps, rng):
    """Events of workers that take turns at random: each passes its steps, postpones some stripes, and publishes what it has
    postponed whenever it likes, but before that layer's next gradient."""
    nodes = [node for node in range(1, len(net.nodes())) if net.plan.block(node)[1]]
    of = {node: [k for k, (owner, _) in enumerate(engine.stripe_table) if owner == node] for node in nodes}
    left = iter(range(steps))

    def acts(w):
        pending = set()
        for step in left:
            yield "step", w, step
            if rng.random() < 0.2:
                yield "copy", w, 0
            for node in nodes:
                yield "forward", w, node
            for node in reversed(nodes):
                for k in sorted(pending):
                    if k in of[node] or rng.random() < 0.3:
                        pending.remove(k)
                        yield "publish", w, k
                yield "backward", w, node
                for k in of[node]:
                    late = rng.random() < 0.3
                    pending |= {k} if late else set()
                    yield "postpone" if late else "publish", w, k
        for k in sorted(pending):
            yield "publish", w, k

    found, busy = [], [acts(w) for w in range(workers)]
    while busy:
        one = busy[rng.integers(len(busy))]
        for _ in range(rng.integers(1, 6)):
            event = next(one, None)
            if event is None:
                busy.remove(one)
                break
            found.append(event)
    return found


def run_events(make, codes, *, workers, jobs, n, lanes=0, block=1 << 16, x=None, **options):
    """(weights, counts) after the events."""
    net = make()
    y = images(n, net.input_shape, classes=5)[1]
    values = (images(n, net.input_shape, classes=5)[0] if x is None else x).astype(np.float32).reshape(-1)
    result = engine_of(net, workers, **options).run(
        "train",
        inputs=[values],
        labels=y,
        lr=0.05,
        events=[codes[i : i + block] for i in range(0, len(codes), block)],
        lanes=lanes,
        jobs=jobs,
    )
    times = ("time", "give_ways")
    for layer in result["layers"].values():
        del layer["pending_seconds"]
    return net.weights.tobytes(), {key: value for key, value in result.items() if key not in times}


@settings(max_examples=40, deadline=None)
@given(
    workers=st.integers(1, 9),
    steps=st.integers(1, 40),
    seed=st.integers(0, 1 << 30),
    stripe=st.sampled_from([64, 512, 16384]),
    update=st.sampled_from(["sgd", "momentum"]),
)
def test_any_number_of_threads_runs_any_order_to_the_same_bits(workers, steps, seed, stripe, update):
    net = graph()
    engine = engine_of(net, workers, stripe_bytes=stripe)
    codes = codes_of(any_order(net, engine, workers, steps, np.random.default_rng(seed)))
    one, *others = (
        run_events(
            graph,
            codes,
            workers=workers,
            jobs=jobs,
            n=steps,
            stripe_bytes=stripe,
            update=update,
            moments=chaos.network.aligned_zeros((int(update == "momentum"), net.plan.weight_size)),
        )
        for jobs in (1, 2, 3, 5)
    )
    assert one[1]["status"] == "done" and all(other == one for other in others)


@pytest.mark.parametrize("strategy", SIMULATED)
@pytest.mark.parametrize("batch_size", [1, 20])
def test_any_number_of_threads_runs_what_the_clock_invents_to_the_same_bits(strategy, batch_size):
    net, n = small_net(), 400
    asked = {"period": 2, "group": 3} if batch_size == 20 else {}
    options = options_of(strategy, **{name: asked[name] for name in asked.keys() & STRATEGIES[strategy].options.keys()})
    numbers = STRATEGIES[strategy].core_options(options)
    for workers in (1,) if STRATEGIES[strategy].single else (2, 7, 30):
        engine = engine_of(net, workers, strategy, batch_size=batch_size, stripe_bytes=512, strategy_options=numbers)
        order = Order(net, engine, flat_times(net), Machine(jitter=0.5), strategy, options, [0])
        codes = codes_of(events_of(order, n))
        one, *others = (
            run_events(
                small_net,
                codes,
                workers=workers,
                jobs=jobs,
                n=n,
                lanes=order.lanes,
                strategy=strategy,
                block=999,
                batch_size=batch_size,
                stripe_bytes=512,
                strategy_options=numbers,
                update="momentum",
                moments=chaos.network.aligned_zeros((1, net.plan.weight_size)),
            )
            for jobs in (1, 2, 3, 5)
        )
        assert one[1]["status"] == "done" and all(other == one for other in others)


def test_a_layer_is_let_go_when_its_lane_has_the_gradient():
    """Passes read copies and let the layer go before they are through, except where their gradient is read by others."""

    def make():
        return chaos.models.small(seed=1)

    net, n = make(), 4000
    order = Order(
        net,
        engine_of(net, 20, "synchronous", batch_size=80),
        virtual.nominal(net),
        Machine(),
        "synchronous",
        options_of("synchronous"),
        [0],
    )
    codes = codes_of(events_of(order, n))
    one, *others = (
        run_events(make, codes, workers=20, jobs=jobs, n=n, lanes=order.lanes, strategy="synchronous", batch_size=80)
        for jobs in (1, 2, 2, 3, 3)
    )
    assert order.lanes == 20 and all(other == one for other in others)


def test_any_number_of_threads_finds_the_same_divergence():
    """Images 30 and 33 are no numbers: in the given order 33 may come before 30."""
    net = small_net()
    x = images(40, net.input_shape, classes=5)[0].copy()
    x[[30, 33]] = np.nan
    for seed in range(10):
        codes = codes_of(any_order(net, engine_of(net, 8), 8, 40, np.random.default_rng(seed)))
        found = [run_events(small_net, codes, workers=8, jobs=jobs, n=40, x=x)[1] for jobs in (1, 2, 5)]
        assert {(f["status"], f["failed_at"]) for f in found} == {("diverged", found[0]["failed_at"])}
        assert found[0]["failed_at"] in (30, 33)


def test_threads_stop_at_once():
    """Also those that wait for another's event."""
    import threading
    import time

    net, n = chaos.models.small(seed=0), 20_000
    x, y = images(n, net.input_shape, classes=5)
    engine = engine_of(net, 20)
    order = Order(net, engine, virtual.nominal(net), Machine(), "chaos", options_of("chaos"), [0])
    codes = np.concatenate([block.copy() for block in order.blocks(n)])
    asked = []

    def stop():
        asked.append(time.perf_counter())
        engine.stop()

    timer = threading.Timer(0.05, stop)
    timer.start()
    result = engine.run("train", inputs=net.take_images(x)["inputs"], labels=y, lr=0.01, events=[codes], jobs=4)
    ended = time.perf_counter()
    timer.join()
    assert result["status"] == "stopped" and result["images"] < n and ended - asked[0] < 0.5


def test_numbers_of_threads_that_make_no_sense_are_refused(tmp_path):
    for jobs in (0, -1, 1.5, 5000):
        with pytest.raises(ValueError, match="jobs must be"):
            Virtual(jobs=jobs)
        with pytest.raises(ValueError, match="jobs must be"):
            virtual.replay(tmp_path / "none", None, jobs=jobs)
    net = small_net()
    with pytest.raises(ValueError, match="jobs must be at least 1, not 0"):
        engine_of(net, 1).run("train", inputs=[np.zeros(0, np.float32)], labels=np.zeros(0, np.int64), events=[], jobs=0)


def test_impossible_exchanges_are_refused():
    net = small_net()
    x, y = images(4, net.input_shape, classes=5)

    def refused(strategy, spoil, message):
        engine = engine_of(net, 2, strategy)
        found = events_of(Order(net, engine, flat_times(net), Machine(), strategy, options_of(strategy), [0]), 4)
        for events, why in ((found, None), (spoil(found), message)):
            if why:
                with pytest.raises(ValueError, match=why):
                    engine.run("train", inputs=[x.reshape(-1)], labels=y, lr=0.01, events=[codes_of(events)])
            else:
                engine.run("train", inputs=[x.reshape(-1)], labels=y, lr=0.01, events=[codes_of(events)])

    def where(found, kind, n=0):
        return [i for i, event in enumerate(found) if event[0] == kind][n]

    def without(found, at):
        return found[:at] + found[at + 1 :]

    refused("chaos", lambda e: [*e, ("exchange", 0, 0)], "makes no exchanges")
    refused("chaos", lambda e: [*e, ("arrive", 0, 0)], "do not meet")
    refused("chaos", lambda e: [*e, ("leave", 0, 0)], "the meeting is not over")
    refused("elastic", lambda e: [*e, ("arrive", 0, 0)], "do not meet")
    refused("elastic", lambda e: [*e, ("exchange", 0, 99)], "no such stripe")
    refused("elastic", lambda e: [*e, *[("exchange", 0, 0)] * 2], "the stripe has been exchanged before")
    refused("elastic", lambda e: [*e, ("exchange", 0, 0)], "has not finished its exchange")
    refused("elastic", lambda e: [("exchange", 0, 0), *e], "has not exchanged all its stripes")
    refused("elastic", lambda e: [e[0], ("exchange", e[0][1], 0), *e[1:]], "has not finished its step")
    refused("averaging", lambda e: without(e, where(e, "arrive")), "a worker has not come to the meeting")
    refused("averaging", lambda e: without(e, where(e, "exchange")), "the meeting is not over")
    refused("averaging", lambda e: without(e, where(e, "leave")), "has not finished its exchange")
    refused(
        "averaging",
        lambda e: [x for x in e if x[0] not in ("arrive", "exchange", "leave")],
        "have not met after their last steps",
    )
    refused("averaging", lambda e: [("arrive", 0, 0), *e], "has not left the meeting|the meeting has begun")
    refused(
        "averaging", lambda e: [*e[: where(e, "leave")], *[x for x in e if x[0] == "exchange"]], "at this meeting before"
    )
    refused("averaging", lambda e: [*e, ("arrive", 0, 0), ("arrive", 1, 0), ("exchange", 0, 0)], "nothing has happened")
    refused(
        "averaging", lambda e: [*e[: where(e, "leave") + 1], ("arrive", e[where(e, "leave")][1], 0)], "meeting has begun"
    )


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda e: [("step", 1, 0), *e], "no such worker"),
        (lambda e: [e[0], *e], "has not finished its step"),
        (lambda e: [("step", 0, 9), *e[1:]], "fewer steps"),
        (lambda e: e + e, "begun before"),
        (lambda e: [e[0], *e[2:]], "not the worker's turn to pass"),
        (lambda e: [e[0], e[1], e[1]], "not the worker's turn to pass"),
        (lambda e: [*e[:3], e[4]], "not the worker's turn to back-propagate"),
        (lambda e: [*e, ("publish", 0, 0)], "no gradient"),
        (lambda e: [*e, ("publish", 0, 99)], "no such stripe"),
        (lambda e: [x for x in e if x[0] != "publish"], "neither published nor postponed"),
        (
            lambda e: [("postpone", *x[1:]) if x[0] == "publish" else x for x in e],
            "has not been published|not published all",
        ),
        (lambda e: [*e, ("postpone", 0, 0)], "no fresh gradient"),
        (lambda e: [("copy", 0, 0), *e], "at the beginning of a step"),
        (lambda e: [("lane", 0, 0), *e], "fewer lanes"),
        (lambda e: [("reduce", 0, 0), *e], "no lanes"),
        (lambda e: e[:-20], "not every image|not finished|not published"),
        (lambda e: e[:-1], "not published"),
        (lambda e: [], "not every image"),
    ],
)
def test_impossible_orders_are_refused(spoil, message):
    net = small_net()
    x, y = images(3, net.input_shape, classes=5)
    engine = engine_of(net, 1)
    events = spoil(default_order(net, engine, 3))
    with pytest.raises(ValueError, match=message):
        engine.run("train", inputs=net.take_images(x)["inputs"], labels=y, lr=0.01, events=[codes_of(events)])


def test_unknown_kinds_are_refused_and_nothing_is_run_before():
    net = small_net()
    before = net.weights.copy()
    x, y = images(3, net.input_shape, classes=5)
    engine = engine_of(net, 1)
    codes = np.append(codes_of(default_order(net, engine, 3)), np.uint64(77 << 16))
    with pytest.raises(ValueError, match="worker 0: kind 77.*no such event"):
        engine.run("train", inputs=net.take_images(x)["inputs"], labels=y, lr=0.01, events=[codes])
    assert (net.weights == before).all()


def test_the_order_matters():
    """Two workers that read before either publishes give other weights than one after the other."""
    x, y = images(2, small_net().input_shape, classes=5)
    found = []
    for together in (False, True):
        net = small_net()
        engine = engine_of(net, 2)
        one = default_order(net, engine, 1)
        two = [(kind, 1, 1 if kind == "step" else what) for kind, _, what in one]
        reads = 1 + sum(kind == "forward" for kind, *_ in one)
        events = [*one[:reads], *two[:reads], *one[reads:], *two[reads:]] if together else one + two
        result = engine.run("train", inputs=net.take_images(x)["inputs"], labels=y, lr=0.1, events=[codes_of(events)])
        assert result["staleness_max"] == int(together)
        found.append(net.weights)
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("strategy", SIMULATED)
def test_same_seed_same_bits(digits, strategy):
    workers = 1 if STRATEGIES[strategy].single else 30
    results = []
    for seed in (0, 0, 1):
        net = chaos.models.small(seed=0)
        run = chaos.train(
            net,
            *digits,
            strategy=strategy,
            workers=workers,
            epochs=2,
            lr=0.01,
            seed=seed,
            progress=False,
            batch_size=8 if strategy == "synchronous" else 1,
            runner=Virtual(),
        )
        results.append((net.weights.tobytes(), json.dumps(run.history)))
    assert results[0] == results[1] and results[0][0] != results[2][0]


@pytest.mark.parametrize("strategy", ["chaos", *PRIVATE, "hybrid"])
def test_continued_run_has_the_same_bits(digits, tmp_path, strategy):
    whole, parts = chaos.models.small(), chaos.models.small()
    arguments = dict(workers=20, lr=0.01, progress=False, strategy=strategy, update="adam")
    chaos.train(whole, *digits, epochs=3, runner=Virtual(), **arguments)
    chaos.train(parts, *digits, epochs=1, runner=Virtual(), run_dir=tmp_path, **arguments)
    chaos.train(parts, *digits, epochs=3, runner=Virtual(), run_dir=tmp_path, resume=True, **arguments)
    assert (whole.weights == parts.weights).all()


def test_runs_of_virtual_workers_and_of_threads_do_not_continue_each_other(digits, tmp_path):
    """Whether the state tells who ran, as now, or only the history, as once."""
    runners = {"real threads": lambda: None, "virtual workers": Virtual}
    arguments = dict(workers=2, lr=0.01, progress=False)
    for begun, other in (list(runners), list(runners)[::-1]):
        folder = tmp_path / begun
        chaos.train(chaos.models.small(), *digits, epochs=1, runner=runners[begun](), run_dir=folder, **arguments)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for old in (False, True):
            if old:
                net, metadata, tensors = chaos.network.load_with_state(folder / "model.safetensors")
                state = json.loads(metadata["training"])
                del state["runner"]
                net.save(folder / "model.safetensors", {"training": json.dumps(state)}, tensors)
                before["model.safetensors"] = (folder / "model.safetensors").read_bytes()
            with pytest.raises(chaos.CheckpointError, match=f"of a run of {begun}; it cannot be continued with {other}"):
                chaos.train(
                    chaos.models.small(),
                    *digits,
                    epochs=2,
                    runner=runners[other](),
                    run_dir=folder,
                    resume=True,
                    **arguments,
                )
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        run = chaos.train(
            chaos.models.small(), *digits, epochs=2, runner=runners[begun](), run_dir=folder, resume=True, **arguments
        )
        assert len(run.history) == 2


@pytest.mark.parametrize("strategy", ["chaos", *PRIVATE, "hybrid"])
def test_stopping_goes_back_to_the_beginning_of_the_epoch(digits, tmp_path, monkeypatch, strategy):
    arguments = dict(workers=5, epochs=1, lr=0.01, progress=False, strategy=strategy, update="momentum")
    net = chaos.models.small()
    blocks = Order.blocks

    def stop(self, n):
        for i, block in enumerate(blocks(self, n)):
            yield block
            if i == 0:
                import os
                import signal
                import time

                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.5)

    before = net.weights.copy()
    monkeypatch.setattr("chaos.virtual.clock.BLOCK", 500)
    monkeypatch.setattr(Order, "blocks", stop)
    with pytest.raises(KeyboardInterrupt):
        chaos.train(net, *digits, runner=Virtual(), run_dir=tmp_path, **arguments)
    assert (net.weights == before).all()
    monkeypatch.undo()
    chaos.train(net, *digits, runner=Virtual(), run_dir=tmp_path, resume=True, **arguments)
    other = chaos.models.small()
    chaos.train(other, *digits, runner=Virtual(), **arguments)
    assert (net.weights == other.weights).all()


def flat_times(net, forward=1e-5, backward=2e-5, publish=1e-8):
    nodes = len(net.nodes()) - 1
    return Times("test", 1.0, 0.0, (forward,) * nodes, (backward,) * nodes, (publish,) * nodes)


def test_clock_of_one_worker_adds_up():
    net = small_net()
    engine = engine_of(net, 1)
    times = flat_times(net, publish=1e-6)
    seconds = Order(net, engine, times, Machine(jitter=0), "chaos", options_of("chaos"), [0]).seconds(50)
    learning = sum(engine.learns(node) for node in range(1, len(net.nodes())))
    layers = len({node for node, _ in engine.stripe_table})
    assert seconds == pytest.approx(50 * (len(times.forward) * 1e-5 + learning * 2e-5 + layers * 1e-6))


def test_clock_scales_where_nothing_stands_in_the_way():
    net = small_net()
    arguments = flat_times(net), Machine(line_ns=0, jitter=0.1), "chaos", options_of("chaos"), [0]
    alone = Order(net, engine_of(net, 1), *arguments).seconds(4000)
    assert alone / Order(net, engine_of(net, 20), *arguments).seconds(4000) == pytest.approx(20, rel=0.03)


def test_hardware_threads_stragglers_and_speed():
    machine = Machine(cores=61, threads_per_core=4, slowdown=(1.0, 1.0, 1.5, 2.0))
    assert (machine.factors(61) == 1).all() and (machine.factors(122) == 1).all() and (machine.factors(244) == 2).all()
    assert sorted(set(machine.factors(130))) == [1.0, 1.5]
    assert (machine.factors(488) == 4).all(), "twice the hardware threads: in turn"
    assert (Machine(speed=0.5).factors(3) == 2).all()
    assert list(Machine(stragglers=1, straggling=3).factors(3)) == [1, 1, 3]
    with pytest.raises(ValueError, match="at most the 2 workers"):
        Machine(stragglers=3).factors(2)
    for bad in (
        dict(cores=0),
        dict(threads_per_core=2, slowdown=(1.0,)),
        dict(threads_per_core=2, slowdown=(1.0, 0.5)),
        dict(jitter=-1),
        dict(line_ns=float("nan")),
        dict(straggling=0.5),
        dict(speed=0),
    ):
        with pytest.raises(ValueError):
            Machine(**bad)


def test_stragglers_do_not_hold_up_chaos_but_turns_and_meetings():
    net = small_net()
    seconds = {}
    for strategy in ("chaos", "delayed", "averaging", "elastic", "replicated"):
        for stragglers in (0, 1):
            machine = Machine(stragglers=stragglers, straggling=10, jitter=0)
            order = Order(net, engine_of(net, 8, strategy), flat_times(net), machine, strategy, options_of(strategy), [0])
            seconds[strategy, stragglers] = order.seconds(4000)
    for strategy in ("chaos", "elastic", "replicated"):
        assert seconds[strategy, 1] < 1.3 * seconds[strategy, 0]
    for strategy in ("delayed", "averaging"):
        assert seconds[strategy, 1] > 5 * seconds[strategy, 0]


def test_clock_of_exchanges_adds_up():
    """Seconds of phases of one worker and of two that do the same at the same time, beside what chaos takes for as much."""
    net, step = small_net(), 1e-6  # of an update of all weights, per layer
    times, machine = flat_times(net, publish=step), Machine(jitter=0, line_ns=0)
    layers = len({node for node, _ in engine_of(net, 1).stripe_table})

    def seconds(strategy, workers, n, **given):
        options = options_of(strategy, **given)
        return Order(
            net,
            engine_of(net, workers, strategy, strategy_options=STRATEGIES[strategy].core_options(options)),
            times,
            machine,
            strategy,
            options,
            [0],
        ).seconds(n)

    alone, copy = seconds("chaos", 1, 50), layers * step
    # a copy; per round an average of one replica and a copy
    assert seconds("averaging", 1, 50, period=5) == pytest.approx(alone + copy + 10 * 2 * copy)
    assert seconds("averaging", 1, 50) == pytest.approx(alone + copy + 2 * copy)
    # two workers; each averages the other's half too, where stripes can be halved: at most as long as all of them by one
    assert alone + 3 * copy <= seconds("averaging", 2, 100) <= alone + 4 * copy
    # a copy; an exchange after each period and in the end
    assert seconds("elastic", 1, 50, period=5) == pytest.approx(alone + copy + 11 * 2 * copy)
    # two copies for each group; an exchange after the first step, none before the token has gone round
    assert seconds("replicated", 2, 100, period=1000) == pytest.approx(alone + 2 * copy + 3 * copy, rel=0.02)
    assert seconds("replicated", 1, 50) == pytest.approx(alone)


def test_leashed_workers_try_until_nobody_was_faster():
    net = small_net()
    found = {}
    for publish in (1e-9, 1e-4):
        order = Order(
            net,
            engine_of(net, 8, "leashed"),
            flat_times(net, publish=publish),
            Machine(line_ns=0),
            "leashed",
            options_of("leashed"),
            [0],
        )
        seconds = order.seconds(4000)
        found[publish] = order.clock.counts["failures"], seconds
    layers = len({node for node, _ in engine_of(net, 1).stripe_table})
    assert found[1e-9][0] < 400 < 4000 < found[1e-4][0], "tries fail where updates take long, at most once per other worker"
    assert found[1e-4][0] < 7 * 4000
    assert found[1e-4][1] >= 4000 * 2 * layers * 1e-4, "a copy and an update, of which only one at a time can succeed"


def test_244_workers_on_many_images_take_seconds():
    net = chaos.models.small()
    order = Order(net, engine_of(net, 244), virtual.nominal(net), Machine(speed=0.01), "chaos", options_of("chaos"), [0])
    events = sum(len(block) for block in order.blocks(20_000))
    assert events >= 20_000 * 14


def test_times_are_kept_and_checked(tmp_path):
    net = chaos.models.small()
    times = virtual.measured(net)
    assert times.source == "measured" and times.per_image > 0 and times.gflops > 0
    times.write(tmp_path / "t.json")
    assert virtual.read_times(tmp_path / "t.json", net) == times
    with pytest.raises(ValueError, match="the network 1[0-9] layers"):
        virtual.read_times(tmp_path / "t.json", chaos.models.large())
    for text in ("{", "[]", '{"format": "chaos-times-1"}', '{"format": "other"}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="bad.json"):
            virtual.read_times(tmp_path / "bad.json", net)
    with pytest.raises(ValueError, match="at least 0"):
        Times("test", 1.0, 0.0, (-1.0,), (0.0,), (0.0,))


def test_what_cannot_be_simulated_is_refused(digits):
    net = chaos.models.small()
    with pytest.raises(ValueError, match="'other' cannot be simulated; these can: averaging, chaos"):
        virtual.clock.check_strategy("other", {})
    with pytest.raises(ValueError, match="clipping with strategy 'hybrid' cannot be simulated"):
        chaos.train(
            without_tail(),
            chaos.data.Dataset(*images(20, (2, 9, 8), classes=5)),
            strategy="hybrid",
            batch_size=20,
            workers=2,
            epochs=1,
            progress=False,
            runner=Virtual(),
            update_options={"clip_norm": 1.0},
        )
    for options in (
        dict(strategy="leashed", strategy_options={"persistence": 1}),
        dict(strategy_options={"max_staleness": 3}),
        dict(update_options={"max_norm": 1.0}),
        dict(strategy="hogwild", strategy_options={"grain": "instant"}),
        dict(strategy="synchronous", update_options={"clip_norm": 1.0}),
    ):
        with pytest.raises(ValueError, match="cannot be simulated"):
            chaos.train(net, *digits, workers=2, epochs=1, progress=False, runner=Virtual(), **options)
    with pytest.raises(ValueError, match="workers"):
        chaos.train(net, *digits, workers=5000, epochs=1, progress=False, runner=Virtual())
    with pytest.raises(ValueError, match="pin"):
        chaos.train(net, *digits, workers=5, epochs=1, pin="compact", progress=False, runner=Virtual())


def test_comparison_with_real_workers(digits):
    net = chaos.models.small()
    one, two = virtual.compare(net, digits[0], (1, 2), repeats=1, lr=0.01)
    assert one["staleness_distance"] == 0 and one["real"]["train_error"] == one["simulated"]["train_error"]
    assert two["workers"] == 2 and 0 <= two["staleness_distance"] <= 1 and two["simulated"]["speedup"] > 0


def test_what_workers_cost_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["simulate", "small", "--data", "digits", "--epochs", "2", "--lr", "0.01", "--quiet", "--beside-sequential"]
    assert cli.main([*arguments, "--workers", "1"]) == 0
    assert "1 workers cost +0.00 points" in capsys.readouterr().out
    assert cli.main([*arguments, "--workers", "244", "--subset", "500"]) == 0
    out = capsys.readouterr().out
    assert out.count(" with --") == 4 and "staleness_step=tail" in out and "--lr 0.005" in out


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "simulate",
        "small",
        "--data",
        "digits",
        "--subset",
        "300",
        "--workers",
        "50",
        "--epochs",
        "2",
        "--lr",
        "0.01",
        "--cores",
        "10",
        "--threads-per-core",
        "4",
        "--slowdown",
        "1,1,1.5,2",
        "--quiet",
    ]
    for folder, jobs in (("a", "1"), ("b", "3")):
        assert cli.main([*arguments, "--run-dir", folder, "--jobs", jobs]) == 0
    out = capsys.readouterr().out
    assert "50 virtual workers on 10 cores of 4 hardware threads" in out and "speed-up" in out and "this host" in out
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    record = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["workers"] == 50 and record["virtual"]["cores"] == 10 and record["seconds"] < 1
    # continued with the machine and the times of the run
    assert cli.main(["simulate", "--resume", "--run-dir", "a", "--epochs", "3", "--quiet"]) == 0
    assert cli.main([*arguments, "--epochs", "3", "--run-dir", "c", "--times", "a/times.json"]) == 0
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "c/metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert (
        cli.main(
            [
                "simulate",
                "small",
                "--machine",
                "xeon-phi-7120p",
                "--data",
                "digits",
                "--subset",
                "50",
                "--epochs",
                "1",
                "--quiet",
                "--run-dir",
                "d",
            ]
        )
        == 0
    )
    assert "244 virtual workers on 61 cores of 4 hardware threads" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert cli.main(["train", "--resume", "--run-dir", "a", "--epochs", "4", "--quiet"]) == 2
    assert "a holds a run of virtual workers; continue it with chaos simulate" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert (
        cli.main(
            [
                "simulate",
                "small",
                "--data",
                "digits",
                "--subset",
                "20",
                "--epochs",
                "1",
                "--strategy",
                "sequential",
                "--run-dir",
                "one",
                "--quiet",
            ]
        )
        == 0
    )
    assert "1 virtual worker on 1 core, sequential" in capsys.readouterr().out
    assert cli.main(["simulate", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(strategy in out for strategy in STRATEGIES)
    for bad, message in (
        (["--strategy-option", "max_staleness=2"], "cannot be simulated"),
        (["--slowdown", "1,2"], "slowdown"),
        (["--slowdown", "1,a"], "numbers with commas between, such as 1,1.2, not '1,a'"),
        (["--times", "nothing.json"], "nothing.json"),
        (["--cores", "0"], "cores"),
    ):
        assert cli.main([*arguments, "--run-dir", "e", *bad]) == 2
        assert message in capsys.readouterr().err
