"""Measures the figures that chaos.perfmodel.model needs, and keeps them in the cache. For chaos.perfmodel.

A file per machine, instruction set and version of chaos, $XDG_CACHE_HOME/chaos/perfmodel/*.json, holds the machine's
figures and those of every network and batch size that were asked for. One measurement in rounds; its parts make no sense
apart.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .. import _core, bench, threads
from .._version import __version__
from ..bench import Distance, Repeat
from ..data.places import cache_folder
from ..errors import CheckpointError
from ..formats.atomic import write_atomically
from ..formats.json_text import parse_json
from ..models import MODELS
from ..network import Network
from ..sync import STRATEGIES
from .kept import UNKNOWN, Checked, Cost, Found, Hop, Host, Known, Measured, Summary, Transfer
from .machine import Machine
from .model import Figures, fit_transfer

COPIED = 1 << 26  # bytes, more than a worker's share of any cache
KINDS = ("within_domain_ns", "across_domains_ns", "across_sockets_ns")
FORMAT = 3

Pair = tuple[int, int]  # CPUs

QUIET = 0.96  # of the multiply-add rate: below, something else had the core, or part of it
HAD = 0.98  # of the time, likewise
SPREAD = 0.05  # between rounds, from where on they are repeated, and reported if that does not help
SAME = 1.3  # ratio of two distances from where on they are different; noise is a tenth, another cache domain a factor of six
ROUNDS, PEAKS, TRIES = 3, 5, 3


class Calibration:
    """What was measured on this machine, and the file it is kept in.

    Parameters
    ----------
    isa : str, optional
        Instruction set; the one in force by default.
    seconds : float
        Scale of all measurements: how long one repeat of a training phase takes.
    repeats : int
        Figures are medians over so many.
    say : callable, optional
        Takes a line about what is going to be measured.
    """

    def __init__(
        self, isa: str | None = None, seconds: float = 0.4, repeats: int = 5, say: Callable[[str], object] | None = None
    ) -> None:
        self.isa, self.seconds, self.repeats = isa or _core.get_isa(), seconds, repeats
        self.say = say or (lambda line: None)
        topology = threads.topology()
        self.cores = max(bench.default_workers())
        self.key: dict[str, Any] = {
            "format": FORMAT,
            "chaos": __version__,
            "isa": self.isa,
            "build": _core.BUILD_INFO,
            "cpu": topology["cpu"],
            "logical_cpus": topology["logical_cpus"],
            "cores": self.cores,
        }
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:16]
        self.path = Path(cache_folder("perfmodel")) / f"{self.isa}-{digest}.json"
        self.forget()

    def forget(self) -> None:
        """Takes nothing for known; the file stays until something is measured."""
        self.found: Found = {"key": self.key, "machine": None, "networks": {}}

    def load(self) -> None:
        """Takes what is in the file, if there is one, except what was spoiled; CheckpointError where it is damaged."""
        try:
            found = parse_json(self.path.read_bytes())
            if found["key"] != self.key:
                raise ValueError("it is of another machine or version")
            if found["machine"]:
                self.host(found["machine"])
            for network in found["networks"].values():
                for entry in network["batches"].values():
                    Figures(**entry["figures"])
                    if not (isinstance(entry["quiet"], bool) and 0 <= entry["spread"] < math.inf):
                        raise ValueError(f"rounds that differ by {entry['spread']}")
                    for row in entry["check"] or []:
                        if (
                            row.keys() != Checked.__required_keys__
                            or not 0 < row["us_per_image"] < math.inf
                            or row["distance"].keys() != Distance.__required_keys__
                            or not _possible(row["distance"])
                        ):
                            raise ValueError(f"a measurement is {row}")
                    if not all(row["quiet"] for row in entry["check"] or []):
                        entry["check"] = None
                for entry in network["transfer"]:
                    if (
                        entry.keys() != Transfer.__required_keys__
                        or not 0 <= entry["line_ns"] < math.inf
                        or not _possible(entry)
                    ):
                        raise ValueError(f"a line is {entry}")
                network["batches"] = {size: entry for size, entry in network["batches"].items() if entry["quiet"]}
                network["transfer"] = [entry for entry in network["transfer"] if entry["quiet"]]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.path}: damaged calibration ({type(error).__name__}: {error}); chaos estimate "
                "--calibrate measures again"
            ) from None
        self.found = found

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self.found, indent=1).encode() + b"\n")

    # ---- the machine ----

    def host(self, measured: Host | None = None, costs: Mapping[str, float] | None = None) -> Machine:
        """The calibrated machine as a Machine; measured first if it has not been. `costs`: of a line, per kind of pair."""
        if measured is None:
            measured = self.found["machine"]
        if measured is None:
            measured = self.measure_machine()
            self.found["machine"] = measured
            self.save()
        return _host(measured, self.key["cpu"], costs or {})

    def measure_machine(self) -> Host:
        """Multiply-add rates and memory bandwidth."""
        self.say(f"measuring this machine, about {self.seconds + 2:.0f} s: multiply-add rate, memory bandwidth")
        gflops = {count: max(bench.peak_gflops(count, self.isa) for _ in range(PEAKS)) for count in {1, self.cores}}
        topology = threads.topology()
        whole, domains = topology["cores"] == self.cores, _cache_domains(self.cores)
        return {
            "cores": self.cores,
            "sockets": (topology["sockets"] or 1) if whole else 1,
            "threads_per_core": max(1, topology["logical_cpus"] // topology["cores"]) if topology["cores"] else 1,
            "numa_domains": (topology["numa_nodes"] or 1) if whole else 1,
            "cache_domains": len(domains),
            "cache_mb": _cache_mb() * len(domains),
            "gflops_one": gflops[1],
            "gflops_all": gflops[self.cores],
            "bandwidth_one": _bandwidth(1, self.seconds / 4),
            "bandwidth_all": _bandwidth(self.cores, self.seconds / 4),
            "date": _now(),
            "load_average": bench.machine()["load_average"],
        }

    def distances(self) -> dict[str, Distance]:
        """{kind of pair: how far its cores are from each other now}, see `bench.distance`."""
        found: dict[str, Distance] = {}
        for kind, pair in self.pairs().items():
            for _ in range(TRIES):
                found[kind] = bench.distance(pair)
                if found[kind]["hop_ns"] is not None:
                    break
        return found

    def pairs(self) -> dict[str, Pair | None]:
        return _pairs(self.cores) if self.cores > 1 else {}

    # ---- networks ----

    def figures(self, model: str | Network, batch_size: int = 1, again: bool = False) -> Figures:
        """Figures of a network; measured first if they have not been, or if `again`."""
        name, _ = _identity(model)
        batches = self.network(model)["batches"]
        self.host()
        if again or str(batch_size) not in batches:
            self.say(f"measuring {name} at batch size {batch_size}, about {4 * ROUNDS * self.seconds * self.repeats:.0f} s")
            parts: list[dict[str, Any]] = []
            rounds: list[Measured] = []
            while len(rounds) < 2 * ROUNDS:
                parts.append(bench.kernels(model, self.isa, batch_size, self.seconds / 24, 1))
                rounds += self.measure([{"model": model, "batch_size": batch_size, "isa": self.isa}], None, tries=1)
                us, spread, quiet = _typical(rounds)
                if len(rounds) >= ROUNDS and quiet and spread < SPREAD:
                    break
            figures = _figures(_together(parts, us), name, model)
            batches[str(batch_size)] = {
                "figures": figures.as_dict(),
                "rounds": len(rounds),
                "spread": spread,
                "quiet": quiet,
                "check": None,
                "date": _now(),
            }
            self.save()
        entry = batches[str(batch_size)]
        return Figures(**{**entry["figures"], "name": name, **({"gflops": self.peak(1)} if entry["quiet"] else {})})

    def network(self, model: str | Network) -> Known:
        """What is known of a network."""
        name, digest = _identity(model)
        return self.found["networks"].setdefault(digest, {"name": name, "batches": {}, "transfer": []})

    def quiet(self, model: str | Network, batch_size: int) -> bool:
        """Whether nothing disturbed what predictions for a network rest on."""
        return self.network(model)["batches"][str(batch_size)]["quiet"] and self.quiet_transfer(model)

    def quiet_transfer(self, model: str | Network) -> bool:
        """The same of the cost of a line."""
        known = self.network(model)["transfer"]
        return {entry["kind"] for entry in known} == {entry["kind"] for entry in known if entry["quiet"]}

    def peak(self, count: int) -> float:
        """The multiply-add rate of so many cores when nothing disturbs them."""
        return self.host().peak_gflops(count)

    def saw(self, count: int, gflops: float) -> None:
        """Corrects a multiply-add rate that was measured while something disturbed it."""
        key: Literal["gflops_one", "gflops_all"] = "gflops_one" if count == 1 else "gflops_all"
        if count in (1, self.cores):
            machine = self.found["machine"]
            assert machine  # measured before any network
            machine[key] = max(machine[key], gflops)

    def transfer(self, model: str | Network) -> None:
        """Measures what a line of the network's weights costs, where cores are at a distance that is new."""
        for kind, pair in self.pairs().items():
            for _ in range(TRIES):  # while it is measured the distance may change, even back
                now = self.distances()[kind]
                nearest = self.nearest(model, kind, now)
                if nearest and alike(nearest, now) or not self.measure_transfer(model, kind, pair):
                    break

    def measure_transfer(self, model: str | Network, kind: str, pair: Pair | None) -> bool:
        """What two workers at batch size 1 lose because weights move between these two cores; whether nothing disturbed."""
        figures = self.figures(model)
        self.say(
            f"measuring transfer of weights between cores, {figures.name}, about {2 * self.seconds * self.repeats + 2:.0f} s"
        )
        cases: list[dict[str, Any]] = [
            {"model": model, "workers": 1, "isa": self.isa, "cpus": pair and pair[:1]},
            {"model": model, "workers": 2, "isa": self.isa, "cpus": pair},
        ]
        one, two = self.measure(cases, pair)
        # One worker as it was in the same turns.
        alone = replace(figures, elsewhere=one["us_per_image"] - figures.forward - figures.backward - figures.publication)
        found: Transfer = {
            "kind": kind,
            **two["distance"],
            "line_ns": fit_transfer([(alone, two["us_per_image"])], self.host()),
            "us_one": one["us_per_image"],
            "us_two": two["us_per_image"],
            "repeats": two["repeats"],
            "quiet": one["quiet"] and two["quiet"],
            "date": _now(),
        }
        known = self.network(model)["transfer"]
        if found["hop_ns"] or not any(entry["kind"] == kind for entry in known):
            known[:] = [entry for entry in known if entry["kind"] != kind or not alike(entry, found)] + [found]
            self.save()
        return found["quiet"]

    def measure(self, cases: Sequence[Mapping[str, Any]], pair: Pair | None, tries: int = TRIES) -> list[Measured]:
        """bench.throughputs of what was not disturbed: for each case the medians, their number, and the cores' distance.

        A repeat counts if the workers had their cores all the time, the multiply-add rate beside it was that of a quiet
        machine and, of two workers, the cores were as far from each other before and after it as in most others.
        """
        counts = [case.get("workers", 1) for case in cases]
        each: list[list[Repeat]] = [[] for _ in cases]
        for _ in range(tries):
            results = bench.throughputs(
                cases, self.seconds, self.repeats, beside=lambda: bench.distance(pair) if self.cores > 1 else UNKNOWN
            )
            kept = []
            for count, turns, found in zip(counts, each, results, strict=True):
                turns += found["each"]
                self.saw(count, max(turn["peak_gflops"] for turn in turns))
                kept.append(_undisturbed(turns, self.peak(count), count > 1))
            enough = [2 * len(turns) > self.repeats for turns in kept]
            if all(enough):
                break
        return [
            {**_summary(turns or all_turns, quiet), "load_average": results[0]["machine"]["load_average"]}
            for turns, all_turns, quiet in zip(kept, each, enough, strict=True)
        ]

    def nearest(self, model: str | Network, kind: str, now: Distance) -> Transfer | None:
        """What is known of the cost of a line for a distance like this, or the most like it; None if nothing is. What was
        measured on a busy machine is worse than what has to be rescaled."""
        known = [entry for entry in self.network(model)["transfer"] if entry["kind"] == kind]
        return min(known, key=lambda entry: (not entry["quiet"], unlike(entry, now)), default=None)

    def costs(self, model: str | Network, distances: Mapping[str, Distance]) -> dict[str, Cost]:
        """What a line of this network's weights costs where cores are so far from each other.

        Returns
        -------
        dict
            For each kind of pair a dict: line_ns; hop_ns and stream_ns, the distance (None: could not be measured);
            hop_ns_then, that of the calibration; rescaled, by which factor the calibrated cost was multiplied, 1.0 where the
            distance is the same.
        """
        found: dict[str, Cost] = {}
        for kind, now in distances.items():
            then = self.nearest(model, kind, now)
            if then:
                factor = 1.0
                if not alike(then, now):
                    assert now["stream_ns"] is not None and then["stream_ns"] is not None  # as hop_ns, or it would be alike
                    factor = now["stream_ns"] / then["stream_ns"]
                found[kind] = {
                    "line_ns": then["line_ns"] * factor,
                    "hop_ns": now["hop_ns"],
                    "stream_ns": now["stream_ns"],
                    "hop_ns_then": then["hop_ns"],
                    "rescaled": factor,
                }
        return found

    def check(self, model: str | Network, batch_size: int = 1, again: bool = False) -> list[Checked]:
        """Throughput with one and two workers, measured apart from the calibration: what predictions are held to.

        Returns
        -------
        list of dict
            workers, us_per_image, us_per_image_min, us_per_image_max, distance of the cores meanwhile, repeats that counted,
            quiet (whether these are enough), load_average, date; workers 1 and, with two cores, 2.
        """
        name, digest = _identity(model)
        self.figures(model, batch_size)
        entry = self.network(model)["batches"][str(batch_size)]
        checked = entry["check"]
        if again or checked is None:
            counts = [1, 2][: self.cores]
            self.say(
                f"checking the prediction for {name} against {' and '.join(map(str, counts))} "
                f"worker{'s' if len(counts) > 1 else ''}, about {len(counts) * self.repeats * self.seconds + 2:.0f} s"
            )
            pair = next(iter(self.pairs().values()), None)
            cases = [
                {
                    "model": model,
                    "workers": count,
                    "batch_size": batch_size,
                    "isa": self.isa,
                    "cpus": pair if count == 2 else None,
                }
                for count in counts
            ]
            measured = zip(counts, self.measure(cases, pair), strict=True)
            checked = entry["check"] = [{"workers": count, **found, "date": _now()} for count, found in measured]
            self.save()
        return checked


# ---- which measurements count ----


def unlike(one: Hop, other: Hop) -> float:
    """By how much the distances of two pairs of cores differ: logarithm of the ratio, 0 where one is not known."""
    return abs(math.log(one["hop_ns"] / other["hop_ns"])) if one["hop_ns"] and other["hop_ns"] else 0.0


def _possible(distance: Mapping[str, Any]) -> bool:
    """Whether a distance that was kept can have been measured: both times, or neither."""
    known = [distance["hop_ns"], distance["stream_ns"]]
    return known == [None, None] or all(0 < ns < math.inf for ns in known)


def alike(one: Hop, other: Hop) -> bool:
    """Whether the distances of two pairs of cores are the same, apart from noise."""
    return unlike(one, other) < math.log(SAME)


def _undisturbed(turns: list[Repeat], peak: float, moves: bool) -> list[Repeat]:
    """The repeats that count, see Calibration.measure; `moves`: whether weights move between cores."""
    turns = [turn for turn in turns if turn["peak_gflops"] > QUIET * peak and turn["had"] > HAD]
    if moves:
        turns = [turn for turn in turns if all(there["hop_ns"] for there in turn["beside"])]
        hops = [there["hop_ns"] for turn in turns for there in turn["beside"]]
        typical: Hop = {"hop_ns": statistics.median_low(hops) if hops else None}
        turns = [turn for turn in turns if all(alike(there, typical) for there in turn["beside"])]
    return turns


def _summary(turns: Sequence[Repeat], quiet: bool) -> Summary:
    """Of repeats: medians, extremes, number, distance."""
    us = [turn["us_per_image"] for turn in turns]
    there = [there for turn in turns for there in turn["beside"] if there["hop_ns"]]
    distance: Distance = {
        "hop_ns": statistics.median_low(found["hop_ns"] for found in there) if there else None,
        "stream_ns": statistics.median_low(found["stream_ns"] for found in there) if there else None,
    }
    return {
        "us_per_image": statistics.median(us),
        "us_per_image_min": min(us),
        "us_per_image_max": max(us),
        "repeats": len(us),
        "quiet": quiet,
        "distance": distance,
    }


def _typical(rounds: Sequence[Measured]) -> tuple[float, float, bool]:
    """Of rounds with one worker: the median time of the fastest ROUNDS, by how much these differ, and whether none of them
    was disturbed; disturbed ones are only taken if there are not enough others."""
    good = [found["us_per_image"] for found in rounds if found["quiet"]]
    quiet = len(good) >= min(ROUNDS, len(rounds))
    us = sorted(good if quiet else [found["us_per_image"] for found in rounds])[:ROUNDS]
    return statistics.median(us), us[-1] / us[0] - 1, quiet


def _together(parts: Sequence[Mapping[str, Any]], us: float) -> dict[str, Any]:
    """What _figures needs, of several results of bench.kernels and the time of a whole image: of a pass the shortest time,
    because what disturbs only adds."""
    totals = {
        key: min(found["totals"][key] for found in parts)
        for key in ("forward", "weight_gradient", "data_gradient", "update")
    }
    return {
        "batch_size": parts[0]["batch_size"],
        "totals": totals,
        "peak_gflops": statistics.median(found["peak_gflops"] for found in parts),
        "training": {"us_per_image_elsewhere": us - sum(totals.values())},
        "evaluation": [
            {
                "images_together": entry["images_together"],
                "us_per_image": min(found["evaluation"][i]["us_per_image"] for found in parts),
            }
            for i, entry in enumerate(parts[0]["evaluation"])
        ],
    }


def _identity(model: str | Network) -> tuple[str, str]:
    """Name and digest of a network; of its architecture only, because its weights do not decide the time."""
    net = MODELS[model](seed=0) if isinstance(model, str) else model
    if not isinstance(net, Network):
        raise TypeError(f"model must be a name or a chaos.Network, not {type(net).__name__}")
    config = json.dumps(net.config(), sort_keys=True)
    return model if isinstance(model, str) else "network", hashlib.sha256(config.encode()).hexdigest()[:16]


def _figures(found: Mapping[str, Any], name: str, model: str | Network) -> Figures:
    """What the model needs of a result of bench.kernels."""
    net = MODELS[model](seed=0) if isinstance(model, str) else model
    totals, size = found["totals"], found["batch_size"]
    engine = _core.Engine(net.plan, net.weights, strategy="chaos", batch_size=size)
    stripe = STRATEGIES["chaos"].resolve({})["stripe_bytes"]
    blocks = [4 * net.plan.block(i)[1] for i in range(1, len(net.nodes()))]
    return Figures(
        name=name,
        batch_size=size,
        forward=totals["forward"],
        publication=totals["update"],
        backward=totals["weight_gradient"] + totals["data_gradient"],
        elsewhere=found["training"]["us_per_image_elsewhere"],
        evaluation=found["evaluation"][-1]["us_per_image"],
        gflops=found["peak_gflops"],
        stripes=tuple(min(stripe, block - at) for block in blocks for at in range(0, block, stripe)),
        worker_bytes=engine.worker_bytes,
        image_bytes=int(np.prod(net.input_shape)),
        together=net.plan.together,
    )


def _host(measured: Host, cpu: str | None, costs: Mapping[str, float]) -> Machine:
    """A Machine out of what was measured."""
    count = measured["threads_per_core"]
    every = {kind: costs.get(kind, max(costs.values(), default=None)) for kind in KINDS}
    return Machine(
        name=f"this machine ({cpu or 'unknown processor'}, {measured['cores']} cores)",
        sockets=measured["sockets"],
        cores=measured["cores"],
        threads_per_core=count,
        clock_ghz=None,
        flop_per_cycle=None,
        threads_throughput=(1.0,) * count,
        bandwidth_gb_s=measured["bandwidth_all"],
        core_bandwidth_gb_s=measured["bandwidth_one"],
        numa_domains=measured["numa_domains"],
        cache_mb=measured["cache_mb"],
        cache_domains=measured["cache_domains"],
        within_domain_ns=every["within_domain_ns"],
        across_domains_ns=every["across_domains_ns"],
        across_sockets_ns=every["across_sockets_ns"],
        gflops_one=measured["gflops_one"],
        gflops_all=measured["gflops_all"],
        sources={
            "gflops": "measured",
            "bandwidth_gb_s": "measured",
            **dict.fromkeys(costs, "measured"),
            "threads_throughput": "assumed: the kernels fill the multiply-add units with one thread",
        },
    )


def _bandwidth(count: int, seconds: float) -> float:
    """Gigabytes per second, read and written together, of so many threads that copy at the same time."""

    def copy(_: int) -> float:
        a, b = np.ones(COPIED // 8), np.zeros(COPIED // 8)
        np.copyto(b, a)
        rounds, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds or not rounds:
            np.copyto(b, a)
            rounds += 1
        return 2 * a.nbytes * rounds / max(took, 1e-9) / 1e9

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(copy, range(count)))


def _cache_domains(cores: int, root: str | os.PathLike[str] = "/", mask: set[int] | None = None) -> list[list[int]]:
    """A CPU of each of so many cores, grouped by the last-level cache that they share; one group where unknown."""
    order = threads.placement("compact", root=root, mask=mask)[:cores]
    groups = ([cpu for cpu in order if cpu in cpus] for cpus in threads.cache_domains(root=root, mask=mask).cpus)
    return [group for group in groups if group]


def _cache_mb(root: str | os.PathLike[str] = "/") -> float:
    """Size of one last-level cache in MB; 0 where unknown."""
    caches = threads.topology(root=root)["caches"]
    if not caches:
        return 0.0
    size = caches[max(caches)]
    return int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[size[-1]] / 1e6


def _pairs(cores: int, root: str | os.PathLike[str] = "/", mask: set[int] | None = None) -> dict[str, Pair | None]:
    """{kind of pair: two CPUs of it, None where workers cannot be pinned}, for the kinds that so many cores have."""
    if not sys.platform.startswith("linux"):
        return {"within_domain_ns": None}
    order = threads.placement("compact", root=root, mask=mask)[:cores]  # one hardware thread of each core
    domain = {cpu: number for number, group in enumerate(_cache_domains(cores, root, mask)) for cpu in group}
    found: dict[str, Pair | None] = {}
    for cpu in order[1:]:
        kind = "within_domain_ns" if domain[cpu] == domain[order[0]] else "across_domains_ns"
        if kind == "across_domains_ns" and _socket(cpu, root) != _socket(order[0], root):
            kind = "across_sockets_ns"
        found.setdefault(kind, (order[0], cpu))
    return found


def _socket(cpu: int, root: str | os.PathLike[str]) -> str | None:
    try:
        return (Path(root) / f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id").read_text()
    except OSError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
