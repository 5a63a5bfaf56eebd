"""The results of a reproduction in files: one per experiment while it goes on, all in one when it is done. For
chaos.reproduce."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..formats.atomic import write_atomically
from ..formats.json_text import parse_json
from ..formats.zipped import inflate
from ..training.records import today

if TYPE_CHECKING:
    from .experiments import Experiment

Folder = str | os.PathLike[str]
Kept = dict[str, Any]  # what is kept of an experiment, see `run_all`
Here = dict[str, dict[str, Any]]  # by model, see `measure_here`

RESULTS = "results.json.gz"
FORMAT = "chaos-experiment-1"
WHOLE = "chaos-reproduction-1"
MOST_BYTES = 2**28  # of all results


def path_of(folder: Folder, one: Experiment) -> Path:
    """Of the file of one experiment while the reproduction goes on."""
    return Path(folder, "experiments", f"{one.name}.json")


def results(folder: Folder, experiments: Iterable[Experiment]) -> dict[Experiment, Kept]:
    """{experiment: result} of those that are finished; CheckpointError where the folder holds other experiments."""
    found: dict[Experiment, Kept] = {}
    whole = _whole(folder)
    for one in experiments:
        path = path_of(folder, one)
        if path.exists():
            kept, what = _load(path, parse_json), f"{path} is"
        elif one.name in whole["experiments"]:
            path = Path(folder, RESULTS)
            kept, what = whole["experiments"][one.name], f"{path} holds, as {one.name},"
        else:
            continue
        try:
            settings, history = kept["experiment"], kept["history"]
            if kept["format"] != FORMAT or not isinstance(history, list):
                raise ValueError("not the result of an experiment")
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged: {error}; delete it to run the experiment again") from None
        if settings != dataclasses.asdict(one):
            raise CheckpointError(f"{what} the result of another experiment ({settings}); name another folder")
        # earlier versions called what measures the training images once more by the paper's word
        found[one] = kept | {"history": [today(record, {}) for record in history]}
    return found


def measured(folder: Folder) -> Here:
    """What `measure_here` has found in an earlier session, {} if nothing."""
    here: Here = _whole(folder)["here"]
    return here


def write_one(folder: Folder, one: Experiment, kept: Kept) -> None:
    """Keeps the result of one experiment."""
    write_atomically(path_of(folder, one), json.dumps(kept, separators=(",", ":")).encode() + b"\n")


def write_all(folder: Folder, found: Mapping[Experiment, Kept], here: Here) -> Path:
    """Puts all results, and what was measured here, into RESULTS, and takes away the files of single experiments.

    Results that are there already and not in `found`, as those of other networks, stay.

    Returns
    -------
    Path
    """
    whole, path = _whole(folder), Path(folder, RESULTS)
    experiments = whole["experiments"] | {one.name: kept for one, kept in found.items()}
    content = {"format": WHOLE, "here": whole["here"] | here, "experiments": experiments}
    # gzip without the time of day: the same results are the same file
    write_atomically(path, gzip.compress(json.dumps(content, separators=(",", ":")).encode() + b"\n", 9, mtime=0))
    for one in found:
        path_of(folder, one).unlink(missing_ok=True)
    for part in ("experiments", "runs"):
        with contextlib.suppress(OSError):  # not there, or holding others
            Path(folder, part).rmdir()
    return path


def _whole(folder: Folder) -> dict[str, Any]:
    path = Path(folder, RESULTS)
    if not path.exists():
        return {"experiments": {}, "here": {}}
    found = _load(path, lambda content: parse_json(inflate(content, MOST_BYTES, gzip=True)))
    if not isinstance(found, dict) or found.get("format") != WHOLE:
        raise CheckpointError(f"{path}: not the results of a reproduction")
    for part in ("experiments", "here"):
        if not isinstance(found.get(part), dict):
            raise CheckpointError(f"{path}: damaged: {part} must be an object")
    return found


def _load(path: Path, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(path.read_bytes())
    except (ValueError, zlib.error) as error:
        raise CheckpointError(f"{path}: damaged: {error}; delete it to run the experiment again") from None
