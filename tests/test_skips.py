"""scripts/skips.py: the number of skipped tests is asserted."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts/skips.py"
if not SCRIPT.is_file():
    pytest.skip("the scripts are not beside the tests", allow_module_level=True)


def case(reason, module="tests.test_x", kind="pytest.skip"):
    return f'<testcase classname="{module}" name="a"><skipped type="{kind}" message="{reason}"/></testcase>'


def judged(tmp_path, *cases):
    path = tmp_path / "tests.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    done = subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True)
    return done.returncode, done.stdout


def test_what_is_known_may_be_skipped(tmp_path):
    status, said = judged(
        tmp_path, case("no more tests", kind="pytest.xfail"), case("SCIPY_ARRAY_API is not set", "tests.test_estimators")
    )
    assert (status, said) == (0, "skips: 1 in all; 0 that should not be\n")


def test_an_unknown_reason_and_one_too_many_are_told(tmp_path):
    status, said = judged(tmp_path, case("not today"))
    assert status == 1 and "1 that should not be: test_x: not today" in said
    status, said = judged(tmp_path, *3 * [case("SCIPY_ARRAY_API is not set", "tests.test_estimators")])
    assert status == 1 and "3 for" in said and "2 are known" in said


def test_a_tool_that_is_here_is_not_missing(tmp_path, monkeypatch):
    tool = tmp_path / "strace"
    tool.write_text("")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert judged(tmp_path, case("strace is not installed"))[0] == 1
    tool.unlink()
    assert judged(tmp_path, case("strace is not installed"))[0] == 0
