"""Inside an epoch there is no allocation and no system call: what a phase costs of both does not depend on its length."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

import chaos

if not sys.platform.startswith("linux"):
    pytest.skip("preloads a library and traces system calls as on Linux", allow_module_level=True)

COMPILER = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
SHORT, LONG = 100, 1000
WORKERS = [1, pytest.param(2, marks=pytest.mark.skipif(not chaos.info()["openmp"], reason="built without OpenMP"))]

# The __libc_ names are glibc's; through them the counter needs no dlsym, which allocates itself. Calls that come from the
# interpreter's own code are left out: they are its business before and after the phase (see the test).
COUNTER = """
#include <errno.h>
#include <stddef.h>
static long calls;
static char *first, *last;
void leave_out(char *from, char *to) { first = from, last = to; }
long counted_calls(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
#define CALLER ((char *)__builtin_return_address(0))
#define COUNT (CALLER < first || CALLER >= last ? __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED) : 0)
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);
void *malloc(size_t n) { COUNT; return __libc_malloc(n); }
void *calloc(size_t n, size_t size) { COUNT; return __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { COUNT; return __libc_realloc(p, n); }
void free(void *p) { COUNT; __libc_free(p); }
void *memalign(size_t to, size_t n) { COUNT; return __libc_memalign(to, n); }
void *aligned_alloc(size_t to, size_t n) { COUNT; return __libc_memalign(to, n); }
int posix_memalign(void **p, size_t to, size_t n)
{
    COUNT;
    *p = __libc_memalign(to, n);
    return *p ? 0 : ENOMEM;
}
"""

ENGINE = """
import ctypes, gc, os, sys
import numpy as np
import chaos
from chaos import _core, threads
workers, pinned, short, long = map(int, sys.argv[1:])
net = chaos.models.small()
rng = np.random.default_rng(0)
data = {n: dict(inputs=[rng.integers(0, 256, n * 841, dtype=np.uint8)], labels=rng.integers(0, 10, n),
                order=rng.permutation(n), lr=0.001) for n in (short, long)}
steps = chaos.augment.steps(["shift:2", "elastic", "mixup", "cutout", "gaussian_noise"])
engine = _core.Engine(net.plan, net.weights, workers=workers, strategy="chaos", augment=[step.core() for step in steps],
                      cpus=threads.resolve(workers, pin="compact").cpus if pinned else None)
"""

WARM = """
for n in data:
    engine.run("train", **data[n])  # starts the team and makes the workers' memory
gc.collect()
gc.disable()
"""

COUNT = (
    ENGINE
    + """
libc = ctypes.CDLL(None)
libc.counted_calls.restype = ctypes.c_long
spans = [(*(int(word, 16) for word in line.split()[0].split("-")), line.split(maxsplit=5)[5:])
         for line in open("/proc/self/maps")]
inside = ctypes.cast(ctypes.pythonapi.PyObject_Malloc, ctypes.c_void_p).value
(name,) = [name for first, last, name in spans if first <= inside < last]
spans = [span for span in spans if span[2] == name]
libc.leave_out(ctypes.c_void_p(spans[0][0]), ctypes.c_void_p(spans[-1][1]))
before = libc.counted_calls()
"""
    + WARM
    + """
print(0, libc.counted_calls() - before)
for _ in range(20):
    for n, arguments in data.items():
        before = libc.counted_calls()
        result = engine.run("train", **arguments)
        print(n, libc.counted_calls() - before)
        assert result["images"] == n
"""
)

TRACE = (
    ENGINE
    + WARM
    + """
for attempt in range(5):
    for n, arguments in data.items():
        os.access(f"begin {n} {attempt}", 0)
        result = engine.run("train", **arguments)
        os.access(f"end {n} {attempt}", 0)
        print(n, attempt, result["give_ways"], flush=True)
"""
)


def run(code, *arguments, under=(), **environ):
    done = subprocess.run(
        [*under, sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    """The path of a library that counts calls of the allocator."""
    if not shutil.which(COMPILER):
        pytest.skip(f"no compiler {COMPILER}")
    folder = tmp_path_factory.mktemp("counter")
    (folder / "counter.c").write_text(COUNTER)
    flags = ["-shared", "-fPIC", "-O1", "-fno-builtin"]
    subprocess.run([COMPILER, *flags, "counter.c", "-o", "counter.so"], cwd=folder, check=True)
    probe = subprocess.run(
        [sys.executable, "-c", ""], env={**os.environ, "LD_PRELOAD": str(folder / "counter.so")}, capture_output=True
    )
    if probe.returncode or probe.stderr:
        pytest.skip("the C library is not glibc, or a sanitizer has taken the allocator")
    return folder / "counter.so"


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("pinned", [0, 1])
def test_no_allocation_inside_an_epoch(counter, workers, pinned):
    """Equal numbers for 100 and for 1000 images, in every phase. What may remain is what the OpenMP runtime needs for a
    team; GCC's keeps the last one and needs nothing. The interpreter's own calls, for the views of the arguments and for
    the dict of results, are not counted: the list of staleness is as long as the largest staleness, which is luck with
    several workers."""
    found = {0: [], SHORT: [], LONG: []}
    for line in run(COUNT, workers, pinned, SHORT, LONG, LD_PRELOAD=str(counter)).splitlines():
        n, calls = map(int, line.split())
        found[n].append(calls)
    assert found[0][0] >= 2 * workers, "the first phase makes the workers' memory: the counter does not see the core"
    assert len(found[SHORT]) == len(found[LONG]) == 20
    assert len({*found[SHORT], *found[LONG]}) == 1, found


WAITING = {"futex", "sched_yield"}
MEMORY = {"brk", "mmap", "munmap"}  # of the interpreter, for the dict of results


def traced_calls(text, begin, end):
    """Counter of the system calls of all threads between the two markers in strace's output."""
    lines = text.split(f'"{begin}"', 1)[1].split(f'"{end}"', 1)[0].splitlines()[1:-1]
    return Counter(match[1] for line in lines if (match := re.match(r"(?:\[pid +)?\d+\]? +(\w+)\(", line)))


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("pinned", [0, 1])
def test_no_system_call_inside_an_epoch(tmp_path, workers, pinned):
    """A phase makes no system call but these, whatever its length: with pinning at most three per worker, at its ends; the
    interpreter's, now and then, to get memory for the results; and where threads wait for each other

    * one sched_yield for every time a worker gives its core away for a stripe: that is counted, and happens only when the
      holder of the stripe has lost its core;
    * the futex calls of the team. It meets twice, when a phase begins and when it ends, and each time a thread makes one
      call to sleep and one to wake the others. Twice that is allowed for wake-ups that came too early.
    """
    log = tmp_path / "strace"
    probe = subprocess.run(["strace", "-o", log, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"strace cannot trace here: {probe.stderr.strip()}")
    strace = ["strace", "-f", "-qq", "-e", "signal=none", "-o", log]
    out = run(TRACE, workers, pinned, SHORT, LONG, under=strace, PYTHONDONTWRITEBYTECODE="1")
    text = Path(log).read_text()
    found = []
    for line in out.splitlines():
        n, attempt, give_ways = map(int, line.split())
        calls = traced_calls(text, f"begin {n} {attempt}", f"end {n} {attempt}")
        found.append((n, give_ways, dict(calls)))
        assert calls["sched_yield"] <= give_ways, found
        assert calls["futex"] <= (8 * workers if workers > 1 else 0), found
        assert sum(calls[name] for name in MEMORY) <= 8, found
        if pinned:
            assert calls.pop("sched_getaffinity") == workers, found
            assert calls.pop("sched_setaffinity", 0) in (0, 2 * workers), found
        assert calls.keys() <= WAITING | MEMORY, found
    assert [n for n, *_ in found] == [SHORT, LONG] * 5
