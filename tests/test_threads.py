"""chaos.threads against fake /proc and /sys trees: which limit wins, what it is called, what is refused."""

import os
import sys

import numpy as np
import pytest

from chaos import affinity, threads


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("CHAOS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


class Machine:
    """A fake root directory that grows by calls; each returns the machine again."""

    def __init__(self, root):
        self.root = root

    def file(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
        return self

    def cpus(self, *cores, die=None):
        """One (package, core) pair per logical CPU."""
        for cpu, (package, core) in enumerate(cores):
            folder = f"sys/devices/system/cpu/cpu{cpu}/topology"
            self.file(f"{folder}/physical_package_id", package).file(f"{folder}/core_id", core)
            if die is not None:
                self.file(f"{folder}/die_id", die[cpu])
        return self

    def plan(self, requested=None, mask=16):
        return threads.resolve(requested, root=self.root, mask=range(mask) if isinstance(mask, int) else mask)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# Precedence


def test_nothing_known_uses_the_mask(machine):
    plan = machine.plan(mask=3)
    assert (plan.workers, plan.limit, plan.oversubscribed) == (3, "affinity mask", False)
    assert plan.limits == {"affinity mask": 3, "physical cores": 3}


def test_argument_beats_variables_beats_machine(machine, monkeypatch):
    assert machine.plan(mask=8).workers == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert (machine.plan(mask=8).workers, machine.plan(mask=8).limit) == (5, "OMP_NUM_THREADS")
    monkeypatch.setenv("CHAOS_NUM_THREADS", "4")
    assert (machine.plan(mask=8).workers, machine.plan(mask=8).limit) == (4, "CHAOS_NUM_THREADS")
    assert (machine.plan(3, mask=8).workers, machine.plan(3, mask=8).limit) == (3, "argument")


def test_explicit_numbers_are_flagged_not_reduced(machine, monkeypatch):
    assert machine.plan(4, mask=4).oversubscribed is False
    plan = machine.plan(64, mask=4)
    assert (plan.workers, plan.oversubscribed) == (64, True)
    monkeypatch.setenv("CHAOS_NUM_THREADS", "5")
    assert machine.plan(mask=4).oversubscribed is True


@pytest.mark.parametrize("value, workers, limit", [("64", 4, "affinity mask"), ("4", 4, "OMP_NUM_THREADS"), ("64,2", 4, "")])
def test_a_variable_for_all_programs_oversubscribes_nothing(machine, monkeypatch, value, workers, limit):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    plan = machine.plan(mask=4)
    assert (plan.workers, plan.oversubscribed) == (workers, False) and plan.limit.startswith(limit)
    assert plan.limits["OMP_NUM_THREADS"] == int(value.split(",")[0])
    assert machine.plan(64, mask=4).workers == 64


def test_empty_variable_is_not_set(machine, monkeypatch):
    monkeypatch.setenv("CHAOS_NUM_THREADS", " ")
    assert machine.plan(mask=2).limit == "affinity mask"


def test_omp_list_counts_its_first_entry(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4, 2")
    assert machine.plan(mask=8).workers == 4


@pytest.mark.parametrize("value", ["0", "-1", "abc", "2.0", "4097", "4,2", "1" * 6000, "٣"])
def test_bad_variable_is_named(machine, monkeypatch, value):
    monkeypatch.setenv("CHAOS_NUM_THREADS", value)
    with pytest.raises(ValueError, match="CHAOS_NUM_THREADS=.*whole number .* from 1 to 4096") as caught:
        machine.plan()
    assert value in str(caught.value)
    assert machine.plan(2).workers == 2  # a variable that does not decide does no harm


@pytest.mark.parametrize("value", ["0", "-2", "x", ",2"])
def test_bad_omp_variable_is_named(machine, monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(ValueError, match="OMP_NUM_THREADS="):
        machine.plan()


@pytest.mark.parametrize("value", [0, -1, 4097, 2.0, 1.5, "2", "abc", True, [2], float("nan")])
def test_bad_argument(machine, value):
    with pytest.raises(ValueError, match="workers=.*from 1 to 4096"):
        machine.plan(value)


def test_numpy_integers_are_integers(machine):
    plan = machine.plan(np.int64(2))
    assert plan.workers == 2 and type(plan.workers) is int


# Physical cores


def test_smt_siblings_count_once_and_come_last(machine):
    machine.cpus((0, 0), (0, 1), (0, 0), (0, 1))
    plan = machine.plan(mask=4)
    assert (plan.workers, plan.limit) == (2, "physical cores")
    assert plan.cpus == (0, 1)
    assert machine.plan(6, mask=4).cpus == (0, 1, 2, 3, 0, 1)


def test_core_numbers_repeat_in_each_package_and_die(machine):
    machine.cpus((0, 0), (0, 1), (1, 0), (1, 1))
    assert machine.plan(mask=4).workers == 4
    machine.cpus((0, 0), (0, 0), (0, 1), (0, 1), die=(0, 1, 0, 1))
    assert machine.plan(mask=4).workers == 4


def test_only_cpus_of_the_mask_count(machine):
    machine.cpus((0, 0), (0, 0), (0, 1), (0, 1))
    assert machine.plan(mask={0, 1}).workers == 1
    plan = machine.plan(mask={1, 3})
    assert (plan.workers, plan.limit, plan.cpus) == (2, "affinity mask", (1, 3))


def test_incomplete_topology_falls_back_to_the_mask(machine):
    machine.cpus((0, 0), (0, 0))
    assert machine.plan(mask=3).limits["physical cores"] == 3
    machine.file("sys/devices/system/cpu/cpu0/topology/core_id", "nonsense")
    assert machine.plan(mask=2).limits["physical cores"] == 2


# Placement


def nodes(machine, *lists):
    for number, cpus in enumerate(lists):
        machine.file(f"sys/devices/system/node/node{number}/cpulist", cpus)
    return machine


def placed(machine, mask=16):
    mask = range(mask) if isinstance(mask, int) else mask
    return [threads.placement(pin, root=machine.root, mask=mask) for pin in ("compact", "scatter")]


def test_siblings_follow_when_every_core_has_a_worker(machine):
    # Two sockets of two cores, numbered as Linux does on most servers: the second threads come last.
    nodes(machine.cpus((0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1)), "0-1,4-5", "2-3,6-7")
    assert placed(machine, 8) == [(0, 1, 2, 3, 4, 5, 6, 7), (0, 2, 1, 3, 4, 6, 5, 7)]
    # The second thread next to the first.
    nodes(machine.cpus((0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0), (1, 1), (1, 1)), "0-3", "4-7")
    assert placed(machine, 8) == [(0, 2, 4, 6, 1, 3, 5, 7), (0, 4, 2, 6, 1, 5, 3, 7)]


def test_domains_that_alternate_in_number(machine):
    nodes(machine.cpus((0, 0), (1, 0), (0, 1), (1, 1)), "0,2", "1,3")
    assert placed(machine, 4) == [(0, 2, 1, 3), (0, 1, 2, 3)]
    assert machine.plan(mask=4).cpus == (0, 2, 1, 3)


def test_domains_within_sockets(machine):
    """Scatter changes the socket at every step, and the domain of a socket at every visit."""
    nodes(machine.cpus(*((cpu // 4, cpu % 4) for cpu in range(8))), "0-1", "2-3", "4-5", "6-7")
    assert placed(machine, 8) == [(0, 1, 2, 3, 4, 5, 6, 7), (0, 4, 2, 6, 1, 5, 3, 7)]


def test_sockets_are_domains_where_none_are_told(machine):
    machine.cpus((0, 0), (1, 0), (0, 1), (1, 1))
    assert placed(machine, 4) == [(0, 2, 1, 3), (0, 1, 2, 3)]
    nodes(machine, "0-3")  # one memory, as when NUMA is switched off
    assert placed(machine, 4) == [(0, 2, 1, 3), (0, 1, 2, 3)]


def test_domains_of_an_unknown_topology(machine):
    assert placed(machine, 4) == [(0, 1, 2, 3)] * 2
    nodes(machine, "0-1", "2-3", "", "junk")
    assert placed(machine, 4) == [(0, 1, 2, 3), (0, 2, 1, 3)]


def test_domains_of_different_size(machine):
    nodes(machine.cpus(*((int(cpu > 0), cpu) for cpu in range(5))), "0", "1-4")
    assert placed(machine, 5) == [(0, 1, 2, 3, 4)] * 2
    assert placed(machine, {2, 3, 4}) == [(2, 3, 4)] * 2


# Cache domains


def caches(machine, *lists, level=3):
    for cpus in lists:
        for cpu in affinity.parse(cpus):
            own = f"sys/devices/system/cpu/cpu{cpu}/cache"
            machine.file(f"{own}/index0/level", 1).file(f"{own}/index0/shared_cpu_list", cpu)
            machine.file(f"{own}/index{level}/level", level).file(f"{own}/index{level}/shared_cpu_list", cpus)
    return machine


def domains(machine, mask=8):
    return threads.cache_domains(root=machine.root, mask=range(mask) if isinstance(mask, int) else mask)


def test_the_last_level_cache_makes_a_domain(machine):
    found = domains(caches(machine, "0,4-5", "1-3,6-7"))
    assert found.cpus == ((0, 4, 5), (1, 2, 3, 6, 7)) and found.describe() == "2 cache domains of 3 to 5 CPUs (L3)"
    assert domains(machine, {4, 5, 6}).cpus == ((4, 5), (6,))


def test_nodes_are_domains_where_no_cache_is_shared_that_far(machine):
    """A second-level cache of two cores is no last level, and a cache that not all CPUs tell of tells nothing."""
    nodes(caches(machine, "0-1", "2-3", level=2), "0-1", "2-3")
    assert domains(machine, 4) == threads.Domains(((0, 1), (2, 3)), "NUMA nodes")
    caches(machine, "0-2")
    assert domains(machine, 4).source == "NUMA nodes"
    assert domains(machine, 8) == threads.Domains((tuple(range(8)),), "nothing tells")


def test_sockets_are_domains_where_memory_is_interleaved(machine):
    nodes(machine.cpus((0, 0), (1, 0), (0, 1), (1, 1)), "0-3")
    assert domains(machine, 4).cpus == ((0, 2), (1, 3))


def test_compact_fills_a_cache_before_the_next(machine):
    caches(nodes(machine.cpus(*((0, cpu) for cpu in range(8))), "0-3", "4-7"), "0,2", "1,3", "4-5", "6-7")
    assert placed(machine, 8) == [(0, 2, 1, 3, 4, 5, 6, 7), (0, 4, 1, 6, 2, 5, 3, 7)]


@pytest.mark.parametrize(
    "lists, workers, size, groups",
    [
        (["0-3", "4-7"], 8, 4, 2),
        (["0-3", "4-7"], 6, 4, 2),
        (["0-3", "4-7"], 3, 3, 1),
        (["0-3", "4-7"], 16, 4, 4),
        (["0-5", "6-7"], 8, 6, 2),
        (["0-1", "2-7"], 8, 2, 4),  # no group spans two caches
        (["0-7"], 8, 8, 1),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pinned on Linux only")
def test_groups_of_workers_share_a_cache(machine, lists, workers, size, groups):
    found = domains(caches(machine.cpus(*((0, cpu) for cpu in range(8))), *lists))
    before = machine.plan(workers, mask=8)
    plan, g = threads.grouped(before, found, root=machine.root, mask=range(8))
    assert g == size and f"{groups} group{'s' * (groups > 1)} of {size} in {len(lists)} cache domain" in plan.describe()
    cache = {cpu: k for k, cpus in enumerate(found.cpus) for cpu in cpus}
    for first in range(0, workers, g):
        assert len({cache[cpu] for cpu in plan.cpus[first : first + g]}) == 1
    assert plan.pin == ("compact" if len(lists) > 1 else "none") and plan.workers == workers


def test_scattered_workers_are_alone(machine):
    caches(machine.cpus(*((0, cpu) for cpu in range(8))), "0-3", "4-7")
    plan = threads.resolve(8, pin="scatter", root=machine.root, mask=range(8))
    assert threads.grouped(plan, domains(machine))[1] == 1


def test_pinned_plan(machine):
    nodes(machine.cpus((0, 0), (0, 1), (1, 0), (1, 1)), "0-1", "2-3")

    def plan(requested, pin):
        return threads.resolve(requested, pin=pin, root=machine.root, mask=range(4))

    assert (plan(2, "compact").cpus, plan(2, "scatter").cpus, plan(2, "none").cpus) == ((0, 1), (0, 2), (0, 1))
    assert plan(6, "scatter").cpus == (0, 2, 1, 3, 0, 2)
    assert plan(2, "compact").describe().endswith("; pin compact to CPUs 0-1)")
    assert plan(4, "scatter").describe().endswith("; pin scatter to CPUs 0,2,1,3)")
    assert plan(2, "none").describe().endswith("; pin none)")


def test_bad_pin(machine, monkeypatch):
    for bad in ("spread", None, 1, ["compact"]):
        with pytest.raises(ValueError, match="unknown pin .*known: none, compact, scatter"):
            threads.resolve(pin=bad, root=machine.root)
    monkeypatch.setattr(threads.sys, "platform", "darwin")
    assert threads.resolve(1, root=machine.root, mask={0}).pin == "none"
    with pytest.raises(ValueError, match="on Linux only"):
        threads.resolve(1, pin="compact", root=machine.root, mask={0})


def test_ranges():
    assert threads.ranges((0, 1, 2, 3, 8, 6, 7, 5)) == "0-3,8,6-7,5"
    assert threads.ranges(()) == ""


# Control groups


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1000000 50000", 16),
        ("max 100000", None),
        ("max", None),
        ("", None),
        ("junk", None),
        ("100000 0", None),
        ("0 100000", None),
    ],
)
def test_v2_quota(machine, text, workers):
    plan = machine.file("proc/self/cgroup", "0::/job").file("sys/fs/cgroup/job/cpu.max", text).plan()
    assert plan.workers == (workers or 16)
    assert ("cgroup quota" in plan.limits) == (workers is not None)


def test_v2_smallest_of_the_enclosing_groups_wins(machine):
    machine.file("proc/self/cgroup", "0::/slice/job/step")
    machine.file("sys/fs/cgroup/slice/job/step/cpu.max", "max 100000")
    machine.file("sys/fs/cgroup/slice/job/cpu.max", "600000 100000")
    machine.file("sys/fs/cgroup/slice/cpu.max", "300000 100000")
    plan = machine.plan()
    assert (plan.workers, plan.limit, plan.limits["cgroup quota"]) == (3, "cgroup quota", 3)


def test_v2_path_of_the_host_seen_from_a_container(machine):
    machine.file("proc/self/cgroup", "0::/docker/0123abc").file("sys/fs/cgroup/cpu.max", "200000 100000")
    assert machine.plan().workers == 2
    machine.file("proc/self/cgroup", "0::/../../other")
    assert machine.plan().workers == 2


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_v1_quota_nested(machine, controllers):
    machine.file("proc/self/cgroup", f"9:memory:/m\n4:{controllers}:/a/b\n1:name=systemd:/x\n0::/")
    for group, quota in (("", -1), ("/a", 400000), ("/a/b", -1)):
        folder = f"sys/fs/cgroup/{controllers}{group}"
        machine.file(f"{folder}/cpu.cfs_quota_us", quota // 2).file(f"{folder}/cpu.cfs_period_us", 50000)
    assert (machine.plan().workers, machine.plan().limit) == (4, "cgroup quota")


def test_v1_without_quota_and_cpuset_is_not_cpu(machine):
    machine.file("proc/self/cgroup", "3:cpuset:/a\n1:cpu:/")
    machine.file("sys/fs/cgroup/cpuset/a/cpu.cfs_quota_us", 100000)
    machine.file("sys/fs/cgroup/cpuset/a/cpu.cfs_period_us", 100000)
    machine.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1).file("sys/fs/cgroup/cpu/cpu.cfs_period_us", 100000)
    assert machine.plan().limits == {"affinity mask": 16, "physical cores": 16}


def test_quota_flags_oversubscription(machine):
    machine.file("proc/self/cgroup", "0::/").file("sys/fs/cgroup/cpu.max", "150000 100000")
    assert machine.plan(2).oversubscribed is True


# Words


def test_describe(machine):
    machine.cpus((0, 0), (0, 1))
    assert (
        machine.plan(mask=2).describe()
        == "2 workers (limit: affinity mask 2; cgroup quota none; physical cores 2; pin none)"
    )
    machine.file("proc/self/cgroup", "0::/").file("sys/fs/cgroup/cpu.max", "100000 100000")
    assert machine.plan(mask=2).describe() == "1 worker (limit: cgroup quota 1; affinity mask 2; physical cores 2; pin none)"
    assert (
        machine.plan(4, mask=2).describe()
        == "4 workers (limit: argument 4; affinity mask 2; cgroup quota 1; physical cores 2; "
        "OVERSUBSCRIBED; pin none)"
    )


def test_plan_is_frozen(machine):
    with pytest.raises(AttributeError):
        machine.plan().workers = 3


def test_topology(machine):
    machine.cpus((0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1))
    machine.file("proc/cpuinfo", "processor\t: 0\nmodel name\t: Example CPU @ 2 GHz\nflags\t: fpu")
    for node, cpus in enumerate(("0-1,4-5", "2-3,6-7")):
        machine.file(f"sys/devices/system/node/node{node}/cpulist", cpus)
    caches = [(1, "Data", "32K"), (1, "Instruction", "32K"), (2, "Unified", "1M")]
    for index, (level, kind, size) in enumerate(caches):
        folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
        machine.file(f"{folder}/level", level).file(f"{folder}/type", kind).file(f"{folder}/size", size)
    assert threads.topology(root=machine.root) == {
        "cpu": "Example CPU @ 2 GHz",
        "sockets": 2,
        "cores": 4,
        "logical_cpus": 8,
        "numa_nodes": 2,
        "caches": {"L1d": "32K", "L1i": "32K", "L2": "1M"},
        "cache_domains": "2 cache domains of 4 CPUs (NUMA nodes)",
    }


def test_topology_of_an_unknown_machine(machine):
    found = threads.topology(root=machine.root)
    assert found["cpu"] is found["sockets"] is found["cores"] is found["numa_nodes"] is None
    assert found["logical_cpus"] == os.cpu_count() and found["caches"] == {}


# The real machine


def test_here():
    plan = threads.resolve()
    assert 1 <= plan.workers <= os.cpu_count() and not plan.oversubscribed
    assert threads.topology()["logical_cpus"] >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_mask_of_this_process_is_obeyed():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        plan = threads.resolve()
        assert (plan.workers, plan.limit, plan.cpus) == (1, "affinity mask", (min(before),))
    finally:
        os.sched_setaffinity(0, before)
