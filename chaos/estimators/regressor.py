"""Regression the scikit-learn way: one number per image, or several. Imported by chaos.estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from .base import Array, ChaosEstimator


class ChaosRegressor(RegressorMixin, ChaosEstimator):  # type: ignore[misc]
    """A regressor that is a chaos network.

    `y` has one number per image, or several columns of them.

    Parameters
    ----------
    network : list of Layer, callable, chaos.Network, torch.nn.Module, or None
        What is trained. A list of layers; a function network(input_shape, n_outputs), or network(input_shape), that gives
        one of the others; a network or a PyTorch module, of which a copy is trained on from the weights that it has. Its
        outputs must be as many as `y` has columns. None: two hidden layers of 128 and 64 units for tables; for images and
        sequences convolutions of 3 and poolings down to a few pixels, then 128 units; with inputs brought to mean 0 and
        deviation 1, and outputs to those of `y`, by layers of its own.
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
        As in `chaos.train`. None: "mse".
    strategy, strategy_options
        As in `chaos.train`; with one worker all that promise it give the same.
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
    >>> import numpy as np
    >>> from chaos.estimators import ChaosRegressor
    >>> X = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    >>> y = 1000 + 200 * X[:, 0] * X[:, 1]
    >>> bool(ChaosRegressor(random_state=0).fit(X, y).score(X, y) > 0.95)
    True
    """

    _answers = "numbers"
    _columns: int

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _outputs(self) -> int:
        return self._columns or 1

    def _loss(self) -> str:
        return "mse"

    def _targets(self, y: Any, goes_on: bool) -> Array:
        """What the network is to give, (n, columns); notes how many columns y has, 0 for a plain row."""
        columns = 0 if y.ndim == 1 else y.shape[1]
        if goes_on and columns != self._columns:
            raise ValueError(f"y has {columns or 'no'} columns, and {self._columns or 'none'} before")
        self._columns = columns
        with np.errstate(over="ignore"):  # what becomes infinite is refused later
            return np.ascontiguousarray(y.reshape(len(y), -1), np.float32)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ChaosRegressor:
        """Trains the network.

        Parameters
        ----------
        X : array (n, features), (n, channels, height, width), (n, height, width) or (n, channels, length)
            uint8 numbers are pixels, seen as -1 .. 1, and so are integers of 0..255 in images; all else is seen as it is.
            Rows of numbers go on meaning what they meant here, whatever their dtype.
        y : array (n,) or (n, columns)
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
        self._fit(X, y, self._targets(y, goes_on), sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> ChaosRegressor:
        """One more pass, over these images; what the update rule keeps goes on from `fit` or the call before. Of single
        images scikit-learn's checks take longer than the step: `network_.update` is without them.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self
        """
        goes_on = hasattr(self, "network_")
        X, y = self._validated(X, y, reset=not goes_on)
        self._partial_fit(X, y, self._targets(y, goes_on), sample_weight)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """(n,), or (n, columns) where `y` had columns."""
        found = self._forward(X).astype(np.float64)
        return found if self._columns else found[:, 0]
