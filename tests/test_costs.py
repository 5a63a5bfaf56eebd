"""chaos.perfmodel.costs, of every strategy: against the clock of virtual workers, its definitions, and `chaos estimate`
with --strategy and --plan. Nothing here depends on how fast the machine is."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chaos
from chaos import perfmodel, virtual
from chaos.cli import main
from chaos.models import MODELS
from chaos.perfmodel import cost, machine_of, sharing, strategies
from chaos.sync import STRATEGIES

# The forms are approximations where workers queue; these are their largest errors here, which are told in the documentation.
# Without queues they are within 2 %.
NEAR, NEAR_WAITING, NEAR_STALENESS = 0.12, 0.12, 0.35
STRIPES = {"stripe_bytes": 1024}
CASES = [
    ("chaos", {}),
    ("chaos", STRIPES),
    ("chaos", STRIPES | {"read": "publication"}),
    ("hogwild", STRIPES),
    ("locked", {}),
    ("leashed", {}),
    ("delayed", {}),
    ("synchronous", {}),
    ("hybrid", {}),
    ("averaging", {"period": 8}),
    ("elastic", STRIPES | {"period": 8}),
    ("replicated", STRIPES | {"group": 8, "period": 8}),
    ("domains", STRIPES | {"group": 8, "period": 16}),
    ("domains", STRIPES | {"group": 1, "period": 8}),
]
MACHINES = {
    "cores without places": lambda times, workers: virtual.Machine(),
    "two threads of a core": lambda times, workers: virtual.Machine(
        cores=max(1, workers // 2), threads_per_core=2, slowdown=(1, 1.6)
    ),
    "two sockets with cache domains": lambda times, workers: machine_of(
        perfmodel.read_machine("epyc-9654-2s"), times.gflops, workers
    ),
}


def name(case):
    return perfmodel.text_of(*case)


@pytest.fixture(scope="module")
def small():
    net = MODELS["small"](seed=0)
    return net, virtual.nominal(net)


# ---- against the clock ----


def test_every_strategy_has_a_form():
    assert set(perfmodel.costs.FORMS) == set(STRATEGIES) and {case[0] for case in CASES} | {"sequential"} == set(STRATEGIES)


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_form_agrees_with_the_clock(small, case, kind):
    net, times = small
    strategy, options = case
    for workers in (2, 16, 64):
        machine = MACHINES[kind](times, workers)
        size = 256 if strategy in ("synchronous", "hybrid") else 1
        images = max(4 * size, 100 * workers)
        asked = {"strategy": strategy, "strategy_options": options, "batch_size": size, "machine": machine, "times": times}
        clock = virtual.predict(net, workers, images=images, **asked)
        found = cost(net, workers, strategy, options, machine, times, size, images)
        assert found.us_per_image == pytest.approx(clock["us_per_image"], rel=NEAR), workers
        assert found.shares["waiting"] == pytest.approx(clock["waiting"], abs=NEAR_WAITING), workers


@pytest.mark.parametrize("case", [case for case in CASES if case[0] not in ("averaging", "elastic")], ids=name)
def test_staleness_is_that_of_virtual_workers(small, few_digits, case):
    strategy, options = case
    size = 64 if strategy in ("synchronous", "hybrid") else 1
    train, _ = few_digits
    for workers in (2, 16):
        net = MODELS["small"](seed=0)
        machine = MACHINES["two sockets with cache domains"](small[1], workers)
        run = chaos.train(
            net,
            train,
            None,
            strategy=strategy,
            strategy_options=options,
            batch_size=size,
            workers=workers,
            epochs=1,
            lr=1e-4,
            progress=False,
            runner=virtual.Virtual(machine, small[1]),
        )
        found = cost(net, workers, strategy, options, machine, small[1], size, len(train))
        assert found.staleness == pytest.approx(run.history[0]["staleness"]["mean"], rel=NEAR_STALENESS, abs=0.05), workers


# ---- definitions ----


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_a_cost_consists_of(small, data):
    net, times = small
    strategy, options = data.draw(st.sampled_from([*CASES, ("sequential", {})]))
    workers = 1 if strategy == "sequential" else data.draw(st.sampled_from([1, 2, 5, 24, 64, 250]))
    size = data.draw(st.sampled_from([1, 3, 8, 32, 500]))
    machine = MACHINES[data.draw(st.sampled_from([*MACHINES]))](times, workers)
    found = cost(net, workers, strategy, options, machine, times, size, 20_000)
    assert sum(found.terms.values()) == pytest.approx(found.us_per_image) and sum(found.shares.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in found.shares.values()) and 0 <= found.staleness < 2 * workers
    assert found.behind >= found.staleness and found.lines_per_image >= 0
    if STRATEGIES[strategy].deterministic and strategy != "delayed":
        assert found.staleness == 0
    bound = STRATEGIES[strategy].most_stale(STRATEGIES[strategy].resolve(dict(options)), workers)
    assert bound is None or found.staleness <= bound


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if STRATEGIES[name].equals_sequential])
def test_one_worker_takes_what_its_times_say(small, strategy):
    net, times = small
    found = cost(net, 1, strategy, {}, times=times, images=10**9)  # so that what comes once in a phase is nothing
    more = 1e6 * sum(times.publish) * 2 / 10**9
    if strategy == "averaging":  # which averages one replica
        assert found.us_per_image == pytest.approx(times.per_image * 1e6 + more, rel=1e-3)
    else:
        assert found.us_per_image == pytest.approx(times.per_image * 1e6, rel=1e-9)
        assert found.terms["transfer"] == found.terms["waiting"] == found.staleness == 0


def test_two_workers_pay_for_every_line_once_a_step(small):
    net, times = small
    lines = sum(-(-4 * net.plan.block(node)[1] // 64) for node in range(1, len(net.nodes())) if net.plan.block(node)[1])
    for size in (1, 8, 40):  # one chunk, and five
        found = cost(net, 2, "hogwild", {}, times=times, batch_size=size)
        assert found.lines_per_image * size == pytest.approx(lines, rel=0.15 if size > 8 else 0.01)
    many = cost(net, 4000, "hogwild", {}, virtual.Machine(line_ns=0), times)
    assert many.lines_per_image == pytest.approx(3 * lines, rel=0.01)  # before both passes, and before the publication


def test_without_a_cost_of_lines_and_stripes_workers_add_up(small):
    net, times = small
    free = virtual.Machine(line_ns=0, jitter=0)
    alone = times.per_image * 1e6
    for workers in (2, 16, 100):
        assert cost(net, workers, "hogwild", {}, free, times).us_per_image == pytest.approx(alone / workers)
        # half the workers per core, each 1.6 times as long
        pairs = replace(free, cores=workers // 2, threads_per_core=2, slowdown=(1.0, 1.6))
        assert cost(net, workers, "hogwild", {}, pairs, times).us_per_image == pytest.approx(1.6 * alone / workers)


def test_a_bound_on_staleness_lets_fewer_work(small):
    net, times = small
    free = cost(net, 32, "chaos", STRIPES, times=times)
    bound = cost(net, 32, "chaos", STRIPES | {"max_staleness": 6}, times=times)
    four = cost(net, 4, "chaos", STRIPES, times=times)
    assert bound.us_per_image == pytest.approx(four.us_per_image) and bound.staleness == four.staleness <= 6
    assert bound.shares["waiting"] == pytest.approx(28 / 32, abs=0.01) and free.us_per_image < bound.us_per_image


@pytest.mark.parametrize("workers, group", [(1, 1), (7, 3), (16, 8), (24, 24), (40, 5), (64, 8)])
def test_what_a_line_costs_between_groups(workers, group):
    where = virtual.Topology(domain=4, socket=16, near_ns=3, across_ns=17, far_ns=40)
    machine = virtual.Machine(cores=32, threads_per_core=2, topology=where)
    found = {True: [], False: []}
    for i in range(workers):
        for j in range(workers):
            a, b = i % 32, j % 32
            if i != j:
                found[i // group == j // group].append(3 if a // 4 == b // 4 else 17 if a // 16 == b // 16 else 40)
    for inside, costs in found.items():
        wanted = np.mean(costs) * 1e-9 if costs else 0
        assert sharing.line_seconds(machine, workers, group, inside) == pytest.approx(wanted)
    plain = virtual.Machine(line_ns=5)
    assert sharing.line_seconds(plain, workers, group) == (5e-9 if found[True] else 0)


def test_words_stand_for_what_the_machine_has(small):
    net, times = small
    machine = MACHINES["two sockets with cache domains"](times, 48)
    auto = cost(net, 48, "domains", {"group": "auto"}, machine, times)
    assert auto == cost(net, 48, "domains", {"group": 8}, machine, times)
    assert cost(net, 48, "domains", {"group": "none"}, machine, times) == cost(net, 48, "chaos", {}, machine, times)
    fitting = cost(net, 48, "chaos", {"stripe_bytes": "auto"}, machine, times)
    assert fitting == cost(net, 48, "chaos", {"stripe_bytes": 1024}, machine, times)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((0,), "workers must be"),
        ((2.0,), "workers must be"),
        ((2, "chaoss"), "unknown strategy 'chaoss'"),
        ((2, "chaos", {"period": 3}), "period"),
        ((2, "domains", {"period": 0}), "period"),
        ((2, "chaos", {}, None, None, 0), "batch_size"),
        ((2, "chaos", {}, None, None, 1, 0), "images must be"),
    ],
)
def test_a_cost_refuses(small, arguments, words):
    with pytest.raises(ValueError, match=words):
        cost(small[0], *arguments)


# ---- predictions ----


class Known:
    """A calibration of figures that are given."""

    def __init__(self, figures):
        self.found, self.transferred = figures, False

    def load(self):
        pass

    def transfer(self, model):
        self.transferred = True

    def distances(self):
        return {}

    def costs(self, model, distances):
        return {"within_domain_ns": {"line_ns": 6.0}}

    def figures(self, model, batch_size):
        return replace(self.found, batch_size=batch_size)

    def host(self, costs):
        return replace(
            perfmodel.read_machine("epyc-9654-2s"),
            name="here",
            **{"sockets": 1, "cores": 2, "cache_domains": 1, "threads_per_core": 1, "threads_throughput": (1.0,)},
            **{"within_domain_ns": costs["within_domain_ns"], "across_domains_ns": None, "across_sockets_ns": None},
        )


FIGURES = perfmodel.Figures("small", 1, 3.0, 5.0, 0.5, 1.5, 2.5, 113.6, (16384, 16384, 2944), 100_000, 841)


def test_predictions_for_this_machine_rest_on_what_was_measured():
    known = Known(FIGURES)
    found = perfmodel.estimate_strategy("small", "chaos", calibration=known)
    one, two = found["points"]
    assert known.transferred and found["times"] == "calibrated" and found["machine"]["name"] == "here"
    assert one["us_per_image"] == pytest.approx(10.0) and one["speedup"] == pytest.approx(1)
    lines = 558  # of small
    assert two["us_per_image"] == pytest.approx((10 + 0.006 * lines) / 2, rel=0.02)
    assert perfmodel.estimate_strategy("small", "sequential", calibration=known)["points"][0]["workers"] == 1


def test_memory_is_a_limit_of_its_own():
    huge = Known(replace(FIGURES, worker_bytes=1 << 31))
    point = perfmodel.estimate_strategy("small", "elastic", {}, [2], calibration=huge)["points"][0]
    assert point["terms"]["bandwidth"] > 0.9 * point["us_per_image"]
    assert sum(point["shares"].values()) == pytest.approx(1) and sum(point["terms"].values()) == pytest.approx(
        point["us_per_image"]
    )


def test_times_are_divided_among_the_layers(small):
    net, _ = small
    found = strategies.times_of(replace(FIGURES, batch_size=4), net)
    assert sum(found.forward) == pytest.approx(3e-6) and sum(found.backward) == pytest.approx(5e-6)
    assert sum(found.publish) == pytest.approx(4 * 0.5e-6) and found.begin == pytest.approx(1.5e-6)
    assert [bool(t) for t in found.publish] == [bool(net.plan.block(node)[1]) for node in range(1, len(net.nodes()))]


# ---- the front ----


@pytest.fixture(scope="module")
def predictor():
    return perfmodel.Predictor("small", "epyc-9654-2s", "nominal")


def written(rows, **asked):
    return {"asked": {"model": "small", "workers": 24, **asked}, "rows": rows}


def test_the_best_are_those_that_nothing_beats(predictor):
    errors = [
        {"strategy": "sequential", "last_error": 0.02, "speedup": 1.0},
        {"strategy": "domains:period=16,group=8,stripe_bytes=1024", "last_error": 0.03, "speedup": 15.0},
        {"strategy": "domains:group=8,period=16,mix=0.3,stripe_bytes=1024", "last_error": 0.021, "speedup": 15.0},
        {"strategy": "chaos:read=publication", "diverged": "seed 0"},
    ]
    found = perfmodel.plan(predictor, 24, written(errors))
    rows = found["rows"]
    assert [row["speedup"] for row in rows] == sorted((row["speedup"] for row in rows), reverse=True)
    for mark, key in (("best", "images_behind"), ("best_error", "error")):
        for row in rows:
            beaten = row[key] is None or any(
                other[key] is not None and other["speedup"] >= row["speedup"] and other[key] <= row[key]
                for other in rows[: rows.index(row)]
            )
            assert row[mark] != beaten
    by = {row["strategy"]: row for row in rows}
    assert by["domains:period=16,group=8,stripe_bytes=1024"]["error"] == 0.03  # the same options in another order
    assert "domains:stripe_bytes=1024,group=8,period=16" not in by
    assert by["domains:group=8,period=16,mix=0.3,stripe_bytes=1024"]["error"] == 0.021 and "sequential" in by
    assert {row["strategy"].partition(":")[0] for row in rows} == set(STRATEGIES)
    assert by["synchronous"]["images_behind"] == (by["synchronous"]["batch_size"] - 1) / 2


@pytest.mark.parametrize(
    "errors, words",
    [
        ({}, "the errors lack 'asked'"),
        ([], "the errors lack"),
        (written([], workers=8), "of small with 8 workers, not of small with 24"),
        (written([], model="large"), "of large with 24 workers"),
        (written([{"strategy": "chaoss", "last_error": 1}]), "unknown strategy 'chaoss'"),
    ],
)
def test_errors_of_something_else_are_refused(predictor, errors, words):
    with pytest.raises(ValueError, match=words):
        perfmodel.plan(predictor, 24, errors)


# ---- the command ----

NOMINAL = ["--machine", "epyc-9654-2s", "--times", "nominal"]


def test_the_command_shows_a_strategy(capsys):
    asked = ["estimate", "small", "--strategy", "domains", "--strategy-option", "group=8", *NOMINAL, "--workers", "1,8,192"]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert not err and "small, domains:group=8, batch size 1" in out and "3.8 or 17 or 35 ns" in out
    for words in ("transfer", "waiting", "staleness", "behind", "lines/image", "speed-up"):
        assert words in out, words
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["workers"] for point in found["points"]] == [1, 8, 192] and found["options"] == {"group": 8}
    assert found["points"][2]["speedup"] > 90


def test_the_command_goes_on_to_many_nodes(capsys):
    """Ranks x groups x workers."""
    domains = ["--strategy", "domains", "--strategy-option", "group=8", *NOMINAL, "--workers", "192"]
    asked = ["estimate", "large", *domains, "--nodes", "1,64", "--cluster-option", "every=500", "--network", "200gbit,1.5us"]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert not err and "async every 500 images over 200gbit,1.5us" in out and "12,288" in out and "!" not in out
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (alone,), (one, many) = found["points"], found["nodes"]["rows"]
    assert one["images_per_second"] == pytest.approx(alone["images_per_second"])
    assert one["over_one"] == pytest.approx(alone["speedup"]) and one["images_behind"] == alone["images_behind"]
    assert 50 * alone["speedup"] < many["over_one"] < 64 * alone["speedup"]
    assert many["images_behind"] == pytest.approx(alone["images_behind"] + 63 * 500)
    assert main(["estimate", "large", *domains, "--nodes", "64", "--network", "1gbit,50us"]) == 0
    assert "! takes longer than the time between two exchanges" in capsys.readouterr().out


def test_the_command_shows_the_front(capsys, tmp_path):
    errors = tmp_path / "errors.json"
    errors.write_text(json.dumps(written([{"strategy": "sequential", "last_error": 0.0123, "speedup": 1.0}])))
    assert main(["estimate", "small", "--plan", *NOMINAL, "--workers", "24", "--errors", str(errors)]) == 0
    out = capsys.readouterr().out
    assert "24 workers" in out and "1.23 %" in out and "nothing is both faster and less far behind" in out
    assert main(["estimate", "small", "--plan", *NOMINAL, "--workers", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["workers"] == 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--strategy-option", "group=8"], "argument --strategy-option: needs --strategy"),
        (["--times", "nominal"], "argument --times: only with --strategy or --plan"),
        (["--errors", "a.json"], "argument --errors: only with --plan"),
        (["--plan", "--strategy", "chaos"], "argument --strategy: not with --plan"),
        (["--plan", "--workers", "1,2"], "argument --workers: one number with --plan"),
        (["--plan", "--epochs", "2"], "argument --epochs: not with --plan"),
        (["--strategy", "chaos", "--validate"], "argument --validate: not with --strategy or --plan"),
        (["--strategy", "chaos", "--paper"], "argument --strategy: not with --paper"),
        (["--strategy", "domains", "--strategy-option", "mix=2", *NOMINAL], "mix"),
        (["--nodes", "2"], "argument --nodes: needs --strategy"),
        (["--cluster", "local"], "argument --cluster: only with --nodes"),
        (["--strategy", "chaos", "--nodes", "2", "--workers", "1,2"], "argument --workers: one number with --nodes"),
        (["--strategy", "chaos", *NOMINAL, "--nodes", "two"], "argument --nodes: not a number"),
        (["--strategy", "chaos", *NOMINAL, "--nodes", "2", "--network", "10gbit"], "as 100gbit,2us, not '10gbit'"),
        (["--strategy", "chaos", *NOMINAL, "--nodes", "2", "--network", "0gbit,2us"], "as 100gbit,2us, not '0gbit,2us'"),
        (["--strategy", "chaos", *NOMINAL, "--nodes", "2", "--cluster-option", "period=2"], "every"),
        (["--strategy", "chaos", *NOMINAL, "--nodes", "2", "--cluster", "local", "--cluster-option", "epochs=1"], "beside"),
        (["--plan", *NOMINAL, "--errors", "nothing.json"], "nothing.json"),
    ],
)
def test_the_command_refuses(capsys, arguments, words):
    assert main(["estimate", "small", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_errors_that_are_no_json_are_refused(capsys, tmp_path):
    (tmp_path / "a.json").write_text("nothing")
    assert main(["estimate", "small", "--plan", *NOMINAL, "--errors", str(tmp_path / "a.json")]) == 2
    assert "a.json: no JSON" in capsys.readouterr().err


def test_what_cannot_train_a_network_is_not_predicted():
    """Batch normalisation sees the whole batch, which some strategies cut into lanes."""
    net = chaos.Network((1, 8, 8), [chaos.Conv2d(4, 3), chaos.BatchNorm2d(), chaos.Flatten(), chaos.Linear(10)])
    with pytest.raises(ValueError, match="BatchNorm2d.* sees the whole batch, which strategy 'hybrid' cuts into lanes"):
        perfmodel.cost(net, 2, "hybrid", batch_size=8)
    found = perfmodel.plan(perfmodel.Predictor(net, "epyc-9654-2s", "nominal"), 192)
    known = {row["strategy"].partition(":")[0] for row in found["rows"]}
    assert known == {name for name, strategy in STRATEGIES.items() if not strategy.lanes}
