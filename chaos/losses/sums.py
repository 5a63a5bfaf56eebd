"""Sums of losses: of several outputs of a network, or several of one. For chaos.losses, and through it whoever
takes a loss."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from ..options import WithOptions, unknown
from .base import Loss

MOST = 64  # MAX_TERMS of cext/engine/engine.h
_TERM = re.compile(r"\s*(?:(?P<factor>[^*@]+)\*)?\s*(?P<loss>\w+)\s*(?:@\s*(?P<output>\d+))?\s*")


@dataclasses.dataclass(frozen=True)
class Term:
    """One loss of a sum: of which output, with which options, and what it is multiplied with."""

    loss: Loss
    options: Mapping[str, Any]
    factor: float
    output: int


class Sum(WithOptions):
    """A sum such as ``"cross_entropy + 0.3*mse"``: terms ``FACTOR*LOSS@OUTPUT`` with ``+`` between.

    The factor is 1 unless it is given. Term i = 0, 1, ... is of output i, of a network with one output of that one, unless
    ``@OUTPUT`` says another. An option of term i has the name ``"i.NAME"``.

    Parameters
    ----------
    text : str
    losses : mapping of str to Loss
        Those that are known.

    Raises
    ------
    ValueError
        If the text is no sum of known losses.
    """

    def __init__(self, text: str, losses: Mapping[str, Loss]) -> None:
        self.kind = text
        self.terms: list[tuple[Loss, float, int | None]] = []
        for part in _parts(text):
            found = _TERM.fullmatch(part)
            if not found or found["loss"] not in losses:
                raise ValueError(
                    f"{part.strip()!r} in the loss {text!r} is no loss, or not as in 0.3*mse@1 (factor, loss, output); "
                    f"known losses: {', '.join(losses)}"
                )
            output = None if found["output"] is None else int(found["output"])
            self.terms.append((losses[found["loss"]], _factor(found["factor"], text), output))
        if len(self.terms) > MOST:
            raise ValueError(f"the loss has {len(self.terms)} terms, at most {MOST} are possible")
        for options in ("options", "common", "texts"):
            own = {
                f"{i}.{name}": option
                for i, (loss, *_) in enumerate(self.terms)
                for name, option in getattr(loss, options).items()
            }
            setattr(self, options, own)

    def _called(self) -> str:
        return f"loss {self.kind!r}"

    def of(self, options: Mapping[str, Any], outputs: int) -> list[Term]:
        """The terms for a network with so many outputs; `options` are all."""
        found = []
        for i, (loss, factor, output) in enumerate(self.terms):
            output = (i if outputs > 1 else 0) if output is None else output
            if output >= outputs:
                raise ValueError(
                    f"term {i} of the {self._called()} is of output {output}, and the network has {outputs}, counted from "
                    f"0; {loss.kind}@0 is of the first"
                )
            own = {name: options[f"{i}.{name}"] for name in loss.resolve({})}
            found.append(Term(loss, own, factor, output))
        return found


class Losses(dict[str, Any]):
    """The losses by name; looked up by the text of a sum, which is not listed, it gives that."""

    def __missing__(self, name: str) -> Sum:
        if not isinstance(name, str) or not re.search(r"[+*@]", name):
            raise KeyError(name)
        return Sum(name, self)

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        try:
            return bool(isinstance(name, str) and self[name])
        except (KeyError, ValueError):
            return False

    def check(self, name: Any) -> str:
        """The name, if it is one of these or a sum of them; ValueError that says why not."""
        if isinstance(name, str) and re.search(r"[+*@]", name):
            return str(self[name].kind)
        if not isinstance(name, str) or name not in self:
            known = [one for one, loss in self.items() if not loss.proves]
            raise ValueError(unknown("unknown loss", name, known, ", and sums such as cross_entropy + 0.3*mse"))
        return name

    def terms(self, name: str, options: Mapping[str, Any], outputs: int) -> list[Term]:
        """What is to be added up for a network with so many outputs; `options` are all; ValueError where these are several
        and the loss is of one."""
        loss = self[name]
        if isinstance(loss, Sum):
            return loss.of(options, outputs)
        if outputs > 1:
            each = " + ".join([name] * outputs)
            raise ValueError(
                f"the network has {outputs} outputs, and the loss {name!r} is of one; one for each is {each!r}, one of the "
                f"first alone {name + '@0'!r}"
            )
        return [Term(loss, options, 1.0, 0)]


def _parts(text: str) -> list[str]:
    """The terms of a sum; the + of a number such as 1e+3 is none between terms."""
    return re.split(r"(?<![eE])\+|(?<=[a-zA-Z_]{2})\+", text)


def _factor(text: str | None, whole: str) -> float:
    try:
        factor = 1.0 if text is None else float(text)
    except ValueError:
        factor = math.nan
    if not 0 <= factor < 1e30:
        raise ValueError(f"the factor {str(text).strip()!r} in the loss {whole!r} must be a number of at least 0")
    return factor
