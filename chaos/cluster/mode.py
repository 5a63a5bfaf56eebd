"""What every exchange mode has, and what it is given. Imported by the files of chaos.cluster."""

import numpy as np

from .. import _core
from ..options import Option, WithOptions
from ..sync import STRATEGIES

COMPRESS = Option(
    None, "exchange in fp16 or bf16, what is rounded away goes along next time; none: float32", choices=("fp16", "bf16")
)


class Mode(WithOptions):
    """One way of keeping the weights of the ranks together.

    A checkpoint holds what all ranks have in common: the weights that are evaluated, the update rule's state of rank 0 (in
    modes other than allreduce every rank has its own), and `state`. A resumed run starts all ranks with it, be they as many
    as before or not; what differed from rank to rank is gone, and so is what `compress` had rounded away. A run that goes on
    with another mode, or on one rank, drops `state`.

    A mode is used by one training: `open`, then for each epoch `begin` (workers at rest), `exchange` (a generator, run
    beside the workers) and `finish` (a generator, workers at rest, collective), after which the network of every rank holds
    the same weights: those that are evaluated and kept. Generators yield whenever they wait.

    Attributes
    ----------
    name : str
    beside : bool
        It changes the weights while workers run, so the strategy must lock stripes.
    one_vector : bool
        The ranks have one weight vector in common.
    in_step : bool
        All ranks take every step together: none has a shard of its own.
    strategy : str or None
        The only strategy that it works with.
    link : Link
    engine : _core.Engine
    door : _core.Exchange
        The engine's weights beside its workers.
    weights : ndarray
        The network's; only to be touched while the workers rest.
    """

    name = None
    beside = True
    one_vector = False
    in_step = False
    strategy = None

    def __init__(self, options):
        self.option = self.resolve(options)

    def next_exchange(self, at):
        """The image at which the next exchange is due after that of image `at`, which is through: a period later, or at once
        where it has taken longer than that."""
        return max(at + self.option["every"], self.engine.position)

    def _called(self):
        return f"cluster mode {self.name!r}"

    def check(self, link, strategy, batch_size):
        """ValueError where the mode cannot work with the strategy (a name), or with so many images per step."""
        if self.beside and strategy in STRATEGIES and not STRATEGIES[strategy].locks_stripes:
            known = [name for name, one in STRATEGIES.items() if one.locks_stripes]
            raise ValueError(
                f"{self._called()} changes weights while workers run, and strategy {strategy!r} does not lock "
                f"them; strategies that do: {', '.join(known)}; mode 'local' with option epochs exchanges "
                "while workers rest and takes any strategy"
            )

    def prepare(self, link, net, moments):
        """Before the engine exists: may give the network other memory for its weights. `moments`: vectors of state that the
        update rule has."""

    def open(self, link, net, engine):
        """All ranks have the same weights and have come here."""
        self.link, self.engine, self.weights = link, engine, net.weights
        self.door = _core.Exchange(engine)

    def trains(self, engine):
        """What runs the training phases, see `Alone.trains`."""
        return engine

    def idle_since(self):
        """When the workers have begun to wait for an exchange, if they do."""

    def begin(self, epoch):
        """The workers are about to start."""

    def exchange(self, epoch):
        """Beside the workers, until they are through."""
        yield from self.link.until_over()

    def finish(self, epoch):
        """Makes the weights of all ranks those that are evaluated."""
        raise NotImplementedError

    def state(self):
        """What a resumed run goes on with beside the weights, the same on all ranks: {name: vector laid out as them}. After
        `open`; the vectors are replaced in place where the checkpoint has them."""
        return {}

    def close(self, net):
        """The training is over, or has not begun, for the same reason on all ranks; perhaps once more."""

    def now(self, out):
        """Copies the weights as they are now."""
        self.door.read_weights(out)
        return out

    def new(self, *extra):
        """A vector like the weights, with room for `extra` further numbers."""
        return np.zeros(len(self.weights) + sum(extra), np.float32)
