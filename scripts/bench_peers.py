"""Benchmark of chaos against PyTorch (and JAX, where installed) on the CHAOS paper's networks. For whoever wants to check a
claim about speed; needs `pip install torch`, imports chaos as installed, changes nothing. Its parts are in peers/.

    python scripts/bench_peers.py                               about five minutes on two cores
    python scripts/bench_peers.py --models small --quick        a minute; shows that all of it works
    python scripts/bench_peers.py --json peers.json --plot peers.png
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers.arguments import choose, counts, finish, parser  # noqa: E402
from peers.check import Mismatch  # noqa: E402
from peers.figures import ratios  # noqa: E402
from peers.pipe import SideFailed  # noqa: E402
from peers.plot import plot  # noqa: E402
from peers.run import Field, needs, noise_of, race, say, tell_check, tell_surroundings  # noqa: E402
from peers.surroundings import has, peaks, surroundings  # noqa: E402
from peers.table import interval, roofline, table  # noqa: E402

IMAGES = 8192
MODELS = ("small", "medium", "large")
EXPLANATION = """\
What is timed: forward, backward and update of every image, in microseconds of wall time per image, on the
three networks of the paper (tanh, softmax cross-entropy, plain SGD, float32). Not timed: reading, converting
and shuffling data, evaluation, start-up.

The same for all sides: initial weights (put back before each turn), images (float32 in memory, shuffled
once, walked through in one order), learning rate. Before anything is timed, outputs, loss, gradients and one
SGD step of all sides are compared; a side that computes something else ends the benchmark.

In favour of PyTorch: no DataLoader, no optimizer object (one fused update of all parameters), batches are
views, denormals are flushed, and each setting uses the faster of contiguous and channels_last memory
(--compile: or of torch.compile), found while warming up.

How: one process per side, started and warmed up first, asleep while another has its turn; turns go round,
A B C A B C ... A row shows the median of the rounds and [min..max]. "CPUs" is processor time by wall time: a
side with two threads that always work shows 2.00, less if it waits or if another program has the machine.
Ratios are taken within a round, then their median and [min..max]. A batch of 64 makes 64 times fewer updates
per epoch than per-image training does: time per image is not time to accuracy.
"""


def parse(words=None):
    found = parser("bench_peers.py", __doc__.partition(". For")[0] + ".", EXPLANATION, seconds=1, rounds=5, lr=0.01)
    found.add_argument("--models", default=",".join(MODELS), metavar="LIST", help="networks; default %(default)s")
    found.add_argument(
        "--batches",
        type=counts,
        default=[1, 8, 64, 256],
        metavar="LIST",
        help="PyTorch's batch sizes; default 1,8,64,256. chaos always trains per image",
    )
    found.add_argument(
        "--data",
        default="mnist",
        help="mnist (default; looked for in CHAOS_DATA_DIR) or digits (embedded); the choice hardly matters for speed",
    )
    found.add_argument(
        "--compile", action="store_true", help="let PyTorch try torch.compile, too; needs a C++ compiler and some minutes"
    )
    args = found.parse_args(words)
    args.models = choose(found, "network", args.models, MODELS)
    return finish(found, args)


def competitors(args):
    """[(system, threads, batch sizes)], one process each, in the order of the turns."""
    sides = [("chaos", n, [1]) for n in args.workers]
    sides += [("PyTorch", n, args.batches) for n in args.workers]
    if max(args.workers) > 1:
        sides.append(("PyTorch Hogwild", max(args.workers), [1]))
    if has("jax"):
        sides.append(("JAX", max(args.workers), [1, 64]))
    return sides


def main(words=None):
    args = parse(words)
    if missing := needs(args, "bench_peers.py"):
        print(missing, file=sys.stderr)
        return 2

    import chaos

    args.workers = args.workers or sorted({1, chaos.threads.resolve().workers})
    document = surroundings(args, chaos)
    tell_surroundings(document)
    train, _ = chaos.data.load(args.data, size=29)
    share = math.lcm(*args.batches, 64)
    few = min(IMAGES, len(train)) // share * share
    if not few:
        say(f"{len(train)} images do not fill one batch of each of the sizes {args.batches}")
        return 2
    use = np.random.default_rng(0).permutation(len(train))[:few]
    x = np.ascontiguousarray(train.images[use].astype(np.float32) / np.float32(127.5) - 1)
    y = train.labels[use]
    document["settings"]["images"] = few
    document["networks"], sides = {}, competitors(args)
    with Field(chaos) as field:
        for name in args.models:
            net = getattr(chaos.models, name)(seed=0)
            job = field.put(net, x, y, args) | {"strategies": ("chaos", "chaos read=publication")}
            checked = field.compared(name, job, x[:1024], y[:1024], args)
            field.start(sides)
            measure_peaks(document, args, chaos)
            rows = race(field.processes, "training", job, sides, args, lambda: measure_peaks(document, args, chaos))
            flops = 2 * sum(net.macs().values())
            document["networks"][name] = {
                "check": checked,
                "parameters": net.n_parameters,
                "flops_per_image": flops,
                "rows": rows,
                "ratios": ratios(rows),
            }
            tell_network(name, document["networks"][name], document["fma_gflops"])
    every = [row for result in document["networks"].values() for row in result["rows"]]
    document["noise"] = noise_of(every, document["machine"]["cores"])
    print("\n" + "\n".join(document["noise"]))
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    if args.plot:
        plot(document, args.plot)
    return 0


def measure_peaks(document, args, chaos):
    document["fma_gflops"] = peaks(chaos._core, max(args.workers), document["fma_gflops"])


def tell_network(name, result, fma):
    """Prints what was found on one network."""
    print(f"\n{name}: {result['parameters']:,} parameters. {tell_check(result['check'])}")
    print("\n".join(table(result["rows"])))
    for ratio in result["ratios"]:
        print(f"{ratio['name']}: {interval(ratio['times'])} times as fast  ({ratio['fast']}; {ratio['slow']})")
    lines = roofline(result["flops_per_image"], fma["one_core"], fma["all"], fma["cores"], result["rows"])
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SideFailed, Mismatch) as error:
        sys.exit(f"bench_peers.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
