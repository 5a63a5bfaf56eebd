"""The losses: targets, options and NumPy definition.

To add one: chaos/losses/x.py, cext/losses/x.c, and one line here.
"""

from .base import CLASS, IGNORED, MAP, VALUES, Loss
from .binary_cross_entropy import BinaryCrossEntropy
from .cross_entropy import CrossEntropy
from .differences import Huber, MeanAbsoluteError, SmoothL1
from .kl_div import KullbackLeibler
from .mse import MeanSquaredError
from .multi_margin import MultiMargin
from .nll import NegativeLogLikelihood
from .rbf import RadialBasis
from .score import Score
from .sums import Losses, Sum, Term

LOSSES = Losses((loss.kind, loss()) for loss in list(globals().values()) if isinstance(loss, type) and hasattr(loss, "kind"))

__all__ = ["CLASS", "IGNORED", "LOSSES", "MAP", "VALUES", "Loss", "Sum", "Term"]
