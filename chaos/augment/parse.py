"""The steps of an augmentation, from objects, dicts or texts, and whether they go with a training. For chaos.augment."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..options import unknown
from .base import KINDS, Augmentation, Mix, Move

MOST_STEPS = 16  # the core has room for


def steps(asked: Any) -> list[Augmentation]:
    """The steps that are asked for.

    Parameters
    ----------
    asked : None, a step, or sequence of steps
        A step is an `Augmentation`, a dict as `Augmentation.config` gives it, or a text: a kind and, behind a colon, options
        with commas between, in their order or by name, such as "flip", "elastic:34,4" or "crop:4,padding_mode=reflect";
        -5..10 is a range, 4x8 a height and width.

    Raises
    ------
    ValueError
        Unknown kinds and options, values that make no sense, more than one step that mixes, more than 16 steps.
    """
    if asked is None:
        return []
    if isinstance(asked, (Augmentation, str, Mapping)):
        asked = [asked]
    if not isinstance(asked, Iterable):
        raise ValueError(f"augment must be a list of steps such as chaos.augment.Shift(2), not {asked!r}")
    found = [_step(one) for one in asked]
    if len(found) > MOST_STEPS:
        raise ValueError(f"augment has {len(found)} steps; at most {MOST_STEPS} are possible")
    mixes = [str(step) for step in found if isinstance(step, Mix)]
    if len(mixes) > 1:
        raise ValueError(f"augment has several steps that mix images, {', '.join(mixes)}; at most one can")
    return found


def resolve(asked: Any) -> list[dict[str, Any]] | None:
    """The steps that are asked for as they are kept in files; None: none."""
    return [step.config() for step in steps(asked)] or None


def _step(asked: Any) -> Augmentation:
    if isinstance(asked, Augmentation):
        return asked
    if isinstance(asked, str):
        name, _, text = asked.partition(":")
        positional, named = _options(name.strip().lower().replace("-", "_"), text)
    elif isinstance(asked, Mapping) and isinstance(asked.get("kind"), str):
        name, positional, named = asked["kind"], [], {key: value for key, value in asked.items() if key != "kind"}
    else:
        raise ValueError(f"a step of augment is a chaos.augment kind, a dict with its kind, or a text, not {asked!r}")
    kind = _kind(name.strip().lower().replace("-", "_"))
    known = [field.name for field in _fields(kind)]
    for option in named:
        if option not in known:
            raise ValueError(f"augmentation {kind.kind!r} has no option {option!r}; its options: {', '.join(known)}")
    by_place = [field.name for field in dataclasses.fields(kind) if not field.kw_only]
    if len(positional) > len(by_place):
        raise ValueError(
            f"augmentation {kind.kind!r} takes {len(by_place)} options by their place "
            f"({', '.join(by_place) or 'none'}), not {len(positional)}"
        )
    for option in by_place[: len(positional)]:
        if option in named:
            raise ValueError(f"augmentation {kind.kind!r}: option {option} is given twice")
    return kind(*positional, **named)


def _kind(name: str) -> type[Augmentation]:
    if name not in KINDS:
        raise ValueError(unknown("unknown augmentation", name, KINDS))
    return KINDS[name]


def _fields(kind: type[Augmentation]) -> list[dataclasses.Field[Any]]:
    """The options of a kind, those that can be given by their place first."""
    return sorted(dataclasses.fields(kind), key=lambda field: bool(field.kw_only))


def _options(name: str, text: str) -> tuple[list[Any], dict[str, Any]]:
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        option, equals, value = part.partition("=")
        if equals:
            named[option.strip().replace("-", "_")] = _value(value.strip())
        elif named:
            raise ValueError(f"augmentation {name!r}: {part} has no name, but comes after options that have one")
        else:
            positional.append(_value(part))
    return positional, named


def _value(text: str) -> Any:
    """What a text means: a number, a pair of them, yes or no, or a word."""
    for mark in ("..", "x"):
        low, found, high = text.partition(mark)
        if found and isinstance(_number(low), (int, float)) and isinstance(_number(high), (int, float)):
            return _number(low), _number(high)
    if text.lower() in ("yes", "no", "true", "false"):
        return text.lower() in ("yes", "true")
    return _number(text)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def describe() -> list[str]:
    """A line for each kind: its options with their defaults, and what it does."""
    lines = ["augmentation, KIND or KIND:OPTION,...,NAME=OPTION,... with options in this order:"]
    for name, kind in KINDS.items():
        options = ", ".join(f"{field.name}={_text(field.default)}" for field in _fields(kind))
        first = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ").replace("`", "")
        lines.append(f"  {name}:{options}  {first}")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Target(NamedTuple):
    """What a term of the loss compares an output with.

    Attributes
    ----------
    loss : str
    takes : sequence of str
        The forms of targets that it takes.
    options : mapping
        Of the loss.
    form : str
        Of chaos.losses.
    shape : tuple of int
        Of the output.
    """

    loss: str
    takes: Sequence[str]
    options: Mapping[str, Any]
    form: str
    shape: tuple[int, ...]

    def check(self, step: Augmentation) -> None:
        """ValueError where a step of augmentation does not go with it."""
        if isinstance(step, Mix):
            if "values" not in self.takes or self.form == "map":
                raise ValueError(
                    f"{step} makes probabilities of classes, one set for each image; loss {self.loss!r} "
                    + ("has targets with a class for each pixel here" if self.form == "map" else "does not take them")
                )
            if self.options.get("log_target"):
                raise ValueError(
                    f"{step} takes means of targets, which are logarithms where loss {self.loss!r} has log_target"
                )
        of_pixels = self.form == "map" or (self.form == "values" and len(self.shape) > 1)
        if of_pixels and (isinstance(step, Move) or step.kind == "cutmix"):
            raise ValueError(
                f"{step} moves pixels, but not the targets that belong to them, of outputs of shape {self.shape}"
            )


def check(found: Sequence[Augmentation], input_shapes: Sequence[tuple[int, ...]], targets: Sequence[Target]) -> None:
    """ValueError where steps do not go with a network's inputs, or with what the loss compares its outputs with."""
    if found and len(input_shapes) != 1:
        raise ValueError(f"augmentation is for networks of one input, not of {len(input_shapes)}")
    for step in found:
        step.check(input_shapes[0])
        for target in targets:
            target.check(step)
