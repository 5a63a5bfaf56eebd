"""scripts/bench_online.py: its check and its table, on few samples. Needs the source tree around this file."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bench_online.py"
if not SCRIPT.is_file():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


@pytest.fixture
def bench():
    spec = importlib.util.spec_from_file_location("bench_online", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_and_the_file(bench, tmp_path, capsys):
    bench.main(["--quick", "--models", "small", "--threads", "1,2", "--json", str(tmp_path / "online.json")])
    rows = json.loads((tmp_path / "online.json").read_text())["rows"]
    assert [(row["what"], row["of"]) for row in rows] == [
        *((name, how) for name in ("two weights", "small") for how in ("update", "predict")),
        *((f"{n} threads", size) for n in (1, 2) for size in (1, 64)),
    ]
    assert all(len(row["turns"]) == 2 and min(row["turns"]) > 0 for row in rows)
    assert capsys.readouterr().out.count("\n") == len(rows)


def test_other_predictions_end_it(bench, monkeypatch):
    real, one = bench.chaos.Network.forward, bench.chaos.data.load("digits", size=29)[0]
    monkeypatch.setattr(bench.chaos.Network, "forward", lambda net, x, **how: real(net, x, **how) + len(x) // 100)
    with pytest.raises(SystemExit, match="predictions in threads differ"):
        bench.check(one)
