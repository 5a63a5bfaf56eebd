"""Training across processes with MPI: one file per exchange mode. The only room that imports mpi4py, and only when a job
starts: importing this initialises nothing. Users go through `chaos.train` and the CLI."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .. import affinity, threads, training
from ..errors import ClusterError
from ..network import Network
from ..options import unknown
from ..streams import tell
from ..sync import STRATEGIES
from ..training import ABOUT, Run, Settings, Threads
from ..updates import UPDATES
from . import agreement
from .allreduce import Allreduce
from .asynchronous import Async
from .easgd import EASGD
from .gossip import Gossip
from .launcher import fix, launched
from .local import Local
from .shared import Shared

if TYPE_CHECKING:
    from mpi4py import MPI

    from .link import Link
    from .mode import Mode

MODES = {mode.name: mode for mode in (Local, EASGD, Gossip, Async, Shared, Allreduce)}

__all__ = ["MODES", "agreement", "connect", "from_root", "launched", "train_linked"]


def train_linked(
    link: Link | None,
    net: Network,
    train: Any,
    test: Any,
    settings: Settings,
    *,
    config: Mapping[str, Any] | None = None,
    callbacks: Iterable[Any] = (),
    runner: Threads | None = None,
    **data: Any,
) -> Run:
    """`chaos.training.train` for who has connected; `link` may be None: alone. `data`: its further data."""
    if link is None:
        return training.train(net, train, test, settings, config=config, callbacks=callbacks, runner=runner, **data)
    mode = link.mode
    link.agree(link.checked(lambda: agreement.of_training(net, train, test, settings, **data)))

    def prepare() -> None:
        mode.check(link, settings.strategy, settings.batch_size)
        mode.prepare(link, net, UPDATES[settings.update].moments if settings.update in UPDATES else 0)

    link.checked(prepare)
    if settings.workers is None and not (settings.strategy in STRATEGIES and STRATEGIES[settings.strategy].single):
        share, beside = _share_of_cores(link)
        settings = dataclasses.replace(settings, workers=share)
        runner = runner or _Sharing(beside)
    _tell_bindings(link, settings.workers or 1)
    told = {"cluster": mode.name, "cluster_options": mode.option, "ranks": link.size, "hosts": sorted(set(link.hosts))}
    try:
        return training.train(
            net,
            train,
            test,
            settings,
            config={**(config or {}), **told},
            callbacks=callbacks,
            link=link,
            runner=runner,
            **data,
        )
    except BaseException:
        if link.agreed:
            mode.close(net)
        raise


@contextmanager
def connect(settings: Settings, comm: MPI.Intracomm | None = None, *, delay: float | None = None) -> Iterator[Link | None]:
    """The link to the other ranks of the job while the context lasts, None in a job of one rank. An exception on one rank in
    it ends the whole job; what the ranks must have in common, and have not, is a ClusterError on all."""

    def make() -> tuple[Mode, float]:
        if settings.cluster not in MODES:
            raise ValueError(unknown("unknown cluster mode", settings.cluster, MODES))
        return (
            MODES[settings.cluster](settings.cluster_options or {}),
            ABOUT["stall_timeout"].check("stall_timeout", settings.stall_timeout),
        )

    launch = launched()
    if comm is None and (launch is None or launch.ranks == 1):
        make()  # without MPI, where that is all there is to say
    delay = float(os.environ.get("CHAOS_CLUSTER_DELAY") or 0) if delay is None else delay
    comm = _world(settings.stall_timeout) if comm is None else comm
    _check(comm)
    if comm.size == 1:
        make()
        yield None
        return
    from .link import Link

    link = Link(comm, details=settings.rank_details, delay=delay)
    try:
        link.mode, link.stall_timeout = link.checked(make)
        link.agree(agreement.of_process(link.mode))
        yield link
    except BaseException as error:
        if not link.agreed:
            link.abort(error)
        link.close()
        raise
    link.close()


def from_root(call: Callable[[], Any]) -> Any:
    """What call() gives on rank 0, on all ranks that the launcher has started; where it fails, all raise its exception."""
    comm = _world()
    told: tuple[Any, Exception | None] = (None, None)
    if comm.rank == 0:
        try:
            told = call(), None
        except Exception as error:
            told = None, error
    result, error = comm.bcast(told)
    if error is not None:
        raise error
    return result


def _world(timeout=Settings.stall_timeout):
    launch = launched()
    try:
        MPI = _mpi_with_all_ranks(timeout)
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(
            f"training with several ranks needs mpi4py and an MPI library ({reason}); "
            "pip install 'chaos-sgd[mpi]' brings both"
        ) from None
    if MPI.COMM_WORLD.size == 1 and launch and launch.ranks > 1:
        library = MPI.Get_library_version().splitlines()[0].partition(",")[0].strip("\0 ")
        raise ClusterError(
            f"{launch.launcher} has started {launch.ranks} processes, but MPI ({library}) sees each of them "
            f"alone; {fix(launch)}"
        )
    return MPI.COMM_WORLD


def _mpi_with_all_ranks(timeout):
    """mpi4py.MPI, whose import waits until all ranks have come. Where one never does, because it has ended before, that is
    for ever, with Python's lock held: the process ends with this function's traceback then."""
    import mpi4py

    if "mpi4py.MPI" in sys.modules:
        return sys.modules["mpi4py.MPI"]
    # one thread talks, though not always the one that has started Python
    mpi4py.rc.thread_level = "serialized"
    watched = isinstance(timeout, (int, float)) and 0 < timeout < 1e6 and launched() is not None
    if watched:
        with suppress(OSError, ValueError):  # no standard error
            faulthandler.dump_traceback_later(timeout, exit=True, file=2)
    try:
        from mpi4py import MPI
    finally:
        if watched:
            faulthandler.cancel_dump_traceback_later()
    return MPI


def _check(comm):
    if "mpi4py.MPI" not in sys.modules or not isinstance(comm, sys.modules["mpi4py.MPI"].Comm):
        raise TypeError(f"comm must be an mpi4py.MPI.Intracomm, not {comm!r}")
    from mpi4py import MPI

    if comm == MPI.COMM_NULL:
        raise ValueError("comm is MPI.COMM_NULL: this process is none of the group's")
    level = MPI.Query_thread()
    if level == MPI.THREAD_SINGLE or (level == MPI.THREAD_FUNNELED and not MPI.Is_thread_main()):
        name = "MPI_THREAD_SINGLE" if level == MPI.THREAD_SINGLE else "MPI_THREAD_FUNNELED"
        raise ClusterError(
            f"MPI has been initialised with {name}, which does not allow calls from here beside running "
            "workers; set mpi4py.rc.thread_level = 'serialized' before mpi4py.MPI is imported"
        )
    if comm.Is_inter():
        raise ClusterError("an intercommunicator joins two groups of ranks; training needs one group (Intercomm.Merge)")


class _Sharing(Threads):
    """Real threads, whose plan says that nobody asked for their number."""

    def __init__(self, beside):
        self.beside = beside

    def workers(self, requested, only_one, pin):
        plan = super().workers(requested, only_one, pin)
        name = f"share of {self.beside} rank{'s'[: self.beside != 1]}"
        limits = {name if key == "argument" else key: n for key, n in plan.limits.items()}
        return dataclasses.replace(plan, limit=name if plan.limit == "argument" else plan.limit, limits=limits)

    def grouped(self, plan, measured):
        if self.beside == 1:
            return super().grouped(plan, measured)
        # each would take the first cores for itself
        return dataclasses.replace(plan, groups="one group: ranks share the cores"), plan.workers


def _share_of_cores(link):
    """(Workers of this rank where none are asked for, how many ranks share its cores): such ranks divide them."""
    plan = link.checked(threads.resolve)
    mine = affinity.cpus()
    beside = sum(
        host == link.hosts[link.rank] and bool(mine & set(mask))
        for host, mask in zip(link.hosts, link.gather(sorted(mine)), strict=True)
    )
    # what the environment names is per rank already
    return plan.workers if plan.limit.isupper() else max(1, plan.workers // beside), beside


def _tell_bindings(link, workers):
    """Rank 0 says where more workers run than cores are given to them."""
    found = link.gather((workers, sorted(affinity.cpus())))
    if link.rank:
        return
    for rank, (count, mask) in enumerate(found):
        if count > len(mask):
            tell(
                f"chaos: {link.names[rank]} has {count} workers but is bound to {len(mask)} CPU{'s'[: len(mask) > 1]} "
                f"({threads.ranges(mask)}); let the launcher bind to more, as `chaos launch --dry-run` shows, or give "
                f"--workers {len(mask)}"
            )
    for host in sorted(set(link.hosts)):
        here = [found[rank] for rank in range(link.size) if link.hosts[rank] == host]
        cpus, total = set().union(*(mask for _, mask in here)), sum(count for count, _ in here)
        if total > len(cpus) and all(count <= len(mask) for count, mask in here):
            tell(
                f"chaos: {host} is oversubscribed: {total} workers of {len(here)} ranks on {len(cpus)} CPUs "
                f"({threads.ranges(sorted(cpus))})"
            )
