"""Measures the figures that chaos.perfmodel.model needs, and keeps them in the cache. For chaos.perfmodel.

A file per machine, instruction set and version of chaos, $XDG_CACHE_HOME/chaos/perfmodel/*.json, holds the machine's
figures and those of every network and batch size that were asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .. import _core, bench, threads
from .._version import __version__
from ..data.mnist import cache_folder
from ..errors import CheckpointError
from ..formats.atomic import write_atomically
from ..models import MODELS
from ..network import Network
from ..sync import STRATEGIES
from .machine import Machine
from .model import Figures, fit_transfer

COPIED = 1 << 26  # bytes, more than a worker's share of any cache
KINDS = ("within_domain_ns", "across_domains_ns", "across_sockets_ns")
CHECK = {"workers", "us_per_image", "us_per_image_min", "us_per_image_max", "load_average", "date"}
FORMAT = 1


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

    def __init__(self, isa=None, seconds=0.4, repeats=5, say=None):
        self.isa, self.seconds, self.repeats = isa or _core.get_isa(), seconds, repeats
        self.say = say or (lambda line: None)
        topology = threads.topology()
        self.cores = max(bench.default_workers())
        self.key = {"format": FORMAT, "chaos": __version__, "isa": self.isa, "build": _core.BUILD_INFO,
                    "cpu": topology["cpu"], "logical_cpus": topology["logical_cpus"], "cores": self.cores}
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:16]
        self.path = Path(cache_folder()).parent / "perfmodel" / f"{self.isa}-{digest}.json"
        self.forget()

    def forget(self):
        """Takes nothing for known; the file stays until something is measured."""
        self.found = {"key": self.key, "machine": None, "networks": {}}

    def load(self):
        """Takes what is in the file, if there is one; CheckpointError where it is damaged."""
        try:
            found = json.loads(self.path.read_bytes())
            if found["key"] != self.key:
                raise ValueError("it is of another machine or version")
            if found["machine"]:
                self.host(found["machine"])
            for network in found["networks"].values():
                for entry in network["batches"].values():
                    Figures(**entry["figures"])
                    for row in entry["check"] or []:
                        if row.keys() != CHECK or not 0 < row["us_per_image"] < math.inf:
                            raise ValueError(f"a measurement is {row}")
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path}: damaged calibration ({type(error).__name__}: {error}); chaos estimate "
                                  "--calibrate measures again") from None
        self.found = found

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(self.found, indent=1).encode() + b"\n")

    # ---- the machine ----

    def host(self, measured=None):
        """The calibrated machine as a Machine; measured first if it has not been."""
        if measured is None:
            measured = self.found["machine"]
        if measured is None:
            measured = self.measure_machine()
            self.found["machine"] = measured
            self.save()
        return _host(measured, self.key["cpu"])

    def measure_machine(self):
        """Multiply-add rates, memory bandwidth, and the cost of a line of weights between cores."""
        pairs = _pairs(self.cores) if self.cores > 1 else {}
        turns = len(MODELS) * (1 + len(pairs)) if pairs else 0
        self.say(f"measuring this machine, about {self.seconds * (1 + turns * self.repeats) + 2:.0f} s: multiply-add rate, "
                 "memory bandwidth" + (", transfer of weights between cores" if pairs else ""))
        gflops = {count: max(bench.peak_gflops(count, self.isa) for _ in range(3)) for count in {1, self.cores}}
        topology = threads.topology()
        whole, domains = topology["cores"] == self.cores, _cache_domains(self.cores)
        measured = {
            "cores": self.cores, "sockets": (topology["sockets"] or 1) if whole else 1,
            "threads_per_core": max(1, topology["logical_cpus"] // topology["cores"]) if topology["cores"] else 1,
            "numa_domains": (topology["numa_nodes"] or 1) if whole else 1, "cache_domains": len(domains),
            "cache_mb": _cache_mb() * len(domains),
            "gflops_one": gflops[1], "gflops_all": gflops[self.cores],
            "bandwidth_one": _bandwidth(1, self.seconds / 4), "bandwidth_all": _bandwidth(self.cores, self.seconds / 4),
            "transfer_ns": {}, "pairs": [], "date": _now(), "load_average": bench.machine()["load_average"]}
        if pairs:
            self.measure_transfer(measured, pairs)
        return measured

    def measure_transfer(self, measured, pairs):
        """What two workers at batch size 1 lose on each net of the paper, for each kind of pair of cores."""
        figures = {name: self.figures(name, 1) for name in MODELS}
        cases = [{"model": name, "workers": count, "isa": self.isa, "cpus": cpus}
                 for name in MODELS for count, cpus in [(1, None), *((2, pair) for pair in pairs.values())]]
        results = iter(bench.throughputs(cases, self.seconds, self.repeats))
        found = {kind: [] for kind in pairs}
        for name in MODELS:
            alone = next(results)["us_per_image"]
            # One worker as it was in the same turns.
            figure = replace(figures[name], elsewhere=alone - figures[name].forward - figures[name].backward
                             - figures[name].publication)
            for kind in pairs:
                two = next(results)["us_per_image"]
                found[kind].append((figure, two))
                measured["pairs"].append({"kind": kind, "model": name, "us_one": alone, "us_two": two})
        for kind, cases in found.items():
            measured["transfer_ns"][kind] = fit_transfer(cases, _host(measured, self.key["cpu"]))

    # ---- networks ----

    def figures(self, model, batch_size=1, again=False):
        """Figures of a network; measured first if they have not been, or if `again`."""
        name, digest = _identity(model)
        batches = self.found["networks"].setdefault(digest, {"name": name, "batches": {}})["batches"]
        if again or str(batch_size) not in batches:
            self.say(f"measuring {name} at batch size {batch_size}, about {4 * self.seconds * self.repeats:.0f} s")
            found = bench.kernels(model, self.isa, batch_size, self.seconds / 12, self.repeats)
            batches[str(batch_size)] = {"figures": _figures(found, name, model).as_dict(), "check": None, "date": _now()}
            self.save()
        return Figures(**{**batches[str(batch_size)]["figures"], "name": name})

    def check(self, model, batch_size=1, again=False):
        """Throughput with one and two workers, measured apart from the calibration: what predictions are held to.

        Returns
        -------
        list of dict
            workers, us_per_image, us_per_image_min, us_per_image_max, load_average, date; workers 1 and, with two cores, 2.
        """
        name, digest = _identity(model)
        self.figures(model, batch_size)
        entry = self.found["networks"][digest]["batches"][str(batch_size)]
        if again or entry["check"] is None:
            counts = [1, 2][:self.cores]
            self.say(f"checking the prediction for {name} against {' and '.join(map(str, counts))} "
                     f"worker{'s' if len(counts) > 1 else ''}, about {len(counts) * self.repeats * self.seconds + 2:.0f} s")
            pair = next(iter(_pairs(self.cores).values())) if self.cores > 1 else None
            cases = [{"model": model, "workers": count, "batch_size": batch_size, "isa": self.isa,
                      "cpus": pair if count == 2 else None} for count in counts]
            entry["check"] = [{"load_average": found["machine"]["load_average"], "date": _now()}
                              | {key: found[key] for key in CHECK & found.keys()}
                              for found in bench.throughputs(cases, self.seconds, self.repeats)]
            self.save()
        return entry["check"]


def _identity(model):
    """Name and digest of a network; of its architecture only, because its weights do not decide the time."""
    net = MODELS[model](seed=0) if isinstance(model, str) else model
    if not isinstance(net, Network):
        raise TypeError(f"model must be a name or a chaos.Network, not {type(net).__name__}")
    config = json.dumps(net.config(), sort_keys=True)
    return model if isinstance(model, str) else "network", hashlib.sha256(config.encode()).hexdigest()[:16]


def _figures(found, name, model):
    """What the model needs of a result of bench.kernels."""
    net = MODELS[model](seed=0) if isinstance(model, str) else model
    totals, size = found["totals"], found["batch_size"]
    evaluation = [e for e in found["evaluation"] if e["images_together"] <= size][-1]
    engine = _core.Engine(net.plan, net.weights, strategy="chaos", batch_size=size)
    stripe = STRATEGIES["chaos"].resolve({})["stripe_bytes"]
    blocks = [4 * net.plan.block(i)[1] for i in range(1, len(net.nodes()))]
    return Figures(
        name=name, batch_size=size, forward=totals["forward"], publication=totals["update"],
        backward=totals["weight_gradient"] + totals["data_gradient"], elsewhere=found["training"]["us_per_image_elsewhere"],
        evaluation=evaluation["us_per_image"], gflops=found["peak_gflops"],
        stripes=tuple(min(stripe, block - at) for block in blocks for at in range(0, block, stripe)),
        worker_bytes=engine.worker_bytes, image_bytes=int(np.prod(net.input_shape)))


def _host(measured, cpu):
    """A Machine out of what was measured."""
    count = measured["threads_per_core"]
    known = [cost for cost in measured["transfer_ns"].values() if cost is not None]
    costs = {kind: measured["transfer_ns"].get(kind, max(known, default=None)) for kind in KINDS}
    return Machine(
        name=f"this machine ({cpu or 'unknown processor'}, {measured['cores']} cores)", sockets=measured["sockets"],
        cores=measured["cores"], threads_per_core=count, clock_ghz=None, flop_per_cycle=None,
        threads_throughput=(1.0,) * count, bandwidth_gb_s=measured["bandwidth_all"],
        core_bandwidth_gb_s=measured["bandwidth_one"], numa_domains=measured["numa_domains"], cache_mb=measured["cache_mb"],
        cache_domains=measured["cache_domains"], **costs, gflops_one=measured["gflops_one"],
        gflops_all=measured["gflops_all"],
        sources={"gflops": "measured", "bandwidth_gb_s": "measured", **dict.fromkeys(measured["transfer_ns"], "measured"),
                 "threads_throughput": "assumed: the kernels fill the multiply-add units with one thread"})


def _bandwidth(count, seconds):
    """Gigabytes per second, read and written together, of so many threads that copy at the same time."""
    def copy(_):
        a, b = np.ones(COPIED // 8), np.zeros(COPIED // 8)
        np.copyto(b, a)
        rounds, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds or not rounds:
            np.copyto(b, a)
            rounds += 1
        return 2 * a.nbytes * rounds / max(took, 1e-9) / 1e9

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(copy, range(count)))


def _cache_domains(cores, root="/", mask=None):
    """A CPU of each of so many cores, grouped by the last-level cache that they share; one group where unknown."""
    groups = {}
    for cpu in threads.placement("compact", root=root, mask=mask)[:cores]:
        folders = sorted(Path(root).glob(f"sys/devices/system/cpu/cpu{cpu}/cache/index[0-9]*/shared_cpu_list"))
        groups.setdefault(folders[-1].read_text().strip() if folders else "", []).append(cpu)
    return list(groups.values())


def _cache_mb(root="/"):
    """Size of one last-level cache in MB; 0 where unknown."""
    caches = threads.topology(root=root)["caches"]
    if not caches:
        return 0.0
    size = caches[max(caches)]
    return int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[size[-1]] / 1e6


def _pairs(cores, root="/", mask=None):
    """{kind of pair: two CPUs of it, None where workers cannot be pinned}, for the kinds that so many cores have."""
    if not sys.platform.startswith("linux"):
        return {"within_domain_ns": None}
    order = threads.placement("compact", root=root, mask=mask)[:cores]  # one hardware thread of each core
    domain = {cpu: number for number, group in enumerate(_cache_domains(cores, root, mask)) for cpu in group}
    found = {}
    for cpu in order[1:]:
        kind = "within_domain_ns" if domain[cpu] == domain[order[0]] else "across_domains_ns"
        if kind == "across_domains_ns" and _socket(cpu, root) != _socket(order[0], root):
            kind = "across_sockets_ns"
        found.setdefault(kind, (order[0], cpu))
    return found


def _socket(cpu, root):
    try:
        return (Path(root) / f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id").read_text()
    except OSError:
        return None


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")
