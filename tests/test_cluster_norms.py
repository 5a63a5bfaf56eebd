"""Running statistics across MPI ranks: in every mode the same on all ranks, and sound; in allreduce those of one process."""

import json
import os

import mpi
import numpy as np
import pytest
from test_cluster import run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="jobs are started with POSIX launchers")


@pytest.fixture(params=mpi.LIBRARIES)
def library(request):
    mpi.need(request.param)
    return request.param


NORMS = """
rng = np.random.default_rng(0)
train = chaos.data.Dataset(rng.normal(0.5, 2, (40, 3, 6, 6)).astype(np.float32), rng.integers(0, 5, 40), classes=5)
found = []
for mode, options, strategy, batch_size, norm in json.loads(sys.argv[2]):
    norm |= dict(momentum=0.2, name="norm")
    layers = [chaos.Conv2d(8, 3), chaos.BatchNorm2d(**norm), chaos.ReLU(), chaos.GroupNorm(4), chaos.Flatten()]
    net = chaos.Network((3, 6, 6), [*layers, chaos.Linear(5)], seed=2)
    chaos.train(net, train, cluster=mode, cluster_options=options, epochs=2, lr=0.05, workers=1, progress=False,
                strategy=strategy, batch_size=batch_size, stall_timeout=20)
    state = net.state_dict()
    found.append([digest(net), *(state[f"norm.running_{part}"].tolist() for part in ("mean", "var"))])
tell(found)
"""


@pytest.mark.parametrize("ranks", [2, 3])
def test_running_statistics_in_every_mode(library, ranks, tmp_path):
    often = {"every": 5}
    whole = ("local", often), ("easgd", often), ("gossip", often), ("async", often), ("shared", {})
    running, groups = {"use_running_stats": True}, {"groups_of": 3}
    cases = [(mode, options, "chaos", 4, norm) for mode, options in whole for norm in ({}, running, groups)]
    modes = (None, None), ("allreduce", {"deterministic": "yes"}), ("allreduce", {})
    steps = [(mode, options, "synchronous", 16, norm) for norm in (running, groups) for mode, options in modes]
    told, _ = run(library, ranks, NORMS, tmp_path, json.dumps([*cases, *steps]))
    assert all(one == told[0] for one in told)
    for case, (_, mean, var) in zip(cases, told[0], strict=False):
        assert np.isfinite([*mean, *var]).all() and np.abs(mean).max() > 0.05 and min(var) > 0, case
    for one, exact, close in zip(*[iter(told[0][len(cases) :])] * 3, strict=True):
        assert one == exact
        np.testing.assert_allclose(close[1:], one[1:], rtol=0, atol=1e-5)
