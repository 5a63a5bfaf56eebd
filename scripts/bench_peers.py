"""Benchmark of chaos against PyTorch (and JAX, where installed) on this machine's CPU. For whoever wants to
check a claim about speed; needs `pip install torch`, imports chaos as installed, changes nothing. Its parts are in peers/.

    python scripts/bench_peers.py                               about five minutes on two cores
    python scripts/bench_peers.py --models small --quick        a minute; shows that all of it works
    python scripts/bench_peers.py --json peers.json --plot peers.png
"""

import sys
from pathlib import Path

<<<<<<< HEAD
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
EXPLANATION = """\
What is timed: forward, backward and update of every image, in microseconds of wall time per image, on the
three networks of the paper (tanh, softmax cross-entropy, plain SGD, float32). Not timed: reading, converting
and shuffling data, evaluation, start-up.

The same for all sides: initial weights (put back before each turn), images (float32 in memory, shuffled
once, walked through in one order), learning rate. Before anything is timed, loss, gradients and one SGD step
of all sides are compared; a side that computes something else ends the benchmark.

In favour of PyTorch: no DataLoader, no optimizer object (one fused update of all parameters), batches are
views, denormals are flushed, and each setting uses the faster of contiguous and channels_last memory
(--compile: or of torch.compile), found while warming up.

How: one process per side, started and warmed up first, asleep while another has its turn; turns go round,
A B C A B C ... A row shows the median of the rounds and [min..max]. "CPUs" is processor time by wall time: a
side with two threads that always work shows 2.00, less if it waits or if another program has the machine.
Ratios are taken within a round, then their median and [min..max]. A batch of 64 makes 64 times fewer updates
per epoch than per-image training does: time per image is not time to accuracy.
"""

IMAGES = 8192
TOLERANCE = 1e-4
NEAR_TIE = 1e-6
WARM_UP = 0.3


class Mismatch(Exception):
    """Two sides do not compute the same."""


class SideFailed(Exception):
    """A side's process failed; the message is its traceback."""


# ---- the same network elsewhere ----


def torch_twin(config, state):
    """The network as torch.nn.Sequential with the same indices, so that the keys of the state agree.

    Parameters
    ----------
    config : dict
        chaos.Network.config() of a chain of layers with default strides and no padding.
    state : dict of str to ndarray
        chaos.Network.state_dict().
    """
    import torch
    from torch import nn

    makers = {
        "conv2d": lambda layer, w: nn.Conv2d(w.shape[1], w.shape[0], layer["kernel_size"]),
        "linear": lambda layer, w: nn.Linear(w.shape[1], w.shape[0]),
        "max_pool2d": lambda layer, w: nn.MaxPool2d(layer["kernel_size"]),
        "flatten": lambda layer, w: nn.Flatten(),
        "tanh": lambda layer, w: nn.Tanh(),
    }
    net = nn.Sequential(*(makers[layer["kind"]](layer, state.get(f"{i}.weight")) for i, layer in _chain(config)))
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    return net


def jax_loss(config):
    """Mean cross-entropy of the network as a function of (state, images, labels) in JAX."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    def loss(state, x, y):
        for i, layer in _chain(config):
            weight, bias, k = state.get(f"{i}.weight"), state.get(f"{i}.bias"), layer.get("kernel_size")
            if layer["kind"] == "conv2d":
                x = lax.conv_general_dilated(x, weight, (1, 1), "VALID") + bias[:, None, None]
            elif layer["kind"] == "linear":
                x = x @ weight.T + bias
            elif layer["kind"] == "max_pool2d":
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, k, k), (1, 1, k, k), "VALID")
            elif layer["kind"] == "flatten":
                x = x.reshape(len(x), -1)
            else:
                x = jnp.tanh(x)
        return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1).mean()

    return loss


def _chain(config):
    """(index, layer) of a network that is a plain chain; ValueError for what the twins would get wrong."""
    known = {
        "conv2d": {"out_channels", "kernel_size"},
        "linear": {"out_features"},
        "max_pool2d": {"kernel_size"},
        "flatten": set(),
        "tanh": set(),
    }
    for i, layer in enumerate(config["layers"]):
        if layer["inputs"] != [i] or not set(layer) - {"kind", "inputs"} <= known.get(layer["kind"], set()):
            raise ValueError(f"the benchmark has no counterpart of layer {i}: {layer}")
        yield i, layer


# ---- correctness ----


def without_near_ties(twin, x, count):
    """Indices of the first `count` images for which no max-pooling is a near tie.

    Where two different entries of a window agree to the last digits, float32 rounding decides which is the
    larger; both choices are right, and the gradients differ visibly. Exact ties come from equal patches of
    the image and do no harm.

    Parameters
    ----------
    twin : torch.nn.Sequential
    x : ndarray of float32, (n, c, h, w)
    count : int
    """
    import copy

    import torch
    from torch import nn

    with torch.no_grad():
        value, clear = torch.from_numpy(x).double(), torch.ones(len(x), dtype=torch.bool)
        for layer in copy.deepcopy(twin).double():
            if isinstance(layer, nn.MaxPool2d):
                n, c, h, w = value.shape
                k = layer.kernel_size
                tiles = value[:, :, : h // k * k, : w // k * k].reshape(n, c, h // k, k, w // k, k)
                top = tiles.transpose(3, 4).reshape(n, -1, k * k).topk(2).values
                gap = top[..., 0] - top[..., 1]
                clear &= ~((gap > 1e-12) & (gap < NEAR_TIE)).any(1)
            value = layer(value)
    found = clear.nonzero().flatten().numpy()
    if len(found) < count:
        raise Mismatch(f"only {len(found)} of {len(x)} images have no near tie in max-pooling; {count} are needed")
    return found[:count]


def check(config, state, x, y, lr=0.01, count=64):
    """Compares chaos with PyTorch, and with JAX where installed: loss, gradients, one SGD step.

    Gradients must agree to 1e-4 of the largest entry of their tensor. An entry sums up to about 4e4 products
    (64 images, 26x26 positions) with relative rounding errors of 6e-8 each, which add up like a random walk
    to 1.2e-5; the layers above bring in a few times as much. Steps may differ by lr times that, plus the
    rounding of both sums, 2 * 2**-24 of the largest weight.

    Parameters
    ----------
    config, state : as for `torch_twin`
    x : ndarray of float32, (n, c, h, w)
        Several times `count` images, of which some may be unsuitable, see `without_near_ties`.
    y : ndarray of int64, (n,)
    lr : float
    count : int

    Returns
    -------
    dict
        Largest deviation of the loss, and of gradients and steps as fractions of what is tolerated.

    Raises
    ------
    Mismatch
        Naming what differs and by how much.
    """
    import torch

    import chaos

    twin = torch_twin(config, state)
    use = without_near_ties(twin, x, count)
    x, y = np.ascontiguousarray(x[use]), np.ascontiguousarray(y[use])
    report = {"images": count, "tolerance": TOLERANCE, "loss": 0.0, "gradient": 0.0, "step": 0.0}

    def compare(who, loss, gradients, reference_loss, reference):
        off = abs(loss - reference_loss) / abs(reference_loss)
        report["loss"] = max(report["loss"], off)
        if not off <= TOLERANCE:
            raise Mismatch(f"{who}: loss {loss:.8g}, PyTorch {reference_loss:.8g}")
        if list(gradients) != list(reference):
            raise Mismatch(f"{who}: parameters {list(gradients)}, PyTorch {list(reference)}")
        for key, expected in reference.items():
            largest = np.abs(expected).max()
            off = np.abs(gradients[key] - expected).max() / (TOLERANCE * largest)
            report["gradient"] = max(report["gradient"], float(off))
            if not off <= 1:
                raise Mismatch(
                    f"{who}: the gradient of {key} is off by {off * TOLERANCE:.1e} of its largest entry; "
                    f"tolerated is {TOLERANCE:g}"
                )

    def torch_gradients(images, labels):
        loss = torch.nn.functional.cross_entropy(twin(torch.from_numpy(images)), torch.from_numpy(labels))
        parameters = dict(twin.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()))
        return loss.item(), {k: g.numpy() for k, g in zip(parameters, found, strict=True)}

    net = chaos.Network.from_config(config)
    net.load_state_dict(state)
    loss, gradients = net.loss_and_gradients(x, y)
    expected_loss, expected = torch_gradients(x, y)
    compare("chaos", float(loss), gradients, expected_loss, expected)
    if _has("jax"):
        import jax

        loss, gradients = jax.value_and_grad(jax_loss(config))({k: jax.numpy.asarray(v) for k, v in state.items()}, x, y)
        compare("JAX", float(loss), {k: np.asarray(gradients[k]) for k in expected}, expected_loss, expected)

    # The step of the whole batch, and the very phase that is timed: one image, strategy chaos.
    for n, strategy in ((count, "sequential"), (1, "chaos")):
        net.load_state_dict(state)
        engine = chaos._core.Engine(net.plan, net.weights, workers=1, strategy=strategy, batch_size=n)
        engine.run("train", inputs=[x[:n].reshape(-1)], labels=y[:n], lr=lr)
        twin.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})
        parameters = list(twin.parameters())
        _, step = torch_gradients(x[:n], y[:n])
        _descend(parameters, [torch.from_numpy(g) for g in step.values()], lr)
        after = net.state_dict()
        for key, value in twin.state_dict().items():
            tolerated = lr * TOLERANCE * np.abs(step[key]).max() + 2**-23 * np.abs(state[key]).max()
            off = np.abs(after[key] - value.numpy()).max() / tolerated
            report["step"] = max(report["step"], float(off))
            if not off <= 1:
                raise Mismatch(
                    f"chaos: after one step on {n} images {key} differs from PyTorch's by {off:.1f} times what is tolerated"
                )
            if np.array_equal(after[key], state[key]):
                raise Mismatch(f"chaos: one step on {n} images left {key} as it was")
    return report


# ---- sides: what runs in the processes ----


class Side:
    """One setting of one system on one network. `advance` trains, the rest is common.

    Parameters
    ----------
    job : dict
        config and state of the network, lr, data (the folder with images.npy and labels.npy), compile.
    threads, batch : int
    """

    variant = None
    helpers_idle = 0.0  # processor seconds that helper processes used while waiting for the last turn

    def __init__(self, job, threads, batch):
        self.job, self.threads, self.batch = job, threads, batch
        self.x = np.load(Path(job["data"], "images.npy"))
        self.y = np.load(Path(job["data"], "labels.npy"))
        self.at, self.chunk = 0, batch
        self.set_up()
        self.warm_up()

    def set_up(self):
        raise TypeError(f"{type(self).__name__} lacks a method of Side")

    def reset(self):
        """Back to the initial weights: all turns do the same work, and none trains to vanishing gradients."""
        raise TypeError(f"{type(self).__name__} lacks a method of Side")

    def advance(self, images):
        """Trains on about so many images, whole batches; returns how many when all are done."""
        raise TypeError(f"{type(self).__name__} lacks a method of Side")

    def loss(self):
        """Mean loss over the first images, to see that something was learnt."""
        raise TypeError(f"{type(self).__name__} lacks a method of Side")

    def warm_up(self):
        """Runs for a while, and finds how many images to train on between two looks at the clock.

        As many as take 50 ms at best: chaos starts its workers anew after each look, which on a busy machine takes
        milliseconds, and that must not pass for training.
        """
        self.work(WARM_UP)
        while self.chunk < len(self.y):
            if min(self.work(0)[1] for _ in range(3)) >= 0.05:
                break
            self.chunk = min(2 * self.chunk, len(self.y))
        self.work(WARM_UP)

    def work(self, seconds):
        """(images, seconds, processor seconds) of training for at least so many seconds."""
        done, cpu, start = 0, time.process_time(), time.perf_counter()
        while True:
            done += self.advance(self.chunk)
            passed = time.perf_counter() - start
            if passed >= seconds:
                return done, passed, time.process_time() - cpu

    def turn(self, seconds):
        self.reset()
        return self.work(seconds)

    def batches(self, images):
        """Slices of whole batches, going round the images."""
        for _ in range(images // self.batch):
            yield slice(self.at, self.at + self.batch)
            self.at = (self.at + self.batch) % len(self.y)

    def close(self):
        pass


class ChaosSide(Side):
    """The engine itself, strategy chaos: the training phase and nothing else."""

    read = "demand"

    def set_up(self):
        import chaos

        how = chaos.sync.STRATEGIES["chaos"]
        self.net = chaos.Network.from_config(self.job["config"])
        self.reset()
        self.x = self.x.reshape(-1)
        self.engine = chaos._core.Engine(
            self.net.plan,
            self.net.weights,
            workers=self.threads,
            strategy="chaos",
            batch_size=self.batch,
            strategy_options=how.core_options(how.resolve({"read": self.read})),
        )

    def reset(self):
        self.net.load_state_dict(self.job["state"])

    def advance(self, images):
        end = min(self.at + images, len(self.y))
        result = self.engine.run("train", inputs=[self.x], labels=self.y, begin=self.at, end=end, lr=self.job["lr"])
        if result["status"] != "done" or result["images"] != end - self.at:
            raise RuntimeError(f"chaos: {result}")
        self.at = end % len(self.y)
        return result["images"]

    def loss(self):
        return self.engine.run("test", inputs=[self.x], labels=self.y, end=512)["loss"] / 512


class CopyingChaosSide(ChaosSide):
    """Strategy chaos with read=publication, which only several workers do."""

    read = "publication"


class TorchSide(Side):
    """Eager PyTorch, or torch.compile, whichever of the variants is fastest here."""

    net = None  # set where the tensors are shared: they are then neither replaced nor reset here

    def set_up(self):
        import torch
        from torch.nn.functional import cross_entropy

        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)
        self.torch, self.cross_entropy = torch, cross_entropy
        self.x, self.y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        self.initial = {k: torch.from_numpy(np.array(v)) for k, v in self.job["state"].items()}
        if self.net is not None:
            self.use("contiguous", self.net)
            return
        variants = ["contiguous", "channels_last"] + ["compiled"] * self.job["compile"]
        best = {}
        for name in variants:
            self.use(name)
            self.advance(self.batch)
            best[name] = min(seconds / done for done, seconds, _ in (self.work(WARM_UP), self.work(WARM_UP)))
        self.use(min(best, key=best.get))

    def use(self, variant, net=None):
        self.variant = variant
        self.net = net if net is not None else torch_twin(self.job["config"], self.job["state"])
        layout = self.torch.contiguous_format
        if variant == "channels_last":
            layout = self.torch.channels_last
            self.net.to(memory_format=layout)
        self.x = self.x.contiguous(memory_format=layout)
        self.parameters = list(self.net.parameters())
        self.call = self.torch.compile(self.net) if variant == "compiled" else self.net

    def reset(self):
        self.net.load_state_dict(self.initial)

    def advance(self, images):
        x, y, net, parameters, lr = self.x, self.y, self.call, self.parameters, self.job["lr"]
        for part in self.batches(images):
            loss = self.cross_entropy(net(x[part]), y[part])
            _descend(parameters, self.torch.autograd.grad(loss, parameters), lr)
        return images

    def loss(self):
        with self.torch.no_grad():
            return self.cross_entropy(self.net(self.x[:512]), self.y[:512]).item()


def _descend(parameters, gradients, lr):
    """Plain SGD on all parameters in one call; faster than torch.optim.SGD, its fused form included."""
    import torch

    with torch.no_grad():
        torch._foreach_add_(parameters, list(gradients), alpha=-lr)


class HogwildSide(TorchSide):
    """PyTorch's own Hogwild recipe: parameters in shared memory, a process per core, one thread each."""

    def set_up(self):
        import torch.multiprocessing as mp

        processes, self.threads = self.threads, 1
        self.helpers = []  # before anything can fail: close() looks at it
        self.net = torch_twin(self.job["config"], self.job["state"]).share_memory()
        super().set_up()
        context = mp.get_context("spawn")
        for i in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_hogwild_helper, args=(theirs, self.job, self.batch, self.net, i / processes))
            process.start()
            theirs.close()
            self.helpers.append((ours, process))

    def warm_up(self):
        for helper, _ in self.helpers:
            _receive(helper)

    def work(self, seconds):
        for helper, _ in self.helpers:
            helper.send(seconds)
        parts = [_receive(helper) for helper, _ in self.helpers]
        begin, end = min(p[1] for p in parts), max(p[2] for p in parts)
        self.helpers_idle = sum(p[4] for p in parts)
        return sum(p[0] for p in parts), end - begin, sum(p[3] for p in parts)

    def close(self):
        for helper, process in self.helpers:
            helper.close()
            process.join()


def _hogwild_helper(pipe, job, batch, net, offset):
    """A worker of HogwildSide: trains on the shared tensors when told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        side = type("HogwildWorker", (TorchSide,), {"net": net})(job, 1, batch)
        side.at = int(len(side.y) * offset) // batch * batch
        pipe.send(None)
        asleep_since = time.process_time()
        while True:
            seconds = pipe.recv()
            idle = time.process_time() - asleep_since
            begin = time.perf_counter()  # one clock for all processes
            done, passed, cpu = side.work(seconds)
            asleep_since = time.process_time()
            pipe.send((done, begin, begin + passed, cpu, idle))
    except EOFError:
        return
    except Exception:
        _report_failure(pipe)


class JaxSide(Side):
    """A jitted step that takes its batch out of the whole array itself; XLA decides on threads."""

    def set_up(self):
        import jax

        n, lr, loss = self.batch, self.job["lr"], jax_loss(self.job["config"])

        def step(state, x, y, at):
            part = jax.lax.dynamic_slice_in_dim(x, at, n), jax.lax.dynamic_slice_in_dim(y, at, n)
            return jax.tree.map(lambda w, g: w - lr * g, state, jax.grad(loss)(state, *part))

        self.jax, self.step, self.mean = jax, jax.jit(step, donate_argnums=0), jax.jit(loss)
        self.x, self.y = jax.numpy.asarray(self.x), jax.numpy.asarray(self.y.astype(np.int32))
        self.reset()

    def reset(self):
        self.state = {k: self.jax.numpy.array(v) for k, v in self.job["state"].items()}

    def advance(self, images):
        for part in self.batches(images):
            self.state = self.step(self.state, self.x, self.y, part.start)
        self.jax.block_until_ready(self.state)
        return images

    def loss(self):
        return float(self.mean(self.state, self.x[:512], self.y[:512]))


COPYING = "chaos read=publication"
SIDES = {"chaos": ChaosSide, COPYING: CopyingChaosSide, "PyTorch": TorchSide, "PyTorch Hogwild": HogwildSide, "JAX": JaxSide}


# ---- processes ----


def _serve(pipe, system, threads):
    """The life of a side's process: blocks on the pipe, does what it is told, answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipe
    sides, asleep_since = {}, None
    try:
        while True:
            command, *rest = pipe.recv()
            idle = 0.0 if asleep_since is None else time.process_time() - asleep_since
            if command == "prepare":
                for side in sides.values():
                    side.close()
                job, batches = rest
                sides = {}
                for batch in batches:
                    sides[batch] = SIDES[system](job, threads, batch)
                answer = {batch: side.variant for batch, side in sides.items()}
            elif command == "turn":
                batch, seconds = rest
                done, passed, cpu = sides[batch].turn(seconds)
                answer = {
                    "images": done,
                    "seconds": passed,
                    "cpu_seconds": cpu,
                    "idle_cpu_seconds": idle + sides[batch].helpers_idle,
                }
            else:
                answer = sides[rest[0]].loss()
            time.sleep(0.02)  # OpenMP's threads spin for a few milliseconds after their work: not into the next turn
            asleep_since = time.process_time()
            pipe.send(answer)
    except EOFError:
        pass
    except Exception:
        _report_failure(pipe)
    finally:
        for side in sides.values():
            side.close()


def _report_failure(pipe):
    with contextlib.suppress(OSError):
        pipe.send(SideFailed(traceback.format_exc()))


def _receive(pipe):
    try:
        answer = pipe.recv()
    except EOFError:
        raise SideFailed("a process of the benchmark ended unexpectedly") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class Process:
    """A side's process, seen from the parent.

    Parameters
    ----------
    system : str
        One of SIDES.
    threads : int
        Of the system; for Hogwild the number of processes, which have one thread each.
    """

    def __init__(self, system, threads):
        self.system, self.threads = system, threads
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        inner = 1 if system == "PyTorch Hogwild" else threads
        with _environment(OMP_NUM_THREADS=inner, MKL_NUM_THREADS=inner, OPENBLAS_NUM_THREADS=1, JAX_PLATFORMS="cpu"):
            self.process = context.Process(target=_serve, args=(theirs, system, threads))
            self.process.start()
        theirs.close()

    def ask(self, *command):
        self.pipe.send(command)
        return _receive(self.pipe)

    def close(self):
        self.pipe.close()
        self.process.join(60)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


@contextlib.contextmanager
def _environment(**values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ---- numbers ----


def label(system, threads, batch):
    """What a row is called."""
    unit = {"chaos": "worker", COPYING: "worker", "PyTorch": "thread", "PyTorch Hogwild": "process", "JAX": None}[system]
    plural = "es" if unit == "process" else "s"
    return ", ".join([system, *([f"{threads} {unit}{plural if threads != 1 else ''}"] if unit else []), f"batch {batch}"])


def spread(values):
    """{"median", "min", "max"} of numbers."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(row):
    """Adds to a row what its turns come to: us_per_image, images_per_second, cpus.

    Parameters
    ----------
    row : dict
        With "turns", a list of {"images", "seconds", "cpu_seconds", ...}, one per round.

    Returns
    -------
    dict
    """
    us = spread([1e6 * t["seconds"] / t["images"] for t in row["turns"]])
    return {
        **row,
        "us_per_image": us,
        "images_per_second": 1e6 / us["median"],
        "cpus": statistics.median(t["cpu_seconds"] / t["seconds"] for t in row["turns"]),
    }


def speedup(fast, slow):
    """How many times as fast the first row is as the second: spread of the ratios taken round by round."""

    def rates(row):
        return [t["images"] / t["seconds"] for t in row["turns"]]

    return spread([a / b for a, b in zip(rates(fast), rates(slow), strict=True)])


def best(rows):
    """The row with the smallest median time per image."""
    return min(rows, key=lambda row: row["us_per_image"]["median"])


def find(rows, **wanted):
    """The rows with these values of system, threads, batch."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def ratios(rows):
    """The comparisons that matter, for summarised rows of one network.

    Returns
    -------
    list of dict
        name, fast, slow (labels) and times (see `speedup`); only those whose rows exist.
    """
    chaos_rows = find(rows, system="chaos") + find(rows, system=COPYING)
    torch_rows = [row for row in rows if row["system"].startswith("PyTorch")]
    pairs = []
    ones = find(rows, system="chaos", threads=1) + find(rows, system="PyTorch", threads=1, batch=1)
    if len(ones) == 2:
        pairs.append(("chaos 1 worker over PyTorch 1 thread batch 1", *ones))
    if chaos_rows and torch_rows:
        most = best(find(chaos_rows, threads=max(row["threads"] for row in chaos_rows)))
        workers = f"chaos {most['threads']} worker{'s' * (most['threads'] > 1)}"
        pairs.append((f"{workers} over PyTorch's best setting at any batch size", most, best(torch_rows)))
    return [
        {"name": name, "fast": label_of(fast), "slow": label_of(slow), "times": speedup(fast, slow)}
        for name, fast, slow in pairs
    ]


def label_of(row):
    return label(row["system"], row["threads"], row["batch"])


def number(value):
    """Three digits or more, no exponent: 7.31, 43.7, 542, 2,532."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def interval(s):
    return f"{number(s['median'])} [{number(s['min'])}..{number(s['max'])}]"


def table(rows):
    """Aligned lines for summarised rows of one network; times relative to the best chaos row."""
    reference = find(rows, system="chaos") + find(rows, system=COPYING)
    unit = best(reference)["us_per_image"]["median"] if reference else math.nan
    cells = [("setting", "us/image median [min..max]", "images/s", "x chaos best", "CPUs", "variant")]
    for row in rows:
        us, rate = row["us_per_image"], f"{row['images_per_second']:,.0f}"
        relative, cpus = f"{us['median'] / unit:.2f}", f"{row['cpus']:.2f}"
        cells.append((label_of(row), interval(us), rate, relative, cpus, row["variant"] or ""))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            c.ljust(w) if i in (0, 5) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def roofline(flops, peak_one, peak_all, cores, rows):
    """Lines saying how far chaos is from the limit that the measured FMA rate sets.

    Parameters
    ----------
    flops : int
        Per image, dense: work that pooling makes unnecessary counts as done.
    peak_one, peak_all : float
        GFLOP/s of one core, and of `cores` cores at the same time.
    cores : int
    rows : list of dict
    """
    lines = []
    for n, peak in {1: peak_one, cores: peak_all}.items():
        limit = flops / peak * 1e-3
        line = (
            f"roofline, {n} core{'s' * (n > 1)}: {flops / 1e6:,.3f} MFLOP / {peak:,.0f} GFLOP/s = {number(limit)} us/image"
        )
        for row in find(rows, system="chaos", threads=n) + find(rows, system=COPYING, threads=n):
            line += f"; {row['system']} reaches {limit / row['us_per_image']['median']:.0%} (dense count)"
        lines.append(line)
    return lines


def noise(results, cores, idle_seconds, timed_seconds):
    """Lines on whether the machine was free enough for the figures to be trusted.

    Only sides that never wait are looked at: one thread, or chaos, whose workers do not wait for each other.
    """
    turns = [
        t["cpu_seconds"] / t["seconds"] / min(row["threads"], cores)
        for result in results.values()
        for row in result["rows"]
        if row["system"] in ("chaos", COPYING) or (row["system"] == "PyTorch" and row["threads"] == 1)
        for t in row["turns"]
    ]
    starved = sum(share < 0.95 for share in turns)
    lines = [
        f"waiting sides used {idle_seconds / timed_seconds:.2%} of a core while others had their turn",
        f"{starved} of {len(turns)} turns of sides that never wait got less than 95 % of their processors",
    ]
    if starved > len(turns) / 10:
        lines.append("NOISY: other programs had part of the machine; do not quote these figures")
    return lines


# ---- surroundings ----


def _has(package):
    return importlib.util.find_spec(package) is not None


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model():
    """The processor's name, as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit():
    """{"commit", "dirty"} of the tree around this script; None where git cannot tell."""

    def git(*words):
        try:
            done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain")
    return {"commit": git("rev-parse", "--verify", "HEAD"), "dirty": None if changes is None else bool(changes)}


def peaks(core, cores, before=None):
    """Measured GFLOP/s of fused multiply-adds: {"one_core", "all", "cores"}, the larger of now and `before`.

    A peak is a maximum, so every round of the benchmark gives it another chance to be met undisturbed.
    """
    with ThreadPoolExecutor(cores) as pool:
        together = sum(pool.map(lambda _: core.fma_gflops(seconds=0.05), range(cores)))
    alone = core.fma_gflops(seconds=0.05)
    if before:
        alone, together = max(alone, before["one_core"]), max(together, before["all"])
    return {"one_core": alone, "all": together, "cores": cores}


def surroundings(args, chaos):
    """Everything about the run that is not a result."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "architecture": platform.machine(),
            "system": platform.system(),
            "load_average": list(os.getloadavg()),
        },
        "versions": {
            "python": platform.python_version(),
            "chaos": chaos.__version__,
            **{name: _version(name) for name in ("numpy", "torch", "jax")},
        },
        "isa": chaos._core.get_isa(),
        "build": chaos._core.BUILD_INFO,
        "chaos_is_from_this_tree": Path(chaos.__file__).resolve().parent.parent == ROOT,
        **commit(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("OMP_", "GOMP_", "KMP_", "MKL_", "XLA_")) or name == "CHAOS_ISA"
        },
        "fma_gflops": None,
        "settings": {
            "seconds": args.seconds,
            "rounds": args.rounds,
            "workers": args.workers,
            "batches": args.batches,
            "lr": args.lr,
            "data": args.data,
            "compile": args.compile,
        },
    }


# ---- the run ----


def competitors(args):
    """[(system, threads, batch sizes)], one process each, in the order of the turns."""
    sides = [("chaos", n, [1]) for n in args.workers]
    if max(args.workers) > 1:
        sides.append((COPYING, max(args.workers), [1]))
    sides += [("PyTorch", n, args.batches) for n in args.workers]
    if max(args.workers) > 1:
        sides.append(("PyTorch Hogwild", max(args.workers), [1]))
    if _has("jax"):
        sides.append(("JAX", max(args.workers), [1, 64]))
    return sides


def race(processes, job, sides, args, say, pause):
    """Prepares all sides for one network and lets them take turns; calls `pause` before each round.

    Returns
    -------
    list of dict
        Summarised rows, in the order of the turns.
    """
    rows = []
    for process, (system, threads, batches) in zip(processes, sides, strict=True):
        say(f"  warming up {system}, {threads}")
        variants = process.ask("prepare", job, batches)
        rows += [
            {
                "system": system,
                "threads": threads,
                "batch": batch,
                "variant": variants[batch],
                "turns": [],
                "process": process,
            }
            for batch in batches
        ]
    for i in range(args.rounds):
        say(f"  round {i + 1} of {args.rounds}")
        pause()
        for row in rows:
            row["turns"].append(row["process"].ask("turn", row["batch"], args.seconds))
    for row in rows:
        row["loss_after_last_turn"] = row.pop("process").ask("loss", row["batch"])
        if not math.isfinite(row["loss_after_last_turn"]):
            raise SideFailed(f"{label_of(row)}: the loss is not finite; the learning rate {args.lr:g} is too large")
    return [summarise(row) for row in rows]


def plot(document, path):
    """Bars of microseconds per image, a panel per network; whiskers from fastest to slowest turn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {"chaos": "#c0392b", COPYING: "#8e2c21", "PyTorch": "#2c6fa6", "PyTorch Hogwild": "#7fb2d9", "JAX": "#8a8a8a"}
    results = document["networks"]
    most = max(len(result["rows"]) for result in results.values())
    figure, axes = pyplot.subplots(
        1,
        len(results),
        figsize=(1.5 + 5.2 * len(results), 1.6 + 0.34 * most),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, (name, result) in zip(axes[0], results.items(), strict=True):
        rows = result["rows"]
        us = [row["us_per_image"] for row in rows]
        middle = [u["median"] for u in us]
        whiskers = [[u["median"] - u["min"] for u in us], [u["max"] - u["median"] for u in us]]
        axis.barh(
            range(len(rows)),
            middle,
            xerr=whiskers,
            color=[colours[row["system"]] for row in rows],
            ecolor="#333333",
            capsize=2,
        )
        axis.set_xscale("log")
        axis.set_xlim(min(middle) / 2.5, max(u["max"] for u in us) * 4)
        axis.set_yticks(range(len(rows)), [label_of(row) for row in rows])
        for i, u in enumerate(us):
            axis.annotate(number(u["median"]), (u["max"], i), (5, 0), textcoords="offset points", va="center", fontsize=9)
        axis.set_title(f"{name} ({result['parameters']:,} parameters)")
        axis.set_xlabel("us per image (log scale, less is better)")
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0][0].invert_yaxis()
    machine, versions = document["machine"], document["versions"]
    figure.suptitle(
        f"Training time per image: {machine['cpu']}, {machine['cores']} cores, {document['isa']}; "
        f"chaos {versions['chaos']}, PyTorch {versions['torch']}; {document['date'][:10]}",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def parse(words=None):
    parser = argparse.ArgumentParser(
        prog="bench_peers.py",
        description=__doc__.split("\n\n")[0],
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def counts(text):
        found = [int(part) for part in text.split(",")]
        if min(found) < 1 or len(set(found)) != len(found):
            raise ValueError
        return found

    counts.__name__ = "list of different positive numbers"
    models = ("small", "medium", "large")
    parser.add_argument("--models", default=",".join(models), metavar="LIST", help="networks; default %(default)s")
    parser.add_argument(
        "--workers",
        type=counts,
        default=None,
        metavar="LIST",
        help="chaos workers and PyTorch threads, the same for both; the largest is also the number of "
        "Hogwild processes; default: 1 and all cores that chaos would use",
    )
    parser.add_argument(
        "--batches",
        type=counts,
        default=[1, 8, 64, 256],
        metavar="LIST",
        help="PyTorch's batch sizes; default 1,8,64,256. chaos always trains per image",
    )
    parser.add_argument("--seconds", type=float, default=None, help="least length of a turn; default 1 (--quick: 0.1)")
    parser.add_argument("--rounds", type=int, default=None, help="turns of each side; default 5 (--quick: 2)")
    parser.add_argument("--quick", action="store_true", help="short turns: to see that it works, not for figures")
    parser.add_argument(
        "--data",
        default="mnist",
        help="mnist (default; looked for in CHAOS_DATA_DIR) or digits (embedded); the choice hardly matters for speed",
    )
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of all sides; default %(default)s")
    parser.add_argument(
        "--compile", action="store_true", help="let PyTorch try torch.compile, too; needs a C++ compiler and some minutes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn of every side, machine and versions")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a bar chart; needs matplotlib")
    args = parser.parse_args(words)
    args.models = args.models.split(",")
    if unknown := [name for name in args.models if name not in models]:
        parser.error(f"unknown network {unknown[0]!r}; known: {', '.join(models)}")
    args.seconds = (0.1 if args.quick else 1.0) if args.seconds is None else args.seconds
    args.rounds = (2 if args.quick else 5) if args.rounds is None else args.rounds
    if not 0 < args.seconds < math.inf or args.rounds < 1 or not 0 < args.lr < math.inf:
        parser.error("--seconds, --rounds and --lr must be positive")
    for path in (args.json, args.plot):
        if path and not path.resolve().parent.is_dir():
            parser.error(f"there is no folder for {path}")
    return args


def main(words=None):
    args = parse(words)
    if not _has("torch"):
        print("bench_peers.py needs PyTorch, which is not installed here: pip install torch", file=sys.stderr)
        return 2
    if args.plot and not _has("matplotlib"):
        print("--plot needs matplotlib, which is not installed here: pip install matplotlib", file=sys.stderr)
        return 2

    import chaos

    args.workers = args.workers or sorted({1, chaos.threads.resolve().workers})

    def say(text):
        print(text, file=sys.stderr, flush=True)

    def measure_peaks():
        document["fma_gflops"] = peaks(chaos._core, max(args.workers), document["fma_gflops"])

    document = surroundings(args, chaos)
    machine, versions = document["machine"], document["versions"]
    tree = "unknown" if document["commit"] is None else document["commit"][:12]
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {document['isa']}; load average "
        f"{' '.join(f'{x:.2f}' for x in machine['load_average'])}; {document['date']}"
    )
    print(
        "; ".join(f"{name} {version}" for name, version in versions.items() if version)
        + f"; commit {tree}{' with changes' if document['dirty'] else ''}"
        + ("" if document["chaos_is_from_this_tree"] else " (chaos itself is an installed one)")
    )

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
    sides = competitors(args)
    idle = 0.0
    document["networks"] = results = {}
    nets = {name: getattr(chaos.models, name)(seed=0) for name in args.models}
    jobs = {
        name: {"config": net.config(), "state": net.state_dict(), "lr": args.lr, "compile": args.compile}
        for name, net in nets.items()
    }

    # In a process of its own, so that no other system is ever loaded into this one.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for name, job in jobs.items():
            say(f"{name}: comparing loss, gradients and a step")
            try:
                checked = pool.submit(check, job["config"], job["state"], x[:1024], y[:1024], args.lr).result()
            except Mismatch as error:
                say(f"{name}: {error}; nothing was timed")
                return 1
            results[name] = {"check": checked}

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench_peers"))
        np.save(Path(folder, "images.npy"), x)
        np.save(Path(folder, "labels.npy"), y)
        processes = []
        for system, threads, _ in sides:
            processes.append(Process(system, threads))
            stack.callback(processes[-1].close)
        for name, net in nets.items():
            say(name)
            rows = race(processes, {**jobs[name], "data": folder}, sides, args, say, measure_peaks)
            fma = document["fma_gflops"]
            flops = 2 * sum(net.macs().values())
            results[name] |= {"parameters": net.n_parameters, "flops_per_image": flops, "rows": rows, "ratios": ratios(rows)}
            checked = results[name]["check"]
            print(
                f"\n{name}: {net.n_parameters:,} parameters. Before timing: losses agree to "
                f"{checked['loss']:.0e}, gradients to {checked['gradient'] * TOLERANCE:.0e} of the largest entry "
                f"(tolerated {TOLERANCE:g}), "
                "one step likewise"
            )
            print("\n".join(table(rows)))
            for ratio in results[name]["ratios"]:
                print(f"{ratio['name']}: {interval(ratio['times'])} times as fast  ({ratio['slow']})")
            print("\n".join(roofline(flops, fma["one_core"], fma["all"], fma["cores"], rows)), flush=True)
            idle += sum(t["idle_cpu_seconds"] for row in rows for t in row["turns"])

    timed = sum(t["seconds"] for result in results.values() for row in result["rows"] for t in row["turns"])
    document["noise"] = noise(results, machine["cores"], idle, timed)
    print("\n" + "\n".join(document["noise"]))
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    if args.plot:
        plot(document, args.plot)
    return 0
=======
sys.path.insert(0, str(Path(__file__).resolve().parent))
>>>>>>> main

from peers.pipe import SideFailed  # noqa: E402
from peers.run import main  # noqa: E402

if __name__ == "__main__":
    try:
        sys.exit(main())
    except SideFailed as error:
        sys.exit(f"bench_peers.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
