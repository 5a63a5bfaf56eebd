"""What ends trainings from another thread. For the files of this folder."""

from __future__ import annotations

from typing import Any

from ..training import Callback


class Stopper(Callback):
    """A callback of any number of trainings, which all end soon after `set`."""

    def __init__(self) -> None:
        self.asked = False

    def set(self) -> None:
        self.asked = True

    def look(self, event: Any) -> None:
        if self.asked:
            event.stop()

    def train_begin(self, event: Any) -> None:
        self.look(event)

    def step(self, event: Any) -> None:
        self.look(event)

    def epoch_end(self, event: Any, record: Any) -> None:
        self.look(event)
