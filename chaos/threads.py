"""How many workers and where: argument > environment > what the machine really gives this process.

Standard library only, starts no threads, reads /proc and /sys. For chaos.training, the CLI and `chaos.info()`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import operator
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import affinity

__all__ = ["MAX_WORKERS", "PINNINGS", "Domains", "Plan", "cache_domains", "grouped", "placement", "resolve", "topology"]

MAX_WORKERS = 4096
PINNINGS = ("none", "compact", "scatter")
_VARIABLES = ("CHAOS_NUM_THREADS", "OMP_NUM_THREADS")
T = TypeVar("T")
_MEASURED = ("affinity mask", "cgroup quota", "physical cores")


@dataclass(frozen=True)
class Plan:
    """The resolved number of workers, and why it is this number.

    Attributes
    ----------
    workers : int
    limit : str
        The limit that decided: 'argument', the name of an environment variable, 'affinity mask',
        'cgroup quota' or 'physical cores'.
    limits : dict of str to int
        Every limit that was found. A missing 'cgroup quota' means that there is none.
    oversubscribed : bool
        More workers than the machine gives; only an explicit number can do that.
    cpus : tuple of int
        A CPU for each worker, in the order of `placement` for `pin` ('none': that of 'compact').
    pin : str
        'none', 'compact' or 'scatter': whether and how the workers are to be pinned to `cpus`.
    groups : str
        How workers are grouped by caches, in words; '' where nothing has asked for it.
    """

    workers: int
    limit: str
    limits: dict[str, int]
    oversubscribed: bool
    cpus: tuple[int, ...]
    pin: str = "none"
    groups: str = ""

    def describe(self) -> str:
        """One line for the log, such as '2 workers (limit: affinity mask 2; cgroup quota none; ...; pin none)'."""
        others = [f"{name} {self.limits.get(name, 'none')}" for name in _MEASURED if name != self.limit]
        parts = [f"limit: {self.limit} {self.limits[self.limit]}", *others]
        if self.oversubscribed:
            parts.append("OVERSUBSCRIBED")
        parts.append(f"pin {self.pin}" + (f" to CPUs {ranges(self.cpus)}" if self.pin != "none" else ""))
        parts += [self.groups] if self.groups else []
        return f"{self.workers} worker{'s' if self.workers != 1 else ''} ({'; '.join(parts)})"


@dataclass(frozen=True)
class Domains:
    """CPUs by the last-level cache that they share.

    Attributes
    ----------
    cpus : tuple of tuple of int
        Of each domain, ascending; domains in the order of their first CPU.
    source : str
        What tells: 'L3' (or a higher level), 'NUMA nodes', 'measured', or 'nothing tells' where all are taken for one.
    """

    cpus: tuple[tuple[int, ...], ...]
    source: str

    def describe(self) -> str:
        """In words, such as '24 cache domains of 8 CPUs (L3)'."""
        sizes = [len(domain) for domain in self.cpus]
        size = f"{sizes[0]}" if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"
        return (
            f"{len(sizes)} cache domain{'s' if len(sizes) != 1 else ''} of {size} CPU{'s' if size != '1' else ''} "
            f"({self.source})"
        )


def resolve(
    requested: int | None = None, *, pin: str = "none", root: str | os.PathLike[str] = "/", mask: set[int] | None = None
) -> Plan:
    """Decide the number of workers, and on which CPUs they run if they are pinned.

    Parameters
    ----------
    requested : int, optional
        An explicit number. It may exceed the cores: it is flagged then, never reduced. So may CHAOS_NUM_THREADS, but not
        OMP_NUM_THREADS.
    pin : str
        One of `PINNINGS`.
    root : path
        Where proc/ and sys/ are found; tests give a fake tree.
    mask : set of int, optional
        The CPUs this process may use; by default asked from the operating system (`chaos.affinity`).

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If the argument, or the environment variable that would decide, is not a number in 1..4096; if `pin` is
        unknown, or not possible on this system.
    """
    root = Path(root)
    if pin not in PINNINGS:
        raise ValueError(f"unknown pin {pin!r}; known: {', '.join(PINNINGS)}")
    if pin != "none" and not sys.platform.startswith("linux"):
        raise ValueError(f"pin={pin!r}: workers can be pinned to CPUs on Linux only")
    mask = affinity.cpus() if mask is None else set(mask)
    cores = _cores(root, mask)
    found = {"affinity mask": len(mask), "cgroup quota": _cgroup_quota(root), "physical cores": len(cores)}
    measured = {name: n for name, n in found.items() if n is not None}
    available = min(measured.values())

    limits: dict[str, int] = {}
    limit = min(measured, key=lambda name: measured[name])
    # An empty variable counts as not set.
    wishes: dict[str, object] = {"argument": requested}
    wishes |= {name: os.environ.get(name, "").strip() or None for name in _VARIABLES}
    for name, value in wishes.items():
        if value is not None:
            limits[name] = _number(name, value)
            # OMP_NUM_THREADS is meant for all programs, and set by shells and schedulers: it can only lower the number
            if name != "OMP_NUM_THREADS" or limits[name] <= available:
                limit = name
            break
    limits.update(measured)
    workers = limits[limit]

    order = placement("compact" if pin == "none" else pin, root=root, mask=mask)
    cpus = tuple(order[i % len(order)] for i in range(workers))
    return Plan(workers, limit, limits, workers > available, cpus, pin)


def placement(
    pin: str, *, root: str | os.PathLike[str] = "/", mask: set[int] | None = None, domains: Domains | None = None
) -> tuple[int, ...]:
    """The CPUs of the mask in the order in which workers get them; further workers start again at the first.

    Both orders take one hardware thread of every physical core before the second of any.

    Parameters
    ----------
    pin : str
        'compact' fills the cores of one cache domain before those of the next, and of one NUMA node before the next, so
        that few workers share a cache and a memory; 'scatter' goes round the sockets, round the nodes within each and the
        caches within those, so that few workers have much cache and memory bandwidth. Where the system tells of no nodes
        a socket is one.
    root, mask
        As for `resolve`.
    domains : Domains, optional
        Other cache domains than the system tells of.

    Returns
    -------
    tuple of int
    """
    root = Path(root)
    mask = affinity.cpus() if mask is None else set(mask)
    nodes = _numa_nodes(root)
    domains = domains or cache_domains(root=root, mask=mask)
    cache = {cpu: number for number, cpus in enumerate(domains.cpus) for cpu in cpus}
    sockets: dict[int, dict[int, dict[int, list[list[int]]]]] = {}
    for core in _cores(root, mask):
        socket, *_ = _core_id(root, core[0]) or (0,)
        node = sockets.setdefault(socket, {}).setdefault(nodes.get(core[0], -1), {})
        node.setdefault(cache.get(core[0], -1), []).append(core)
    in_order = [
        [[caches[number] for number in sorted(caches)] for _, caches in sorted(found.items())]
        for _, found in sorted(sockets.items())
    ]
    if pin == "scatter":
        cores = _deal(_deal(_deal(caches) for caches in found) for found in in_order)
    else:
        cores = [core for found in in_order for caches in found for domain in caches for core in domain]
    return tuple(core[i] for i in range(max(map(len, cores))) for core in cores if i < len(core))


def cache_domains(*, root: str | os.PathLike[str] = "/", mask: set[int] | None = None) -> Domains:
    """The CPUs of the mask by the last-level cache that they share, as the system tells; a virtual machine may tell of one
    cache where there are several (`chaos.distance.measured_domains` finds out).

    A cache of the third level or above counts, else a NUMA node is one; where none of them is known all CPUs are.
    """
    root = Path(root)
    mask = affinity.cpus() if mask is None else set(mask)
    shared: dict[int, tuple[int, tuple[int, ...]]] = {}  # of a CPU: level, CPUs
    for cpu in mask:
        for index in root.glob(f"sys/devices/system/cpu/cpu{cpu}/cache/index[0-9]*"):
            level, cpus = _read(index / "level") or "", affinity.parse(_read(index / "shared_cpu_list") or "")
            if level.isdigit() and cpu in cpus:
                shared[cpu] = max(shared.get(cpu, (0, ())), (int(level), tuple(sorted(set(cpus) & mask))))
    levels = {shared[cpu][0] if cpu in shared else 0 for cpu in mask}
    if len(levels) == 1 and min(levels) >= 3:
        return Domains(tuple(sorted({cpus for _, cpus in shared.values()})), f"L{min(levels)}")
    nodes = _numa_nodes(root)
    if mask <= nodes.keys():
        found: dict[tuple[int, int], list[int]] = {}
        for cpu in sorted(mask):
            socket, *_ = _core_id(root, cpu) or (0,)
            found.setdefault((socket, nodes[cpu]), []).append(cpu)
        return Domains(tuple(sorted(map(tuple, found.values()))), "NUMA nodes")
    return Domains((tuple(sorted(mask)),), "nothing tells")


def grouped(
    plan: Plan, domains: Domains, *, root: str | os.PathLike[str] = "/", mask: set[int] | None = None
) -> tuple[Plan, int]:
    """Workers 0..g-1, g..2g-1, ... each within a cache domain: the plan, and the largest such g.

    With several domains the workers are pinned compactly unless they are pinned already: elsewhere a group would not stay
    in its cache. `pin` 'scatter' leaves groups of one.

    Parameters
    ----------
    plan : Plan
    domains : Domains
    root, mask
        As for `resolve`.
    """
    size = plan.workers
    if len(domains.cpus) > 1 and sys.platform.startswith("linux"):
        if plan.pin != "scatter":
            order = placement("compact", root=root, mask=mask, domains=domains)
            cpus = tuple(order[i % len(order)] for i in range(plan.workers))
            plan = dataclasses.replace(plan, pin="compact", cpus=cpus)
        cache = {cpu: number for number, cpus in enumerate(domains.cpus) for cpu in cpus}
        size = group_size(cache[cpu] for cpu in plan.cpus)
    groups = -(-plan.workers // size)
    words = f"{groups} group{'s' if groups != 1 else ''} of {size} in {domains.describe()}"
    return dataclasses.replace(plan, groups=words), size


def group_size(places: Iterable[int]) -> int:
    """The largest g such that the g first, the g next, ... of these are equal, each time.

    Example
    -------
    >>> group_size([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    4
    """
    runs = [len(list(run)) for _, run in itertools.groupby(places)]
    return math.gcd(*runs[:-1]) or runs[0]


def _deal(stacks: Iterable[Iterable[T]]) -> list[T]:
    """One from each stack in turn, until all are empty."""
    rounds = itertools.zip_longest(*stacks)
    return [item for one_each in rounds for item in one_each if item is not None]


def ranges(cpus: Iterable[int]) -> str:
    """CPU numbers in their order, runs of neighbours shortened: '0-3,8,6'."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1][1:] = [cpu]
        else:
            runs.append([cpu])
    return ",".join("-".join(map(str, run)) for run in runs)


def topology(*, root: str | os.PathLike[str] = "/") -> dict[str, Any]:
    """What the machine is, for `chaos info`: the whole machine, not only the part this process may use.

    Returns
    -------
    dict
        'cpu' (model name), 'sockets', 'cores' (physical), 'logical_cpus', 'numa_nodes' and 'caches', a dict
        such as {'L1d': '32K', 'L2': '1024K'} with the size of one instance. What cannot be found out is
        None, or left out of 'caches'. 'cache_domains': in words, which CPUs share a last-level cache.
    """
    root = Path(root)
    cpus = {int(p.name[3:]) for p in root.glob("sys/devices/system/cpu/cpu[0-9]*") if p.name[3:].isdigit()}
    ids = [_core_id(root, cpu) for cpu in sorted(cpus)]
    known = [one for one in ids if one is not None]
    all_known = bool(ids) and len(known) == len(ids)
    cpuinfo = _read(root / "proc/cpuinfo") or ""
    model = re.search(r"^(?:model name|cpu model|Processor)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)

    caches = {}
    for index in sorted(root.glob("sys/devices/system/cpu/cpu0/cache/index[0-9]*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if level and size:
            caches["L" + level + {"Data": "d", "Instruction": "i"}.get(kind or "", "")] = size
    return {
        "cpu": model[1].strip() if model else None,
        "sockets": len({package for package, *_ in known}) if all_known else None,
        "cores": len(set(known)) if all_known else None,
        "logical_cpus": len(cpus) or os.cpu_count(),
        "numa_nodes": len(list(root.glob("sys/devices/system/node/node[0-9]*"))) or None,
        "caches": caches,
        "cache_domains": cache_domains(root=root, mask=cpus).describe() if cpus else None,
    }


def _number(name: str, value: Any) -> int:
    """`value` as a number of workers, or a ValueError that names where it came from."""
    n = None
    if isinstance(value, str) and name in _VARIABLES:
        # OMP_NUM_THREADS may hold one number per level of nesting, "4,2"; the first is ours.
        first = value.split(",")[0].strip() if name == "OMP_NUM_THREADS" else value
        n = int(first) if re.fullmatch("[0-9]{1,9}", first) else None
    elif not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            n = operator.index(value)
    if n is None or not 1 <= n <= MAX_WORKERS:
        name = "workers" if name == "argument" else name
        raise ValueError(f"{name}={value!r}: must be a whole number of workers from 1 to {MAX_WORKERS}")
    return n


def _read(path: Path) -> str | None:
    """The stripped text of a file, None when it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _core_id(root: Path, cpu: int) -> tuple[int, ...] | None:
    """(package, die, core) of a logical CPU; SMT siblings have it in common. None when unknown."""
    # die_id is missing on old kernels; where it exists, core_id may be unique only within the die.
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    package, core = _read(folder / "physical_package_id"), _read(folder / "core_id")
    if package is None or core is None:
        return None
    try:
        return int(package), int(_read(folder / "die_id") or "0"), int(core)
    except ValueError:
        return None


def _cores(root: Path, mask: set[int]) -> list[list[int]]:
    """The CPUs of the mask grouped by physical core; one group per CPU when the topology is unknown."""
    cores: dict[tuple[int, ...], list[int]] = {}
    for cpu in sorted(mask):
        core = _core_id(root, cpu)
        if core is None:
            return [[cpu] for cpu in sorted(mask)]
        cores.setdefault(core, []).append(cpu)
    return list(cores.values())


def _numa_nodes(root: Path) -> dict[int, int]:
    """{CPU: NUMA node} of the whole machine, empty when the system does not tell."""
    found = {}
    for folder in root.glob("sys/devices/system/node/node[0-9]*"):
        # empty for a node that is memory only
        found.update(dict.fromkeys(affinity.parse(_read(folder / "cpulist") or ""), int(folder.name[4:])))
    return found


def _cgroup_quota(root: Path) -> int | None:
    """Whole CPUs that the cgroups of this process grant (at least 1), None without a quota.

    A quota of any enclosing group counts, so the walk goes from the own group up to the mount point.
    Inside a container the own path may be one of the host and not exist here: the walk passes over it.
    """
    smallest = None
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        hierarchy, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if hierarchy == "0" and not controllers:
            mounts: tuple[str, ...] = ("", "unified")
            quota_of = _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, quota_of = (controllers, "cpu", "cpu,cpuacct"), _quota_v1
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for mount in mounts:
            for depth in range(len(parts), -1, -1):
                quota = quota_of(root.joinpath("sys/fs/cgroup", mount, *parts[:depth]))
                if quota is not None and (smallest is None or quota < smallest):
                    smallest = quota
    return None if smallest is None else max(1, int(smallest))


def _quota_v2(group: Path) -> float | None:
    return _ratio(*((_read(group / "cpu.max") or "").split() + [""] * 2)[:2])


def _quota_v1(group: Path) -> float | None:
    return _ratio(_read(group / "cpu.cfs_quota_us") or "", _read(group / "cpu.cfs_period_us") or "")


def _ratio(quota: str, period: str) -> float | None:
    """CPUs from quota and period in microseconds; 'max', -1 and unreadable values mean no quota."""
    if not (quota.isdigit() and period.isdigit()) or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)
