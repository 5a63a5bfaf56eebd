"""Update rules and learning-rate schedules. cext/updates/list.h has the same list of rules."""

from .adagrad import Adagrad
from .adam import Adam
from .adamw import AdamW
from .momentum import Momentum
from .nesterov import Nesterov
from .rmsprop import RMSprop
from .schedules import SCHEDULES
from .sgd import SGD

UPDATES = {rule.kind: rule for rule in (SGD(), Momentum(), Nesterov(), Adagrad(), RMSprop(), Adam(), AdamW())}

__all__ = ["SCHEDULES", "UPDATES"]
