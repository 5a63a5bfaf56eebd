"""chaos.models.pattern: the grammar of layer patterns, and its errors."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chaos
from chaos.models import pattern

CS231N = "INPUT -> [[CONV -> RELU]*N -> POOL?]*M -> [FC -> RELU]*K -> FC"


def kinds(net):
    return [node.layer.kind for node, _ in net.nodes() if node.layer]


def shapes(net, kind):
    return [node.shape for node, _ in net.nodes() if node.layer and node.layer.kind == kind]


def test_the_courses_pattern():
    net = pattern(CS231N, repeats={"N": 2, "M": 3, "K": 1})
    block = ["conv2d", "relu"] * 2 + ["max_pool2d"]
    assert kinds(net) == block * 3 + ["flatten", "linear", "relu", "linear"]
    assert shapes(net, "conv2d") == [(32, 32, 32)] * 2 + [(64, 16, 16)] * 2 + [(128, 8, 8)] * 2
    assert shapes(net, "linear") == [(128,), (10,)]
    # the same with numbers
    same = pattern("INPUT -> [[CONV -> RELU]*2 -> POOL?]*3 -> [FC -> RELU]*1 -> FC")
    assert same.config() == net.config() and (same.weights == net.weights).all()


def test_the_courses_examples():
    assert kinds(pattern("INPUT -> FC")) == ["flatten", "linear"]  # a linear classifier
    assert kinds(pattern("INPUT -> CONV -> RELU -> FC")) == ["conv2d", "relu", "flatten", "linear"]
    net = pattern("INPUT -> [CONV -> RELU -> POOL]*2 -> FC -> RELU -> FC")
    assert kinds(net) == ["conv2d", "relu", "max_pool2d"] * 2 + ["flatten", "linear", "relu", "linear"]
    net = pattern("INPUT -> [CONV -> RELU -> CONV -> RELU -> POOL]*3 -> [FC -> RELU]*2 -> FC")
    assert kinds(net).count("conv2d") == 6 and kinds(net).count("linear") == 3


def test_options():
    net = pattern(
        "INPUT -> [CONV -> BN -> RELU -> POOL?]*3 -> [FC -> TANH -> DROPOUT]*0 -> FC",
        input_shape=(1, 28, 28),
        classes=7,
        maps=(8, 16),
        kernel_size=5,
        optional=[True, False, True],
    )
    assert shapes(net, "conv2d") == [(8, 28, 28), (16, 14, 14), (16, 14, 14)]
    assert kinds(net)[-2:] == ["flatten", "linear"] and net.output_shape == (7,)
    assert kinds(pattern(CS231N, repeats={"N": 1, "M": 2, "K": 0}, optional=False)).count("max_pool2d") == 0
    assert kinds(pattern("INPUT -> FC -> BN -> RELU -> FC"))[2] == "batch_norm1d"
    deep = pattern("INPUT -> [CONV -> RELU -> POOL]*6 -> FC", input_shape=(3, 64, 64))
    assert [shape[0] for shape in shapes(deep, "conv2d")] == [32, 64, 128, 256, 512, 512]
    one, other = pattern("INPUT -> FC", seed=1), pattern("INPUT -> FC", seed=2)
    assert (one.weights != other.weights).any()


def test_it_learns():
    train, test = chaos.data.load("digits", size=16)
    net = pattern("INPUT -> [CONV -> RELU -> POOL]*2 -> FC", input_shape=(1, 16, 16), maps=8)
    run = chaos.train(net, train, test, workers=1, epochs=3, lr=0.01, progress=False)
    assert run.history[-1]["test_error"] < 0.2


@pytest.mark.parametrize(
    "text, place, words",
    [
        ("INPUT -> [CONV RELU]*2 -> FC", 15, "'->' or ']' is expected, not 'RELU'"),
        ("INPUT -> [CONV -> RELU*2 -> FC", 30, "'->' or ']' is expected, not the end"),
        ("INPUT -> CONV]*2 -> FC", 13, "'->' or the end is expected, not ']'"),
        ("INPUT -> CONVV -> FC", 9, "unknown layer 'CONVV'; did you mean CONV?"),
        ("INPUT -> conv -> FC", 9, "unknown layer 'conv'; did you mean CONV?"),
        ("INPUT -> CONV -> -> FC", 17, "a layer or '[' is expected, not '->'"),
        ("INPUT -> CONV ->", 16, "a layer or '[' is expected, not the end"),
        ("INPUT -> [CONV]* -> FC", 17, "a number, or a name for one, is expected, not '->'"),
        ("INPUT -> [CONV]*N -> FC", 16, "N needs a number: repeats={'N': 2}"),
        ("INPUT -> CONV, FC", 13, "',' has no meaning here"),
        ("INPUT - FC", 6, "'-' has no meaning here"),
        ("CONV -> FC", 0, "begins with INPUT"),
        ("INPUT -> CONV -> RELU", 17, "ends with FC"),
        ("INPUT", 0, "ends with FC"),
        ("", 0, "a layer or '[' is expected, not the end"),
        ("INPUT -> FC -> INPUT -> FC", 15, "INPUT stands at the beginning only"),
        ("INPUT -> FC -> CONV -> FC", 15, "CONV does not fit here: "),
        ("INPUT -> [CONV -> POOL]*7 -> FC", 18, "POOL does not fit here: "),
        ("INPUT -> [CONV -> RELU]*9999 -> FC", 24, "more than 10,000 layers"),
        ("INPUT -> [INPUT]*0 -> [FC]*0", 0, "ends with FC"),
    ],
)
def test_errors_show_the_place(text, place, words):
    with pytest.raises(ValueError) as caught:
        pattern(text)
    first, shown, mark = str(caught.value).split("\n")
    assert words in first and f"at character {place + 1}:" in first
    assert shown == f"    {text}" and mark == f"    {' ' * place}^"


def test_other_errors():
    with pytest.raises(ValueError, match="repeats nothing Q times"):
        pattern("INPUT -> FC", repeats={"Q": 2})
    with pytest.raises(ValueError, match="has 2 optional layers"):
        pattern("INPUT -> [CONV -> POOL?]*2 -> FC", optional=[True])
    with pytest.raises(ValueError, match=re.escape("repeats['N']")):
        pattern("INPUT -> [CONV]*N -> FC", repeats={"N": -1})
    with pytest.raises(ValueError, match="10,000 layers"):
        pattern(f"INPUT -> {' -> '.join(['[CONV]*9000'] * 2)} -> FC")
    for options in ({"classes": 0}, {"kernel_size": 0}, {"hidden": 0}, {"maps": 0}, {"maps": []}, {"maps": "32"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            pattern("INPUT -> CONV -> FC -> FC", **options)
    with pytest.raises(TypeError, match="not NoneType"):
        pattern(None)


WORD = st.sampled_from(["CONV", "RELU", "TANH", "BN"])


@st.composite
def pieces(draw, depth=2):
    """(text, what it is when it is written out)"""
    if depth and draw(st.booleans()):
        inner = draw(st.lists(pieces(depth - 1), min_size=1, max_size=3))
        count = draw(st.integers(0, 2))
        space = draw(st.sampled_from(["", " "]))
        text = f"[{' -> '.join(one for one, _ in inner)}]{space}*{space}{count}"
        return text, [word for _, words in inner for word in words] * count
    word = draw(WORD)
    return word, [word]


@given(st.lists(pieces(), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_any_pattern_is_what_it_writes_out_to(found):
    text = " -> ".join(["INPUT", *(one for one, _ in found), "FC"])
    words = [word for _, ones in found for word in ones]
    net = pattern(text, input_shape=(1, 4, 4), maps=2)
    names = {"CONV": "conv2d", "RELU": "relu", "TANH": "tanh", "BN": "batch_norm2d"}
    assert kinds(net) == [*(names[word] for word in words), "flatten", "linear"]
    assert net.forward(np.zeros((1, 1, 4, 4), np.float32)).shape == (1, 10)
