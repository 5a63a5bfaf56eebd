"""What precision="bf16" gains and costs: time of single layers and of whole networks, test errors on MNIST. For whoever
works on the loops of cext/bf16, and for the figures of docs/explanation/bf16.md; imports chaos as installed, needs AMX.

    python scripts/bench_bf16.py layers --json docs/bf16.json       every layer with a loop for it, pass by pass, on one core
    python scripts/bench_bf16.py networks --json docs/bf16.json     training and prediction of whole networks, on one core
    python scripts/bench_bf16.py accuracy --json docs/bf16.json     test errors, the same seeds with both precisions
    python scripts/bench_bf16.py table --json docs/bf16.json        no measurement: the file as tables

Each adds its part to the file. Before a layer is timed, its outputs are compared with those of float32, as far as rounding
factors to 8 bits allows. Sides take turns, each when this core has all of its speed; times
are medians over the rounds.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers.geometries import GEOMETRIES, Geometry  # noqa: E402
from peers.networks import NETWORKS  # noqa: E402
from peers.surroundings import surroundings  # noqa: E402

PASSES = ("forward", "weight_gradient", "data_gradient")
ALL = ";".join(f"{kind}.{what}=bf16" for kind in ("conv2d", "linear") for what in PASSES)
OFF = 2.0**-8  # of one factor; of a product's two, rounded at random, less than this in a sum
CHAINS = {  # batch sizes of training
    "MLP": (16, 64, 256),
    "LeNet-5": (8,),
    "conv3x3": (1, 8),
    "all-conv": (8,),
    "ResNet-20": (8,),
    "large": (8,),
    "conv5x5": (8,),
    "separable": (8,),
}


class Wrong(Exception):
    """Two sides do not compute the same."""


class Side:
    """A layer between a factor per channel, so that its input wants a gradient, and a vector of outputs."""

    def __init__(self, chaos, g, batch, bf16):
        arguments = (g.out, g.kernel) if g.kernel else (g.out,)
        layers = [chaos.ChannelScale(name="before"), getattr(chaos, g.kind)(*arguments, **g.options, name="layer")]
        chaos._core.set_loops(ALL if bf16 == "always" else "")
        self.net = chaos.Network(g.shape, [*layers, *[chaos.Flatten()] * (len(g.shape) > 1)], seed=0)
        self.net.precision = "bf16" if bf16 else "float32"
        x = np.random.default_rng(0).standard_normal((batch, *g.shape)).astype(np.float32)
        y = np.zeros(batch, np.int64)
        self.out = self.net.forward(x)
        # with a rule that keeps something, or the gradient of a fully connected layer would be formed by its update
        moments = chaos.network.aligned_zeros((1, self.net.plan.weight_size))
        self.engine = chaos._core.Engine(
            self.net.plan, self.net.weights, update="momentum", moments=moments, batch_size=batch
        )
        self.bench = chaos._core.Bench(self.engine, times=True)
        self.engine.run("gradients", inputs=[x.reshape(-1)], labels=y)
        self.loops = {what: self.bench.loop(2, self.called(what)) for what in PASSES}
        chaos._core.set_loops("")

    def called(self, what):
        return "backward" if what == "data_gradient" else what

    def us(self, what, seconds):
        """Microseconds per image."""
        if what == "data_gradient":
            return max(self._us("backward", seconds) - self._us("weight_gradient", seconds), 0.0)
        return self._us(what, seconds)

    def _us(self, what, seconds):
        one = self.bench.time(2, what, 1)
        return 1e6 * self.bench.time(2, what, max(1, int(seconds / max(one * self.engine.chunk, 1e-7))))


def measure(chaos, g, batch, args):
    sides = {"float32": Side(chaos, g, batch, ""), "bf16": Side(chaos, g, batch, "always")}
    chosen = Side(chaos, g, batch, "chosen").loops
    exact, rounded = sides["float32"].out, sides["bf16"].out
    if not (off := float(np.abs(rounded - exact).max() / np.abs(exact).max())) <= OFF:
        raise Wrong(f"{g.network}, {g.name}: outputs differ by {off:.1e} of the largest")
    there = [what for what in PASSES if sides["bf16"].loops[what] == "bf16"]
    taken, best = {what: {name: [] for name in sides} for what in there}, 0.0
    for _ in range(args.rounds):
        for what, of in taken.items():
            for name, side in sides.items():
                best = calm(chaos, best)
                of[name].append(side.us(what, args.seconds))
    flops = 2 * sides["bf16"].net.macs()["forward"]
    passes = {}
    for what, of in taken.items():
        us = {name: statistics.median(found) for name, found in of.items()}
        passes[what] = {
            "float32_us": us["float32"],
            "bf16_us": us["bf16"],
            "bf16_gflops": flops / us["bf16"] * 1e-3 if us["bf16"] else None,
            "times": us["float32"] / us["bf16"] if us["bf16"] else None,
            "float32_loop": sides["float32"].loops[what],
            "chosen": chosen[what] == "bf16",
        }
    shape = list(g.shape)
    about = {"network": g.network, "layer": g.name, "shape": shape, "out": g.out, "batch": batch, "flops": flops}
    return {**about, "outputs_differ": off, "passes": passes}


def layers(chaos, args):
    cases = []
    for g in GEOMETRIES:
        if g.kind == "Linear":
            cases += [(g, batch) for batch in (8, 16, 32, 64)]
        elif g.kind != "ConvTranspose2d" and g.options.get("groups", 1) == 1:
            cases.append((g, g.batch))
    cases += [
        (Geometry("MLP", "Linear", (n,), out), batch)
        for n, out in ((784, 256), (256, 128), (128, 10), (512, 512))
        for batch in (8, 16, 32, 64)
    ]
    found = []
    for g, batch in cases:
        if args.only and args.only not in g.name:
            continue
        found.append(measure(chaos, g, batch, args))
        row = found[-1]
        words = [
            f"{w}: {p['float32_us']:.2f} / {p['bf16_us']:.2f} = {p['times'] or 0:.2f}{'' if p['chosen'] else ' (no)'}"
            for w, p in row["passes"].items()
        ]
        print(f"{row['network']}, {row['layer']}, batch {batch}:  " + "   ".join(words), file=sys.stderr, flush=True)
    core = chaos._core
    return {
        "rows": found,
        "peaks": {
            "float32_gflops": core.fma_gflops(seconds=0.2),
            "vdpbf16ps_gflops": core.bf16_gflops(True, 0.2),
            "tdpbf16ps_gflops": core.bf16_gflops(False, 0.2),
        },
    }


def calm(chaos, best, patience=2.0):
    """Waits, for so many seconds at most, until this core multiplies and adds at 90 % of the best rate seen: what shares it
    from outside slows AMX down more than anything else. The best rate."""
    until = time.perf_counter() + patience
    while True:
        rate = chaos._core.fma_gflops(seconds=0.002)
        best = max(best, rate)
        if rate >= 0.9 * best or time.perf_counter() > until:
            return best


def training_us(engine, x, labels, order):
    start = time.perf_counter()
    result = engine.run("train", inputs=[x], labels=labels, order=order, lr=1e-6)
    took = time.perf_counter() - start
    if result["status"] != "done" or result["images"] != len(order):
        raise Wrong(f"a training is {result['status']} after {result['images']} images")
    return 1e6 * took / len(order)


def predicting_us(net, x):
    start = time.perf_counter()
    net.forward(x, workers=1)
    return 1e6 * (time.perf_counter() - start) / len(x)


def whole(chaos, name, batches, args):
    """Rows of a network: training by batch size, and prediction."""
    rng = np.random.default_rng(0)
    nets = {}
    for bf16 in ("float32", "bf16"):
        nets[bf16] = NETWORKS[name].make(chaos)
        nets[bf16].precision = bf16
    shape = nets["bf16"].input_shape
    x, labels = rng.standard_normal((512, *shape)).astype(np.float32), rng.integers(0, 10, 512)
    off = float(
        np.abs(nets["bf16"].forward(x) - nets["float32"].forward(x)).max() / np.abs(nets["float32"].forward(x)).max()
    )
    if not 0 <= off <= 0.05:
        raise Wrong(f"{name}: outputs differ by {off:.1e} of the largest")
    rows = []
    for batch in [*batches, None]:
        engines = {
            side: chaos._core.Engine(net.plan, net.weights, batch_size=batch or 1, strategy="chaos")
            for side, net in nets.items()
        }
        taken, best, count = {side: [] for side in nets}, 0.0, {}
        for turn in range(args.rounds + 1):
            for side, net in nets.items():
                if not turn:
                    count[side] = 64
                best = calm(chaos, best)
                if batch:
                    order = np.arange(count[side], dtype=np.int64) % 512
                    us = training_us(engines[side], x.reshape(-1), labels, order)
                else:
                    us = predicting_us(net, x[: min(count[side], 512)])
                if turn:
                    taken[side].append(us)
                else:
                    images = max(int(1e6 * 10 * args.seconds / us), batch or 64, 64)
                    count[side] = images // (batch or 64) * (batch or 64)
        us = {side: statistics.median(found) for side, found in taken.items()}
        rows.append(
            {
                "network": name,
                "what": f"training, batch {batch}" if batch else "prediction",
                "batch": batch,
                "float32_us": us["float32"],
                "bf16_us": us["bf16"],
                "times": us["float32"] / us["bf16"],
                "outputs_differ": off,
            }
        )
        told = rows[-1]
        print(f"{name}, {told['what']}: {us['float32']:.1f} / {us['bf16']:.1f} = {told['times']:.2f}", file=sys.stderr)
    return rows


def networks(chaos, args):
    found = []
    for name, batches in CHAINS.items():
        if not args.only or args.only in name:
            found += whole(chaos, name, batches, args)
    return {"rows": found}


def accuracy(chaos, args):
    """Test errors of both precisions, seed by seed."""
    train, test = chaos.data.load("mnist")

    def mlp(seed):
        layers = [chaos.Flatten(), chaos.Linear(256), chaos.ReLU(), chaos.Linear(128), chaos.ReLU(), chaos.Linear(10)]
        return chaos.Network(train.shape, layers, seed=seed)

    def conv(seed):
        c, r, p = chaos.Conv2d, chaos.ReLU, chaos.MaxPool2d
        layers = [c(16, 3, padding=1), r(), c(32, 3, padding=1), r(), p(2), c(32, 3, padding=1), r(), p(2), c(64, 3), r()]
        layers += [chaos.Flatten(), chaos.Linear(64), r(), chaos.Linear(10)]
        return chaos.Network(train.shape, layers, seed=seed)

    cases = {"784-256-128-10": (mlp, 64, 0.05, 6), "convolutions 3x3, 16-32-32-64": (conv, 8, 0.02, 2)}
    found = []
    for name, (make, batch, lr, epochs) in cases.items():
        if args.only and args.only not in name:
            continue
        errors = {"float32": [], "bf16": []}
        for seed in range(args.seeds):
            for side, of in errors.items():
                options = {"epochs": epochs, "lr": lr, "lr_decay": 0.8, "batch_size": batch, "seed": seed, "workers": 1}
                run = chaos.train(make(seed), train, test, precision=side, progress=False, **options)
                of.append(run.history[-1]["test_error"])
            print(f"{name}, seed {seed}: " + " ".join(f"{e[-1]:.2%}" for e in errors.values()), file=sys.stderr, flush=True)
        net = make(0)
        net.precision = "bf16"
        rows = net.summary(batch).rows
        off = 100 * (np.array(errors["bf16"]) - np.array(errors["float32"]))
        found.append(
            {
                "network": name,
                "batch": batch,
                "lr": lr,
                "lr_decay": 0.8,
                "epochs": epochs,
                "loops": {f"{row.name} ({row.options})": row.loops for row in rows if row.loops},
                "test_errors": errors,
                "difference_points": float(off.mean()),
                "standard_error_points": float(off.std(ddof=1) / np.sqrt(len(off))) if len(off) > 1 else None,
            }
        )
    return {"data": "mnist", "seeds": args.seeds, "rows": found}


def table(document):
    """Markdown lines."""
    told = []
    if "accuracy" in document:
        told += ["| network | float32 | bf16 | difference, points |", "|---|---|---|---|"]
        for row in document["accuracy"]["rows"]:
            means = [f"{100 * np.mean(row['test_errors'][side]):.2f} %" for side in ("float32", "bf16")]
            told.append(
                f"| {row['network']} | {means[0]} | {means[1]} | "
                f"{row['difference_points']:+.3f} +- {row['standard_error_points']:.3f} |"
            )
    if "networks" in document:
        told += ["", "| network | | float32, us | bf16, us | times |", "|---|---|---|---|---|"]
        for row in document["networks"]["rows"]:
            told.append(
                f"| {row['network']} | {row['what']} | {row['float32_us']:.1f} | {row['bf16_us']:.1f} | {row['times']:.2f} |"
            )
    if "layers" in document:
        peaks = document["layers"]["peaks"]
        told += ["", ", ".join(f"{name.removesuffix('_gflops')} {rate:,.0f} GFLOP/s" for name, rate in peaks.items()), ""]
        told += ["| layer | batch | forward | weight gradient | data gradient |", "|---|---|---|---|---|"]
        for row in document["layers"]["rows"]:
            cells = []
            for what in PASSES:
                one = row["passes"].get(what)
                cells.append(
                    "" if one is None else f"{one['times']:.2f}" if one.get("chosen", True) else f"({one['times']:.2f})"
                )
            told.append(f"| {row['network']}, {row['layer']} | {row['batch']} | " + " | ".join(cells) + " |")
    return told


PARTS = {"layers": layers, "networks": networks, "accuracy": accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "table"])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=0.01, help="of one measurement of one layer, about (0.01)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5, help="of accuracy (5)")
    parser.add_argument("--only", metavar="TEXT", help="only layers, or networks, whose name has this")
    args = parser.parse_args()
    document = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    if args.part == "table":
        print("\n".join(table(document)))
        return
    import chaos

    start = time.perf_counter()
    found = PARTS[args.part](chaos, args)
    document[args.part] = {"surroundings": surroundings(args, chaos), **found}
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
