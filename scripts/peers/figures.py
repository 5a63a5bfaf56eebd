"""What the turns come to: medians, extremes, ratios taken round by round. For table, plot and the run."""

from __future__ import annotations

import statistics

from .sides import COPYING


def label(system, threads, batch):
    """What a row is called."""
    unit = {"chaos": "worker", COPYING: "worker", "PyTorch": "thread", "PyTorch Hogwild": "process", "JAX": None}[system]
    plural = "es" if unit == "process" else "s"
    return ", ".join([system, *([f"{threads} {unit}{plural if threads != 1 else ''}"] if unit else []), f"batch {batch}"])


def label_of(row):
    return label(row["system"], row["threads"], row["batch"])


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
