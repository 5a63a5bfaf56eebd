"""Training across processes with MPI: one file per exchange mode. The only room that imports mpi4py, and only when a job
starts: importing this initialises nothing. Users go through `chaos.train` and the CLI."""

import inspect
import os
import sys
from contextlib import contextmanager

from .. import threads, trainer
from ..errors import ClusterError
from ..options import check_number
from ..sync import STRATEGIES
from ..updates import UPDATES
from .allreduce import Allreduce
from .asynchronous import Async
from .easgd import EASGD
from .gossip import Gossip
from .launcher import fix, launched
from .local import Local
from .shared import Shared

MODES = {mode.name: mode for mode in (Local, EASGD, Gossip, Async, Shared, Allreduce)}

__all__ = ["MODES", "connect", "launched", "train"]


def train(
    net,
    train,
    test=None,
    *,
    cluster=None,
    cluster_options=None,
    comm=None,
    stall_timeout=300.0,
    rank_details=False,
    **options,
):
    """Trains a network in place: `chaos.trainer.train`, which has all further options, alone or on every rank of an MPI job.

    In a job every rank calls this with the same arguments; all have the data, and each trains on its part of every epoch's
    order, so that an epoch is still every image once. Rank 0 writes the run directory and the progress; the history, with
    the totals over all ranks, and at the end the weights are the same everywhere.

    Parameters
    ----------
    net, train, test
        As in `chaos.trainer.train`.
    cluster : str, optional
        How the ranks keep their weights together: a name in chaos.cluster.MODES; each says there what it promises and what
        options it has. None: this process trains alone, whatever has started it.
    cluster_options : dict, optional
        Of the mode, by name.
    comm : mpi4py.MPI.Intracomm, optional
        The ranks of the job; MPI.COMM_WORLD by default. With one rank the result is that of no cluster.
    stall_timeout : float
        Seconds after which a rank that neither answers nor moves on ends the job, with the rank named; 0: never.
    rank_details : bool
        Whether the records tell about every rank.
    **options
        As in `chaos.trainer.train`. `workers` is per rank; by default the ranks of a machine share its cores. `run_dir`
        matters on rank 0.

    Returns
    -------
    Run
        Its records have "cluster" in a job of several ranks: mode, options, ranks, exchanges, bytes (sent by all ranks for
        the weights; of a sum what the best algorithm sends), exchange_seconds (of all ranks) and overlap (the part of them
        in which that rank's workers were running).

    Raises
    ------
    ClusterError
        Where MPI or the job is not what is needed, with the fix, before anything is trained.
    ValueError, DataError, ...
        As `chaos.trainer.train`, on all ranks. Where one rank alone fails while training, its traceback is printed and the
        job is ended.
    """
    if cluster is None:
        if cluster_options:
            raise ValueError(f"cluster_options {cluster_options!r} without cluster; known: {', '.join(MODES)}")
        if comm is not None:
            raise ValueError(f"comm {comm!r} without cluster; known: {', '.join(MODES)}")
        return trainer.train(net, train, test, **options)
    with connect(cluster, cluster_options, comm=comm, stall_timeout=stall_timeout, rank_details=rank_details) as link:
        return train_linked(link, net, train, test, **options)


def _full_signature():
    """That of `train` with the options of `chaos.trainer.train` by name, for help() and editors."""
    own, all_options = (inspect.signature(one).parameters for one in (train, trainer.train))
    ours = [one for name, one in own.items() if name not in all_options and one.kind is one.KEYWORD_ONLY]
    theirs = [one for name, one in all_options.items() if name not in ("link", "runner")]
    return inspect.Signature([*theirs, *ours, *(all_options[name] for name in ("link", "runner"))])


train.__signature__ = _full_signature()


def train_linked(link, net, train, test=None, *, strategy="chaos", update="sgd", workers=None, config=None, **options):
    """`train` for who has connected already; `link` may be None: alone."""
    if link is None:
        return trainer.train(net, train, test, strategy=strategy, update=update, workers=workers, config=config, **options)
    mode = link.mode

    def prepare():
        mode.check(link, strategy, options.get("batch_size", 1))
        mode.prepare(link, net, UPDATES[update].moments if update in UPDATES else 0)

    link.checked(prepare)
    if workers is None and not (strategy in STRATEGIES and STRATEGIES[strategy].single):
        workers = _share_of_cores(link)
    _tell_bindings(link, workers or 1)
    told = {"cluster": mode.name, "cluster_options": mode.option, "ranks": link.size, "hosts": sorted(set(link.hosts))}
    try:
        return trainer.train(
            net,
            train,
            test,
            strategy=strategy,
            update=update,
            workers=workers,
            config={**(config or {}), **told},
            link=link,
            **options,
        )
    except BaseException:
        if link.agreed:
            mode.close(net)
        raise


@contextmanager
def connect(cluster, cluster_options=None, *, comm=None, stall_timeout=300.0, rank_details=False, delay=None):
    """The link to the other ranks of the job while the context lasts, None in a job of one rank. An exception on one rank in
    it ends the whole job."""
    if cluster not in MODES:
        raise ValueError(f"unknown cluster mode {cluster!r}; known: {', '.join(MODES)}")
    mode = MODES[cluster](cluster_options or {})
    check_number("stall_timeout", stall_timeout, 0)
    delay = float(os.environ.get("CHAOS_CLUSTER_DELAY") or 0) if delay is None else delay
    comm = _world() if comm is None else comm
    _check(comm)
    if comm.size == 1:
        yield None
        return
    from .link import Link

    link = Link(comm, mode, stall_timeout=stall_timeout, details=rank_details, delay=delay)
    try:
        yield link
    except BaseException as error:
        if not link.agreed:
            link.abort(error)
        link.close()
        raise
    link.close()


def _world():
    launch = launched()
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:
            # one thread talks, though not always the one that has started Python
            mpi4py.rc.thread_level = "serialized"
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(
            f"training with several ranks needs mpi4py and an MPI library ({reason}); pip install 'chaos[mpi]' brings both"
        ) from None
    if MPI.COMM_WORLD.size == 1 and launch and launch.ranks > 1:
        library = MPI.Get_library_version().splitlines()[0].partition(",")[0].strip("\0 ")
        raise ClusterError(
            f"{launch.launcher} has started {launch.ranks} processes, but MPI ({library}) sees each of them "
            f"alone; {fix(launch)}"
        )
    return MPI.COMM_WORLD


def _check(comm):
    from mpi4py import MPI

    level = MPI.Query_thread()
    if level == MPI.THREAD_SINGLE or (level == MPI.THREAD_FUNNELED and not MPI.Is_thread_main()):
        name = "MPI_THREAD_SINGLE" if level == MPI.THREAD_SINGLE else "MPI_THREAD_FUNNELED"
        raise ClusterError(
            f"MPI has been initialised with {name}, which does not allow calls from here beside running "
            "workers; set mpi4py.rc.thread_level = 'serialized' before mpi4py.MPI is imported"
        )
    if comm.Is_inter():
        raise ClusterError("an intercommunicator joins two groups of ranks; training needs one group (Intercomm.Merge)")


def _affinity():
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _share_of_cores(link):
    """Workers of this rank where none are asked for: ranks that may use the same cores divide them."""
    plan = link.checked(threads.resolve)
    mine = set(_affinity())
    beside = sum(
        host == link.hosts[link.rank] and bool(mine & set(mask))
        for host, mask in zip(link.hosts, link.gather(_affinity()), strict=True)
    )
    # what the environment names is per rank already
    return plan.workers if plan.limit.isupper() else max(1, plan.workers // beside)


def _tell_bindings(link, workers):
    """Rank 0 says where more workers run than cores are given to them."""
    found = link.gather((workers, _affinity()))
    if link.rank:
        return
    for rank, (count, mask) in enumerate(found):
        if count > len(mask):
            print(
                f"chaos: {link.names[rank]} has {count} workers but is bound to {len(mask)} CPU{'s'[: len(mask) > 1]} "
                f"({threads.ranges(mask)}); let the launcher bind to more, as `chaos launch --dry-run` shows, or give "
                f"--workers {len(mask)}",
                file=sys.stderr,
                flush=True,
            )
    for host in sorted(set(link.hosts)):
        here = [found[rank] for rank in range(link.size) if link.hosts[rank] == host]
        cpus, total = set().union(*(mask for _, mask in here)), sum(count for count, _ in here)
        if total > len(cpus) and all(count <= len(mask) for count, mask in here):
            print(
                f"chaos: {host} is oversubscribed: {total} workers of {len(here)} ranks on {len(cpus)} CPUs "
                f"({threads.ranges(sorted(cpus))})",
                file=sys.stderr,
                flush=True,
            )
