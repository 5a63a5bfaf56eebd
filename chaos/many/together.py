"""`train_many`: independent trainings in one process, each on a core of its own. Imported by chaos.many.

A job is trained in a Python thread by one worker, which needs no interpreter while it works: what is done under the
interpreter's lock is some milliseconds between jobs. Nothing is pickled, data sets are shared."""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from .. import api, blas, threads
from ..hints import TRAINING, meant
from ..network import Network
from ..training import Callback, Threads
from ..training.phases import resolve_workers
from ..training.signals import signals
from .progress import Bar
from .stopper import Stopper

Row = dict[str, Any]
Job = Mapping[str, Any]
# of chaos.train what a job says, and what all have in common here
_OURS = {"net", "workers", "pin", "progress", "cluster", "cluster_options", "comm", "stall_timeout", "rank_details"}
SETTINGS = {name for name in inspect.signature(api.train).parameters if name not in _OURS | {"link", "runner"}}
_PHASES = ("train_", "validation_", "test_")  # begin the names of what a record measures
_OBJECTS = ("network", "history", "exception")
_ROW = {"job", "status", "error", "epochs", "seconds", *_OBJECTS}


class Results(list[Row]):
    """What `train_many` returns: one dict per job, in their order.

    Each has job (its number, from 0), what its "label" says, status ("done", "stopped", "failed" or "cancelled"), error (the
    text of its exception, or None), epochs, seconds, of its last epoch the losses, errors and metrics that there are
    (train_loss, test_error, ...), and network (None where it is not kept), history (list of dict, as `Run.history`) and
    exception."""

    @property
    def networks(self) -> list[Network]:
        """Those of all jobs that are done."""
        return [row["network"] for row in self if row["status"] == "done" and row["network"] is not None]

    @property
    def failed(self) -> list[Row]:
        """The rows of the jobs that have failed."""
        return [row for row in self if row["status"] == "failed"]

    def best(self, by: str = "test_error") -> Row:
        """The row of the done job with the smallest `by`; ValueError where there is none."""
        known = [row for row in self if row["status"] == "done" and row.get(by) is not None]
        if not known:
            raise ValueError(f"no job is done and has {by!r}")
        found: Row = min(known, key=lambda row: row[by])
        return found

    def raise_failed(self) -> None:
        """Raises the exception of the first job that has failed, if any."""
        for row in self.failed:
            error: BaseException = row["exception"]
            error.add_note(f"in job {row['job']}; {len(self.failed)} of {len(self)} jobs have failed")
            raise error

    def to_frame(self) -> Any:
        """The table as a pandas.DataFrame, without networks, histories and exceptions; ImportError where there is no
        pandas."""
        import pandas

        return pandas.DataFrame([{name: value for name, value in row.items() if name not in _OBJECTS} for row in self])

    def __repr__(self) -> str:
        if self and "candidate" in self[0] and "rank" in self[0]:  # the rows of chaos.search
            return f"<Results: {len(self)} candidates>"
        count = {
            status: sum(row.get("status") == status for row in self) for status in ("done", "stopped", "failed", "cancelled")
        }
        return f"<Results: {len(self)} jobs, {', '.join(f'{n} {status}' for status, n in count.items() if n) or 'none'}>"


class OneEach(Threads):
    """A worker for each job; how many there are in all is known already."""

    def __init__(self) -> None:
        self.plan = resolve_workers(1)

    def workers(self, requested: int | None, only_one: str | None, pin: str) -> threads.Plan:
        return self.plan


def train_many(
    jobs: Iterable[Job],
    *,
    workers: int | None = None,
    progress: bool = True,
    keep_networks: bool = True,
    on_row: Callable[[Row], Any] | None = None,
) -> Results:
    """Trains many networks independently of each other, as many at a time as there are cores, each with one worker.

    Every job gives the bits that `chaos.train` gives it alone with ``workers=1``, whatever the number of workers here and
    the order in which jobs come to their ends. A job that fails leaves the others alone.

    Parameters
    ----------
    jobs : iterable of dict
        Each has "network": a chaos.Network, which is trained in place, or a function without arguments that makes one when
        the job begins; "train": a Dataset; and of the arguments of `chaos.train` those that it needs ("test", "epochs",
        "lr", "seed", "callbacks", "run_dir", ...). "label", a dict or any other value, goes into the job's row.
    workers : int, optional
        How many jobs are trained at a time; by default what `chaos.threads.resolve` finds.
    progress : bool
        Show one bar for all on a terminal, else some lines (standard error).
    keep_networks : bool
        Whether rows hold networks that functions have made.
    on_row : callable, optional
        Called with the row of each job that has come to its end, in the thread that has called.

    Returns
    -------
    Results
        A list of dict, one for each job, with `to_frame()`, `best()` and `raise_failed()`.

    Raises
    ------
    TypeError, ValueError
        Where jobs are none, before any is trained: a name that `chaos.train` does not know, one network in two jobs.
    KeyboardInterrupt, SystemExit
        After Ctrl-C or SIGTERM, when all have stopped; it has the results so far as its `results`.

    Examples
    --------
    >>> jobs = [{"network": lambda s=s: chaos.models.small(seed=s), "train": train, "test": test, "seed": s, "epochs": 3,
    ...          "label": {"seed": s}} for s in range(64)]  # doctest: +SKIP
    >>> chaos.train_many(jobs).to_frame()  # doctest: +SKIP
    """
    if isinstance(jobs, Mapping):
        raise TypeError("jobs are a list of dicts, not one dict: [job]")
    known = _checked(list(jobs))
    plan = threads.resolve(workers)
    runner, stopper = OneEach(), Stopper()
    rows: list[Row | None] = [None] * len(known)

    def one(k: int) -> Row:
        return _train(k, known[k], runner, stopper, keep_networks)

    with signals() as caught, Bar(len(known), progress, plan.workers) as bar, blas.one_thread():
        with ThreadPoolExecutor(min(plan.workers, max(len(known), 1)), "chaos-many") as pool:
            numbers = {pool.submit(one, k): k for k in range(len(known))}
            try:
                left: set[Future[Row]] = set(numbers)
                while left:
                    over, left = wait(left, 0.1, FIRST_COMPLETED)
                    for future in over:
                        rows[numbers[future]] = row = future.result()
                        bar.add(row)
                        if on_row is not None:
                            on_row(row)
                    if caught.signal and not stopper.asked:
                        stopper.set()
            except BaseException:  # of on_row, or from a signal handler that is not ours: no job outlives it
                stopper.set()
                raise
    results = Results(row for row in rows if row is not None)
    if caught.signal:
        try:
            caught.leave(f"stopped with {sum(row['status'] == 'done' for row in results)} of {len(results)} jobs done")
        except BaseException as error:
            error.results = results  # type: ignore[attr-defined]
            raise
    return results


def _checked(jobs: Sequence[Any]) -> list[Job]:
    """The jobs, none of which is a mistake of the program."""
    first: dict[int, int] = {}
    for k, job in enumerate(jobs):
        if not isinstance(job, Mapping):
            raise TypeError(f"job {k} must be a dict, not {type(job).__name__}")
        for name in job:
            if name not in SETTINGS | {"network", "label"}:
                if name in _OURS - {"net"}:
                    raise ValueError(f"job {k} has {name!r}, which is the same for all: each job has one worker")
                hint = meant(
                    str(name),
                    [*SETTINGS, "network", "label"],
                    {**TRAINING, "net": "network", "model": "network", "name": "label"},
                )
                raise ValueError(f"job {k} has {name!r}, which is none of a job's names{hint}")
        label = job.get("label")
        if isinstance(label, Mapping) and (taken := sorted(_ROW & label.keys())):
            raise ValueError(f"label of job {k} has {taken[0]!r}, which its row has already")
        for name in ("network", "train"):
            if name not in job:
                raise ValueError(f"job {k} has no {name!r}")
        network = job["network"]
        if not isinstance(network, Network) and not callable(network):
            raise TypeError(f"network of job {k} must be a chaos.Network, or a function that makes one, not {network!r}")
        if isinstance(network, Network) and first.setdefault(id(network), k) != k:
            raise ValueError(
                f"jobs {first[id(network)]} and {k} train the same network; give copies (copy.deepcopy), or functions"
            )
    return list(jobs)


def _train(k: int, job: Job, runner: OneEach, stopper: Stopper, keep: bool) -> Row:
    """One job's row; whatever goes wrong is in it."""
    label = job.get("label", {})
    about = {**label} if isinstance(label, Mapping) else {"label": label}
    row: Row = {"job": k, **about, "status": "cancelled", "error": None, "epochs": 0, "seconds": 0.0}
    row |= {"network": None, "history": [], "exception": None}
    if stopper.asked:
        return row
    start = time.perf_counter()
    watch = _Keep()
    try:
        network = job["network"]
        given = isinstance(network, Network)
        net = network if given else network()
        settings = {name: value for name, value in job.items() if name not in ("network", "label", "callbacks")}
        callbacks = [watch, stopper, *job.get("callbacks", ())]
        run = api.train(net, **settings, callbacks=callbacks, workers=1, progress=False, runner=runner)
        row["status"] = "stopped" if stopper.asked and run.stopped else "done"
        row["network"] = net if keep or given else None
    except Exception as error:
        row |= {"status": "failed", "error": "".join(traceback.format_exception_only(error)).strip(), "exception": error}
    row |= {"seconds": time.perf_counter() - start, "history": watch.history, "epochs": len(watch.history)}
    last = watch.history[-1] if watch.history else {}
    numbers = {name: value for name, value in last.items() if name.startswith(_PHASES) and isinstance(value, (int, float))}
    return row | {name: value for name, value in numbers.items() if name not in row}


class _Keep(Callback):
    """The records of a training, also of one that fails."""

    def __init__(self) -> None:
        self.history: list[Row] = []

    def epoch_end(self, event: Any, record: Row) -> None:
        self.history.append(record)
