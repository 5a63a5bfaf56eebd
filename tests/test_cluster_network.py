"""Two hosts: network namespaces with a rate-limited link, over real TCP; and the benchmark, which can use them."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mpi
import pytest

SCRIPTS = mpi.TREE / "scripts"
if not SCRIPTS.is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hosts():
    mpi.need("mpich")
    two_hosts = script("two_hosts").TwoHosts
    if why := two_hosts.missing():
        pytest.skip(why)
    with two_hosts("1gbit") as made:
        yield made


def on_both(hosts, words, timeout=120, **more):
    process = subprocess.Popen(
        hosts.command([sys.executable, *map(str, words)]),
        env=hosts.environment(mpi.environment("mpich", **more)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return mpi.finish(process, timeout)


SPEED = """
import json, time
import numpy as np
from mpi4py import MPI
comm = MPI.COMM_WORLD
x = np.zeros(1 << 20, np.float32)
comm.Barrier()
begin = time.perf_counter()
for _ in range(3):
    comm.Allreduce(MPI.IN_PLACE, x)
if comm.rank == 0:
    print(json.dumps((time.perf_counter() - begin) / 3))
"""


def test_the_link_is_as_slow_as_it_says(hosts):
    """The sum of 4 MB over two ranks sends 4 MB each way: not under 4 MB / (1 Gbit/s), less what the buckets hold."""
    seconds = json.loads(on_both(hosts, ["-c", SPEED]).out)
    assert seconds > 0.9 * (4 * 2**20 - 3 * 65536) * 8e-9


@pytest.mark.parametrize("mode", ["local", "easgd", "gossip", "async", "allreduce"])
def test_trains_over_tcp(hosts, mode, tmp_path):
    more = ["--strategy", "synchronous", "--batch-size", 32] if mode == "allreduce" else []
    done = on_both(
        hosts,
        [
            "-m",
            "chaos",
            "train",
            "small",
            "--data",
            "digits",
            "--subset",
            600,
            "--epochs",
            2,
            "--lr",
            0.02,
            "--workers",
            1,
            "--cluster",
            mode,
            "--run-dir",
            tmp_path / "run",
            "--stall-timeout",
            60,
            *more,
        ],
    )
    assert done.code == 0, done
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert history[-1]["train_error"] < history[0]["train_error"] and history[-1]["cluster"]["ranks"] == 2


def test_shared_memory_is_refused_across_hosts(hosts, tmp_path):
    done = on_both(
        hosts,
        [
            "-m",
            "chaos",
            "train",
            "small",
            "--data",
            "digits",
            "--subset",
            100,
            "--cluster",
            "shared",
            "--run-dir",
            tmp_path / "run",
        ],
    )
    assert done.code != 0 and "needs all 2 ranks on one machine" in done.err


def test_a_delay_is_added_to_every_exchange(tmp_path):
    mpi.need("mpich")
    seconds = []
    for delay in (0, 0.2):
        done = mpi.job(
            "mpich",
            2,
            "-m",
            "chaos",
            "train",
            "small",
            "--data",
            "digits",
            "--subset",
            100,
            "--epochs",
            2,
            "--cluster",
            "local",
            "--cluster-option",
            "epochs=1",
            "--run-dir",
            tmp_path / str(delay),
            "--quiet",
            env={"CHAOS_CLUSTER_DELAY": delay},
        )
        assert done.code == 0, done
        last = json.loads((tmp_path / str(delay) / "metrics.jsonl").read_text().splitlines()[-1])
        assert last["cluster"]["exchanges"] == 2
        seconds.append(last["cluster"]["exchange_seconds"])
    assert seconds[1] >= 2 * 0.2


INTERRUPTED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bench_cluster", sys.argv[1])
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
with bench.hosts(None) as start:
    bench.job(start, sys.argv[2], 2, {"do": "train", "model": "small", "data": "digits", "images": 1000, "epochs": 1000000,
                                      "lr": 1e-6, "mode": "local", "options": {}, "workers": 1, "strategy": "chaos",
                                      "batch_size": 1})
"""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("library", mpi.LIBRARIES)
def test_the_benchmark_takes_its_job_along(library, tmp_path):
    """SIGTERM, as from `timeout`, leaves nothing behind."""
    mpi.need(library)

    def left():
        """Processes that have the job's folder, which nobody else has, among their arguments."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"{tmp_path}/" in file.read_text(errors="replace"):
                    found.append(int(file.parent.name))
        return found

    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, SCRIPTS / "bench_cluster.py", library],
        env=mpi.environment(library, TMPDIR=tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        began = time.monotonic()
        while len(left()) < 3:  # the launcher and two ranks
            assert process.poll() is None and time.monotonic() < began + 30
            time.sleep(0.05)
        process.terminate()
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 143, said
        assert not left()
    finally:
        process.kill()
        for pid in left():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.nightly
def test_the_benchmark_measures_and_predicts(tmp_path):
    mpi.need("openmpi")
    words = [
        "--models",
        "small",
        "--images",
        "1000",
        "--data",
        "digits",
        "--epochs",
        "2",
        "--rounds",
        "1",
        "--predict",
        "--json",
        tmp_path / "found.json",
    ]
    done = subprocess.run(
        [sys.executable, SCRIPTS / "bench_cluster.py", *words],
        capture_output=True,
        text=True,
        env=mpi.environment("openmpi"),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["mode"] for row in found["rows"]] == [None, None, "local", "easgd", "gossip", "async", "shared", "allreduce"]
    assert all(row["images_per_second"] > 0 and row["ratio"] > 0 and 0 <= row["test_error"] <= 1 for row in found["rows"])
    assert all((row["bytes_per_image"] > 0) == (row["mode"] not in (None, "shared")) for row in found["rows"])
    assert len(found["predictions"]) == 5 and found["network"]["beta"] >= 0 and len(found["anchors"]) >= 5
    assert found["predictions"][0]["rows"][-1]["ranks"] == 1024
