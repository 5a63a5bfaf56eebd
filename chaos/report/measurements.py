"""What `chaos bench` and the comparing scripts have measured, in pictures; takes their dicts, knows nothing of them beside
their keys. For chaos.report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .structure import Bars, Block, Dots, Heading, Line, Paragraph, Plot, Report, Table

Found = Mapping[str, Any]

PASSES = {"forward": "forward", "weight_gradient": "weight gradient", "data_gradient": "data gradient", "update": "update"}
RATES = (1, 10, 100, 1000)  # GB/s, of the diagonals of a roofline


def measurements_report(found: Any) -> Report:
    """The report of what a JSON file of measurements holds; ValueError where it holds none that is known."""
    if isinstance(found, dict) and "networks" in found:
        return peers_report(found)
    if isinstance(found, dict) and isinstance(found.get("rows"), list):
        return compare_report(found)
    named = found if isinstance(found, dict) and "points" not in found and "layers" not in found else {"": found}
    results = [
        (title, one)
        for title, value in named.items()
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, dict)
    ]
    if results and all(isinstance(one.get("points"), list) for _, one in results):
        return scaling_report(results)
    if results and all(isinstance(one.get("layers"), list) and "totals" in one for _, one in results):
        return kernels_report([one for _, one in results])
    raise ValueError(
        "holds nothing that can be drawn: what chaos bench scaling --json, chaos bench kernels --json, "
        "scripts/compare_sync.py --json, scripts/bench_peers.py --json or scripts/bench_networks.py --json have written"
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _machine(found: Found) -> list[Block]:
    machine = found.get("machine") or {}
    told = [str(machine[key]) for key in ("cpu", "date") if machine.get(key)]
    cores = [f"{machine['cores']} cores"] if machine.get("cores") else []
    return [Paragraph(", ".join([*told[:1], *cores, *told[1:]]) + ".")] if told else []


# ---- chaos bench scaling ----


def scaling_report(results: Sequence[tuple[str, Found]]) -> Report:
    """Speed-up and efficiency over the number of workers.

    Parameters
    ----------
    results : list of (str, dict)
        Each a title, which may be empty, and what `chaos.bench.scaling` gave.

    Returns
    -------
    Report
    """
    speed, efficient, rows = [], [], []
    most = max(point["workers"] for _, one in results for point in one["points"])
    strategies = {(one["strategy"], one["batch_size"]) for _, one in results}
    for title, one in results:
        told = [] if len(strategies) == 1 else [one["strategy"], f"batch {one['batch_size']}"]
        name = ", ".join([one["model"], *([title] if title else told)])
        workers = [point["workers"] for point in one["points"]]
        speed.append(Line(name, workers, [point["speedup"] for point in one["points"]]))
        efficient.append(Line(name, workers, [100 * point["efficiency"] for point in one["points"]]))
        rows += [
            [
                name,
                point["workers"],
                point["us_per_image"],
                point["speedup"],
                f"{point['speedup_min']:.2f} .. {point['speedup_max']:.2f}",
                100 * point["efficiency"],
                point["staleness_mean"],
            ]
            for point in one["points"]
        ]
    ideal = list(range(1, most + 1)) if most <= 40 else [1, most]
    level = Line("ideal", [1, most], [100, 100], guide=True)
    report = Report("Speed-up over the number of workers", data={"results": [dict(one) for _, one in results]})
    return report.add(
        *_machine(results[0][1]),
        Plot("Speed-up", "workers", "times as fast as one worker", [*speed, Line("ideal", ideal, ideal, guide=True)]),
        Plot("Efficiency", "workers", "speed-up over workers, %", [*efficient, level]),
        Table(["", "workers", "us/image", "speed-up", "least .. most", "efficiency, %", "staleness"], rows),
    )


# ---- chaos bench kernels ----


def kernels_report(results: Sequence[Found]) -> Report:
    """Rooflines (Williams, Waterman, Patterson 2009) and the time of every layer.

    A pass moves at least its inputs, outputs and weights, 4 bytes each; its operations over these bytes are its intensity.
    The roof is the measured peak; the memory's roof is not measured, so diagonals show how many of these bytes are moved per
    second.

    Parameters
    ----------
    results : list of dict
        What `chaos.bench.kernels` gave.

    Returns
    -------
    Report
    """
    report = Report("Time and rate of layers on one core", data={"results": list(results)}).add(*_machine(results[0]))
    for one in results:
        layers = one["layers"]
        names = [f"{layer['name']} {layer['kind']}" for layer in layers]
        report.add(Heading(f"{one['model']}, {one['isa']}, batch size {one['batch_size']}"), *_roofline(one))
        report.add(
            Plot(
                f"{one['model']}: time per layer",
                "layer",
                "us per image",
                [
                    Bars(title, names, [(layer[key] or {}).get("us_per_image", 0) for layer in layers])
                    for key, title in PASSES.items()
                    if any(layer[key] for layer in layers)
                ],
            )
        )
    return report


def _roofline(one: Found) -> list[Block]:
    series = []
    for layer in one["layers"]:
        rates = {title: layer[key]["gflops"] for key, title in PASSES.items() if layer[key] and layer[key]["gflops"]}
        if rates:
            rate, labels = _apart(rates)
            intensity = _intensity(layer)
            series.append(Dots(f"{layer['name']} {layer['kind']}", [intensity] * len(rate), rate, labels=labels))
    if not series:
        return []
    x = [float(value) for dots in series for value in dots.x]
    y = [value for dots in series for value in dots.y if value is not None]
    ends = [min(x) / 1.6, max(x) * 4]  # with room for the words beside the last dots
    low, high = min(y) / 2, max(max(y), one["peak_gflops"]) * 1.6
    roof = [Line(f"peak, {one['peak_gflops']:.0f} GFLOP/s", ends, [one["peak_gflops"]] * 2, guide=True)]
    for moved in RATES:
        a, b = max(ends[0], low / moved), min(ends[1], high / moved)
        if a < b:
            roof.append(Line(f"{moved} GB/s", [a, b], [a * moved, b * moved], guide=True))
    rows = [
        [
            f"{layer['name']} {layer['kind']}",
            title,
            _intensity(layer),
            layer[key]["gflops"],
            100 * layer[key]["fraction_of_peak"],
        ]
        for layer in one["layers"]
        for key, title in PASSES.items()
        if layer[key] and layer[key]["gflops"]
    ]
    about = "GB/s: inputs, outputs and weights, once each. Above the peak: loops of gradients visit non-zero entries only."
    return [
        Paragraph(about),
        Plot(f"{one['model']}: roofline", "operations per byte", "GFLOP/s", [*series, *roof], x_log=True, y_log=True),
        Table(["layer", "pass", "operations per byte", "GFLOP/s", "of the peak, %"], rows),
    ]


def _apart(rates: Mapping[str, float]) -> tuple[list[float], list[str]]:
    """Rates, and the words beside their dots: one word for those that are so near that words would cover each other."""
    ordered = sorted(rates.items(), key=lambda item: item[1])
    values, labels = [ordered[0][1]], [ordered[0][0]]
    at = 0  # of the word that is not yet far enough away
    for name, value in ordered[1:]:
        values.append(value)
        if value < 1.3 * values[at]:
            labels[at] += f", {name}"
            labels.append("")
        else:
            at = len(labels)
            labels.append(name)
    return values, labels


def _intensity(layer: Found) -> float:
    """Operations per byte that a pass moves at least: those that have operations have as many, on the same arrays."""
    sizes = [math.prod(shape) for shape in (*layer["input_shapes"], layer["output_shape"])]
    flops = max(layer[key]["flops"] for key in PASSES if layer[key])
    moved: float = 4 * (sum(sizes) + layer.get("parameters", 0))
    return float(flops / moved)


# ---- scripts/compare_sync.py ----


def compare_report(found: Found) -> Report:
    """Strategies beside each other: speed, and error after the last epoch.

    Parameters
    ----------
    found : dict
        What scripts/compare_sync.py has written.

    Returns
    -------
    Report
    """
    report = Report("Strategies beside each other", data=dict(found)).add(*_machine(found))
    for model in dict.fromkeys(row["model"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["model"] == model]
        timed = [row for row in rows if row.get("speed")]
        if timed:
            us = [row["speed"]["us_per_image"] for row in timed]
            report.add(
                Plot(
                    f"{model}: time per image",
                    "strategy, workers",
                    "us per image (logarithmic, less is better)",
                    [
                        Dots(
                            "time",
                            [_called(row) for row in timed],
                            us,
                            [row["speed"]["us_per_image_min"] for row in timed],
                            [row["speed"]["us_per_image_max"] for row in timed],
                            [_number(value) for value in us],
                        )
                    ],
                    y_log=True,
                )
            )
        report.add(*_accuracy(model, rows))
    return report


def _accuracy(model: str, rows: Sequence[Found]) -> list[Block]:
    """Errors after the last epoch, and over the epochs as differences to the first row's, as the curves coincide."""
    told = [row for row in rows if row.get("accuracy")]
    if not told:
        return []
    blocks: list[Block] = []
    finals = [[100 * error for error in row["accuracy"]["final_errors"]] for row in told]
    means = [statistics.fmean(errors) for errors in finals]
    blocks.append(
        Plot(
            f"{model}: test error after the last epoch, mean and range over seeds",
            "strategy, workers",
            "misclassified, % (less is better)",
            [
                Dots(
                    "error",
                    [_called(row) for row in told],
                    means,
                    [min(errors) for errors in finals],
                    [max(errors) for errors in finals],
                    [f"{mean:.2f}" for mean in means],
                )
            ],
            y_zero=False,
        )
    )
    courses = [(row, _mean_course(row)) for row in told if row["accuracy"].get("errors_per_epoch")]
    if len(courses) > 1:
        first, base = courses[0]
        blocks.append(
            Plot(
                f"{model}: test error beyond that of {_called(first)}",
                "epoch",
                "points of error",
                [
                    Line(
                        _called(row),
                        list(range(1, len(course) + 1)),
                        [100 * (a - b) for a, b in zip(course, base, strict=False)],
                    )
                    for row, course in courses[1:]
                ],
                y_zero=False,
            )
        )
    return blocks


def _mean_course(row: Found) -> list[float]:
    return [statistics.fmean(errors) for errors in zip(*row["accuracy"]["errors_per_epoch"], strict=True)]


def _called(row: Found) -> str:
    return f"{row['strategy']}, {row['workers']}"


# ---- scripts/bench_peers.py and bench_networks.py ----

_WORK = {"rows": "", "prediction": ", predicting"}


def peers_report(found: Found) -> Report:
    """Time per image beside other frameworks, training and where measured predicting: a dot for the median, a range from the
    fastest to the slowest turn.

    Parameters
    ----------
    found : dict
        What scripts/bench_peers.py or scripts/bench_networks.py has written.

    Returns
    -------
    Report
    """
    report = Report("Time per image", data=dict(found)).add(*_machine(found))
    for name, result in found["networks"].items():
        for key, what in _WORK.items():
            if result.get(key):
                report.add(_peers(f"{name}{what} ({result['parameters']:,} parameters)", result[key]))
    return report


def _peers(title: str, rows: Sequence[Found]) -> Plot:
    labels = [_peer(row) for row in rows]
    return Plot(
        title,
        "threads, batch size",
        "us per image (logarithmic, less is better)",
        [
            Dots(
                system,
                labels,
                [row["us_per_image"]["median"] if row["system"] == system else None for row in rows],
                [row["us_per_image"]["min"] for row in rows],
                [row["us_per_image"]["max"] for row in rows],
                [_number(row["us_per_image"]["median"]) for row in rows],
            )
            for system in dict.fromkeys(row["system"] for row in rows)
        ],
        y_log=True,
    )


def _peer(row: Found) -> str:
    return f"{row['system']}, {row['threads']}, batch {row['batch']}"
