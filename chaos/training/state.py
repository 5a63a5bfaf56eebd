"""What a run needs to be continued beside its weights, as tensors in the shapes of their parameters: the update rule's
state, and what the exchange between ranks goes on with. For chaos.training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..network import STATE

if TYPE_CHECKING:
    from .job import Job

EXCHANGE = f"{STATE}cluster."  # begins the names of tensors that belong to the exchange between ranks
Tensors = dict[str, NDArray[Any]]


def take_state(job: Job) -> Tensors:
    """What is kept beside the weights."""
    return _rule_state(job) | {
        f"{EXCHANGE}{name}.{parameter}": value
        for name, vector in job.link.state().items()
        for parameter, value in job.net.unpack(vector).items()
    }


def _rule_state(job: Job) -> Tensors:
    """The update rule's: moments, and how often each stripe of the weights has been updated; nothing if it has none."""
    if not job.rule.moments:
        return {}
    found = {
        f"{STATE}{name}.{parameter}": value
        for name, moment in zip(job.rule.state, job.moments, strict=True)
        for parameter, value in job.net.unpack(moment).items()
    }
    return found | {f"{STATE}versions": np.array(job.engine.versions(), np.int64)}


def give_state(job: Job, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Gives the job what `take_state` took; ValueError where it does not fit."""
    exchange = {name.removeprefix(EXCHANGE): value for name, value in tensors.items() if name.startswith(EXCHANGE)}
    tensors = {name: value for name, value in tensors.items() if not name.startswith(EXCHANGE)}
    wanted = _rule_state(job)
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
