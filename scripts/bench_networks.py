"""Benchmark of chaos against PyTorch and onnxruntime on the field's networks: training and prediction. For whoever wants to
know where chaos is ahead, and where it is not; needs `pip install torch onnx onnxruntime`, imports chaos as installed.

    python scripts/bench_networks.py --networks MLP --quick               shows that all of it works
    python scripts/bench_networks.py --networks LeNet-5,conv3x3 --json networks.json
    python scripts/bench_networks.py --networks U-Net --json networks.json   adds to the file
    python scripts/bench_networks.py --show networks.json --plot networks.png
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers.arguments import choose, finish, parser  # noqa: E402
from peers.check import Mismatch  # noqa: E402
from peers.figures import prediction_ratios, ratios  # noqa: E402
from peers.networks import NETWORKS, data  # noqa: E402
from peers.pipe import SideFailed  # noqa: E402
from peers.plot import plot  # noqa: E402
from peers.run import Field, needs, noise_of, race, tell_check, tell_surroundings  # noqa: E402
from peers.surroundings import has, peaks, surroundings  # noqa: E402
from peers.table import interval, overview, roofline, table  # noqa: E402

STRATEGIES = ("chaos", "hogwild", "replicated", "synchronous")
WHAT = ("training", "prediction")
EXPLANATION = """\
What is timed: training is forward, backward and update of every image, prediction is one call per batch, in
microseconds of wall time per image; float32, plain SGD, softmax cross-entropy. Not timed: reading and
converting data, start-up, compilation.

The same for all sides: the network, made for the others by chaos's own to_torch and to_onnx, with its weights
(put back before each turn), images in memory, learning rate. Before anything is timed, outputs, loss,
gradients and one step of all sides are compared; a side that computes something else ends the benchmark.

Each setting (threads, batch) uses the fastest of its variants, found while warming up: strategies of chaos,
and contiguous memory, channels_last and torch.compile of PyTorch. "Best peer" is the fastest of all settings.

Turns go round, A B C A B C ..., each side in a process of its own that sleeps meanwhile. A row shows the
median of the rounds and [min..max]; ratios are taken within a round. A large batch makes fewer updates per
epoch: time per image is not time to accuracy.
"""


def parse(words=None):
    about = __doc__.partition("\n\n")[0]
    found = parser("bench_networks.py", about, EXPLANATION, seconds=0.3, rounds=5, lr=0.001)
    quick = [name for name, case in NETWORKS.items() if not case.slow]
    found.add_argument(
        "--networks",
        default=",".join(quick),
        metavar="LIST",
        help=f"some of {', '.join(NETWORKS)}; default: all but {', '.join(n for n in NETWORKS if n not in quick)}",
    )
    found.add_argument("--what", default=",".join(WHAT), metavar="LIST", help="default %(default)s")
    found.add_argument(
        "--no-compile", dest="compile", action="store_false", help="leave torch.compile out, which takes minutes at first"
    )
    found.add_argument("--show", type=Path, metavar="FILE", help="tell what an earlier --json has written, measure nothing")
    args = found.parse_args(words)
    args.networks = choose(found, "network", args.networks, NETWORKS)
    args.what = choose(found, "kind of work", args.what, WHAT)
    return finish(found, args)


def training_sides(case, workers):
    """[(system, threads, batch sizes)], in the order of the turns."""
    return [("chaos", n, case.ours) for n in workers] + [("PyTorch", n, case.theirs) for n in workers]


def prediction_sides(case, workers):
    """All cores for a batch, one core for one image."""
    systems = ["chaos", "PyTorch", *["onnxruntime"] * has("onnxruntime")]
    pairs = [(max(workers), case.together), (1, 1)]
    return [(system, threads, (batch,)) for threads, batch in pairs for system in systems]


def measure(field, name, args):
    """Everything about one network."""
    chaos, case = field.chaos, NETWORKS[name]
    net = case.make(chaos)
    x, y = data(chaos, net, case.images)
    job = field.put(net, x, y, args) | {"strategies": STRATEGIES, "warm_up": min(0.3, args.seconds)}
    count = min(8, len(x))
    facts = surroundings(args, chaos)
    facts["fma_gflops"] = peaks(chaos._core, max(args.workers))
    result = {
        "told": case.told,
        "parameters": net.n_parameters,
        "flops_per_image": 2 * sum(net.macs().values()),
        "check": field.compared(name, job, x[:1024], y[:1024], args, count),
        "measured": {key: facts[key] for key in ("date", "commit", "dirty", "isa", "settings", "machine", "versions")},
        "fma_gflops": facts["fma_gflops"],
    }
    if "training" in args.what:
        sides = training_sides(case, args.workers)
        field.start(sides)
        result["rows"] = race(field.processes, "training", job, sides, args)
        result["ratios"] = ratios(result["rows"])
    if "prediction" in args.what:
        sides = prediction_sides(case, args.workers)
        field.start(sides)
        result["prediction"] = race(field.processes, "prediction", job, sides, args)
        result["prediction_ratios"] = prediction_ratios(result["prediction"])
    rows = [*result.get("rows", ()), *result.get("prediction", ())]
    result["noise"] = noise_of(rows, facts["machine"]["cores"])
    return result


def tell(name, result):
    """Prints what was found on one network."""
    print(f"\n{name}: {result['told']}; {result['parameters']:,} parameters. {tell_check(result['check'])}")
    for rows, found in (("rows", "ratios"), ("prediction", "prediction_ratios")):
        if rows in result:
            print("\n".join(["", *table(result[rows])]))
            for ratio in result[found]:
                print(f"{ratio['name']}: {interval(ratio['times'])} times as fast  ({ratio['fast']}; {ratio['slow']})")
    if "rows" in result:
        fma = result["fma_gflops"]
        lines = roofline(result["flops_per_image"], fma["one_core"], fma["all"], fma["cores"], result["rows"])
        print("\n".join(lines))
    print("\n".join(result["noise"]), flush=True)


def main(words=None):
    args = parse(words)
    if args.show:
        document = json.loads(args.show.read_text())
        for name, result in document["networks"].items():
            tell(name, result)
        print("\n" + "\n".join(overview(document["networks"])))
        if args.plot:
            plot(document, args.plot)
        return 0
    if missing := needs(args, "bench_networks.py"):
        print(missing, file=sys.stderr)
        return 2

    import chaos

    args.workers = args.workers or sorted({1, chaos.threads.resolve().workers})
    document = surroundings(args, chaos)
    tell_surroundings(document)
    document["networks"] = {}
    if args.json and args.json.exists():
        document["networks"] = json.loads(args.json.read_text())["networks"]
    with Field(chaos) as field:
        for name in args.networks:
            result = measure(field, name, args)
            tell(name, result)
            document["networks"][name] = document["networks"].get(name, {}) | result
            document["networks"] = {n: document["networks"][n] for n in NETWORKS if n in document["networks"]}
            if args.json:
                args.json.write_text(json.dumps(document, indent=1) + "\n")
    print("\n" + "\n".join(overview({n: document["networks"][n] for n in args.networks})))
    if args.plot:
        plot(document, args.plot)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SideFailed, Mismatch) as error:
        sys.exit(f"bench_networks.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
