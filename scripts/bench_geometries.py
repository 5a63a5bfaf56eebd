"""Time of single layers of the field's networks, pass by pass, on one core, beside PyTorch's time for the same layer, pass
and batch. For whoever works on the loops; needs `pip install torch`, imports chaos as installed.

    python scripts/bench_geometries.py --json geometries.json               all of them: some minutes
    python scripts/bench_geometries.py --networks VGG-16 --json geometries.json   measured again; adds to the file
    python scripts/bench_geometries.py --page docs/reference/geometries.md --json geometries.json   no measurement

Before a layer is timed, outputs and gradients are compared with PyTorch's, to 1e-4 of the largest entry. PyTorch has the
faster of contiguous memory and channels_last for each pass. The sides take turns; times are medians over the rounds.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers.geometries import GEOMETRIES  # noqa: E402
from peers.surroundings import surroundings  # noqa: E402

PASSES = ("forward", "weight_gradient", "data_gradient")
TOLERANCE = 1e-4


class Wrong(Exception):
    """Two sides do not compute the same."""


def network(chaos, g):
    """The layer between a factor per channel, so that its input wants a gradient, and a vector of outputs."""
    arguments = (g.out, g.kernel) if g.kernel else (g.out,)
    layers = [chaos.ChannelScale(name="before"), getattr(chaos, g.kind)(*arguments, **g.options, name="layer")]
    return chaos.Network(g.shape, [*layers, *[chaos.Flatten()] * (len(g.shape) > 1)], seed=0)


class Theirs:
    """The same layer in PyTorch, a pass at a time."""

    def __init__(self, torch, g, state, x, dy):
        self.torch, self.g = torch, g
        self.weight, self.bias = (torch.from_numpy(state[f"layer.{part}"]) for part in ("weight", "bias"))
        layouts = [torch.contiguous_format, *[torch.channels_last] * (len(g.shape) == 3)]
        self.sets = [
            tuple(
                t.contiguous(memory_format=layout if t.dim() == 4 else torch.contiguous_format)
                for t in (torch.from_numpy(x), self.weight, torch.from_numpy(dy))
            )
            for layout in layouts
        ]
        option = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | g.options
        dims = len(g.shape) - 1
        spread = [[option[key]] * dims for key in ("stride", "padding", "dilation")]
        self.how = [*spread, g.kind.startswith("ConvTranspose"), [0] * dims, option["groups"]]

    def run(self, what, tensors):
        x, w, dy = tensors
        if not self.g.kernel:
            if what == "forward":
                return self.torch.addmm(self.bias, x, w.T)
            return (dy.T @ x, dy.sum(0)) if what == "weight_gradient" else dy @ w
        if what == "forward":
            return self.torch.convolution(x, w, self.bias, *self.how)
        mask = [what == "data_gradient", what == "weight_gradient", what == "weight_gradient"]
        return self.torch.ops.aten.convolution_backward(dy, x, w, [self.g.out], *self.how, mask)

    def seconds(self, what, least):
        """The least mean time of one call, of each layout."""
        best = float("inf")
        with self.torch.no_grad():
            for tensors in self.sets:
                rounds, passed, start = 0, 0.0, time.perf_counter()
                while passed < least or not rounds:
                    self.run(what, tensors)
                    rounds += 1
                    passed = time.perf_counter() - start
                best = min(best, passed / rounds)
        return best


def compare(torch, net, g, x, y):
    """{what: deviation in parts of the largest entry}; Wrong where it is too large."""
    from torch.nn.functional import cross_entropy

    state = net.state_dict()
    weight, bias = (torch.from_numpy(state[f"layer.{part}"]).requires_grad_() for part in ("weight", "bias"))
    scale = torch.ones(1, g.shape[0], *[1] * (len(g.shape) - 1), requires_grad=True)
    side = Theirs(torch, g, state, x, x)
    side.bias = bias
    out = side.run("forward", (torch.from_numpy(x) * scale, weight, None)).flatten(1)
    gradients = torch.autograd.grad(cross_entropy(out, torch.from_numpy(y)), (weight, bias, scale))
    _, mine = net.loss_and_gradients(x, y)
    pairs = {"outputs": (net.forward(x), out.detach().numpy())}
    for name, theirs in zip(("layer.weight", "layer.bias", "before.weight"), gradients, strict=True):
        pairs[name] = mine[name].ravel(), theirs.numpy().ravel()
    found = {name: float(np.abs(a - b).max() / np.abs(b).max()) for name, (a, b) in pairs.items()}
    if worst := [f"{name} by {off:.1e}" for name, off in found.items() if not off <= TOLERANCE]:
        raise Wrong(f"{g.network}, {g.name}: {', '.join(worst)} of the largest entry; tolerated is {TOLERANCE:g}")
    return found


def measure(chaos, torch, g, seconds, rounds):
    """Everything about one layer."""
    net = network(chaos, g)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((g.batch, *g.shape)).astype(np.float32)
    y = rng.integers(0, net.output_shape[0], g.batch)
    checked = compare(torch, net, g, x, y)
    # with a rule that keeps something, or the gradient of a fully connected layer would be formed by its update
    moments = chaos.network.aligned_zeros((1, net.plan.weight_size))
    engine = chaos._core.Engine(net.plan, net.weights, update="momentum", moments=moments, batch_size=g.batch)
    bench = chaos._core.Bench(engine, times=True)
    engine.run("gradients", inputs=[x.reshape(-1)], labels=y)
    shape = net.nodes()[2][0].shape
    theirs = Theirs(torch, g, net.state_dict(), x, rng.standard_normal((g.batch, *shape)).astype(np.float32))
    layer = net.nodes()[2][0].layer
    flops = 2 * layer.macs(g.shape)

    def ours(what):
        if what == "data_gradient":
            return max(timed("backward") - timed("weight_gradient"), 0.0)
        return timed(what)

    def timed(what):
        one = bench.time(2, what, 1)
        return bench.time(2, what, max(1, int(seconds / max(one * g.batch, 1e-7))))

    taken = {what: ([], []) for what in PASSES}
    peak = []
    for what in PASSES:
        theirs.seconds(what, 0)
    for _ in range(rounds):
        peak.append(chaos._core.fma_gflops(seconds=min(seconds, 0.02)))
        for what, (a, b) in taken.items():
            a.append(1e6 * ours(what))
            b.append(1e6 * theirs.seconds(what, seconds) / g.batch)
    passes = {}
    for what, (a, b) in taken.items():
        mine, other = statistics.median(a), statistics.median(b)
        passes[what] = {
            "us_per_image": mine,
            "us_per_image_min": min(a),
            "us_per_image_max": max(a),
            "gflops": flops / mine * 1e-3 if mine else None,
            "loop": bench.loop(2, "backward" if what == "data_gradient" else what),
            "pytorch_us_per_image": other,
            "times": other / mine if mine else None,
        }
    return {
        "network": g.network,
        "layer": g.name,
        "batch": g.batch,
        "images_together": engine.chunk,
        "flops": flops,
        "peak_gflops": max(peak),
        "check": checked,
        "passes": passes,
    }


def number(value):
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def lines(document):
    """Markdown lines of the table."""
    rows = document["layers"]
    told = [
        "| layer"
        + "".join(f" | {w.replace('_', ' ')}, us | GFLOP/s | % of peak | loop | over PyTorch" for w in PASSES)
        + " |",
        "|---" * 16 + "|",
    ]
    network = None
    for row in rows:
        if row["network"] != network:
            network = row["network"]
            told.append(f"| **{network}** |" + " |" * 15)
        cells = [row["layer"] + (f" (batch {row['batch']})" if row["batch"] != 8 else "")]
        for found in row["passes"].values():
            share = 100 * found["gflops"] / row["peak_gflops"]
            cells += [number(found["us_per_image"]), number(found["gflops"]), f"{share:.0f}", found["loop"] or ""]
            cells.append(f"{found['times']:.2f}")
        told.append("| " + " | ".join(cells) + " |")
    return told


def summary(document):
    """Sentences about all rows."""
    told = []
    for what in PASSES:
        found = [(row, row["passes"][what]) for row in document["layers"]]
        shares = [100 * one["gflops"] / row["peak_gflops"] for row, one in found]
        times = [one["times"] for _, one in found]
        slow = sum(t < 1 for t in times)
        told.append(
            f"- {what.replace('_', ' ')}: median {statistics.median(shares):.0f} % of the peak, "
            f"{sum(s < 50 for s in shares)} of {len(shares)} below 50 %; {statistics.median(times):.2f} times as fast as "
            f"PyTorch in the median, slower in {slow}"
        )
    return told


def page(document):
    """The Markdown page."""
    machine, versions = document["machine"], document["versions"]
    peak = max(row["peak_gflops"] for row in document["layers"])
    return "\n".join(
        [
            "# Layers of the field, pass by pass",
            "",
            f"Written by `scripts/bench_geometries.py --page` from `docs/geometries.json`: one core of {machine['cpu']}, "
            f"{document['isa']}, {peak:.0f} GFLOP/s of multiply-adds measured in the same run; PyTorch {versions['torch']} "
            "with one thread, the faster of contiguous memory and channels_last, at the same batch size (8 where nothing "
            "else is said). Microseconds are per image. The rate counts 2 x multiply-adds, dense: Winograd's algorithm does "
            "fewer, so its rate may exceed the peak. Outputs, and gradients of weights, biases and inputs, were compared "
            "with PyTorch's before anything was timed. The data gradient is what the backward pass takes beyond the weight "
            "gradient alone. / is the stride, p the padding, g the groups, d the dilation.",
            "",
            *summary(document),
            "",
            *lines(document),
            "",
        ]
    )


def parse(words=None):
    parser = argparse.ArgumentParser(
        prog="bench_geometries.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    networks = list(dict.fromkeys(g.network for g in GEOMETRIES))
    parser.add_argument("--networks", default=",".join(networks), metavar="LIST", help="default: all, %(default)s")
    parser.add_argument("--seconds", type=float, default=0.02, help="of one measurement; default %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each pass and side; default %(default)s")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works, not for figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, to those that it has already")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page from what --json has; measure nothing")
    args = parser.parse_args(words)
    args.networks = args.networks.split(",")
    if unknown := [name for name in args.networks if name not in networks]:
        parser.error(f"unknown network {unknown[0]!r}; known: {', '.join(networks)}")
    if args.page and not args.json:
        parser.error("--page needs --json")
    if args.quick:
        args.seconds, args.rounds = 0.001, 1
    return args


def main(words=None):
    args = parse(words)
    if args.page:
        args.page.write_text(page(json.loads(args.json.read_text())))
        return 0
    import torch

    import chaos

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    document = surroundings(args, chaos)
    document["layers"] = json.loads(args.json.read_text())["layers"] if args.json and args.json.exists() else []
    order = {(g.network, g.name): i for i, g in enumerate(GEOMETRIES)}
    for g in GEOMETRIES:
        if g.network not in args.networks:
            continue
        row = measure(chaos, torch, g, args.seconds, args.rounds)
        row["commit"] = document["commit"]
        told = []
        for found in row["passes"].values():
            share = 100 * found["gflops"] / row["peak_gflops"] if found["gflops"] else 0
            told.append(
                f"{number(found['us_per_image']):>8} us {share:4.0f} % {found['times'] or 0:5.2f}x {found['loop'] or '':22}"
            )
        print(f"{g.network:13} {g.name:34}", " | ".join(told), flush=True)
        kept = [one for one in document["layers"] if (one["network"], one["layer"]) != (row["network"], row["layer"])]
        document["layers"] = sorted([*kept, row], key=lambda one: order[one["network"], one["layer"]])
        if args.json:
            args.json.write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(summary({"layers": [r for r in document["layers"] if r["network"] in args.networks]})))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Wrong as error:
        sys.exit(f"bench_geometries.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
