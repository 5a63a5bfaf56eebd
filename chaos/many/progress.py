"""One display for many trainings. For chaos.many.together."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from ..streams import is_terminal, tell

PAUSE = 10.0  # seconds between lines where there is no terminal


class Bar:
    """Counts jobs: a bar on a terminal, else a line now and then, and one at the end."""

    def __init__(self, jobs: int, on: bool, workers: int) -> None:
        self.jobs, self.on, self.done, self.failed = jobs, on, 0, 0
        self.start = self.told = time.monotonic()
        self.bar: Any = None
        if on and is_terminal(sys.stderr):
            try:
                from tqdm import tqdm
            except ImportError:  # the extra `progress` is not installed
                pass
            else:
                self.bar = tqdm(total=jobs, unit="job", desc=f"{workers} at a time", dynamic_ncols=True)

    def add(self, row: dict[str, Any]) -> None:
        """A job has come to its end."""
        self.done += 1
        self.failed += row["status"] == "failed"
        if self.bar is not None:
            self.bar.update()
            if self.failed:
                self.bar.set_postfix(failed=self.failed)
        elif self.on and (self.done == self.jobs or time.monotonic() - self.told > PAUSE):
            self.told = time.monotonic()
            failed = f", {self.failed} failed" if self.failed else ""
            self.on = tell(f"{self.done} of {self.jobs} jobs{failed}, {self.told - self.start:.1f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()
