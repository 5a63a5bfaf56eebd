#!/usr/bin/env python
"""Makes a page of what scripts/train_zoo.py has measured.

scripts/zoo_page.py docs/zoo/*.json > docs/reference/proofs.md
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from train_zoo import recipes  # noqa: E402

HEAD = """# Networks that have learned

Made by `scripts/zoo_page.py` from the measurements in `docs/zoo/`, which `scripts/train_zoo.py` writes: what networks of the
[zoo](models.md) reach, beside what their papers led to expect. The result is that of the last epoch's weights. Seconds are
those of the training phases on a machine that others used, too; beside them those of the processor.

Settings were chosen on held-out parts of the training sets, a few short runs each, where `scripts/train_zoo.py` says so. The
test set of the spoken vowels has been looked at twice: an earlier recipe, with zeros behind short sequences, had 1.95 %.

Where asynchrony hurts: LeNet-5 at batch size 1 with 64 virtual workers (updates come 77 late) learns nothing at the learning
rate of one worker. At a tenth of it it does (18 % of held-out digits wrong after 20,000 images); `staleness_step=inverse`
instead did not mend it.
"""
COLUMNS = ("workers", "seed", "images", "epochs", "result", "seconds", "processor seconds", "staleness")


def share(unit: str, value: float) -> str:
    """A result for people."""
    return f"{100 * value:.2f} %" if unit == "test error" else f"{value:.3f}"


def overview(found: dict[str, Any]) -> list[str]:
    """A row for each recipe that has a target, and each kind of workers."""
    rows = []
    for name, recipe in recipes().items():
        if recipe.target is None:
            continue
        target = share(recipe.unit, recipe.target)
        if name not in found:
            rows.append((recipe.about, target, "not run", ""))
            continue
        one = found[name]
        for side, mean in one["mean"].items():
            count = sum(run["side"] == side and "result" in run for run in one["runs"])
            reached = share(one["unit"], mean) + (f", mean of {count} seeds" if count > 1 else "")
            met = "met" if mean <= one["target"] else "**missed**"
            rows.append((one["about"], share(one["unit"], one["target"]), f"{reached}, {side}", met))
        for side, why in {run["side"]: run["refused"] for run in one["runs"] if "refused" in run}.items():
            rows.append((one["about"], target, f"{side}: refused", why))
    return [f"| {' | '.join(row)} |" for row in rows]


def torch_line(one: dict[str, Any]) -> str:
    """An epoch beside PyTorch's."""
    made, version = one["machine"], one["torch"].partition("+")[0]
    where = f"{made['cpu']}, commit {str(made['commit'])[:12]}, {made['date'][:10]}"
    ours, theirs = one["chaos_epoch_seconds"], one["torch_epoch_seconds"]
    epochs = recipes()[one["recipe"]].settings["epochs"]
    return (
        f"An epoch of these settings takes chaos with 2 workers {ours:,.0f} s, and PyTorch {version} with 2 threads "
        f"({one['torch_layout']}, not compiled) {theirs:,.0f} s: medians of {one['rounds']} turns each with "
        f"{one['images_timed']:,} images, nothing else running ({where}). All {epochs} epochs "
        f"would take chaos {epochs * ours / 3600:.1f} hours."
    )


def details(name: str, one: dict[str, Any]) -> list[str]:
    """The runs of one recipe."""
    lines = [
        "",
        f"## {name}",
        "",
        f"{one['about'][0].upper()}{one['about'][1:]}: {one['unit']}. Expected: {one['expected']}.",
    ]
    lines += ["", "```text", one["command"], "```", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for run in one["runs"]:
        if "refused" in run:
            continue
        alone = ", ".join(share(one["unit"], each) for each in run.get("members", ()))
        cells = [
            run["side"],
            run["seed"],
            f"{run['images']:,}",
            run["settings"]["epochs"],
            share(one["unit"], run["result"]) + (f" (each alone: {alone})" if alone else ""),
            f"{run['seconds']:,.0f}",
            f"{run['cpu_seconds']:,.0f}",
            f"{run['staleness']:.2f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    made = one["machine"]
    return [*lines, "", f"{made['cpu']}, {made['cores']} cores, commit {str(made['commit'])[:12]}, {made['date'][:10]}."]


def small(one: dict[str, Any]) -> bool:
    """Whether these are runs of fewer epochs than the recipe's, by which kinds of workers are compared."""
    epochs = recipes()[one["recipe"]].settings["epochs"]
    return all(run["settings"]["epochs"] < epochs for run in one["runs"] if "settings" in run)


def page(found: dict[str, Any], beside: dict[str, Any], less: list[dict[str, Any]]) -> str:
    """The measurements and epochs beside PyTorch's, by the names of their recipes, and small budgets, as Markdown."""
    lines = [HEAD, "| | target | reached | |", "|---|---|---|---|", *overview(found)]
    for name, one in found.items():
        lines += details(name, one)
        if name in beside:
            lines += ["", torch_line(beside[name])]
    for name in beside.keys() - found.keys():
        lines += ["", f"## {name}", "", torch_line(beside[name])]
    for one in less:
        lines += details(f"{one['recipe']}, a small budget", one)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="that train_zoo.py --json has written")
    read = [json.loads(file.read_text()) for file in parser.parse_args().files]
    runs = {one["recipe"]: one for one in read if "runs" in one and not small(one)}
    less = [one for one in read if "runs" in one and small(one)]
    beside = {one["recipe"]: one for one in read if "torch" in one}
    print(page(runs, beside, less), end="")


if __name__ == "__main__":
    main()
