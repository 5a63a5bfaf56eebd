"""Several training runs in the same pictures. For chaos.report."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .run import Record
from .structure import Block, Cell, Heading, Line, Paragraph, Plot, Report, Table

# settings of a config.json that tell runs apart
TOLD = (
    "model", "data", "subset", "strategy", "strategy_options", "workers", "update", "update_options", "lr", "lr_decay",
    "lr_schedule", "schedule_options", "batch_size", "loss", "loss_options", "seed", "cluster", "isa", "machine", "chaos",
)  # fmt: skip


@dataclass
class Course:
    """The course of one run: its name, the records of its epochs, its config.json."""

    name: str
    records: Sequence[Record]
    config: Mapping[str, Any]


def runs_report(runs: Sequence[Course]) -> Report:
    """Learning curves of several runs over epochs and over seconds of training, their speed, and what differs in them.

    Parameters
    ----------
    runs : list of Course
        With different names.

    Returns
    -------
    Report
    """
    part = "test" if all(_any(run, "test_error") for run in runs) else "train"
    name = {"test": "test", "train": "training"}[part]
    report = Report(f"{len(runs)} training runs", data={"runs": {run.name: list(run.records) for run in runs}})
    same, different = differences(runs)
    if same:
        report.add(Paragraph(", ".join(f"{key} {value}" for key, value in same.items()) + " in all."))
    report.add(
        *_curves(runs, f"{name.capitalize()} error", "misclassified, %", f"{part}_error", 100),
        *_curves(runs, "Training loss", "mean loss per image", "train_loss"),
        *_over_seconds(runs, f"{name.capitalize()} error over time", f"{part}_error"),
        *_curves(runs, "Speed of the training phase", "images per second", "images_per_second"),
        Heading("Runs"),
        Table(
            ["run", *different, "epochs", f"lowest {name} error, %", "in epoch", "last, %", "seconds", "images/s"],
            [
                [run.name, *(_text(run.config.get(key)) for key in different), *_results(run, f"{part}_error")]
                for run in runs
            ],
        ),
    )
    return report


def differences(runs: Sequence[Course]) -> tuple[dict[str, Any], list[str]]:
    """What the settings of all runs have in common, of those that a reader asks for, and the names of those that differ."""
    same: dict[str, Any] = {}
    different = []
    for key in TOLD:
        values = [run.config.get(key) for run in runs]
        if all(value == values[0] for value in values):
            if values[0] is not None and not isinstance(values[0], dict) and key not in ("subset", "machine"):
                same[key] = values[0]
        else:
            different.append(key)
    return same, different


def _results(run: Course, key: str) -> list[Cell]:
    errors = [(record[key], record["epoch"]) for record in run.records if _is_number(record.get(key))]
    seconds = [record["seconds"] for record in run.records if _is_number(record.get("seconds"))]
    speeds = [record["images_per_second"] for record in run.records if _is_number(record.get("images_per_second"))]
    best: list[Cell] = [100 * min(errors)[0], min(errors)[1], 100 * errors[-1][0]] if errors else [None, None, None]
    return [len(run.records), *best, sum(seconds), sum(speeds) / len(speeds) if speeds else None]


def _curves(runs: Sequence[Course], title: str, label: str, key: str, factor: float = 1) -> list[Block]:
    lines = [
        Line(run.name, [record["epoch"] for record in run.records], [_value(record, key, factor) for record in run.records])
        for run in runs
        if _any(run, key)
    ]
    return [Plot(title, "epoch", label, lines)] if lines else []


def _over_seconds(runs: Sequence[Course], title: str, key: str) -> list[Block]:
    lines = []
    for run in runs:
        if _any(run, key) and all(_is_number(record.get("seconds")) for record in run.records):
            seconds = list(itertools.accumulate(record["seconds"] for record in run.records))
            lines.append(Line(run.name, seconds, [_value(record, key, 100) for record in run.records]))
    return [Plot(title, "seconds of training", "misclassified, %", lines)] if lines else []


def _any(run: Course, key: str) -> bool:
    return any(_is_number(record.get(key)) for record in run.records)


def _value(record: Record, key: str, factor: float) -> float | None:
    value = record.get(key)
    return float(value) * factor if _is_number(value) and value is not None else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> Cell:
    if isinstance(value, dict):
        return ", ".join(f"{key}={one}" for key, one in value.items() if one is not None)
    return value if isinstance(value, (int, float, type(None))) else str(value)
