"""The C core is compiled for aarch64, where a cross compiler is at hand: without a warning, and without x86."""

import contextlib
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
if not (TREE / "setup.py").is_file() or not (TREE / "cext").is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

COMPILER = "aarch64-linux-gnu-gcc"
OPENMP = re.compile(r"\b_?omp(_|\b)", re.IGNORECASE)
SETUP = runpy.run_path(str(TREE / "setup.py"), run_name="setup_of_chaos")
FILES = [
    str(p.relative_to(TREE))
    for p in (
        TREE / "cext/registry.c",
        *(
            p
            for room in ("isa", "bf16", "engine", "replay", "sync", "virtual", "virtual/orders")
            for p in sorted((TREE / "cext" / room).glob("*.c"))
        ),
    )
]


pytestmark = pytest.mark.skipif(not shutil.which(COMPILER), reason=f"{COMPILER} is not installed (gcc-aarch64-linux-gnu)")


class Objects:
    """Compiles files for aarch64, each once: what is the same after the preprocessor, with no word of OpenMP left in it, is
    the same with and without OpenMP."""

    def __init__(self, folder, more):
        self.folder, self.made, self.more = folder, {}, more
        with contextlib.chdir(TREE):
            SETUP["write_lists"](folder / "lists")
        self.include = [f"-I{TREE / 'cext'}", f"-I{folder}"]

    def flags(self, openmp):
        words = [*SETUP["BASELINE"], "-Werror", "-fPIC", f"-DCHAOS_OPENMP={openmp}", *self.more]
        return words + (SETUP["OPENMP"] if openmp else [])

    def run(self, *words):
        return subprocess.run([COMPILER, *words], cwd=self.folder, capture_output=True, text=True)

    def get(self, file, openmp):
        """(path of the object, what the compiler has said, its exit status)."""
        words = [*self.flags(openmp), *self.include, TREE / file]
        text = self.run("-E", "-P", *words)
        key = file, text.stdout, openmp if OPENMP.search(text.stdout) or text.returncode else None
        if key not in self.made:
            path = self.folder / f"{len(self.made)}.o"
            done = self.run("-c", "-o", path, *words)
            self.made[key] = path, done.stderr, done.returncode
        return self.made[key]


@pytest.fixture(scope="module")
def objects(tmp_path_factory, nightly):
    """By night as optimised as for users, which takes four times as long and lets the compiler see all that is set."""
    return Objects(tmp_path_factory.mktemp("aarch64"), [] if nightly else ["-O1", "-Wno-maybe-uninitialized"])


@pytest.mark.parametrize("openmp", [0, 1])
@pytest.mark.parametrize("file", FILES)
def test_aarch64(objects, file, openmp):
    path, said, status = objects.get(file, openmp)
    assert status == 0 and not said and path.exists(), said


def test_aarch64_links(objects):
    """Nothing of what the portable files refer to exists on x86-64 only."""
    main = objects.folder / "main.c"
    main.write_text('#include "registry.h"\nint main(void) { return supported_isa(0) == 0 || supported_isa(1) != 0; }\n')
    parts = [objects.get(file, 1)[0] for file in FILES]
    done = objects.run(*objects.flags(1), *objects.include, main, *parts, "-lm", "-o", objects.folder / "program")
    assert done.returncode == 0, done.stderr
