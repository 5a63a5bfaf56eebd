"""scripts/bench_peers.py and bench_networks.py: help, numbers on made-up turns, the check of chaos against PyTorch.

Needs the source tree around this file; the comparison runs only where PyTorch is installed.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import chaos

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
if not SCRIPTS.is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

sys.path.insert(0, str(SCRIPTS))

import bench_networks  # noqa: E402
import bench_peers  # noqa: E402
from peers import chain, figures, networks, plot, run, table  # noqa: E402
from peers import check as checks  # noqa: E402


def row(system, threads, batch, *us, cpus=1.0):
    turns = [{"images": 1000, "seconds": u * 1e-3, "cpu_seconds": cpus * u * 1e-3, "idle_cpu_seconds": 0.0} for u in us]
    variant = "chaos" if system == "chaos" else ""
    return figures.summarise({"system": system, "threads": threads, "batch": batch, "variant": variant, "turns": turns})


@pytest.fixture
def rows():
    return [
        row("chaos", 1, 1, 10, 12, 11),
        row("chaos", 2, 1, 5, 6, 7, cpus=2.0),
        row("PyTorch", 1, 1, 1000, 600, 1100),
        row("PyTorch", 1, 64, 30, 36, 21),
        row("PyTorch Hogwild", 2, 1, 500, 500, 500),
    ]


@pytest.mark.parametrize(
    "script, words",
    [
        ("bench_peers", ("--models", "--json", "--plot", "--quick", "forward, backward and update", "In favour of PyTorch")),
        ("bench_networks", ("--networks", "--json", "--show", "--no-compile", "onnxruntime", "ratios are taken within")),
    ],
)
def test_help_says_what_is_timed(script, words):
    done = subprocess.run([sys.executable, SCRIPTS / f"{script}.py", "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr
    for one in words:
        assert one in done.stdout


@pytest.mark.parametrize(
    "script, words, complaint",
    [
        (bench_peers, ["--models", "small,huge"], "unknown network 'huge'; known: small, medium, large"),
        (bench_networks, ["--networks", "MLP,huge"], "unknown network 'huge'; known: small, medium, large, LeNet-5"),
        (bench_networks, ["--what", "sleeping"], "unknown kind of work 'sleeping'; known: training, prediction"),
        (bench_peers, ["--workers", "1,0"], "invalid list of different positive numbers value: '1,0'"),
        (bench_peers, ["--rounds", "0"], "must be positive"),
        (bench_peers, ["--seconds", "nan"], "must be positive"),
        (bench_networks, ["--json", "nowhere/x.json"], "there is no folder for nowhere/x.json"),
    ],
)
def test_bad_arguments(script, words, complaint, capsys):
    with pytest.raises(SystemExit) as caught:
        script.parse(words)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("script", [bench_peers, bench_networks])
def test_without_torch_it_says_how_to_get_it(script, monkeypatch, capsys):
    monkeypatch.setattr(run, "has", lambda package: package != "torch")
    assert script.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install torch")


def test_medians_and_extremes(rows):
    assert rows[0]["us_per_image"] == pytest.approx({"median": 11, "min": 10, "max": 12})
    assert rows[0]["images_per_second"] == pytest.approx(1e6 / 11)
    assert rows[1]["cpus"] == pytest.approx(2)


def test_ratios_are_taken_round_by_round(rows):
    one, best, same = figures.ratios(rows)
    assert one["name"] == "chaos 1 worker over PyTorch 1 thread batch 1"
    assert one["times"] == pytest.approx({"median": 100, "min": 50, "max": 100})
    assert best["name"] == "chaos over the best peer, each in its best setting"
    assert (best["fast"], best["slow"]) == ("chaos, 2 workers, batch 1", "PyTorch, 1 thread, batch 64")
    assert best["times"] == pytest.approx({"median": 6, "min": 3, "max": 6})
    assert (same["name"], same["slow"]) == ("both at batch 1", "PyTorch Hogwild, 2 processes, batch 1")
    assert same["times"] == pytest.approx({"median": 250 / 3, "min": 500 / 7, "max": 100})
    assert figures.ratios(rows[:2]) == []


def test_predictions_are_compared_at_equal_threads_and_batches():
    rows = [
        row("chaos", 2, 64, 5, 5, 5),
        row("PyTorch", 2, 64, 20, 20, 20),
        row("onnxruntime", 2, 64, 10, 10, 10),
        row("chaos", 1, 1, 30, 30, 30),
        row("PyTorch", 1, 1, 15, 15, 15),
    ]
    many, one = figures.prediction_ratios(rows)
    assert (many["name"], many["slow"]) == ("64 images together, 2 threads", "onnxruntime, 2 threads, batch 64")
    assert many["times"]["median"] == pytest.approx(2) and one["times"]["median"] == pytest.approx(0.5)
    lines = table.overview({"net": {"prediction": rows}})
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].endswith("| 5.00 | 10.0 (onnxruntime) | **2.00x** | 30.0 | 15.0 (PyTorch) | **0.50x** |")


def test_the_overview_tells_the_worst_equal_batch(rows):
    result = {"rows": rows, "ratios": figures.ratios(rows)}
    line = table.overview({"net": result})[-1]
    assert line.startswith("| net | 6.00 (2 x 1, chaos) | 30.0 (1 x 64) | **6.00x** | 83.33x (1) |")


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
    assert len(table.noise(rows, 2, 0.0, 1.0)) == 2
    starved = [row("chaos", 2, 1, 5, 5, cpus=1.2)]
    assert table.noise(starved, 2, 0.0, 1.0)[-1].startswith("NOISY")


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
def small(tmp_path_factory):
    pytest.importorskip("torch")
    net, (train, _) = chaos.models.small(seed=0), chaos.data.load("digits", size=29)
    file = tmp_path_factory.mktemp("networks") / "small.safetensors"
    net.save(file)
    return file, train.images[:256].astype(np.float32) / np.float32(127.5) - 1, train.labels[:256]


def test_chaos_computes_what_pytorch_computes(small):
    report = checks.check(*small, count=16)
    assert report["tolerance"] == checks.TOLERANCE and report["loss"] <= checks.TOLERANCE
    assert 0 < report["gradient"] <= 1 and 0 < report["step"] <= 1 and report["outputs"] <= checks.TOLERANCE


@pytest.mark.parametrize("key", ["0.weight", "9.bias"])
def test_another_gradient_is_noticed(small, monkeypatch, key):
    right = chaos.Network.loss_and_gradients

    def wrong(self, x, y):
        loss, gradients = right(self, x, y)
        gradients[key].flat[0] += 2e-4 * np.abs(gradients[key]).max()
        return loss, gradients

    monkeypatch.setattr(chaos.Network, "loss_and_gradients", wrong)
    with pytest.raises(checks.Mismatch, match=f"chaos: the gradient of {key} is off by 2"):
        checks.check(*small, count=16)


def test_another_output_is_noticed(small, monkeypatch):
    right = chaos.Network.forward
    monkeypatch.setattr(chaos.Network, "forward", lambda self, x: right(self, x) * np.float32(1.001))
    with pytest.raises(checks.Mismatch, match="chaos: outputs differ from PyTorch's by 1"):
        checks.check(*small, count=16)


@pytest.mark.parametrize("name", [name for name, case in networks.NETWORKS.items() if not case.slow])
def test_every_network_of_the_field_has_whole_batches(name):
    case = networks.NETWORKS[name]
    assert all(case.images % batch == 0 for batch in (*case.ours, *case.theirs, case.together))
    net = case.make(chaos)
    x, y = np.random.default_rng(0).standard_normal((2, *net.input_shape)), np.zeros((2, *net.output_shape[1:]), int)
    loss, gradients = net.loss_and_gradients(x, y)
    assert np.isfinite(loss) and all(np.abs(g).max() > 0 for g in gradients.values())


def test_what_has_no_counterpart_is_refused():
    net = chaos.Network((1, 8, 8), [chaos.Conv2d(2, 3, stride=2), chaos.Flatten(), chaos.Linear(10)])
    with pytest.raises(ValueError, match="no counterpart of layer 0"):
        list(chain.chain(net.config()))
