"""An augmentation that the tree does not know: see tests/test_registration.py."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Core, Paint


@dataclass(frozen=True)
class Inverts(Paint):
    """Numbers below `threshold` become `top` minus them."""

    top: float = 255.0
    threshold: float = 128.0

    kind: ClassVar[str] = "inverts"

    def core(self):
        return Core("inverts", (self.p, self.top, self.threshold))

    def paint(self, x, draws, black, unit, bounds):
        own = (x - black) / unit
        own[own < self.threshold] = self.top - own[own < self.threshold]
        return black + own * unit
