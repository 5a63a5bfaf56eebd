"""The performance model of ranks and network: limits that are known, and what must only grow or fall."""

import pytest

from chaos.cluster.scaling import ANCHORS, Link, epoch, table

HOW = dict(images=60000, rate=1400, size=1.5e6)
MODES = ["local", "easgd", "gossip", "async", "allreduce"]
GIGABIT = Link(50e-6, 8e-9)


def test_a_network_is_found_again():
    link = Link(3e-5, 2e-9)
    sizes = [1, 1000, 10**6, 4 * 10**6]
    found = Link.through(sizes, [link.message(size) for size in sizes])
    assert abs(found.alpha / link.alpha - 1) < 1e-3 and abs(found.beta / link.beta - 1) < 1e-9
    # a buffer that makes middle-sized messages look fast does not count
    assert Link.through([1, 1000, 10**6], [1e-5, 1e-5, 8e-3]).beta == pytest.approx(8e-9, rel=0.01)
    assert Link.through([1, 100], [2e-5, 1e-5]) == Link(2e-5, 0.0)
    for sizes, seconds in (([1], [1]), ([1, 1], [1, 2]), ([1, 2], [0, 1]), ([1, 2], [1, float("nan")])):
        with pytest.raises(ValueError, match="two different sizes"):
            Link.through(sizes, seconds)


def test_sums_follow_their_algorithm():
    assert GIGABIT.sum(1e6, 1) == 0
    assert GIGABIT.sum(1e6, 2) == pytest.approx(2 * 50e-6 + 8e-3)
    assert Link(0, 8e-9).sum(1e6, 1024) == pytest.approx(2 * 8e-3, rel=1e-3)
    assert Link(1e-5, 0).sum(1e6, 1024) == pytest.approx(20e-5)


@pytest.mark.parametrize("mode", MODES)
def test_one_rank_and_a_perfect_network(mode):
    alone = epoch(mode, 1, GIGABIT, **HOW)
    assert alone["images_per_second"] == pytest.approx(1400) and alone["efficiency"] == pytest.approx(1)
    for row in table(mode, Link(0, 0), **HOW):
        assert row["speedup"] == pytest.approx(row["ranks"])


@pytest.mark.parametrize("mode", MODES)
def test_what_grows_and_what_falls(mode):
    rows = table(mode, GIGABIT, **HOW)
    assert [row["ranks"] for row in rows] == [2**i for i in range(11)]
    assert all(a["efficiency"] >= b["efficiency"] for a, b in zip(rows, rows[1:], strict=False))
    assert all(0 < row["speedup"] <= row["ranks"] for row in rows)
    for worse in (Link(50e-5, 8e-9), Link(50e-6, 8e-8)):
        assert all(b["seconds"] >= a["seconds"] for a, b in zip(rows, table(mode, worse, **HOW), strict=True))
    assert epoch(mode, 8, GIGABIT, overhead=1e-3, **HOW)["seconds"] > rows[3]["seconds"]


def test_waiting_in_every_step_costs_more_than_not_waiting():
    """Large's weights over 1 Gbit/s: a sum takes 12 ms, a step of 64 images 23 ms on two ranks; averaging is hidden."""
    step, average = (epoch(mode, 2, GIGABIT, **HOW) for mode in ("allreduce", "local"))
    assert step["efficiency"] < 0.7 and average["efficiency"] > 0.99 and average["keeps_up"]
    assert not epoch("local", 2, GIGABIT, **HOW | {"every": 10})["keeps_up"]


def test_what_makes_no_sense():
    with pytest.raises(ValueError, match="no model of cluster mode 'shared'"):
        epoch("shared", 2, GIGABIT, **HOW)
    for bad in (dict(rate=0), dict(images=-1), dict(size=0), dict(every=0)):
        with pytest.raises(ValueError):
            epoch("local", 2, GIGABIT, **HOW | bad)
    with pytest.raises(ValueError, match="ranks"):
        epoch("local", 0, GIGABIT, **HOW)


def test_published_figures_have_sources():
    assert all(a["source"] and 1 < a["speedup"] <= a["nodes"] for a in ANCHORS)
