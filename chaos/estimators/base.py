"""What both estimators are: parameters, data of several forms, training with early stopping, partial fits. For the files of
this folder."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .. import threads
from ..api import train
from ..arrays import warn_caller
from ..data import Dataset
from ..data.dataset import warn_of_channels_last
from ..hints import ESTIMATOR, explained
from ..network import STATE, Network
from ..online import Learner
from ..options import check_number
from ..scale import UNITS, Scale
from ..training import Callback, Settings
from . import networks

Array = NDArray[Any]
FIRST, LAST = "first", "last"
_LEARNER, _KEPT = "_learner", "_rule_state"


class Keeper(Callback):
    """Keeps what the update rule has at the end of a training."""

    state: Mapping[str, Any] = {}

    def train_end(self, event: Any) -> None:
        self.state = {name.removeprefix(STATE): value for name, value in event.rule_state().items()}


class ChaosEstimator(BaseEstimator):  # type: ignore[misc]
    """Base class of `ChaosClassifier` and `ChaosRegressor`; see there."""

    _answers: str  # what y is, for messages

    @explained(ESTIMATOR)
    def __init__(
        self,
        network: Any = None,
        *,
        input_shape: tuple[int, ...] | None = None,
        channels: str | None = None,
        epochs: int = 50,
        lr: float = 1e-3,
        lr_decay: float = 0.9,
        lr_schedule: str = "cosine",
        schedule_options: Mapping[str, Any] | None = None,
        batch_size: int = 16,
        update: str = "adam",
        update_options: Mapping[str, Any] | None = None,
        loss: str | None = None,
        loss_options: Mapping[str, Any] | None = None,
        strategy: str = "chaos",
        strategy_options: Mapping[str, Any] | None = None,
        shuffle: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
        callbacks: Any = None,
    ) -> None:
        self.network = network
        self.input_shape = input_shape
        self.channels = channels
        self.epochs = epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.lr_schedule = lr_schedule
        self.schedule_options = schedule_options
        self.batch_size = batch_size
        self.update = update
        self.update_options = update_options
        self.loss = loss
        self.loss_options = loss_options
        self.strategy = strategy
        self.strategy_options = strategy_options
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    # ---- what the kinds of estimators differ in ----

    def _outputs(self) -> int:
        """How many numbers the network has to give."""
        raise NotImplementedError

    def _loss(self) -> str:
        """The loss where the parameter names none."""
        raise NotImplementedError

    def _names(self) -> tuple[str, ...] | None:
        """Names of the classes, to be kept with the network."""
        return None

    def _more_weights(self, y: Any, partial: bool) -> Array | None:
        """Weights of the images beside those that are given."""
        return None

    # ---- data ----

    def _validated(self, X: Any, y: Any = "no_validation", *, reset: bool) -> Any:
        """X as a table, and y; scikit-learn's checks of both. Also says of which shape one image is, where `reset`."""
        given = None
        if _dimensions(X) > 2:
            X = np.asarray(X)
            given = X.shape[1:]
            X = X.reshape(len(X), math.prod(given))
        alone = isinstance(y, str)
        if alone:
            X = validate_data(self, X, reset=reset)
        else:
            X, y = validate_data(self, X, y, reset=reset, multi_output=True, y_numeric=self._answers == "numbers")
        if reset:
            self._shape_ = self._shape_of_data(given)
        elif given is not None and given not in (self._shape_, self._without_channel()):
            raise ValueError(f"X has images of shape {given}, and {type(self).__name__} was fitted to {self._shape_}")
        return X if alone else (X, y)

    def _shape_of_data(self, given: tuple[int, ...] | None) -> tuple[int, ...]:
        """The shape of one image as it lies in X, checked."""
        if self.channels not in (None, FIRST, LAST):
            raise ValueError(f"channels must be {FIRST!r} or {LAST!r}, not {self.channels!r}")
        if self.channels is None and given is not None:
            warn_of_channels_last(given)
        if self.input_shape is None:
            shape = given if given is not None else (self.n_features_in_,)
            return (*shape, 1) if len(shape) == 2 and self.channels == LAST else _grey(shape)
        shape = tuple(self.input_shape)
        for size in shape:
            check_number("input_shape", size, 1, whole=True)
        if math.prod(shape) != self.n_features_in_ or (given is not None and _grey(given) != _grey(shape)):
            what = f"images of shape {given}" if given is not None else f"{self.n_features_in_} features"
            raise ValueError(f"X has {what}, which is not input_shape={self.input_shape!r}")
        return shape

    def _without_channel(self) -> tuple[int, ...]:
        """The shape of one image where there is one channel, and `X` does not say so."""
        sides = self._shape_[:-1] if self.channels == LAST else self._shape_[1:]
        return sides if len(self._shape_) == 3 and math.prod(sides) == math.prod(self._shape_) else self._shape_

    @property
    def _first(self) -> tuple[int, ...]:
        """The shape of one image with channels first."""
        shape: tuple[int, ...] = self._shape_
        return (shape[-1], *shape[:-1]) if self.channels == LAST and len(shape) > 1 else shape

    def _images(self, X: Array, new: bool = False) -> Array:
        """A table as images with channels first; integers that are no pixels as floats. Rows of numbers mean what they meant
        in the first fit, whatever their dtype, unless this is it (`new`); of images the network knows it."""
        shape = self._shape_
        x = X.reshape(len(X), *shape)
        if self.channels == LAST and len(shape) > 1:
            x = np.moveaxis(x, -1, 1)
        pixels = x.dtype == np.uint8
        if len(shape) == 1 and not new:
            known = self.network_.trained_on
            pixels = known is not None and known[0].pixels and x.dtype.kind in "iu"
        if not pixels and (x.dtype.kind not in "iu" or len(shape) == 1):
            with np.errstate(over="ignore"):  # what becomes infinite is refused later
                x = x.astype(np.float32)
        return np.ascontiguousarray(x)

    def _weights(self, X: Array, y: Any, sample_weight: Any, partial: bool = False) -> Array | None:
        more = self._more_weights(y, partial)
        if sample_weight is None:
            return more
        found: Array = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        return found if more is None else found * more

    # ---- training ----

    def _settings(self, seed: int) -> dict[str, Any]:
        """Those of chaos.train that are parameters here."""
        return {
            "strategy": self.strategy,
            "strategy_options": self.strategy_options,
            "batch_size": self.batch_size,
            "update": self.update,
            "update_options": self.update_options,
            "loss": self.loss or self._loss(),
            "loss_options": self.loss_options,
            "seed": seed,
        }

    def _workers(self) -> int:
        """n_jobs as scikit-learn means it: None is 1, negative numbers count from all cores down."""
        jobs = 1 if self.n_jobs is None else self.n_jobs
        if isinstance(jobs, bool) or not isinstance(jobs, (int, np.integer)) or jobs == 0:
            raise ValueError(f"n_jobs must be a whole number other than 0, or None, not {jobs!r}")
        return int(jobs) if jobs > 0 else max(threads.resolve().workers + 1 + int(jobs), 1)

    def _start(self, x: Array, y: Array) -> None:
        """A new network for these data."""
        random = check_random_state(self.random_state)
        self._seed = int(random.randint(np.iinfo(np.int32).max))
        real = y if self._answers == "numbers" else None
        self.network_: Network = networks.build(self.network, self._first, self._outputs(), self._seed, x, real)
        self.network_.class_names = self._names() or self.network_.class_names
        self.n_iter_, self.loss_curve_ = 0, list[float]()
        self._largest_ = 0.0
        self.validation_loss_curve_: list[float] | None = None

    def _fit(self, X: Array, y: Any, targets: Array, sample_weight: Any) -> None:
        """Trains for `epochs`, on what the validation leaves."""
        check_number("epochs", self.epochs, 1, whole=True)
        new = not (self.warm_start and hasattr(self, "network_"))
        x, weights = self._images(X, new), self._weights(X, y, sample_weight)
        if new:
            self._start(x, targets)
        data, validation = self._parts(x, targets, weights)
        keeper, how = Keeper(), dict[str, Any]()
        if self.early_stopping:
            how = {"patience": self.n_iter_no_change, "min_delta": self.tol, "restore_best": True}
        self.__dict__.pop(_LEARNER, None)
        run = train(
            self.network_,
            data,
            validation_data=validation,
            workers=self._workers(),
            epochs=self.epochs,
            lr=self.lr,
            lr_decay=self.lr_decay,
            lr_schedule=self.lr_schedule,
            schedule_options=self.schedule_options,
            shuffle=self.shuffle,
            progress=bool(self.verbose),
            callbacks=[keeper, *(self.callbacks or ())],
            **how,
            **self._settings(self._seed + self.n_iter_),
        )
        setattr(self, _KEPT, keeper.state)
        self._after(len(run.history), [record["train_loss"] for record in run.history])
        if self.early_stopping:
            losses = [record["validation_loss"] for record in run.history]
            self.validation_loss_curve_ = [*(self.validation_loss_curve_ or []), *losses]

    def _after(self, epochs: int, losses: list[float]) -> None:
        self.n_iter_ += epochs
        self.loss_curve_ += losses
        self.loss_ = self.loss_curve_[-1]
        if len(self._first) == 1 and self.network_.trained_on and not self.network_.trained_on[0].pixels:
            # of features that have each a scale of their own one row says nothing, unless it is far beyond all of them
            self._largest_ = max(self._largest_, self.network_.trained_on[0].largest)
            self.network_.trained_on = None

    def _parts(self, x: Array, y: Array, weights: Array | None) -> tuple[Dataset, Dataset | None]:
        """The data that are trained on, and those that early stopping looks at."""
        whole = self._dataset(x, y, weights)
        if not self.early_stopping:
            return whole, None
        check_number("n_iter_no_change", self.n_iter_no_change, 1, whole=True)
        check_number("tol", self.tol, 0)
        check_number("validation_fraction", self.validation_fraction, 0, 1, above=True)
        try:
            kept, held_out = train_test_split(
                np.arange(len(x)),
                test_size=self.validation_fraction,
                random_state=self._seed,
                stratify=y if self._answers == "classes" and y.ndim == 1 else None,
            )
        except ValueError as problem:
            what = f"validation_fraction={self.validation_fraction!r} of {len(x)} images cannot be held out"
            raise ValueError(f"{what}: {problem}") from None
        return whole[np.sort(kept)], whole[np.sort(held_out)]

    def _dataset(self, x: Array, y: Array, weights: Array | None) -> Dataset:
        images: Any = (x,) if x.ndim > 2 else x  # three dimensions alone would be images of one channel
        if y.ndim == 1:
            return Dataset(images, y, weights=weights, name="X", classes=self._outputs())
        return Dataset(images, targets=y, weights=weights, name="X")

    def _partial_fit(self, X: Array, y: Any, targets: Array, sample_weight: Any) -> None:
        """One pass over the data; what the update rule keeps goes on from call to call."""
        new = not hasattr(self, "network_")
        x, weights = self._images(X, new), self._weights(X, y, sample_weight, partial=True)
        if new:
            self._start(x, targets)
        learner = self._going_on()
        if self.shuffle and len(x) > 1:
            order = np.random.default_rng([self._seed, learner.steps]).permutation(len(x))
            x, targets, weights = x[order], targets[order], None if weights is None else weights[order]
        check_number("lr", self.lr, 0, above=True)
        data = self._dataset(x, targets, weights)  # checks them
        loss = learner.step(data.images, data.labels, self.lr, data.weights)
        self._after(1, [loss])

    def _going_on(self) -> Learner:
        """What trains step by step: that of the call before, where the parameters are still the same."""
        asked = {"workers": self._workers(), **self._settings(self._seed)}
        learner, made_for = getattr(self, _LEARNER, (None, None))
        if learner is None or made_for != asked:
            kept = getattr(self, _KEPT, {}) if learner is None else learner.state()
            learner = Learner(self.network_, Settings(**asked), batch_size=self.batch_size, workers=asked["workers"])
            if learner.goes_on_from(kept):
                learner.load_state(kept)
            setattr(self, _LEARNER, (learner, copy.deepcopy(asked)))
        return learner

    def __getstate__(self) -> dict[str, Any]:
        """Without what lives in memory only; what the update rule keeps goes with it."""
        state: dict[str, Any] = dict(super().__getstate__())
        if _LEARNER in state:
            state[_KEPT] = state.pop(_LEARNER)[0].state()
        return state

    def _forward(self, X: Any) -> Array:
        check_is_fitted(self, "network_")
        x = self._images(self._validated(X, reset=False))
        if self._largest_ and x.dtype == np.float32 and (new := Scale.of(x)).largest >= UNITS * self._largest_:
            warn_caller(f"X: {new}, but {type(self).__name__} was fitted to numbers of up to {self._largest_:.4g}")
        found: Array = self.network_.forward(x, workers=self._workers())
        return found.reshape(len(found), -1)


def _dimensions(X: Any) -> int:
    """Of an array, or of lists in lists, without asking anything else of it."""
    depth = 0
    while isinstance(X, (list, tuple)) and X:
        X, depth = X[0], depth + 1
    own = getattr(X, "ndim", 0)
    return depth + own if isinstance(own, int) else depth


def _grey(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(h, w) as (1, h, w): images of one channel need not say so."""
    return (1, *shape) if len(shape) == 2 else shape
