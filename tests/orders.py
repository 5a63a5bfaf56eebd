"""Orders of events, and engines that run them: for the tests of virtual workers."""

import numpy as np
from nets import images

import chaos
from chaos import _core, virtual
from chaos.sync import STRATEGIES
from chaos.virtual import Times

ORDERS, SIMULATED = virtual.ORDERS, list(STRATEGIES)
PRIVATE = ("averaging", "domains", "elastic", "replicated")  # every worker, or group of them, trains a replica of its own


def engine_of(net, workers, strategy="chaos", **options):
    return _core.Engine(net.plan, net.weights, workers=workers, strategy=strategy, **options)


def options_of(strategy, **given):
    return STRATEGIES[strategy].resolve(given)


def events_of(order, n, times=False):
    """[(kind, worker, what)], and if asked the seconds since when and when."""
    order.clock.begin(n)
    room, since, when = np.empty(1 << 12, np.uint64), np.empty(1 << 12), np.empty(1 << 12)
    found = []
    while count := order.clock.next(room, since, when):
        found += [
            (_core.EVENTS[int(e) >> 16 & 0xFFFF], int(e) & 0xFFFF, int(e) >> 32, s, w)
            for e, s, w in zip(room[:count], since[:count], when[:count], strict=True)
        ]
    return found if times else [event[:3] for event in found]


def small_net():
    return chaos.Network(
        (1, 8, 8),
        [
            chaos.Conv2d(4, 3),
            chaos.Tanh(),
            chaos.MaxPool2d(2),
            chaos.Flatten(),
            chaos.Linear(30),
            chaos.Tanh(),
            chaos.Linear(5),
        ],
    )


def default_order(net, engine, n):
    """One worker, everything in turn, as event tuples."""
    nodes = [node for node in range(1, len(net.nodes())) if net.plan.block(node)[1]]
    of = {node: [k for k, (owner, _) in enumerate(engine.stripe_table) if owner == node] for node in nodes}
    found = []
    for image in range(n):
        found += [("step", 0, image), *(("forward", 0, node) for node in nodes)]
        for node in reversed(nodes):
            found += [("backward", 0, node), *(("publish", 0, k) for k in of[node])]
    return found


def codes_of(events):
    return np.array([_core.event(*event) for event in events], np.uint64)


def without_tail():
    """Its last layer with weights is a convolution."""
    return chaos.Network(
        (2, 9, 8), [chaos.Conv2d(6, 3), chaos.Tanh(), chaos.MaxPool2d(2), chaos.Conv2d(5, 3), chaos.Flatten()], seed=2
    )


def run_events(make, codes, *, workers, jobs, n, lanes=0, block=1 << 16, x=None, **options):
    """(weights, counts) after the events."""
    net = make()
    y = images(n, net.input_shape, classes=5)[1]
    values = (images(n, net.input_shape, classes=5)[0] if x is None else x).astype(np.float32).reshape(-1)
    result = engine_of(net, workers, **options).run(
        "train",
        inputs=[values],
        labels=y,
        lr=0.05,
        events=[codes[i : i + block] for i in range(0, len(codes), block)],
        lanes=lanes,
        jobs=jobs,
    )
    times = ("time", "give_ways")
    for layer in result["layers"].values():
        del layer["pending_seconds"]
    return net.weights.tobytes(), {key: value for key, value in result.items() if key not in times}


def flat_times(net, forward=1e-5, backward=2e-5, publish=1e-8):
    nodes = len(net.nodes()) - 1
    return Times("test", 1.0, 0.0, (forward,) * nodes, (backward,) * nodes, (publish,) * nodes)
