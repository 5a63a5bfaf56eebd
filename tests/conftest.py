"""Fixtures of all tests, their order, and which of them may run at the same time."""

import os
import random
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

import chaos
from chaos import _core

# A shell's background job ignores Ctrl-C, and its children with it; the tests send it to themselves and to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

# These start ranks, pin threads or count what the cores do: two of them at once would only wait for each other.
BOTH_CORES = ("test_cluster", "test_callbacks", "test_pinning", "test_quiet_epoch")
FIRST = (  # what takes longest: begun late, it would leave the other process with nothing to do
    "both-cores",
    "test_sanitizers",
    "test_strategies",
    "test_registration",
    "test_layers",
    "test_virtual",
    "test_cross",
    "test_virtual_runs",
    "test_estimators",
    "test_models",
    "test_updates",
)
LAST = "test_is_not_inferior_to_sequential"  # many of some seconds each, for whichever process is through first


def group(nodeid):
    """The name of the tests that run in one process of pytest-xdist, one after the other: those of a file, so that what they
    share is made once; those of BOTH_CORES; each of LAST for itself."""
    file, _, test = nodeid.partition("::")
    if test.startswith(LAST):
        return nodeid
    stem = Path(file).stem
    return "both-cores" if stem.startswith(BOTH_CORES) else stem


def place(item):
    """Where a test comes in the order: what takes longest first, LAST last."""
    name = group(item.nodeid)
    return FIRST.index(name) if name in FIRST else len(FIRST) + (name == item.nodeid)


def beside_each_other(items):
    """The items, each that is run on several instruction sets followed by the same one on the others, for which hypothesis
    draws the same examples: what they are held to (nets.Oracle) is then computed once."""
    seed, places = random.getrandbits(32), {}
    for item in items:
        params = getattr(item, "callspec", None) and dict(item.callspec.indices)
        if params and params.pop("isa", None) is not None:
            if hypothesis.is_hypothesis_test(item.obj):
                hypothesis.seed(seed)(item.function)
            place = item.nodeid.partition("[")[0], *sorted(params.items())
        else:
            place = item.nodeid
        places.setdefault(place, []).append(item)
    return [item for same in places.values() for item in same]


def pytest_addoption(parser):
    parser.addoption("--nightly", action="store_true", help="also run what is marked so: long, for scripts/nightly.sh")


def pytest_configure(config):
    if config.getoption("--nightly"):
        import nets

        nets.NIGHTLY = True


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--nightly"):
        late = [item for item in items if item.get_closest_marker("nightly")]
        if late:
            config.hook.pytest_deselected(items=late)
            items[:] = [item for item in items if item not in late]
    items[:] = beside_each_other(items)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=place)


def pytest_sessionfinish():
    if "mpi" in sys.modules:
        sys.modules["mpi"].sweep()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def nightly(request):
    """Whether there is time: for tests that do by night more of what they do by day."""
    return request.config.getoption("--nightly")


@pytest.fixture(params=_core.instruction_sets())
def isa(request):
    """Runs the test once per instruction set that this machine supports."""
    before = _core.get_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture(scope="module")
def digits():
    """(training set, test set), 29 by 29 pixels."""
    return chaos.data.load("digits", size=29)


@pytest.fixture(scope="module")
def few_digits(digits):
    train, test = digits
    return train[:300], test[:100]
