"""Update rules and learning-rate schedules. cext/updates/list.h has the same list of rules."""

from .schedules import exponential
from .sgd import SGD

UPDATES = {rule.kind: rule for rule in (SGD(),)}

__all__ = ["UPDATES", "exponential"]
