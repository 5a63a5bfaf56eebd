"""The life of a network: hypothesis draws what is done to it, in any order (trained, stopped in the middle, resumed by any
number of workers, saved, loaded, frozen, asked while it is trained), and its weights are, bit for bit, those of trainings
that nothing has interrupted."""

import copy
import tempfile
import threading
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from nets import images

import chaos
from chaos.training import METRICS, MODEL

DATA = chaos.data.Dataset(*images(400, (2, 9, 8), classes=5, bytes=True))
# the number of workers changes no bit; an epoch ends with a smaller step
HOW = dict(strategy="synchronous", batch_size=12, update="momentum", lr=0.02, seed=3, progress=False)
WORKERS = st.integers(1, 3)


def network(seed=0):
    layers = [chaos.Conv2d(4, 3), chaos.Tanh(), chaos.MaxPool2d(2), chaos.Flatten()]
    return chaos.Network((2, 9, 8), [*layers, chaos.Dropout(0.2), chaos.Linear(5)], seed=seed)


class Stops(chaos.Callback):
    interval = 1

    def __init__(self, position):
        self.position = position

    def step(self, event):
        if event.phase == "train" and event.position >= self.position:
            event.stop()


class Life(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder, self.runs, self.net = tempfile.TemporaryDirectory(), 0, network()
        self.begin()

    def teardown(self):
        self.folder.cleanup()

    def begin(self):
        """A run of its own, from the weights as they are."""
        self.runs, self.epochs, self.kept = self.runs + 1, 0, False
        self.forgotten = None  # the weights that the run keeps, where the network has others
        self.run_dir, self.start = Path(self.folder.name, f"run-{self.runs}"), self.net.state_dict()

    def train(self, epochs, workers, *callbacks):
        """Goes on with the run; whole epochs are those of a run without a break."""
        run = chaos.train(
            self.net, DATA, epochs=epochs, workers=workers, run_dir=self.run_dir, resume=True, callbacks=callbacks, **HOW
        )
        self.epochs, self.kept = len(run.history), True
        self.forgotten = None
        assert run.stopped or self.epochs == epochs
        assert len((self.run_dir / METRICS).read_text().splitlines()) == self.epochs
        if not run.stopped:
            whole = network(seed=1)
            whole.load_state_dict(self.start)
            whole.freeze_named(list(self.net.frozen))
            history = chaos.train(whole, DATA, epochs=epochs, workers=1, **HOW).history
            assert whole.weights.tobytes() == self.net.weights.tobytes()
            assert [one["train_loss"] for one in history] == [one["train_loss"] for one in run.history]
        for name in self.net.frozen:
            assert self.net.state_dict()[name].tobytes() == self.start[name].tobytes(), name

    @rule(more=st.integers(1, 2), workers=WORKERS)
    def trains(self, more, workers):
        self.train(self.epochs + more, workers)

    @rule(position=st.integers(0, 399), workers=WORKERS)
    def is_stopped(self, position, workers):
        self.train(self.epochs + 1, workers, Stops(position))

    @rule(workers=WORKERS)
    def answers_while_it_is_trained(self, workers):
        """Its copy, that is, in another thread: always the same."""
        other, wrong, over = copy.deepcopy(self.net), [], threading.Event()
        wanted = other.forward(DATA.images)

        def ask():
            while True:
                last = over.is_set()  # once more, then
                wrong.extend(not (other.forward(DATA.images, workers=w) == wanted).all() for w in (1, 2))
                if last:
                    return

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            self.train(self.epochs + 1, workers)
        finally:
            over.set()
            thread.join()
        assert wrong and not any(wrong)

    @rule(workers=WORKERS)
    def is_trained_beside_another(self, workers):
        """Two trainings at once, of which each has the bits that it has alone."""
        pair = [copy.deepcopy(self.net) for _ in range(2)]
        thread = threading.Thread(target=chaos.train, args=(pair[0], DATA), kwargs=dict(HOW, epochs=1, workers=2))
        thread.start()
        try:
            self.train(self.epochs + 1, workers)
        finally:
            thread.join()
        chaos.train(pair[1], DATA, epochs=1, workers=1, **HOW)
        assert pair[0].weights.tobytes() == pair[1].weights.tobytes()

    @rule(pattern=st.sampled_from(["0.*", "*.bias", "5.weight"]), frozen=st.booleans())
    def is_frozen(self, pattern, frozen):
        (self.net.freeze if frozen else self.net.unfreeze)(pattern)
        if len(self.net.frozen) == len(self.net.state_dict()):  # then a training is refused
            self.net.unfreeze(pattern)
        self.begin()

    @rule()
    def is_saved_and_loaded(self):
        path = Path(self.folder.name, "net.safetensors")
        self.net.save(path)
        net = chaos.load(path)
        assert net.weights.tobytes() == self.net.weights.tobytes() and net.config() == self.net.config()
        net.freeze_named(list(self.net.frozen))
        self.net = net

    @precondition(lambda self: self.kept)
    @rule()
    def is_taken_from_its_run(self):
        """What a run keeps is the network as the training has left it, also in the middle of an epoch."""
        net = chaos.load(self.run_dir / MODEL)
        assert net.weights.tobytes() == (self.forgotten or self.net.weights.tobytes())
        self.forgotten = None
        net.freeze_named(list(self.net.frozen))
        self.net = net

    @precondition(lambda self: self.kept)
    @rule(seed=st.integers(1, 9))
    def is_forgotten(self, seed):
        """The run knows everything: any network of these layers goes on with it."""
        frozen = list(self.net.frozen)
        self.forgotten = self.forgotten or self.net.weights.tobytes()
        self.net = network(seed)
        self.net.freeze_named(frozen)

    @invariant()
    def answers(self):
        outputs = self.net.forward(DATA.images[:50])
        assert np.isfinite(outputs).all() and (self.net.predict(DATA.images[:50]) == outputs.argmax(1)).all()


def test_a_life(nightly):
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=100 if nightly else 5,
            stateful_step_count=60 if nightly else 20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
