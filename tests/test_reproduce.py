"""The reproduction: which experiments, each once, stopped and continued, and a report with no figure that is not known."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import chaos
from chaos import cli, reproduce
from chaos.errors import CheckpointError
from chaos.perfmodel import papers
from chaos.report import to_json, to_markdown
from chaos.reproduce import experiments, paper


@pytest.fixture
def short(monkeypatch):
    """Experiments of seconds."""
    monkeypatch.setattr(experiments, "QUICK", dict.fromkeys(reproduce.MODELS, (2, 60)))
    monkeypatch.setattr(experiments, "QUICK_WORKERS", (3, 20))
    return reproduce.plan(True, ["small"], "digits", cores=2)


def test_the_plan_is_the_papers():
    found = reproduce.plan(cores=2)
    assert len({one.name for one in found}) == len(found) == 3 * (2 + 7)
    assert [one.virtual for one in found] == sorted(one.virtual for one in found), "real ones first"
    assert {(one.model, one.epochs) for one in found} == {("small", 70), ("medium", 70), ("large", 15)}
    assert {one.workers for one in found if one.virtual} == {15, 30, 60, 120, 180, 240, 244}
    assert all(one.subset is None and one.data == "mnist" for one in found)
    with pytest.raises(ValueError, match="unknown models tiny; known: small, medium, large"):
        reproduce.plan(models=["small", "tiny"])


def test_virtual_threads_take_what_the_papers_say():
    for model in reproduce.MODELS:
        net = chaos.models.MODELS[model]()
        times = experiments.phi_times(net, model)
        assert sum(times.forward) == pytest.approx(papers.FORWARD_SECONDS[model])
        assert sum(times.backward) == pytest.approx(papers.BACKWARD_SECONDS[model])
    factors = experiments.phi(244).factors(244)
    assert set(factors) == {papers.cpi(244)} and set(experiments.phi(61).factors(61)) == {papers.cpi(61)}


def test_each_experiment_is_run_once(short, tmp_path, monkeypatch):
    lines = []
    found = reproduce.run_all(tmp_path, short, lines.append, jobs=2)
    assert list(found) and set(found) == set(short) and len(lines) == 2 * 2 + 2
    assert all(len(kept["history"]) == 2 and kept["seconds"] > 0 for kept in found.values())
    assert not list((tmp_path / "runs").iterdir())
    monkeypatch.setattr(experiments, "_run", None)
    assert reproduce.run_all(tmp_path, short, lines.append) == found
    one = short[0]
    other = reproduce.plan(True, ["small"], "digits", cores=2, seed=1)
    with pytest.raises(CheckpointError, match="another experiment"):
        reproduce.results(tmp_path, other)
    (tmp_path / "experiments" / f"{one.name}.json").write_text("{")
    with pytest.raises(CheckpointError, match=f"{one.name}.json: damaged.*delete it"):
        reproduce.results(tmp_path, short)


@pytest.mark.parametrize("which", [0, 3])
def test_a_stopped_reproduction_goes_on(short, tmp_path, monkeypatch, which):
    """Stopped in the second epoch of a real and of a virtual experiment: the first epoch is not trained again."""
    one, trained = short[which], []
    epoch = chaos.training.Job.epoch

    def stop(job, pool, listeners, caught):
        trained.append(len(job.history))
        if len(trained) == 2:
            caught.signal = signal.SIGINT
        return epoch(job, pool, listeners, caught)

    monkeypatch.setattr(chaos.training.Job, "epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        reproduce.run_all(tmp_path, [one], lambda line: None, jobs=1)
    found = reproduce.run_all(tmp_path, [one], lambda line: None, jobs=1)
    assert trained == [0, 1, 1] and len(found[one]["history"]) == 2
    straight = reproduce.run_all(tmp_path / "straight", [one], lambda line: None, jobs=1)
    assert found[one]["history"][-1]["train_loss"] == straight[one]["history"][-1]["train_loss"]


def test_report(short, tmp_path):
    pytest.importorskip("matplotlib")
    found = reproduce.run_all(tmp_path, short[:1] + short[2:], lambda line: None, jobs=1)
    report = reproduce.make_report(found, quick=True, ours=False)
    text = to_markdown(report)[0]
    for wanted in (
        paper.MACHINE,
        "R: stated",
        "Shortened experiments",
        "20 virtual",
        "Misclassified images",
        "Staleness",
        "model (a)",
    ):
        assert wanted in text, wanted
    kept = json.loads(to_json(report))["data"]["experiments"][0]
    whole = found[next(iter(found))]["history"]
    assert kept["format"] == experiments.FORMAT
    assert whole[-1]["layers"]["0"]["staleness"]["histogram"], "one epoch's histograms are kept"
    assert "layers" not in whole[0] and "history" not in kept, "it is in experiments/"


def test_report_about_the_large_experiment_names_both_machines(short, tmp_path):
    pytest.importorskip("matplotlib")
    ((one, kept),) = reproduce.run_all(tmp_path, short[:1], lambda line: None).items()
    large = reproduce.Experiment("large", 1, False, 15, None, "mnist")
    text = to_markdown(reproduce.make_report({large: kept | {"seconds": 360.0}}, ours=False))[0]
    assert re.search(
        r"Large, 15 epochs with the validation pass: 0\.10 h with 1 worker on .*, 2\.86 h \(M\+\) with 244 "
        r"threads on the Intel Xeon Phi 7120P .*: 28\.6 times as fast",
        text,
    )
    assert "1,063,800 = 295.5 h (M+)" in text


def test_only_sure_figures_are_told():
    """Of small and medium the paper's times are not known well enough, of large those of some numbers of threads."""
    assert paper.hours("small", 244) is None and paper.hours("large", 240) is None and paper.hours("large", 120) is None
    marks = [mark for _, mark in (*paper.LARGE_HOURS.values(), *paper.SPEEDUP_244.values(), paper.LARGE_HOURS_E5)]
    assert set(marks) == {"R", "M+"}


def test_command(short, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reproduce, "make_report", lambda found, quick: make(found, quick, ours=False))
    arguments = ["reproduce", "--quick", "--models", "small", "--data", "digits", "--jobs", "1"]
    assert cli.main([*arguments, "--report-only"]) == 2
    assert "holds no finished experiment" in capsys.readouterr().err
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "20 virtual workers" in out and "speed-up" in out
    for ending in ("html", "md", "json"):
        assert (tmp_path / "reproduction-quick" / f"report.{ending}").stat().st_size > 1000
    assert cli.main([*arguments, "--report-only"]) == 0
    for bad, message in (
        (["--models", "tiny"], "tiny"),
        (["--jobs", "0"], "--jobs"),
        (["--seed", "1"], "another experiment"),
    ):
        assert cli.main([*arguments, *bad]) == 2
        assert message in capsys.readouterr().err


make = reproduce.make_report


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_process_alone_ends_its_children_too(tmp_path, number, code):
    """They hold its standard output: it is read to its end when all are gone."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys\n"
        "from chaos import cli, reproduce\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    plan = [reproduce.Experiment('small', n, True, 1000, None, 'digits') for n in (15, 60)]\n"
        "    reproduce.plan = lambda *a, **k: plan\n"
        "    sys.exit(cli.main(['reproduce', '--out', 'here', '--jobs', '2']))\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            end = time.monotonic() + 60
            while len(list(tmp_path.glob("here/runs/*/model.safetensors"))) < 2 and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code and b"stopped; the same command goes on" in out and b"Traceback" not in err, err
    assert len(list(tmp_path.glob("here/runs/*/seconds.json"))) == 2
