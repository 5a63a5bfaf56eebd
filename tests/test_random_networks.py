"""Random graphs of all kinds of layers: outputs, gradients and three steps of update rules against PyTorch in float64. A
thousand of them: scripts/random_networks.py."""

import pytest

torch = pytest.importorskip("torch")

from dags import RULES, check  # noqa: E402


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("seed", range(50))
def test_random_network(seed):
    names = list(RULES)
    check(seed, [names[seed % len(names)], names[(seed + 3) % len(names)]])
