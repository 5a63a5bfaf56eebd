"""Machines that predictions are made for, described in a small TOML. Standard library only; for chaos.perfmodel.

Every figure of a description names its source, so that a prediction can say what it rests on. The descriptions in the
folder machines/ come with the package.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..options import unknown

FOLDER = Path(__file__).resolve().parent / "machines"
MOST = 1 << 20  # cores, sockets, domains

# table: {figure: what it must be}; "?" marks a figure that may be left out
_FIGURES = {
    "cores": {
        "sockets": "count",
        "cores": "count",
        "threads_per_core": "count",
        "clock_ghz": "positive",
        "flop_per_cycle": "positive",
        "threads_throughput": "shares",
    },
    "memory": {
        "bandwidth_gb_s": "positive",
        "core_bandwidth_gb_s": "positive?",
        "numa_domains": "count",
        "cache_mb": "positive",
        "cache_domains": "count",
    },
    "transfer": {"within_domain_ns": "cost?", "across_domains_ns": "cost?", "across_sockets_ns": "cost?"},
}
_NEEDED = {
    "count": f"a whole number from 1 to {MOST}",
    "positive": "a number above 0",
    "cost": "a number of at least 0",
    "shares": "a list of threads_per_core numbers above 0 and at most 1, none below the one before",
}


@dataclass(frozen=True)
class Machine:
    """A machine as the model sees it.

    Attributes
    ----------
    name : str
    sockets, cores, threads_per_core : int
        `cores` of all sockets together.
    clock_ghz : float
        With all cores busy.
    flop_per_cycle : float
        Single-precision operations that one core can do per cycle; a multiply-add counts as two.
    threads_throughput : tuple of float
        Share of that rate which a core reaches with 1, 2, ... busy hardware threads.
    bandwidth_gb_s : float
        Of all memory together.
    core_bandwidth_gb_s : float or None
        Most that one core can take of it; None: all.
    numa_domains, cache_domains : int
        Parts of the machine with a memory, and with a last-level cache, of their own.
    cache_mb : float
        Last-level cache of all domains together.
    within_domain_ns, across_domains_ns, across_sockets_ns : float or None
        What a cache line of weights costs an image of two workers at batch size 1, because the other one has written it;
        by where the two cores are. None where there is no such pair of cores.
    sources : dict
        Where each figure comes from.
    gflops_one, gflops_all : float or None
        Measured multiply-add rates of one core while the others rest, and of all together; None: from clock and cycle.
    """

    name: str
    sockets: int
    cores: int
    threads_per_core: int
    clock_ghz: float | None
    flop_per_cycle: float | None
    threads_throughput: tuple[float, ...]
    bandwidth_gb_s: float
    core_bandwidth_gb_s: float | None
    numa_domains: int
    cache_mb: float
    cache_domains: int
    within_domain_ns: float | None
    across_domains_ns: float | None
    across_sockets_ns: float | None
    sources: dict[str, str] = field(default_factory=dict)
    gflops_one: float | None = None
    gflops_all: float | None = None

    @property
    def threads(self) -> int:
        """Hardware threads."""
        return self.cores * self.threads_per_core

    def peak_gflops(self, workers: int) -> float:
        """Multiply-add rate that so many workers, spread over the cores, can reach together, in GFLOP/s.

        Parameters
        ----------
        workers : int
            More than there are hardware threads share what these give.
        """
        workers = min(workers, self.threads)
        if self.gflops_all is None:
            assert self.clock_ghz is not None and self.flop_per_cycle is not None  # a description has both
            most = self.clock_ghz * self.flop_per_cycle
        else:
            most = self.gflops_all / self.cores
        busy = min(workers, self.cores)
        if self.gflops_one is not None and self.cores > 1:
            most = self.gflops_one + (most - self.gflops_one) * (busy - 1) / (self.cores - 1)
        deep, more = divmod(workers, self.cores)  # `more` cores run one thread more than the others
        shares = (0.0, *self.threads_throughput)
        return most * ((self.cores - more) * shares[deep] + (more * shares[deep + 1] if more else 0))

    def bandwidth(self, workers: int) -> float:
        """Memory bandwidth in GB/s of so many workers, which fill one domain after the other."""
        busy = min(workers, self.cores)
        part = min(self.numa_domains, -(-busy * self.numa_domains // self.cores)) / self.numa_domains
        return min(self.bandwidth_gb_s * part, busy * (self.core_bandwidth_gb_s or math.inf))

    def transfer_ns(self, workers: int) -> float:
        """Mean cost of a line of weights that another of the workers has written, who fill one domain after the other.

        Returns
        -------
        float
            Nanoseconds, as in the attributes; 0 for one worker.
        """
        busy = min(workers, self.cores)
        if busy < 2:
            return 0.0
        domain, socket = self._fill(busy, self.cache_domains), self._fill(busy, self.sockets)
        pairs = busy * (busy - 1)
        within = sum(n * (n - 1) for n in domain)
        near = max(within, sum(n * (n - 1) for n in socket))
        parts = (
            (within, self.within_domain_ns),
            (near - within, self.across_domains_ns),
            (pairs - near, self.across_sockets_ns),
        )
        total = 0.0
        for count, cost in parts:
            if count:
                assert cost is not None  # known for each kind of pair that there is
                total += count * cost
        return total / pairs

    def _fill(self, busy: int, parts: int) -> list[int]:
        """How many of the busy cores are in each of so many equal parts, filled one after the other."""
        size = -(-self.cores // parts)
        return [min(size, busy - at) for at in range(0, busy, size)]


def shipped() -> list[str]:
    """Names of the machines that come with chaos."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_machine(name: str | os.PathLike[str]) -> Machine:
    """A machine that comes with chaos, or one from a file.

    Parameters
    ----------
    name : str or path
        A name of `shipped()`, or a path that ends in .toml.

    Returns
    -------
    Machine

    Raises
    ------
    ValueError
        Unknown name, or the description is no TOML or lacks, repeats or misnames something; the message names the file,
        the figure and what would be right.
    OSError
        The file cannot be read.
    """
    path = Path(name)
    if path.suffix.lower() != ".toml":
        if str(name) not in shipped():
            known = ("host", *shipped())
            raise ValueError(unknown("unknown machine", str(name), known, ", and paths of .toml files"))
        path = FOLDER / f"{name}.toml"
    try:
        return _read(tomllib.loads(path.read_bytes().decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no TOML: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(found: Mapping[str, Any]) -> Machine:
    if not isinstance(found.get("name"), str) or not found["name"].strip():
        raise ValueError(f"name must be the machine's name, not {found.get('name')!r}")
    unknown = found.keys() - {"name", "sources", *_FIGURES}
    if unknown:
        raise ValueError(f"unknown entry {min(unknown)!r}; known: name, {', '.join(_FIGURES)}, sources")
    values: dict[str, Any] = {}
    for table, figures in _FIGURES.items():
        given = found.get(table, {})
        if not isinstance(given, dict):
            raise ValueError(f"[{table}] must be a table, not {given!r}")
        if unknown := given.keys() - figures.keys():
            raise ValueError(f"unknown figure {table}.{min(unknown)}; known: {', '.join(figures)}")
        for key, kind in figures.items():
            if key not in given and not kind.endswith("?"):
                raise ValueError(f"{table}.{key} is missing; it must be {_NEEDED[kind]}")
            values[key] = None if key not in given else _value(f"{table}.{key}", given[key], kind.rstrip("?"))
    _check(values)
    sources = found.get("sources", {})
    if not isinstance(sources, dict):
        raise ValueError(f"[sources] must be a table of texts, not {sources!r}")
    for key, value in values.items():
        if value is not None and not (isinstance(sources.get(key), str) and sources[key].strip()):
            raise ValueError(
                f'sources.{key} is missing; it must say where the figure comes from, such as "data sheet" or "assumed"'
            )
    if unknown := sources.keys() - {key for key, value in values.items() if value is not None}:
        raise ValueError(f"sources.{min(unknown)}: there is no such figure")
    return Machine(name=found["name"].strip(), sources=dict(sources), **values)


def _check(values: Mapping[str, Any]) -> None:
    """Refuses figures that contradict each other."""
    for part in ("sockets", "numa_domains", "cache_domains"):
        if values["cores"] % values[part]:
            raise ValueError(f"{values['cores']} cores cannot be divided into {values[part]} {part} of the same size")
    if values["cache_domains"] % values["sockets"]:
        raise ValueError(f"{values['cache_domains']} cache_domains cannot be divided among {values['sockets']} sockets")
    if len(values["threads_throughput"]) != values["threads_per_core"]:
        raise ValueError(
            f"cores.threads_throughput must hold {values['threads_per_core']} numbers, one for each possible "
            f"number of threads on a core, not {len(values['threads_throughput'])}"
        )
    needs = {
        "within_domain_ns": values["cores"] > values["cache_domains"],
        "across_domains_ns": values["cache_domains"] > values["sockets"],
        "across_sockets_ns": values["sockets"] > 1,
    }
    for key, needed in needs.items():
        if needed and values[key] is None:
            raise ValueError(f"transfer.{key} is missing; it must be {_NEEDED['cost']}")
        if not needed and values[key] is not None:
            raise ValueError(f"transfer.{key}: this machine has no such pair of cores, leave it out")


def _value(name: str, value: Any, kind: str) -> Any:
    if kind == "shares":
        good = isinstance(value, list) and value and all(_number(x) and 0 < x <= 1 for x in value) and value == sorted(value)
        value = tuple(map(float, value)) if good else value
    elif kind == "count":
        good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST
    else:
        good = _number(value) and (value > 0 or (kind == "cost" and value == 0))
        value = float(value) if good else value
    if not good:
        raise ValueError(f"{name} must be {_NEEDED[kind]}, not {value!r}")
    return value


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
