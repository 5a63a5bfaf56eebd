"""The C core under sanitizers: scripts/run_sanitizers.sh, where the tools for it are installed."""

import os
import subprocess
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
SCRIPT = TREE / "scripts/run_sanitizers.sh"
if not SCRIPT.is_file() or not (TREE / "cext").is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


@pytest.mark.slow
@pytest.mark.parametrize("networks", [pytest.param("2", id="short"), pytest.param("", id="full", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("part", ["asan", "tsan"])
def test_core_is_clean(part, networks):
    """The short form has fewer random networks, and leaves AddressSanitizer of clang out."""
    environ = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run(
        [SCRIPT, part, *([networks, "short"] if networks else [])], env=environ, capture_output=True, text=True, timeout=1500
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    assert "the planted fault is found" in done.stdout and "all right" in done.stdout
