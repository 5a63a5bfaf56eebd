"""What `chaos.perfmodel.estimate` found, as blocks of a report; takes the dict, knows nothing of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .structure import Bars, Block, Heading, Line, Paragraph, Plot, Report, Table


def estimate_blocks(found: Mapping[str, Any]) -> list[Block]:
    """Tables and plots of one prediction, one list in the order of the page.

    Parameters
    ----------
    found : dict
        The result of `chaos.perfmodel.estimate`.

    Returns
    -------
    list of blocks
        Time per image with its terms, speed-up, error against measurement, what sharing the weights costs, notes.
    """
    points, cost, machine = found["points"], found["contention"], found["machine"]
    workers = [point["workers"] for point in points]
    terms = list(points[0]["terms"])
    notes: list[Block] = [Heading("To keep in mind", 3), *map(Paragraph, found["notes"])] if found["notes"] else []
    return [
        Paragraph(
            f"{found['model']}, batch size {found['batch_size']}, {found['images']:,} training and "
            f"{found['test_images']:,} test images per epoch; {machine['name']}, "
            f"{machine['peak_gflops']:,.0f} GFLOP/s."
        ),
        *(Paragraph(f"This machine: {there['words']}.") for there in found["distance"].values()),
        Table(
            ["workers", "us per image", *terms, "images/s", "speed-up", "efficiency, %", "evaluation, s", "epoch, s"],
            [
                [
                    point["workers"],
                    point["us_per_image"],
                    *point["terms"].values(),
                    point["images_per_second"],
                    point["speedup"],
                    100 * point["efficiency"],
                    point["evaluation_seconds"],
                    point["epoch_seconds"],
                ]
                for point in points
            ],
            "Predicted wall time of training, microseconds per image and its parts",
        ),
        Plot(
            "Time of a worker per image",
            "workers",
            "us per image x workers",
            [
                Bars(term, list(map(str, workers)), [point["terms"][term] * point["workers"] for point in points])
                for term in terms
            ],
        ),
        Plot(
            "Speed-up",
            "workers",
            "over one worker",
            [
                Line("predicted", workers, [point["speedup"] for point in points]),
                Line("ideal", workers, workers, dashed=True),
            ],
            x_log=True,
            y_log=True,
        ),
        Table(
            ["workers", "measured, us per image", "predicted", "error, %", "on"],
            [
                [error["workers"], error["measured_us"], error["predicted_us"], 100 * error["error"], error["date"]]
                for error in found["errors"]
            ],
            "Predictions for the machine that was calibrated, against measurement",
        ),
        Table(
            ["", "us per image", "s in all epochs"],
            [
                [
                    f"transfer and waiting with {cost['workers']} workers",
                    cost["us_per_image"],
                    cost["us_per_image"] * found["images"] * found["epochs"] * 1e-6,
                ],
                ["floor with all cores busy", cost["floor_us_per_image"], cost["floor_seconds"]],
                [
                    "the same if one lock guarded all weights",
                    cost["one_lock_floor_us_per_image"],
                    cost["one_lock_floor_seconds"],
                ],
                *(
                    []
                    if cost["paper_us_per_image"] is None
                    else [
                        [
                            f"the papers' model, Xeon Phi, {cost['paper_threads']} threads ({cost['paper_sure']})",
                            cost["paper_us_per_image"],
                            cost["paper_floor_seconds"],
                        ]
                    ]
                ),
            ],
            "What sharing the weights costs",
        ),
        *notes,
    ]


def estimate_report(found: dict[str, Any]) -> Report:
    """A report of one prediction."""
    return Report(f"Predicted training time of {found['model']}", data=found).add(*estimate_blocks(found))
