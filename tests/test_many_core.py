"""scripts/many_core.py: which cases it measures, what it makes of them. Nothing is measured here."""

import importlib.util
import json
from pathlib import Path

import pytest

from chaos import bench, perfmodel

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "many_core.py"
if not SCRIPT.exists():
    pytest.skip("the scripts are not beside the tests", allow_module_level=True)


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("many_core", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    monkeypatch.setattr(found.shutil, "which", lambda name: None)
    monkeypatch.setattr(found, "about", lambda: ABOUT)
    return found


ABOUT = {
    "machine": {"chaos": "1", "date": "today"},
    "topology": {"cpu": "a CPU", "cores": 24, "logical_cpus": 48, "sockets": 2, "numa_nodes": 2},
    "distances": {"within_domain_ns": {"hop_ns": 25.0}, "across_sockets_ns": {"hop_ns": None}},
}


def test_the_most_interesting_comes_first(script, monkeypatch):
    assert script.counts(2, 2) == [2] and script.counts(1, 1) == []
    assert script.counts(24, 8) == [24, 2, 8, 16, 4] and script.counts(256, 8)[:3] == [256, 2, 8]
    found = script.cases(24, 8, 2)
    assert found[0] == {"workers": 24, "strategy": "chaos", "batch_size": 1, "place": "compact"}
    assert {case["place"] for case in found} == {"compact", "none", "scatter"}
    monkeypatch.setattr(script.shutil, "which", lambda name: "/bin/numactl")
    assert {case["place"] for case in script.cases(24, 8, 2)} == {"compact", "none", "scatter", "interleave"}
    assert {case["place"] for case in script.cases(24, 8, 1)} == {"compact", "none", "scatter"}
    assert {case["workers"] for case in script.cases(24, 8, 2, [3])} == {3}
    for case in found:
        name, options = perfmodel.parse_text(case["strategy"])
        assert options.get("group", 1) <= case["workers"] // 2 or case["workers"] == 2
        assert name != "synchronous" or case["batch_size"] >= case["workers"]


def test_disturbed_repeats_do_not_count(script, monkeypatch):
    def throughputs(cases, seconds, repeats, beside):
        return [{"each": [{"us_per_image": us, "had": had} for us, had in each]} for each in (ALONE, MANY)]

    ALONE, MANY = [(10, 1), (10, 0.5), (30, 1)], [(5, 1), (1, 1), (10, 0.95)]
    monkeypatch.setattr(bench, "throughputs", throughputs)
    case = {"workers": 2, "strategy": "chaos", "batch_size": 1, "place": "none"}
    found = script.measure(case, "small", 1, 3)
    assert found["speedups"] == [2, 3] and found["speedup"] == 2.5 and found["quiet"]
    ALONE[:], MANY[:] = [(10, 0.1)], [(5, 1)]
    assert script.measure(case, "small", 1, 1)["speedups"] == [2] and not script.measure(case, "small", 1, 1)["quiet"]


REAL = perfmodel.Predictor


class Predictor:
    """Of two sockets with cache domains, which nothing is measured for."""

    def __init__(self, model, calibration):
        self.known = REAL(model, "epyc-9654-2s", "nominal")
        self.machine = self.known.machine

    def times(self, size):
        return self.known.times(size)

    def point(self, *asked):
        return self.known.point(*asked)


@pytest.mark.parametrize("suffix", ["md", "html"])
def test_what_is_measured_stands_beside_its_prediction(script, monkeypatch, tmp_path, capsys, suffix):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    monkeypatch.setattr(perfmodel, "Predictor", Predictor)
    monkeypatch.setattr(bench, "default_workers", lambda: [1, 24])

    def measure(case, *how):
        return {**case, "sequential_us": 10, "us_per_image": 5, "speedup": 2.0, "speedups": [1.5, 2.0], "quiet": False}

    monkeypatch.setattr(script, "measure", measure)
    asked = ["--out", str(tmp_path), "--page", f"a.{suffix}", "--workers", "2,24", "--quick"]
    script.main(asked)
    found = json.loads((tmp_path / "many_core.json").read_text())
    assert len(found["rows"]) == 2 * 3 + 4 and not found["left"] and found["about"]["topology"]["cpu"] == "a CPU"
    assert all(row["predicted"]["speedup"] > 0 for row in found["rows"])
    text = (tmp_path / f"a.{suffix}").read_text()
    for words in ("chaos on a CPU", "25 ns in one cache domain", "scatter", "something else had part of the cores"):
        assert words in text, words
    assert str(tmp_path / f"a.{suffix}") in capsys.readouterr().out
    # a budget that is over leaves out, and tells
    with pytest.raises(Exception, match="nothing was measured in 0 s"):
        script.main([*asked, "--budget", "0"])
    assert len(json.loads((tmp_path / "many_core.json").read_text())["left"]) == 10
