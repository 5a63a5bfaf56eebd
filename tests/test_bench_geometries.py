"""scripts/bench_geometries.py: its layers, its page of made-up figures, its comparison with PyTorch.

Needs the source tree.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

import chaos

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
if not SCRIPTS.is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

sys.path.insert(0, str(SCRIPTS))

import bench_geometries as bench  # noqa: E402
from peers.geometries import GEOMETRIES, Geometry  # noqa: E402


def test_each_layer_is_there_once():
    names = [(g.network, g.name) for g in GEOMETRIES]
    assert len(names) >= 60 and len(set(names)) == len(names)
    assert GEOMETRIES[0].name == "conv 4x4 1-20 on 29x29"
    assert Geometry("N", "Conv2d", (32, 8, 8), 32, 3, {"stride": 2, "padding": 1, "groups": 32}).name == (
        "conv 3x3 /2 p1 g32 32-32 on 8x8"
    )


@pytest.mark.parametrize(
    "words, complaint", [(["--networks", "none"], "unknown network 'none'"), (["--page", "x"], "--json")]
)
def test_bad_arguments(words, complaint, capsys):
    with pytest.raises(SystemExit):
        bench.parse(words)
    assert complaint in capsys.readouterr().err


def test_the_page_has_a_row_for_each_layer_and_counts_the_slow_ones():
    def passes(times):
        one = {"us_per_image": 10.0, "gflops": 30.0, "loop": "tiles", "times": times}
        return dict.fromkeys(bench.PASSES, one)

    layers = [
        {"network": name, "layer": "conv", "batch": batch, "peak_gflops": 100.0, "passes": passes(times)}
        for name, batch, times in (("A", 8, 0.5), ("A", 2, 2.0), ("B", 8, 3.0))
    ]
    document = {"layers": layers, "machine": {"cpu": "some CPU"}, "versions": {"torch": "2"}, "isa": "avx2"}
    text = bench.page(document)
    assert (
        "100 GFLOP/s" in text
        and text.count("\n| conv") == 3
        and "| conv (batch 2) | 10.0 | 30.0 | 30 | tiles | 2.00 |" in text
    )
    assert "median 30 % of the peak, 3 of 3 below 50 %; 2.00 times as fast as PyTorch in the median, slower in 1" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


@pytest.mark.parametrize(
    "g",
    [
        Geometry("N", "Conv2d", (6, 7, 7), 4, 3, {"stride": 2, "padding": 1}),
        Geometry("N", "Conv2d", (6, 7, 7), 6, 3, {"padding": 1, "groups": 6}),
        Geometry("N", "Conv1d", (4, 19), 5, 3, {"dilation": 2}),
        Geometry("N", "ConvTranspose2d", (6, 4, 4), 3, 2, {"stride": 2}),
        Geometry("N", "Linear", (9,), 4),
    ],
    ids=lambda g: g.name,
)
def test_what_is_compared_and_timed(g, monkeypatch):
    torch = pytest.importorskip("torch")
    row = bench.measure(chaos, torch, g, 1e-6, 1)
    assert max(row["check"].values()) <= bench.TOLERANCE and row["images_together"] == 8
    assert all(one["us_per_image"] > 0 or name == "data_gradient" for name, one in row["passes"].items())
    net = bench.network(chaos, g)
    x, y = np.ones((2, *g.shape), np.float32), np.zeros(2, np.int64)
    right = chaos.Network.loss_and_gradients
    monkeypatch.setattr(
        chaos.Network,
        "loss_and_gradients",
        lambda self, x, y: (0.0, right(self, x, y)[1] | {"before.weight": np.ones(g.shape[0], np.float32)}),
    )
    with pytest.raises(bench.Wrong, match="before.weight by"):
        bench.compare(torch, net, g, x, y)
