"""Fixtures of all tests."""

import signal

import pytest

from chaos import _core

# A shell's background job ignores Ctrl-C, and its children with it; the tests send it to themselves and to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=_core.instruction_sets())
def isa(request):
    """Runs the test once per instruction set that this machine supports."""
    before = _core.get_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)
