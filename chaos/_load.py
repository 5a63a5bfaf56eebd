"""Loads the core, before anything else of chaos and with an eye on what its OpenMP runtime does to this thread. For
chaos/__init__.py."""

from . import affinity

with affinity.observed():
    from . import _core as _core
