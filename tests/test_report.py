"""chaos.report and `chaos plot`: what goes in comes out, in every form, and nothing from outside is needed to read it."""

import builtins
import html
import json
import math
import os
import re
import xml.etree.ElementTree as xml
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from chaos import report
from chaos.cli import main
from chaos.errors import ChaosError, CheckpointError
from chaos.report import Bars, Heading, Images, Line, Matrix, Paragraph, Plot, Report, Table


@pytest.fixture
def plots():
    pytest.importorskip("matplotlib", reason="plots need matplotlib")


def example():
    return Report("A <title> & more", data={"n": 3}).add(
        Heading("Section *one*"),
        Paragraph("1 < 2 | 3 & [4]"),
        Heading("Below", 3),
        Table(
            ["name", "value | unit"],
            [["a", 1234567], ["b", 0.000123456], ["c|d", None], ["e", 123456.7], ["f", True]],
            "Some <values>",
        ),
        Plot(
            "Lines",
            "workers",
            "time",
            [Line("one", [1, 2, 4], [1.0, None, 0.5]), Line("two", [1, 2, 4], [1, 2, 3], True)],
            x_log=True,
            y_log=True,
        ),
        Plot("Bars", "epoch", "%", [Bars("a", [1, 2], [10, 20]), Bars("b", [1, 2], [90, 80])]),
        Plot("Names", "bar", "%", [Bars("a", ["x", "y<z"], [10, math.nan])]),
    )


def test_html_is_whole_and_needs_nothing_else(plots):
    page = report.to_html(example())
    assert page == report.to_html(example())
    assert page.count("<svg") == 3 and page.count("<table>") == 1 and "<script" not in page and "<img" not in page
    assert not re.search(r"(?:src|href)=\"(?!#)", page) and "url(http" not in page
    assert "A &lt;title&gt; &amp; more" in page and "1,234,567" in page and "0.0001235" in page and "123,457" in page
    assert "<title> &" not in page and "Some &lt;values&gt;" in page and "<td>–</td>" in page
    body = page[page.index("<body>") : page.index("</body>") + 7]
    root = xml.fromstring(body)  # well-formed
    ids = [element.get("id") for element in root.iter() if element.tag.endswith("clipPath")]
    assert len(ids) == len(set(ids))  # clip paths of one plot do not cut another


def test_text_of_plots_is_text(plots):
    svg = report.to_svg(example().blocks[-1])
    assert svg == report.to_svg(example().blocks[-1])
    assert re.search(">Names</text>", svg) and "y&lt;z" in svg and "Date" not in svg and "date" not in svg


def test_markdown_and_its_plots(plots):
    text, found = report.to_markdown(example(), "r-{}.svg")
    assert list(found) == ["r-1.svg", "r-2.svg", "r-3.svg"] and all("<svg" in svg for svg in found.values())
    assert text.startswith("# A \\<title\\> & more\n\n## Section \\*one\\*\n\n1 \\< 2 \\| 3 & \\[4\\]\n\n### Below\n\n")
    assert "| name | value \\| unit |\n|---|---:|\n| a | 1,234,567 |" in text and "| c\\|d | – |" in text
    assert "![Lines](r-1.svg)" in text


def test_json_holds_all_of_it():
    found = json.loads(report.to_json(example()))
    assert found["title"] == "A <title> & more" and found["data"] == {"n": 3}
    assert [block["kind"] for block in found["blocks"]] == ["heading", "paragraph", "heading", "table", *3 * ["plot"]]
    assert found["blocks"][3]["rows"][2] == ["c|d", None]
    assert found["blocks"][4]["series"][0] == {
        "kind": "line",
        "name": "one",
        "x": [1, 2, 4],
        "y": [1.0, None, 0.5],
        "dashed": False,
        "guide": False,
    }
    assert found["blocks"][6]["series"][0]["y"] == [10, None]  # JSON knows no NaN


def test_the_ending_decides(plots, tmp_path):
    assert report.write(example(), tmp_path / "a.html") == [tmp_path / "a.html"]
    assert report.write(example(), tmp_path / "a b.md") == [
        tmp_path / name for name in ("a b.md", "a-b-1.svg", "a-b-2.svg", "a-b-3.svg")
    ]
    assert report.write(example(), tmp_path / "a.JSON") == [tmp_path / "a.JSON"]
    assert all((tmp_path / name).stat().st_size for name in ("a.html", "a b.md", "a-b-3.svg", "a.JSON"))
    with pytest.raises(ValueError, match="a.pdf: a report is written as .html, .md, .json, .svg, .png"):
        report.write(example(), tmp_path / "a.pdf")


@pytest.mark.parametrize("name", ["conv", "_conv", "a$b$c", "$\\foo$", "$$", "a_b^c", "1 < 2 & 3"])
def test_names_are_shown_as_they_are(plots, name):
    """matplotlib leaves names with _ in front out of a legend, and takes what stands between $ for mathematics."""
    for one in (Line, Bars):
        svg = report.to_svg(Plot(name, name, name, [one(name, [1, 2], [1, 2]), one("other", [1, 2], [2, 1])]))
        assert svg.count(f">{html.escape(name, quote=False)}<") == 4, "title, two labels, legend"
        assert svg.count(">other<") == 1


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a$b$c", r"a\$b\$c"),
        ("_conv_", r"\_conv\_"),
        ("`x`", r"\`x\`"),
        ("a|b", r"a\|b"),
        ("#1 100%", r"\#1 100%"),
        ("~~no~~", r"\~\~no\~\~"),
        ("&lt; &#38; a & b", r"\&lt; \&\#38; a & b"),
        ("[a](b) ![c](d)", r"\[a\](b) !\[c\](d)"),
        ("<b>", r"\<b\>"),
        ("back\\slash", r"back\\slash"),
        ("1. first", r"1\. first"),
        ("2) second", r"2\) second"),
        ("- item", r"\- item"),
        ("---", r"\---"),
        ("===", r"\==="),
        ("-0.5", "-0.5"),
        ("1.5 s", "1.5 s"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_shows_names_as_they_are(plots, name, shown):
    made = report.Report(name).add(
        report.Paragraph(name),
        report.Heading(name),
        report.Table([name], [[name]], name),
        Plot(name, "x", "y", [Line("a", [1], [1.0])]),
    )
    text, _ = report.to_markdown(made)
    blocks = text.rstrip("\n").split("\n\n")
    assert blocks == [
        f"# {shown}",
        shown,
        f"## {shown}",
        f"{shown}:",
        f"| {shown} |\n|---|\n| {shown} |",
        f"![{shown}](plot-1.svg)",
    ]


@pytest.mark.parametrize("stem", ["plain", "run#1", "a%41", "why?", "a b", "x(1)", "l\u00e4ufe", os.fsdecode(b"run\xff")])
def test_links_of_markdown_lead_to_the_plots(plots, tmp_path, stem):
    found = report.write(example(), tmp_path / f"{stem}.md")
    links = re.findall(r"\]\((.*)\)", found[0].read_text())
    names = [os.fsdecode(unquote_to_bytes(urlsplit(link).path)) for link in links]
    assert [tmp_path / name for name in names] == found[1:] and all(path.stat().st_size for path in found)


@pytest.mark.parametrize("ending", ["html", "md", "json"])
def test_a_title_that_is_no_utf8(plots, tmp_path, ending):
    made = report.Report(os.fsdecode(b"run\xff")).add(Plot("p", "x", "y", [Line(os.fsdecode(b"l\xff"), [1], [1.0])]))
    for path in report.write(made, tmp_path / f"a.{ending}"):
        assert "\\udcff" in path.read_text() or path.suffix == ".svg"


def test_without_matplotlib(monkeypatch, tmp_path):
    real = builtins.__import__

    def no_matplotlib(name, *rest):
        if name.split(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(ChaosError, match=r"plots need matplotlib .*install 'chaos-sgd\[plot\]'"):
        report.write(example(), tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
    assert report.write(example(), tmp_path / "a.json")
    assert "<p>" in report.to_html(Report("t").add(Paragraph("no plots")))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Table(["a"], [[1], [1, 2]], "t"), "row 2 of table 't' has 2 cells, its columns are 1"),
        (lambda: Line("l", [1, 2], [1]), "series 'l' has 2 x and 1 y"),
        (lambda: Heading("h", 1), "level 2 or 3, not 1"),
        (lambda: Plot("p", "x", "y", []), "plot 'p' has no series"),
        (lambda: Plot("p", "x", "y", [Bars("a", [1], [1]), Bars("b", [2], [1])]), "with the same x"),
        (lambda: Plot("p", "x", "y", [Bars("a", [1], [1]), Line("b", [1], [1])]), "bars stand alone"),
        (lambda: Plot("p", "x", "y", [Bars("a", [1], [1])], y_log=True), "no foot on a logarithmic axis; take dots"),
        (lambda: Matrix("m", "x", "y", ["a"], ["a", "b"], [[1]]), "matrix 'm' is not 1x2"),
        (lambda: Images("i", []), "'i': there are no images"),
    ],
)
def test_what_cannot_be_shown_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ---- runs ----


def records():
    found = [
        {
            "epoch": k,
            "lr": 0.01,
            "train_loss": 1 / k,
            "train_error": 0.5 / k,
            "test_loss": None,
            "test_error": None,
            "seconds": 2.0,
            "images_per_second": 1000.0 * k,
            "workers": 2,
            "strategy": "chaos",
            "staleness": {"mean": 0.5 * k, "max": 10 * k, "histogram": [80, 15, 5][: k + 1]},
        }
        for k in (1, 2, 3)
    ]
    return found


def series(made):
    return {block.title: {one.name: one.y for one in block.series} for block in made.blocks if isinstance(block, Plot)}


def test_a_run_as_it_is_recorded_now():
    found = series(report.run_report(records(), "first", {"model": "small", "seed": 0, "lr_decay": None}))
    assert found.keys() == {
        "Loss",
        "Error",
        "Speed of the training phase",
        "Staleness of all updates",
        "Staleness over the epochs",
    }
    assert found["Loss"] == {"training": [1, 1 / 2, 1 / 3]} and found["Error"]["training"] == [50, 25, pytest.approx(50 / 3)]
    assert found["Staleness over the epochs"] == {"mean": [0.5, 1.0, 1.5]}
    assert found["Staleness of all updates"]["updates"] == pytest.approx([24000 / 295, 4500 / 295, 1000 / 295])
    made = report.run_report(records(), "first", {"model": "small", "seed": 0, "lr_decay": None})
    assert made.blocks[0].text == "model small, seed 0."
    assert [block.columns for block in made.blocks if isinstance(block, Table)] == [
        ["epoch", "learning rate", "training loss", "training error, %", "seconds", "images/s"]
    ]
    assert made.blocks[-1].rows[1][3] == 25


def test_what_more_was_recorded_is_drawn_too():
    found = records()
    for record in found[1:]:
        record |= {
            "validation_error": 0.3,
            "validation_loss": 0.4,
            "test_error": 0.2,
            "test_loss": 0.3,
            "time_split": {"forward": 0.25, "publish": 0.75},
            "worker_images": [70, 30],
            "layers": {
                "1": {
                    "staleness": {"mean": 0.5, "p50": 0, "p99": 4, "max": 9, "histogram": [1]},
                    "updates": 30,
                    "lock_failures": 2,
                },
                "fc": {"staleness": {"mean": 1.5, "p50": 1, "p99": 5, "max": 7}},
                "4": {},
            },
        }
    kinds = [{"kind": "conv2d"}, {"kind": "linear"}, {"kind": "linear", "name": "fc"}, {"kind": "tanh"}, {"kind": "linear"}]
    made = report.run_report(found, "first", {"network": {"layers": kinds}})
    drawn = series(made)
    assert drawn["Error"]["validation"] == [None, 30, 30] and drawn["Loss"]["test"] == [None, 0.3, 0.3]
    assert drawn["Where the time went"] == {"forward": [0, 25, 25], "publish": [0, 75, 75]}
    assert drawn["Staleness by layer"] == {"1 linear": [None, 0.5, 0.5], "fc linear": [None, 1.5, 1.5]}
    table = next(block for block in made.blocks if isinstance(block, Table) and block.columns[0] == "layer")
    assert table.columns[5:] == ["updates", "found busy"]
    assert table.rows == [
        ["1 linear", 0.5, 0, 4, 9, 30, 2],
        ["fc linear", 1.5, 1, 5, 7, None, None],
        ["4 linear", *6 * [None]],
    ]
    assert drawn["Images of each worker in epoch 3"] == {"images": [70, 30]}
    assert json.loads(report.to_json(made))["data"]["records"] == found


def test_bars_of_a_histogram():
    from chaos.report.run import MOST_BARS, histogram

    assert histogram([9, 1]) == (["0", "1"], [0.9, 0.1])
    names, shares = histogram([900, 99, 0, 0, 1])
    assert names == ["0", "1", "2+"] and shares == pytest.approx([0.9, 0.099, 0.001])
    for counts in ([1] * 500, [0] * 200 + [5] * 100, [1], [0, 0, 3], [1000] + [0] * 300 + [1]):
        names, shares = histogram(counts)
        assert len(names) == len(shares) <= MOST_BARS + 1 and sum(shares) == pytest.approx(1)
    assert histogram([1] * 80)[0][:2] == ["0-1", "2-3"]


def test_a_run_without_updates_by_others():
    found = records()
    for record in found:
        record["staleness"] = {"mean": 0.0, "max": 0, "histogram": []}
    assert "Staleness of all updates" not in series(report.run_report(found, "first"))


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "no such file"),
        ("", "holds no epoch"),
        ('{"epoch": 1}\n{"epo', "line 2 is no JSON"),
        ("[1]\n", "line 1 is no record of an epoch"),
        ('{"loss": 1}\n', "line 1 is no record"),
        (b"\xff\xfe", "cannot be read"),
        ('{"epoch": 1, "staleness": 3}', "line 1: staleness must be an object, not 3"),
        ('{"epoch": 1, "time_split": [1]}', "time_split must be an object"),
        ('{"epoch": 1, "time_split": {"wait": "x"}}', "time_split: wait must be a number"),
        ('{"epoch": 1, "layers": {"a": 3}}', "layers: a must be an object"),
        (
            '{"epoch": 1, "layers": {"a": {"staleness": {"histogram": ["x"]}}}}',
            "a: staleness: histogram must be a list of num",
        ),
        ('{"epoch": 1, "staleness": {"histogram": [1], "max": "x"}}', "staleness: max must be a number"),
        ('{"epoch": 1, "worker_images": 7}', "worker_images must be a list of numbers, not 7"),
    ],
)
def test_damaged_metrics_are_refused(tmp_path, text, words):
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=words) as caught:
        report.read_metrics(path)
    assert str(path) in str(caught.value)


def test_the_command(plots, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["train", "small", "--data", "digits", "--epochs", "2", "--workers", "1", "--run-dir", "first"]) == 0
    capsys.readouterr()
    assert main(["plot", "first"]) == 0
    assert capsys.readouterr().out == "first/report.html\n"
    page = (tmp_path / "first" / "report.html").read_text()
    assert "Training run first" in page and "model small" in page and page.count("<svg") >= 3
    assert main(["plot", "first", "--out", "b.md"]) == 0
    assert capsys.readouterr().out.split()[0] == "b.md" and (tmp_path / "b-1.svg").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nothing"], "nothing/metrics.jsonl: no such file"),
        (["run", "--out", "a.pdf"], "a.pdf: a report is written as"),
        (["run", "--out", "no/a.json"], "no/a.json: there is no directory no"),
        (["run/metrics.jsonl"], "run/metrics.jsonl is a file; name the run"),
    ],
)
def test_the_command_refuses(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(records()[0]) + "\n")
    assert main(["plot", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_what_is_not_finite_is_shown():
    """A loss that has become NaN or infinite is what a report is read for."""
    found = records()
    found[1]["train_loss"], found[2]["train_loss"] = math.nan, math.inf
    made = report.run_report(found, "first")
    first, second, third = series(made)["Loss"]["training"]
    assert first == 1 and math.isnan(second) and third == math.inf
    (table,) = (block for block in made.blocks if isinstance(block, Table))
    column = table.columns.index("training loss")
    assert math.isnan(table.rows[1][column]) and table.rows[2][column] == math.inf
    text, _ = report.to_markdown(made)
    assert "nan" in text.lower() and "inf" in text.lower()
