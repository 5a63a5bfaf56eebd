"""The cases of scripts/same_bits.py, which runs this file with the Python of each installation; not for anybody else.

Only the public face of chaos is used, because the rest has other names in other installations. A line of JSON per case:
its name, what it belongs to, and the SHA-256 of weights (in PyTorch's names and shapes), outputs and metrics (the records
without what a clock has measured); or the kind of error that refused it.

    python same_cases.py describe
    python same_cases.py {begin|continue} FOLDER OWN SLICE OF --lists JSON [--quick] [--perturb CASE]

`begin` leaves traces, saved networks and unfinished runs in FOLDER; `continue` replays and resumes those of FOLDER, which
another installation may have begun, and writes to OWN. CHAOS_ISA is the caller's to set.
"""

import argparse
import contextlib
import hashlib
import inspect
import io
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np

import chaos
import chaos.cli
from chaos.losses import LOSSES
from chaos.sync import STRATEGIES
from chaos.updates import UPDATES

# their real threads give the same bits again (of 3 workers)
DETERMINISTIC = ("synchronous", "hybrid", "delayed", "averaging")
TRACEABLE = {"sequential": (1,), "chaos": (1, 3)}
CLOCKED = ("seconds", "images_per_second", "time_split")
RATES = {"adagrad": 0.01, "adam": 0.002, "adamw": 0.002, "rmsprop": 0.001}  # others: 0.02
IMAGES, TESTED, EPOCHS = 60, 20, 2

STRATEGY_OPTIONS = (
    ("chaos", "read=publication"),
    ("chaos", "max_pending=1"),
    ("chaos", "stripe_bytes=256"),
    ("chaos", "staleness_step=inverse"),
    ("chaos", "read=publication staleness_step=tail"),
    ("chaos", "lr_scale=sqrt"),
    ("chaos", "max_staleness=2"),
    ("synchronous", "lanes=1"),
    ("synchronous", "lanes=5"),
    ("hybrid", "lanes=3 slices=2"),
    ("averaging", "period=3"),
    ("delayed", "stripe_bytes=256"),
    ("delayed", "stripe_bytes=4096"),
    ("hogwild", "grain=instant"),
    ("hogwild", "staleness_step=inverse"),
    ("locked", "staleness_step=tail"),
    ("leashed", "persistence=1"),
    ("leashed", "staleness_step=fleet"),
    ("elastic", "period=3 alpha=0.2"),
    ("replicated", "group=2 period=4"),
    ("replicated", "rule=sum period=8"),
)
UNSIMULATED = ("max_staleness", "persistence", "grain=instant")  # nor is max_norm
UPDATE_OPTIONS = (
    ("sgd", "weight_decay=0.01 l1=0.001"),
    ("sgd", "clip_value=0.01"),
    ("sgd", "clip_norm=0.1"),
    ("sgd", "max_norm=0.5"),
    ("momentum", "momentum=0.8 dampening=0.1 weight_decay=0.001"),
    ("momentum", "max_norm=0.7 clip_norm=0.5"),
    ("momentum", "correct_asynchrony=yes"),
    ("nesterov", "momentum=0.5 l1=0.001"),
    ("adagrad", "lr_decay=0.01 initial_accumulator_value=0.1 eps=1e-6"),
    ("rmsprop", "alpha=0.9 momentum=0.5 weight_decay=0.001"),
    ("adam", "beta1=0.8 beta2=0.99 eps=1e-6 weight_decay=0.01"),
    ("adam", "clip_norm=0.2 max_norm=1"),
    ("adamw", "weight_decay=0.1 beta1=0.5"),
)
SCHEDULE_OPTIONS = (
    ("constant", ""),
    ("exponential", "warmup=2"),
    ("step", "step_size=2"),
    ("cosine", "eta_min=0.001 warmup=1"),
    ("cosine", "t_max=9"),
)


# ---- networks and data ----


def _varied():
    """Stride, padding, dilation, groups, depthwise, no bias, windows that overlap."""
    return chaos.Network(
        (3, 13, 12),
        [
            chaos.Conv2d(6, 3, padding=1, groups=3),
            chaos.ReLU(),
            chaos.Conv2d(12, (3, 2), padding=(2, 1), dilation=2, groups=6, bias=False),
            chaos.ScaledTanh(),
            chaos.Conv2d(8, 3, stride=(2, 1), padding="valid"),
            chaos.MaxPool2d(3, 2),
            chaos.Sigmoid(),
            chaos.Conv2d(9, 1),
            chaos.Flatten(),
            chaos.Linear(10),
        ],
        seed=3,
    )


def _graph():
    """One tensor read three times, branches of different depth, two sums."""
    x = chaos.Input((2, 9, 8))
    a = chaos.Tanh()(chaos.Conv2d(6, 3, padding="same", name="stem")(x))
    b = chaos.ReLU()(chaos.Conv2d(6, 3, padding=1, bias=False)(a))
    c = chaos.Sigmoid()(chaos.Conv2d(6, 1)(a))
    e = chaos.MaxPool2d(2)(chaos.Add()(a, b, c))
    f = chaos.Linear(7)(chaos.Flatten()(e))
    g = chaos.Linear(7, bias=False)(chaos.Flatten()(chaos.MaxPool2d(3)(b)))
    return chaos.Network(x, chaos.Linear(5)(chaos.ScaledTanh()(chaos.Add()(f, g))), seed=1)


def _activations():
    """Every activation, pooled before and after, windows that overlap and windows that do not."""
    layers = [
        chaos.Conv2d(6, 3),
        chaos.ReLU(),
        chaos.MaxPool2d(3, 2),
        chaos.Conv2d(7, 3),
        chaos.MaxPool2d(2),
        chaos.Sigmoid(),
    ]
    layers += [chaos.Flatten(), chaos.Linear(20), chaos.ScaledTanh(), chaos.Linear(15), chaos.Tanh(), chaos.Linear(10)]
    return chaos.Network((1, 17, 17), layers, seed=5)


def _mlp():
    layers = [
        chaos.Flatten(),
        chaos.Linear(70),
        chaos.ReLU(),
        chaos.Linear(33, bias=False),
        chaos.Sigmoid(),
        chaos.Linear(10),
    ]
    return chaos.Network((1, 12, 12), layers, seed=4)


def _winograd():
    """Convolutions of the sizes that Winograd's tiles are used for."""
    layers = [chaos.Conv2d(16, 3, padding="same"), chaos.ReLU(), chaos.Conv2d(24, 3), chaos.Tanh(), chaos.MaxPool2d(2)]
    return chaos.Network((8, 16, 16), [*layers, chaos.Flatten(), chaos.Linear(10)], seed=2)


NETS = {
    "small": lambda: chaos.models.small(seed=0),
    "graph": _graph,
    "activations": _activations,
    "varied": _varied,
    "mlp": _mlp,
    "winograd": _winograd,
    "medium": lambda: chaos.models.medium(seed=0),
    "large": lambda: chaos.models.large(seed=0),
}
QUICK = ("small", "graph")
TRAINED = ("small", "graph", "activations", "varied", "mlp", "winograd")


def arrays(name, images=IMAGES):
    """(training images, labels, test images, labels): digits where there is one channel, else random bytes."""
    shape, classes = NETS[name]().input_shape, 5 if name == "graph" else 10
    n = images + TESTED
    if shape[0] == 1:
        digits, _ = chaos.data.load("digits", size=shape[1:])
        x, y = np.asarray(digits.images)[:n].reshape(n, *shape), np.asarray(digits.labels)[:n]
    else:
        bits = np.random.PCG64(7).random_raw(n * int(np.prod(shape)) + n)
        x, y = (bits[n:] >> 40).astype(np.uint8).reshape(n, *shape), (bits[:n] % classes).astype(np.int64)
    return x[:images], y[:images], x[images:], y[images:]


class Place:
    """Where an installation's cases leave their files."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def file(self, name, ending):
        return self.folder / (name.replace("/", "_").replace(" ", "_") + ending)

    def data(self, name, images=IMAGES):
        """A data set as a file, for the command line."""
        path = self.file(f"{name}-{images}", ".npz")
        if not path.exists():
            parts = dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(name, images), strict=True))
            _at_once(path, lambda there: np.savez(there, **parts))
        return str(path)

    def net(self, name):
        """A network as a file."""
        path = self.file(name, ".safetensors")
        if not path.exists():
            _at_once(path, NETS[name]().save)
        return str(path)


def _at_once(path, write):
    """Written under another name first: several processes share the folder."""
    there = path.with_name(f"{os.getpid()}-{path.name}")
    write(there)
    os.replace(there, path)


# ---- digests ----


def canonical(value):
    """Bytes that are equal where values are, whatever made them; floats by their bits."""
    if isinstance(value, dict):
        return b"{" + b",".join(canonical(str(key)) + b":" + canonical(value[key]) for key in sorted(value, key=str)) + b"}"
    if isinstance(value, (list, tuple)):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, (bool, np.bool_)) or value is None:
        return str(value).encode()
    if isinstance(value, (float, np.floating)):
        return b"f" + struct.pack("<d", value)
    if isinstance(value, (int, np.integer)):
        return b"i" + str(int(value)).encode()
    if isinstance(value, np.ndarray):
        return str((value.dtype.str, value.shape)).encode() + np.ascontiguousarray(value).tobytes()
    return b"s" + str(value).encode()


def sha(value):
    return hashlib.sha256(canonical(value)).hexdigest()


def state(net):
    return {name: np.asarray(value) for name, value in net.state_dict().items()}


# what measures the training images once more; earlier versions have another word for it
AGAIN = "evaluate_train" if "evaluate_train" in inspect.signature(chaos.train).parameters else "validate"


def metrics(history, workers=1, clocked=False):
    """{field: SHA-256} of the records. Of several real workers, who has taken how many images and met whom is chance."""
    chance = ("worker_images", "lock_failures") if workers > 1 and not clocked else ()

    def kept(record):
        if AGAIN == "validate":  # by the names of today
            record = {key.replace("validation_", "train_eval_"): value for key, value in record.items()}
        found = {key: value for key, value in record.items() if (clocked or key not in CLOCKED) and key not in chance}
        found["layers"] = {
            layer: {key: value for key, value in counts.items() if key != "pending_seconds" and key not in chance}
            for layer, counts in record.get("layers", {}).items()
        }
        return found

    records = [kept(record) for record in history]
    fields = sorted(set().union(*records)) if records else []
    return {"epochs": sha(len(records))} | {field: sha([record.get(field) for record in records]) for field in fields}


# ---- the things that are done ----


def options(text):
    """ "a=1 b=x" as a dict."""
    found = {}
    for key, _, value in (pair.partition("=") for pair in text.split()):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                found[key] = kind(value)
                break
        else:
            found[key] = {"yes": True, "no": False}.get(value, value)
    return found


def outputs(name, n, loss):
    """Outputs, and for a loss its value and gradients, of n images as floats and as bytes."""
    net = NETS[name]()
    x, y, _, _ = arrays(name)
    found = {}
    floats = x[:n].astype(np.float32) / np.float32(255) - np.float32(0.3)
    for kind, pixels in (("floats", floats), ("bytes", x[:n])):
        if loss is None:
            found |= {
                f"{kind} {what}": np.asarray(getattr(net, what)(pixels)) for what in ("forward", "predict", "predict_proba")
            }
        else:
            value, gradients = net.loss_and_gradients(pixels, y[:n], loss)
            found[kind] = {"loss": float(value), **{key: np.asarray(one) for key, one in gradients.items()}}
    return {"weights": state(net), "outputs": {key: sha(value) for key, value in found.items()}}


def train(name, workers, batch, *, epochs=EPOCHS, images=IMAGES, run_dir=None, resume=False, net=None, **settings):
    x, y, tx, ty = arrays(name, images)
    net = net or NETS[name]()
    lr = RATES.get(settings.get("update"), 0.02)
    run = chaos.train(
        net,
        chaos.data.Dataset(x, y),
        chaos.data.Dataset(tx, ty),
        workers=workers,
        batch_size=batch,
        epochs=epochs,
        progress=False,
        run_dir=run_dir,
        resume=resume,
        **{"lr": lr, "seed": 11, AGAIN: True} | settings,
    )
    return {"weights": state(net), "metrics": metrics(run.history, workers)}


def command(*words):
    """A command's output; RuntimeError where it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = chaos.cli.main([str(word) for word in words])
    if code:
        raise RuntimeError(f"chaos {words[0]}: exit code {code}: {err.getvalue().strip()[-300:]}")
    return out.getvalue()


def kept_run(folder, workers, clocked=False):
    """What a run directory holds."""
    history = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return {"weights": state(chaos.load(Path(folder) / "model.safetensors")), "metrics": metrics(history, workers, clocked)}


def by_command(place, name, workers, batch, strategy, update, strategy_options="", update_options="", *, epochs=EPOCHS):
    """The words of a command line."""
    words = [place.net(name), "--data", place.data(name), "--workers", workers, "--batch-size", batch, "--epochs", epochs]
    words += ["--strategy", strategy, "--update", update, "--lr", RATES.get(update, 0.02), "--seed", 11, "--quiet"]
    for flag, text in (("--strategy-option", strategy_options), ("--update-option", update_options)):
        words += itertools.chain.from_iterable((flag, pair) for pair in text.split())
    return words


def simulate(place, case, workers, *words):
    """A simulated run. The speed is 0.99 of a core's, as for 1 the command would measure this host."""
    folder = place.file(case, "")
    command("simulate", *words, "--run-dir", folder, "--speed", 0.99, "--jitter", 0.3)
    return kept_run(folder, workers, clocked=True)


def trace(place, case, workers, *words):
    folder = place.file(case, "")
    command("train", *words, "--run-dir", folder, "--trace", place.file(case, ".trace"))
    if workers > 1:  # the order is chance
        return {}
    return kept_run(folder, workers)


def replay(place, case, name, jobs, own):
    saved = own.file(f"{case} {jobs}", ".safetensors")
    text = command("replay", place.file(case, ".trace"), "--data", place.data(name), "--save", saved, "--jobs", jobs)
    told = [line for line in text.splitlines() if not line.startswith(("elapsed", "file"))]
    return {"weights": state(chaos.load(saved)), "metrics": {"told": sha(told)}}


def begin(place, case, name, workers, batch, **settings):
    return train(name, workers, batch, epochs=1, run_dir=place.file(case, ""), **settings)


def _copied(place, case, own):
    there = own.file(f"resumed {case}", "")
    shutil.copytree(place.file(case, ""), there)
    return there


def resume(place, case, own, name, workers, batch, **settings):
    return train(name, workers, batch, run_dir=_copied(place, case, own), resume=True, **settings)


def resume_by_command(place, case, own, what, workers):
    there = _copied(place, case, own)
    command(what, "--resume", "--run-dir", there, "--epochs", EPOCHS + 1, "--quiet")
    return kept_run(there, workers, clocked=what == "simulate")


STOPPED = {"images": 300, "epochs": 4}


def stop(place, case, name, workers, batch, **settings):
    """Begins a run and stops it in the middle of an epoch. Where, is chance; the weights in the end must not show it."""
    folder = place.file(case, "")
    for milliseconds in (8, 15, 5, 25, 3, 40, 60, 100, 200, 400):
        shutil.rmtree(folder, ignore_errors=True)
        timer = threading.Timer(milliseconds / 1000, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            train(name, workers, batch, run_dir=folder, **STOPPED, **settings)
            timer.join()
        except KeyboardInterrupt:
            if not (folder / "model.safetensors").exists():
                continue
            if sha(state(chaos.load(folder / "model.safetensors"))) != sha(state(NETS[name]())):
                break
    else:
        raise RuntimeError("the run was over, or not begun, whenever it was stopped")
    return {}


# ---- the list ----


def cases(place, own, lists, quick):
    """(stage, name of the case, what it belongs to, call) of every case, in the same order everywhere; `lists` are the
    names that both installations know."""
    trained = QUICK if quick else TRAINED
    updates = ("sgd", "adam") if quick else lists["updates"]
    batches = (8,) if quick else (1, 8)

    for name, n, loss in itertools.product(trained if quick else NETS, (1, 8), (None, *lists["losses"])):
        yield "begin", f"outputs/{name}/{n} images/{loss}", {"kind": "outputs"}, (outputs, name, n, loss), {}

    for strategy, update, name, batch in itertools.product(lists["strategies"], updates, trained, batches):
        for workers in (1, 3) if strategy in DETERMINISTIC else (1,):
            yield _train(name, workers, batch, strategy, update)
    for strategy, name in itertools.product(lists["strategies"], () if quick else ("medium", "large")):
        yield _train(name, 1, 8 if name == "large" else 1, strategy, "sgd", images=20)

    turns, seen = itertools.cycle(itertools.product(trained, (1, 8))), set()
    for _ in range(1 if quick else 6):
        for strategy, update in itertools.product(lists["strategies"], updates):
            name, batch = next(turns)
            case = _simulate(place, name, batch, strategy, update)
            if case[1] not in seen:
                seen.add(case[1])
                yield case

    for strategy, text in STRATEGY_OPTIONS[:: 5 if quick else 1]:
        for workers in (1, 3) if strategy in DETERMINISTIC else (1,):
            yield _train(
                "graph", workers, 8, strategy, "momentum" if "instant" not in text else "sgd", strategy_options=text
            )
        if not text.startswith(UNSIMULATED):
            yield _simulate(place, "graph", 1, strategy, "sgd", text, workers=5)
    for update, text in UPDATE_OPTIONS[:: 5 if quick else 1]:
        for strategy in ("sequential", "chaos", "synchronous"):
            yield _train("varied", 1, 8, strategy, update, update_options=text)
        yield _train("varied", 3, 8, "delayed", update, update_options=text)
        if "max_norm" not in text:
            yield _simulate(place, "varied", 1, "chaos", update, "", text, workers=5)
    for schedule, text in SCHEDULE_OPTIONS[:: 3 if quick else 1]:
        yield _train("graph", 1, 1, "chaos", "sgd", lr_schedule=schedule, schedule_options=text, epochs=4)
    for loss in lists["losses"]:
        yield _train("graph", 1, 8, "chaos", "adam", loss=loss, lr=1e-3)
    yield _train("small", 1, 1, "sequential", "sgd", shuffle=False, **{AGAIN: False})

    yield from _traces(place, own, quick, trained, updates)
    yield from _runs(place, own, lists, quick, updates)


def _train(name, workers, batch, strategy, update, **settings):
    shown = " ".join(f"{key}={value}" for key, value in settings.items())
    case = f"train/{strategy}/{update}/{name}/{workers} workers/batch {batch}" + (f"/{shown}" if shown else "")
    about = {"kind": f"train, {workers} worker{'s' * (workers > 1)}", "strategy": strategy, "update": update}
    for key in ("strategy_options", "update_options", "schedule_options"):
        if key in settings:
            settings[key] = options(settings[key])
    return "begin", case, about, (train, name, workers, batch), dict(strategy=strategy, update=update, **settings)


def _simulate(place, name, batch, strategy, update, strategy_options="", update_options="", workers=3):
    workers = 1 if strategy == "sequential" else workers
    shown = f"{strategy_options} {update_options}".strip()
    case = f"simulate/{strategy}/{update}/{name}/{workers} workers/batch {batch}" + (f"/{shown}" if shown else "")
    words = (by_command, place, name, workers, batch, strategy, update, strategy_options, update_options)
    about = {"kind": "simulate", "strategy": strategy, "update": update}
    return "begin", case, about, (simulate, place, case, workers, words), {}


def _traces(place, own, quick, trained, updates):
    turns = itertools.cycle(updates)
    for (strategy, counts), name, batch in itertools.product(TRACEABLE.items(), trained, (8,) if quick else (1, 8)):
        for workers, text in itertools.product(counts, ("", "read=publication") if strategy == "chaos" else ("",)):
            update = next(turns)
            about = {"strategy": strategy, "update": update}
            case = f"trace/{strategy}/{update}/{name}/{workers} workers/batch {batch}/{text}"
            words = (by_command, place, name, workers, batch, strategy, update, text)
            yield "begin", case, {"kind": "trace", **about}, (trace, place, case, workers, words), {}
            for jobs in (1,) if quick else (1, 2):
                told = f"replay of {case}/{jobs} jobs"
                yield "continue", told, {"kind": "replay", **about}, (replay, place, case, name, jobs, own), {}


def _runs(place, own, lists, quick, updates):
    turns = itertools.cycle((("small", 1), ("graph", 8)) if quick else itertools.product(TRAINED, (1, 8)))
    for strategy, update in itertools.product(lists["strategies"], updates):
        name, batch = next(turns)
        for workers in (1, 3) if strategy in DETERMINISTIC else (1,):
            case = f"run/{strategy}/{update}/{name}/{workers} workers/batch {batch}"
            about, settings = {"strategy": strategy, "update": update}, dict(strategy=strategy, update=update)
            yield "begin", case, {"kind": "begin", **about}, (begin, place, case, name, workers, batch), settings
            yield (
                "continue",
                f"resumed {case}",
                {"kind": "resume", **about},
                (resume, place, case, own, name, workers, batch),
                settings,
            )
        if quick and update != "sgd":
            continue
        for what, workers in (("train", 1), ("simulate", 1 if strategy == "sequential" else 3)):
            case = f"{what} run/{strategy}/{update}/{name}/{workers} workers/batch {batch}"
            words = (by_command, place, name, workers, batch, strategy, update)
            call = (simulate, place, case, workers, words) if what == "simulate" else (run, place, case, workers, words)
            yield "begin", case, {"kind": "begin", **about}, call, {}
            call = (resume_by_command, place, case, own, what, workers)
            yield "continue", f"resumed {case}", {"kind": "resume", **about}, call, {}
    for strategy, update, workers, batch in (
        ("sequential", "sgd", 1, 1),
        ("chaos", "adam", 1, 1),
        ("chaos", "momentum", 1, 8),
        ("synchronous", "adam", 3, 8),
        ("hybrid", "sgd", 3, 8),
    )[:: 2 if quick else 1]:
        case = f"stopped/{strategy}/{update}/medium/{workers} workers/batch {batch}"
        about, settings = {"strategy": strategy, "update": update}, dict(strategy=strategy, update=update)
        yield "begin", case, {"kind": "begin", **about}, (stop, place, case, "medium", workers, batch), settings
        call = (resume, place, case, own, "medium", workers, batch)
        yield "continue", f"resumed {case}", {"kind": "resume", **about}, call, settings | STOPPED


def run(place, case, workers, *words):
    folder = place.file(case, "")
    command("train", *words, "--run-dir", folder)
    return kept_run(folder, workers)


# ---- running them ----


def perform(call, settings):
    """What a case gives, as digests; or the kind of error that it ends with."""
    function, *arguments = call
    if arguments and isinstance(arguments[-1], tuple):  # the words of a command, made when they are needed
        make, *rest = arguments.pop()
        arguments += make(*rest)
    try:
        found = function(*arguments, **settings)
    except Exception as error:
        return {"error": type(error).__name__, "told": str(error)}
    return found


def describe():
    facts = chaos.info()
    root = Path(inspect.getfile(chaos)).resolve().parent.parent
    commit = None
    if (root / ".git").exists():
        done = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True)
        commit = done.stdout.strip() or None
    return {
        "chaos": facts["chaos"],
        "commit": commit,
        "isa": facts["isa_supported"],
        "cpu": facts["topology"]["cpu"],
        "build": facts["build"],
        "numpy": np.__version__,
        "lists": {
            "strategies": list(STRATEGIES),
            "updates": list(UPDATES),
            "losses": [name for name, loss in LOSSES.items() if "class" in getattr(loss, "targets", ["class"])],
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("describe", "begin", "continue"))
    parser.add_argument("folder", nargs="?", help="where the runs, traces and networks were, or are, begun")
    parser.add_argument("own", nargs="?", help="where this installation may write")
    parser.add_argument("slice", type=int, nargs="?", default=0)
    parser.add_argument("of", type=int, nargs="?", default=1)
    parser.add_argument("--lists", type=json.loads, help="names of strategies, updates and losses, as JSON")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--perturb", metavar="CASE", help="change one bit of a weight in this case")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.stage == "describe":
        print(json.dumps(describe()))
        return
    place, own = Place(args.folder), Place(args.own)
    if chaos.info()["isa"] != os.environ.get("CHAOS_ISA", chaos.info()["isa"]):
        sys.exit("CHAOS_ISA is not in force")
    here = [case for case in cases(place, own, args.lists, args.quick) if case[0] == args.stage]
    for number, (_, name, about, call, settings) in enumerate(here):
        if number % args.of != args.slice:
            continue
        found = perform(call, settings)
        if name == args.perturb:
            weight = next(value for value in found["weights"].values())
            weight.view(np.uint32).reshape(-1)[:1] ^= 1
        if "weights" in found:
            found["weights"] = sha(found["weights"])
        print(json.dumps({"case": name, "about": about, **found}), flush=True)


if __name__ == "__main__":
    main()
