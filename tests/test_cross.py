"""The C core is compiled for aarch64, where a cross compiler is at hand: without a warning, and without x86."""

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
if not (TREE / "setup.py").is_file() or not (TREE / "cext").is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

COMPILER = "aarch64-linux-gnu-gcc"
SETUP = runpy.run_path(str(TREE / "setup.py"), run_name="setup_of_chaos")
FILES = [
    str(p.relative_to(TREE))
    for p in (
        TREE / "cext/registry.c",
        *(p for room in ("isa", "engine", "replay", "sync", "virtual") for p in sorted((TREE / "cext" / room).glob("*.c"))),
    )
]


@pytest.fixture
def include(tmp_path, monkeypatch):
    monkeypatch.chdir(TREE)
    SETUP["write_lists"](tmp_path / "lists")
    return [f"-I{TREE / 'cext'}", f"-I{tmp_path}"]


@pytest.mark.skipif(not shutil.which(COMPILER), reason=f"{COMPILER} is not installed (gcc-aarch64-linux-gnu)")
@pytest.mark.parametrize("openmp", [0, 1])
@pytest.mark.parametrize("file", FILES)
def test_aarch64(tmp_path, include, file, openmp):
    flags = [*SETUP["BASELINE"], "-Werror", "-fPIC", f"-DCHAOS_OPENMP={openmp}", *(SETUP["OPENMP"] if openmp else [])]
    done = subprocess.run(
        [COMPILER, *flags, *include, "-c", TREE / file, "-o", tmp_path / "object.o"], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(not shutil.which(COMPILER), reason=f"{COMPILER} is not installed (gcc-aarch64-linux-gnu)")
def test_aarch64_links(tmp_path, include):
    """Nothing of what the portable files refer to exists on x86-64 only."""
    (tmp_path / "main.c").write_text(
        '#include "registry.h"\nint main(void) { return supported_isa(0) == 0 || supported_isa(1) != 0; }\n'
    )
    flags = [*SETUP["BASELINE"], *SETUP["OPENMP"], "-DCHAOS_OPENMP=1", *include]
    subprocess.run(
        [COMPILER, *flags, tmp_path / "main.c", *(TREE / f for f in FILES), "-lm", "-o", tmp_path / "program"], check=True
    )
