"""scripts/front.py: speed against error of virtual trainings, its file, and the section that a report makes of it."""

import importlib.util
import json
from pathlib import Path

import pytest

import chaos
import chaos.cli
from chaos import reproduce
from chaos.report import Report, to_markdown

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "front.py"
if not SCRIPT.exists():
    pytest.skip("the scripts are not beside the tests", allow_module_level=True)
ASKED = ["--data", "digits", "--subset", "40", "--epochs", "2", "--workers", "16"]
ENTRIES = ["hogwild", "domains:group=8,period=2"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("front", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def written(script, tmp_path_factory):
    path = tmp_path_factory.mktemp("front") / "front.json"
    script.main([*ENTRIES, *ASKED, "--seeds", "1", "--json", str(path)])
    return path


def read(path):
    return json.loads(Path(path).read_text())


def test_a_file_is_continued(script, written, tmp_path, capsys, monkeypatch):
    before = read(written)
    assert [row["strategy"] for row in before["rows"]] == ["sequential", *ENTRIES]
    assert all(len(row["errors"]) == 1 and len(row["errors"][0]) == 2 for row in before["rows"])
    path = tmp_path / "front.json"
    path.write_text(written.read_text())
    trained = []
    train = chaos.train
    monkeypatch.setattr(chaos, "train", lambda *a, **given: trained.append(given["strategy"]) or train(*a, **given))
    script.main([*ENTRIES[:1], *ASKED, "--seeds", "2", "--json", str(path)])
    assert trained == ["sequential", "hogwild"]  # the second seed
    after = read(path)
    assert [len(row["errors"]) for row in after["rows"]] == [2, 2, 1]
    assert [row["errors"][0] for row in after["rows"]] == [row["errors"][0] for row in before["rows"]]
    assert [row["seeds"] for row in after["rows"]] == [2, 2, 1] and "hogwild" in capsys.readouterr().out
    trained.clear()
    script.main([*ENTRIES, *ASKED, "--seeds", "5", "--json", str(path), "--budget", "0"])
    assert not trained and read(path)["rows"] == after["rows"]


def test_speed_and_error_are_over_sequential(script):
    base = {"strategy": "sequential", "errors": [[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]], "images_per_second": 100.0}
    row = {"strategy": "chaos", "errors": [[0.5, 0.12, 0.11]], "images_per_second": 2000.0}
    script.compare(row, base, 0.015)
    assert row["speedup"] == 20 and row["last_error"] == 0.11 and row["seeds"] == 1
    assert row["speedup_to_error"] == 20  # both need three epochs
    script.compare(row, base, 0.03)
    assert row["speedup_to_error"] == pytest.approx(20 * 3 / 2)
    script.compare(row, base, 0.0)
    assert row["speedup_to_error"] is None
    lost = {"strategy": "chaos", "errors": [], "diverged": "seed 0"}
    script.compare(lost, base, 0.1)
    assert "speedup" not in lost


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["chaoss"], "unknown strategy 'chaoss'"),
        (["--model", "smal"], "unknown model 'smal'"),
        (["--machine", "cray"], "unknown machine 'cray'"),
    ],
)
def test_it_refuses(script, arguments, words):
    with pytest.raises(ValueError, match=words):
        script.main([*ASKED, *arguments])


def test_another_question_needs_another_file(script, written):
    with pytest.raises(ValueError, match="was made with epochs 2, not 3: name another file"):
        script.main([*ASKED, "--epochs", "3", "--json", str(written)])


def test_the_section_of_a_report(written):
    front = read(written)
    assert reproduce.front_blocks([]) == []
    front["rows"].append({"strategy": "chaos", "errors": [], "diverged": "seed 0: no"})
    text = to_markdown(Report("a").add(*[b for b in reproduce.front_blocks([front]) if type(b).__name__ != "Plot"]))[0]
    for words in ("Beyond the paper: 16 cores", "small on epyc-9654-2s", "diverged", "first 40 images", "Predicted only"):
        assert words in text, words
    for entry in ENTRIES:
        line = next(line for line in text.splitlines() if line.startswith(f"| {entry}"))
        assert line.count("–") == 0, line  # trained and predicted
    for damaged in ({}, {"asked": {"workers": 2}}, {**front, "rows": []}):
        with pytest.raises(ValueError, match="a front lacks"):
            reproduce.front_blocks([damaged])


def test_the_command_names_a_damaged_front(tmp_path, capsys):
    (tmp_path / "a.json").write_text("{}")
    assert chaos.cli.main(["reproduce", "--report-only", "--front", str(tmp_path / "a.json")]) == 2
    assert f"{tmp_path / 'a.json'}: a front lacks" in capsys.readouterr().err


def test_an_entry_may_differ(script):
    arguments = script.parse(ASKED)
    usual = {"lr": 0.01, "epochs": 2, "workers": 16, "batch_size": 1}
    assert script.parse_entry(arguments, "domains:group=8") == ("domains:group=8", usual)
    own = {"lr": 0.5, "epochs": 1, "workers": 3, "batch_size": 2}
    assert script.parse_entry(arguments, "chaos;lr=0.5;workers=3;batch_size=2;epochs=1") == ("chaos", own)
    assert script.parse_entry(arguments, "sequential")[1] == usual | {"workers": 1}
    with pytest.raises(ValueError, match="unknown setting of 'chaos;period=2' 'period'; known: lr"):
        script.parse_entry(arguments, "chaos;period=2")


def test_the_soonest_of_several_files(script, written, capsys):
    script.main(["--table", str(written)])
    found = read(written)
    best = max(found["rows"][1:], key=lambda row: (row["speedup_to_error"] or 0, -row["last_error"]))
    (line,) = capsys.readouterr().out.splitlines()[2:]
    assert line.startswith("| small | 40 | 1 |") and f"`{best['strategy']}`, 16 workers" in line
    assert f"| {best['speedup']:.0f} | {100 * best['last_error']:.2f} % |" in line
