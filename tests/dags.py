"""Random networks of all kinds that PyTorch has too, and what PyTorch says of them. For tests/test_random_networks.py and
scripts/random_networks.py."""

import numpy as np
from nets import Oracle

import chaos
from chaos.layers import LAYERS, Layer
from chaos.layers.examples import Picker

CLASSES, IMAGES = 4, 6
ROWS = 32  # COLUMN_ROWS of cext/layers/columns.h
# random ones are compared elsewhere; constants of their own shape would rarely fit; division by what may be 0
LEFT_OUT = {"Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "GaussianNoise", "DropConnectLinear", "StochasticPool2d",
            "Constant", "Parameter", "Divide", "LPPool1d", "LPPool2d", "RBF", "LocalResponseNorm"}  # fmt: skip
RULES = {  # with denominators that do not amplify what rounding makes of small gradients
    "sgd": (dict(lr=0.05), lambda o, p: o.SGD(p, lr=0.05)),
    "momentum": (dict(lr=0.05, update_options=dict(momentum=0.8)), lambda o, p: o.SGD(p, lr=0.05, momentum=0.8)),
    "nesterov": (
        dict(lr=0.05, update_options=dict(momentum=0.8)),
        lambda o, p: o.SGD(p, lr=0.05, momentum=0.8, nesterov=True),
    ),
    "adagrad": (dict(lr=0.05, update_options=dict(eps=0.1)), lambda o, p: o.Adagrad(p, lr=0.05, eps=0.1)),
    "rmsprop": (dict(lr=0.01, update_options=dict(eps=0.1)), lambda o, p: o.RMSprop(p, lr=0.01, eps=0.1)),
    "adam": (dict(lr=0.02, update_options=dict(eps=0.1)), lambda o, p: o.Adam(p, lr=0.02, eps=0.1)),
    "adamw": (
        dict(lr=0.02, update_options=dict(eps=0.1, weight_decay=0.1)),
        lambda o, p: o.AdamW(p, lr=0.02, eps=0.1, weight_decay=0.1),
    ),
}


def network(rng):
    """A random graph of a dozen layers behind one image, with a linear layer at its end."""
    pick = Picker(rng)
    start = chaos.Input((int(rng.integers(1, 6)), int(rng.integers(5, 10)), int(rng.integers(5, 10))))
    nodes = [chaos.Conv2d(int(rng.integers(2, 9)), kernel_size=3, padding=1)(start)]
    kinds = [kind for kind in LAYERS.values() if kind.__name__ not in LEFT_OUT]
    for _ in range(60):
        if len(nodes) > 10:
            break
        layer, shapes = pick(kinds).example(pick)
        sources = [nodes[int(rng.integers(max(0, len(nodes) - 4), len(nodes)))] for _ in shapes]
        try:
            node = layer(*sources)
        except ValueError:
            continue
        if 4 <= np.prod(node.shape) <= 2000:
            nodes.append(node)
    flat = [chaos.Flatten()(node) if len(node.shape) > 1 else node for node in nodes[-2:]]
    return chaos.Network(start, chaos.Linear(CLASSES)(chaos.Concat()(*flat)), seed=int(rng.integers(1000)))


def writable(seed):
    """The network of a seed, or of the first one behind it that PyTorch can hold, as (network, module in float64)."""
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        try:
            net = network(rng)
            module = net.to_torch().double()
        except (chaos.UnsupportedError, ValueError):
            continue
        return net, module, rng
    raise AssertionError(f"no network for seed {seed}")


def close(got, wanted, tolerance, what):
    np.testing.assert_allclose(np.asarray(got, np.float64), wanted, rtol=0, atol=tolerance, err_msg=what)


def check(seed, rules):
    """Outputs, loss, gradients and three steps of update rules against PyTorch in float64; returns the network."""
    import torch

    net, module, rng = writable(seed)
    x = rng.standard_normal((IMAGES, *net.input_shape)).astype(np.float32)
    labels = rng.integers(0, CLASSES, IMAGES)
    oracle = Oracle(net, x, labels)
    x64, y64 = torch.from_numpy(x).double(), torch.from_numpy(labels)
    start = {k: v.clone() for k, v in module.state_dict().items()}
    with torch.no_grad():
        y = module.eval()(x64).numpy()
    close(net.forward(x), y, oracle.tolerance["output"], "outputs")
    loss = torch.nn.functional.cross_entropy(module.train()(x64), y64)
    loss.backward()
    there = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    got, gradients = net.loss_and_gradients(x, labels)
    close(got, loss.item(), oracle.tolerance["loss"], "loss")
    assert gradients.keys() == there.keys()
    for name, gradient in gradients.items():
        close(gradient, there[name], oracle.tolerance[name], f"gradient of {name}")
    for rule in rules:
        check_steps(torch, net, module, start, x, labels, rule, rng)
    return net


def check_steps(torch, net, module, start, x, labels, rule, rng):
    """Three steps from the same weights. What float32 may make of them is measured, as in `Oracle` and with its factor: by
    the steps from weights and images that are moved by 2^-24, and so is every result on its way forward and back, that of a
    layer that subtracts means also together as a channel, as an image and as a channel of an image.

    That does not reach running means near 0: moving the values of a mean averages out, while a sum of n float32 numbers is
    off by up to n 2^-24 of the sum of their sizes, in whatever order it is taken. The core's are of x - shift, at most ROWS
    at a time (cext/layers/columns.h; the rest is in double precision), with a shift within the values' range, so that the
    sizes are at most twice those of x: a mean is off by up to (n + 2) 2^-24 of twice the mean of |x|, and what a running
    mean makes of three of them by (1 - (1 - momentum)^3) of that."""
    settings, make = RULES[rule]
    sums = {}  # {name of a running mean: what the sums behind it may be off by}

    def note(name):
        def hook(layer, inputs, output):
            (values,) = inputs
            size = values.detach().abs().mean([0, *range(2, values.ndim)]).max().item()
            terms = min(ROWS, values.numel() // values.shape[1]) + 2
            off = terms * 2.0**-24 * 2 * size * (1 - (1 - layer.momentum) ** 3)
            sums[name] = max(sums.get(name, 0), off)

        return hook

    subtracts_means = any("norm" in type(layer).__name__.lower() for layer in module.modules())

    def move(t):
        return t * (1 + 2.0**-24 * (2 * torch.rand_like(t) - 1)) if t.is_floating_point() else t

    def moved_result(t):
        together = 0
        if subtracts_means and t.ndim > 1:
            ones = (1,) * (t.ndim - 2)
            shapes = [(1, t.shape[1]), (len(t), 1), t.shape[:2]]
            shift = sum(2 * torch.rand(*shape, *ones, dtype=t.dtype) - 1 for shape in shapes)
            together = 2.0**-24 * t.detach().square().mean().sqrt() * shift * (t.detach() != 0)
        return move(t) + together

    class Moving(torch.fx.Interpreter):
        def run_node(self, n):
            y = super().run_node(n)
            if n.op not in ("call_module", "call_function", "call_method") or not y.requires_grad:
                return y
            y = moved_result(y)
            y.register_hook(moved_result)
            return y

    def steps(moving):
        module.load_state_dict({k: move(v) if moving else v for k, v in start.items()})
        optimiser, images = make(torch.optim, module.parameters()), torch.from_numpy(x).double()
        images = move(images) if moving else images
        for _ in range(3):
            optimiser.zero_grad()
            module.train()
            y = Moving(module).run(images) if moving else module(images)
            torch.nn.functional.cross_entropy(y, torch.from_numpy(labels)).backward()
            optimiser.step()
        return {k: v.numpy().copy() for k, v in module.state_dict().items() if v.is_floating_point()}

    observing = [(name, layer) for name, layer in module.named_modules() if getattr(layer, "running_mean", None) is not None]
    hooks = [layer.register_forward_hook(note(f"{name}.running_mean")) for name, layer in observing]
    torch.manual_seed(int(rng.integers(1 << 30)))
    exact, moved = steps(False), [steps(True) for _ in range(4)]
    for hook in hooks:
        hook.remove()
    copy = chaos.Network.from_config(net.config())
    copy.load_state_dict(net.state_dict())
    data = chaos.data.Dataset(x, labels, classes=net.output_shape[0])
    chaos.train(copy, data, epochs=3, batch_size=len(x), strategy="sequential", update=rule, lr_schedule="constant",
                progress=False, **settings)  # fmt: skip
    for name, value in copy.state_dict().items():
        spread = max(np.abs(m[name] - exact[name]).max() for m in moved)
        tolerance = Oracle.FACTOR * spread + 2.0**-22 * np.abs(exact[name]).max()
        tolerance += sums.get(name, 0)
        close(value, exact[name], tolerance, f"{name} after three steps of {rule}")


def kinds_of(net):
    return {type(node.layer).__name__ for node, _ in net.nodes() if isinstance(node.layer, Layer)}
