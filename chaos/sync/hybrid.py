"""Data and model parallel, the paper's strategy A. Imported by chaos.sync; the fast half is cext/sync/hybrid.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..options import Option
from .base import Strategy


class Hybrid(Strategy):
    """Data parallel in the convolutions, model parallel in the fully connected layers.

    `batch_size` is the number of images of one step over all workers; the gradient is their mean. The fully connected
    tail is the chain of Linear layers, and of layers without parameters on vectors between and behind them, that the
    network ends with. What is before it is trained as by `synchronous`: the step's images are cut into lanes, whose
    gradients are added up in their order. In the tail, each Linear layer is cut into slices of its inputs. Whoever takes
    a slice multiplies it with the inputs of all images; the products are added up in the slices' order. Backwards it
    forms, for all images, the gradients of its inputs and of its weights, which therefore exist once, and need not be
    added to those of other workers, as large as they are. A network that does not end so (branches that join behind the
    last Linear layer, convolutions up to the output) has no tail: all of it is trained data parallel.

    Promises: same seed, same bits in weights, losses and errors for any number of workers, and when a run is interrupted
    anywhere and continued. No update is lost, none is stale. It does not equal `sequential` bit for bit, with a batch
    size of 1 neither: sums are put into brackets by lanes and slices. Steps have many short stages with a meeting after
    each (two, and four per Linear layer), so it needs large fully connected layers or large batches to pay.

    Memory: each lane has a buffer as long as the weights before the tail; all outputs of all layers for all images of a
    step.

    Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks (2014), whose workers own slices
    of the outputs where these are slices of the inputs; strategy A of the CHAOS paper.
    """

    name = "hybrid"
    lanes = True
    equals_sequential = False
    deterministic = True
    any_workers = True
    options = {
        "lanes": Option(
            None,
            "parts of a step's images that workers take before the tail; none: one per 4 images, at most "
            "64; always so many that no part has more than 8",
            1,
            1 << 16,
            whole=True,
        ),
        "slices": Option(
            None,
            "parts of a Linear layer's inputs that workers take, each of a multiple of 16 inputs; none: "
            "at most 32, of at least 64 inputs",
            1,
            1 << 16,
            whole=True,
        ),
    }

    def most_stale(self, resolved: Mapping[str, Any], workers: int) -> int | None:
        return 0
