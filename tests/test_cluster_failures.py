"""A rank that fails, dies, stalls or is alone: the job ends soon, says why, and leaves a valid checkpoint."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import mpi
import pytest
from test_cluster import HEAD, run

import chaos
from chaos.training import METRICS, MODEL

SOON = 10  # seconds


@pytest.fixture(params=mpi.LIBRARIES)
def library(request):
    mpi.need(request.param)
    return request.param


FAILING = (
    HEAD
    + """
train, test = chaos.data.load("digits", size=29)
at, what, mode, timeout, epochs = json.loads(sys.argv[2])
def go():
    (folder / "now").touch()
    if what == "raise":
        raise RuntimeError("planted")
    os.kill(os.getpid(), getattr(signal, what))
when(at, go, position=0 if mode == "allreduce" else 2, stops=what == "SIGINT")
how = dict(strategy="synchronous", batch_size=32) if mode == "allreduce" else {}
chaos.train(chaos.models.small(seed=0), train, test, cluster=mode,
            cluster_options={"every": 50} if mode not in ("shared", "allreduce") else None, epochs=epochs, lr=0.01,
            workers=1, progress=False, stall_timeout=timeout, run_dir=folder / "run", **how)
"""
)


def failed(library, ranks, folder, at, what, mode="local", timeout=30, epochs=1000):
    """How a job ends in which something happens to one rank, and how long that has taken."""
    path = folder / "job.py"
    path.write_text(FAILING)
    process = mpi.start(library, ranks, path, folder, json.dumps([at, what, mode, timeout, epochs]))
    began = time.monotonic()
    while not (folder / "now").exists() and process.poll() is None and time.monotonic() < began + 30:
        time.sleep(0.01)
    began = time.monotonic()
    done = mpi.finish(process, SOON + timeout)
    return done, time.monotonic() - began


def valid(folder):
    """The checkpoint loads, holds whole epochs, and agrees with metrics.jsonl."""
    _, metadata, _ = chaos.loading.load_with_state(folder / "run" / MODEL)
    state = json.loads(metadata["training"])
    lines = (folder / "run" / METRICS).read_text().splitlines()
    assert state["epochs"] <= len(lines) <= state["epochs"] + 1  # the line is written first
    text = (folder / "run" / METRICS).read_bytes()[: state["metrics"]["size"]]
    assert hashlib.sha256(text).hexdigest() == state["metrics"]["sha256"]
    assert [json.loads(line)["epoch"] for line in text.splitlines()] == list(range(1, state["epochs"] + 1))
    return state


@pytest.mark.parametrize(
    "library, mode, at", mpi.in_turn([("local", 0), ("local", 1), ("async", 0), ("allreduce", 1)]), indirect=["library"]
)
def test_an_exception_ends_the_job_with_its_traceback(library, mode, at, tmp_path):
    done, seconds = failed(library, 3, tmp_path, at, "raise", mode)
    assert done.code != 0 and seconds < SOON
    assert f"[{at}] Traceback" in done.err and "RuntimeError: planted" in done.err and f"[{at}] rank {at} (" in done.err
    assert valid(tmp_path)["epochs"] == 1


@pytest.mark.parametrize(
    "library, mode", mpi.in_turn([("local",), ("gossip",), ("shared",), ("allreduce",)]), indirect=["library"]
)
def test_a_killed_rank_ends_the_job(library, mode, tmp_path):
    done, seconds = failed(library, 2, tmp_path, 1, "SIGKILL", mode)
    assert done.code != 0 and seconds < SOON
    assert valid(tmp_path)["epochs"] == 1


@pytest.mark.parametrize("library, mode", mpi.in_turn([("gossip",), ("easgd",), ("allreduce",)]), indirect=["library"])
def test_a_signal_on_one_rank_stops_all_and_keeps_the_state(library, mode, tmp_path):
    done, seconds = failed(library, 2, tmp_path, 1, "SIGINT", mode)
    assert done.code != 0 and seconds < SOON and "KeyboardInterrupt" in done.err and "ends the job" not in done.err
    state = valid(tmp_path)
    assert state["epochs"] == 1 and 0 < state["partial"]["position"] < 1437


def test_a_rank_that_stands_still_is_named(library, tmp_path):
    done, seconds = failed(library, 3, tmp_path, 1, "SIGSTOP", timeout=3)
    assert done.code != 0 and seconds < 3 + SOON
    assert "stalled for 3 s" in done.err and "rank 1 (" in done.err and "does not answer" in done.err
    assert valid(tmp_path)["epochs"] == 1


STUCK = (
    HEAD
    + """
train, test = chaos.data.load("digits", size=29)
def train_begins(self, epoch, images, before=Link.train_begins):
    before(self, epoch, images)
    if self.rank == 1 and epoch == 2:
        if sys.argv[2] == "worker":  # it never gets the first stripe, while this rank goes on answering
            while not _core.Exchange(self._engine).hold(0):
                pass
        else:  # for a message that nobody sends
            self.run(self.complete(self.comm.Irecv(np.zeros(1), 0, 99)))
Link.train_begins = train_begins
chaos.train(chaos.models.small(seed=0), train, test, cluster="local", cluster_options={"every": 50}, epochs=1000, lr=0.01,
            workers=1, progress=False, stall_timeout=2, run_dir=folder / "run")
"""
)


@pytest.mark.parametrize(
    "what, words",
    [
        ("worker", r"stalled for 2 s .--stall-timeout 2.: rank 1 .*, process \d+. stands still at image \d+ of its shard"),
        (
            "rank",
            r"deadlock: all 2 ranks have waited for each other for 2 s .*: rank 0 in its wait number \d+, rank 1 in its",
        ),
    ],
)
def test_ranks_that_answer_and_get_no_further_are_told(library, what, words, tmp_path):
    path = tmp_path / "job.py"
    path.write_text(STUCK)
    done = mpi.job(library, 2, path, tmp_path, what, timeout=2 + 2 * SOON)
    assert done.code != 0 and re.search(words, done.err), done.err
    assert valid(tmp_path)["epochs"] == 1


EARLY = """
import os, sys
if "1" in (os.environ.get("OMPI_COMM_WORLD_RANK"), os.environ.get("PMI_RANK")):
    sys.exit(int(sys.argv[1]))
import chaos
train, test = chaos.data.load("digits", size=29)
chaos.train(chaos.models.small(), train[:50], cluster="local", epochs=1, workers=1, progress=False, stall_timeout=2)
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_rank_that_ends_before_mpi_is_up_leaves_nobody_waiting(library, code, tmp_path):
    """Most launchers wait on, as the others do inside MPI, for a rank that has ended well."""
    path = tmp_path / "job.py"
    path.write_text(EARLY)
    done = mpi.job(library, 2, path, code, timeout=2 + SOON)
    assert done.code != 0, done
    if code == 0:
        assert "Timeout" in done.err and "_mpi_with_all_ranks" in done.err, done


KILLED = (
    HEAD
    + """
(folder / f"pid-{rank()}").write_text(str(os.getpid()))
train, test = chaos.data.load("digits", size=29)
chaos.train(chaos.models.small(seed=0), train[:300], test, cluster="local", cluster_options={"every": 20}, epochs=1000000,
            lr=0.0001, workers=1, progress=False, run_dir=folder / "run", resume=True)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.nightly)])
def test_sigkill_at_any_time_leaves_a_valid_checkpoint(library, times, tmp_path):
    """Any rank, at any time: while training, evaluating, writing."""
    rng = random.Random(0)
    path, epochs = tmp_path / "job.py", 0
    path.write_text(KILLED)
    for _ in range(times):
        for file in tmp_path.glob("pid-*"):
            file.unlink()
        process = mpi.start(library, 2, path, tmp_path)
        pid = tmp_path / f"pid-{rng.randrange(2)}"
        began = time.monotonic()
        while not (pid.exists() and pid.read_text() and (tmp_path / "run" / MODEL).exists()):
            assert process.poll() is None and time.monotonic() < began + 30
            time.sleep(0.01)
        time.sleep(0.3 + 0.7 * rng.random())
        os.kill(int(pid.read_text()), signal.SIGKILL)
        began = time.monotonic()
        done = mpi.finish(process, 30)
        assert done.code != 0 and time.monotonic() - began < SOON
        state = valid(tmp_path)
        assert state["epochs"] >= epochs
        epochs = state["epochs"]
    assert epochs > times


DIVERGED = """
train, test = chaos.data.load("digits", size=29)
net = chaos.models.small(seed=0)
before = net.weights.copy()
try:
    how = dict(strategy="synchronous", batch_size=32) if sys.argv[2] == "allreduce" else {}
    chaos.train(net, train, test, cluster=sys.argv[2], epochs=2, lr=1e38, workers=1, progress=False, stall_timeout=20, **how)
except chaos.DivergedError as error:
    tell([str(error), bool((net.weights == before).all())])
"""


@pytest.mark.parametrize("mode", ["local", "gossip", "async", "shared", "allreduce"])
def test_divergence_is_seen_by_all(library, mode, tmp_path):
    told, _ = run(library, 2, DIVERGED, tmp_path, mode)
    assert told[0] == told[1] and told[0][1] and "diverged in epoch 1" in told[0][0]


def test_silent_singletons_are_refused(tmp_path):
    """The launcher of one library with the other library: every process is alone, and none trains."""
    for name in mpi.LIBRARIES:
        mpi.need(name)
    library = mpi.environment("openmpi").get("MPI4PY_LIBMPI")
    if not library:
        pytest.skip("the libraries cannot be told apart here")
    args = ["-m", "chaos", "train", "small", "--data", "digits", "--run-dir", tmp_path / "run"]
    done = mpi.job("mpich", 2, *args, env={"MPI4PY_LIBMPI": library, "OPAL_PREFIX": sys.prefix})
    assert done.code == 2 and not (tmp_path / "run").exists()
    assert "has started 2 processes, but MPI (Open MPI v" in done.err and "MPI4PY_LIBMPI=" in done.err


def test_slurm_singletons_get_slurms_fix(tmp_path):
    mpi.need("mpich")
    env = mpi.environment("mpich", SLURM_STEP_NUM_TASKS=4, SLURM_PROCID=1, SLURM_STEP_ID=0)
    args = ["-m", "chaos", "train", "small", "--data", "digits", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Slurm has started 4 processes" in done.stderr and "srun --mpi=pmix" in done.stderr


THREADS = """
import mpi4py, sys
mpi4py.rc.thread_level = sys.argv[1]
from mpi4py import MPI
import threading
import chaos
train, _ = chaos.data.load("digits", size=29)
def go():
    try:
        chaos.train(chaos.models.small(), train[:50], cluster="local", epochs=1, workers=1, progress=False)
        told = "trained"
    except chaos.ClusterError as error:
        told = f"refused: {error}"
    with open(f"{sys.argv[3]}/{MPI.COMM_WORLD.rank}", "w") as out:  # what ranks print can come out mixed
        out.write(told)
if sys.argv[2] == "main":
    go()
else:
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
"""


@pytest.mark.parametrize(
    "library, level, where, granted",
    mpi.in_turn(
        [
            ("single", "main", False),
            ("funneled", "main", True),
            ("funneled", "thread", False),
            ("serialized", "thread", True),
        ]
    ),
    indirect=["library"],
)
def test_thread_levels(library, level, where, granted, tmp_path):
    path = tmp_path / "job.py"
    path.write_text(THREADS)
    done = mpi.job(library, 2, path, level, where, tmp_path)
    assert done.code == 0, done
    told = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    if granted:
        assert told == ["trained"] * 2
    elif told != ["trained"] * 2:  # some libraries grant more than they are asked for
        assert all(text.startswith("refused: MPI has been initialised with MPI_THREAD_") for text in told)


def test_bindings_and_oversubscription_are_told(library, tmp_path):
    args = ["train", "small", "--data", "digits", "--subset", "100", "--epochs", "1", "--quiet", "--workers"]
    bound = "import os, sys; os.sched_setaffinity(0, CPUS); from chaos.cli import main; sys.exit(main(sys.argv[1:]))"
    cpus = sorted(os.sched_getaffinity(0))
    done = mpi.job(library, 2, "-c", bound.replace("CPUS", f"{{{cpus[0]}}}"), *args, 3, "--run-dir", tmp_path / "a")
    assert done.code == 0 and f"has 3 workers but is bound to 1 CPU ({cpus[0]})" in done.err
    assert "--workers 1" in done.err and done.out.count("test error") == 1
    done = mpi.job(library, 2, "-c", bound.replace("CPUS", str(set(cpus))), *args, len(cpus), "--run-dir", tmp_path / "b")
    assert done.code == 0 and f"is oversubscribed: {2 * len(cpus)} workers of 2 ranks on {len(cpus)} CPUs" in done.err
    # unasked, the ranks of a machine divide its cores
    done = mpi.job(library, 2, "-c", bound.replace("CPUS", str(set(cpus))), *args[:-1], "--run-dir", tmp_path / "c")
    assert json.loads((tmp_path / "c" / METRICS).read_text())["workers"] == 2 * max(1, len(cpus) // 2)
