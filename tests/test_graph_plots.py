"""`chaos plot MODEL`: the graph of a network as SVG and PNG."""

import builtins
import xml.etree.ElementTree as ElementTree

import pytest
from nets import graph

import chaos
from chaos import report
from chaos.cli import main
from chaos.cli.plot import boxes
from chaos.errors import ChaosError
from chaos.report import Box
from chaos.report.graph import place


@pytest.fixture
def plots(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    monkeypatch.chdir(tmp_path)


def texts(path):
    return [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_boxes_are_the_network():
    net = graph()
    net.freeze("stem.*")
    net.freeze("4.bias")
    found = boxes(net.summary())
    assert [box.lines[0].split()[-1] for box in found] == [row.layer for row in net.summary().rows]
    order = [node for node, _ in net.nodes()]
    assert [box.inputs for box in found] == [[order.index(source) for source in node.inputs] for node in order]
    assert found[1].lines == ["stem  Conv2d", "6x9x8", "114 frozen parameters"] and not found[1].marked
    assert "36 + 6 frozen parameters" in [line for box in found for line in box.lines]
    assert [box.lines[0] for box in found if box.marked] == [f"{i}  {kind}" for i, kind in NAMES]
    long = chaos.Network((3,), [chaos.Linear(2, name="features_" * 6)])
    (line, *_) = boxes(long.summary())[1].lines
    assert len(line) == 34 and line.startswith("...") and line.endswith("features_  Linear")


NAMES = [(2, "Conv2d"), (4, "Conv2d"), (9, "Linear"), (12, "Linear"), (15, "Linear")]


@pytest.mark.parametrize("make", [graph, chaos.models.large])
def test_no_edge_crosses_a_box(make):
    """Boxes and bends of edges have places of their own, and edges go down floor by floor."""
    found = boxes(make().summary())
    where, routes = place(found)
    assert len(set(where)) == len(where) == len(found)
    assert len(routes) == sum(len(box.inputs) for box in found)
    ends = [(where[source], where[number]) for number, box in enumerate(found) for source in box.inputs]
    bends = []
    for route, (begin, end) in zip(routes, ends, strict=True):
        assert (route[0], route[-1]) == (begin, end)
        assert [y for _, y in route] == [begin[1] + i for i in range(len(route))]
        bends += route[1:-1]
    assert not set(bends) & set(where) and len(set(bends)) == len(bends)
    for floor in {y for _, y in where}:  # a box is as wide as a column is apart from the next
        columns = sorted(x for x, y in [*where, *bends] if y == floor)
        assert all(b - a >= 1 for a, b in zip(columns, columns[1:], strict=False))


def test_boxes_come_after_what_they_read():
    with pytest.raises(ValueError, match=r"box 1 reads \[2\]"):
        place([Box(["a"], []), Box(["b"], [2]), Box(["c"], [0])])


def test_the_command(plots, tmp_path, capsys):
    assert main(["plot", "small"]) == 0
    assert capsys.readouterr().out == "small.svg\n"
    found = texts(tmp_path / "small.svg")
    assert found[0] == "small" and found.count("1,260 parameters") == 1
    assert [text.split()[-1] for text in found if "  " in text] == [r.layer for r in chaos.models.small().summary().rows[1:]]
    first = (tmp_path / "small.svg").read_bytes()
    assert main(["plot", "small"]) == 0 and (tmp_path / "small.svg").read_bytes() == first
    assert main(["plot", "small", "--out", "a.png"]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert main(["plot", "small", "--out", "a.html"]) == 0
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.count("<svg") == 1 and page.endswith("</body></html>\n")
    net = graph()
    net.freeze("stem.*")
    net.save(tmp_path / "net.safetensors")
    capsys.readouterr()
    assert main(["plot", "net.safetensors"]) == 0
    assert capsys.readouterr().out == "net.svg\n" and "114 frozen parameters" in texts(tmp_path / "net.svg")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["small", "--out", "a.pdf"], "a.pdf: a graph is written as .svg, .png, .html"),
        (["small", "--out", "no/a.svg"], "no/a.svg: there is no directory no"),
        (["none.safetensors"], "none.safetensors"),
    ],
)
def test_the_command_refuses(plots, capsys, arguments, words):
    assert main(["plot", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_a_graph_that_is_too_large_for_dots(plots, tmp_path):
    chain = [Box([str(i)], [i - 1] if i else []) for i in range(700)]
    with pytest.raises(ValueError, match=r"a.png: the graph of 700 boxes is too large for a .png"):
        report.write_graph("chain", chain, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_without_matplotlib(monkeypatch, tmp_path):
    real = builtins.__import__

    def no_matplotlib(name, *rest):
        if name.split(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(ChaosError, match=r"graphs need matplotlib .*install 'chaos-sgd\[plot\]'"):
        report.write_graph("t", [Box(["a"], [])], tmp_path / "a.svg")
