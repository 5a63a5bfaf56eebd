"""Fixtures of all tests."""

import pytest

from chaos import _core


@pytest.fixture(params=_core.instruction_sets())
def isa(request):
    """Runs the test once per instruction set that this machine supports."""
    before = _core.get_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)
