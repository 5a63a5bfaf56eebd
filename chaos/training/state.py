"""What a run needs to be continued beside its weights, as tensors in the shapes of their parameters: the update rule's
state, and what the exchange between ranks goes on with. For chaos.training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..network import STATE

if TYPE_CHECKING:
    from .job import Job

EXCHANGE = f"{STATE}cluster."  # begins the names of tensors that belong to the exchange between ranks
Tensors = dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class State:
    """What a job goes on with, as it was at one moment while no worker ran: copies.

    Attributes
    ----------
    weights, moments, versions : ndarray
        Laid out as the network's, the update rule's and the engine's.
    exchange : dict
        As `Alone.state` gives it.
    """

    weights: NDArray[np.float32]
    moments: NDArray[np.float32]
    versions: NDArray[np.int64]
    exchange: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, job: Job, moments: bool = True) -> State:
        """That of a job; without `moments` it is good for the weights only."""
        return cls(
            job.net.weights.copy(),
            job.moments[: None if moments else 0].copy(),
            np.array(job.engine.versions(), np.int64),
            {name: vector.copy() for name, vector in job.link.state().items()} if moments else {},
        )

    def give(self, job: Job) -> None:
        """Gives it back to the job, whose link keeps nothing beside it."""
        job.net.weights[:] = self.weights
        job.moments[:] = self.moments
        if len(self.moments):
            job.engine.versions(self.versions.astype(np.uint32))

    def tensors(self, job: Job) -> Tensors:
        """What is kept beside the weights."""
        return _rule_state(job, self.moments, self.versions) | {
            f"{EXCHANGE}{name}.{parameter}": value
            for name, vector in self.exchange.items()
            for parameter, value in job.net.unpack(vector).items()
        }


def _rule_state(job: Job, moments: NDArray[np.float32], versions: NDArray[np.int64]) -> Tensors:
    """The update rule's: moments, and how often each stripe of the weights has been updated; nothing if it has none."""
    if not job.rule.moments:
        return {}
    found = {
        f"{STATE}{name}.{parameter}": value
        for name, moment in zip(job.rule.state, moments, strict=True)
        for parameter, value in job.net.unpack(moment).items()
    }
    return found | {f"{STATE}versions": versions}


def give_state(job: Job, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Gives the job what `State.tensors` gave; ValueError where it does not fit."""
    exchange = {name.removeprefix(EXCHANGE): value for name, value in tensors.items() if name.startswith(EXCHANGE)}
    tensors = {name: value for name, value in tensors.items() if not name.startswith(EXCHANGE)}
    wanted = _rule_state(job, job.moments, np.array(job.engine.versions(), np.int64))
    if tensors.keys() != wanted.keys():
        raise ValueError(
            f"the update rule's state does not fit: missing {sorted(wanted.keys() - tensors.keys())}, "
            f"unknown {sorted(tensors.keys() - wanted.keys())}"
        )
    for name, value in wanted.items():
        if tensors[name].shape != value.shape or tensors[name].dtype != value.dtype or not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} must be {value.dtype} of shape {value.shape}, and finite")
    if wanted:
        for name, moment in zip(job.rule.state, job.moments, strict=True):
            job.net.pack({p: tensors[f"{STATE}{name}.{p}"] for p in job.net.state_dict()}, moment)
        job.engine.versions(tensors[f"{STATE}versions"].astype(np.uint32))
    job.link.restore(_vectors(job, exchange))


def _vectors(job: Job, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """{"mode.name": vector laid out as the weights} of tensors {"mode.name.parameter": array}, checked."""
    shapes = {parameter: value.shape for parameter, value in job.net.state_dict().items()}
    parts: dict[str, Tensors] = {}
    for name, value in tensors.items():
        mode, _, rest = name.partition(".")
        vector_name, _, parameter = rest.partition(".")
        if value.shape != shapes.get(parameter) or value.dtype != np.float32 or not np.isfinite(value).all():
            raise ValueError(f"{EXCHANGE}{name} must belong to a parameter, and be float32 of its shape, and finite")
        parts.setdefault(f"{mode}.{vector_name}", {})[parameter] = value
    found = {}
    for name, values in parts.items():
        if values.keys() != shapes.keys():
            raise ValueError(f"{EXCHANGE}{name} lacks {sorted(shapes.keys() - values.keys())}")
        vector = np.zeros(job.net.plan.weight_size, np.float32)
        job.net.pack(values, vector)
        found[name] = vector
    return found
