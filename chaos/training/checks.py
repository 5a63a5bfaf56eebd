"""What is checked of a job: its settings against its network and its data, before any worker starts, and its numbers after
an epoch. For chaos.training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import warn_caller
from ..losses import VALUES
from ..sync import need_whole_steps
from .records import Record

if TYPE_CHECKING:
    from .job import Job

FAR = 100.0  # times the loss of guessing: no network on its way is there
HUGE = 1e6  # a weight
TWICE = {("cross_entropy", "softmax"), ("binary_cross_entropy", "sigmoid")}  # (loss, layer): functions that a loss has in it


def absurd(job: Job, record: Record) -> str | None:
    """Why an epoch's finite numbers are no training, in words; None for a good one: classes are told far worse than by
    guessing, or a weight is huge."""
    epoch, loss = record["epoch"], record["train_loss"]
    advice = f"the learning rate {record['lr']:g} is most likely too large"
    judged = job.training.judged
    if judged.loss in ("cross_entropy", "nll") and judged.form != VALUES and judged.alone:
        guessing, weights = math.log(max(judged.classes, 2)), job.training.arguments["weights"]
        scale = max(1.0, 1.0 if weights is None else float(weights.max())) * max(1.0, *(judged.options["weight"] or (1.0,)))
        if loss > FAR * scale * guessing:
            return f"train loss {loss:.3g} in epoch {epoch}, where guessing has {guessing:.3g}: {advice}"
    each = (place.take(job.net.weights) for place in job.net.trained_places().values())
    largest = max(float(np.abs(value).max(initial=0)) for value in each)
    if largest > HUGE:
        return f"the largest weight after epoch {epoch} is {largest:.3g}: {advice}"
    return None


def warn_of_functions(job: Job) -> None:
    """A warning where the network ends with the function that its loss applies to the outputs, too."""
    for term in job.net.loss_terms(job.settings.loss, job.settings.loss_options):
        layer = job.net.outputs[term.output].layer
        kind = layer.kind if layer is not None else ""
        if (term.loss.kind, kind) in TWICE:
            warn_caller(
                f"the network ends with {layer}, and the loss {term.loss.kind} applies that to the outputs itself: it is "
                "applied twice, which learns badly; leave the layer out (predict_proba gives probabilities)"
            )


def check_rates(job: Job) -> None:
    """ValueError where the learning rates cannot be numbers of single precision."""
    asked = job.settings
    largest, when = job.schedule.largest(asked.lr, asked.lr_decay, max(asked.epochs, 1), **job.schedule_options())
    largest *= job.rate_scale
    if not largest <= float(np.finfo(np.float32).max):
        raise ValueError(
            f"lr={asked.lr!r} and lr_decay={asked.lr_decay!r} lead to a learning rate of {largest:g} in epoch {when}"
        )
    if largest < float(np.finfo(np.float32).tiny):
        raise ValueError(
            f"lr={asked.lr!r} and lr_decay={asked.lr_decay!r} lead to learning rates of at most {largest:g}, which the "
            "workers, who calculate in single precision, take for 0"
        )


def check_whole_batches(job: Job) -> None:
    """ValueError where a layer wants to see all images of a step, and the strategy has none who does, or steps, or the
    last of the groups that it sees together, have too few for it."""
    net = job.net
    nodes = net.plan.whole_batch
    batch = job.settings.images_per_update
    last = job.training.count % batch
    if nodes and job.settings.accumulate > 1:
        raise ValueError(
            f"{net.nodes()[nodes[0]][0].layer} sees the whole batch, and would see all {batch} images of accumulate x "
            f"batch_size; where it has an option groups_of, groups_of={job.settings.batch_size} keeps it to a batch"
        )
    for node, group in (dict.fromkeys(nodes, batch) | net.plan.groups).items():
        there = net.nodes()[node][0]
        assert there.layer
        least = there.layer.least_images(*(source.shape for source in there.inputs))
        if 0 < (last or batch) < least:
            raise ValueError(
                f"{there.layer} needs steps of at least {least} images to train; {job.training.count} images in "
                f"steps of batch_size={batch} leave {last or batch} for {'the last' if last else 'each'}"
            )
        for size in (batch, last):
            if size and (size - 1) % group + 1 < least:
                raise ValueError(
                    f"{there.layer} needs groups of at least {least} images to train; a step of {size} images leaves "
                    f"{(size - 1) % group + 1} for the last group"
                )
    if nodes:
        need_whole_steps(job.settings.strategy, net.nodes()[nodes[0]][0].layer)
