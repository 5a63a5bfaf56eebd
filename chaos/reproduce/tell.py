"""The report about a reproduction. For chaos.reproduce."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ..models import MODELS as ZOO
from ..perfmodel import paper_predictions
from ..report import Bars, Block, Cell, Heading, Line, Paragraph, Plot, Report, Table
from . import paper
from .beyond import Front, front_blocks
from .experiments import Experiment
from .store import Here, Kept

Found = Mapping[Experiment, Kept]


def make_report(found: Found, quick: bool = False, here: Here | None = None, fronts: Sequence[Front] = ()) -> Report:
    """The report about what has been finished.

    Parameters
    ----------
    found : dict
        As `run_all` returns it; experiments may be missing.
    quick : bool
        Whether these are the shortened experiments; it is said in the report.
    here : dict, optional
        As `measure_here` returns it; without it nothing is told of times of layers and of our own performance model.

    fronts : list of dict
        What scripts/front.py wrote, for a section about machines with more cores.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        A front lacks what is told.
    """
    by_model = {
        model: sorted((one for one in found if one.model == model), key=lambda one: (one.virtual, one.workers))
        for model in dict.fromkeys(one.model for one in found)
    }
    here = here or {}
    machine: Mapping[str, Any] = next((kept["machine"] for kept in found.values()), {})
    report = Report(
        "The CHAOS paper's experiments, run again",
        data={  # the epochs are kept with the results
            "quick": quick,
            "paper": {"machine": paper.MACHINE, "marks": paper.MARKS},
            "experiments": [{key: one for key, one in kept.items() if key != "history"} for kept in found.values()],
        },
    )
    report.add(
        Paragraph(
            f"Machine: {machine.get('cpu', 'unknown')}, {machine.get('cores', '?')} cores; chaos {_versions(found)}. "
            "Real workers run on its cores; virtual ones "
            "are simulated with real arithmetic in the order that a clock invents for the paper's machine, the "
            f"{paper.MACHINE}: one thread takes as long per image as the papers' model (b) says, its cores share their "
            "hardware threads as chaos's description of it says. Networks, epochs, learning rate 0.001 x 0.9 per epoch, "
            "batch size 1 and validation on the training images are the paper's; activation, initial values and pixel "
            "scaling are not known from it."
        )
    )
    if quick:
        report.add(
            Paragraph(
                "Shortened experiments (--quick): fewer epochs and images than the paper. Their errors are not "
                "the networks' errors, and whole run times do not compare with the paper's."
            )
        )
    report.add(Paragraph(f"Figures of the paper are marked. {paper.MARKS} Others are left out."))
    report.add(*_headline(found, machine, quick))
    for model, ones in by_model.items():
        report.add(
            Heading(
                f"{model}: {_parameters(model):,} parameters, {found[ones[0]]['experiment']['epochs']} epochs, "
                f"{found[ones[0]]['images']:,} images"
            )
        )
        report.add(*_times(model, ones, found, quick), *_errors(ones, found), *_staleness(ones, found))
        if model in here:
            report.add(*_layers(model, here[model]["layers"]))
        report.add(*_models(model, ones, found, here.get(model)))
    return report.add(*front_blocks(fronts))


def _versions(found: Found) -> str:
    """What the experiments were run with: one for all, if they are of one day."""
    return " and ".join(
        sorted(
            {
                f"{one.get('chaos', '?')} ({one.get('commit') or 'no commit'}, {one.get('date', '')[:10]})"
                for one in (kept["machine"] for kept in found.values())
            }
        )
    )


def _parameters(model: str) -> int:
    return ZOO[model]().n_parameters


def _label(one: Experiment) -> str:
    return f"{one.workers} {'virtual' if one.virtual else 'real'}"


def _headline(found: Found, machine: Mapping[str, Any], quick: bool) -> list[Block]:
    """The large experiment against the paper's 2.86 h."""
    large = [one for one in found if one.model == "large" and not one.virtual]
    if quick or not large:
        return []
    best = min(large, key=lambda one: found[one]["seconds"])
    ours, (theirs, mark) = found[best]["seconds"] / 3600, paper.LARGE_HOURS[244]
    return [
        Paragraph(
            f"Large, 15 epochs with the validation pass: {ours:.2f} h with {best.workers} "
            f"worker{'s' if best.workers != 1 else ''} on {machine.get('cpu', 'this machine')}, {theirs:g} h ({mark}) with "
            f"244 threads on the {paper.MACHINE}: {theirs / ours:.1f} times as fast."
        )
    ]


def _times(model: str, ones: Sequence[Experiment], found: Found, quick: bool) -> list[Block]:
    """Run times and speed-ups, and the plot."""
    real = [one for one in ones if not one.virtual]
    base = found[real[0]]["history"] if real and real[0].workers == 1 else None
    rows: list[list[Cell]] = []
    for one in ones:
        kept = found[one]
        training = sum(record["seconds"] for record in kept["history"])
        theirs = None if quick else paper.hours(model, one.workers)
        speedup = (
            kept["history"][-1]["virtual"]["speedup"]
            if one.virtual
            else sum(record["seconds"] for record in base) / training
            if base
            else None
        )
        published = paper.speedup(model, one.workers)
        rows.append(
            [
                _label(one),
                training,
                speedup,
                kept["seconds"],
                theirs and f"{theirs[0] * 3600:,.0f} = {theirs[0]:g} h ({theirs[1]})",
                published and f"{published[0]:g} ({published[1]})",
            ]
        )
    columns = ["workers", "training, s", "speed-up", "whole run here, s", "paper, whole run, s", "paper, speed-up"]
    blocks: list[Block] = [
        Table(
            columns,
            rows,
            "Training on real workers in wall-clock time, on virtual ones in the time of the virtual machine; "
            "speed-up over one worker of its kind. The whole run includes validation and test; for virtual workers "
            "it is the CPU time of the simulation",
        )
    ]
    virtuals = [one for one in ones if one.virtual]
    if len(virtuals) > 1:
        x = [one.workers for one in virtuals]
        series = [
            Line("virtual workers", x, [found[one]["history"][-1]["virtual"]["speedup"] for one in virtuals]),
            Line("ideal", x, x, dashed=True),
        ]
        alone = paper.LARGE_HOURS[1][0]
        points = [(threads, alone / hours) for threads, (hours, _) in paper.LARGE_HOURS.items() if threads > 1]
        if model == "large":
            series.append(Line("paper (derived from its M+ times)", [n for n, _ in points], [times for _, times in points]))
        else:
            series.append(Line("paper (R)", [244], [paper.SPEEDUP_244[model][0]]))
        blocks.append(Plot(f"{model}: speed-up over one worker", "workers", "times as fast", series))
    return blocks


def _errors(ones: Sequence[Experiment], found: Found) -> list[Block]:
    """Errors and misclassified images per number of workers, the difference to sequential, cumulative curves."""
    base = next((found[one] for one in ones if not one.virtual and one.workers == 1), None)
    rows: list[list[Cell]] = []
    for one in ones:
        kept = found[one]
        row: list[Cell] = [_label(one)]
        for part, images in (("train_eval", kept["images"]), ("test", kept["test_images"])):
            wrong = round(kept["history"][-1][f"{part}_error"] * images)
            less = None if base is None else wrong - round(base["history"][-1][f"{part}_error"] * images)
            row += [100 * wrong / images, wrong, None if less is None else f"{less:+d}"]
        rows.append([*row, _relative(kept, base, "train_eval"), _relative(kept, base, "test")])
    blocks: list[Block] = [
        Table(
            [
                "workers",
                "validation error, %",
                "images",
                "to sequential",
                "test error, %",
                "images",
                "to sequential",
                "cumulative validation loss",
                "cumulative test loss",
            ],
            rows,
            "Misclassified images after the last epoch; cumulative loss is summed over epochs, relative to "
            "sequential. Runs differ by chance, too: with one seed each, differences of some tenths of a percent "
            "mean nothing",
        )
    ]
    epochs = len(found[ones[0]]["history"])
    if epochs > 1 and any(found[one] is not base for one in ones):
        for part, name in (("train_eval", "validation"), ("test", "test")):
            blocks.append(
                Plot(
                    f"Cumulative {name} error" + (", beyond sequential" if base else ""),
                    "epoch",
                    "points of error, summed" if base else "sum of errors, %",
                    [
                        Line(
                            _label(one),
                            list(range(1, len(found[one]["history"]) + 1)),
                            _cumulative(found[one], base, f"{part}_error"),
                            dashed=one.virtual,
                        )
                        for one in ones
                        if found[one] is not base
                    ],
                    y_zero=base is None,
                )
            )
    return blocks


def _cumulative(kept: Kept, base: Kept | None, key: str) -> list[float]:
    """Sums of errors over the epochs, in percent; less sequential's where there are any: the curves coincide otherwise."""
    sums = [100 * x for x in itertools.accumulate(record[key] for record in kept["history"])]
    if base is None:
        return sums
    return [a - b for a, b in zip(sums, _cumulative(base, None, key), strict=True)]


def _relative(kept: Kept, base: Kept | None, part: str) -> float | None:
    if base is None:
        return None
    ours, theirs = (sum(record[f"{part}_loss"] for record in one["history"]) for one in (kept, base))
    relative: float = ours / theirs
    return relative


def _staleness(ones: Sequence[Experiment], found: Found) -> list[Block]:
    rows = [
        [
            _label(one),
            *(found[one]["history"][-1]["staleness"][key] for key in ("mean", "p50", "p99", "max")),
            found[one]["history"][-1]["lock_failures"] / found[one]["images"],
        ]
        for one in ones
    ]
    return [
        Table(
            ["workers", "mean", "median", "99 %", "most", "busy stripes per image"],
            rows,
            "Staleness in the last epoch: updates of the same weights by others between reading and updating them; "
            "511 for the median or 99 % means 511 or more",
        )
    ]


def _layers(model: str, times: Mapping[str, Any]) -> list[Block]:
    """Where the time of one worker on the machine that was measured goes."""
    names, passes = times["names"], ("forward", "backward", "publish")
    total = times["begin"] + sum(sum(times[what]) for what in passes)
    rows = [
        [name, *(100 * seconds / total for seconds in row)]
        for name, *row in zip(names, *(times[what] for what in passes), strict=True)
    ]
    rows.append(
        [
            "all, and beginning an image",
            100 * (sum(times["forward"]) + times["begin"]) / total,
            100 * sum(times["backward"]) / total,
            100 * sum(times["publish"]) / total,
        ]
    )
    return [
        Table(
            ["layer", "forward, %", "backward, %", "update, %"],
            rows,
            f"Shares of one worker's {total * 1e6:.1f} us per image here, each pass measured by itself; an update "
            "that is applied without writing its gradient down counts as update",
        ),
        Plot(
            f"{model}: time per layer",
            "layer",
            "us per image",
            [Bars(what, names, [1e6 * seconds for seconds in times[what]]) for what in passes],
        ),
    ]


def _models(model: str, ones: Sequence[Experiment], found: Found, here: Mapping[str, Any] | None) -> list[Block]:
    """Performance models against measurements: the paper's, ours for its machine, ours here, in the order of the page."""
    blocks: list[Block] = []
    threads = [n for n in paper.THREADS if n <= 240]
    predicted = paper_predictions(model, threads)
    rows = []
    for point in predicted["points"]:
        measured = paper.hours(model, point["threads"])
        a, b = (point[which]["total"] / 3600 for which in "ab")
        rows.append(
            [
                point["threads"],
                *(
                    f"{value:.3g} (D{'' if point[which]['sure'] == 'confirmed' else '?'})"
                    for which, value in zip("ab", (a, b), strict=True)
                ),
                measured and f"{measured[0]:g} ({measured[1]})",
                measured and 100 * (a / measured[0] - 1),
                measured and 100 * (b / measured[0] - 1),
            ]
        )
    blocks.append(
        Table(
            ["threads", "model (a), h", "model (b), h", "measured, h", "(a) off by, %", "(b) off by, %"],
            rows,
            f"The papers' models for the {paper.MACHINE} and what was measured there, whole experiment. D: "
            "derived, calculated here from the models' constants; D?: some of these are not confirmed",
        )
    )
    real = [one for one in ones if not one.virtual]
    if here and real:
        rows, predicted_here = [], dict(here["predicted"])
        for one in real:
            seconds = sum(record["seconds"] for record in found[one]["history"])
            us = seconds / one.epochs / found[one]["images"] * 1e6
            rows.append([one.workers, predicted_here[one.workers], us, 100 * (predicted_here[one.workers] / us - 1)])
        blocks.append(
            Table(
                ["real workers", "predicted, us per image", "measured in the experiment", "off by, %"],
                rows,
                "Our own model, calibrated on this machine, against the training phases above; several workers' "
                "weights travel between cores, predicted for cores as far apart as they were when this report "
                "was made, which a virtual machine may change in the course of an experiment",
            )
        )
    virtuals = [one for one in ones if one.virtual]
    if virtuals:
        rows = [
            [
                one.workers,
                found[one]["history"][-1]["seconds"] / found[one]["images"] * 1e6,
                next(
                    (
                        f"{p['contention_us_per_image']:.3g} (M+)"
                        for p in predicted["points"]
                        if p["threads"] == one.workers and p["a"]["sure"] == "confirmed"
                    ),
                    None,
                ),
                100 * found[one]["history"][-1]["time_split"]["wait"],
                100 * found[one]["history"][-1]["time_split"]["publish"],
            ]
            for one in virtuals
        ]
        blocks.append(
            Table(
                [
                    "virtual workers",
                    "us per image of all workers",
                    "papers' contention term, us per image",
                    "waiting, %",
                    "publishing, %",
                ],
                rows,
                "What sharing the weights costs with stripes that are passed over when busy, beside the "
                "papers' term, which no number of threads makes smaller",
            )
        )
    return blocks
