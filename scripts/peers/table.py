"""The figures as text: a table, how far the roofline is, and whether the machine was free. For the run and plot."""

from __future__ import annotations

import math

from .figures import best, find, label_of, speedup


def number(value):
    """Three digits or more, no exponent: 7.31, 43.7, 542, 2,532."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def interval(s):
    return f"{number(s['median'])} [{number(s['min'])}..{number(s['max'])}]"


def table(rows):
    """Aligned lines for summarised rows of one network; times relative to the best chaos row."""
    reference = find(rows, system="chaos")
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


def overview(networks):
    """Markdown lines: a row for each network, its best settings of training and its predictions, losses included.

    Parameters
    ----------
    networks : dict
        {name: result} of scripts/bench_networks.py.
    """
    lines = [
        "| | training, chaos | best peer | chaos over peer | least at equal batch | predicting a batch, all cores "
        "| best peer | chaos over peer | one image, one core | best peer | chaos over peer |",
        "|---" * 11 + "|",
    ]
    for name, result in networks.items():
        cells = [name]
        if training := result.get("rows"):
            ours, theirs = best(find(training, system="chaos")), best([r for r in training if r["system"] != "chaos"])
            whole = next(r for r in result["ratios"] if r["name"].startswith("chaos over the best"))
            equal = [r for r in result["ratios"] if r["name"].startswith("both at")]
            least = min(equal, key=lambda r: r["times"]["median"], default=None)
            cells += [_setting(ours), _setting(theirs), f"**{whole['times']['median']:.2f}x**"]
            cells.append(f"{least['times']['median']:.2f}x ({least['name'].rpartition(' ')[2]})" if least else "")
        else:
            cells += [""] * 4
        for row in find(result.get("prediction", ()), system="chaos"):
            like = find(result["prediction"], threads=row["threads"], batch=row["batch"])
            theirs = best([r for r in like if r["system"] != "chaos"])
            times = speedup(row, theirs)["median"]
            cells += [
                number(row["us_per_image"]["median"]),
                f"{number(theirs['us_per_image']['median'])} ({theirs['system']})",
                f"**{times:.2f}x**",
            ]
        lines.append("| " + " | ".join(cells + [""] * (11 - len(cells))) + " |")
    return lines


def _setting(row):
    told = [f"{row['threads']} x {row['batch']}", *([row["variant"]] if row["variant"] else [])]
    return f"{number(row['us_per_image']['median'])} ({', '.join(told)})"


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
        if mine := find(rows, system="chaos", threads=n):
            line += f"; chaos reaches {limit / best(mine)['us_per_image']['median']:.0%} (dense count)"
        lines.append(line)
    return lines


def noise(rows, cores, idle_seconds, timed_seconds):
    """Lines on whether the machine was free enough for the figures to be trusted.

    Only sides that never wait are looked at: one thread, or workers of chaos that do not wait for each other.
    """
    turns = [
        t["cpu_seconds"] / t["seconds"] / min(row["threads"], cores)
        for row in rows
        if row["threads"] == 1 or (row["system"] == "chaos" and row["variant"] not in ("", "synchronous"))
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
