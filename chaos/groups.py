"""Parameters for which an update rule has another learning rate or no decay, as the core wants to know them. For
chaos.training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from .freezing import matching
from .places import Place

LANES = 16  # floats: the layout of the weights keeps parts of a layer so far apart
Classes = list[tuple[float, bool]]  # (factor of the learning rate, whether there is no decay)


def classes(
    places: Mapping[str, Place], size: int, no_decay: Iterable[str], scales: Iterable[tuple[str, float]]
) -> tuple[Classes, NDArray[np.uint8] | None]:
    """The classes of parameters, and the number of that of each LANES of the weight vector; nothing where there is only one.

    Parameters
    ----------
    places : dict of str to Place
        Where each parameter is in the weight vector.
    size : int
        Of that vector.
    no_decay : list of str
        Patterns of the names without decay; ValueError where one fits none.
    scales : list of (str, float)
        Patterns and factors of the learning rate.
    """
    if not (no_decay := list(no_decay)) and not (scales := list(scales)):
        return [], None
    undecayed = {name for pattern in no_decay for name in matching(places, pattern)}
    factor = {name: scale for pattern, scale in scales for name in matching(places, pattern)}
    known: dict[tuple[float, bool], int] = {(1.0, False): 0}
    found, owner = np.zeros(size // LANES, np.uint8), np.full(size // LANES, -1)
    for number, (name, place) in enumerate(places.items()):
        kind = known.setdefault((factor.get(name, 1.0), name in undecayed), len(known))
        if kind > 255:
            raise ValueError("lr_scale has more than 255 different factors")
        lanes = np.unique(place.index // LANES)
        shared = (owner[lanes] >= 0) & (found[lanes] != kind)
        if shared.any():
            other = list(places)[owner[lanes][shared][0]]
            raise ValueError(f"{name} and {other} lie together in memory: no_decay and lr_scale must treat them alike")
        found[lanes], owner[lanes] = kind, number
    return (list(known), found) if len(known) > 1 else ([], None)
