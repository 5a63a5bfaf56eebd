"""Pinned workers: each on its CPU while a phase runs, every thread with its old mask afterwards."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from nets import images

import chaos
from chaos import _core, threads
from chaos.cli import main

if not sys.platform.startswith("linux"):
    pytest.skip("threads are pinned on Linux only", allow_module_level=True)

PINS = ["compact", "scatter"]


def masks():
    """{thread: the CPUs it may use, as the kernel writes them} of this process."""
    found = {}
    for status in Path("/proc/self/task").glob("*/status"):
        try:
            found[status.parent.name] = re.search(r"Cpus_allowed_list:\s*(\S+)", status.read_text())[1]
        except OSError:  # the thread has ended
            pass
    return found


def engine_and_data(workers, pin, repeat=1):
    net = chaos.models.small()
    x, y = images(1000, net.input_shape)
    cpus = threads.resolve(workers, pin=pin).cpus
    engine = _core.Engine(net.plan, net.weights, workers=workers, strategy="chaos", cpus=cpus)
    return engine, dict(inputs=net.take_images(x)["inputs"], labels=y, order=np.arange(1000).repeat(repeat), lr=0.001)


@pytest.mark.parametrize("pin", PINS)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_worker_is_on_its_cpu_and_leaves_no_trace(workers, pin):
    before = os.sched_getaffinity(0)
    engine, data = engine_and_data(workers, pin, repeat=2000)
    assert engine.cpus == threads.resolve(workers, pin=pin).cpus
    around = []

    def run():
        around.append(os.sched_getaffinity(0))
        around.append(engine.run("train", **data))
        around.append(os.sched_getaffinity(0))

    mine = masks()
    thread = threading.Thread(target=run)
    thread.start()
    wanted, seen = sorted(map(str, engine.cpus)), None
    deadline = time.monotonic() + 30
    while seen != wanted and time.monotonic() < deadline and thread.is_alive():
        now = masks()
        seen = sorted(cpus for name, cpus in now.items() if name not in mine and cpus.isdigit())
        time.sleep(0.001)
    engine.stop()
    thread.join()
    assert seen == wanted
    assert around[0] == around[2] == before == os.sched_getaffinity(0)
    assert set(masks().values()) == {mine[str(threading.get_native_id())]}, "a thread of the team has kept its CPU"
    engine.clear()
    assert engine.run("test", **data | {"order": None})["status"] == "done"


def test_the_mask_that_a_thread_had_is_restored():
    """Not that of the process: the calling thread may be confined further."""
    cpus = os.sched_getaffinity(0)
    engine, data = engine_and_data(1, "compact")
    found = []

    def run():
        os.sched_setaffinity(0, {max(cpus)})
        engine.run("train", **data)
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [{max(cpus)}] and os.sched_getaffinity(0) == cpus


def test_cpus_that_cannot_be_had():
    net = chaos.models.small()
    cpus = sorted(os.sched_getaffinity(0))
    other = max(cpus) + 1
    with pytest.raises(ValueError, match=f"cannot pin a worker to CPU {other}: .*affinity mask"):
        _core.Engine(net.plan, net.weights, workers=2, strategy="chaos", cpus=[cpus[0], other])
    with pytest.raises(ValueError, match="cannot pin a worker to CPU -1"):
        _core.Engine(net.plan, net.weights, cpus=[-1])
    with pytest.raises(ValueError, match="2 CPUs for 1 workers"):
        _core.Engine(net.plan, net.weights, cpus=[cpus[0]] * 2)
    assert _core.Engine(net.plan, net.weights).cpus is None


# A mask that loses a CPU between the check and the phase takes a cpuset that shrinks; a seccomp filter that refuses the
# call has the same effect and needs no rights. 203 and 122 are sched_setaffinity on x86-64 and aarch64.
REFUSED = """
import ctypes, os, platform, struct, numpy as np, chaos
from chaos import _core
net = chaos.models.small()
before = os.sched_getaffinity(0)
engine = _core.Engine(net.plan, net.weights, workers=2, strategy="chaos", cpus=[min(before)] * 2)
call = {"x86_64": 203, "aarch64": 122}[platform.machine()]
program = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, whole):
    print("no filter")
    raise SystemExit
x = np.zeros(40 * 29 * 29, np.float32)
try:
    engine.run("train", inputs=[x], labels=np.zeros(40, np.int64))
except RuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one CPU there is nothing to change")
def test_a_refusal_of_the_system_is_told():
    said = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60, check=True).stdout
    if said == "no filter\n":
        pytest.skip("this system lets no process filter its own calls")
    assert re.match(r"the system refused to pin worker [01] to CPU \d+", said)


@pytest.mark.parametrize("pin", PINS)
@pytest.mark.parametrize("workers", [1, 2])
def test_training_pinned(pin, workers, tmp_path, capsys):
    train, test = chaos.data.load("digits", size=29)
    before, mine = os.sched_getaffinity(0), masks()[str(threading.get_native_id())]
    run = chaos.train(chaos.models.small(), train[:200], test, workers=workers, pin=pin, epochs=2, lr=0.01, run_dir=tmp_path)
    assert os.sched_getaffinity(0) == before and set(masks().values()) == {mine}
    assert run.workers.pin == pin and len(run.history) == 2
    said = f"pin {pin} to CPUs {threads.ranges(run.workers.cpus)})"
    assert capsys.readouterr().err.splitlines()[0].endswith(said)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["pin"] == pin and config["workers_limit"].endswith(said)


def test_pinning_changes_no_result_and_may_change_on_resume(tmp_path):
    train, _ = chaos.data.load("digits", size=29)
    weights = []
    for pins in (("none", "none"), ("compact", "scatter"), ("scatter", "none")):
        for epochs, pin in enumerate(pins, 1):
            net = chaos.models.small(seed=3)
            run = chaos.train(
                net,
                train[:100],
                workers=1,
                pin=pin,
                epochs=epochs,
                lr=0.01,
                progress=False,
                run_dir=tmp_path / "-".join(pins),
                resume=True,
            )
        assert len(run.history) == 2
        weights.append(net.weights.tobytes())
    assert len(set(weights)) == 1


def test_bad_pin():
    train, _ = chaos.data.load("digits", size=29)
    with pytest.raises(ValueError, match="unknown pin 'tight'; known: none, compact, scatter"):
        chaos.train(chaos.models.small(), train[:20], pin="tight")


def test_command_line(tmp_path, capsys):
    argv = ["train", "small", "--data", "digits", "--subset", "60", "--run-dir", str(tmp_path / "run")]
    assert main([*argv, "--epochs", "1", "--pin", "scatter"]) == 0
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "run"), "--epochs", "2"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["pin"] == "scatter", "a resumed run keeps its settings"
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "run"), "--epochs", "3", "--pin", "none"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["pin"] == "none"
    assert "pin scatter to CPUs" in capsys.readouterr().err


def test_info_shows_the_cpus():
    found = chaos.info()
    assert found["pin"] == {pin: threads.ranges(threads.placement(pin)) for pin in PINS}
    assert "pin none" in found["workers"]
