"""What every update rule has, and what bounds every rule's gradients and weights. Imported by the files of chaos.updates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..options import Option, Text, WithOptions

Array = NDArray[Any]
Arrays = list[Array]

SMALLEST = 1e-30  # of what is added to denominators; the core takes numbers below 1.2e-38 for 0
LARGEST = 3e38  # single precision ends there


class Update(WithOptions):
    """An update rule's definition; its speed half is the file of the same name in cext/updates.

    All rules have the options

    weight_decay
        The gradient of weight_decay / 2 * |w|^2, that is weight_decay * w, is added to the gradient (`adamw` differs).
    l1
        The gradient of l1 * |w|_1, that is l1 * sign(w) with sign(0) = 0, is added to the gradient (all rules).
    clip_value
        Every element of a gradient is brought into -clip_value..clip_value, see `clip`.
    clip_norm
        A gradient whose Euclidean norm is larger is scaled down to it, see `clip`. Layers are published one by one, so this
        is the norm of one layer's gradient, weight and bias together; PyTorch's clip_grad_norm_ is called on all at once.
    max_norm
        Whenever a layer has been updated, the weights into each of its units are scaled down to this norm, see `project`.

    no_decay
        Patterns of parameter names, such as "*.bias,norm*.*": for these there is neither weight_decay nor l1.
    lr_scale
        PATTERN=FACTOR, several with commas, such as "features.*=0.1": for these the learning rate is multiplied with the
        factor. Of several patterns that fit a name the last one counts. These two are PyTorch's parameter groups.

    As in PyTorch, where a parameter group holds them all, the penalties are on biases too; max_norm leaves biases alone.
    Clipping comes first (on what a worker or a reducing strategy publishes: the mean gradient of its step), then the
    penalties, then the rule.

    The moments belong to the weight vector, not to a worker: all workers of a weight vector read and change the same
    moments, in the same publication as the weights. Under a strategy whose writers exclude each other they are exact for
    the order of updates that came about; where writers race, single elements of a moment may miss an update, as weights
    may. The update number t counts the updates of the same stretch of weights by anybody. Max-norm is exact with one worker;
    with several, an update that comes between measuring and scaling is scaled along, and a weight may be past the bound
    until the next step. A result that is put together from replicas is bounded once more at the end of the phase.

    Attributes
    ----------
    kind : str
    tried_with : dict
        Arguments of chaos.train with which the small network learns the digits well in a few epochs; for tests.
    state : tuple of str
        Names of the moments, as in PyTorch's optimizer state: each as long as the weights.
    """

    kind: str = ""
    tried_with = {"lr": 0.01}
    state: tuple[str, ...] = ()
    common = {
        "weight_decay": Option(0.0, "L2 penalty on weights and biases", 0, LARGEST),
        "l1": Option(0.0, "L1 penalty on weights and biases", 0, LARGEST),
        "clip_value": Option(None, "bound of each element of a gradient; none: no bound", 0, LARGEST, above=True),
        "clip_norm": Option(None, "bound of the norm of a layer's gradient; none: no bound", 0, LARGEST, above=True),
        "max_norm": Option(None, "bound of the norm of the weights into a unit; none: no bound", 0, LARGEST, above=True),
    }

    texts = {
        "no_decay": Text("no weight_decay and l1 for these parameters: patterns, with commas", lambda w, t: patterns(w, t)),
        "lr_scale": Text("PATTERN=FACTOR,...: times the learning rate for these parameters", lambda w, t: scales(w, t)),
    }

    @property
    def moments(self) -> int:
        """Number of moments."""
        return len(self.state)

    def _called(self) -> str:
        return f"update rule {self.kind!r}"

    def core_options(self, resolved: dict[str, Any]) -> list[float]:
        """The numbers for the core: those of every rule, then the rule's own."""
        return [option.number(resolved[name]) for name, option in (self.common | self.options).items()]

    def for_workers(self, resolved: dict[str, Any], workers: int) -> dict[str, Any]:
        """The options with what the number of workers changes in them."""
        return resolved

    def start(self, moments: Array, resolved: dict[str, Any]) -> None:
        """Gives zeroed moments, (number of moments, n), the values that they have before the first update."""

    def apply(
        self, w: Array, dw: Array, moments: Arrays, lr: float, t: int, *, weight_decay: float = 0.0, l1: float = 0.0
    ) -> tuple[Array, Arrays]:
        """The definition: the new weights and moments after update number t = 1, 2, ... with gradient dw.

        Parameters
        ----------
        w, dw : array
            Of one float type, in which everything is computed; numbers such as 1 - beta1**t are Python's floats.
        moments : sequence of array
        lr : float
        t : int
        """
        raise NotImplementedError


def patterns(what: str, text: str) -> list[str]:
    """The patterns of a text "PATTERN,PATTERN,..."; ValueError that names `what` where one is empty."""
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise ValueError(f"{what} must be patterns of parameter names with commas between them, not {text!r}")
    return found


def scales(what: str, text: str) -> list[tuple[str, float]]:
    """[(pattern, factor), ...] of a text "PATTERN=FACTOR,..."; ValueError that names `what` otherwise."""
    found = []
    for part in text.split(","):
        pattern, _, factor = (word.strip() for word in part.partition("="))
        try:
            found.append((pattern, float(factor)))
        except ValueError:
            found.append(("", 0.0))
        if not pattern or not 0 < found[-1][1] <= LARGEST:
            raise ValueError(f"{what} must be PATTERN=FACTOR, several with commas, factors above 0, not {text!r}")
    return found


def penalised(w: Array, dw: Array, weight_decay: float, l1: float) -> Array:
    """The gradient with those of the penalties."""
    return dw + weight_decay * w + l1 * np.sign(w)


def clip(gradients: dict[str, Array], clip_value: float | None = None, clip_norm: float | None = None) -> dict[str, Array]:
    """The gradients of one layer, bounded: first every element (torch.nn.utils.clip_grad_value_), then their common norm
    (clip_grad_norm_: times clip_norm / (norm + 1e-6) where that is below 1; Pascanu, Mikolov, Bengio 2013).

    Parameters
    ----------
    gradients : dict of str to array
        Of weight and bias.
    """
    if clip_value is not None:
        gradients = {name: np.clip(g, -clip_value, clip_value) for name, g in gradients.items()}
    if clip_norm is not None:
        norm = np.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in gradients.values()))
        scale = min(1.0, clip_norm / (norm + 1e-6))
        gradients = {name: g * scale for name, g in gradients.items()}
    return gradients


def project(weight: Array, max_norm: float) -> Array:
    """The weight with each output unit's incoming weights, weight[o], scaled down to max_norm where their norm is larger, as
    torch.renorm (times max_norm / (norm + 1e-7)) along dimension 0. Source: Hinton, Srivastava, Krizhevsky, Sutskever,
    Salakhutdinov 2012."""
    norms = np.sqrt(np.square(weight, dtype=np.float64).sum(tuple(range(1, weight.ndim)), keepdims=True))
    bounded: Array = weight * np.where(norms > max_norm, max_norm / (norms + 1e-7), 1).astype(weight.dtype)
    return bounded
