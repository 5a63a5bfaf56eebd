"""scripts/same_bits.py: an installation has the bits of itself, and one bit that is another is found."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

import chaos
from chaos.losses import LOSSES
from chaos.sync import STRATEGIES

SCRIPT = Path(__file__).resolve().parent.parent / "scripts/same_bits.py"
if not SCRIPT.is_file():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)
PERTURBED = "train/delayed/adam/graph/3 workers/batch 8"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("same_bits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.nightly
def test_the_one_bit_that_is_another_is_found(script, tmp_path, capsys):
    """The same installation twice, whose second one changes the last bit of one weight in one case."""
    words = [sys.executable, sys.executable, "--quick", "--isa", chaos.info()["isa"], "--json", str(tmp_path / "found.json")]
    assert script.main([*words, "--perturb", PERTURBED]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["case"]: row["differs"] for row in found["rows"] if row["differs"]} == {PERTURBED: ["weights"]}
    assert not [row["case"] for row in found["rows"] if row["refused"]]
    assert {row["strategy"] for row in found["rows"]} == {None, *STRATEGIES}
    for kind in ("outputs", "trace", "begin", *(f"train, {n}" for n in ("1 worker", "3 workers")), "simulate"):
        assert [row for row in found["rows"] if row["kind"] == kind]
    for kind in ("replay", "resume"):
        for whose in ("the old one's", "its own"):
            assert [row for row in found["rows"] if row["kind"] == f"{kind} {whose}"]
    assert any("stopped" in row["case"] for row in found["rows"])
    for loss in (name for name, loss in LOSSES.items() if "class" in loss.targets):  # the cases are of labelled images
        assert [row for row in found["rows"] if row["kind"] == "outputs" and row["case"].endswith(f"/{loss}")]
    said = capsys.readouterr().out
    assert f"{len(found['rows']):,} comparisons, 1 differ" in said and f"{PERTURBED} (train, 3 workers) weights" in said
    assert "**1 of " in next(line for line in said.splitlines() if line.startswith("| `delayed` |"))


def _rows(script, old, new, kind="train, 1 worker", case="case"):
    sides = {("old", "old"): old, ("new", "new"): new, ("new", "old"): new}
    return script.judge({("generic", case): {"about": {"kind": kind}} | sides})


def test_what_counts_as_a_difference(script):
    same = {"weights": "a", "metrics": {"train_loss": "1", "epochs": "2"}, "outputs": {"forward": "3"}}
    assert [row["differs"] for row in _rows(script, same, same)] == [[]]
    assert [row["differs"] for row in _rows(script, same, same, "resume")] == [[], []]  # the old one's, and its own
    for other, said in (
        ({"weights": "b"}, ["weights"]),
        ({"metrics": {"train_loss": "2", "epochs": "2"}}, ["metrics train_loss"]),
        ({"metrics": {"epochs": "2"}}, ["metrics train_loss"]),
        ({"metrics": {**same["metrics"], "new": "2"}}, ["metrics new"]),
        ({"outputs": {"forward": "4"}}, ["outputs forward"]),
    ):
        assert [row["differs"] for row in _rows(script, same, same | other)] == [said]
    assert _rows(script, same, None)[0]["differs"] == ["one has no such case"]
    assert _rows(script, None, same)[0]["differs"] == ["one has no such case"]
    refused = {"error": "ValueError", "told": "no"}
    assert _rows(script, same, refused)[0]["differs"] == ["refused: None, 'no'"]
    assert not _rows(script, refused, refused)[0]["differs"] and _rows(script, refused, refused)[0]["refused"]
    assert _rows(script, refused, {"error": "OSError", "told": "no"})[0]["differs"]


def test_traces_of_an_order_by_chance_are_compared_across_installations_only(script):
    one, other = {"weights": "a", "metrics": {}}, {"weights": "b", "metrics": {}}
    rows = _rows(script, one, other, "replay", "replay of trace/chaos/sgd/small/3 workers/batch 1/")
    assert {row["kind"]: row["differs"] for row in rows} == {"replay the old one's": ["weights"], "replay its own": []}
    rows = _rows(script, one, {"error": "TraceError", "told": "other weights"}, "replay", "replay of trace/c/s/n/3 workers/")
    assert all(row["differs"] for row in rows)
    assert _rows(script, {}, {}, "trace") == []  # recorded, to be replayed later


def test_what_only_one_has_is_said(script):
    old = {"isa": ["generic", "avx2"], "lists": {"strategies": ["chaos", "locked"], "losses": ["mse"]}}
    new = {"isa": ["generic"], "lists": {"strategies": ["new", "chaos"], "losses": ["mse"]}}
    lists, isas, alone = script.common({"old": old, "new": new})
    assert lists == {"strategies": ["chaos"], "losses": ["mse"]} and isas == ["generic"]
    assert alone == [
        "only the old one has strategies locked",
        "only the old one has isa avx2",
        "only the new one has strategies new",
    ]


def test_nothing_compared_is_a_failure(script, capsys):
    assert script.main([sys.executable, sys.executable, "--quick", "--isa", "none"]) is True
    assert "0 comparisons" in capsys.readouterr().out
