"""scripts/compare_sync.py: its smallest form over all strategies, its figures on made-up histories, and that its checks can
fail."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import chaos
from chaos.sync import STRATEGIES

SCRIPT = Path(__file__).resolve().parent.parent / "scripts/compare_sync.py"
if not SCRIPT.is_file():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)
SMALLEST = [
    "--models",
    "small",
    "--data",
    "digits",
    "--images",
    "60",
    "--epochs",
    "2",
    "--workers",
    "1",
    "2",
    "--seeds",
    "2",
    "--rounds",
    "2",
    "--seconds",
    "0.005",
]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_sync", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smallest_form(script, tmp_path, capsys, nightly):
    path = tmp_path / "out.json"
    strategies = list(STRATEGIES) if nightly else ["sequential", "chaos", "synchronous", "averaging"]
    named = [*strategies, "chaos:max_pending=2", "synchronous:batch_size=8,lr=0.1"]
    script.main([*SMALLEST, "--json", str(path), "--strategies", *named])
    found = json.loads(path.read_text())
    assert found["machine"]["cores"] >= 1 and "commit" in found["machine"]
    assert found["isa"] and found["settings"]["seeds"] == 2
    rows = {(row["strategy"], row["workers"]): row for row in found["rows"]}
    assert rows.keys() == {(name, w) for name in named for w in (1, 2)} - {("sequential", 2)}
    assert rows["synchronous:batch_size=8,lr=0.1", 2]["batch_size"] == 8
    assert rows["chaos:max_pending=2", 2]["options"]["max_pending"] == 2
    out = capsys.readouterr().out
    for row in rows.values():
        assert row["strategy"] in out
        speed, accuracy = row["speed"], row["accuracy"]
        assert speed["images_per_second"] > 0 and 0 <= speed["wait"] <= 1 and speed["of_chaos"] > 0
        assert len(accuracy["final_errors"]) == 2 and np.shape(accuracy["errors_per_epoch"]) == (2, 2)
        assert accuracy["final_error"]["low"] <= accuracy["final_error"]["mean"] <= accuracy["final_error"]["high"]
        assert accuracy["staleness"]["max"] == 0 or row["workers"] > 1
    assert rows["chaos", 1]["speed"]["of_chaos"] == 1
    for name in strategies:
        if STRATEGIES[name].equals_sequential:
            assert rows[name, 1]["accuracy"]["difference"] == {"mean": 0, "low": 0, "high": 0}


def test_plot(script, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.svg"
    script.main([*SMALLEST, "--strategies", "chaos", "--plot", str(path)])
    assert "images/s" in path.read_text() or path.stat().st_size > 1000


def history(*errors):
    return [
        {"epoch": i, "seconds": 2.0, "test_error": e, "staleness": {"mean": i, "p99": i, "max": i}}
        for i, e in enumerate(errors, 1)
    ]


def test_figures(script):
    rng = np.random.default_rng(0)
    assert script.reached(history(0.3, 0.1, 0.2), 0.15) == (2, 4.0) and script.reached(history(0.3), 0.1) == (None, None)
    assert script.interval([0.5], rng) == (0.5, None, None) and script.interval([0.5] * 4, rng) == (0.5, 0.5, 0.5)
    values = np.random.default_rng(1).normal(10, 2, 400)
    mean, low, high = script.interval(values, rng)
    error = values.std(ddof=1) / 20
    assert mean == values.mean() and abs(low - (mean - 1.96 * error)) < 0.1 * error
    assert abs(high - (mean + 1.96 * error)) < 0.1 * error
    base = [history(0.5, 0.2), history(0.4, 0.1)]
    found = script.accuracy([history(0.4, 0.3), history(0.05, 0.2)], base, 0.1, rng)
    assert found["final_errors"] == [0.3, 0.2] and found["difference"]["mean"] == pytest.approx(0.1)
    assert found["reached"] == 1 and found["epochs_to_target"] == 1 and found["seconds_to_target"] == 2
    assert found["staleness"] == {"mean": 2, "p99": 2, "max": 2}


def test_broken_promises_are_found(script, monkeypatch):
    """Nothing is timed of a strategy that does not do what it says."""
    monkeypatch.setattr(type(STRATEGIES["averaging"]), "most_stale", lambda self, resolved, workers: -1)
    with pytest.raises(chaos.ChaosError, match="is promised"):
        script.main([*SMALLEST, "--strategies", "averaging"])
    if "hogwild" in STRATEGIES:
        entry = script.Entry("hogwild:grain=instant", 1, 0.01)
        entry.options = {}  # it passes for the default, which equals `sequential`
        with pytest.raises(chaos.ChaosError, match="does not equal sequential"):
            script.Speed(entry, "small", 1, {})


@pytest.mark.parametrize(
    "bad",
    [
        ["--strategies", "wild"],
        ["--strategies", "chaos:lr=fast"],
        ["--seeds", "-1"],
        ["--strategies", "chaos:colour=red"],
        ["--workers", "0"],
        ["--models", "huge"],
    ],
)
def test_bad_arguments(script, bad, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main(bad)
    assert caught.value.code == 2 and "error:" in capsys.readouterr().err
