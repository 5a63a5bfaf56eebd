"""Time of every layer and pass on one core. Imported by chaos.bench."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial
from typing import TypedDict

import numpy as np

from .. import _core
from ..errors import ChaosError
from ..layers.base import Node
from ..network import Network
from ..training.records import Record
from ._common import (
    PEAK_SECONDS,
    RATE,
    build,
    check,
    fill,
    instruction_set,
    machine,
    need_model,
    need_numbers,
    order_of,
    pass_seconds,
    peak_gflops,
    run,
    take_images,
)

PASSES = ("forward", "weight_gradient", "data_gradient", "update")
LONGEST = 10.0  # seconds of one measurement, which Ctrl-C does not interrupt
PHASE = 4  # a phase is measured for so many times the length of a pass
TRAINED_IMAGES = 500
TRAINED_RATE = 0.01


def kernels(
    model: str | Network, isa: str | None = None, batch_size: int = 1, seconds: float = 0.05, repeats: int = 5
) -> Record:
    """Time and rate of every layer and pass on one core, of whole training and of evaluation.

    Parameters
    ----------
    model : str or Network
        A name in chaos.models.MODELS, which is trained on 500 images first so that values and sparsity are typical; or
        a network, which is measured with the weights that it has, and stays as it is.
    isa : str, optional
        Instruction set; the one in force by default.
    batch_size : int
        Images per update; at most 8 of them pass through the layers together.
    seconds : float
        Length of one measurement of one pass, about, at most 10.
    repeats : int
        Numbers of the result are medians over so many, taken in turns over all layers and passes; each on other
        images.

    Returns
    -------
    dict
        model, isa, batch_size, images_together, data, trained_images, seconds, repeats.

        layers: one dict per layer in the order in which the core computes (an activation comes after the max-pooling
        that alone reads it): name, layer, kind, input_shapes, output_shape, parameters, forward, weight_gradient,
        data_gradient, update. Each pass is None where training does not run it, else a dict: us_per_image, us_per_image_min,
        us_per_image_max; share of the sum of all passes; flops (2 x multiply-adds, dense, 0 where a pass has none),
        gflops and fraction_of_peak (None without flops);
        loop, the one chosen for this geometry (None: there is one). Gradient loops visit non-zero entries only, so the
        dense count may exceed the peak. The data gradient is what backward takes beyond the weight gradient alone.

        totals: us_per_image of each pass and of all ("sum"). training: us_per_image, _min, _max, gflops,
        fraction_of_peak of a training phase with one worker, and us_per_image_elsewhere, what it takes beyond the
        sum: loading images, loss, locks, weights and values that are not in the nearest cache; below 0 where noise is
        larger. evaluation: list of dicts, forward only: images_together, us_per_image, _min, _max,
        images_per_second, gflops, fraction_of_peak.

        peak_gflops, peak_gflops_min, peak_gflops_max (of one core, measured between the layers); check (what was
        verified beforehand); machine.

    Raises
    ------
    ValueError
        Unknown names, impossible numbers.
    ChaosError
        The result is wrong, so its speed does not matter.
    """
    name = need_model(model)
    need_numbers(seconds, repeats, batch_size, longest=LONGEST)
    record = machine()
    with instruction_set(isa) as isa:
        bench = _Kernels(name, build(model), isa, batch_size, trains=isinstance(model, str))
        bench.prepare(seconds)
        for turn in range(repeats):
            bench.measure(turn)
        return {**bench.result(), "seconds": seconds, "repeats": repeats, "machine": record}


_Key = tuple[int, str] | str | int  # (node, pass), "train", number of images evaluated together


class _Figures(TypedDict):
    us_per_image: float
    us_per_image_min: float
    us_per_image_max: float
    flops: int
    gflops: float | None
    fraction_of_peak: float | None


class _Kernels:
    """One network under measurement."""

    def __init__(self, name: str, net: Network, isa: str, batch_size: int, trains: bool) -> None:
        self.name, self.net, self.isa, self.batch_size = name, net, isa, batch_size
        self.what = f"{name} ({isa})"
        self.together = min(batch_size, net.plan.together)
        self.data, self.images, self.labels = take_images(net)
        self.trained = self.train_beforehand() if trains else 0
        self.checked = check(net, self.what, self.images, self.labels, batch_size)
        self.engine = _core.Engine(net.plan, net.weights, strategy="chaos", batch_size=batch_size)
        self.single = _core.Engine(net.plan, net.weights, strategy="chaos", batch_size=batch_size)
        self.bench = _core.Bench(self.single, times=True)
        self.forward = {n: _core.Engine(net.plan, net.weights, batch_size=n) for n in (1, net.plan.together)}
        self.layers = self.describe()
        self.rounds: dict[tuple[int, str], int] = {}
        self.counts: dict[str | int, int] = {}
        self.us: dict[_Key, list[float]] = {}  # microseconds per image
        self.peak: list[float] = []

    def train_beforehand(self) -> int:
        engine = _core.Engine(self.net.plan, self.net.weights)
        result = engine.run(
            "train",
            inputs=[self.images.reshape(-1)],
            labels=self.labels,
            order=order_of(len(self.labels), TRAINED_IMAGES),
            lr=TRAINED_RATE,
        )
        if result["status"] != "done":
            raise ChaosError(f"{self.what}: the training beforehand is {result['status']}; no time was taken")
        images: int = result["images"]
        return images

    def describe(self) -> dict[int, Record]:
        """{node: what is known of its layer without measuring}."""
        learns: dict[Node, bool] = {}
        found: dict[int, Record] = {}
        order = self.net.nodes()
        for i, ((node, _), (name, layer, shapes)) in enumerate(zip(order[1:], self.net.core_layers(), strict=True), 1):
            before = any(learns.get(source) for source in node.inputs)
            learns[node] = before or bool(layer.part_names)
            flops = 2 * layer.macs(*shapes)
            found[i] = {
                "name": name,
                "layer": repr(layer),
                "kind": layer.kind,
                "input_shapes": [list(shape) for shape in shapes],
                "output_shape": list(layer.output_shape(*shapes)),
                "parameters": sum(math.prod(part.shape) for part in layer.parts(*shapes).values()),
                "flops": {"forward": flops, "weight_gradient": flops, "data_gradient": flops, "update": 0},
                "sends": before,
            }
        return found

    def present(self, turn: int) -> None:
        """Leaves other images in the buffers of the engine for single layers."""
        at = turn * self.together + np.arange(self.together)
        order = order_of(len(self.labels), len(self.labels)).take(at, mode="wrap")
        run(
            self.single,
            self.what,
            "gradients",
            self.together,
            inputs=[self.images.reshape(-1)],
            labels=self.labels,
            order=order,
        )

    def train(self, count: int) -> float:
        return run(
            self.engine,
            self.what,
            "train",
            count,
            inputs=[self.images.reshape(-1)],
            labels=self.labels,
            order=order_of(len(self.labels), count),
            lr=RATE,
        )[1]

    def evaluate(self, together: int, count: int) -> float:
        out = np.empty((count, int(np.prod(self.net.output_shape))), np.float32)
        return run(
            self.forward[together],
            self.what,
            "forward",
            count,
            inputs=[self.images.reshape(-1)],
            order=order_of(len(self.labels), count),
            out=out,
        )[1]

    def prepare(self, seconds: float) -> None:
        """Warms up, and finds out how many calls and images take so many seconds."""
        self.peak_seconds = min(seconds, PEAK_SECONDS)
        phases: list[str | int] = ["train", *self.forward]
        for key in phases:
            count, took = fill(seconds, partial(self._phase, key), max(64, self.batch_size))
            self.counts[key] = max(int(count * PHASE * seconds / took), self.batch_size)
        self.present(0)
        for i, layer in self.layers.items():
            for name in ("forward", "weight_gradient", "backward", "update"):
                if self.bench.time(i, name) is None or (name == "backward" and not layer["sends"]):
                    continue
                images = self.batch_size if name == "update" else self.together
                rounds, took = fill(seconds / 4, partial(self._pass, i, name, images), 1)
                self.rounds[i, name] = max(1, int(rounds * seconds / took))
            if (i, "weight_gradient") not in self.rounds:  # a rank-one gradient is formed by the update itself
                layer["flops"]["update"] = layer["flops"]["weight_gradient"]

    def _phase(self, key: str | int, count: int) -> float:
        return self.evaluate(key, count) if isinstance(key, int) else self.train(count)

    def _pass(self, node: int, name: str, images: int, rounds: int) -> float:
        return pass_seconds(self.bench, node, name, rounds) * rounds * images

    def measure(self, turn: int) -> None:
        """One repeat: peak, every layer and pass, phases."""
        self.present(turn)
        at = None
        taken: dict[_Key, float] = {}
        for (i, name), rounds in self.rounds.items():
            if i != at:
                at = i
                self.peak.append(peak_gflops(1, self.isa, self.peak_seconds))
            taken[i, name] = pass_seconds(self.bench, i, name, rounds) * 1e6
        for i in self.layers:
            if (i, "backward") in taken:
                taken[i, "data_gradient"] = max(0.0, taken.pop((i, "backward")) - taken.get((i, "weight_gradient"), 0.0))
        for key, count in self.counts.items():
            taken[key] = self._phase(key, count) / count * 1e6
        for what, us in taken.items():
            self.us.setdefault(what, []).append(us)

    def figures(self, us: Sequence[float], flops: int) -> _Figures:
        """Times of a list of measurements, and their rates."""
        median = statistics.median(us)
        gflops = flops / median * 1e-3 if flops and median else None
        return {
            "us_per_image": median,
            "us_per_image_min": min(us),
            "us_per_image_max": max(us),
            "flops": flops,
            "gflops": gflops,
            "fraction_of_peak": gflops and gflops / statistics.median(self.peak),
        }

    def result(self) -> Record:
        medians = {key: statistics.median(us) for key, us in self.us.items() if isinstance(key, tuple)}
        totals = {name: sum(us for (_, which), us in medians.items() if which == name) for name in PASSES}
        whole = totals["sum"] = sum(totals.values())
        layers = []
        for i, layer in self.layers.items():
            passes = {
                name: {
                    **self.figures(self.us[i, name], layer["flops"][name]),
                    "share": medians[i, name] / whole,
                    "loop": self.bench.loop(i, "backward" if name == "data_gradient" else name),
                }
                if (i, name) in self.us
                else None
                for name in PASSES
            }
            layers.append({key: value for key, value in layer.items() if key not in ("flops", "sends")} | passes)
        macs = self.net.macs()
        training = self.figures(self.us["train"], 2 * sum(macs.values()))
        evaluation = []
        for n in self.forward:
            found = self.figures(self.us[n], 2 * macs["forward"])
            evaluation.append({"images_together": n, **found, "images_per_second": 1e6 / found["us_per_image"]})
        return {
            "model": self.name,
            "isa": self.isa,
            "batch_size": self.batch_size,
            "images_together": self.together,
            "data": self.data,
            "trained_images": self.trained,
            "layers": layers,
            "totals": totals,
            "training": {**training, "us_per_image_elsewhere": training["us_per_image"] - whole},
            "evaluation": evaluation,
            "peak_gflops": statistics.median(self.peak),
            "peak_gflops_min": min(self.peak),
            "peak_gflops_max": max(self.peak),
            "check": {**self.checked, "images_counted": True},
        }
