"""Domains: replicas of groups that carry their sums of updates, in a given order against its definition, and what the place
of a core costs on virtual machines."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import one_layer
from orders import codes_of, engine_of, events_of, flat_times, options_of, small_net

import chaos
from chaos import distance, threads
from chaos.perfmodel import costs
from chaos.sync import STRATEGIES
from chaos.training import Threads
from chaos.virtual import Machine, Order, Topology


@settings(max_examples=60, deadline=None)
@given(
    workers=st.integers(1, 9),
    group=st.integers(1, 4),
    period=st.integers(1, 9),
    mix=st.sampled_from([None, 1.0, 0.5, 0.125]),
    n=st.integers(0, 80),
    batch=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
    publish=st.sampled_from([1e-8, 1e-5]),
)
def test_domains_are_their_definition_in_the_given_order(workers, group, period, mix, n, batch, seed, publish):
    """Gradients that do not depend on the weights: image i changes column i of a linear layer by 1 / batch. So the weights
    are the sum of the updates, as far as exchanges have carried them."""

    def make():
        net = one_layer((max(n, 1),), chaos.Linear(2, bias=False))
        net.load_state_dict({"0.weight": np.zeros((2, max(n, 1)), np.float32)})
        return net

    net, options = make(), options_of("domains", group=group, period=period, mix=mix)
    asked = dict(batch_size=batch, stripe_bytes=256, strategy_options=STRATEGIES["domains"].core_options(options))
    engine = engine_of(net, workers, "domains", **asked, loss="score")
    machine = Machine(jitter=0.5, line_ns=100)
    found = events_of(Order(net, engine, flat_times(net, publish=publish), machine, "domains", options, [seed]), n)
    codes, x = codes_of(found), np.eye(n, dtype=np.float32)
    y, ends = np.arange(n) % 2, []
    for jobs in (1, 2, 3):
        net = make()
        result = engine_of(net, workers, "domains", **asked, loss="score").run(
            "train", inputs=[x.reshape(-1)], labels=y, lr=1.0, events=[codes], jobs=jobs
        )
        assert result["status"] == "done" and result["images"] == n
        ends.append(net.weights.tobytes())
    assert ends[0] == ends[1] == ends[2]

    groups = -(-workers // group)
    mix = mix or min(1, 1.5 / groups**0.5)
    position = np.empty(2 * max(n, 1), np.int64)
    net.plan.positions(1, "weight", position)
    gradients = np.zeros((-(-n // batch), len(net.weights)))
    for i in range(n):
        gradients[i // batch, position[y[i] * n + i]] = 1 / (min(n, (i // batch + 1) * batch) - i // batch * batch)
    process = np.zeros(len(net.weights))
    replica, base = np.zeros((groups, len(net.weights))), np.zeros((groups, len(net.weights)))
    under_way, waiting, exchanges, steps = {}, {}, [0] * groups, [0] * groups
    for kind, w, what in found:
        g = w // group
        if kind == "step":
            under_way[w] = what
            steps[g] += 1
        elif kind == "backward":
            waiting |= {(w, k): under_way[w] for k in range(engine.stripes)}
        elif kind in ("publish", "exchange"):
            at, size = engine.stripe(what)
            part = slice(at, at + size)
        if kind == "publish":
            (process if groups == 1 else replica[g])[part] += gradients[waiting[w, what], part]
        elif kind == "exchange":
            process[part] += mix * (replica[g, part] - base[g, part])
            replica[g, part] = base[g, part] = process[part]
            exchanges[g] += 1
    if groups > 1:
        process += mix * (replica - base).sum(axis=0)
        most = [count // period * engine.stripes for count in steps]
        assert all(count % engine.stripes == 0 and count <= top for count, top in zip(exchanges, most, strict=True))
        if group == 1:  # who carries misses no step
            assert exchanges == most
        if mix == 1:
            np.testing.assert_allclose(process, gradients.sum(axis=0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(net.weights, process, rtol=0, atol=1e-5)


def seconds(machine, strategy, workers=8, n=400, **given):
    net, options = small_net(), options_of(strategy, **given)
    how = dict(stripe_bytes=256, strategy_options=STRATEGIES[strategy].core_options(options))
    engine = engine_of(net, workers, strategy, **how)
    return Order(net, engine, flat_times(net), machine, strategy, options, [0]).seconds(n)


@pytest.mark.parametrize("strategy", ["chaos", "elastic", "domains", "replicated"])
def test_a_topology_whose_lines_cost_the_same_changes_nothing(strategy):
    same = Machine(cores=8, line_ns=50, topology=Topology(2, 4, 50, 50, 50))
    assert seconds(same, strategy) == seconds(Machine(cores=8, line_ns=50), strategy)


def test_lines_cost_what_their_way_costs():
    def machine(near, across, far):
        return Machine(cores=8, jitter=0, topology=Topology(2, 4, near, across, far))

    free, all_of_it = seconds(machine(0, 0, 0), "chaos"), seconds(machine(100, 100, 100), "chaos")
    parts = [seconds(machine(*ns), "chaos") for ns in ((100, 0, 0), (0, 100, 0), (0, 0, 100))]
    assert all(free < part < all_of_it for part in parts)
    # a group of a domain's cores pays for lines from elsewhere only when it carries
    near, carried = machine(0, 100, 100), dict(group=2, period=1000)
    assert seconds(near, "domains", **carried) == pytest.approx(seconds(machine(0, 0, 0), "domains", **carried), rel=0.05)
    assert seconds(near, "chaos") > 1.05 * free
    assert seconds(near, "domains", group=2, period=2) > seconds(near, "domains", group=2, period=20)


@pytest.mark.parametrize(
    "bad", [dict(domain=0), dict(socket=1), dict(near_ns=-1), dict(far_ns=float("nan")), dict(domain=2.5)]
)
def test_what_is_no_topology(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Topology(**dict(domain=2, socket=4, near_ns=1, across_ns=2, far_ns=3) | bad)
    with pytest.raises(ValueError, match="sockets of 4 cores"):
        Machine(cores=3, topology=Topology(2, 4, 1, 2, 3))


# ---- groups from the machine ----


@pytest.fixture
def digits():
    return tuple(one[:64] for one in chaos.data.load("digits", size=12))


def training(digits, **given):
    net = chaos.Network((1, 12, 12), [chaos.Flatten(), chaos.Linear(10)], seed=1)
    return chaos.train(net, *digits, strategy="domains", epochs=1, lr=0.01, progress=False, **given)


@pytest.mark.parametrize("word, group", [("auto", 2), ("measured", 1), ("none", 4096), (3, 3)])
def test_the_group_is_what_shares_a_cache(monkeypatch, tmp_path, digits, word, group):
    """And is kept as a number, which a continued run takes, whatever the machine is by then."""
    monkeypatch.setattr(Threads, "grouped", lambda self, plan, measured: (plan, 1 if measured else 2))
    run = training(digits, workers=4, strategy_options={"group": word}, run_dir=tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["strategy_options"]["group"] == group
    monkeypatch.setattr(Threads, "grouped", lambda self, plan, measured: (plan, 7))
    again = training(digits, workers=4, strategy_options={"group": word}, run_dir=tmp_path, resume=True)
    assert len(run.history) == len(again.history) == 1
    assert json.loads((tmp_path / "config.json").read_text())["strategy_options"]["group"] == group


def test_virtual_groups_are_the_virtual_machines():
    data = tuple(one[:48] for one in chaos.data.load("digits", size=12))
    found = {}
    for group in ("auto", 2):
        machine = Machine(cores=6, topology=Topology(2, 6, 10, 20, 30))
        runner = chaos.virtual.Virtual(machine)
        net = chaos.Network((1, 12, 12), [chaos.Flatten(), chaos.Linear(10)], seed=1)
        options = {"group": group, "period": 2}
        chaos.train(
            net, *data, strategy="domains", strategy_options=options, workers=6, epochs=1, progress=False, runner=runner
        )
        found[group] = net.weights.tobytes()
    assert found["auto"] == found[2]


def test_predictions_know_the_virtual_caches():
    machine = Machine(cores=8, jitter=0, topology=Topology(4, 8, 10, 100, 100))
    found = []
    for options in ({"group": "auto", "stripe_bytes": "auto"}, {"group": 4, "stripe_bytes": 1024}):
        cost = costs.cost(small_net(), 8, "domains", options, machine).us_per_image
        clock = chaos.virtual.predict(
            small_net(),
            8,
            images=50,
            strategy="domains",
            strategy_options=options,
            machine=machine,
            times=flat_times(small_net()),
        )
        found.append((cost, clock))
    assert found[0] == found[1]


def test_a_word_is_no_number_for_the_core():
    domains = STRATEGIES["domains"]
    assert domains.parse(["group=auto", "stripe-bytes=auto"]) == {"group": "auto", "stripe_bytes": "auto"}
    with pytest.raises(ValueError, match="found out when a training begins"):
        domains.core_options(domains.resolve({"group": "auto"}))
    with pytest.raises(ValueError, match="group .* must be a number or one of auto, measured, none, not 'some'"):
        domains.resolve({"group": "some"})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_stripes_fit_weights_and_workers(strategy):
    """As many as let all parties write at once, within what locks are worth."""
    how = STRATEGIES[strategy]

    def stripe(floats, workers, **given):
        options = how.resolve({"stripe_bytes": "auto", **given})
        return how.settle(options, workers, floats, lambda _: workers)["stripe_bytes"]

    assert stripe(1 << 24, 2) == 16384 and stripe(100, 100) == 1024
    sizes = [stripe(1 << 14, workers) for workers in (1, 2, 4, 8, 16, 64)]
    assert sizes == [16384, 16384, 8192, 4096, 2048, 1024]
    if strategy == "domains":
        assert stripe(1 << 14, 16, group=4) == 8192 and stripe(1 << 14, 16, group="none") == 2048


def test_measured_domains(monkeypatch):
    """Cores whose hand-overs are quick are together; one that never runs at the same time is alone."""
    near = {frozenset(pair) for pair in ((0, 2), (0, 5), (1, 3))}
    asked = []

    def hand_over(pool, pair, *_):
        asked.append(pair)
        return None if 4 in pair else 25.0 if frozenset(pair) in near else 150.0

    monkeypatch.setattr(distance, "_hand_over", hand_over)
    monkeypatch.setattr(distance.os, "sched_setaffinity", lambda *_: None, raising=False)
    found = distance.measured_domains(set(range(6)))
    assert found == threads.Domains(((0, 2, 5), (1, 3), (4,)), "measured")
    assert len(asked) < 6 * 5
