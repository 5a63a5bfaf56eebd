"""The losses: meaning and NumPy definition. cext/losses/list.h has the same list.

A loss is a module-level object with `kind`, `value(y, labels)` (mean over the samples) and `gradient(y, labels)` (of that
mean); y is (n, k), labels (n,) integers in 0..k-1.
"""

from .cross_entropy import CrossEntropy
from .mse import MeanSquaredError
from .score import Score

LOSSES = {loss.kind: loss for loss in (CrossEntropy(), MeanSquaredError(), Score())}

__all__ = ["LOSSES"]
