"""The programs in docs/examples, on little data. Needs the source tree around this file."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import chaos

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits():
    return chaos.data.load("digits")[0][:300]


def test_neuro_evolution_gets_better(digits):
    evolution, told = example("neuro_evolution"), []
    train, held_out = digits[:200], digits[200:]
    genes, error = evolution.evolve(train, held_out, 4, 2, 1, tell=told.append)
    assert genes.keys() == evolution.GENES.keys() and len(told) == 2
    assert error == evolution.evolve(train, held_out, 4, 2, 1, tell=told.append)[1]  # the same again
    rng = np.random.default_rng(0)
    first = [{name: draw(rng) for name, draw in evolution.GENES.items()} for _ in range(4)]
    assert error <= min(evolution.fitness(first, train, held_out, 1))


def test_federated_averaging(digits):
    federated = example("federated")
    parts = federated.uneven(digits[:200], 3)
    assert sum(map(len, parts)) == 200
    make = lambda: chaos.Network((1, 8, 8), [chaos.Flatten(), chaos.Linear(10)])  # noqa: E731
    clients = [federated.Client(make(), part, digits[200:]) for part in parts]
    parameters, errors = federated.simulate(clients, 4, {"lr": 0.05}, tell=lambda text: None)
    assert errors[-1] < errors[0] and errors[-1] < 0.4

    # by a server that calls each client's `fit`, as Flower's does
    others = [federated.Client(make(), part, digits[200:]) for part in parts]
    weights = others[0].get_parameters({})
    for number in range(1, 5):
        found = [client.fit(weights, {"lr": 0.05, "seed": number}) for client in others]
        weights = federated.average([one[0] for one in found], [one[1] for one in found])
    for one, other in zip(parameters, weights, strict=True):
        np.testing.assert_array_equal(one, other)
    loss, images, measures = others[0].evaluate(weights, {})
    assert images == 100 and measures["error"] == errors[-1] and np.isfinite(loss)
