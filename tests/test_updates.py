"""Update rules: the core against the definitions and against PyTorch, state that is kept, bounds, schedules."""

import platform

import numpy as np
import pytest
from nets import one_layer

import chaos
from chaos import _core
from chaos.network import aligned_zeros
from chaos.updates import UPDATES

DECAY = dict(weight_decay=0.02, l1=0.003)
CASES = [(name, options) for name in UPDATES for options in ({}, DECAY)] + [
    ("momentum", dict(momentum=0.5, dampening=0.3)), ("momentum", dict(momentum=0.0)), ("nesterov", dict(momentum=0.6)),
    ("adagrad", dict(lr_decay=0.1, initial_accumulator_value=0.5, eps=1e-3)),
    ("rmsprop", dict(alpha=0.9, momentum=0.8, eps=1e-3)), ("rmsprop", dict(centered=True)),
    ("rmsprop", dict(centered=True, momentum=0.5, **DECAY)), ("adam", dict(beta1=0.6, beta2=0.9, eps=1e-2)),
    ("adam", dict(beta1=0.0, beta2=0.0)), ("adamw", dict(weight_decay=0.0)), ("adamw", dict(weight_decay=3.0))]
LR = float(np.float32(0.01))
IN, OUT, STEPS = 37, 21, 60


class Problem:
    """One linear layer with the score loss, whose gradient for one image does not depend on the weights: -1 times the image
    for the weights of its label, 0 elsewhere. So what an update rule gets is known to the last bit."""

    def __init__(self, bias=True):
        rng = np.random.default_rng(3)
        self.net = one_layer((IN,), chaos.Linear(OUT, bias=bias), seed=1)
        self.x = rng.standard_normal((STEPS, IN)).astype(np.float32)
        self.y = rng.integers(0, OUT, STEPS)
        self.before = self.net.state_dict()

    def gradients(self):
        for x, y in zip(self.x, self.y, strict=True):
            g = {name: np.zeros_like(value) for name, value in self.before.items()}
            g["0.weight"][y] = -x
            if "0.bias" in g:
                g["0.bias"][y] = -1
            yield g

    def train(self, name, options, **more):
        """The parameters and moments {moment: {parameter: array}} after training in the core."""
        rule, net = UPDATES[name], self.net
        net.load_state_dict(self.before)
        moments = aligned_zeros((rule.moments, net.plan.weight_size))
        resolved = rule.resolve(options)
        rule.start(moments, resolved)
        engine = _core.Engine(net.plan, net.weights, update=name, moments=moments, loss="score",
                              update_options=rule.core_options(resolved), **more)
        assert engine.run("train", values=self.x.ravel(), labels=self.y, lr=LR)["images"] == STEPS
        self.padding = np.ones(net.plan.weight_size, bool)
        for parameter in net.unpack(np.arange(net.plan.weight_size)).values():
            self.padding[parameter] = False
        self.moments = moments
        return net.state_dict(), {m: net.unpack(moment) for m, moment in zip(rule.state, moments, strict=True)}

    def define(self, name, options, dtype):
        """The same by the definition."""
        rule = UPDATES[name]
        resolved = rule.resolve(options)
        w = {p: v.astype(dtype) for p, v in self.before.items()}
        moments = {p: np.zeros((rule.moments, *v.shape), dtype) for p, v in w.items()}
        for m in moments.values():
            rule.start(m, resolved)
        own = {k: v for k, v in resolved.items() if k in (*rule.options, "weight_decay", "l1") and k != "correct_asynchrony"}
        for t, g in enumerate(self.gradients(), 1):
            for p in w:
                w[p], moments[p] = rule.apply(w[p], g[p].astype(dtype), moments[p], LR, t, **own)
        assert all(v.dtype == dtype for v in w.values())
        return w, {m: {p: moments[p][i] for p in w} for i, m in enumerate(rule.state)}


def tolerance(exact, rounded):
    """How far float32 may stray from the definition: eight times what the definition in float32 does (the same operations,
    some of them fused or in another order), and four roundings of the largest result."""
    return 8 * np.abs(rounded - exact).max() + 4 * 2.0 ** -24 * np.abs(exact).max()


def test_lists_agree():
    assert {name: rule.moments for name, rule in UPDATES.items()} == _core.updates()
    assert all(len(rule.common | rule.options) <= 12 for rule in UPDATES.values())


@pytest.mark.parametrize("name, options", CASES)
@pytest.mark.parametrize("stripe_bytes", [64, 16384])
def test_core_is_the_definition(isa, name, options, stripe_bytes):
    problem = Problem()
    found = problem.train(name, options, stripe_bytes=stripe_bytes)
    exact, rounded = (problem.define(name, options, dtype) for dtype in (np.float64, np.float32))
    pairs = [(found[0], exact[0], rounded[0])] + [(found[1][m], exact[1][m], rounded[1][m]) for m in found[1]]
    for got, want, close in pairs:
        for p in got:
            if isa == "generic" and platform.machine() == "x86_64":  # without fused multiply-adds
                assert (got[p] == close[p]).all(), p
            np.testing.assert_allclose(got[p], want[p], rtol=0, atol=tolerance(want[p], close[p]))
    assert not problem.net.weights[problem.padding].any(), "padding"
    assert np.isfinite(problem.moments).all()


@pytest.mark.parametrize("name, options", CASES)
def test_agrees_with_pytorch(name, options):
    torch = pytest.importorskip("torch")
    if "l1" in options:
        options = {k: v for k, v in options.items() if k != "l1"}
    given = UPDATES[name].resolve(options)
    given = {k: v for k, v in given.items() if k not in ("l1", "clip_value", "clip_norm", "max_norm", "correct_asynchrony")}
    if "beta1" in given:
        given["betas"] = given.pop("beta1"), given.pop("beta2")
    kinds = {"sgd": "SGD", "momentum": "SGD", "nesterov": "SGD", "adagrad": "Adagrad", "rmsprop": "RMSprop", "adam": "Adam",
             "adamw": "AdamW"}
    problem = Problem()
    w = {p: torch.nn.Parameter(torch.tensor(v)) for p, v in problem.before.items()}
    optimizer = getattr(torch.optim, kinds[name])(w.values(), lr=LR, **given,
                                                  **({"nesterov": True} if name == "nesterov" else {}))
    for g in problem.gradients():
        for p in w:
            w[p].grad = torch.tensor(g[p])
        optimizer.step()
    weights, moments = problem.train(name, options)
    exact, rounded = (problem.define(name, options, dtype) for dtype in (np.float64, np.float32))
    for p in w:
        got = w[p].detach().numpy()
        np.testing.assert_allclose(weights[p], got, rtol=0, atol=tolerance(exact[0][p], rounded[0][p]))
        for m, of in moments.items():
            if (theirs := optimizer.state[w[p]].get(m)) is not None:
                np.testing.assert_allclose(of[p], theirs.numpy(), rtol=0, atol=tolerance(exact[1][m][p], rounded[1][m][p]))
