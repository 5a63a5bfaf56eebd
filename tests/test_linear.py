"""Fully connected layers as matrix products: the same numbers for any number of images at once, and whether an update waits
or not."""

import numpy as np
import pytest
from nets import Oracle, images

import chaos
from chaos import _core

# one block of outputs; several, with padding; rows longer than a stripe; a layer in the middle, whose inputs fill vectors
# and whose outputs are more than a panel
SIZES = [(13, 5), (300, 130), (97, 1100), (21, 48, 150), (21, 144, 290)]


def network(sizes, seed=0):
    hidden = [layer for size in sizes[1:] for layer in (chaos.Linear(size), chaos.ReLU())]
    return chaos.Network((sizes[0],), [*hidden, chaos.Linear(10)], seed=seed)


def half_empty(n, inputs):
    """Images with many zeros, one of them with nothing else."""
    x, y = images(n, (inputs,))
    x[np.random.default_rng(1).random(x.shape) < 0.5] = 0
    x[n // 2] = 0
    return x, y


@pytest.mark.parametrize("sizes", SIZES)
def test_outputs_do_not_depend_on_who_is_beside(isa, sizes):
    """Bit for bit: all at once, in small numbers, one by one, with rows of weights that are skipped."""
    net = network(sizes)
    x, _ = half_empty(2 * net.plan.together + 3, sizes[0])
    whole = net.forward(x)
    assert (np.concatenate([net.forward(x[i : i + 1]) for i in range(len(x))]) == whole).all()
    assert (np.concatenate([net.forward(x[i : i + 5]) for i in range(0, len(x), 5)]) == whole).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 64, 70])
@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_of_any_number_of_images(isa, sizes, n):
    net = network(sizes, seed=n)
    x, y = images(n, net.input_shape)
    Oracle(net, x, y).check(x)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64, 100])
@pytest.mark.parametrize("sizes", SIZES)
def test_an_update_that_is_not_written_down(isa, sizes, batch_size):
    """Plain SGD may take a gradient from the weights while it is in registers; momentum of 0 is the same rule, and writes it
    down first. The padding stays zero."""
    x, y = half_empty(130, sizes[0])
    data, weights = chaos.data.Dataset(x, y % 10), []
    for rule, options in (("sgd", {}), ("momentum", {"momentum": 0.0})):
        net = network(sizes)
        settings = dict(update=rule, update_options=options, batch_size=batch_size, workers=1, progress=False)
        chaos.train(net, data, epochs=1, lr=0.05, **settings)
        weights.append(net.weights.copy())
        net.load_state_dict({name: np.ones_like(value) for name, value in net.state_dict().items()})
        assert not weights[-1][net.weights == 0].any()
    assert (weights[0] == weights[1]).all()


def test_networks_of_vectors_pass_more_images_together():
    assert chaos.models.small().plan.together == _core.TOGETHER
    assert network((300, 130)).plan.together > _core.TOGETHER
    wide = chaos.Network((1 << 18,), [chaos.Linear(4)])  # 64 of them would take more than 64 MB
    assert _core.TOGETHER <= wide.plan.together < network((300, 130)).plan.together
