"""What is measured on the outputs of evaluations beside loss and error: accuracy, precision, calibration, errors of values;
scikit-learn's scorers where it is installed, and callers' own functions. For chaos.training; imports NumPy and the losses'
forms of targets only.

A metric of the table is a function of `Answers`; to add one: a function and a line of METRICS."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..losses import IGNORED, MAP, VALUES
from ..losses.base import rows
from ..options import nearest

Array = NDArray[Any]
CLASSES, LABELS, REAL = "classes", "labels", "values"
_WORDS = {CLASSES: "one right class", LABELS: "labels that are right or wrong each", REAL: "real numbers as targets"}


@dataclass(frozen=True)
class Answers:
    """What a network has said about the images of a data set, and what would be right.

    Attributes
    ----------
    kind : str
        "classes": one of the outputs is right. "labels": each output is right or wrong by itself. "values": the targets are
        real numbers.
    target : array
        (m,) int64, (m, k) of 0 and 1, or (m, k) float32; ignored answers are left out. m: images, or pixels where each has
        an answer.
    outputs : array, (m, k) of float32
    """

    kind: str
    target: Array
    outputs: Array

    @cached_property
    def predicted(self) -> Array:
        """The largest output, the first of equals; of labels those above 0."""
        return self.outputs.argmax(1) if self.kind == CLASSES else (self.outputs > 0).astype(np.int64)

    @cached_property
    def counts(self) -> tuple[Array, Array, Array]:
        """Of each class: how often it was right and said, how often said, how often right."""
        k = self.outputs.shape[1]
        if self.kind == LABELS:
            return (self.predicted * self.target).sum(0), self.predicted.sum(0), self.target.sum(0)
        hits = self.target[self.predicted == self.target]
        both, said, right = (np.bincount(one, minlength=k) for one in (hits, self.predicted, self.target))
        return both, said, right


def answers(form: str, loss: str, outputs: Array, labels: Array) -> Answers:
    """The answers of outputs (n, *output shape) against targets as the core takes them: flat int64, or flat float32."""
    kind = kind_of(form, loss)
    if kind == CLASSES and form != VALUES:
        shape = (len(outputs), *outputs.shape[2:]) if form == MAP else (len(outputs),)
        y, right = rows(outputs, labels.reshape(shape))
        counts = right != IGNORED
        return Answers(kind, right[counts], y[counts])
    target = labels.reshape(outputs.shape)
    if kind == CLASSES:
        y, right = rows(outputs, target) if target.ndim > 1 else (outputs, target)
        return Answers(kind, right.argmax(1), y)
    y, right = outputs.reshape(len(outputs), -1), target.reshape(len(outputs), -1)
    return Answers(kind, (right > 0.5).astype(np.int64) if kind == LABELS else right, y)


def kind_of(form: str, loss: str) -> str:
    """What kind the answers are."""
    if form == VALUES:
        return {"cross_entropy": CLASSES, "kl_div": CLASSES, "binary_cross_entropy": LABELS}.get(loss, REAL)
    return CLASSES


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes
    ----------
    name : str
    value : callable
        Of `Answers`: a number, or an array with a number for each class.
    larger : bool or None
        Whether larger is better; None: that is not known.
    kinds : tuple of str
        The kinds of answers of which it makes sense.
    scalar : bool
        Whether it is one number.
    """

    name: str
    value: Callable[[Answers], Any]
    larger: bool | None = True
    kinds: tuple[str, ...] = (CLASSES, LABELS)
    scalar: bool = True

    def check(self, form: str, loss: str) -> None:
        """ValueError where it makes no sense of such targets."""
        kind = kind_of(form, loss)
        if kind not in self.kinds:
            raise ValueError(
                f"metric {self.name!r} is of {' or '.join(_WORDS[one] for one in self.kinds)}; loss {loss!r} has here "
                f"{_WORDS[kind]}"
            )


# ---- the table ----


def accuracy(a: Answers) -> float:
    """The share of right answers; of labels of all labels."""
    return float((a.predicted == a.target).mean())


def top(a: Answers, k: int) -> float:
    """The share of answers whose right class is among the k largest outputs; of equal outputs the first counts as larger,
    so that top_1 is the accuracy."""
    right = a.outputs[np.arange(len(a.target)), a.target][:, None]
    before = np.arange(a.outputs.shape[1]) < a.target[:, None]
    larger = (a.outputs > right) | ((a.outputs == right) & before)
    return float((larger.sum(1) < k).mean())


def _share(part: Array, whole: Array) -> Array:
    """part / whole, 0 where there is nothing (scikit-learn's zero_division=0)."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def precision(a: Answers) -> Array:
    """Of each class: how much of what was said is right."""
    both, said, _ = a.counts
    return _share(both, said)


def recall(a: Answers) -> Array:
    """Of each class: how much of what is right was said."""
    both, _, right = a.counts
    return _share(both, right)


def f1(a: Answers) -> Array:
    """Of each class: the harmonic mean of precision and recall, 2 both / (said + right)."""
    both, said, right = a.counts
    return _share(2 * both, said + right)


def _macro(of_classes: Callable[[Answers], Array]) -> Callable[[Answers], float]:
    """The mean over the classes that are right or said anywhere, as scikit-learn's average="macro"."""

    def mean(a: Answers) -> float:
        _, said, right = a.counts
        there = np.ones(len(said), bool) if a.kind == LABELS else (said > 0) | (right > 0)
        return float(of_classes(a)[there].mean())

    return mean


def balanced_accuracy(a: Answers) -> float:
    """The mean recall of the classes that are right anywhere."""
    return float(recall(a)[a.counts[2] > 0].mean())


def confusion_matrix(a: Answers) -> Array:
    """[i, j]: how often class j was said where i is right."""
    k = a.outputs.shape[1]
    return np.bincount(a.target * k + a.predicted, minlength=k * k).reshape(k, k)


def ece(a: Answers, bins: int = 15) -> float:
    """Expected calibration error: sum over bins of equal width of the largest probability, (lower, upper], of the bin's
    share times |its accuracy - its mean probability|, with the softmax as probabilities. Guo, Pleiss, Sun, Weinberger 2017,
    eq. 3."""
    y = a.outputs.astype(np.float64)
    sure = 1 / np.exp(y - y.max(1, keepdims=True)).sum(1)
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    right = a.predicted == a.target
    gaps = np.bincount(place, right, bins) - np.bincount(place, sure, bins)
    return float(np.abs(gaps).sum() / len(sure))


def _differences(a: Answers) -> Array:
    return a.outputs.astype(np.float64) - a.target


def mae(a: Answers) -> float:
    """Mean of |output - target|."""
    return float(np.abs(_differences(a)).mean())


def mse(a: Answers) -> float:
    """Mean of (output - target)^2."""
    return float(np.square(_differences(a)).mean())


def rmse(a: Answers) -> float:
    """Root of the mean of (output - target)^2 over all."""
    return math.sqrt(mse(a))


def max_error(a: Answers) -> float:
    """Largest |output - target|."""
    return float(np.abs(_differences(a)).max())


def r2(a: Answers) -> float:
    """1 - sum (output - target)^2 / sum (target - mean target)^2, mean over the outputs; of an output whose targets are all
    equal 1 where they are met exactly, else 0, as in scikit-learn."""
    target = a.target.astype(np.float64)
    left, all_ = np.square(_differences(a)).sum(0), np.square(target - target.mean(0)).sum(0)
    found = np.where(all_ > 0, 1 - left / np.where(all_ > 0, all_, 1), (left == 0).astype(float))
    return float(found.mean())


_CLASSES, _VALUES = (CLASSES,), (REAL,)
METRICS = {
    one.name: one
    for one in (
        Metric("accuracy", accuracy),
        Metric("balanced_accuracy", balanced_accuracy, kinds=_CLASSES),
        Metric("precision", _macro(precision)),
        Metric("recall", _macro(recall)),
        Metric("f1", _macro(f1)),
        Metric("precision_per_class", precision, scalar=False),
        Metric("recall_per_class", recall, scalar=False),
        Metric("f1_per_class", f1, scalar=False),
        Metric("confusion_matrix", confusion_matrix, None, _CLASSES, scalar=False),
        Metric("ece", ece, False, _CLASSES),
        Metric("mae", mae, False, _VALUES),
        Metric("mse", mse, False, _VALUES),
        Metric("rmse", rmse, False, _VALUES),
        Metric("max_error", max_error, False, _VALUES),
        Metric("r2", r2, True, _VALUES),
    )
}
NAMES = (*METRICS, "top_K")


def resolve(given: Any) -> list[Metric]:
    """The metrics that names and functions mean; ValueError, TypeError for what is neither."""
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"metrics must be a list of names and functions, not {given!r}")
    found = [_one(one) for one in given]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"metric {twice!r} is named twice")
    return found


def _one(given: Any) -> Metric:
    if isinstance(given, str):
        if given in METRICS:
            return METRICS[given]
        if match := re.fullmatch(r"top_([1-9]\d{0,8})", given):
            return Metric(given, lambda a, k=int(match[1]): top(a, k), kinds=_CLASSES)  # type: ignore[misc]
        return _scorer(given)
    if callable(given):
        name = getattr(given, "__name__", None) or type(given).__name__
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"a metric needs a name, which {given!r} does not have: define it with def")
        if name in METRICS:
            raise ValueError(f"a function called {name!r} would hide the metric of that name; call it otherwise")
        return Metric(name, lambda a: given(a.target, a.outputs), None, (CLASSES, LABELS, REAL), scalar=True)
    raise TypeError(f"a metric must be a name or a function of (targets, outputs), not {given!r}")


def _scorer(name: str) -> Metric:
    """A metric by the name of one of scikit-learn's scorers, of which larger is better."""
    try:
        from sklearn.metrics import get_scorer, get_scorer_names
    except ImportError:
        known, more = (), "; more where scikit-learn is installed (pip install 'chaos-sgd[sklearn]')"
    else:
        known, more = get_scorer_names(), "; or a scorer of scikit-learn"
    if name not in known:
        meant = nearest(name, (*METRICS, *known))
        hint = f"did you mean {meant}? " if meant else ""
        raise ValueError(f"unknown metric {name!r}; {hint}known: {', '.join(NAMES)}{more}")
    scorer = get_scorer(name)

    def value(a: Answers) -> Any:
        try:
            return scorer(_said(a), a.outputs, _targets(a))
        except ValueError as error:  # such as of a class that does not occur; no reason to lose a training
            logging.getLogger("chaos").warning("metric %s: %s", name, error)
            return math.nan

    return Metric(name, value, True, (CLASSES, LABELS, REAL))


def _targets(a: Answers) -> Array:
    return a.target[:, 0] if a.kind == REAL and a.target.shape[1] == 1 else a.target


def _said(a: Answers) -> Any:
    """An estimator of scikit-learn that says of `a.outputs` what the network has said."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Values(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        def predict(self, x: Array) -> Array:
            return x[:, 0] if x.shape[1] == 1 else x

        def __sklearn_is_fitted__(self) -> bool:
            return True

    class Classes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.arange(a.outputs.shape[1])

        def predict(self, x: Array) -> Array:
            return a.predicted

        def predict_proba(self, x: Array) -> Array:
            y = x.astype(np.float64)
            if a.kind == LABELS:
                return 1 / (1 + np.exp(-y))
            e = np.exp(y - y.max(1, keepdims=True))
            shares: Array = e / e.sum(1, keepdims=True)
            return shares

        def __sklearn_is_fitted__(self) -> bool:
            return True

    return Values() if a.kind == REAL else Classes()


def measure(metrics: Sequence[Metric], found: Answers) -> dict[str, Any]:
    """{name: number, list of numbers, or None where it is not finite or there is no answer}; ValueError where a function's
    result is no number."""
    told: dict[str, Any] = {}
    for one in metrics:
        told[one.name] = _plain(one.name, one.value(found)) if len(found.target) else None
    return told


def _plain(name: str, value: Any) -> Any:
    """What JSON knows of a metric's value."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise ValueError
    except ValueError:
        raise ValueError(f"metric {name!r} must give a number, or an array of numbers, not {value!r}") from None
    if array.ndim == 0:
        number = array.item()
        return number if math.isfinite(number) else None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        array = array.astype(object)
        array[~np.isfinite(np.asarray(value))] = None
    return array.tolist()
