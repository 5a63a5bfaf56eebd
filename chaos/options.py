"""Options of strategies and update rules: defaults, checks, and their numbers for the core. Below all but chaos.hints."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .hints import meant as hint_for
from .hints import nearest as nearest


def check_number(
    what: str, value: Any, least: float = -math.inf, most: float = math.inf, *, whole: bool = False, above: bool = False
) -> None:
    """ValueError naming `what`, unless `value` is a finite number of least..most (with `above`: more than least)."""
    kinds: Any = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    # NaN fails every comparison
    if (
        isinstance(value, bool)
        or not isinstance(value, kinds)
        or not least <= value <= most
        or abs(value) == math.inf
        or (above and value == least)
        or (not whole and isinstance(value, int) and abs(value) > sys.float_info.max)
    ):
        bound = f" of {'more than' if above else 'at least'} {least}" if least > -math.inf else ""
        bound += "" if most == math.inf else f"{' and' if bound else ' of'} at most {most}"
        raise ValueError(f"{what} must be a {'whole ' if whole else ''}number{bound}, not {value!r}")


def check_flag(what: str, value: Any) -> bool:
    """`value` as a bool; ValueError naming `what`, unless it is True or False: the text "no" is neither."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{what} must be True or False, not {value!r}")
    return bool(value)


def unknown(what: str, name: object, known: Iterable[str], more: str = "") -> str:
    """The message about a name that is none of the known ones: the nearest of them, then all, then `more`."""
    known = list(known)
    plain = name is None or isinstance(name, (str, int, float, bytes, list, tuple, dict))
    meant = nearest(name if isinstance(name, str) else type(name).__name__, known)
    shown = repr(name) if plain else f"of the type {type(name).__name__}"
    return f"{what} {shown}; {f'did you mean {meant}? ' if meant else ''}known: {', '.join(known) or 'none'}{more}"


class Option:
    """One option.

    Parameters
    ----------
    default : number, str or None
        None is always allowed where it is the default; the core then gets the number 0.
    text : str
        What it is, for help and documentation, with its unit.
    least, most, whole, above
        As for `check_number`.
    choices : tuple of str, optional
        The option is one of these words instead of a number; the core gets its place in the tuple.
    """

    def __init__(
        self,
        default: Any,
        text: str,
        least: float = -math.inf,
        most: float = math.inf,
        *,
        whole: bool = False,
        above: bool = False,
        choices: tuple[str, ...] | None = None,
    ) -> None:
        self.default, self.text, self.choices = default, text, choices
        self.bounds: dict[str, Any] = dict(least=least, most=most, whole=whole, above=above)

    def check(self, what: str, value: Any) -> Any:
        """The value in its own type; ValueError where it makes no sense."""
        if value is None and self.default is None:
            return None
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"{what} must be one of {', '.join(self.choices)}, not {value!r}")
            return value
        check_number(what, value, **self.bounds)
        return int(value) if self.bounds["whole"] else float(value)

    def parse(self, what: str, text: str) -> Any:
        """The value that a command line means by `text`."""
        if text.lower() == "none" and self.default is None:
            return None
        if self.choices:
            return self.check(what, text)
        try:
            value = int(text) if self.bounds["whole"] else float(text)
        except ValueError:
            raise ValueError(f"{what} must be a {'whole ' if self.bounds['whole'] else ''}number, not {text!r}") from None
        return self.check(what, value)

    def number(self, value: Any) -> float:
        """The value as the core's number."""
        return 0.0 if value is None else float(self.choices.index(value) if self.choices else value)

    def numbers(self, value: Any) -> list[float]:
        """The value as an array for the core, where it takes arrays: of one number, or of none for None."""
        return [] if value is None else [self.number(value)]


class Worded(Option):
    """A number, or one of a few words for numbers that only the training knows (`Strategy.settle`).

    Parameters
    ----------
    words : tuple of str
    others
        As for `Option`.
    """

    def __init__(
        self, default: int | str, text: str, least: float, most: float, *, words: tuple[str, ...], whole: bool = False
    ) -> None:
        super().__init__(default, text, least, most, whole=whole)
        self.words = words

    def check(self, what: str, value: Any) -> Any:
        if isinstance(value, str):
            if value not in self.words:
                raise ValueError(f"{what} must be a number or one of {', '.join(self.words)}, not {value!r}")
            return value
        return super().check(what, value)

    def parse(self, what: str, text: str) -> Any:
        return text.lower() if text.lower() in self.words else super().parse(what, text)

    def number(self, value: Any) -> float:
        if isinstance(value, str):
            raise ValueError(f"{value!r} stands for a number that is found out when a training begins; give the number")
        return super().number(value)


class Flag(Option):
    """An option that is True or False; on a command line yes or no, for the core 1 or 0."""

    def __init__(self, default: bool, text: str) -> None:
        super().__init__(default, text)

    def check(self, what: str, value: Any) -> bool:
        return check_flag(what, value)

    def parse(self, what: str, text: str) -> bool:
        if text.lower() not in ("yes", "no", "true", "false"):
            raise ValueError(f"{what} must be yes or no, not {text!r}")
        return text.lower() in ("yes", "true")


class Numbers(Option):
    """An option that is a list of numbers, or, where the default is a number, that or one number; on a command line 1,2,3.

    Parameters
    ----------
    default : number or None
    each : str
        What every number belongs to, for messages.
    """

    def __init__(
        self, default: float | None, text: str, least: float = -math.inf, *, each: str, above: bool = False
    ) -> None:
        super().__init__(default, text, least, above=above)
        self.each = each

    def check(self, what: str, value: Any) -> float | list[float] | None:
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if isinstance(value, (list, tuple)):
            if not value:
                raise ValueError(f"{what} must have one number per {self.each}, not none at all")
            for at, one in enumerate(value):
                check_number(f"{what}: number {at}", one, **self.bounds)
            return [float(one) for one in value]
        if self.default is None and value is not None:
            raise ValueError(f"{what} must be a list of numbers, one per {self.each}, not {value!r}")
        found: float | None = super().check(what, value)
        return found

    def parse(self, what: str, text: str) -> float | list[float] | None:
        if text.lower() == "none" and self.default is None:
            return None
        try:
            values = [float(one) for one in text.split(",")]
        except ValueError:
            raise ValueError(f"{what} must be numbers with commas between, as 1,2.5,1, not {text!r}") from None
        return self.check(what, values[0] if len(values) == 1 and self.default is not None else values)

    def numbers(self, value: Any) -> list[float]:
        return [*value] if isinstance(value, list) else super().numbers(value)


class Text(Option):
    """An option that is a text, or None; the core is not told.

    Parameters
    ----------
    text : str
        As for `Option`.
    read : callable
        ``read(what, value)`` raises ValueError, which names `what`, where the text means nothing.
    """

    def __init__(self, text: str, read: Callable[[str, str], object]) -> None:
        super().__init__(None, text)
        self.read = read

    def check(self, what: str, value: Any) -> str | None:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{what} must be a text, not {value!r}")
        if value is not None:
            self.read(what, value)
        return value

    def parse(self, what: str, text: str) -> str | None:
        return None if text.lower() == "none" else self.check(what, text)


class UnknownOption(ValueError):
    """What `owner` (in words) is asked for an option that it does not have.

    Attributes
    ----------
    name : str
        Of the option.
    """

    def __init__(self, owner: str, name: str, known: Sequence[str], words: Mapping[str, str]) -> None:
        super().__init__(
            f"{owner} has no option {name!r}; "
            + (f"its options: {', '.join(known)}" if known else "it has none")
            + hint_for(name, known, words)
        )
        self.name = name


@contextmanager
def naming_owners(what: str, table: Mapping[str, WithOptions]) -> Iterator[None]:
    """Within it, `UnknownOption` also says how those of a table that have the option are asked for: by `what` and name."""
    try:
        yield
    except UnknownOption as error:
        name = error.name.replace("-", "_")
        having = [one for one, owner in table.items() if name in owner.known]
        if not having:
            raise
        also = f" (also {', '.join(having[1:])})" if len(having) > 1 else ""
        raise ValueError(f"{error}; {what}{having[0]} has it{also}") from None


class WithOptions:
    """Something with options.

    Attributes
    ----------
    options : dict of str to Option
        In the order in which the core knows them.
    common : dict of str to Option
        Further ones, which the core is told in another way.
    texts : dict of str to Text
        Those that it is not told.
    words : mapping of str to str
        What others call them, and what is found elsewhere here: as in `chaos.hints`.
    """

    options: dict[str, Option] = {}
    common: dict[str, Option] = {}
    texts: dict[str, Text] = {}
    words: Mapping[str, str] = {}

    def _called(self) -> str:
        raise NotImplementedError

    @property
    def known(self) -> dict[str, Option]:
        """All its options."""
        return self.options | self.common | self.texts

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options {name: value}, the given ones checked, the others at their defaults; ValueError for unknown names,
        with the known ones, and for values that make no sense."""
        if not isinstance(given, dict):
            raise ValueError(f"the options of {self._called()} must be a dict, not {given!r}")
        for name in given:
            self._option(name)
        return {
            name: option.check(f"option {name} of {self._called()}", given[name]) if name in given else option.default
            for name, option in self.known.items()
        }

    def parse(self, pairs: Iterable[str]) -> dict[str, Any]:
        """The options that a command line means by ["name=value", ...]."""
        given = {}
        for pair in pairs:
            name, equals, text = pair.partition("=")
            option = self._option(name.replace("-", "_"))
            if not equals:
                raise ValueError(f"option {name} of {self._called()} needs a value: {name}=VALUE ({option.text})")
            given[name.replace("-", "_")] = option.parse(f"option {name} of {self._called()}", text)
        return given

    def describe(self) -> list[str]:
        """A line for each option: name, default, text, and what it may be."""
        lines = [f"options of {self._called()}:"]
        for name, option in self.known.items():
            default = (
                "none"
                if option.default is None
                else "yes"
                if option.default is True
                else "no"
                if option.default is False
                else option.default
            )
            known = option.choices or (option.words if isinstance(option, Worded) else ())
            words = f" ({', '.join(known)})" if known else ""
            lines.append(f"  {name}={default}  {option.text}{words}")
        return lines if len(lines) > 1 else [f"{self._called()} has no options"]

    def _option(self, name: str) -> Option:
        if name not in self.known:
            raise UnknownOption(self._called(), name, list(self.known), self.words)
        return self.known[name]

    def core_options(self, resolved: dict[str, Any]) -> list[float]:
        """The numbers for the core."""
        return [option.number(resolved[name]) for name, option in self.options.items()]

    def core_arrays(self, resolved: dict[str, Any]) -> list[list[float]]:
        """The same, for kinds of which the core takes arrays (losses)."""
        return [option.numbers(resolved[name]) for name, option in self.options.items()]
