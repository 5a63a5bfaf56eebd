"""What a training gives back: its network, its records as a table, a picture or a line. For chaos.training; callers use
`chaos.Run`. pandas and matplotlib are imported where they are used."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import threads
from ..hints import RUN, meant
from ..network import Network
from .records import Record, numbers

PHASES = {"train": "training", "train_eval": "training, after the epoch", "validation": "validation", "test": "test"}
# Okabe and Ito 2008: told apart by the colour-blind; markers tell them apart in grey
COLOURS = {"train": "#0072B2", "train_eval": "#56B4E9", "validation": "#D55E00", "test": "#009E73"}
MARKERS = {"train": "o", "train_eval": "v", "validation": "s", "test": "^"}
MOST_ROWS = 12


@dataclasses.dataclass(repr=False)
class Run:
    """What `chaos.train` returns; also the attribute `run` of an exception that has ended it, and what Ctrl-C has left.

    Attributes
    ----------
    network : Network
        The network that was trained, in place.
    history : list of dict
        One dict per finished epoch, as in metrics.jsonl: among others epoch (from 1), lr, train_loss, test_loss and, where
        asked for, validation_loss and train_eval_loss (mean per image), train_error, test_error, validation_error and
        train_eval_error (fractions in 0..1), metrics as {phase}_{name},
        seconds and images_per_second (of the training phase), staleness (mean, p50, p99, max, histogram, whose last bin
        counts 511 and everything above, so that p50 and p99 of 511 are "at least 511"; mean and max are exact), layers,
        time_split (shares of the workers' time). train_* are of the images as they were trained on, during the epoch;
        test_* are None without a test set.
    workers : threads.Plan
        How many workers there were, and what limited them.
    run_dir : Path or None
    is_root : bool
        False on all but one of the processes of a job.
    stopped : bool
        A callback, of any rank, has ended the training.
    doubt : str or None
        Why the last epoch's numbers, though finite, are no training (a loss far above that of guessing, a huge weight), in
        words.
    best_epoch : int or None
        The number of the best epoch by what was monitored; None where nothing was.
    monitored : str or None
        The key of the records' number that tells the best epoch.
    best_weights : dict of str to ndarray, or None
        The parameters after that epoch, by name in PyTorch's shapes; `network.load_state_dict(run.best_weights)` takes them.
        None where nothing was monitored, or the run was continued without them.
    """

    network: Network
    history: list[Record]
    workers: threads.Plan
    run_dir: Path | None
    is_root: bool = True
    stopped: bool = False
    doubt: str | None = None
    best_epoch: int | None = None
    monitored: str | None = None
    best_weights: dict[str, NDArray[np.float32]] | None = None

    if not TYPE_CHECKING:  # who would take any name for one that there is

        def __getattr__(self, name):
            """A key of the records is answered with where it is."""
            last = (vars(self).get("history") or [{}])[-1]
            where = f"; it is run.history[-1][{name!r}]" if name in last else meant(name, vars(self), RUN)
            raise AttributeError(f"a chaos.Run has no attribute {name!r}{where}", name=name)

    def __repr__(self) -> str:
        """One line, such as ``<Run: 8 epochs, train_error 0.029, test_error 0.031; 2 workers; runs/first>``."""
        n = len(self.history)
        told = [f"{n} epoch{'s' if n != 1 else ''}" + ", stopped" * self.stopped]
        told[0] += "".join(f", {key} {self.history[-1][key]:.4g}" for key in self._shown() if n)
        if self.best_epoch:
            told.append(f"best epoch {self.best_epoch}")
        told.append(f"{self.workers.workers} worker{'s' if self.workers.workers != 1 else ''}")
        if self.run_dir is not None:
            told.append(str(self.run_dir))
        return f"<Run: {'; '.join(told)}>"

    def _shown(self) -> list[str]:
        """The keys of what a line tells: the error of each phase, its loss where there is none."""
        last = self.history[-1] if self.history else {}
        names = [(f"{name}_error", f"{name}_loss") for name in PHASES]
        return [error if _number(last.get(error)) else loss for error, loss in names if _number(last.get(loss))]

    def _repr_html_(self) -> str:
        """A table of the last epochs, for notebooks; the best one in bold."""
        rows = [numbers(record) for record in self.history[-MOST_ROWS:]]
        hidden = ("seconds", "strategy", "workers", "updates", "lock_failures", "dropped")
        keys = [
            key
            for key in dict.fromkeys(key for row in rows for key in row)
            if key not in hidden
            and not key.startswith(("staleness_", "time_split_", "cluster_", "virtual_"))
            and any(row.get(key) is not None for row in rows)
        ]
        lines = ["<table><thead><tr>", *(f"<th>{html.escape(key)}</th>" for key in keys), "</tr></thead><tbody>"]
        for row in rows:
            mark = "strong" if row["epoch"] == self.best_epoch else "span"
            cells = (_cell(row.get(key)) for key in keys)
            lines.append(f"<tr>{''.join(f'<td><{mark}>{cell}</{mark}></td>' for cell in cells)}</tr>")
        return f"<p>{html.escape(repr(self))}</p>" + ("".join([*lines, "</tbody></table>"]) if rows else "")

    def to_frame(self) -> Any:
        """The records as a pandas.DataFrame: a row for each epoch (the index, from 1), a column for each number.

        What is an object in a record has several columns (staleness_mean, time_split_forward); layers and lists, such as
        confusion matrices and histograms, are in `history` only.

        Raises
        ------
        ImportError
            Where pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError(
                "run.to_frame() needs pandas (pip install 'chaos-sgd[data]'); run.history is a list of dicts for others"
            ) from None
        rows = [numbers(record) for record in self.history]
        return pandas.DataFrame(rows, columns=None if rows else ["epoch"]).set_index("epoch")

    def plot(self, keys: str | Sequence[str] | None = None) -> Any:
        """Draws loss and error over the epochs with matplotlib, the best epoch as a dashed line.

        Parameters
        ----------
        keys : str or list of str, optional
            What is drawn instead, all in one picture: keys of the records, such as "validation_f1" or "lr".

        Returns
        -------
        ndarray of matplotlib.axes.Axes
            One for each picture; ``run.plot()[0].figure.savefig("run.svg")`` keeps them.

        Raises
        ------
        ImportError
            Where matplotlib is not installed.
        ValueError
            Where no record has such a key, or there is nothing to draw.
        """
        try:
            from matplotlib import pyplot
            from matplotlib.ticker import MaxNLocator
        except ImportError:
            raise ImportError("run.plot() needs matplotlib (pip install 'chaos-sgd[plot]')") from None
        rows = [numbers(record) for record in self.history]
        known = {key for row in rows for key, value in row.items() if _number(value)} - {"epoch"}
        keys = [keys] if isinstance(keys, str) else keys
        if keys is None:
            pictures = [[key for key in (f"{name}_{what}" for name in PHASES) if key in known] for what in ("loss", "error")]
            pictures = [picture for picture in pictures if picture]
        else:
            pictures = [list(keys)]
            unknown = [key for key in keys if key not in known]
            if unknown:
                raise ValueError(f"no record has a number {unknown[0]!r}; what they have: {', '.join(sorted(known))}")
        if not pictures or not pictures[0]:
            raise ValueError("there is nothing to draw: no epoch has been finished")
        _, axes = pyplot.subplots(1, len(pictures), figsize=(5 * len(pictures), 3.6), squeeze=False, layout="constrained")
        for ax, picture in zip(axes[0], pictures, strict=True):
            for key in picture:
                phase = next((name for name in sorted(PHASES, key=len, reverse=True) if key.startswith(f"{name}_")), "")
                values = [row[key] if _number(row.get(key)) else np.nan for row in rows]
                style = {"label": key, "marker": "."}
                if keys is None:
                    style = {"label": PHASES[phase], "color": COLOURS[phase], "marker": MARKERS[phase]}
                ax.plot([row["epoch"] for row in rows], values, markersize=4, **style)
            if self.best_epoch:
                ax.axvline(self.best_epoch, color="0.5", linestyle="--", linewidth=1, label=f"best epoch, {self.best_epoch}")
            ax.set_xlabel("epoch")
            ax.set_ylabel(picture[0].rpartition("_")[2] if keys is None else "")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.legend()
        return axes[0]


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))
