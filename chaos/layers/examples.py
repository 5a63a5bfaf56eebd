"""Chooses the examples that kinds give of themselves, at random: for benchmarks, tests, and the C driver, which reads them
as text (tests/c/layers.txt, written by tests/test_layers.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class Picker:
    """What `Layer.example` chooses with, by a NumPy generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, values: Sequence[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def whole(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))


def lines(kinds: Iterable[Any], count: int = 6, seed: int = 0) -> list[str]:
    """A line for each of `count` examples of every kind: core kind, channels, number of inputs and their (c, h, w), numbers
    of whole and of real options and these."""
    found = []
    for kind in kinds:
        pick = Picker(np.random.default_rng(seed))
        for _ in range(count):
            layer, shapes = kind.example(pick)
            core = layer.core(*shapes)
            seen = [(shape[0], 1, shape[1]) if len(shape) == 2 else (*shape, 1, 1)[:3] for shape in shapes]
            numbers = [core.channels, len(seen), *(n for shape in seen for n in shape), len(core.whole), *core.whole]
            found.append(" ".join([core.kind, *(str(int(n)) for n in numbers), str(len(core.real)), *map(repr, core.real)]))
    return found
