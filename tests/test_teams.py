"""Teams of threads where the system refuses threads, and in forked children. Everything in processes of its own."""

import os
import subprocess
import sys

import pytest

HEAD = """
import json, multiprocessing, os, sys, threading
import numpy as np
import chaos
from chaos import _core

data = chaos.data.Dataset(np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4), np.uint8), np.arange(40) % 10)


def network():
    return chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(10)], seed=1)


def train(workers, **settings):
    net = network()
    chaos.train(net, data, epochs=1, workers=workers, progress=False, **settings)
    return net
"""


def run(code, limit=(), **environ):
    """The lines that a program prints, which must end well."""
    words = [*limit, sys.executable, "-c", HEAD + code]
    done = subprocess.run(words, env=os.environ | environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


REFUSED = """
for workers in (32, 8):
    try:
        train(workers)
        print("trained")
    except RuntimeError as error:
        print(error)
train(1)
print("the process goes on")
"""


@pytest.mark.parametrize("size", ["100G", "107374182400B", " 104857600 m ", "104857600M"])
def test_stacks_that_cannot_be_had(size):
    found = run(REFUSED, OMP_STACKSIZE=size)
    assert len(found) == 3 and found[2] == "the process goes on"
    for workers, text in zip((32, 8), found, strict=False):
        assert f"did not start {workers} threads" in text and "OMP_STACKSIZE" in text


@pytest.mark.parametrize("size", ["64k", "2M", "1 m", "300", "nonsense", "", "1T1"])
def test_other_stacks_are_no_hindrance(size):
    assert run(REFUSED, OMP_STACKSIZE=size) == ["trained", "trained", "the process goes on"]


def test_a_limit_on_memory():
    """Address space for the interpreter and few stacks."""
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    found = run(limited + REFUSED, OMP_STACKSIZE="256M", MALLOC_ARENA_MAX="1")
    assert "did not start 32 threads" in found[0] and found[2] == "the process goes on"


PREDICTS_IN_CHILD = """
net = network()
x = data.images
net.update(x, data.labels)
want = net.forward(x)
inside, may_end = threading.Event(), threading.Event()


def predict():  # as a prediction and an update that are under way
    with net._lock, net._predicting(), net._learner.lock:
        inside.set()
        may_end.wait()


thread = threading.Thread(target=predict)
thread.start()
inside.wait()
child = os.fork()
if not child:
    same = (net.forward(x) == want).all()
    net.update(x, data.labels)
    os._exit(0 if same and (net.forward(x) != want).any() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
may_end.set()
thread.join()
print((net.forward(x) == want).all())
"""


def test_a_child_predicts_and_learns_though_a_thread_did_when_it_was_forked():
    assert run(PREDICTS_IN_CHILD) == ["0", "True"]


TEAM_IN_CHILD = """
def deterministic():
    return train(2, strategy="synchronous", batch_size=8).weights


def in_this_thread():  # chaos.train has a thread of its own
    engine = _core.Engine(network().plan, network().weights, workers=2, strategy="synchronous", batch_size=8)
    arguments = network().take_images(data.images)
    return engine.run("test", inputs=arguments["inputs"], labels=data.labels)["loss"]


want = deterministic(), in_this_thread()
for _ in range(2):
    child = os.fork()
    if not child:
        os._exit(0 if all((deterministic() == want[0]).all() and in_this_thread() == want[1] for _ in range(3)) else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print((deterministic() == want[0]).all() and in_this_thread() == want[1])
"""


def test_a_child_has_teams_of_its_own():
    assert run(TEAM_IN_CHILD) == ["0", "0", "True"]


POOL = """
def one(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(network().forward, [data.images] * 4)


if __name__ == "__main__":
    want = network().forward(data.images)
    train(2)
    print([bool((found == want).all()) for method in ("fork", "forkserver", "spawn") for found in one(method)])
"""


def test_pools_of_processes(tmp_path):
    (tmp_path / "program.py").write_text(HEAD + POOL)
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == f"{[True] * 12}\n", done.stdout + done.stderr


INTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
try:
    told = interpreters.run_string(other, "import chaos")  # from 3.13 on what was raised is returned
except interpreters.RunFailedError as error:
    told = error
print("one interpreter per process" in str(told) or "does not support loading in subinterpreters" in str(told) or told)
interpreters.destroy(other)
train(2)
print("the process goes on")
"""


def test_a_second_interpreter_is_refused():
    """chaos or NumPy says so, and the first one is none the worse."""
    assert run(INTERPRETER) == ["True", "the process goes on"]


NEIGHBOUR = """
import hashlib, sys
def theirs(name):
    import numpy as np
    x = np.random.default_rng(0).normal(size=(400, 30)).astype(np.float32)
    if name == "sklearn":
        from sklearn.cluster import KMeans  # threads of OpenMP
        return KMeans(3, n_init=1, random_state=0).fit(x).cluster_centers_.tobytes()
    import torch
    torch.manual_seed(0)
    layer = torch.nn.Linear(30, 50)
    layer(torch.from_numpy(x)).square().mean().backward()
    return layer.weight.grad.numpy().tobytes(), torch.get_num_threads()
def ours():
    import numpy as np
    import chaos
    from threadpoolctl import threadpool_info
    data = chaos.data.Dataset(np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4), np.uint8), np.arange(40) % 10)
    net = chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(10)], seed=1)
    threads = [pool["num_threads"] for pool in threadpool_info()]
    chaos.train(net, data, epochs=2, workers=2, strategy="synchronous", batch_size=4, progress=False)
    assert [pool["num_threads"] for pool in threadpool_info()] == threads
    return net.weights.tobytes()
found = {}
for who in sys.argv[2:]:
    result = ours() if who == "chaos" else theirs(sys.argv[1])
    assert found.setdefault(who, result) == result, who
print(hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest())
"""


@pytest.mark.parametrize("name", ["sklearn", "torch"])
def test_beside_another_library_in_either_order(name):
    """Whoever is imported first: both do what they do alone, and neither takes the other's threads."""
    pytest.importorskip(name)

    def told(*order):
        words = [sys.executable, "-c", NEIGHBOUR, name, *order]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert told("chaos", "other", "chaos") == told("other", "chaos", "other")
