"""Small networks and data for the tests."""

import contextlib
import hashlib
import itertools
import pickle

import hypothesis
import numpy as np

import chaos
from chaos import reference
from chaos.network import run_key

NIGHTLY = False  # tests/conftest.py sets it, before any test is looked for


def examples(by_day, by_night):
    """How many examples hypothesis draws: others every time, so that days add up."""
    return by_night if NIGHTLY else by_day


def one_layer(shape, layer, seed=0):
    """A network of one layer, with a Flatten() behind it where its output is an image."""
    node = chaos.Input(shape)
    out = layer(node)
    return chaos.Network(node, chaos.Flatten()(out) if len(out.shape) == 3 else out, seed=seed)


def graph(seed=0):
    """Fan-out and fan-in: one tensor read three times, branches of different depth, two sums, biases left out here and
    there."""
    x = chaos.Input((2, 9, 8))
    a = chaos.Tanh()(chaos.Conv2d(6, 3, padding="same", name="stem")(x))
    b = chaos.ReLU()(chaos.Conv2d(6, 3, padding=1, bias=False)(a))
    c = chaos.Sigmoid()(chaos.Conv2d(6, 1)(a))
    d = chaos.Add()(a, b, c)
    e = chaos.MaxPool2d(2)(d)
    f = chaos.Linear(7)(chaos.Flatten()(e))
    g = chaos.Linear(7, bias=False)(chaos.Flatten()(chaos.MaxPool2d(3)(b)))
    return chaos.Network(x, chaos.Linear(5)(chaos.ScaledTanh()(chaos.Add()(f, g))), seed=seed)


def images(n, shape, seed=0, classes=10, bytes=False):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, *shape), dtype=np.uint8) if bytes else rng.standard_normal((n, *shape), np.float32)
    return x, rng.integers(0, classes, n)


def close(got, want, tolerance):
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0, atol=tolerance)


class IllPosed(AssertionError):
    """Rounding alone may change a result by so much that comparing it proves nothing: other numbers are needed."""


@contextlib.contextmanager
def drawn():
    """For examples of hypothesis: what is ill-posed is drawn again. Where that is so of many, hypothesis complains."""
    try:
        yield
    except IllPosed:
        hypothesis.reject()


class Oracle:
    """The float64 definition of a network on given images, and how far float32 may stray from it.

    A float32 rounding changes a number by at most 2^-24 of itself. What such changes become on their way through the network
    is measured: inputs, weights and every intermediate result are moved at random by up to 2^-24 (the loss's gradient by
    2^-24 of the softmax, which is 1/n before the label is subtracted) and the definition is evaluated again, five times.
    The core rounds at every addition rather than once per result; FACTOR covers that (the error of a sum of n terms grows
    with sqrt(n) to n/2 roundings of partial sums; n <= 2,200, in blocks). In a sum of terms of one sign what is moved
    averages out, while partial sums are as large as the result: SUM, some sqrt(2,200) / 2 roundings of that, is added.
    A normalisation subtracts means, whose rounding moves together all that they are of: where there is one, every result is
    also moved by 2^-24 of its root mean square as a channel, as an image and as a channel of an image. What is 0 because
    means are subtracted, such as the gradient of a bias before, is nothing but these roundings.
    """

    FACTOR, SUM = 60, 32 * 2.0**-24
    LARGEST = 0.05  # tolerance over the largest value: beyond it a check proves nothing
    KEPT, _kept = 300, {}  # definitions of late, the oldest first

    def __init__(self, net, x, labels=None, loss="cross_entropy", loss_options=None, weights=None):
        self.net, self.labels, self.loss = net, labels, loss
        self.loss_options, self.weights = loss_options, weights
        several = isinstance(x, (list, tuple))
        self.x = [reference.take(one) for one in x] if several else reference.take(x)
        n = len(x[0]) if several else len(x)
        state = net.state_dict()
        # every instruction set is held to the same definition: tests/conftest.py has them one after the other
        said = net.config(), net.frozen, state, self.x, labels, loss, loss_options, weights
        key = hashlib.sha256(pickle.dumps(said)).digest()
        if key not in self._kept:
            while len(self._kept) >= self.KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = self._define({k: v.astype(np.float64) for k, v in state.items()}, n, several)
        self.exact, self.tolerance = self._kept[key]

    def _define(self, state, n, several):
        """({name: exact value}, {name: tolerance})."""
        net = self.net
        exact = self._run(self.x, state, lambda a: a)
        rng = np.random.default_rng(0)

        subtracts_means = any(node.layer is not None and "norm" in node.layer.kind for node, _ in net.nodes())

        def move(a):
            return a * (1 + 2.0**-24 * rng.uniform(-1, 1, a.shape))

        def move_together(a):
            if not subtracts_means or a.ndim < 2:
                return 0
            ones = (1,) * (a.ndim - 2)
            shift = sum(rng.uniform(-1, 1, shape + ones) for shape in ((1, a.shape[1]), (len(a), 1), a.shape[:2]))
            return 2.0**-24 * np.sqrt(np.mean(a * a)) * shift * (a != 0)

        def moved_once():
            # the loss's gradient comes behind the results of all layers; nothing else is moved where it is 0, or behind a
            # ReLU it would no longer be
            numbers = itertools.count(-2 * sum(node.layer is not None for node, _ in net.nodes()))

            def touch(a):
                loss = 2.0**-24 / n * rng.uniform(-1, 1, a.shape) if next(numbers) == 0 else 0
                return move(a) + move_together(a) + loss

            x = [move(one) for one in self.x] if several else move(self.x)
            return self._run(x, {k: move(v) for k, v in state.items()}, touch)

        moved = [moved_once() for _ in range(5)]
        strayed = {k: max(np.abs(m[k] - v).max() for m in moved) for k, v in exact.items()}
        return exact, {k: self.FACTOR * strayed[k] + self.SUM * np.abs(v).max() for k, v in exact.items()}

    def _run(self, x, state, touch):
        found = {"output": reference.forward(self.net, x, state=state, touch=touch)[self.net.outputs[0]]}
        if self.labels is not None:
            found["loss"], gradients = reference.loss_and_gradients(
                self.net,
                x,
                self.labels,
                self.loss,
                state=state,
                touch=touch,
                key=run_key(0, 0),
                loss_options=self.loss_options,
                weights=self.weights,
            )
            found |= gradients
        return found

    def check(self, pixels):
        """Holds the core to the definition; IllPosed where that could not fail."""
        for name, value in self.exact.items():
            largest = np.abs(value).max()
            # what is smaller is 0 by definition, such as the gradient of a bias before a normalisation
            if largest > 1e-12 and self.tolerance[name] > self.LARGEST * largest:
                raise IllPosed(f"{name}: a tolerance of {self.tolerance[name]:.3g} for values of up to {largest:.3g}")
        close(self.net.forward(pixels), self.exact["output"], self.tolerance["output"])
        if self.labels is not None:
            loss, vector = self.net._gradients(pixels, self.labels, self.loss, self.loss_options, self.weights)
            gradients = self.net.unpack(vector)  # and what layers observe
            assert {"output", "loss", *gradients} == self.exact.keys()
            for name, value in {"loss": loss, **gradients}.items():
                close(value, self.exact[name], self.tolerance[name])
