"""Predictions of any strategy: times of this machine's cores or nominal ones, any machine, and which strategies are worth
trying there. For chaos.perfmodel; the forms are in `costs`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from .. import virtual
from ..models import MODELS
from ..network import Network
from ..options import unknown
from ..sync import STRATEGIES
from .calibrate import Calibration
from .costs import Cost, cost
from .estimate import default_workers
from .machine import Machine, read_machine
from .model import Figures, traffic
from .papers import IMAGES

TIMES = ("calibrated", "nominal")
PERIODS = (4, 8, 16, 32, 64)
BATCHES = (2, 4)  # images of an update that are compared beside single ones
SMALL = 1024  # bytes of a stripe: many workers are under way in a small network
MOST_SYNCHRONOUS = 4  # images per worker of the steps of `synchronous` and `hybrid` in a plan: one group of images each


def machine_of(described: Machine, gflops: float, workers: int) -> virtual.Machine:
    """The virtual machine of a description, without jitter of its own.

    Parameters
    ----------
    described : Machine
    gflops : float
        Multiply-add rate of the core that the times are of.
    workers : int
        That are going to work there.

    Returns
    -------
    chaos.virtual.Machine
    """
    shares, topology = described.threads_throughput, None
    if described.cache_domains > 1:
        costs = [described.within_domain_ns, described.across_domains_ns, described.across_sockets_ns]
        known = [cost for cost in costs if cost is not None]
        near, across, far = (cost if cost is not None else max(known) for cost in costs)
        domain, socket = described.cores // described.cache_domains, described.cores // described.sockets
        topology = virtual.Topology(domain, socket, near, across, far)
    busy = min(workers, described.cores)
    return virtual.Machine(
        cores=described.cores,
        threads_per_core=described.threads_per_core,
        slowdown=tuple(n * shares[0] / share for n, share in enumerate(shares, 1)),
        speed=described.peak_gflops(busy) / busy / gflops,
        line_ns=described.transfer_ns(workers),
        topology=topology,
    )


def times_of(figures: Figures, net: Network) -> virtual.Times:
    """Times of the layers from what was measured of all together: divided among them as the nominal ones are."""
    plain = virtual.nominal(net)

    def divided(nominal: Sequence[float], us: float) -> tuple[float, ...]:
        return tuple(seconds * us * 1e-6 / max(sum(nominal), 1e-30) for seconds in nominal)

    return virtual.Times(
        "calibrated",
        figures.gflops,
        figures.elsewhere * 1e-6,
        divided(plain.forward, figures.forward),
        divided(plain.backward, figures.backward),
        divided(plain.publish, figures.publication * figures.batch_size),
    )


class Predictor:
    """What predictions of one network on one machine rest on.

    Parameters
    ----------
    model : str or Network
        A name in chaos.models.MODELS, or a network.
    machine : str
        "host", a name of `chaos.perfmodel.shipped()`, or a path of a .toml file.
    times : str
        "calibrated": measured on this machine, and scaled to another one by the peak of their cores; "nominal": of a core of
        round numbers, as in chaos.virtual.nominal. Nominal times on a named machine need no measurement.
    images : int
        Of a training phase.
    calibration : Calibration, optional
        Where figures come from and are kept.
    name : str, optional
        Of the network; by default that of the model.

    Raises
    ------
    ValueError
        Unknown names, an impossible description of a machine.
    CheckpointError
        The kept calibration is damaged.
    """

    def __init__(
        self,
        model: str | Network,
        machine: str | os.PathLike[str] = "host",
        times: str = "calibrated",
        images: int = IMAGES,
        calibration: Calibration | None = None,
        name: str | None = None,
    ) -> None:
        if times not in TIMES:
            raise ValueError(unknown("unknown times", times, TIMES))
        if isinstance(model, str) and model not in MODELS:
            raise ValueError(unknown("unknown model", model, MODELS))
        self.model, self.images = model, images
        self.net = MODELS[model]() if isinstance(model, str) else model
        self.name = name or (model if isinstance(model, str) else "network")
        target = None if machine == "host" else read_machine(machine)
        self.calibration = calibration or Calibration()
        self.calibration.load()
        self.calibrated = times == "calibrated"
        if target is None:
            self.calibration.transfer(model)
            costs = self.calibration.costs(model, self.calibration.distances())
            target = self.calibration.host(costs={kind: found["line_ns"] for kind, found in costs.items()})
        self.machine = target
        self.known: dict[int, tuple[virtual.Times, Figures | None]] = {}
        self.alone: float | None = None  # us per image of one sequential worker

    def times(self, batch_size: int = 1) -> tuple[virtual.Times, Figures | None]:
        """Those of the layers, and the figures they come from. Passes take so many images together at most, so larger
        batches have the times of that size."""
        size = min(batch_size, self.net.plan.together)
        if size not in self.known:
            figures = self.calibration.figures(self.model, size) if self.calibrated else None
            self.known[size] = (times_of(figures, self.net) if figures else virtual.nominal(self.net), figures)
        return self.known[size]

    def cost(
        self, workers: int, strategy: str = "chaos", options: Mapping[str, Any] | None = None, batch_size: int = 1
    ) -> Cost:
        """See `costs.cost`; of calibrated times with a term bandwidth: what images, and buffers that fit into no cache, take
        longer from memory than all of the others."""
        times, figures = self.times(batch_size)
        there = machine_of(self.machine, times.gflops, workers)
        options = virtual.settled(self.net, workers, strategy, options, there)
        found = cost(self.net, workers, strategy, options, there, times, batch_size, self.images)
        if figures is None:
            return found
        size = options.get("group", 1)
        private = copies(strategy, options, workers) * figures.weight_bytes / size
        held = replace(figures, worker_bytes=int(figures.worker_bytes + private))
        active = min(workers, self.machine.threads)
        memory = traffic(held, self.machine, active) / (self.machine.bandwidth(active) * 1e3)
        more = max(0.0, memory - found.us_per_image)
        us = found.us_per_image + more
        shares = {name: share * found.us_per_image / us for name, share in found.shares.items()}
        return replace(
            found, us_per_image=us, terms=found.terms | {"bandwidth": more}, shares=shares | {"bandwidth": more / us}
        )

    def point(self, workers: int, strategy: str, options: Mapping[str, Any], batch_size: int = 1) -> dict[str, Any]:
        """A cost as a dict, with what follows from it."""
        found = self.cost(workers, strategy, options, batch_size)
        self.alone = self.alone or self.cost(1, "sequential").us_per_image
        speedup = self.alone / found.us_per_image
        return {
            **asdict(found),
            "images_per_second": 1e6 / found.us_per_image,
            "epoch_seconds": found.us_per_image * self.images * 1e-6,
            "speedup": speedup,
            "efficiency": speedup / workers,
            "images_behind": found.behind * batch_size + (batch_size - 1) / 2,
        }


def copies(strategy: str, options: Mapping[str, Any], workers: int) -> int:
    """Vectors as long as the weights that a worker, or a group of workers, has for itself beside its gradient."""
    if workers == 1:
        return 0
    if strategy == "chaos":
        return int(options.get("read") == "publication")
    return {"locked": 1, "delayed": 1, "leashed": 2, "averaging": 1, "elastic": 1, "replicated": 2, "domains": 2}.get(
        strategy, 0
    )


def estimate_strategy(
    model: str | Network,
    strategy: str,
    options: Mapping[str, Any] | None = None,
    workers: Sequence[int] | None = None,
    machine: str | os.PathLike[str] = "host",
    batch_size: int = 1,
    images: int = IMAGES,
    times: str = "calibrated",
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Predicts the time of training with any strategy, and how stale its updates are.

    Parameters
    ----------
    model, machine, times, images, calibration
        As for `Predictor`.
    strategy : str
        Any of chaos.sync.STRATEGIES.
    options : dict, optional
        The strategy's.
    workers : list of int, optional
        1, 2, 4, ... up to the machine's cores, and its hardware threads, by default; 1 for `sequential`.
    batch_size : int
        Images per update.

    Returns
    -------
    dict
        model, strategy, options, batch_size, images, weight_bytes, times, machine (name, cores, cache_domains, sockets, and
        line_ns by kind of pair of cores); points: a dict per number of workers, that of `Cost` and images_per_second,
        epoch_seconds, speedup and efficiency (over `sequential` with batch size 1 on one core of the same machine),
        images_behind (behind, in images, with those of the step itself); notes: list of str.

    Raises
    ------
    ValueError
        Unknown names, options that make no sense, impossible numbers.
    """
    if strategy not in STRATEGIES:
        raise ValueError(unknown("unknown strategy", strategy, STRATEGIES))
    STRATEGIES[strategy].resolve(dict(options or {}))
    found = Predictor(model, machine, times, images, calibration)
    counts = list(dict.fromkeys(workers or ([1] if STRATEGIES[strategy].single else default_workers(found.machine))))
    return {
        **_about(found),
        "strategy": strategy,
        "options": dict(options or {}),
        "batch_size": batch_size,
        "points": [found.point(count, strategy, options or {}, batch_size) for count in counts],
        "notes": _notes(found),
    }


def _about(found: Predictor) -> dict[str, Any]:
    there = found.machine
    return {
        "model": found.name,
        "images": found.images,
        "weight_bytes": found.net.weights.nbytes,
        "times": found.times()[0].source,
        "machine": {
            "name": there.name,
            "cores": there.cores,
            "cache_domains": there.cache_domains,
            "sockets": there.sockets,
            "line_ns": {"near": there.within_domain_ns, "across": there.across_domains_ns, "far": there.across_sockets_ns},
        },
    }


def _notes(found: Predictor) -> list[str]:
    notes = [
        "speed-up is over sequential training on one core of the same machine; the forms agree with the clock of chaos "
        "simulate to about a tenth"
    ]
    if not found.calibrated:
        notes.append("times are those of a core of round numbers, scaled by the peak of the machine's cores")
    assumed = [key for key, source in found.machine.sources.items() if source.startswith("assumed")]
    if assumed:
        notes.append(f"assumed in the description of {found.machine.name}: {', '.join(assumed)}")
    return notes


# ---- which are worth trying ----


def candidates(machine: Machine, workers: int) -> list[tuple[str, dict[str, Any], int]]:
    """Strategies, options and batch sizes that a plan compares for so many workers.

    Returns
    -------
    list of tuple
    """
    small: dict[str, Any] = {"stripe_bytes": SMALL}
    domain = machine.cores // machine.cache_domains
    found: list[tuple[str, dict[str, Any], int]] = [("sequential", {}, 1)]
    if workers == 1:
        return found
    found += [(name, small, 1) for name in ("chaos", "hogwild", "locked", "leashed", "delayed")]
    found += [("chaos", {}, 1), ("chaos", small | {"read": "publication"}, 1)]
    found += [(name, {"period": period}, 1) for name in ("averaging", "elastic") for period in PERIODS]
    groups = sorted({1, 2, 4, domain, min(domain, workers)} - {0})
    groups = [size for size in groups if size < workers and size <= max(domain, 1)]
    found += [("replicated", small | {"group": size}, 1) for size in groups]
    found += [("domains", small | {"group": size, "period": period}, 1) for size in groups for period in PERIODS]
    # a few images an update divide what publication and the way within a group cost, and are no later than a longer period
    found += [("domains", small | {"group": groups[-1], "period": 8 // batch}, batch) for batch in BATCHES if groups]
    return found + [(name, {}, MOST_SYNCHRONOUS * workers) for name in ("synchronous", "hybrid")]


def text_of(strategy: str, options: Mapping[str, Any]) -> str:
    """As scripts and messages name a strategy with options: NAME:OPTION=VALUE,OPTION=VALUE."""
    return ":".join([strategy, ",".join(f"{name}={value}" for name, value in options.items())]).rstrip(":")


def parse_text(text: str) -> tuple[str, dict[str, Any]]:
    """The strategy and its options; ValueError where there is no such thing."""
    name, _, rest = text.partition(":")
    if name not in STRATEGIES:
        raise ValueError(unknown("unknown strategy", name, STRATEGIES))
    return name, STRATEGIES[name].parse(filter(None, rest.split(",")))


def plan(found: Predictor, workers: int, errors: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The front: how fast each strategy is, and how far behind the weights are that its steps read.

    Parameters
    ----------
    found : Predictor
    workers : int
    errors : dict, optional
        What scripts/front.py wrote, for the same network and number of workers.

    Returns
    -------
    dict
        As `estimate_strategy`, without its points; workers; rows, the fastest first: a dict of `Predictor.point` with
        strategy (as text), batch_size, error (test error after the last epoch, None: not known), simulated (the speed-up
        that the clock gave there), best (nothing known is both faster and less far behind) and best_error (nothing whose
        error is known is both faster and better).

    Raises
    ------
    ValueError
        The errors are of another network or number of workers, or damaged.
    """
    known = _errors(found, workers, errors)
    asked = [(*parse_text(text), 1) for text in known] + candidates(found.machine, workers)
    rows: list[dict[str, Any]] = []
    seen = set()
    for strategy, options, batch_size in asked:
        if found.net.plan.whole_batch and STRATEGIES[strategy].lanes:
            continue  # it cannot train this network
        key = (strategy, batch_size, *sorted(STRATEGIES[strategy].resolve(options).items()))
        if key in seen:
            continue
        seen.add(key)
        count = 1 if strategy == "sequential" else workers
        error = next((row for text, row in known.items() if batch_size == 1 and _same(text, strategy, options)), {})
        rows.append(
            {
                "strategy": text_of(strategy, options),
                "batch_size": batch_size,
                **found.point(count, strategy, options, batch_size),
                "error": error.get("last_error"),
                "simulated": error.get("speedup"),
            }
        )
    rows.sort(key=lambda row: -row["speedup"])
    _mark(rows, "best", "images_behind")
    _mark(rows, "best_error", "error")
    return {**_about(found), "workers": workers, "rows": rows, "notes": _notes(found)}


def _same(text: str, strategy: str, options: Mapping[str, Any]) -> bool:
    name, given = parse_text(text)
    known = STRATEGIES[strategy]
    return name == strategy and known.resolve(given) == known.resolve(dict(options))


def _errors(found: Predictor, workers: int, errors: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """{strategy as text: row} of what scripts/front.py wrote; ValueError where it is about something else."""
    if errors is None:
        return {}
    try:
        asked, rows = errors["asked"], errors["rows"]
        about = asked["model"], asked["workers"]
        # ";lr=..." behind a strategy: trained otherwise than is predicted here
        known = {row["strategy"]: row for row in rows if "last_error" in row and ";" not in row["strategy"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"the errors lack {error}: scripts/front.py --json writes them") from None
    if about != (found.name, workers):
        raise ValueError(f"the errors are of {about[0]} with {about[1]} workers, not of {found.name} with {workers}")
    return known


def _mark(rows: Sequence[dict[str, Any]], mark: str, key: str) -> None:
    """Marks the rows, the fastest first, that no faster one beats in `key`, where it is known."""
    least = float("inf")
    for row in rows:
        row[mark] = row[key] is not None and row[key] < least
        least = row[key] if row[mark] else least
