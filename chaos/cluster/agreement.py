"""What the ranks of a job must have in common, and how their differences are told. For chaos.cluster and the CLI."""

import functools
import zlib
from pathlib import Path

import numpy as np

from .. import _core
from .._version import __version__
from ..training.settings import ABOUT

# of every rank's own, or of rank 0 only
_FREE = {"workers", "pin", "run_dir", "resume", "checkpoint_every", "keep_checkpoints", "progress", "stall_timeout"}
_FREE |= {"cluster", "cluster_options"}  # compared before
_LARGE = {"network", "train", "validation", "test", "sample_weight"}  # that they differ is said, not how
_NONE = "none"  # no network, no data set: complained about where it is used


def of_process(mode):
    """What processes must have in common before any of them knows what it is to train."""
    return {
        "cluster": mode.name,
        "cluster_options": mode.option,
        "version of chaos": __version__,
        "code of chaos": _code(),
        "instruction set (CHAOS_ISA=NAME chooses one)": _core.get_isa(),
        "winograd": _core.get_winograd(),
    }


def of_training(net, train, test, settings, validation=None, sample_weight=None):
    """What trainings must have in common. ValueError, TypeError where settings make no sense; what is no network or no data
    set is found where it is used."""
    settings = settings.resolved()
    found = {name: getattr(settings, name) for name in ABOUT if name not in _FREE}
    found["metrics"] = [one if isinstance(one, str) else getattr(one, "__name__", "") for one in settings.metrics]
    found["sample_weight"] = None if sample_weight is None else zlib.crc32(np.ascontiguousarray(sample_weight))
    found["network"] = net.config() if hasattr(net, "config") else _NONE
    for name, data in (("train", train), ("validation", validation), ("test", test)):
        found[name] = None if data is None else data.fingerprint() if hasattr(data, "fingerprint") else _NONE
    return found


def of_arguments(arguments):
    """What the commands that have started the ranks must have in common: the options that were given."""
    names = ("model", "data", "validation_data", "subset", *(name for name in ABOUT if name not in _FREE))
    return {name: getattr(arguments, name, None) for name in names}


def differences(told):
    """In what the ranks differ, in words, from what each has told (dicts with the same keys); None: in nothing."""
    found = []
    for name in dict.fromkeys(key for one in told for key in one):
        values = [one.get(name) for one in told]
        if all(value == values[0] for value in values) or (name in _LARGE and _NONE in values):
            continue
        if name in _LARGE:
            others = [rank for rank, value in enumerate(values) if value != values[0]]
            what = {"network": "layers of the network", "sample_weight": "sample weights"}.get(name, f"{name} images")
            found.append(f"{what} ({_ranks(others)} {'has' if len(others) == 1 else 'have'} others than rank 0)")
        elif all(isinstance(value, dict) for value in values):
            for key in dict.fromkeys(key for value in values for key in value):
                inner = [value.get(key) for value in values]
                if any(one != inner[0] for one in inner):
                    found.append(f"{name} {key} ({_values(inner)})")
        else:
            found.append(f"{name} ({_values(values)})")
    return "; ".join(found) or None


def _values(values):
    by_value = {}
    for rank, value in enumerate(values):
        by_value.setdefault(repr(value), []).append(rank)
    return ", ".join(f"{value} on {_ranks(ranks)}" for value, ranks in by_value.items())


def _ranks(ranks):
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(map(str, ranks[:8]))
    return f"ranks {shown}{', ...' if len(ranks) > 8 else ''}"


@functools.cache
def _code():
    """A checksum over the package's Python files: versions under development have one number."""
    folder = Path(__file__).parent.parent
    try:
        paths = sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).parts)
        return f"{functools.reduce(lambda sum, path: zlib.crc32(path.read_bytes(), sum), paths, 0):08x}"
    except OSError:  # not in files
        return None
