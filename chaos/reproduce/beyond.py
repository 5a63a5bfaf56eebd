"""What a report tells of machines with more cores than the paper's: speed against error, from scripts/front.py. For
chaos.reproduce."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Block, Cell, Dots, Heading, Line, Paragraph, Plot, Table

Front = Mapping[str, Any]


def front_blocks(fronts: Sequence[Front]) -> list[Block]:
    """The section about fronts, one part for each network, in the order given; nothing without any.

    Parameters
    ----------
    fronts : list of dict
        What scripts/front.py wrote.

    Returns
    -------
    list of blocks

    Raises
    ------
    ValueError
        One of them lacks what is told; the message names it.
    """
    if not fronts:
        return []
    try:
        workers = sorted({front["asked"]["workers"] for front in fronts})
        blocks: list[Block] = [
            Heading(f"Beyond the paper: {' and '.join(map(str, workers))} cores"),
            Paragraph(
                "How fast a strategy is on a machine with many cache domains, and what that costs in error: trainings with "
                "virtual workers, whose clock knows the machine, each beside sequential training with the same seeds. "
                "Speed-up is that of images per second over one worker of that machine; 'to error' that of the time until "
                "the error is at most sequential's last one and a margin. Predicted is the cost model of chaos estimate "
                "--plan, which needs no training; 'behind' are the images whose updates are not in the weights that an "
                "image reads."
            ),
        ]
        return blocks + list(itertools.chain.from_iterable(map(_network, fronts)))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"a front lacks {error}: scripts/front.py --json writes them") from None


def _network(front: Front) -> list[Block]:
    asked, rows = front["asked"], front["rows"]
    plan = {row["strategy"]: row for row in front.get("plan", [])}
    trained = [row for row in rows if "last_error" in row]
    base = trained[0]
    goal = base["last_error"] + asked["margin"]
    images = f"the first {asked['subset']:,} images" if asked["subset"] else "all images"
    blocks: list[Block] = [
        Heading(f"{asked['model']} on {asked['machine']}, {asked['workers']} workers", 3),
        Paragraph(
            f"{images} of {asked['data']}, {asked['epochs']} epochs, learning rate {asked['lr']:g} x 0.9 per epoch; the "
            f"margin is {100 * asked['margin']:g} points, so the error to reach is {100 * goal:.2f} %. "
            f"chaos {front['about'].get('chaos', '?')} ({front['about'].get('commit') or 'no commit'})."
        ),
        Table(
            ["strategy", "seeds", "speed-up", "predicted", "error, %", "least", "most", "to error", "behind"],
            [_row(row, plan.get(row["strategy"])) for row in sorted(rows, key=lambda row: -row.get("speedup", 0))],
            "Trained",
        ),
    ]
    most = max(row["speedup"] for row in trained)
    series: list[Line | Dots] = [
        Dots(name, [row["speedup"] for row in group], [100 * row["last_error"] for row in group])
        for name, group in _families(trained).items()
    ]
    series.append(Line("error to reach", [1, most], [100 * goal, 100 * goal], guide=True))
    blocks.append(Plot(f"{asked['model']}: error against speed-up", "speed-up", "test error, %", series, x_log=True))
    if untrained := _untrained(plan, rows):
        blocks.append(
            Table(
                ["strategy", "batch", "predicted speed-up", "behind", "computing, %", "transfer, %", "waiting, %"],
                untrained,
                "Predicted only: of each strategy the fastest, and whatever nothing is both faster and less far behind than",
            )
        )
    return blocks


def _row(row: Mapping[str, Any], predicted: Mapping[str, Any] | None) -> list[Cell]:
    expected: list[Cell] = [predicted["speedup"], predicted["images_behind"]] if predicted else [None, None]
    if "last_error" not in row:
        return [row["strategy"], None, None, expected[0], "diverged", None, None, None, expected[1]]
    last = [100 * errors[-1] for errors in row["errors"]]
    reached = row["speedup_to_error"]
    return [
        row["strategy"],
        len(last),
        row["speedup"],
        expected[0],
        100 * row["last_error"],
        min(last),
        max(last),
        "never" if reached is None else reached,
        expected[1],
    ]


def _name(text: str) -> str:
    """Of the strategy in NAME:OPTION=VALUE,...;SETTING=VALUE;..."""
    return re.split("[:;]", text)[0]


def _families(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(_name(row["strategy"]), []).append(row)
    return found


def _untrained(plan: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    trained = {row["strategy"] for row in rows}
    seen: set[str] = set()
    found: list[list[Cell]] = []
    for text, row in plan.items():  # the fastest first
        name = _name(text)
        first, shares = name not in seen, row["shares"]
        seen.add(name)
        if text in trained or not (first or row["best"]):
            continue
        parts = [100 * shares[part] for part in ("compute", "transfer", "waiting")]
        found.append([text, row["batch_size"], row["speedup"], row["images_behind"], *parts])
    return found
