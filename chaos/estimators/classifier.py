"""Classification the scikit-learn way: one class per image, or several labels. Imported by chaos.estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d

from ..hints import ESTIMATOR, explained
from .base import Array, ChaosEstimator


class ChaosClassifier(ClassifierMixin, ChaosEstimator):  # type: ignore[misc]
    """A classifier that is a chaos network.

    `y` has one class per image, numbers or strings, or for several labels per image one column of 0 and 1 for each label.

    Parameters
    ----------
    network : list of Layer, callable, chaos.Network, torch.nn.Module, or None
        What is trained. A list of layers; a function network(input_shape, n_outputs), or network(input_shape), that gives
        one of the others; a network or a PyTorch module, of which a copy is trained on from the weights that it has. Its
        outputs must be as many as there are classes, or labels. None: two hidden layers of 128 and 64 units for tables; for
        images and sequences convolutions of 3 and poolings down to a few pixels, then 128 units; with inputs brought to mean
        0 and deviation 1 by layers of its own.
    input_shape : tuple of int, optional
        Shape of one image, where `X` has them as rows: (channels, height, width), or (channels, length) of sequences. Of an
        `X` with more than two dimensions it is known: (n, channels, height, width), or (n, height, width) of one channel.
    channels : str, optional
        "first" (also unless given), or "last" where `X` and `input_shape` have channels behind height and width.
    epochs : int
        Passes over the data in `fit`; the most there are with `early_stopping`.
    lr, lr_decay, lr_schedule, schedule_options, batch_size, update, update_options, shuffle
        As in `chaos.train`. `partial_fit` keeps to `lr`.
    loss, loss_options
        As in `chaos.train`. None: "cross_entropy", or "binary_cross_entropy" for several labels.
    strategy, strategy_options
        As in `chaos.train`; with one worker all that promise it give the same.
    class_weight : dict, "balanced" or None
        Weights of the classes in training, beside `sample_weight`; "balanced": n / (classes * images of the class).
    early_stopping : bool
        Whether to hold out `validation_fraction` of the images, to end when `n_iter_no_change` epochs in a row have not
        bettered their loss by more than `tol`, and to keep the weights of the best epoch.
    validation_fraction, n_iter_no_change, tol
        See there.
    warm_start : bool
        Whether `fit` goes on from the weights of the `fit` before. What the update rule keeps begins anew; `partial_fit`
        goes on with it.
    n_jobs : int, optional
        Workers: None is 1, -1 all cores (as `chaos.train` finds them), -2 all but one. With several a training is repeated
        bit for bit only by a strategy that promises it ("synchronous").
    random_state : int, RandomState or None
        Of first weights, order of images, random layers, and what is held out.
    verbose : bool
        Whether to show the progress, as `chaos.train`.
    callbacks : list, optional
        As in `chaos.train`, for `fit`.

    Attributes
    ----------
    classes_ : ndarray
        The classes, sorted; of several labels their numbers.
    network_ : chaos.Network
        What was trained: to be saved, exported, or used without scikit-learn.
    n_features_in_ : int
        Numbers of one image.
    feature_names_in_ : ndarray of str
        Where `X` was a table with names.
    n_iter_ : int
        Epochs so far; each `partial_fit` is one.
    loss_curve_ : list of float
        Mean loss of each epoch, on the images as they were trained on; `loss_` is the last.
    validation_loss_curve_ : list of float or None
        With `early_stopping` the loss of what was held out.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from chaos.estimators import ChaosClassifier
    >>> digits = load_digits()
    >>> model = ChaosClassifier(epochs=5, random_state=0).fit(digits.images[:1000], digits.target[:1000])
    >>> bool(model.score(digits.images[1000:], digits.target[1000:]) > 0.9)
    True
    """

    _answers = "classes"
    _several: bool
    classes_: Array

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
        class_weight: Any = None,
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
        super().__init__(
            network,
            input_shape=input_shape,
            channels=channels,
            epochs=epochs,
            lr=lr,
            lr_decay=lr_decay,
            lr_schedule=lr_schedule,
            schedule_options=schedule_options,
            batch_size=batch_size,
            update=update,
            update_options=update_options,
            loss=loss,
            loss_options=loss_options,
            strategy=strategy,
            strategy_options=strategy_options,
            shuffle=shuffle,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
            callbacks=callbacks,
        )
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _outputs(self) -> int:
        return len(self.classes_)

    def _names(self) -> tuple[str, ...] | None:
        names = tuple(map(str, self.classes_.tolist()))
        numbers = self._several or np.array_equal(self.classes_, np.arange(len(names)))
        return None if numbers or len(set(names)) < len(names) else names

    def _loss(self) -> str:
        return "binary_cross_entropy" if self._several else "cross_entropy"

    def _more_weights(self, y: Any, partial: bool) -> Array | None:
        if self.class_weight is None:
            return None
        if partial and isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight {self.class_weight!r} needs all images at once, and partial_fit has some of them: give a "
                "dict of weights, such as that of sklearn.utils.class_weight.compute_class_weight"
            )
        found: Array = compute_sample_weight(self.class_weight, y)
        return found

    def _targets(self, y: Any, goes_on: bool, classes: Any = None) -> tuple[Any, Array]:
        """(y checked, what the network is to give); notes the classes unless they are known."""
        kind = type_of_target(y, input_name="y")
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            check_classification_targets(y)  # raises, unless `column_or_1d` does
        several = kind == "multilabel-indicator"
        if not several:
            y = column_or_1d(y, warn=True)
        if not goes_on:
            self._several = several
            self.classes_ = np.arange(y.shape[1]) if several else unique_labels(y if classes is None else classes)
        if several != self._several or (several and y.shape[1] != len(self.classes_)):
            raise ValueError(f"y is {kind}, and there were {len(self.classes_)} {'labels' if self._several else 'classes'}")
        if several:
            return y, np.asarray(y.toarray() if hasattr(y, "toarray") else y, np.float32)
        if len(unknown := np.setdiff1d(y, self.classes_)):
            raise ValueError(f"y has classes {unknown[:5].tolist()}, which are not among {self.classes_[:20].tolist()}")
        return y, np.searchsorted(self.classes_, y).astype(np.int64)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ChaosClassifier:
        """Trains the network.

        Parameters
        ----------
        X : array (n, features), (n, channels, height, width), (n, height, width) or (n, channels, length)
            uint8 numbers are pixels, seen as -1 .. 1, and so are integers of 0..255 in images; all else is seen as it is.
            Rows of numbers go on meaning what they meant here, whatever their dtype.
        y : array (n,), or (n, labels) of 0 and 1
        sample_weight : array (n,), optional
            What the loss of each image is multiplied with; not negative. Not in the validation of `early_stopping`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If data or parameters are not what they can be, or do not fit each other.
        chaos.DivergedError
            If the loss is no longer finite.
        """
        goes_on = self.warm_start and hasattr(self, "network_")
        X, y = self._validated(X, y, reset=not goes_on)
        y, targets = self._targets(y, goes_on)
        self._fit(X, y, targets, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> ChaosClassifier:
        """One more pass, over these images; what the update rule keeps goes on from `fit` or the call before. Of single
        images scikit-learn's checks take longer than the step: `network_.update` is without them.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array (classes,), optional
            All classes there are, in the first call; those of `y` unless given.

        Returns
        -------
        self
        """
        goes_on = hasattr(self, "network_")
        X, y = self._validated(X, y, reset=not goes_on)
        if goes_on and classes is not None and not np.array_equal(unique_labels(classes), self.classes_):
            raise ValueError(f"classes={classes!r} are not those of the first call, {self.classes_!r}")
        y, targets = self._targets(y, goes_on, classes)
        self._partial_fit(X, y, targets, sample_weight)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """The outputs of the network: (n, classes), or (n, labels); with two classes (n,), that of the second less that of
        the first, above 0 for the second."""
        found = self._forward(X)
        return found[:, 1] - found[:, 0] if not self._several and found.shape[1] == 2 else found

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """(n, classes) probabilities, softmax of the outputs; of several labels (n, labels), the logistic function of
        each."""
        found = self._forward(X)
        if self._several:
            return (0.5 + 0.5 * np.tanh(0.5 * found)).astype(np.float32)
        e = np.exp(found - found.max(1, keepdims=True))
        shares: NDArray[np.float32] = e / e.sum(1, keepdims=True)
        return shares

    def predict_log_proba(self, X: Any) -> NDArray[np.float32]:
        """The logarithms of `predict_proba`."""
        found = self._forward(X)
        if self._several:
            return -np.logaddexp(np.float32(0), -found)
        shifted = found - found.max(1, keepdims=True)
        logs: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return logs

    def predict(self, X: Any) -> Array:
        """The most probable class of each image, (n,); of several labels 1 where a label is more probable than not, (n,
        labels)."""
        found = self._forward(X)
        if self._several:
            return (found > 0).astype(np.int64)
        classes: Array = self.classes_[found.argmax(1)]
        return classes
