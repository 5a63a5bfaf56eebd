"""The figures as a bar chart; needs matplotlib. For the run."""

from __future__ import annotations

from .figures import label_of
from .sides import COPYING
from .table import number


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
