"""A committee: networks that are asked together. Imported by chaos.many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network import Network


class Committee:
    """Networks whose probabilities are averaged, as Ciresan, Meier, Schmidhuber 2012 (multi-column networks).

    Parameters
    ----------
    networks : iterable of Network
        With as many inputs and outputs each, such as `Results.networks`.
    views : iterable of callables or None, optional
        What each member sees of the images, ``view(images)``; None: the images as they are. A member is to be asked for
        what it was trained on (`chaos.models.at_width`).

    Raises
    ------
    ValueError
        If there are none, or they do not fit each other, or there are not as many views.

    Examples
    --------
    >>> committee = chaos.Committee(chaos.train_many(jobs).networks)  # doctest: +SKIP
    >>> committee.predict(images)  # doctest: +SKIP
    """

    def __init__(self, networks: Iterable[Network], views: Iterable[Callable[[Any], Any] | None] | None = None) -> None:
        if isinstance(networks, Network):
            raise TypeError("a committee is made of a list of networks, not of one")
        self.networks = list(networks)
        self.views = [None] * len(self.networks) if views is None else list(views)
        if not self.networks:
            raise ValueError("a committee needs at least one network")
        for net in self.networks:
            if not isinstance(net, Network):
                raise TypeError(f"a committee has chaos.Network for members, not {type(net).__name__}")
            first = self.networks[0]
            if (net.input_shape, net.output_shape) != (first.input_shape, first.output_shape):
                raise ValueError(
                    f"the members do not fit: {first.input_shape} to {first.output_shape}, and {net.input_shape} to "
                    f"{net.output_shape}"
                )
        if len(self.views) != len(self.networks):
            raise ValueError(f"{len(self.networks)} networks and {len(self.views)} views: each member has one, or None")
        for view in self.views:
            if view is not None and not callable(view):
                raise TypeError(f"a view is a function of the images, or None, not {view!r}")

    def predict_proba(self, x: Any) -> NDArray[np.float32]:
        """The mean of the members' probabilities: (n, classes) or (n, channels, ...) float32."""
        members = zip(self.networks, self.views, strict=True)
        each = [net.predict_proba(x if view is None else view(x)) for net, view in members]
        total: NDArray[np.float64] = np.sum(each, axis=0, dtype=np.float64)
        mean: NDArray[np.float32] = (total / len(self.networks)).astype(np.float32)
        return mean

    def predict(self, x: Any) -> NDArray[np.int64]:
        """The class with the largest mean probability for each image: (n,) int64."""
        classes: NDArray[np.int64] = self.predict_proba(x).argmax(1)
        return classes

    def __len__(self) -> int:
        return len(self.networks)

    def __repr__(self) -> str:
        first = self.networks[0]
        return f"<Committee of {len(self)} networks: {first.input_shape} to {first.output_shape}>"
