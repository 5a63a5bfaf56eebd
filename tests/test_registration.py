"""A kind is registered by its two files and one line: kinds that the tree does not know (tests/kinds) are added to a copy of
it, which is built, and held to the tests that run over the lists and to what the contract promises."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

TREE = Path(__file__).resolve().parent.parent
KINDS = TREE / "tests/kinds"
if not (TREE / "setup.py").is_file() or not (TREE / "cext").is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

# file: (room, the one line)
ADDED = {
    "ramp": ("layers", "from .ramp import Ramp"),
    "drops": ("layers", "from .drops import Drops"),
    "running_norm": ("layers", "from .running_norm import RunningNorm"),
    "log_cosh": ("losses", "from .log_cosh import LogCosh"),
    "twice": ("updates", "from .twice import Twice"),
    "eager": ("sync", "from .eager import Eager"),
    "inverts": ("augment", "from .inverts import Inverts"),
}


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """The copy, with the kinds, built."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("chaos", "cext", "tests"):
        shutil.copytree(TREE / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "test_cluster*"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(TREE / name, copy / name)
    if (TREE / "build/cython").is_dir():  # what Cython has written is not written again
        shutil.copytree(TREE / "build/cython", copy / "build/cython")
    for name, (room, line) in ADDED.items():
        shutil.copy(KINDS / f"{name}.py", copy / "chaos" / room)
        shutil.copy(KINDS / f"{name}.c", copy / "cext" / room)
        register = copy / "chaos" / room / "__init__.py"
        text = register.read_text()
        first = re.search(r"^from \.", text, re.M).start()
        register.write_text(f"{text[:first]}{line}\n{text[first:]}")
    shutil.copy(KINDS / "eager_order.c", copy / "cext/virtual/orders/eager.c")  # a strategy's order needs no line at all
    run(copy, "setup.py", "-q", "build_ext", "--inplace", CHAOS_DEBUG="1")  # a quarter of the time to build
    return copy


def run(copy, *words, **more):
    """What a Python process prints that sees the copy's chaos."""
    environ = (
        {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")} | {"PYTHONPATH": str(copy)} | more
    )
    environ.pop("PYTHONSAFEPATH", None)
    done = subprocess.run([sys.executable, *words], cwd=copy, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def passed(text):
    """How many tests passed, of which none failed or was left out."""
    assert "failed" not in text and "error" not in text.splitlines()[-1], text
    return int(re.search(r"(\d+) passed", text)[1])


LAYERS = " or ".join(name for name, (room, _) in ADDED.items() if room == "layers")
OTHERS = "log_cosh or (twice and test_updates) or eager or losses_of_the_core or halves or test_lists_agree"
FILES = ["tests/test_layers.py", "tests/test_updates.py", "tests/test_strategies.py", "tests/kinds/check_contract.py"]


@pytest.mark.slow
def test_kinds_are_held_to_the_lists_and_to_the_contract(tree, tmp_path):
    """By one process of pytest in the copy: what the tests over lists have on the new kinds, and kinds/check_contract.py."""
    report = tmp_path / "report.xml"
    told = run(
        tree,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"),
        *(*FILES, "tests/test_rooms.py::test_both_halves_have_the_same_files"),
        *("-k", f"(test_layers and ({LAYERS}) and not every_loop) or {OTHERS} or check_contract"),
    )
    cases = [case for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None]
    names = [f"{case.get('classname')}.{case.get('name')}" for case in cases]
    assert passed(told) == len(names), told

    def count(words):
        return sum(bool(re.search(words, name)) for name in names)

    # finite differences once, the core on every instruction set
    isas = int(run(tree, "-c", "from chaos import _core; print(len(_core.instruction_sets()))"))
    assert count(rf"test_layers\..*\[(.*-)?({LAYERS.replace(' or ', '|')})\]") == 3 * (1 + isas)
    for words in ("log_cosh", "twice", "eager", "losses_of_the_core", "both_halves"):
        assert count(words), words
    assert count("log_cosh|twice|eager|losses_of_the_core|both_halves") > 20
    assert count("check_contract") > 20
