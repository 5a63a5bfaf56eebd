"""`chaos doctor`: on machines that are only files, in jobs, and the exit code."""

import json
import os
import subprocess
import sys

import mpi
import pytest

from chaos.cli import main
from chaos.cluster import look


def tree(root, cpus=8, quota=None, maps=()):
    """A machine of one NUMA node."""
    for cpu in range(cpus):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        for name, value in (("physical_package_id", 0), ("die_id", 0), ("core_id", cpu)):
            (folder / name).write_text(str(value))
    (root / "sys/devices/system/node/node0").mkdir(parents=True)
    (root / "sys/devices/system/node/node0/cpulist").write_text(f"0-{cpus - 1}")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text("model name\t: Imaginary\n")
    (root / "proc/self/cgroup").write_text("0::/job\n")
    (root / "proc/self/maps").write_text("".join(f"7f00-7f01 r-xp 00000000 08:01 1    {path}\n" for path in maps))
    (root / "sys/fs/cgroup/job").mkdir(parents=True)
    if quota:
        (root / "sys/fs/cgroup/job/cpu.max").write_text(f"{quota * 100000} 100000")
    return root


def said(findings, level):
    return [f"{one.topic}: {one.text} -> {one.fix}" for one in findings if one.level == level]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("CHAOS_NUM_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


def test_a_machine_without_limits(tmp_path):
    found = list(look.threads_and_cores(tree(tmp_path), {}, mask=set(range(8))))
    assert {one.level for one in found} == {look.OK}
    assert "Imaginary: 1 socket, 8 cores, 8 CPUs, 1 NUMA node" in found[0].text and "8 workers" in found[1].text


def test_bound_by_a_launcher(tmp_path):
    (note,) = said(look.threads_and_cores(tree(tmp_path), {}, mask={3}), look.NOTE)
    assert "may use 1 of 8 CPUs (3)" in note and "--bind-to none" in note


def test_a_quota_below_the_mask(tmp_path):
    (note,) = said(look.threads_and_cores(tree(tmp_path, quota=2), {}, mask=set(range(8))), look.NOTE)
    assert "quota grants 2 of the 8 CPUs" in note and "at most 2 workers" in note
    roomy = tree(tmp_path / "b", quota=9)
    assert not said(look.threads_and_cores(roomy, {}, mask=set(range(8))), look.NOTE)


@pytest.mark.parametrize(
    "name, value, words",
    [("OMP_NUM_THREADS", "1", "leaves 7 of 8 cores unused"), ("CHAOS_NUM_THREADS", "20", "more than the 8 cores")],
)
def test_the_environment_decides(tmp_path, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    (note,) = said(look.threads_and_cores(tree(tmp_path), {name: value}, mask=set(range(8))), look.NOTE)
    assert words in note and f"unset {name}" in note


@pytest.mark.parametrize(
    "maps, environ, level, words",
    [
        (["/usr/lib/libgomp.so.1.0.0"], {}, look.OK, "one run-time library"),
        ([], {}, look.NOTE, "without OpenMP"),
        (
            ["/usr/lib/libgomp.so.1", "/venv/sklearn.libs/libgomp-a34b3233.so.1.0.0", "/x/libiomp5.so"],
            {},
            look.NOTE,
            "3 run-time libraries",
        ),
        (["/usr/lib/libgomp.so.1"], {"OMP_WAIT_POLICY": "ACTIVE"}, look.NOTE, "keep their cores busy"),
    ],
)
def test_openmp_libraries(tmp_path, maps, environ, level, words):
    assert any(words in text for text in said(look.openmp(tree(tmp_path, maps=maps), environ), level))


def test_a_limit_of_threads_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAOS_NUM_THREADS", "4")
    root = tree(tmp_path, maps=["/usr/lib/libgomp.so.1"])
    (told,) = said(look.openmp(root, {"OMP_THREAD_LIMIT": "3"}), look.WRONG)
    assert "3 of the 4 threads" in told
    assert not said(look.openmp(root, {"OMP_THREAD_LIMIT": "4"}), look.WRONG)


def test_the_real_process():
    """In a process of its own: libraries that other tests have loaded bring OpenMP runtimes along."""
    text = "from chaos.cluster import look; one, *_ = look.openmp(); print(one.level, one.text)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"{look.OK} ") and "lib" in done.stdout, done


@pytest.mark.parametrize("library", mpi.LIBRARIES)
def test_mpi_library_and_launcher(library, tmp_path):
    """The right pair, then the other library's launcher."""
    mpi.need(library)
    env = mpi.environment(library)
    right = mpi.launcher(library)[0]
    name = {"openmpi": "Open MPI", "mpich": "MPICH"}[library]
    found = list(look.mpi(env, which=lambda word: right if word == "mpiexec" else None))
    assert [one.level for one in found] == [look.OK, look.OK], found
    assert name in found[0].text and f"{name}'s ABI" in found[0].text and "MPI_THREAD_" in found[0].text
    assert found[1].text.startswith(f"{right} ({library}")
    assert ("OVERSUBSCRIBE" in found[1].text) == (library == "openmpi")
    other = next(one for one in mpi.LIBRARIES if one != library)
    if mpi.launcher(other):
        wrong = mpi.launcher(other)[0]
        found = list(look.mpi(env, which=lambda word: wrong if word == "mpiexec" else None))
        assert found[1].level == look.WRONG and f"belongs to {other}, but mpi4py loads {library}" in found[1].text
    (note,) = said(look.mpi(env, which=lambda word: None), look.NOTE)
    assert "no mpiexec" in note


def test_mpi_that_cannot_start():
    pytest.importorskip("mpi4py")
    (wrong,) = said(look.mpi({"MPI4PY_LIBMPI": "/nowhere/libmpi.so"}), look.WRONG)
    assert "cannot start MPI" in wrong and "MPI4PY_LIBMPI=" in wrong


@pytest.mark.parametrize("library", mpi.LIBRARIES)
def test_in_a_job(library):
    """One report for all ranks, with their bindings."""
    mpi.need(library)
    done = mpi.job(library, 3, "-m", "chaos", "doctor", "--json")
    found = [look.Finding(**one) for one in json.loads(done.out)]
    ranks = [one.text for one in found if one.topic == "ranks" and one.level == look.OK]
    assert [text.split(":")[0] for text in ranks] == ["rank 0 of 3", "rank 1 of 3", "rank 2 of 3"]
    assert all(" CPUs (" in text for text in ranks)


def test_singletons_in_a_job():
    for name in mpi.LIBRARIES:
        mpi.need(name)
    library = mpi.environment("openmpi").get("MPI4PY_LIBMPI")
    if not library:
        pytest.skip("the libraries cannot be told apart here")
    env = {"MPI4PY_LIBMPI": library, "OPAL_PREFIX": sys.prefix, "COLUMNS": 999}
    done = mpi.job("mpich", 2, "-m", "chaos", "doctor", env=env)
    assert done.code == 1 and "has started 2 processes, and MPI (Open MPI" in done.out and "sees each alone" in done.out
    assert done.out.count("instruction set") == 1


@pytest.mark.parametrize("library", mpi.LIBRARIES)
def test_nothing_is_started_that_would_end_the_process(library, tmp_path):
    """Under a launcher without mpi4py, and with another library's launcher, whose ranks MPICH ends when they start MPI."""
    other = next(one for one in mpi.LIBRARIES if one != library)
    for name in mpi.LIBRARIES:
        mpi.need(name)
    (tmp_path / "mpi4py.py").write_text("raise ImportError('not here')")
    env = mpi.environment(library, COLUMNS=999)
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])
    done = mpi.job(library, 2, "-m", "chaos", "doctor", env=env)
    assert done.code == 1 and done.out.count("none of them can start MPI") == 1 and "Traceback" not in done.err, done
    env = {
        name: value for name, value in mpi.environment(other, COLUMNS=999).items() if name in ("MPI4PY_LIBMPI", "COLUMNS")
    }
    done = mpi.job(library, 2, "-m", "chaos", "doctor", env=env)
    assert done.code == 1 and done.out.count("sees each alone") == 1 and "Traceback" not in done.err, done


@pytest.mark.parametrize(
    "launcher, user, environ, wrong",
    [
        ("openmpi", 0, {}, True),
        ("openmpi", 0, {"OMPI_ALLOW_RUN_AS_ROOT": "1"}, True),
        ("openmpi", 0, {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}, False),
        ("openmpi", 1000, {}, False),
        ("mpich", 0, {}, False),
    ],
)
def test_root_and_open_mpi(launcher, user, environ, wrong):
    found = list(look.as_root(launcher, environ, user))
    assert [one.level for one in found] == [look.WRONG] * wrong and all("--allow-run-as-root" in one.fix for one in found)


def row(rank, cpus, host="h"):
    return {
        "rank": rank,
        "host": host,
        "process": 1,
        "ranks": 4,
        "launcher": "x",
        "announced": 4,
        "launcher_rank": rank,
        "cpus": cpus,
        "library": "y",
    }


@pytest.mark.parametrize(
    "masks, words",
    [
        ([[0, 1]] * 4, "4 ranks on 2 CPUs take turns"),
        ([list(range(8))] * 4, "may all use the same 8 CPUs"),
        ([[0], [1], [2], [3, 4, 5]], "bound to one CPU each"),
        ([[0, 1], [2, 3], [4, 5], [6, 7]], None),
    ],
)
def test_bindings(masks, words):
    notes = said(look.of_ranks([row(i, mask) for i, mask in enumerate(masks)]), look.NOTE)
    assert (words is None and not notes) or (len(notes) == 1 and words in notes[0])


def test_for_people_and_programs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["doctor"]) in (0, 1)
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if " " in line.strip()) <= 90
    assert "instruction set: " in out and " wrong, " in out.splitlines()[-1]
    assert main(["doctor", "--json"]) in (0, 1)
    assert {"level", "topic", "text", "fix"} == json.loads(capsys.readouterr().out)[0].keys()


def test_lowered_instruction_set_is_noted():
    env = mpi.environment("mpich", CHAOS_ISA="generic", COLUMNS=999)
    done = subprocess.run([sys.executable, "-m", "chaos", "doctor"], env=env, capture_output=True, text=True, timeout=60)
    if "supports generic)" not in done.stdout:
        assert "? instruction set: generic, though this machine supports" in done.stdout and "unset CHAOS_ISA" in done.stdout
