"""The suite in several processes (conftest.py): which tests stay together. A new pytest or pytest-xdist must not part them
silently."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

pytest.importorskip("xdist")

TEST = """
import os
import pytest

@pytest.mark.parametrize("i", range(8))
def test_one(i):
    print(__name__, os.environ["PYTEST_XDIST_WORKER"], file=open({log!r}, "a"))
"""


def test_groups_stay_together(tmp_path):
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    names = ["test_cluster_a", "test_cluster_b", "test_pinning", "test_c", "test_sanitizers", "test_d", "test_e"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(TEST.format(log=str(tmp_path / "log")))
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "3", "--dist", "loadscope", "--no-loadscope-reorder"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run([sys.executable, *words, "."], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    processes = defaultdict(set)
    lines = (tmp_path / "log").read_text().splitlines()
    for line in lines:
        name, process = line.split()
        processes["both-cores" if name in names[:3] else name].add(process)
    assert len(lines) == 8 * len(names) and sorted(processes) == [
        "both-cores",
        "test_c",
        "test_d",
        "test_e",
        "test_sanitizers",
    ]
    assert all(len(found) == 1 for found in processes.values()), processes
    assert processes["both-cores"] != processes["test_sanitizers"]  # these take longest
