"""`chaos.train`: alone, or on every rank of an MPI job. Above chaos.training and chaos.cluster, which is loaded only where a
job asks for it. One function, long because it is where every setting is explained."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import training
from .data import Dataset, Stream
from .hints import TRAINING, explained
from .network import Network
from .streams import tell
from .training import Alone, Run, Settings, Threads

# what launchers of MPI say to each process
_RANKS = {"OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"}


@explained(TRAINING, "; images and labels together are chaos.data.Dataset(images, labels)")
def train(
    net: Network,
    train: Dataset | Stream,
    test: Dataset | None = None,
    *,
    validation_data: Dataset | None = None,
    validation_split: float = 0.0,
    sample_weight: Any = None,
    class_weight: Any = None,
    strategy: str = "chaos",
    strategy_options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    epochs: int = 10,
    lr: float = 1e-3,
    lr_decay: float = 0.9,
    lr_schedule: str = "exponential",
    schedule_options: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    accumulate: int = 1,
    update: str = "sgd",
    update_options: Mapping[str, Any] | None = None,
    loss: str = "cross_entropy",
    loss_options: Mapping[str, Any] | None = None,
    precision: str = "float32",
    augment: Any = None,
    shuffle: bool = True,
    evaluate_train: bool = False,
    monitor: str | None = None,
    monitor_mode: str = "auto",
    min_delta: float = 0.0,
    patience: int | None = None,
    restore_best: bool = False,
    metrics: Sequence[Any] = (),
    seed: int = 0,
    pin: str = "none",
    plan: str | Sequence[Mapping[str, Any]] = "off",
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: float = 60.0,
    keep_checkpoints: int = 1,
    on_diverge: str = "stop",
    progress: bool = True,
    config: Mapping[str, Any] | None = None,
    callbacks: Iterable[Any] = (),
    cluster: str | None = None,
    cluster_options: Mapping[str, Any] | None = None,
    comm: Any = None,
    stall_timeout: float = 300.0,
    rank_details: bool = False,
    link: Alone | None = None,
    runner: Threads | None = None,
    validate: bool | None = None,
) -> Run:
    """Trains a network in place, alone or on every rank of an MPI job.

    Each epoch runs a training phase, in which every image is visited exactly once by some worker, then those phases that are
    asked for, forward only: the training images once more (`evaluate_train`), the validation set and the test set. Between
    phases the workers meet.

    In a job every rank calls this with the same arguments; all have the data, and each trains on its part of every epoch's
    order, so that an epoch is still every image once. Rank 0 writes the run directory and the progress; the history, with
    the totals over all ranks, and at the end the weights are the same everywhere.

    Parameters
    ----------
    net : Network
    train, test : Dataset
        `test` may be None. It is measured after every epoch, and decides about nothing unless `monitor` names it. The
        training images may also be a chaos.data.Stream.
    validation_data : Dataset, optional
        A set that is measured after every epoch, to decide by (`monitor`, `patience`, `lr_schedule="plateau"`): the records'
        validation_loss and validation_error.
    validation_split : float
        Instead of `validation_data`: this share of the training images, from 0 to below 1, is held out and not trained on.
        Drawn by `seed`, where every image has one label class by class (stratified).
    sample_weight : array_like (n,), optional
        What the loss of each training image is multiplied with, as `chaos.data.Dataset(weights=...)`; not in evaluations.
    class_weight : "balanced", dict {class: weight} or list of weights, optional
        What the loss of each class's images is multiplied with in training. "balanced": n / (classes * images of the class),
        as in scikit-learn.
    strategy : str
        A name in chaos.sync.STRATEGIES; each says there what it promises.
    strategy_options : dict, optional
        Of the strategy, by name; each says there which it has.
    workers : int, optional
        Threads, each with its own network instance; by default what `chaos.threads.resolve` finds ("sequential": 1). In a
        job per rank; by default the ranks of a machine share its cores.
    epochs : int
        Total number, also when resuming. A call begins anew: with its first learning rate, an update rule that has no
        moments yet, the order of images of the first epoch. So what is to happen between epochs is said by `callbacks`, not
        by ``epochs=1`` in a loop of one's own; a finished run goes on by `run_dir` and `resume`.
    lr, lr_decay : float
        With the default schedule the learning rate of epoch e = 1, 2, ... is lr * lr_decay**(e - 1).
    lr_schedule : str
        A name in chaos.updates.SCHEDULES; each says there what it makes of lr and, where it has a factor, lr_decay. Learning
        rates change between epochs only. "plateau" answers to what is monitored. Those that span the whole run ("cosine",
        "polynomial", "one_cycle") take the curve of the new number of epochs where a run is continued to more.
    schedule_options : dict, optional
        Of the schedule, by name; all have `warmup`.
    batch_size : int
        Images per update; the gradient is their mean. Of one worker's step, or of the whole step over all workers where
        the strategy says so.
    accumulate : int
        Batches whose gradients are added up for one update: the same bits as batch size accumulate * batch_size, which
        costs no more memory either. A layer that looks at whole batches (BatchNorm2d) needs its option groups_of then.
    update : str
        A name in chaos.updates.UPDATES.
    update_options : dict, optional
        Of the update rule, by name.
    loss : str
        A name in chaos.losses.LOSSES; each says there what targets it takes.
    loss_options : dict, optional
        Of the loss, by name.
    precision : str
        "float32", or "bf16": what layers multiply is rounded to bfloat16 where their loops for that are faster (AMX), in
        training and in evaluation; sums, weights and updates are float32. `Network.summary` shows which loops run, and
        `net.precision` stays as it is set here. UnsupportedError where the processor has no AMX.
    augment : list, optional
        What changes the images of the training at random, on the threads that train: steps such as
        ``chaos.augment.Shift(2)``, or texts such as "elastic:34,4", done one after the other. `chaos.augment.preview` shows
        what becomes of images; evaluations see them as they are.
    shuffle : bool
        A new order every epoch, drawn from `seed` and the epoch's number.
    evaluate_train : bool
        Whether to measure the training images once more after every epoch (forward only, weights of the epoch's end), as the
        paper does: the records' train_eval_loss and train_eval_error.
    monitor : str, optional
        The key of the records' number that tells the best epoch: validation_loss where there is a validation set, and not
        named otherwise. Any of the losses, errors and metrics of the phases, such as test_error, train_loss, validation_f1.
        Where there is one, the best epoch's weights are kept: in `Run.best_weights`, and in `run_dir` as best.safetensors.
    monitor_mode : str
        "min" or "max"; "auto": what is known of losses, errors and named metrics.
    min_delta : float
        By how much the monitored number must be better to count for `patience`.
    patience : int, optional
        After so many epochs in a row that are not better the training ends early; None: never.
    restore_best : bool
        In the end, also an early one by `patience`, the network gets the weights of its best epoch; `run_dir` keeps the last
        ones beside them.
    metrics : list of str and callables
        What is measured on the outputs of all phases after training, without a pass of its own: accuracy, top_K (top_5),
        balanced_accuracy, precision, recall, f1 (means over the classes), precision_per_class, recall_per_class,
        f1_per_class, confusion_matrix, ece (calibration), of real targets mae, mse, rmse, max_error, r2; where scikit-learn
        is installed its scorers ("roc_auc_ovr"). A function is called as f(targets (m,), outputs (m, k)), of labels and one
        row of outputs per image or pixel, of real targets (m, k) both, and gives a number. The records have
        {phase}_{name}. The outputs of a phase are held in memory meanwhile.
    seed : int
        Of the order of images, and of the random numbers of layers and of augmentation.
    pin : str
        "none", or where each worker stays while a phase runs (Linux): "compact" fills the cores of one NUMA domain, or
        socket, before the next; "scatter" goes round them. `chaos.info()["pin"]` shows the CPUs. It changes no result.
    plan : str or list of dict
        "off": all workers train, as the strategy says. "auto": copies of the network are trained for some hundred steps with
        1, 2, 4, ... up to `workers`, that share weights or have replicas by cache, or each one; the fastest trains, more
        workers or later updates only where they are 3 % faster. Between epochs the records decide: where exchange and
        waiting took more than a tenth of the time, groups exchange half as often (within 384 steps of all groups and 64 of
        their own), where next to nothing as often as before, and after an epoch that was slower than one worker all is
        measured again. One line says what was chosen and why, and the records' "plan" has it. Without `strategy_options` the
        strategy is then "domains", of which "chaos" is the case of one group; with another one only the number of workers is
        chosen. A list, such as ``[record["plan"] for record in run.history]``, decides as that run did, without measuring.
    run_dir : path, optional
        Folder for config.json, metrics.jsonl, model.safetensors (weights and training state) and, where something tells the
        best epoch, best.safetensors; made if absent. In a job it matters on rank 0.
    resume : bool
        Go on from the state in `run_dir`, or from the start if it holds none. With one worker, and with strategies that
        promise it, the result has the same bits as an uninterrupted run.
    checkpoint_every : float
        Seconds after which the state is kept in `run_dir` within an epoch, too; 0: only after epochs. The workers finish the
        steps that they are in, the state is copied, and is written while they go on. With one worker, and with strategies
        that promise it, no bit changes; where several workers have the same bits again only as long as nothing interrupts
        them ("delayed", "averaging"), and in jobs of several processes, the state is kept after epochs only.
    keep_checkpoints : int
        Of how many of the latest epochs the states are kept: more than one in `run_dir`/checkpoints, any of which may be
        copied to model.safetensors.
    on_diverge : str
        "stop", or "rollback": when the loss is no longer finite, go back to the state after the last good epoch (or that of
        the beginning) with half the learning rate, up to ten times in a row.
    progress : bool
        Draw a bar on a terminal or in a notebook, and print one line per epoch (to standard error, in notebooks to the
        cell). Where the program has set up logging for them (logger "chaos", level INFO) the lines go there instead,
        whatever this is; ``logging.getLogger("chaos").setLevel("WARNING")`` silences all trainings of the program, bars too.
    config : dict, optional
        Whatever the caller wants kept in config.json beside the settings: what JSON knows, paths, and NumPy's numbers and
        arrays.
    callbacks : list, optional
        What is to hear of epochs and of the progress within them, and may end the training: see `chaos.Callback`; writers of
        CSV files and for TensorBoard, MLflow and Weights & Biases are in `chaos.callbacks`.
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
    link : Alone, optional
        The other processes of the job, instead of `cluster`.
    runner : Threads, optional
        What runs the training phases, for chaos.virtual.
    validate : bool, optional
        The earlier name of `evaluate_train`; a warning says so.

    Returns
    -------
    Run
        With `history`, `to_frame()`, `plot()`, `best_epoch` and more. Its records have "cluster" in a job of several ranks:
        mode, options, ranks, exchanges, bytes (sent by all ranks for the weights; of a sum what the best algorithm sends),
        exchange_seconds (of all ranks) and overlap (the part of them in which that rank's workers were running).

    Raises
    ------
    ValueError, DataError
        Unknown names and values that make no sense, before any worker starts.
    TypeError
        If `net` is no Network, `run_dir` no path, or a callback has none of a callback's methods.
    OSError
        If `run_dir` cannot be written at the beginning or the end, naming the file; what was kept there before is still
        there. In between that is told, and the training goes on.
    CheckpointError
        If `run_dir` holds another run, or a damaged one.
    DivergedError
        If the loss is no longer finite; the network then has the weights of the last good epoch.
    ClusterError
        Where MPI or the job is not what is needed, with the fix, before anything is trained; where a callback has failed on
        another rank.
    KeyboardInterrupt, SystemExit
        After Ctrl-C, or SIGTERM or SIGHUP: the workers have stopped, and the state, in the middle of the epoch, is in
        `run_dir`.

    What is raised after the training has begun has an attribute `run`, the `Run` so far; ``net.history`` has its records. In
    a job these are raised on all ranks. Where one rank alone fails while training, its traceback is printed and the job
    is ended.
    """
    if validate is not None:
        warnings.warn(
            "validate is now called evaluate_train: it measures the training images again. A validation set is given as "
            "validation_data or validation_split",
            FutureWarning,
            stacklevel=2,
        )
        evaluate_train = validate
    settings = Settings.among(locals())
    data: dict[str, Any] = {"validation": validation_data, "sample_weight": sample_weight}
    if cluster is None:
        for name, value in (("cluster_options", cluster_options or None), ("comm", comm)):
            if value is not None:
                from .cluster import MODES

                raise ValueError(f"{name} {value!r} without cluster; known: {', '.join(MODES)}")
        if progress and link is None and runner is None and _RANKS & os.environ.keys():
            _tell_of_job()
        return training.train(
            net, train, test, settings, config=config, callbacks=callbacks, link=link, runner=runner, **data
        )
    if link is not None:
        raise ValueError("cluster makes its own link; give one of them")
    from .cluster import connect, train_linked

    with connect(settings, comm) as found:
        return train_linked(found, net, train, test, settings, config=config, callbacks=callbacks, runner=runner, **data)


def _tell_of_job() -> None:
    """What somebody may not expect who starts a script by mpirun: every process trains alone."""
    from .cluster import launched

    launch = launched()  # type: ignore[no-untyped-call]
    if launch and launch.ranks > 1 and launch.rank == 0:
        tell(
            f"{launch.ranks} processes of one job, each of which trains a network of its own on its own; "
            'cluster="local", for one, lets them train one together'
        )
