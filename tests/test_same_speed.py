"""scripts/same_speed.py: its smallest form, and its figures on made-up turns."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
if not SCRIPTS.is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    spec = importlib.util.spec_from_file_location("same_speed", SCRIPTS / "same_speed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("turns", None)


def test_an_installation_against_itself(script, tmp_path, capsys):
    words = "--models small --workers 1 2 --batch-sizes 8 --rounds 3 --seconds 0.005 --json".split()
    script.main([sys.executable, sys.executable, *words, str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["net"], row["workers"], row["batch_size"]) for row in found["rows"]] == [("small", 1, 8), ("small", 2, 8)]
    assert found["facts"]["old"] == found["facts"]["new"] and found["facts"]["old"]["isa"]
    for row in found["rows"]:
        assert row["same_bits"] and [len(row["us_per_image"][name]) for name in ("old", "new")] == [3, 3]
        assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    said = capsys.readouterr().out
    assert said.count("| small |") == 2 and found["facts"]["old"]["cpu"] in said


def test_new_comes_over_old(script):
    """A new installation of half the speed, made up; and other bits."""

    class Made:
        def __init__(self, seconds, digest):
            self.answers = {"digest": digest, "turn": seconds, "case": None}

        def ask(self, do, **what):
            return self.answers[do]

    args = type("args", (), {"seconds": 0.1, "rounds": 5})
    row = script.measure((Made(0.1, "a"), Made(0.2, "b")), "small", 1, 8, args)
    assert row["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0} and row["fastest"] == 2
    assert (row["old"], row["new"]) == (pytest.approx(500), pytest.approx(1000)) and not row["same_bits"]
    assert "| 500.00 | 1000.00 | **2.000** | 2.000 .. 2.000 | 2.000 | **no** |" in script.table([row], 0.02)


def test_turns_alternate_and_the_interval_holds_the_median(script):
    order = []

    def turn(side):
        order.append(side)
        return {"a": 1.1, "b": 1.0}[side]

    found = script.pairs(("a", "b"), 4, turn)
    assert found == [(1.1, 1.0)] * 4 and "".join(order) == "baabbaab"
    middle, low, high = script.extra([(1 + step / 100, 1.0) for step in range(11)])
    assert middle == pytest.approx(0.05) and 0 <= low < middle < high <= 0.1
