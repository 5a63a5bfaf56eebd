"""The experiments: what they are, and running them. Every finished one is kept at once, so that a stopped reproduction goes
on where it was. For chaos.reproduce."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from types import FrameType

from .. import data, threads, training, virtual
from ..bench import machine
from ..formats.atomic import write_atomically
from ..formats.json_text import parse_json
from ..models import MODELS as ZOO
from ..network import Network
from ..perfmodel import papers, read_machine
from ..training.records import Record
from . import paper, store
from .store import Folder, Kept

MODELS = ("small", "medium", "large")
MACHINE = "xeon-phi-7120p"  # of the virtual workers
# --quick: (epochs, training images; None: all), and the numbers of virtual workers
QUICK = {"small": (3, None), "medium": (2, 10_000), "large": (1, 3_000)}
QUICK_WORKERS = (15, 60, 244)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One training.

    Attributes
    ----------
    model : str
    workers : int
    virtual : bool
        Whether the workers are virtual; one real worker trains with the strategy `sequential`.
    epochs : int
    subset : int or None
        Only the first training images.
    data : str
    seed : int
    """

    model: str
    workers: int
    virtual: bool
    epochs: int
    subset: int | None
    data: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its file, unique in a reproduction."""
        return f"{self.model}-{'virtual' if self.virtual else 'real'}-{self.workers}"

    def describe(self) -> str:
        """For people."""
        kind = "virtual" if self.virtual else "real"
        return f"{self.model}, {self.workers} {kind} worker{'s' if self.workers != 1 else ''}"


def plan(
    quick: bool = False, models: Sequence[str] = MODELS, data_name: str = "mnist", cores: int | None = None, seed: int = 0
) -> list[Experiment]:
    """The experiments in the order in which they are run: real ones first, those that take least time first.

    Parameters
    ----------
    quick : bool
        Fewer epochs, images and numbers of workers.
    models : sequence of str
    data_name : str
    cores : int, optional
        Real workers go from 1 to this; by default the cores of this machine.
    seed : int

    Returns
    -------
    list of Experiment
    """
    unknown = [name for name in models if name not in MODELS]
    if unknown or not models:
        raise ValueError(f"unknown models {', '.join(unknown) or 'none'}; known: {', '.join(MODELS)}")
    cores = cores or threads.resolve().workers
    found: list[Experiment] = []
    for real in (True, False):
        for model in models:
            epochs, subset = QUICK[model] if quick else (paper.EPOCHS[model], None)
            counts: Sequence[int] = QUICK_WORKERS if quick else [n for n in paper.THREADS if n > 1]
            if real:
                counts = range(1, cores + 1)
            found += [Experiment(model, count, not real, epochs, subset, data_name, seed) for count in counts]
    return found


def run_all(
    folder: Folder, experiments: Sequence[Experiment], say: Callable[[str], object] = print, jobs: int | None = None
) -> dict[Experiment, Kept]:
    """Runs the experiments that are not finished yet. Real ones have the machine for themselves; virtual ones, each of which
    needs one core, go side by side.

    Parameters
    ----------
    folder : path
        Is made; holds experiments/NAME.json of those that this session has finished, runs/NAME of those under way,
        and what `chaos.reproduce.write_all` has left.
    experiments : list of Experiment
    say : callable
        Is given a line per experiment.
    jobs : int, optional
        Virtual experiments at a time; by default as many as there are cores.

    Returns
    -------
    dict
        {experiment: result}: format, experiment, history (records of metrics.jsonl, with lists and dicts only in the
        last), seconds (wall clock; of
        virtual ones CPU time; all phases and sessions), machine.
    """
    folder = Path(folder)
    for part in ("experiments", "runs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    found = store.results(folder, experiments)
    todo = [one for one in experiments if one not in found]
    if found:
        say(f"{len(found)} of {len(experiments)} experiments were finished before")

    def tell(one: Experiment, kept: Kept) -> None:
        found[one] = kept
        last = kept["history"][-1]
        say(
            f"[{len(found)}/{len(experiments)}] {one.describe()}: test error {last['test_error']:.2%}, "
            f"{kept['seconds']:,.0f} s here"
            + (f", speed-up {last['virtual']['speedup']:.1f} on the virtual machine" if one.virtual else "")
        )

    for one in (one for one in todo if not one.virtual):
        say(f"[{len(found) + 1}/{len(experiments)}] {one.describe()}, {one.epochs} epochs ...")
        tell(one, _run(folder, one))
    todo = [one for one in todo if one.virtual]
    jobs = jobs or threads.resolve().workers
    if jobs == 1 or len(todo) < 2:
        for one in todo:
            tell(one, _run(folder, one))
        return found
    with ProcessPoolExecutor(min(jobs, len(todo)), multiprocessing.get_context("spawn")) as pool, _terminable():
        waiting = {pool.submit(_run, folder, one): one for one in todo}
        try:
            for done in as_completed(waiting):
                tell(waiting[done], done.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():  # Ctrl-C reaches them by itself, a signal to this process not
                child.terminate()  # they keep their state
            raise
    return found


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM as SystemExit, or the children would outlive this process."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(folder: Path, one: Experiment) -> Kept:
    """Runs one experiment, or the rest of it: what is kept."""
    net = ZOO[one.model](seed=one.seed)
    ((_, height, width),) = net.input_shapes
    train, test = data.load(one.data, size=(height, width))
    if test is None:
        raise ValueError(f"{one.data} holds no test images, which the experiments need")
    if one.subset is not None:
        train = train[: one.subset]
    runner, strategy = None, "sequential" if one.workers == 1 else "chaos"
    if one.virtual:
        runner = virtual.Virtual(phi(one.workers), phi_times(net, one.model))
    where = folder / "runs" / one.name
    # Virtual experiments go side by side, and beside whatever else the machine does: one thread's CPU time is theirs.
    clock = time.process_time if one.virtual else time.perf_counter
    before, start = _seconds(where), clock()
    try:
        settings = training.Settings(
            strategy=strategy,
            workers=one.workers,
            epochs=one.epochs,
            lr=paper.LR,
            lr_decay=paper.LR_DECAY,
            evaluate_train=True,
            seed=one.seed,
            run_dir=where,
            resume=True,
            progress=False,
        )
        run = training.train(net, train, test, settings, runner=runner)
    finally:
        seconds = before + clock() - start
        with contextlib.suppress(OSError):  # there is no folder where nothing could be started
            write_atomically(where / "seconds.json", json.dumps(seconds).encode())
    kept = {
        "format": store.FORMAT,
        "experiment": dataclasses.asdict(one),
        "history": _brief(run.history),
        "seconds": seconds,
        "images": len(train),
        "test_images": len(test),
        "machine": machine(),
    }
    store.write_one(folder, one, kept)
    shutil.rmtree(where, ignore_errors=True)
    return kept


def _brief(history: Sequence[Record]) -> list[Record]:
    """Of all epochs but the last no more than figures: the histograms of 70 epochs and 244 workers are megabytes."""
    *earlier, last = history
    plain = [{key: value for key, value in record.items() if not isinstance(value, (dict, list))} for record in earlier]
    return [*plain, last]


def phi(workers: int) -> virtual.Machine:
    """The paper's machine in the plain numbers of chaos.virtual."""
    described = read_machine(MACHINE)
    shares = described.threads_throughput
    return virtual.Machine(
        cores=described.cores,
        threads_per_core=described.threads_per_core,
        slowdown=tuple(n * shares[0] / share for n, share in enumerate(shares, 1)),
        line_ns=described.transfer_ns(workers),
    )


def phi_times(net: Network, model: str) -> virtual.Times:
    """What one thread of the paper's machine takes: forward and backward passes together as long as the papers' model (b)
    says, divided among the layers as on a core of round numbers; updates at that core's rate, slowed down by the ratio of
    the clocks' multiply-add rates."""
    nominal, rate = virtual.nominal(net), read_machine(MACHINE).peak_gflops(1)

    def stretched(times: tuple[float, ...], seconds: float) -> tuple[float, ...]:
        return tuple(one * seconds / sum(times) for one in times)

    return dataclasses.replace(
        nominal,
        source="papers",
        gflops=rate,
        forward=stretched(nominal.forward, papers.FORWARD_SECONDS[model]),
        backward=stretched(nominal.backward, papers.BACKWARD_SECONDS[model]),
        publish=tuple(one * nominal.gflops / rate for one in nominal.publish),
    )


def _seconds(where: Path) -> float:
    """Of earlier sessions."""
    try:
        return float(parse_json((where / "seconds.json").read_text()))
    except (OSError, ValueError):
        return 0.0
