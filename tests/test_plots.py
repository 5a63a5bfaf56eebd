"""Pictures: what is drawn is what was measured; every kind in every form; legible on light and dark paper."""

import json
import re
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

import chaos
from chaos import report
from chaos.cli import main
from chaos.report import Bars, Course, Dots, Images, Line, Matrix, Plot, Report, draw, measurements_report, runs_report
from chaos.report.draw import COLOURS, DARK, LIGHT
from chaos.report.structure import Paragraph, Table

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(autouse=True)
def plots():
    pytest.importorskip("matplotlib", reason="plots need matplotlib")


def series(made):
    return {block.title: {one.name: one for one in block.series} for block in made.blocks if isinstance(block, Plot)}


def luminance(colour):
    """Of sRGB, by WCAG 2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    one, other = sorted((luminance(a), luminance(b)))
    return (other + 0.05) / (one + 0.05)


# ---- drawing ----


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_are_seen_on_both_papers(theme):
    assert contrast(theme.ink, theme.paper) > 12 and contrast(theme.weak, theme.paper) > 4.5
    assert all(contrast(colour, theme.paper) > 2 for colour in COLOURS)
    assert all(contrast(colour, theme.paper) > 3 for colour in COLOURS[:3])


def dots():
    return Plot(
        "d",
        "who",
        "us",
        [Dots("one", ["a", "b"], [1.0, None], [0.5, 0.5], [2, 2], ["1.0", ""]), Dots("two", ["a", "b"], [None, 30])],
        y_log=True,
    )


BLOCKS = [
    dots(),
    Plot("points", "x", "y", [Dots("p", [1.0, 10.0], [2.0, 3.0], labels=["f", "w"])], x_log=True, y_log=True),
    Plot("long", "x", "y", [Bars(n, [f"a rather long name {k}" for k in range(6)], range(6)) for n in "ab"]),
    Plot("guide", "x", "y", [Line("is", [1, 2], [1, 2]), Line("ideal", [1, 2], [1, 2], guide=True)]),
    Plot("names", "x", "y", [Line(f"a name of more than enough letters {k}", [1, 2], [k, 2]) for k in range(9)]),
    Matrix("m", "taken for", "class", ["a", "b"], ["a", "b"], [[5, 1], [0, 7]]),
    Matrix("many", "x", "y", [f"{k}" for k in range(40)], [f"{k}" for k in range(40)], np.eye(40, dtype=int).tolist()),
    Images("i", [np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)], ["a", "b"], signed=True),
    Images("rgb", [np.zeros((3, 4, 3), np.uint8)] * 3),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.title)
def test_every_block_is_drawn(block):
    svg = report.to_svg(block)
    said = {element.text for element in xml.fromstring(svg).iter() if element.tag.endswith("text")}
    assert block.title in said and "prefers-color-scheme: dark" in svg
    assert report.to_png(block, DARK).startswith(b"\x89PNG")


@pytest.mark.parametrize("block", [BLOCKS[0], BLOCKS[5], BLOCKS[7]], ids=lambda block: block.title)
def test_every_form(block, tmp_path):
    made = Report("r").add(block)
    assert report.to_svg(block) == report.to_svg(block)
    for ending in report.FORMATS:
        assert (tmp_path / f"a{ending}") in report.write(made, tmp_path / f"a{ending}")
    json.loads((tmp_path / "a.json").read_text())
    page = (tmp_path / "a.html").read_text()
    assert page.count("prefers-color-scheme: dark") == 2 and page.count("<svg") == 1


def test_dark_paper_changes_every_ink():
    """What an adapted picture names: whatever is drawn in ink or on paper has a rule."""
    svg = report.to_svg(BLOCKS[3])
    for before, after in ((LIGHT.paper, DARK.paper), (LIGHT.ink, DARK.ink)):
        assert f'[style*="fill: {before}"] {{ fill: {after} !important }}' in svg
    drawn = svg[svg.index("</style>") :]
    used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawn))
    assert used <= {LIGHT.paper, LIGHT.ink, LIGHT.weak, *COLOURS}
    texts = re.findall(r"<text style=\"([^\"]*)\"", drawn)
    assert texts and all("fill: #" in one for one in texts)


def test_several_blocks_are_one_picture(tmp_path):
    made = Report("r").add(Paragraph("words"), *BLOCKS[:4])
    report.write(made, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("<svg") == 1
    with pytest.raises(ValueError, match="there is nothing to draw"):
        report.write(Report("r").add(Paragraph("words")), tmp_path / "b.png")


# ---- runs ----


def course(name, **config):
    records = [
        {
            "epoch": k,
            "train_loss": 1 / k,
            "train_error": 0.5 / k,
            "test_error": 0.4 / k,
            "seconds": 2.0,
            "images_per_second": 9.0,
        }
        for k in (1, 2)
    ]
    return Course(name, records, {"model": "small", "seed": 0, **config})


def test_runs_beside_each_other():
    made = runs_report([course("a", lr=0.1, strategy="chaos"), course("b", lr=0.2, strategy="chaos")])
    found = series(made)
    assert found["Test error"]["a"].y == [40, 20] and found["Test error over time"]["b"].x == [2, 4]
    assert made.blocks[0].text == "model small, strategy chaos, seed 0 in all."
    (table,) = (block for block in made.blocks if isinstance(block, Table))
    assert table.columns == ["run", "lr", "epochs", "lowest test error, %", "in epoch", "last, %", "seconds", "images/s"]
    assert table.rows[1] == ["b", 0.2, 2, 20, 2, 20, 4, 9]


def test_runs_without_a_test_set_show_training():
    one = course("a")
    for record in one.records:
        record["test_error"] = None
    assert "Training error" in series(runs_report([one, course("b")]))


# ---- measurements ----


def point(workers, speedup):
    return {
        "workers": workers,
        "us_per_image": 10.0 / speedup,
        "speedup": speedup,
        "speedup_min": speedup,
        "speedup_max": speedup,
        "efficiency": speedup / workers,
        "staleness_mean": 0.5,
    }


def test_scaling():
    one = {"model": "small", "strategy": "chaos", "batch_size": 1, "points": [point(1, 1.0), point(2, 1.5)]}
    for found in (one, [one], {"": [one]}):
        drawn = series(measurements_report(found))
        assert drawn["Speed-up"]["small"].y == [1.0, 1.5] and drawn["Efficiency"]["small"].y == [100, 75]
        assert drawn["Speed-up"]["ideal"].guide


def kernel(name, flops, gflops, **passes):
    figures = {"us_per_image": 2.0, "flops": flops, "gflops": gflops, "fraction_of_peak": gflops and gflops / 100}
    return {
        "name": name,
        "kind": "conv2d",
        "input_shapes": [[1, 4, 4]],
        "output_shape": [2, 2, 2],
        "parameters": 16,
        "forward": figures,
        "weight_gradient": figures,
        "data_gradient": None,
        "update": None,
        **passes,
    }


def test_kernels():
    layers = [kernel("0", 320, 50.0), kernel("1", 0, None)]
    found = {"model": "small", "isa": "avx2", "batch_size": 1, "layers": layers, "totals": {}, "peak_gflops": 100.0}
    made = measurements_report(found)
    drawn = series(made)
    roof = drawn["small: roofline"]
    # 320 operations on 16 inputs, 8 outputs and 16 weights of 4 bytes
    assert roof["0 conv2d"].x == [2.0, 2.0] and roof["0 conv2d"].y == [50.0, 50.0]
    assert roof["0 conv2d"].labels == ["forward, weight gradient", ""] and "1 conv2d" not in roof
    assert roof["peak, 100 GFLOP/s"].guide
    assert list(drawn["small: time per layer"]["forward"].x) == ["0 conv2d", "1 conv2d"]


@pytest.mark.parametrize("name", ["scaling", "peers", "compare_speed", "compare_accuracy"])
def test_what_the_docs_hold(name, tmp_path):
    if not DOCS.is_dir():
        pytest.skip("the source tree is not beside the tests")
    made = measurements_report(json.loads((DOCS / f"{name}.json").read_text()))
    assert series(made) and report.write(made, tmp_path / "a.svg")
    assert not any(
        isinstance(one, Bars) and block.y_log for block in made.blocks if isinstance(block, Plot) for one in block.series
    )


def test_differences_instead_of_coincident_curves():
    def row(strategy, errors):
        return {"model": "m", "strategy": strategy, "workers": 1, "speed": None,
                "accuracy": {"final_errors": [errors[-1]], "errors_per_epoch": [errors]}}  # fmt: skip

    drawn = series(measurements_report({"rows": [row("sequential", [0.2, 0.1]), row("chaos", [0.3, 0.11])]}))
    found = drawn["m: test error beyond that of sequential, 1"]
    assert found.keys() == {"chaos, 1"} and found["chaos, 1"].y == pytest.approx([10, 1])


@pytest.mark.parametrize("found", [3, {}, [], {"a": 1}, [{"points": 3}], {"x": [[1]]}])
def test_what_is_no_measurement_is_refused(found):
    with pytest.raises(ValueError, match="holds nothing that can be drawn"):
        measurements_report(found)


# ---- the command ----


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    layers = [chaos.Conv2d(4, 3), chaos.Tanh(), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Linear(10)]
    chaos.Network((1, 8, 8), layers).save(folder / "net.safetensors")
    for name, lr in (("one", "0.02"), ("two", "0.05")):
        argv = ["train", str(folder / "net.safetensors"), "--data", "digits", "--subset", "200", "--epochs", "2", "--lr", lr]
        assert main([*argv, "--quiet", "--run-dir", str(folder / name)]) == 0
    return folder


def test_several_runs(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(runs / "one"), str(runs / "two")]) == 0
    assert capsys.readouterr().out == "runs.html\n"
    page = (tmp_path / "runs.html").read_text()
    assert page.count("<svg") == 4 and ">one<" in page and ">two<" in page and "<td>0.05</td>" in page


def test_confusion_counts_every_image(runs, tmp_path):
    assert main(["plot", str(runs / "one"), "--kind", "confusion", "--out", str(tmp_path / "c.json")]) == 0
    counts = np.array(json.loads((tmp_path / "c.json").read_text())["data"]["counts"])
    test = chaos.data.load("digits")[1]
    found = chaos.load(runs / "one" / "model.safetensors").predict(test.images)
    wanted = np.zeros((10, 10), int)
    np.add.at(wanted, (test.labels, found), 1)
    assert (counts == wanted).all()


def test_worst_images_are_the_most_surely_wrong(runs, tmp_path):
    assert main(["plot", str(runs / "one"), "--kind", "worst", "--out", str(tmp_path / "w.json")]) == 0
    first = json.loads((tmp_path / "w.json").read_text())["data"]["images"]
    test = chaos.data.load("digits")[1]
    net = chaos.load(runs / "one" / "model.safetensors")
    sure = net.predict_proba(test.images).max(1)
    wrong = net.predict(test.images) != test.labels
    assert wrong[first].all() and (np.diff(sure[first]) <= 0).all()
    assert sure[first[-1]] >= np.sort(sure[wrong])[-len(first)]


def test_filters_and_features_are_the_networks(runs, tmp_path):
    net = chaos.load(runs / "one" / "model.safetensors")
    assert main(["plot", str(runs / "one"), "--kind", "filters", "--out", str(tmp_path / "f.json")]) == 0
    (block,) = json.loads((tmp_path / "f.json").read_text())["blocks"]
    np.testing.assert_array_equal(np.float32(block["images"]), net.state_dict()["0.weight"][:, 0])
    argv = [
        "plot",
        str(runs / "one"),
        "--kind",
        "features",
        "--image",
        "3",
        "--layer",
        "0",
        "--out",
        str(tmp_path / "m.json"),
    ]
    assert main(argv) == 0
    _, block = json.loads((tmp_path / "m.json").read_text())["blocks"]
    image = chaos.data.load("digits")[1].images[3:4]
    first = chaos.Network((1, 8, 8), [chaos.Conv2d(4, 3)])
    first.load_state_dict({name: net.state_dict()[name] for name in ("0.weight", "0.bias")})
    np.testing.assert_allclose(np.float32(block["images"]), first.forward(image)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["confusion", "worst", "filters", "features"])
def test_pictures_of_a_network(runs, kind, capsys):
    assert main(["plot", str(runs / "one"), "--kind", kind, "--theme", "dark"]) == 0
    assert capsys.readouterr().out == f"{runs}/one/{kind}.png\n" and (runs / "one" / f"{kind}.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "argv, words",
    [
        ("one small", "small: of several things only the courses of runs are drawn together"),
        ("one two --kind confusion", "of several things only"),
        ("net.safetensors --kind report --out a.html", "is no run; of a network there are: graph, confusion"),
        ("one --kind confusoin", "did you mean confusion?"),
        ("one --kind features --image 360", "--image 360: there are 360 images"),
        ("one --kind features --layer 77", "--layer: there are no maps of '77'"),
        ("small --kind confusion", "is a model without training"),
        ("bad.json", "bad.json: no JSON"),
        ("odd.json", "odd.json: holds nothing that can be drawn"),
        ("less.json", "less.json: a measurement lacks what is drawn"),
        ("one --theme drak", "did you mean dark?"),
    ],
)
def test_the_command_refuses(runs, monkeypatch, capsys, argv, words):
    monkeypatch.chdir(runs)
    (runs / "bad.json").write_text("{")
    (runs / "odd.json").write_text("{}")
    (runs / "less.json").write_text(json.dumps({"points": [{"workers": 1}]}))
    assert main(["plot", *argv.split()]) == 2
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and not out


def test_names_of_dots_do_not_lie_on_each_other():
    pytest.importorskip("matplotlib")
    series = [
        Dots(f"layer {k}", [1.0 + k / 50] * 3, [5.0, 5.1, 5.2], labels=["forward", "backward", "update"]) for k in range(3)
    ]
    with draw.style(LIGHT):
        figure = draw.figure_of([Plot("roofline", "x", "y", series, x_log=True, y_log=True)], LIGHT)
        figure.draw_without_rendering()
        boxes = [one.get_window_extent() for one in figure.axes[0].texts]
    assert len(boxes) == 9 and not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
