"""The report of one training run, from its metrics.jsonl. For chaos.report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import CheckpointError
from ..formats.json_text import parse_json
from .structure import Bars, Block, Heading, Line, Paragraph, Plot, Report, Table

Record = dict[str, Any]  # a line of metrics.jsonl

TAIL = 0.005  # share of the updates that the last bar of a histogram may hold
MOST_BARS = 40
COUNTED = {
    "updates": "updates",
    "lock_failures": "found busy",
    "pending_seconds": "postponed for, s",
    "lost_estimate": "lost at most",
}
PHASES = {
    "train": "training",
    "train_eval": "training, measured after the epoch",
    "validation": "validation",
    "test": "test",
}


def read_metrics(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a metrics.jsonl, one dict per epoch; CheckpointError, naming file and line, where it holds none."""
    path = Path(path)
    records: list[Record] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a run directory holds one after its first epoch") from None
    except NotADirectoryError:
        raise CheckpointError(f"{path.parent} is a file; name the run directory that holds {path.name}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise CheckpointError(f"{path}: line {number} is no JSON ({error})") from None
        if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
            raise CheckpointError(f"{path}: line {number} is no record of an epoch: {line[:60]!r}")
        wrong = _wrong(record)
        if wrong:
            raise CheckpointError(f"{path}: line {number}: {wrong}")
        records.append(record)
    if not records:
        raise CheckpointError(f"{path}: holds no epoch")
    return records


def _wrong(record: Record) -> str | None:
    """What is no part of a record though it is where one is, in words; None for a good one."""
    for key in ("time_split", "staleness", "layers"):
        if not isinstance(record.get(key) or {}, dict):
            return f"{key} must be an object, not {record[key]!r}"
    layers = record.get("layers") or {}
    stale = {"staleness": record.get("staleness")}
    for name, layer in layers.items():
        if not isinstance(layer or {}, dict) or not isinstance((layer or {}).get("staleness") or {}, dict):
            return f"layers: {name} must be an object, and its staleness too, not {layer!r}"
        stale[f"layers: {name}: staleness"] = (layer or {}).get("staleness")
    lists = {"worker_images": record.get("worker_images")}
    for where, one in stale.items():
        lists[f"{where}: histogram"] = (one or {}).get("histogram")
        most = (one or {}).get("max")
        if most is not None and not _number(most):
            return f"{where}: max must be a number, not {most!r}"
    for where, values in lists.items():
        if not isinstance(values or [], list) or not all(map(_number, values or [])):
            return f"{where} must be a list of numbers, not {str(values)[:60]}"
    for phase, share in (record.get("time_split") or {}).items():
        if not _number(share):
            return f"time_split: {phase} must be a number, not {share!r}"
    return None


def run_report(records: Sequence[Record], name: str, config: Mapping[str, Any] | None = None) -> Report:
    """Loss, error, speed and staleness of a run; what the records do not hold is left out.

    Parameters
    ----------
    records : list of dict
        One per epoch, as in metrics.jsonl.
    name : str
        Of the run, for the title.
    config : dict, optional
        The run's config.json, for the line below the title.

    Returns
    -------
    Report
    """
    last, config = records[-1], config or {}
    about = {
        key: config[key]
        for key in ("model", "data", "strategy", "workers", "batch_size", "lr", "lr_decay", "seed", "isa", "chaos")
        if config.get(key) is not None
    }
    report = Report(f"Training run {name}", data={"records": records})
    if about:
        report.add(Paragraph(", ".join(f"{key} {value}" for key, value in about.items()) + "."))
    columns = {
        "epoch": "epoch",
        "lr": "learning rate",
        "train_loss": "training loss",
        "train_error": "training error",
        "train_eval_error": "training error after the epoch",
        "validation_loss": "validation loss",
        "validation_error": "validation error",
        "test_loss": "test loss",
        "test_error": "test error",
        "seconds": "seconds",
        "images_per_second": "images/s",
    }
    columns = {key: title for key, title in columns.items() if any(_number(record.get(key)) for record in records)}
    report.add(
        *_over_epochs(records, "Loss", "mean loss per image", {f"{phase}_loss": name for phase, name in PHASES.items()}),
        *_over_epochs(records, "Error", "misclassified, %", {f"{phase}_error": name for phase, name in PHASES.items()}, 100),
        *_over_epochs(records, "Speed of the training phase", "images per second", {"images_per_second": "training"}),
        *_time_split(records),
        *_workers(last),
        *_staleness(records),
        *_layers(records, layer_names(config)),
        Heading("Epochs"),
        Table(
            [f"{title}, %" if key.endswith("_error") else title for key, title in columns.items()],
            [[_shown(key, record.get(key)) for key in columns] for record in records],
        ),
    )
    report.data["last"] = {key: last.get(key) for key in columns}
    return report


def _over_epochs(
    records: Sequence[Record], title: str, label: str, keys: Mapping[str, str], factor: float = 1
) -> list[Block]:
    """A plot with a line for each key that any record holds; none without such."""
    lines = [
        Line(name, _epochs(records), [record[key] * factor if _number(record.get(key)) else None for record in records])
        for key, name in keys.items()
        if any(_number(record.get(key)) for record in records)
    ]
    return [Plot(title, "epoch", label, lines)] if lines else []


def _time_split(records: Sequence[Record]) -> list[Block]:
    splits = [record.get("time_split") or {} for record in records]
    phases = list(dict.fromkeys(phase for split in splits for phase in split))
    bars = [Bars(phase, _epochs(records), [100 * split.get(phase, 0) for split in splits]) for phase in phases]
    return [Plot("Where the time went", "epoch", "share of the time, %", bars)] if bars else []


def _workers(last: Record) -> list[Block]:
    images = last.get("worker_images") or []
    if len(images) < 2:
        return []
    return [
        Plot(
            f"Images of each worker in epoch {last['epoch']}",
            "worker",
            "images",
            [Bars("images", list(range(1, len(images) + 1)), images)],
        )
    ]


def _staleness(records: Sequence[Record]) -> list[Block]:
    found = [record.get("staleness") or {} for record in records]
    total: list[int] = []
    for staleness in found:
        counts = staleness.get("histogram") or []
        total += [0] * (len(counts) - len(total))
        total = [a + (counts[k] if k < len(counts) else 0) for k, a in enumerate(total)]
    if not sum(total):
        return []
    names, shares = histogram(total)
    means = [staleness.get("mean") for staleness in found]
    return [
        Heading("Staleness"),
        Paragraph(
            "Updates of a stripe of the weights by other workers between the moment when a worker read it and the "
            "moment when it published its gradient there. "
            f"Mean {_mean(means):.3g}, most {max(staleness.get('max') or 0 for staleness in found)}."
        ),
        Plot(
            "Staleness of all updates",
            "updates by others between reading and writing",
            "share of the updates, %",
            [Bars("updates", names, [100 * share for share in shares])],
        ),
        *_over_epochs(
            [{"epoch": record["epoch"], "mean": mean} for record, mean in zip(records, means, strict=True)],
            "Staleness over the epochs",
            "mean staleness",
            {"mean": "mean"},
        ),
    ]


def histogram(counts: Sequence[int]) -> tuple[list[str], list[float]]:
    """Bars for a histogram of 0, 1, 2, ...: their names and shares.

    At most MOST_BARS of equal width; the end, as far as it holds no more than TAIL of the whole, is one bar more ("7+").
    """
    total, end, left = sum(counts), len(counts), 0
    while end > 1 and left + counts[end - 1] <= TAIL * total:
        end -= 1
        left += counts[end]
    width = -(-end // MOST_BARS)
    starts = range(0, end, width)
    names = [str(k) if width == 1 else f"{k}-{min(k + width, end) - 1}" for k in starts]
    shares = [sum(counts[k : min(k + width, end)]) / total for k in starts]
    return (names, shares) if end == len(counts) else ([*names, f"{end}+"], [*shares, left / total])


def layer_names(config: Mapping[str, Any]) -> dict[str, str]:
    """{name of a layer: name and kind} of a run's config.json, as far as it tells."""
    network = config.get("network")
    layers = network.get("layers") if isinstance(network, dict) else None
    found: dict[str, str] = {}
    for number, layer in enumerate(layers if isinstance(layers, list) else []):
        if isinstance(layer, dict) and isinstance(layer.get("kind"), str):
            name = layer.get("name") or str(number)
            found[str(name)] = f"{name} {layer['kind']}"
    return found


def _layers(records: Sequence[Record], called: Mapping[str, str]) -> list[Block]:
    parts = [record.get("layers") or {} for record in records]
    names = list(dict.fromkeys(name for part in parts for name in part))

    def of(part: Record, name: str, key: str) -> float | None:
        value = ((part.get(name) or {}).get("staleness") or {}).get(key)
        return value if _number(value) else None

    lines = [Line(called.get(name, name), _epochs(records), [of(part, name, "mean") for part in parts]) for name in names]
    lines = [line for line in lines if any(y is not None for y in line.y)]
    if not lines:
        return []
    keys = ("mean", "p50", "p99", "max")
    last = {name: parts[-1].get(name) or {} for name in names}
    counted = {key: title for key, title in COUNTED.items() if any(key in layer for layer in last.values())}
    return [
        Heading("Staleness by layer", 3),
        Plot("Staleness by layer", "epoch", "mean staleness", lines),
        Table(
            ["layer", *keys, *counted.values()],
            [
                [called.get(name, name), *(of(last, name, key) for key in keys), *(layer.get(key) for key in counted)]
                for name, layer in last.items()
            ],
            f"Epoch {records[-1]['epoch']}",
        ),
    ]


def _shown(key: str, value: Any) -> Any:
    """A cell; errors in percent, as everywhere."""
    return 100 * value if key.endswith("_error") and _number(value) else value


def _epochs(records: Iterable[Record]) -> list[int]:
    return [record["epoch"] for record in records]


def _mean(values: Iterable[object]) -> float:
    numbers = [value for value in values if _number(value)]
    return sum(numbers) / max(len(numbers), 1)


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
