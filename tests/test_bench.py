"""chaos.bench and `chaos bench kernels`, `chaos bench scaling`: their numbers agree, and nothing wrong is timed."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from nets import graph

import chaos
from chaos import bench
from chaos.bench import _common
from chaos.cli import main
from chaos.errors import ChaosError

TINY = ["--seconds", "0.002", "--repeats", "2"]
PASSES = ("forward", "weight_gradient", "data_gradient", "update")


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """The digits as data, and no settings from outside."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CHAOS_DATA_DIR", "CHAOS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def pooled(seed=0):
    """Pooling behind an activation, and one that no learning layer comes before."""
    return chaos.Network(
        (1, 12, 12),
        [
            chaos.MaxPool2d((1, 2)),
            chaos.Conv2d(6, 3, name="first"),
            chaos.Tanh(),
            chaos.MaxPool2d(2),
            chaos.Conv2d(9, (3, 2)),
            chaos.ReLU(),
            chaos.Flatten(),
            chaos.Linear(10),
        ],
        seed=seed,
    )


def agree(found):
    """The figures of one measurement are positive and agree with each other."""
    assert 0 <= found["us_per_image_min"] <= found["us_per_image"] <= found["us_per_image_max"] < math.inf
    if found["flops"] and found["us_per_image"]:
        assert found["gflops"] == pytest.approx(found["flops"] / found["us_per_image"] * 1e-3)
        assert found["fraction_of_peak"] > 0
    else:
        assert found["gflops"] is found["fraction_of_peak"] is None


def check_kernels(result, net):
    assert result.keys() >= {
        "model",
        "isa",
        "batch_size",
        "images_together",
        "data",
        "trained_images",
        "layers",
        "totals",
        "training",
        "evaluation",
        "peak_gflops",
        "seconds",
        "repeats",
        "check",
        "machine",
    }
    assert 0 < result["peak_gflops_min"] <= result["peak_gflops"] <= result["peak_gflops_max"]
    assert result["check"]["gradient_error"] <= result["check"]["tolerance"] and result["check"]["images"] >= 4
    layers, sums = result["layers"], dict.fromkeys(PASSES, 0)
    for layer in layers:
        assert layer.keys() == {"name", "layer", "kind", "input_shapes", "output_shape", "parameters", *PASSES}
        for name in PASSES:
            if layer[name]:
                agree(layer[name])
                assert name == "data_gradient" or layer[name]["us_per_image"] > 0
                sums[name] += layer[name]["us_per_image"]
        learns = bool(chaos.layers.LAYERS[layer["kind"]].part_names)
        assert layer["forward"] and learns == bool(layer["update"])
        # at batch 1 a fully connected layer leaves its gradient to the update
        assert bool(layer["weight_gradient"]) == (learns and not layer["update"]["flops"])
    assert sum(layer[name]["share"] for layer in layers for name in PASSES if layer[name]) == pytest.approx(1)
    assert sum(layer["parameters"] for layer in layers) == net.n_parameters
    totals = result["totals"]
    assert totals.keys() == {*PASSES, "sum"}
    assert [totals[name] for name in PASSES] == pytest.approx([sums[name] for name in PASSES])
    assert totals["sum"] == pytest.approx(sum(sums.values()))
    macs = net.macs()
    flops = {name: sum(layer[name]["flops"] for layer in layers if layer[name]) for name in PASSES}
    flops["weight_gradient"] += flops.pop("update")
    assert flops == {name: 2 * count for name, count in macs.items()}
    training = result["training"]
    agree(training)
    assert training["flops"] == 2 * sum(macs.values())
    assert training["us_per_image_elsewhere"] == pytest.approx(training["us_per_image"] - totals["sum"])
    assert [e["images_together"] for e in result["evaluation"]] == [1, 8]
    for e in result["evaluation"]:
        agree(e)
        assert e["images_per_second"] == pytest.approx(1e6 / e["us_per_image"]) and e["flops"] == 2 * macs["forward"]


def check_scaling(result, workers):
    assert result.keys() >= {
        "model",
        "strategy",
        "batch_size",
        "isa",
        "data",
        "seconds",
        "repeats",
        "stripes",
        "weight_bytes",
        "paper_contention_us",
        "check",
        "machine",
    }
    assert result["check"]["gradient_error"] <= result["check"]["tolerance"]
    points = result["points"]
    assert [p["workers"] for p in points] == workers
    one, cores = points[0], chaos.threads.resolve().workers
    assert one["speedup"] == one["efficiency"] == one["peak_speedup"] == 1 and one["lost_us_per_image"] == 0
    for p in points:
        assert p["oversubscribed"] == (p["workers"] > cores)
        assert 0 < p["us_per_image_min"] <= p["us_per_image"] <= p["us_per_image_max"]
        assert 0 < p["speedup_min"] <= p["speedup"] <= p["speedup_max"]
        assert p["efficiency"] == pytest.approx(p["speedup"] / p["workers"])
        assert p["images_per_second"] == pytest.approx(1e6 / p["us_per_image"])
        assert p["us_per_image_per_worker"] == pytest.approx(p["workers"] * p["us_per_image"])
        assert p["publication_us_per_image"] > 0
        assert p["publication_share"] == pytest.approx(p["publication_us_per_image"] / p["us_per_image_per_worker"])
        assert p["lock_failures_per_image"] >= 0 and p["give_ways_per_image"] >= 0
        assert 0 <= p["staleness_mean"] <= p["staleness_max"] and (p["workers"] > 1 or p["staleness_max"] == 0)
        assert p["fraction_of_peak"] > 0 and p["peak_cores"] <= cores


# ---- kernels ----


def test_kernels_of_a_model(isa):
    result = bench.kernels("small", seconds=0.002, repeats=2)
    net = chaos.models.small()
    check_kernels(result, net)
    assert result["isa"] == isa and result["data"] == "digits" and result["trained_images"] == 500
    layers = result["layers"]
    assert [layer["name"] for layer in layers] == ["0", "2", "1", "3", "5", "4", "6", "7", "8", "9"]
    assert [layer["kind"] for layer in layers[:4]] == ["conv2d", "max_pool2d", "tanh", "conv2d"]
    assert layers[2]["input_shapes"] == [[5, 13, 13]] and layers[2]["output_shape"] == [5, 13, 13]
    assert layers[0]["data_gradient"] is None and layers[0]["weight_gradient"]["flops"] == 2 * 54_080
    assert layers[3]["data_gradient"]


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_kernels_of_networks(batch_size):
    for net, data in ((pooled(), "digits"), (graph(), "random")):
        before = net.weights.copy()
        result = bench.kernels(net, batch_size=batch_size, seconds=0.001, repeats=1)
        check_kernels(result, net)
        assert (net.weights == before).all()
        assert result["model"] == "network" and result["data"] == data and result["trained_images"] == 0
        assert result["batch_size"] == batch_size and result["images_together"] == min(batch_size, 8)


def test_kernels_leave_out_what_training_does_not_run():
    layers = {layer["name"]: layer for layer in bench.kernels(pooled(), seconds=0.001, repeats=1)["layers"]}
    assert not any(layers["0"][name] for name in PASSES[1:])  # nothing that learns comes before it
    assert layers["first"]["data_gradient"] is None and layers["4"]["data_gradient"]


def test_kernels_use_the_named_instruction_set():
    isa = chaos.info()["isa"]
    result = bench.kernels(pooled(), isa="generic", seconds=0.001, repeats=1)
    assert result["isa"] == "generic" and chaos.info()["isa"] == isa


def test_kernels_in_the_command_line(capsys, tmp_path):
    path = tmp_path / "net.safetensors"
    pooled().save(path)
    assert main(["bench", "kernels", "--model", str(path), *TINY, "--json"]) == 0
    check_kernels(json.loads(capsys.readouterr().out), pooled())
    assert main(["bench", "kernels", "--model", "small", "--model", str(path), *TINY]) == 0
    out = capsys.readouterr().out
    for words in (
        "3 conv2d 5x13x13 > 10x9x9",
        "weight gradient",
        "data gradient",
        "training",
        "evaluation",
        "8 together",
        "peak",
        "100 %",
        "trained on 500 images",
        "data: digits",
    ):
        assert words in out
    small, network = out.split("network: ")
    assert small.startswith("small: ") and "first conv2d 1x12x6 > 6x10x4" in network
    assert main(["bench", "kernels", "--model", "small", "--model", str(path), *TINY, "--json"]) == 0
    assert [r["model"] for r in json.loads(capsys.readouterr().out)] == ["small", "network"]


# ---- scaling ----


def test_scaling_of_a_model():
    result = bench.scaling("small", workers=[2], seconds=0.01, repeats=2)
    check_scaling(result, [1, 2])
    net = chaos.models.small()
    assert result["paper_contention_us"] == 58 and result["stripes"] == 5
    assert result["weight_bytes"] == net.plan.weight_size * 4 >= net.n_parameters * 4
    for p in result["points"]:
        assert p["updates_per_image"] == result["stripes"] and p["bytes_per_image"] == result["weight_bytes"]


def test_scaling_counts_updates_per_batch():
    net = pooled()
    before = net.weights.copy()
    result = bench.scaling(net, workers=[1], batch_size=10, seconds=0.005, repeats=1)
    check_scaling(result, [1])
    (point,) = result["points"]
    # The last step of a phase may be smaller.
    assert result["stripes"] / 10 <= point["updates_per_image"] <= result["stripes"] / 10 * 1.5
    assert result["paper_contention_us"] is None and (net.weights == before).all()


def test_scaling_flags_more_workers_than_cores(capsys):
    cores = chaos.threads.resolve().workers
    argv = ["bench", "scaling", "--model", "small", *TINY, "--workers", f"1,{cores + 1}"]
    assert main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check_scaling(result, [1, cores + 1])
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert f"{cores + 1}!" in out and "oversubscribed" in out and "58" in out


def test_scaling_takes_all_cores_by_default(capsys, tmp_path):
    path = tmp_path / "net.safetensors"
    pooled().save(path)
    assert main(["bench", "scaling", "--model", str(path), *TINY]) == 0
    out = capsys.readouterr().out
    assert "!" not in out and "staleness" in out and "us/image/worker" in out
    cores = chaos.threads.resolve().workers
    result = bench.scaling(pooled(), seconds=0.002, repeats=1)
    assert {1, cores} == {result["points"][0]["workers"], result["points"][-1]["workers"]}
    only = bench.scaling(pooled(), strategy="sequential", seconds=0.002, repeats=1)
    check_scaling(only, [1])


@pytest.mark.parametrize(
    "cores, wanted",
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12]), (64, [1, 2, 4, 8, 16, 32, 64])],
)
def test_default_workers(cores, wanted, monkeypatch):
    limits = {"argument": 1, "physical cores": cores, "affinity mask": 2 * cores}
    plan = chaos.threads.Plan(1, "argument", limits, False, (0,))
    monkeypatch.setattr(chaos.threads, "resolve", lambda requested=None: plan)
    assert bench.default_workers() == wanted


# ---- both ----


@pytest.mark.parametrize("damage", [lambda g: g * 1.001, lambda g: g + np.nan, lambda g: np.roll(g, 1)])
@pytest.mark.parametrize("kind", ["kernels", "scaling", "throughput"])
def test_wrong_gradients_are_not_timed(kind, damage, capsys, monkeypatch):
    right = chaos.Network.loss_and_gradients

    def wrong(self, *args, **options):
        loss, gradients = right(self, *args, **options)
        name, *_ = gradients
        return loss, {**gradients, name: damage(gradients[name])}

    def untimed(*args, **options):
        raise AssertionError("something was timed")

    monkeypatch.setattr(chaos.Network, "loss_and_gradients", wrong)
    monkeypatch.setattr(chaos._core, "fma_gflops", untimed)
    assert main(["bench", kind, "--model", "small", *TINY]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "gradient of 0.weight differs" in err and "no time was taken" in err


@pytest.mark.parametrize("kind", ["kernels", "scaling"])
def test_impossible_arguments(kind, capsys):
    for options in (
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--repeats", "0"],
        ["--batch-size", "0"],
        ["--model", "tiny"],
        ["--isa", "mmx"],
    ):
        assert main(["bench", kind, "--model", "small", *options]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("chaos: error: ") and err.count("\n") == 1
    with pytest.raises(ValueError, match="known: small"):
        getattr(bench, kind)("tiny")
    for workers in ("0", "99999", "two"):
        assert main(["bench", "scaling", "--workers", workers]) == 2


def test_core_layers_are_what_the_plan_holds(isa):
    for net in (pooled(), graph(), chaos.models.large()):
        found = net.core_layers()
        assert len(found) == len(net.nodes()) - 1
        assert {layer: name for name, layer, _ in found} == {node.layer: name for node, name in net.nodes() if node.layer}
        for i, (_, layer, shapes) in enumerate(found, 1):
            shape = layer.output_shape(*shapes)
            assert net.plan.shape(i) == (shape if len(shape) == 3 else (*shape, 1, 1))


def test_two_threads_hand_lines_over_in_turns():
    room, out = np.zeros(32 + 16 * 3, np.int32), np.zeros((2, 5), np.float32)
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda side: chaos._core.hand_over(room, side, 4, out[side], 20.0), (0, 1)))
    lines = room[32::16]
    assert max(counts) == 5 and min(counts) >= 4  # the other ends within the block that it is in
    assert (lines[0] == lines).all() and 2 * 4 * 6 - 4 <= lines[0] <= 2 * 4 * 6  # nothing is lost; a block warms up
    assert not np.delete(room, np.r_[0, 32 : len(room) : 16]).any()
    for side, count in enumerate(counts):
        assert (out[side, :count] > 0).all() and not out[side, count:].any()


def test_a_thread_that_nobody_answers_ends():
    room, out = np.zeros(32, np.int32), np.zeros(3, np.float32)
    assert chaos._core.hand_over(room, 1, 1, out, 0.002) == 0 and not out.any()
    assert chaos._core.hand_over(room, 0, 1, out, 1.0) == 0  # the other is known to have ended


@pytest.mark.parametrize(
    "options",
    [
        {"room": np.zeros(31, np.int32)},
        {"side": 2},
        {"turns": 0},
        {"seconds": -1.0},
        {"seconds": math.nan},
        {"seconds": 61.0},
    ],
)
def test_impossible_hand_overs(options):
    arguments = {"room": np.zeros(32, np.int32), "side": 0, "turns": 1, "out": np.zeros(1, np.float32)} | options
    with pytest.raises(ValueError, match="room must hold"):
        chaos._core.hand_over(**arguments)


def test_the_distance_of_cores(monkeypatch):
    found = bench.distance(seconds=0.5)
    assert found.keys() == {"hop_ns", "stream_ns"}
    assert None in found.values() or min(found.values()) > 0
    monkeypatch.setattr(chaos._core, "hand_over", lambda room, side, turns, out, seconds: 0)
    assert bench.distance() == {"hop_ns": None, "stream_ns": None}


def test_what_is_measured_beside_the_repeats():
    given = iter(range(100))
    one, two = bench.throughputs([{"model": "small", "workers": n} for n in (1, 2)], 0.002, 2, beside=lambda: next(given))
    assert [each["beside"] for each in one["each"]] == [[0, 1], [4, 5]]
    assert [each["beside"] for each in two["each"]] == [[2, 3], [6, 7]]
    for found in (one, two):
        assert sorted(each["us_per_image"] for each in found["each"])[0] == found["us_per_image_min"]
        assert all(each["had"] > 0 and each["peak_gflops"] > 0 for each in found["each"])
    assert "each" not in bench.throughput("small", seconds=0.002, repeats=1)


def test_networks_whose_layers_observe_or_draw():
    """Running statistics have no gradients that could be compared; the definition draws the same random numbers."""
    net = chaos.Network(
        (2, 6, 6), [chaos.Conv2d(3, 3), chaos.BatchNorm2d(), chaos.Dropout(), chaos.Flatten(), chaos.Linear(4)]
    )
    rows = bench.kernels(net, batch_size=4, seconds=0.001, repeats=1)["layers"]
    assert [row["kind"] for row in rows] == ["conv2d", "batch_norm2d", "dropout", "flatten", "linear"]


def test_a_loop_is_wrong_only_if_it_is_with_all_images(monkeypatch):
    """Rounding may take a number across the kink of a ReLU: of other images another one's."""
    net = chaos.models.small(seed=0)
    images, labels = np.zeros((64, 1, 29, 29), np.float32), np.zeros(64, int)
    turns = iter([{"a": 0.05, "b": 1e-6}, {"a": 1e-6, "b": 0.05}] * 4)
    monkeypatch.setattr(_common, "CHECKED_IMAGES", 1)
    monkeypatch.setattr(_common, "_deviations", lambda *_: next(turns))
    assert _common.check(net, "small", images, labels) == {"images": 2, "gradient_error": 1e-6, "tolerance": 2e-5}
    monkeypatch.setattr(_common, "_deviations", lambda *_: {"a": 1e-6, "b": 0.05})
    with pytest.raises(ChaosError, match="the b differs from the definition in float64 by 5.0e-02"):
        _common.check(net, "small", images, labels)
