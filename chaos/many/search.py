"""`search`: hyper-parameters and architectures, tried by cross-validation or on held-out images. Imported by chaos.many."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import api
from ..data import Dataset
from ..hints import TRAINING, meant
from ..network import Network
from ..options import check_number
from .together import SETTINGS, Results, Row, train_many

MEASURES = ("error", "loss")


@dataclasses.dataclass(repr=False)
class Search:
    """What `search` returns.

    Attributes
    ----------
    results : Results
        One row per candidate, in the order in which they were tried: candidate (its number), its parameters by name,
        validation_error and validation_loss (means over the folds), validation_error_std and validation_loss_std, seconds
        (of all folds), failed (how many folds have), error (the text of the first failure, or None), rank (from 1).
    best_params : dict
        Of the candidate with rank 1.
    best_score : float
        Its mean validation error, or loss.
    network : Network or None
        Trained with them on all images; None with ``refit=False``.
    jobs : Results
        What `train_many` said about every candidate and fold.
    """

    results: Results
    best_params: dict[str, Any]
    best_score: float
    network: Network | None
    jobs: Results

    def __repr__(self) -> str:
        """One line, such as ``<Search: 4 candidates, best {'lr': 0.1}, score 0.031>``."""
        return f"<Search: {len(self.results)} candidates, best {self.best_params}, score {self.best_score:.4g}>"

    def to_frame(self) -> Any:
        """`results` as a pandas.DataFrame."""
        return self.results.to_frame()


def search(
    build: Callable[..., Network],
    data: Dataset,
    space: Mapping[str, Any],
    *,
    n_iter: int | None = None,
    validation: int | float | Dataset = 5,
    by: str = "error",
    refit: bool = True,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> Search:
    """Tries settings and architectures, as many trainings at a time as there are cores (`train_many`).

    Parameters
    ----------
    build : callable
        build(**parameters) -> Network: called for every training with those parameters of the candidate that are no argument
        of `chaos.train`.
    data : Dataset
    space : dict
        {name: list of values}, tried in all combinations; with `n_iter` drawn at random: a list, a function of a
        numpy.random.Generator that gives a value, or a distribution of scipy.stats. Names are arguments of `chaos.train`
        ("lr", "batch_size", "update", ...) or of `build`.
    n_iter : int, optional
        How many candidates are drawn; None: all combinations.
    validation : int, float or Dataset
        Number of folds (cross-validation); or the share of the images that is held out, once; or a data set. Folds and share
        are drawn by `seed`, and have all classes in equal shares.
    by : str
        "error" or "loss": what is to be small.
    refit : bool
        Whether to train the best candidate on all images in the end.
    seed : int
        Of what is drawn here, and of the trainings unless the space has "seed".
    workers, progress
        As for `train_many`.
    **settings
        Further arguments of `chaos.train`, the same for all candidates.

    Returns
    -------
    Search

    Raises
    ------
    ValueError, TypeError
        If the space or the validation make no sense; if all candidates fail, with the first reason.

    Examples
    --------
    >>> def build(width):
    ...     return chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(width), chaos.Tanh(), chaos.Linear(10)])
    >>> found = chaos.search(build, data, {"width": [20, 50], "lr": [0.01, 0.1]}, epochs=5)  # doctest: +SKIP
    >>> found.best_params, found.network.predict(images)  # doctest: +SKIP
    """
    if not callable(build) or isinstance(build, Network):
        raise TypeError(f"build must be a function that makes a chaos.Network, not {type(build).__name__}")
    if by not in MEASURES:
        raise ValueError(f"by must be one of {', '.join(MEASURES)}, not {by!r}")
    unknown = [name for name in settings if name not in SETTINGS - {"train", "test", "callbacks", "run_dir", "resume"}]
    if unknown:
        known = SETTINGS - {"train", "test", "callbacks", "run_dir", "resume"}
        raise ValueError(
            f"chaos.train has no {unknown[0]!r} that is the same for all candidates{meant(unknown[0], known, TRAINING)}; "
            "parameters go into the space"
        )
    candidates = list(_candidates(space, n_iter, np.random.default_rng([seed, 1])))
    parts = _parts(data, validation, seed)
    jobs = [
        _job(build, params, seed, settings) | {"train": train, "test": test, "label": {"candidate": k, "fold": fold}}
        for k, params in enumerate(candidates)
        for fold, (train, test) in enumerate(parts)
    ]
    done = train_many(jobs, workers=workers, progress=progress, keep_networks=False)
    results = Results(_row(k, params, [row for row in done if row["candidate"] == k]) for k, params in enumerate(candidates))
    scored = [row for row in results if not math.isnan(row[f"validation_{by}"])]
    if not scored:
        done.raise_failed()
        raise ValueError(f"no candidate has a validation {by}")
    for rank, row in enumerate(sorted(scored, key=lambda row: row[f"validation_{by}"]), 1):
        row["rank"] = rank
    best = min(scored, key=lambda row: row["rank"])
    params = candidates[best["candidate"]]
    network = None
    if refit:
        job = _job(build, params, seed, settings)
        network = job.pop("network")()
        api.train(network, data, **job, workers=1, progress=False)
    return Search(results, params, best[f"validation_{by}"], network, done)


def _job(build: Callable[..., Network], params: Mapping[str, Any], seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is a candidate's in its jobs."""
    own = {name: value for name, value in params.items() if name not in SETTINGS}
    trained = {name: value for name, value in params.items() if name in SETTINGS}
    return {"seed": seed, **settings, **trained, "network": lambda: build(**own)}


def _row(k: int, params: Mapping[str, Any], folds: Sequence[Row]) -> Row:
    """The row of a candidate: of folds some of which have failed it tells nothing but that."""
    failed = [row for row in folds if row["status"] != "done"]
    row: Row = {"candidate": k, **params}
    for name in MEASURES:
        values = [row[f"test_{name}"] for row in folds if row.get(f"test_{name}") is not None]
        whole = not failed and len(values) == len(folds)
        row[f"validation_{name}"] = float(np.mean(values)) if whole else math.nan
        row[f"validation_{name}_std"] = float(np.std(values)) if whole else math.nan
    row["seconds"] = sum(row["seconds"] for row in folds)
    return row | {"failed": len(failed), "error": failed[0]["error"] if failed else None, "rank": None}


def _candidates(space: Mapping[str, Any], n_iter: int | None, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"space must be a dict of parameters and their values, not {space!r}")
    lists = {name: list(values) for name, values in space.items() if isinstance(values, (list, tuple, range, np.ndarray))}
    for name, values in space.items():
        if name in lists and not lists[name]:
            raise ValueError(f"space has no value for {name!r}")
        if name not in lists and not (callable(values) or hasattr(values, "rvs")):
            raise ValueError(f"space: {name!r} must be a list of values, a function or a distribution, not {values!r}")
        if name not in lists and n_iter is None:
            raise ValueError(f"space: {name!r} is drawn at random; say how often with n_iter")
    if n_iter is None:
        for values in itertools.product(*lists.values()):
            yield dict(zip(lists, values, strict=True))
        return
    check_number("n_iter", n_iter, 1, whole=True)
    for _ in range(n_iter):
        yield {name: _draw(values, lists.get(name), rng) for name, values in space.items()}


def _draw(values: Any, listed: list[Any] | None, rng: np.random.Generator) -> Any:
    if listed is not None:
        return listed[int(rng.integers(len(listed)))]
    found = values.rvs(random_state=rng) if hasattr(values, "rvs") else values(rng)
    return found.item() if isinstance(found, np.generic) else found


def _parts(data: Dataset, validation: Any, seed: int) -> list[tuple[Dataset, Dataset]]:
    """[(training, validation), ...]"""
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a chaos.data.Dataset, not {type(data).__name__}")
    if isinstance(validation, Dataset):
        return [(data, validation)]
    n = len(data)
    if isinstance(validation, (int, np.integer)) and not isinstance(validation, bool):
        if not 2 <= validation <= n:
            raise ValueError(f"validation must be from 2 to {n} folds, not {validation}")
        fold = np.empty(n, np.int64)
        fold[_by_class(data, seed)] = np.arange(n) % int(validation)
        return [(data[fold != k], data[fold == k]) for k in range(int(validation))]
    check_number("validation", validation, 0, 1, above=True)
    order = _by_class(data, seed)
    labels = data.labels[order] if _has_classes(data) else np.zeros(n, np.int64)
    _, first, counts = np.unique(labels, return_index=True, return_counts=True)
    place = np.concatenate([(np.arange(count) + 0.5) / count for count in counts[np.argsort(first)]])  # in its class, 0..1
    held_out = np.zeros(n, bool)
    held_out[order[np.argsort(place, kind="stable")[: max(round(validation * n), 1)]]] = True
    if held_out.all():
        raise ValueError(f"validation={validation} leaves none of {n} images to train on")
    return [(data[~held_out], data[held_out])]


def _has_classes(data: Dataset) -> bool:
    labels = data.labels  # of several outputs a tuple
    return isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind == "i"


def _by_class(data: Dataset, seed: int) -> NDArray[np.int64]:
    """The images at random, where they have classes one class after the other."""
    order = np.random.default_rng([seed, 2]).permutation(len(data))
    return order[np.argsort(data.labels[order], kind="stable")] if _has_classes(data) else order
