"""What OpenMP runtimes do to the mask of the thread that loads them is no limit; what taskset and others do is one."""

import functools
import json
import os
import subprocess
import sys

import pytest

from chaos import affinity
from chaos.cluster import look

if not hasattr(os, "sched_setaffinity"):
    pytest.skip("this system has no affinity masks", allow_module_level=True)
CPUS = sorted(os.sched_getaffinity(0))
if len(CPUS) < 2:
    pytest.skip("on one CPU nothing can be bound", allow_module_level=True)

# A process of its own, which tells what it sees: `first` is run before `import chaos`.
PROCESS = """
import json, os, sys
mask, first, then = json.loads(sys.argv[1])
if mask:
    os.sched_setaffinity(0, mask)
exec(first)
import chaos, chaos.threads
from chaos.cluster import look
exec(then)
left = sorted(os.sched_getaffinity(0))
train, _ = chaos.data.load("digits", size=29)
team = []
class Look(chaos.Callback):
    def epoch_end(self, event, record):  # the team waits for the next phase
        for task in os.listdir("/proc/self/task"):
            if int(task) != os.getpid():
                with open(f"/proc/self/task/{task}/status") as file:
                    team.append(next(line.split()[1] for line in file if line.startswith("Cpus_allowed_list")))
chaos.train(chaos.models.small(), train[:200], epochs=1, workers=2, progress=False, callbacks=[Look()])
print(json.dumps({"left": left, "after": sorted(os.sched_getaffinity(0)), "workers": chaos.threads.resolve().workers,
                  "cpus": sorted(chaos.affinity.cpus()), "pins": sorted(chaos.threads.placement("compact")),
                  "team": team,
                  "pinned": chaos.train(chaos.models.small(), train[:50], epochs=1, pin="compact",
                                        progress=False).workers.workers,
                  "doctor": [[one.level, one.topic, one.text, one.fix]
                             for one in [*look.threads_and_cores(), *look.openmp(), *look.binding()]]}))
"""
LOADED = "import ctypes, ctypes.util; ctypes.CDLL(ctypes.util.find_library('gomp') or 'libgomp.so.1')"
OTHER = "import sklearn.utils._openmp_helpers"  # which brings a runtime of its own, under a name of its own
BOUND = [{"OMP_PROC_BIND": "close"}, {"OMP_PLACES": "cores"}, {"GOMP_CPU_AFFINITY": str(CPUS[0])}]


def process(variables, first="", mask=None, then=""):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_", "CHAOS_"))}
    words = [sys.executable, "-c", PROCESS, json.dumps([mask, first, then])]
    done = subprocess.run(words, env=env | variables, capture_output=True, text=True, timeout=120)
    if "cannot open shared object" in done.stderr or "No module named 'sklearn'" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@functools.cache
def unbound():
    """How many workers there are where no runtime binds anything."""
    return process({})["workers"]


def some(variables):
    """All ways to bind with all that may have been loaded before; by day every other pair."""
    return [
        pytest.param(bound, first, marks=pytest.mark.nightly if (i + k) % 2 else ())
        for i, bound in enumerate(variables)
        for k, first in enumerate(["", LOADED, OTHER])
    ]


@pytest.mark.parametrize("variables, first", some([*BOUND, {"OMP_PROC_BIND": "true"}]))
def test_binding_by_a_runtime_is_no_limit(variables, first):
    found = process(variables, first)
    if found["left"] == CPUS:
        pytest.skip("this runtime binds no thread that loads it")
    assert found["left"] == found["after"] and len(found["left"]) < len(CPUS), "what the runtime has done stays"
    assert found["cpus"] == found["pins"] == CPUS
    assert found["workers"] == found["pinned"] == unbound()
    (line,) = (one for one in found["doctor"] if "binds the main thread" in one[2])
    assert all(f"{name}={value}" in line[2] for name, value in variables.items())
    assert not any(topic == "affinity" for _, topic, *_ in found["doctor"]), "nobody blames taskset"
    if "GOMP_CPU_AFFINITY" in variables:
        assert line[0] == look.NOTE and "take turns" in line[2] and line[3].startswith("unset GOMP_CPU_AFFINITY;")
    else:
        assert line[0] == look.OK and f"{CPUS[0]}" in line[2]
        assert len({cpus for cpus in found["team"] if cpus in map(str, CPUS)}) > 1, "the team has one CPU only"


@pytest.mark.parametrize("variables, first", some([{}, BOUND[0]]))
def test_limits_of_others_are_honoured(variables, first):
    """taskset, a launcher or a container: a mask that the process has begun with."""
    last = CPUS[-1]
    found = process(variables, first, [last])
    assert found["cpus"] == found["left"] == found["pins"] == [last] and found["workers"] == 1
    assert any(topic == "affinity" and "taskset" in text for _, topic, text, _ in found["doctor"])
    assert not any("binds the main thread" in text for _, _, text, _ in found["doctor"])


def test_a_mask_that_is_set_later_is_honoured():
    last = CPUS[-1]
    found = process({"OMP_PROC_BIND": "true"}, then=f"import os; os.sched_setaffinity(0, [{last}])")
    assert found["cpus"] == [last] and found["workers"] == 1


def test_doctor_tells_what_is_bound():
    bound = affinity.Binding(frozenset(range(8)), frozenset({2}))
    environ = {"OMP_PROC_BIND": "true", "OMP_PLACES": ""}
    (one,) = look.binding(environ, bound, set(range(8)))
    assert one.level == look.OK and one.text.startswith(
        "OMP_PROC_BIND=true binds the main thread to CPU 2, which is no limit"
    )
    assert one.text.endswith("may use CPUs 0-7")
    (one,) = look.binding({"GOMP_CPU_AFFINITY": "2-3"}, bound, {2, 3})
    assert one.level == look.NOTE and "on 2 of the 8 CPUs" in one.text


@pytest.mark.parametrize(
    "text, wanted", [("0-3,8", {0, 1, 2, 3, 8}), ("5", {5}), ("", set()), ("0-1, 4-5", {0, 1, 4, 5}), ("x", set())]
)
def test_lists_of_cpus(text, wanted):
    assert affinity.parse(text) == wanted
