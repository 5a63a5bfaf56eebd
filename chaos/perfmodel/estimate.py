"""A prediction from end to end: calibration, machine, numbers of workers, and how wrong it is. For chaos.perfmodel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..distance import NEAR_NS
from ..network import Network
from ..options import check_flag
from .calibrate import KINDS, SPREAD, Calibration
from .kept import Checked, Cost
from .machine import Machine, read_machine
from .model import Figures, Prediction, fit_transfer, predict, training
from .papers import EPOCHS, IMAGES, TEST_IMAGES, contention_per_image, floor_seconds, model_a, model_b

MOST_WORKERS = 4096
MOST = 1 << 40  # images, epochs
PAPER_THREADS = (1, 15, 30, 60, 120, 180, 240, 480, 960, 1920, 3840)


def estimate(
    model: str | Network,
    workers: Sequence[int] | None = None,
    machine: str | os.PathLike[str] = "host",
    images: int = IMAGES,
    test_images: int = TEST_IMAGES,
    epochs: int = 1,
    batch_size: int = 1,
    validate: bool = False,
    calibrate: bool = False,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Predicts the time of a training run.

    What has not been measured on this machine is measured first and kept for later (`Calibration`).

    Parameters
    ----------
    model : str or Network
        A name in chaos.models.MODELS, or a network.
    workers : list of int, optional
        1, 2, 4, ... up to the machine's cores, and its hardware threads, by default.
    machine : str
        "host", a name of `chaos.perfmodel.shipped()`, or a path of a .toml file.
    images, test_images : int
        Per epoch.
    epochs : int
    batch_size : int
        Images per update.
    validate : bool
        Whether the training images are evaluated as well after every epoch, as the papers do.
    calibrate : bool
        Measures again, whatever is known.
    calibration : Calibration, optional
        Where figures come from and are kept.

    Returns
    -------
    dict
        model, batch_size, isa, images, test_images, epochs, validate; machine: name, cores, threads, peak_gflops (all
        cores), bandwidth_gb_s, transfer_ns, sources; distance: for this machine's kinds of pairs of cores a dict of
        `Calibration.costs` and words, what it means; points: one dict of `predict` per number of workers; errors: one dict
        per number of workers that was measured on this machine, apart from the calibration: workers, measured_us,
        measured_us_min, measured_us_max, predicted_us, error (predicted over measured, minus 1), transfer_ns (the cost of a
        line that would explain the measurement, None for one worker), line_ns (the one that was predicted with), hop_ns
        (the cores' distance meanwhile), rescaled, quiet, repeats, load_average, date; figures, what was measured of the
        network (see `Figures`; of the stripes only their number, and weight_bytes);
        best_workers, the fastest of these;
        contention: ours and the papers' per image at the most workers of `points`, see `contention`; calibrated: dates;
        notes: list of str, what to keep in mind.

    Raises
    ------
    ValueError
        Unknown names, impossible numbers, an impossible description of a machine.
    CheckpointError
        The kept calibration is damaged.
    """
    _check_numbers(workers or [], images, test_images, epochs, batch_size)
    check_flag("validate", validate)
    check_flag("calibrate", calibrate)
    target = None if machine == "host" else read_machine(machine)
    calibration = calibration or Calibration()
    if calibrate:
        calibration.forget()
    else:
        calibration.load()
    wrong = errors(calibration, model, batch_size)
    figures = calibration.figures(model, batch_size)
    costs = calibration.costs(model, calibration.distances())
    host = calibration.host(costs={kind: cost["line_ns"] for kind, cost in costs.items()})
    measured = calibration.found["machine"]
    assert measured  # by `host`
    target = target or host
    workers = list(dict.fromkeys(workers or default_workers(target)))
    points = [predict(figures, target, count, images, test_images, epochs, validate) for count in workers]
    return {
        "model": figures.name,
        "batch_size": batch_size,
        "isa": calibration.isa,
        "images": images,
        "test_images": test_images,
        "epochs": epochs,
        "validate": validate,
        "machine": _about(target),
        "distance": {kind: {**cost, "words": distance_words(kind, cost)} for kind, cost in costs.items()},
        "figures": {**figures.as_dict(), "stripes": len(figures.stripes), "weight_bytes": figures.weight_bytes},
        "points": points,
        "errors": wrong,
        "best_workers": min(points, key=lambda point: point["epoch_seconds"])["workers"],
        "contention": contention(figures, points[-1], images, epochs),
        "calibrated": {"machine": measured["date"], "file": str(calibration.path)},
        "notes": _notes(target, host, points, workers) + _doubts(calibration, model, batch_size, wrong),
    }


def _check_numbers(workers: Sequence[int], images: int, test_images: int, epochs: int, batch_size: int) -> None:
    """ValueError naming the number that makes no sense."""
    for name, value, least, most in (
        ("images", images, 1, MOST),
        ("test_images", test_images, 0, MOST),
        ("epochs", epochs, 1, MOST),
        ("batch_size", batch_size, 1, 1 << 24),
        *(("workers", count, 1, MOST_WORKERS) for count in workers),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")


def _about(machine: Machine) -> dict[str, Any]:
    """What a prediction tells about its machine."""
    return {
        "name": machine.name,
        "cores": machine.cores,
        "threads": machine.threads,
        "peak_gflops": machine.peak_gflops(machine.cores),
        "bandwidth_gb_s": machine.bandwidth_gb_s,
        "transfer_ns": {kind: getattr(machine, kind) for kind in KINDS},
        "sources": machine.sources,
    }


def errors(calibration: Calibration, model: str | Network, batch_size: int = 1, again: bool = False) -> list[dict[str, Any]]:
    """Predictions for this machine beside what is measured; what is missing is measured first, and this `again` if wanted.

    Returns
    -------
    list of dict
        See `estimate`.
    """
    calibration.figures(model, batch_size)
    calibration.transfer(model)
    checks = calibration.check(model, batch_size, again)
    figures = calibration.figures(model, batch_size)  # the host's multiply-add rate may have been corrected meanwhile
    return [_error(figures, calibration, model, found) for found in checks]


def _error(figures: Figures, calibration: Calibration, model: str | Network, found: Checked) -> dict[str, Any]:
    """The prediction for this machine, with its cores as far apart as they were meanwhile, beside what was measured."""
    costs = calibration.costs(model, dict.fromkeys(list(calibration.pairs())[:1], found["distance"]))
    host = calibration.host(costs={kind: cost["line_ns"] for kind, cost in costs.items()})
    us = training(figures, host, found["workers"])["us_per_image"]
    cost = next(iter(costs.values()), None)
    return {
        "workers": found["workers"],
        "measured_us": found["us_per_image"],
        "measured_us_min": found["us_per_image_min"],
        "measured_us_max": found["us_per_image_max"],
        "predicted_us": us,
        "error": us / found["us_per_image"] - 1,
        "transfer_ns": None if found["workers"] == 1 else fit_transfer([(figures, found["us_per_image"])], host),
        "line_ns": cost["line_ns"] if cost else None,
        "hop_ns": found["distance"]["hop_ns"],
        "rescaled": cost["rescaled"] if cost else 1.0,
        "repeats": found["repeats"],
        "quiet": found["quiet"],
        "load_average": found["load_average"],
        "date": found["date"],
    }


def where(kind: str, hop: float | None) -> str:
    """In words how far cores are from each other."""
    if hop is None:
        return "cores at an unknown distance, because they were busy"
    if kind == "across_sockets_ns":
        return "cores in different sockets"
    return f"cores in {'one cache domain' if hop < NEAR_NS else 'different cache domains'}"


def distance_words(kind: str, cost: Cost) -> str:
    """What a prediction assumed of the distance of cores."""
    hop, then = cost["hop_ns"], cost["hop_ns_then"]
    if hop is None:
        taken = "as calibrated" if then is None else f"{_ns(then)} as calibrated"
        return f"{where(kind, hop)}: taken to be {taken}, {cost['line_ns']:.3g} ns per line of weights"
    found = f"{where(kind, hop)}, {_ns(hop)} to hand over a line: {cost['line_ns']:.3g} ns per line of weights"
    if cost["rescaled"] != 1 and then is not None:
        found += f", rescaled by {cost['rescaled']:.3g} from the calibration at {_ns(then)}"
    return found


def _ns(hop: float) -> str:
    return f"{hop:.0f} ns"


def contention(figures: Figures, point: Prediction, images: int, epochs: int) -> dict[str, Any]:
    """What sharing the weights costs, ours beside the papers': a floor of the run time however many threads there are.

    Returns
    -------
    dict
        Microseconds of wall time per image: ours at the point's workers (transfer and waiting), our floor with stripes and
        with one lock for all weights, and the papers' term at 240 threads (None for other networks); the run times in
        seconds that the floors mean; paper_sure.
    """
    paper = contention_per_image(figures.name) * 1e6 if figures.name in EPOCHS else None
    run = images * epochs * 1e-6
    return {
        "workers": point["workers"],
        "us_per_image": point["contention_us_per_image"],
        "floor_us_per_image": point["floor_us_per_image"],
        "floor_seconds": point["floor_us_per_image"] * run,
        "one_lock_floor_us_per_image": point["one_lock_floor_us_per_image"],
        "one_lock_floor_seconds": point["one_lock_floor_us_per_image"] * run,
        "paper_us_per_image": paper,
        "paper_threads": None if paper is None else 240,
        "paper_floor_seconds": None if paper is None else floor_seconds(figures.name, images, epochs),
        "paper_sure": None if paper is None else "derived",
    }


def default_workers(machine: Machine) -> list[int]:
    """1, 2, 4, ... the machine's cores, and its hardware threads."""
    powers = [1 << k for k in range(machine.cores.bit_length()) if 1 << k < machine.cores]
    return list(dict.fromkeys([*powers, machine.cores, min(machine.threads, MOST_WORKERS)]))


def paper_predictions(
    model: str,
    threads: Sequence[int] | None = None,
    images: int = IMAGES,
    test_images: int = TEST_IMAGES,
    epochs: int | None = None,
) -> dict[str, Any]:
    """The papers' predictions for their Xeon Phi 7120P.

    Parameters
    ----------
    model : str
        small, medium or large.
    threads : list of int, optional
        1, 15, 30, 60, 120, 180, 240 and, extrapolated in the papers, 480, 960, 1920, 3840 by default.
    images, test_images, epochs
        60,000, 10,000 and 70, 70 or 15 by default, as in the papers.

    Returns
    -------
    dict
        model, images, test_images, epochs, machine; points: threads, a and b (dicts of `papers.model_a`),
        contention_us_per_image; floor_seconds.
    """
    points = [
        {
            "threads": count,
            "a": model_a(model, count, images, test_images, epochs),
            "b": model_b(model, count, images, test_images, epochs),
            "contention_us_per_image": contention_per_image(model, count) * 1e6,
        }
        for count in threads or PAPER_THREADS
    ]
    return {
        "model": model,
        "machine": "Intel Xeon Phi 7120P",
        "images": images,
        "test_images": test_images,
        "epochs": EPOCHS[model] if epochs is None else epochs,
        "points": points,
        "floor_seconds": floor_seconds(model, images, epochs),
    }


def _notes(target: Machine, host: Machine, points: Sequence[Prediction], workers: Sequence[int]) -> list[str]:
    notes = []
    if target is not host:
        notes.append(
            f"predicted for {target.name} from figures of {host.name}: it is assumed to reach the same fraction of "
            "its multiply-add peak; the error above is that of predictions for this machine"
        )
        assumed = [key for key, source in target.sources.items() if source.startswith("assumed")]
        if assumed:
            notes.append(f"assumed in the description of {target.name}: {', '.join(assumed)}")
    elif host.cores < 2:
        notes.append("this process may use one core, so what sharing weights between cores costs could not be measured")
    if any(point["oversubscribed"] for point in points):
        notes.append(f"more workers than the {target.threads} hardware threads are predicted as so many as there are")
    if max(workers) > 2:
        notes.append(
            "more than two workers are extrapolated: waiting for stripes is an upper bound, and how often a line "
            "of weights moves is derived"
        )
    return notes


def _doubts(calibration: Calibration, model: str | Network, batch_size: int, checks: Sequence[dict[str, Any]]) -> list[str]:
    """What makes the figures of a network doubtful."""
    entry = calibration.network(model)["batches"][str(batch_size)]
    notes = []
    if not entry["quiet"] or entry["spread"] > SPREAD:
        notes.append(
            f"{entry['rounds']} rounds of the calibration differed by {entry['spread']:.0%}"
            + ("" if entry["quiet"] else " and the multiply-add rate beside them was low")
            + ": the machine was busy; --calibrate measures again"
        )
    if not calibration.quiet_transfer(model):
        notes.append("the machine was busy while the cost of a line of weights was measured; it is measured again next time")
    if not all(found["quiet"] for found in checks):
        notes.append("something disturbed the measurement that the prediction is held to")
    return notes
