"""What a report tells of the machine it is made on: times of layers, and our own performance model. For chaos.reproduce.

Measured once per network and kept with the results, so that the report can be made again anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import virtual
from ..models import MODELS as ZOO
from ..perfmodel import estimate
from .experiments import Experiment
from .store import Here, Kept


def measure_here(found: Mapping[Experiment, Kept], known: Here | None = None) -> Here:
    """What is measured and predicted here and now; some seconds per network.

    Parameters
    ----------
    found : dict
        As `run_all` returns it.
    known : dict, optional
        What has been measured already, which is not measured again.

    Returns
    -------
    dict
        {model: {"layers": {"names", "begin", "forward", "backward", "publish": seconds per image},
        "predicted": [[real workers, us per image], ...]}}, JSON-able.
    """
    known = known or {}
    here: Here = {}
    for model in dict.fromkeys(one.model for one in found):
        before = known.get(model, {})
        here[model] = {"layers": before.get("layers") or _layers(model), "predicted": before.get("predicted", [])}
        real = sorted((one for one in found if one.model == model and not one.virtual), key=lambda one: one.workers)
        if {one.workers for one in real} - {workers for workers, _ in here[model]["predicted"]}:
            here[model]["predicted"] = _predicted(model, real, found[real[0]])
    return {**known, **here}


def _layers(model: str) -> dict[str, Any]:
    net = ZOO[model]()
    times = virtual.measured(net)
    return {
        "names": [f"{name} {layer.kind}" for name, layer, _ in net.core_layers()],
        "begin": times.begin,
        **{what: list(getattr(times, what)) for what in ("forward", "backward", "publish")},
    }


def _predicted(model: str, real: Sequence[Experiment], kept: Kept) -> list[list[float]]:
    found = estimate(
        model,
        [one.workers for one in real],
        images=kept["images"],
        test_images=kept["test_images"],
        epochs=real[0].epochs,
        validate=True,
    )
    return [[one.workers, point["us_per_image"]] for one, point in zip(real, found["points"], strict=True)]
