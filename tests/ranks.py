"""A rank of mpi.Standing: runs one script after the other, each on the first so many ranks as though they were all there
are. What scripts change of the process, they find as it was."""

import contextlib
import gc
import json
import os
import sys
import traceback
from pathlib import Path

import mpi4py

mpi4py.rc.thread_level = "serialized"  # as chaos.cluster asks
from mpi4py import MPI  # noqa: E402

from chaos import _core  # noqa: E402
from chaos.cluster.launcher import launched  # noqa: E402
from chaos.cluster.link import Link  # noqa: E402
from chaos.training import phases  # noqa: E402

folder, world = Path(sys.argv[1]), MPI.COMM_WORLD
patched = [(holder, dict(vars(holder))) for holder in (Link, phases)]
kept = os.getcwd(), dict(os.environ), _core.get_isa()
SIZES = {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"}
sizes = sorted(SIZES & os.environ.keys())


def run(ranks, path, argv):
    """The exit code of a script."""
    group = world.group.Incl(range(ranks))
    MPI.COMM_WORLD = world.Create_group(group)
    os.environ.update(dict.fromkeys(sizes, str(ranks)))
    sys.argv = [path, *argv]
    assert launched() is None or launched().ranks == ranks
    try:
        exec(compile(Path(path).read_text(), path, "exec"), {"__name__": "__main__"})
        return 0
    except SystemExit as error:
        return error.code or 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    finally:
        for holder, before in patched:
            for name, value in before.items():
                if vars(holder)[name] is not value:
                    setattr(holder, name, value)
        os.chdir(kept[0])
        os.environ.clear()
        os.environ.update(kept[1])
        _core.set_isa(kept[2])
        _core.set_winograd(True)
        gc.collect()
        with contextlib.suppress(MPI.Exception):
            MPI.COMM_WORLD.Free()
        group.Free()
        MPI.COMM_WORLD = world


# neither waits for a process that has ended meanwhile
pipe = os.open(folder / f"orders-{world.rank}", os.O_RDONLY | os.O_NONBLOCK)
os.set_blocking(pipe, True)
with open(pipe) as orders, open(os.open(folder / "ended", os.O_RDWR), "w") as ended:
    for line in orders:
        code = run(*json.loads(line))
        sys.stdout.flush()
        ended.write(f"{world.rank} {code}\n")
        ended.flush()
