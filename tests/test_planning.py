"""Plans of workers and cadence: what is tried and chosen, what the records change, and the same decisions again."""

import json

import pytest

import chaos
from chaos import threads, virtual
from chaos.cli import main
from chaos.training import planning
from chaos.training.planning import Candidate, adapted, choose

COUNTED = {"epochs": 3, "lr": 0.02, "progress": False}


@pytest.fixture
def digits():
    return tuple(one[:96] for one in chaos.data.load("digits", size=12))


def network():
    return chaos.Network((1, 12, 12), [chaos.Flatten(), chaos.Linear(12), chaos.Tanh(), chaos.Linear(10)], seed=1)


def trained(digits, **given):
    net = network()
    run = chaos.train(net, *digits, **COUNTED | given)
    return net, run


@pytest.fixture
def tells(monkeypatch):
    """Makes candidates take given times, by (workers, groups); the machine is one cache of four CPUs."""
    monkeypatch.setattr(threads, "cache_domains", lambda **_: threads.Domains(((0, 1),), "L3"))

    def fix(*times):
        left = list(times)

        def measure(job, tried):
            us = left.pop(0) if len(left) > 1 else left[0]
            return [
                planning.dataclasses.replace(one, us=us[one.plan.workers, -(-one.plan.workers // one.options["group"])])
                for one in tried
            ]

        monkeypatch.setattr(planning, "measure", measure)

    return fix


# of a machine so slow that no epoch takes longer
PLENTY = {(1, 1): 9e9, (2, 1): 6e9, (2, 2): 5e9, (4, 1): 5e9, (4, 2): 4e9, (4, 4): 3e9}


@pytest.mark.parametrize(
    "us, chosen",
    [
        ((10, 6, 5), 2),
        ((10, 10.1, 11), 0),  # more cores are never slower: they stay away
        ((10, 9.8, 9.9), 0),  # nor are they taken for nothing
        ((10, 5.1, 5.0), 1),  # nor is a replica
    ],
)
def test_more_workers_and_later_updates_only_where_they_pay(us, chosen):
    tried = [Candidate(threads.resolve(1), {}, str(n), us=one) for n, one in enumerate(us)]
    assert choose(tried) is tried[chosen]


@pytest.mark.parametrize(
    "spent, period, workers, group, new",
    [
        (0.25, 16, 2, 1, 32),
        (0.25, 64, 2, 1, None),  # as long as it gets
        (0.25, 16, 24, 1, None),  # 24 groups x 16 steps is what is known to learn
        (0.25, 16, 16, 1, 24),
        (0.12, 32, 2, 1, None),
        (0.06, 32, 2, 1, 16),
        (0.06, 16, 2, 1, None),
        (0.25, 16, 2, 2, None),  # who shares weights exchanges nothing
    ],
)
def test_the_period_answers_to_exchange_and_waiting(spent, period, workers, group, new):
    """Beyond the 5 % that updates take one worker; evaluations are not the training's time."""
    split = {"publish": spent / 4, "wait": spent / 4, "evaluate": 0.5}
    plan = {"workers": workers, "group": group, "period": period, "alone_share": 0.05}
    assert adapted({"plan": plan, "time_split": split}) == new


def test_what_is_tried():
    assert planning.numbers(192, 8) == [1, 8, 24, 48, 96, 192]
    assert planning.numbers(2, 2) == [1, 2] and planning.numbers(1, 1) == [1]


def test_the_fastest_trains_and_the_records_say_so(tells, digits, tmp_path, capsys):
    tells(PLENTY)
    _, run = trained(digits, plan="auto", workers=4, run_dir=tmp_path, progress=True)
    text = capsys.readouterr().err
    assert (
        "plan: 4 workers in 4 groups, period 16: 3e+09 us per image (1 worker 9e+09, 2 workers sharing weights 6e+09" in text
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["strategy"] == "domains" and config["plan"] == "auto"
    first = run.history[0]
    assert first["workers"] == 4 and first["plan"] | {"workers": 4, "group": 1, "period": 16, "us": 3e9} == first["plan"]
    assert len(first["worker_images"]) == 4


def test_an_epoch_that_was_slower_than_one_worker_is_measured_again(tells, digits, monkeypatch):
    """No epoch of 96 images takes less than a picosecond for each."""
    monkeypatch.setattr(planning, "LASTS", 0)
    slow = dict.fromkeys(PLENTY, 1e-06)
    tells(slow | {(4, 4): 1e-7}, PLENTY | {(1, 1): 1.0})
    _, run = trained(digits, plan="auto", workers=4)
    assert [record["workers"] for record in run.history] == [4, 1, 1]
    assert [record["plan"]["us"] for record in run.history] == [1e-7, 1.0, 1.0]


@pytest.mark.parametrize("update", ["sgd", "adam"])
def test_decisions_change_nothing_that_is_learned(digits, update):
    """One worker, which is sequential however it is told to exchange: an engine of its own for each epoch goes on with the
    state of the one before."""
    plan = [{"workers": 1, "group": 1, "period": period} for period in (4, 8, 2)]
    net, run = trained(digits, plan=plan, update=update)
    alone, _ = trained(digits, strategy="sequential", update=update)
    assert net.weights.tobytes() == alone.weights.tobytes()
    assert [record["plan"] for record in run.history] == plan


def test_the_same_decisions_again(tells, digits, tmp_path):
    tells(PLENTY)
    _, run = trained(digits, plan="auto", workers=4, run_dir=tmp_path)
    decided = [record["plan"] for record in run.history]
    monitored = planning.measure
    planning.measure = None  # nothing is measured
    try:
        _, again = trained(digits, plan=decided, workers=2)
        assert [record["plan"] for record in again.history] == decided
        assert [record["workers"] for record in again.history] == [4] * 3
    finally:
        planning.measure = monitored


def test_a_run_goes_on_with_its_decisions(tells, digits, tmp_path):
    tells(PLENTY, None)
    trained(digits, plan="auto", workers=4, run_dir=tmp_path, epochs=1, update="adam")
    _, run = trained(digits, plan="auto", workers=4, run_dir=tmp_path, resume=True, update="adam", epochs=2)
    assert [record["workers"] for record in run.history] == [4, 4]


def test_really_measured(digits):
    """Whatever is chosen on this machine."""
    _, run = trained(digits, plan="auto", epochs=1)
    found = run.history[0]["plan"]
    assert 1 <= found["workers"] <= threads.resolve().workers and 0 < found["us"] <= found["alone_us"] * (1 + planning.WORTH)
    assert 0 <= found["alone_share"] < 1 and found["group"] >= 1


def test_measuring_changes_nothing(digits):
    """One worker, who is all that there may be, ends where sequential training does."""
    net, run = trained(digits, plan="auto", workers=1, update="momentum")
    alone, _ = trained(digits, strategy="sequential", update="momentum")
    assert net.weights.tobytes() == alone.weights.tobytes() and run.history[0]["plan"]["workers"] == 1


def test_another_strategy_keeps_its_options(monkeypatch, digits):
    seen = []

    def measure(job, tried):
        seen.extend((one.plan.workers, dict(one.options)) for one in tried)
        return [planning.dataclasses.replace(one, us=1.0) for one in tried]

    monkeypatch.setattr(planning, "measure", measure)
    options = {"read": "publication"}
    _, run = trained(digits, plan="auto", workers=2, strategy_options=options, epochs=1)
    assert [workers for workers, _ in seen] == [1, 2] and all(one["read"] == "publication" for _, one in seen)
    assert run.history[0]["strategy"] == "chaos" and run.history[0]["workers"] == 1


@pytest.mark.parametrize(
    "given, words",
    [
        ({"plan": "some"}, "plan must be one of off, auto, or a list of decisions, not 'some'"),
        ({"plan": []}, "plan must be one of"),
        ({"plan": [{"period": 1}]}, "decision 0 must be a dict with workers"),
        ({"plan": [{"workers": 0}]}, "workers of decision 0 must be a whole number"),
        ({"plan": "auto", "strategy": "sequential"}, "strategy that allows several"),
        ({"plan": "auto", "runner": virtual.Virtual()}, "real workers"),
    ],
)
def test_what_is_no_plan(digits, given, words):
    with pytest.raises(ValueError, match=words):
        trained(digits, workers=1, **given)


def test_on_the_command_line(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    asked = ["train", "small", "--data", "digits", "--subset", "64", "--epochs", "2", "--quiet"]
    assert main([*asked, "--plan", "auto", "--run-dir", str(first)]) == 0
    decided = [json.loads(line)["plan"] for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert main([*asked, "--plan", str(first), "--run-dir", str(second)]) == 0
    assert [json.loads(line)["plan"] for line in (second / "metrics.jsonl").read_text().splitlines()] == decided
    assert main(["train", "--resume", "--run-dir", str(first), "--epochs", "3", "--quiet"]) == 0
    assert len((first / "metrics.jsonl").read_text().splitlines()) == 3
    capsys.readouterr()
    assert main([*asked, "--plan", str(tmp_path / "none")]) != 0
    assert "neither off nor auto nor a run's directory" in capsys.readouterr().err
