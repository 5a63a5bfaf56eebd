"""A strategy for tests/test_registration.py; the fast half is eager.c."""

from .base import Strategy


class Eager(Strategy):
    """Every layer's update at once, one worker."""

    name = "eager"
    single = True
