"""Fixtures of all tests, and which of them may run at the same time."""

import os
import signal

import pytest

import chaos
from chaos import _core

# A shell's background job ignores Ctrl-C, and its children with it; the tests send it to themselves and to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

# These start ranks, pin threads or count what the cores do: two of them at once would only wait for each other.
BOTH_CORES = ("test_cluster", "test_pinning", "test_quiet_epoch")
FIRST = ("both-cores", "test_sanitizers")  # what takes longest
LAST = "test_is_not_inferior_to_sequential"  # many of some seconds each, for whichever process is through first


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """In the processes of pytest-xdist (scripts/test.sh): the tests of a file follow each other in one process, so that what
    they share is made once; those of BOTH_CORES are one group; and what takes longest begins first."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return

    def group(item):
        return "both-cores" if item.path.stem.startswith(BOTH_CORES) else item.path.stem

    def place(item):
        return (
            -1
            if getattr(item, "originalname", None) == LAST
            else len(FIRST) - FIRST.index(group(item))
            if group(item) in FIRST
            else 0
        )

    for item in items:
        if place(item) >= 0:
            item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=place, reverse=True)


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
