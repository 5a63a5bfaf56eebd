"""scripts/bench_many.py: its check and its table, on few images. Needs the source tree around this file."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bench_many.py"
if not SCRIPT.is_file():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("bench_many", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORDS = ["--data", "digits", "--jobs", "3", "--images", "30", "--rounds", "2", "--workers", "2"]


def test_the_table_and_the_file(bench, tmp_path, capsys):
    bench.main([*WORDS, "--no-torch", "--json", str(tmp_path / "many.json")])
    found = json.loads((tmp_path / "many.json").read_text())
    assert [row["side"] for row in found["rows"]] == ["chaos, 1 at a time", "chaos, 2 at a time", "chaos, 2 processes"]
    assert all(len(row["turns"]) == 2 and row["seconds"] > 0 for row in found["rows"])
    assert found["jobs"] == 3 and found["isa"] and found["machine"]["cores"] and "commit" in found["machine"]
    assert "3 trainings of small" in capsys.readouterr().out


def test_pytorch_trains_the_same(bench, tmp_path):
    pytest.importorskip("torch")
    bench.main([*WORDS, "--checked", "10", "--torch-jobs", "1", "--json", str(tmp_path / "many.json")])
    found = json.loads((tmp_path / "many.json").read_text())
    assert [row["side"] for row in found["rows"]][3:] == ["PyTorch, 1 threads", "PyTorch, 2 threads"] and found["torch"]


def test_another_result_ends_it(bench, monkeypatch):
    real = bench.with_chaos

    def wrong(jobs, workers):
        found = real(jobs, workers)
        found[-1]["network"].weights[0] += workers > 1
        return found

    monkeypatch.setattr(bench, "with_chaos", wrong)
    with pytest.raises(SystemExit, match="other bits with several workers"):
        bench.main([*WORDS[:-2], "--workers", "2", "--no-torch", "--jobs", "4"])
