"""What is done with a network's parameters by name: first values, freezing, counts; and the summary of it all. For
chaos.network."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core, freezing, initialisers
from .engines import Engines
from .layers import Layer, Node, whole
from .layers.base import Shape, Trained
from .places import Place
from .summary import Summary, summarise


class Parameters:
    """The part of chaos.Network that is about its parameters by name."""

    weights: NDArray[np.float32]
    _owner: dict[Node, Node]
    _places: dict[str, Place]
    _trained: set[str]
    _frozen: frozenset[str]
    _plan: _core.Plan | None
    _engines: Engines | None
    _lock: threading.Lock

    def nodes(self) -> list[tuple[Node, str]]:
        raise NotImplementedError

    def part_owner(self, node: Node) -> str:
        raise NotImplementedError

    def core_layers(self) -> list[tuple[str, Layer, list[Shape]]]:
        raise NotImplementedError

    def macs(self) -> dict[str, int]:
        raise NotImplementedError

    @property
    def plan(self) -> _core.Plan:
        raise NotImplementedError

    def initialise(
        self,
        weight: str | initialisers.Initialiser | None = None,
        bias: str | initialisers.Initialiser | None = None,
        *,
        pattern: str = "*",
        seed: int = 0,
    ) -> list[str]:
        """Gives parameters new first values; those that are frozen keep theirs.

        Parameters
        ----------
        weight, bias : str or Initialiser, optional
            For parameters of that name: one of chaos.initialisers, such as "kaiming_normal" or
            ``chaos.initialisers.kaiming_normal(mode="fan_out", nonlinearity="relu")``; "default": what they are made with.
            None leaves them alone. What needs fans or a matrix passes over vectors, such as the weights of normalisations.
        pattern : str
            Of names in `state_dict()`, as for `freeze`.
        seed : int
            A parameter's values depend on this and its name only.

        Returns
        -------
        list of str
            The names of the parameters that have new values.

        Raises
        ------
        ValueError
            Where the initialiser is unknown, or no parameter gets new values.
        """
        named = {
            name: what
            for node, owner in self._owner.items()
            if owner is node
            for name, what in freezing.parts(node, self.part_owner(node)).items()
            if isinstance(what, Trained) and name not in self._frozen
        }
        meant = {name: named[name] for name in freezing.matching(self._places, pattern) if name in named}
        values = initialisers.draw(meant, weight, bias, whole("seed", seed, 0))
        if not values:
            among = ", ".join(meant) or "no parameters"
            raise ValueError(f"weight={weight!r}, bias={bias!r} initialise nothing among {among}")
        for name, value in values.items():
            self._places[name].put(self.weights, value)
        return list(values)

    # ---- what training leaves as it is ----

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the frozen parameters, in the order of the layers."""
        return tuple(name for name in self._places if name in self._frozen)

    def freeze(self, pattern: str = "*") -> None:
        """From the next training on, leaves parameters as they are, to the bit, with every strategy and update rule. For
        what is frozen no gradient is formed, nor for what lies below everything that is trained. Where only the weight or
        only the bias of a layer is frozen, its gradient is formed but not applied.

        A layer whose running statistics are frozen uses them in training too (as PyTorch's in `eval()`); running
        statistics that the pattern does not name are observed as ever. Kept in files; `unfreeze` ends it.

        Parameters
        ----------
        pattern : str
            Of names in `state_dict()`, with *, ? and [...]: "features.*", "*.bias".

        Raises
        ------
        ValueError
            Where no parameter is named like that, or not all running statistics of a layer would be frozen.
        """
        self._freeze(self._frozen.union(freezing.matching(self._places, pattern)))

    def unfreeze(self, pattern: str = "*") -> None:
        """Lets trainings change these parameters again; see `freeze`."""
        self._freeze(self._frozen.difference(freezing.matching(self._places, pattern)))

    def freeze_named(self, names: Any) -> None:
        """Freezes what a file says; ValueError where it does not hold a list of names of parameters."""
        if not isinstance(names, list) or not all(isinstance(name, str) and name in self._places for name in names):
            raise ValueError(f"the description of the network is damaged: frozen {names!r} are not names of its parameters")
        if names:
            self._freeze(names)

    def _freeze(self, names: Iterable[str]) -> None:
        names = frozenset(names)
        freezing.check([(node, self.part_owner(node)) for node in self._owner], names)
        before = self._frozen
        with self._lock:
            self._frozen, self._plan, self._engines = names, None, None
            try:
                self.plan  # noqa: B018 (the core may refuse to part what lies together)
            except ValueError:
                self._frozen, self._plan = before, None
                raise

    def trained_places(self) -> dict[str, Place]:
        """{parameter: where its numbers are in `weights`}, without what layers observe."""
        return {name: place for name, place in self._places.items() if name in self._trained}

    def frozen_places(self) -> NDArray[np.int64]:
        """Where the frozen parameters are in `weights`."""
        return np.concatenate([np.empty(0, np.int64), *(self._places[name].index for name in self.frozen)])

    # ---- what there is ----

    def counts(self) -> dict[str, tuple[int, int]]:
        """{layer: (trained parameters, those that training leaves as they are)}, of the layers that have some; what is
        observed is no parameter."""
        found: dict[str, tuple[int, int]] = {}
        for node, first in self._owner.items():
            owner = self.part_owner(node)
            sizes = {
                name: self._places[name].size
                for name, what in freezing.parts(node, owner).items()
                if first is node and isinstance(what, Trained)
            }
            if sizes:
                frozen = sum(n for name, n in sizes.items() if name in self._frozen)
                found[owner] = sum(sizes.values()) - frozen, frozen
        return found

    def summary(self, batch_size: int = 1) -> Summary:
        """Layers with their shapes, parameters and multiply-adds, the loops that the core has chosen, memory per worker, and
        which rows and columns no window ever sees: ``print(net.summary())`` is a table, its attributes are the data.

        Parameters
        ----------
        batch_size : int
            Images of a worker's step; loops and memory depend on it.
        """
        return summarise(self, whole("batch_size", batch_size))
