"""Update rules and learning-rate schedules.

To add a rule: chaos/updates/x.py, cext/updates/x.c, and one line here.
"""

from .adagrad import Adagrad
from .adam import Adam
from .adamw import AdamW
from .base import Update
from .momentum import Momentum
from .nesterov import Nesterov
from .rmsprop import RMSprop
from .schedules import SCHEDULES
from .sgd import SGD

UPDATES = {
    kind.kind: kind()
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Update) and kind.kind
}

__all__ = ["SCHEDULES", "UPDATES"]
