"""scripts/bench_peers.py: its help, its numbers on made-up turns, its check of chaos against PyTorch.

Needs the source tree around this file; the comparison runs only where PyTorch is installed.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import chaos

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bench_peers.py"
if not SCRIPT.is_file():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

sys.path.insert(0, str(SCRIPT.parent))

from peers import arguments, chain, figures, plot, table  # noqa: E402
from peers import check as checks  # noqa: E402
from peers import run as bench  # noqa: E402


def row(system, threads, batch, *us, cpus=1.0):
    turns = [{"images": 1000, "seconds": u * 1e-3, "cpu_seconds": cpus * u * 1e-3, "idle_cpu_seconds": 0.0} for u in us]
    return figures.summarise({"system": system, "threads": threads, "batch": batch, "variant": None, "turns": turns})


@pytest.fixture
def rows():
    return [
        row("chaos", 1, 1, 10, 12, 11),
        row("chaos", 2, 1, 5, 6, 7, cpus=2.0),
        row("PyTorch", 1, 1, 1000, 600, 1100),
        row("PyTorch", 1, 64, 30, 36, 21),
        row("PyTorch Hogwild", 2, 1, 500, 500, 500),
    ]


def run(*words, **environ):
    return subprocess.run(
        [sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=120, env={**os.environ, **environ}
    )


def test_help_says_what_is_timed():
    done = run("--help")
    assert done.returncode == 0 and not done.stderr
    for words in ("--models", "--json", "--plot", "--quick", "forward, backward and update", "In favour of PyTorch"):
        assert words in done.stdout


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--models", "small,huge"], "unknown network 'huge'; known: small, medium, large"),
        (["--workers", "1,0"], "invalid list of different positive numbers value: '1,0'"),
        (["--rounds", "0"], "must be positive"),
        (["--seconds", "nan"], "must be positive"),
        (["--json", "nowhere/x.json"], "there is no folder for nowhere/x.json"),
    ],
)
def test_bad_arguments(words, complaint, capsys):
    with pytest.raises(SystemExit) as caught:
        arguments.parse(words)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_without_torch_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(bench, "has", lambda package: package != "torch")
    assert bench.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install torch")


def test_medians_and_extremes(rows):
    assert rows[0]["us_per_image"] == pytest.approx({"median": 11, "min": 10, "max": 12})
    assert rows[0]["images_per_second"] == pytest.approx(1e6 / 11)
    assert rows[1]["cpus"] == pytest.approx(2)


def test_ratios_are_taken_round_by_round(rows):
    one, best = figures.ratios(rows)
    assert one["name"] == "chaos 1 worker over PyTorch 1 thread batch 1"
    assert one["times"] == pytest.approx({"median": 100, "min": 50, "max": 100})
    assert best["name"] == "chaos 2 workers over PyTorch's best setting at any batch size"
    assert (best["fast"], best["slow"]) == ("chaos, 2 workers, batch 1", "PyTorch, 1 thread, batch 64")
    assert best["times"] == pytest.approx({"median": 6, "min": 3, "max": 6})
    assert figures.ratios(rows[:2]) == []
    copying = row("chaos read=publication", 2, 1, 4, 5, 5, cpus=2.0)
    assert figures.ratios([*rows, copying])[1]["fast"] == "chaos read=publication, 2 workers, batch 1"


def test_table_is_aligned(rows):
    lines = table.table(rows)
    assert len(lines) == 1 + len(rows) and all(line == line.rstrip() for line in lines)
    column = lines[0].index("CPUs") + len("CPUs")
    assert [line[column - 4 : column] for line in lines[1:]] == ["1.00", "2.00", "1.00", "1.00", "1.00"]
    assert lines[1].startswith("chaos, 1 worker, batch 1 ") and "11.0 [10.0..12.0]" in lines[1]
    assert "1,000 [600..1,100]" in lines[3] and "166.67" in lines[3]
    assert lines[5].startswith("PyTorch Hogwild, 2 processes, batch 1 ")


def test_roofline(rows):
    one, both = table.roofline(1_100_000, 200.0, 400.0, 2, rows)
    assert one == "roofline, 1 core: 1.100 MFLOP / 200 GFLOP/s = 5.50 us/image; chaos reaches 50% (dense count)"
    assert both.startswith("roofline, 2 cores: 1.100 MFLOP / 400 GFLOP/s = 2.75 us/image; chaos reaches 46%")


def test_noise_is_named(rows):
    assert len(table.noise({"small": {"rows": rows}}, 2, 0.0, 1.0)) == 2
    starved = [row("chaos", 2, 1, 5, 5, cpus=1.2)]
    assert table.noise({"small": {"rows": starved}}, 2, 0.0, 1.0)[-1].startswith("NOISY")


def test_plot(rows, tmp_path):
    pytest.importorskip("matplotlib")
    document = {
        "networks": {"small": {"rows": rows, "parameters": 6405}, "large": {"rows": rows, "parameters": 1}},
        "machine": {"cpu": "some CPU", "cores": 2},
        "isa": "avx2",
        "date": "2030-01-01T00:00:00+00:00",
        "versions": {"chaos": "1", "torch": "2"},
    }
    plot.plot(document, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def small():
    pytest.importorskip("torch")
    net, (train, _) = chaos.models.small(seed=0), chaos.data.load("digits", size=29)
    return (
        net.config(),
        net.state_dict(),
        train.images[:256].astype(np.float32) / np.float32(127.5) - 1,
        train.labels[:256],
    )


def test_chaos_computes_what_pytorch_computes(small):
    report = checks.check(*small)
    assert 0 < report["gradient"] <= 1 and 0 < report["step"] <= 1 and report["loss"] <= checks.TOLERANCE


@pytest.mark.parametrize("key", ["0.weight", "9.bias"])
def test_another_gradient_is_noticed(small, monkeypatch, key):
    right = chaos.Network.loss_and_gradients

    def wrong(self, x, y):
        loss, gradients = right(self, x, y)
        gradients[key].flat[0] += 2e-4 * np.abs(gradients[key]).max()
        return loss, gradients

    monkeypatch.setattr(chaos.Network, "loss_and_gradients", wrong)
    with pytest.raises(checks.Mismatch, match=f"chaos: the gradient of {key} is off by 2"):
        checks.check(*small)


def test_what_has_no_counterpart_is_refused():
    net = chaos.Network((1, 8, 8), [chaos.Conv2d(2, 3, stride=2), chaos.Flatten(), chaos.Linear(10)])
    with pytest.raises(ValueError, match="no counterpart of layer 0"):
        list(chain.chain(net.config()))
