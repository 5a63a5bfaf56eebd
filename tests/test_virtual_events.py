"""Given orders of events: any number of threads runs them to the same bits; impossible ones are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import graph, images
from orders import SIMULATED, codes_of, default_order, engine_of, events_of, flat_times, options_of, run_events, small_net

import chaos
from chaos import virtual
from chaos.sync import STRATEGIES
from chaos.virtual import Machine, Order, Virtual


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
