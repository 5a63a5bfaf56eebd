"""Counts of training phases, added up over pieces and ranks, and what an epoch's record tells of them. For
chaos.training and chaos.cluster."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

Result = dict[str, Any]  # what an engine tells about a phase
Record = dict[str, Any]  # a line of metrics.jsonl


def today(record: Record, config: Mapping[str, Any]) -> Record:
    """A record by the names of today, of a run with that config.json, or identity.

    Earlier versions called the phase that measures the training images once more "validation". A run without a validation
    set has no other one."""
    if config.get("validation") is not None or config.get("validation_split"):
        return record
    return {
        f"train_eval_{key.removeprefix('validation_')}" if key in ("validation_loss", "validation_error") else key: value
        for key, value in record.items()
    }


def numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and words of a record as one row: what is in objects by both names ("staleness_mean"), without lists and
    without the layers."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping) and key != "layers":
            found |= {f"{key}_{name}": one for name, one in numbers(value).items()}
        elif not isinstance(value, (Mapping, list)):
            found[key] = value
    return found


def merged(results: Sequence[Result]) -> Result:
    """The results of all ranks as one."""
    total, *others = results
    for one in others:
        total = {key: _across(key, total[key], one[key]) for key in total}
    return total


def _across(key: str, a: Any, b: Any) -> Any:
    if key == "status":
        return min(a, b, key=["diverged", "stopped", "done"].index)
    if key == "failed_at":
        return b if a is None else a
    if key == "worker_images":  # every rank has workers of its own
        return a + b
    return max(a, b) if key == "seconds" else together(key, a, b)


def together(key: str, a: Any, b: Any) -> Any:
    """Two pieces' counts of one thing: added, element by element in lists and dicts; of a maximum the larger."""
    if isinstance(a, list):
        return [x + y for x, y in zip_longest(a, b, fillvalue=0)]
    if isinstance(a, dict):
        return {k: together(k, a[k], b[k]) if k in a and k in b else a.get(k, b.get(k)) for k in a | b}
    return max(a, b) if key == "staleness_max" else a + b


def no_counts() -> Result:
    """The counts of a training phase that has not begun."""
    return {
        "position": 0,
        "images": 0,
        "errors": 0,
        "loss": 0.0,
        "seconds": 0.0,
        "updates": 0,
        "lock_failures": 0,
        "dropped": 0,
        "staleness_sum": 0,
        "staleness_max": 0,
        "staleness": [],
        "layers": {},
        "worker_images": [],
        "time": {},
    }


def check_counts(found: Any) -> None:
    """ValueError where `found`, read from a file, is not what `counts` gives."""
    wanted = no_counts()
    if not isinstance(found, dict) or not wanted.keys() <= found.keys() <= wanted.keys() | {"visited"}:
        raise ValueError("the counts of the unfinished epoch do not have their names")
    for key, value in found.items():
        kind = type(wanted.get(key, ""))
        number = kind in (int, float)
        least = -math.inf if key == "loss" else 0
        if not isinstance(value, (int, float) if number else kind) or (number and not least <= value < math.inf):
            raise ValueError(f"{key} of the unfinished epoch cannot be {value!r}")


def counts(before: Result, result: Result, seconds: float) -> Result:
    """The counts of a training phase that is run in several pieces, after one more."""
    counted = {
        key: together(key, before[key], result[key]) for key in before if key not in ("position", "seconds", "visited")
    }
    return counted | {"position": result["position"], "seconds": before["seconds"] + seconds}


def pack(flags: NDArray[np.bool_]) -> str:
    """An array of bools as text."""
    return base64.b64encode(np.packbits(flags).tobytes()).decode()


def unpack(text: str, n: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n).astype(bool)


def staleness(counted: Mapping[str, Any]) -> Record:
    """Of updates: how many others have updated the same weights between reading and writing them. histogram[i] updates had
    staleness i, the last of 512 counts all from there on; p50 and p99 are read off it, so 511 may mean more."""
    updates, histogram = sum(counted["staleness"]), counted["staleness"]
    below = np.cumsum(histogram)
    p50, p99 = (int(np.searchsorted(below, q * updates)) if updates else 0 for q in (0.5, 0.99))
    return {
        "mean": counted["staleness_sum"] / max(updates, 1),
        "p50": p50,
        "p99": p99,
        "max": counted["staleness_max"],
        "histogram": histogram,
    }


def layer(counted: Mapping[str, Any]) -> Record:
    """The record of one layer. pending_seconds: between postponing a stripe and publishing it, summed. lost_estimate: pairs
    of updates that were under way in one stripe at the same time; of each pair, each weight keeps at least one, so it bounds
    from above how many stripe updates' worth is lost. 0 where writers exclude each other."""
    return {
        "staleness": staleness(counted),
        "updates": counted["updates"],
        "lock_failures": counted["lock_failures"],
        "pending_seconds": counted["pending_seconds"],
        "lost_estimate": counted["overlaps"],
    }


def time_split(train: Mapping[str, float], evaluating: float) -> Record:
    """Shares of the workers' time in an epoch's phases. wait and evaluate are measured throughout; forward, backward and
    publish (the strategy's own work, and picking) are told apart in every 16th step of each worker, that is, sampled."""
    parts = {name: max(train[name], 0.0) for name in ("forward", "backward", "publish", "wait")} | {"evaluate": evaluating}
    total = sum(parts.values())
    return {name: seconds / total if total else 0.0 for name, seconds in parts.items()}
