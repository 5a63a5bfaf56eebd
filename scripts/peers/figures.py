"""What the turns come to: medians, extremes, ratios taken round by round. For table, plot and the run."""

from __future__ import annotations

import statistics


def label(system, threads, batch):
    """What a row is called."""
    unit = {"chaos": "worker", "PyTorch Hogwild": "process", "JAX": None}.get(system, "thread")
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


def _sides(rows):
    return find(rows, system="chaos"), [row for row in rows if row["system"] != "chaos"]


def ratios(rows):
    """The comparisons that matter, for summarised rows of training one network.

    Returns
    -------
    list of dict
        name, fast, slow (labels) and times (see `speedup`); only those whose rows exist. The last ones are at equal batch
        sizes, each side's fastest number of threads.
    """
    ours, theirs = _sides(rows)
    pairs = []
    ones = find(rows, system="chaos", threads=1, batch=1) + find(rows, system="PyTorch", threads=1, batch=1)
    if len(ones) == 2:
        pairs.append(("chaos 1 worker over PyTorch 1 thread batch 1", *ones))
    if ours and theirs:
        pairs.append(("chaos over the best peer, each in its best setting", best(ours), best(theirs)))
    for batch in sorted({row["batch"] for row in ours} & {row["batch"] for row in theirs}):
        pairs.append((f"both at batch {batch}", best(find(ours, batch=batch)), best(find(theirs, batch=batch))))
    return [_ratio(*pair) for pair in pairs]


def prediction_ratios(rows):
    """As `ratios`, for rows of predicting: chaos over the best peer with as many threads and images."""
    ours, theirs = _sides(rows)
    return [
        _ratio(
            f"{row['batch']} images together, {row['threads']} thread{'s' * (row['threads'] > 1)}",
            row,
            best(find(theirs, threads=row["threads"], batch=row["batch"])),
        )
        for row in ours
        if find(theirs, threads=row["threads"], batch=row["batch"])
    ]


def _ratio(name, fast, slow):
    return {"name": name, "fast": label_of(fast), "slow": label_of(slow), "times": speedup(fast, slow)}
