"""What a training shows: a bar on a terminal, one line per epoch elsewhere. For chaos.trainer."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """Context manager that draws to standard error; silent when not `on`."""

    def __init__(self, on: bool, epochs: int) -> None:
        self.on, self.epochs = on, epochs
        self.bar: Any = None  # of tqdm, like the next
        self.tqdm: Any = None
        if on and sys.stderr is not None and sys.stderr.isatty():
            try:
                from tqdm import tqdm  # type: ignore[import-untyped]
            except ImportError:  # the extra `progress` is not installed
                pass
            else:
                self.tqdm = tqdm

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def note(self, text: str) -> None:
        """Prints a line."""
        self._close()
        if not self.on or sys.stderr is None:
            return
        try:
            print(text, file=sys.stderr, flush=True)
        except BrokenPipeError:  # whoever has asked to see it has gone
            raise
        except OSError:  # a log that is full is no reason to lose a training
            self.on = False

    def begin(self, epoch: int, phase: str, total: int, done: int = 0) -> None:
        """A phase of `total` images begins."""
        self._close()
        if self.tqdm:
            self.bar = self.tqdm(
                desc=f"epoch {epoch}/{self.epochs} {phase}",
                total=total,
                initial=done,
                unit="img",
                leave=False,
                dynamic_ncols=True,
            )

    def at(self, position: int) -> None:
        """The phase has picked this many images."""
        if self.bar is not None:
            self.bar.update(position - self.bar.n)

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is finished."""
        text = (
            f"epoch {record['epoch']}/{self.epochs}  train loss {record['train_loss']:.4f} error {record['train_error']:.2%}"
        )
        for phase in ("validation", "test"):
            if record.get(f"{phase}_error") is not None:
                text += f"  {phase} loss {record[f'{phase}_loss']:.4f} error {record[f'{phase}_error']:.2%}"
        self.note(f"{text}  {record['images_per_second']:,.0f} images/s  staleness {record['staleness']['mean']:.2f}")
