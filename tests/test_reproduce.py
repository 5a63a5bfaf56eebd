"""The reproduction: which experiments, each once, stopped and continued, and a report with no figure that is not known."""

import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import chaos
from chaos import cli, reproduce
from chaos.errors import CheckpointError
from chaos.perfmodel import papers
from chaos.report import to_json, to_markdown
from chaos.reproduce import experiments, here, paper, store


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


def test_data_without_test_images_are_refused_before_anything_is_trained(short, tmp_path, monkeypatch):
    np.savez(tmp_path / "only.npz", x_train=np.zeros((20, 8, 8), np.uint8), y_train=np.arange(20) % 10)
    monkeypatch.setattr(chaos.training, "train", None)
    with pytest.raises(ValueError, match="only.npz holds no test images"):
        reproduce.run_all(tmp_path, reproduce.plan(True, ["small"], str(tmp_path / "only.npz"), cores=1), lambda line: None)


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
    report = reproduce.make_report(found, quick=True)
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
    assert kept["format"] == store.FORMAT
    assert whole[-1]["layers"]["0"]["staleness"]["histogram"], "one epoch's histograms are kept"
    assert "layers" not in whole[0] and "history" not in kept, "it is with the results"


def test_report_about_the_large_experiment_names_both_machines(short, tmp_path):
    pytest.importorskip("matplotlib")
    ((one, kept),) = reproduce.run_all(tmp_path, short[:1], lambda line: None).items()
    large = reproduce.Experiment("large", 1, False, 15, None, "mnist")
    text = to_markdown(reproduce.make_report({large: kept | {"seconds": 360.0}}))[0]
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


HERE = {
    "small": {
        "layers": {"names": ["0 conv2d"], "begin": 1e-6, "forward": [2e-6], "backward": [4e-6], "publish": [1e-6]},
        "predicted": [[1, 9.5], [2, 5.5]],
    }
}


def test_all_results_go_into_one_file(short, tmp_path, monkeypatch):
    """From which they come back as they were, and are kept when others are added."""
    found = reproduce.run_all(tmp_path, short, lambda line: None, jobs=1)
    first = dict(list(found.items())[:2])
    path = reproduce.write_all(tmp_path, first, HERE)
    assert path == tmp_path / reproduce.RESULTS and reproduce.measured(tmp_path) == HERE
    assert len(list((tmp_path / "experiments").iterdir())) == 2, "of the others there are still files"
    assert reproduce.results(tmp_path, short) == found
    reproduce.write_all(tmp_path, found, {})
    assert [one.name for one in tmp_path.iterdir()] == [reproduce.RESULTS]
    assert reproduce.results(tmp_path, short) == found and reproduce.measured(tmp_path) == HERE
    content = path.read_bytes()
    reproduce.write_all(tmp_path, found, HERE)
    assert path.read_bytes() == content
    monkeypatch.setattr(experiments, "_run", None)  # nothing is left to run
    assert reproduce.run_all(tmp_path, short, lambda line: None) == found
    with pytest.raises(CheckpointError, match=f"{reproduce.RESULTS} holds, as small-real-1, the result of another exp"):
        reproduce.results(tmp_path, reproduce.plan(True, ["small"], "digits", cores=2, seed=1))


def packed(data):
    """The same bytes at any time: the processes that run tests name them by their arguments."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "damaged"),
        (b"{}", "damaged: not a gzipped file"),
        (packed(b"{}")[:-4], "damaged"),
        (packed(b"{"), "damaged"),
        (packed(b"{}"), "not the results of a reproduction"),
        (packed(b"[]"), "not the results of a reproduction"),
        (packed(json.dumps({"format": store.WHOLE, "experiments": []}).encode()), "damaged: experiments must be an obj"),
        (packed(json.dumps({"format": store.WHOLE, "experiments": {"small-real-1": 3}, "here": {}}).encode()), "damaged"),
    ],
)
def test_damaged_results_are_refused(short, tmp_path, content, words):
    (tmp_path / reproduce.RESULTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{reproduce.RESULTS}: {words}"):
        reproduce.results(tmp_path, short)


def test_what_is_measured_here_is_measured_once(short, monkeypatch):
    found = dict.fromkeys(short, {"images": 60, "test_images": 60})
    calls = []
    monkeypatch.setattr(here, "_layers", lambda model: calls.append(model) or HERE[model]["layers"])
    monkeypatch.setattr(here, "_predicted", lambda model, real, kept: calls.append(len(real)) or HERE[model]["predicted"])
    assert reproduce.measure_here(found) == HERE and calls == ["small", 2]
    assert reproduce.measure_here(found, HERE) == HERE and calls == ["small", 2]
    fewer = {"small": HERE["small"] | {"predicted": [[1, 9.5]]}, "large": {}}
    assert reproduce.measure_here(found, fewer) == HERE | {"large": {}} and calls == ["small", 2, 2]


FRONTS = ("small", "medium", "large", "mlp", "lenet5_modern")  # in the order of the report


def test_the_report_of_the_documentation_can_be_made_again(tmp_path):
    """Its Markdown to the byte, from its data; what the pictures show is in the tables."""
    pytest.importorskip("matplotlib")
    docs = Path(__file__).resolve().parent.parent / "docs" / "reproduction"
    if not (docs / reproduce.RESULTS).is_file():
        pytest.skip("the source tree is not beside the tests")
    found = reproduce.results(docs, reproduce.plan(cores=2))
    assert len(found) == 27
    fronts = [json.loads((docs.parent / f"front_{model}.json").read_text()) for model in FRONTS]
    text, plots = to_markdown(reproduce.make_report(found, here=reproduce.measured(docs), fronts=fronts), "report-{}.svg")
    assert text == (docs / "report.md").read_text()
    assert {path.name for path in docs.iterdir()} == {"report.md", reproduce.RESULTS, *plots}


def test_command(short, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reproduce, "measure_here", lambda found, known: known or HERE)
    arguments = ["reproduce", "--quick", "--models", "small", "--data", "digits", "--jobs", "1"]
    assert cli.main([*arguments, "--report-only"]) == 2
    assert "holds no finished experiment" in capsys.readouterr().err
    assert cli.main(arguments) == 0
    out, folder = capsys.readouterr().out, tmp_path / "reproduction-quick"
    assert "20 virtual workers" in out and "speed-up" in out
    pictures = sorted(path.name for path in folder.glob("report-*.svg"))
    assert {path.name for path in folder.iterdir()} == {"report.md", reproduce.RESULTS, *pictures}
    first = (folder / "report.md").read_text()
    assert all(f"({name})" in first for name in pictures) and len(first) > 1000
    for ending in ("html", "md", "json"):
        assert cli.main([*arguments, "--report-only", "--report", f"again.{ending}"]) == 0
        assert (tmp_path / f"again.{ending}").stat().st_size > 1000
    assert (tmp_path / "again.md").read_text().replace("(again-", "(report-") == first
    for bad, message in (
        (["--models", "tiny"], "tiny"),
        (["--jobs", "0"], "--jobs"),
        (["--seed", "1"], "another experiment"),
        (["--report", "a.pdf"], "a.pdf: a report is written as"),
        (["--report", "no/a.md"], "there is no directory no"),
    ):
        assert cli.main([*arguments, *bad]) == 2
        assert message in capsys.readouterr().err


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
