"""Short forms of the long runs of scripts/nightly.sh: kills, many trainings in one process, far more workers than cores,
damaged files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mpi
import pytest

import chaos

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
if not (SCRIPTS / "soak_kill.py").is_file():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


def run(tmp_path, script, *options):
    """The results of a script that has found nothing wrong."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CHAOS_", "OMP_", "PYTHONSAFEPATH"))}
    env |= {"PYTHONPATH": str(Path(chaos.__file__).parent.parent)}
    command = [sys.executable, SCRIPTS / script, "--json", tmp_path / "found.json", *map(str, options)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["wrong"] and {"commit", "date", "machine", "command"} <= found.keys()
    return found["results"]


def test_killed_and_continued(tmp_path):
    assert run(tmp_path, "soak_kill.py", "--kills", 3, "--longest", 0.5)["kills"] == 3


def test_a_job_is_killed_and_continued(tmp_path):
    mpi.need("mpich")
    assert run(tmp_path, "soak_kill.py", "--kills", 2, "--longest", 0.5, "--ranks", 2)["ranks"] == 2


def test_many_trainings_leave_the_process_as_it_was(tmp_path):
    found = run(tmp_path, "soak_trainings.py", "--count", 100, "--growth", 0.1)
    assert found["trainings"] == 100


def test_many_more_workers_than_cores(tmp_path):
    found = run(tmp_path, "soak_load.py", "--workers", 40, "--minutes", 0)
    assert len(found["trainings"]) > 8


def test_damaged_files(tmp_path):
    found = run(tmp_path, "fuzz_readers.py", "--inputs", 2000)
    assert all(one["refused"] > 0 for one in found["readers"].values())
