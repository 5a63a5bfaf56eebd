"""Networks from a line of text: INPUT -> [[CONV -> RELU]*N -> POOL?]*M -> [FC -> RELU]*K -> FC. Imported by chaos.models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..hints import ZOO, explained
from ..layers import (
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Node,
    ReLU,
    Sigmoid,
    Tanh,
)
from ..layers.base import whole
from ..network import Network

MOST_LAYERS = 10_000  # of a pattern, against a slip in a factor
MOST_MAPS = 512

# what needs no numbers
PLAIN: dict[str, Callable[[], Layer]] = {
    "RELU": ReLU,
    "TANH": Tanh,
    "SIGMOID": Sigmoid,
    "POOL": lambda: MaxPool2d(2),
    "LRN": lambda: LocalResponseNorm(5),
    "DROPOUT": Dropout,
}
WORDS = ("INPUT", "CONV", "FC", "BN", *PLAIN)
_TOKEN = re.compile(r"\s*(?:(?P<arrow>->|→)|(?P<word>[A-Za-z_]\w*)|(?P<number>\d+)|(?P<sign>[\[\]*?]))")


@dataclass(frozen=True)
class _Word:
    """A layer of the pattern, and where it stands in the text; `optional`: followed by a question mark."""

    name: str
    place: int
    optional: bool = False


@explained(ZOO)
def pattern(
    text: str,
    seed: int = 0,
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    repeats: Mapping[str, int] | None = None,
    maps: int | Sequence[int] = 32,
    kernel_size: int = 3,
    hidden: int = 128,
    optional: bool | Sequence[bool] = True,
) -> Network:
    """The network that a pattern describes, as the course CS231n (Karpathy et al., Stanford, "Convolutional networks: layer
    patterns") writes them::

        chaos.models.pattern("INPUT -> [[CONV -> RELU]*2 -> POOL?]*3 -> [FC -> RELU]*1 -> FC")
        chaos.models.pattern("INPUT -> [CONV -> RELU]*N -> FC", repeats={"N": 3})

    A pattern is a chain of layers with "->" between them. What is in square brackets is one piece; "*" and a number, or a
    name that `repeats` gives one, repeats what is before it, 0 times as well; "?" makes it optional. Layers are INPUT
    (first, and nowhere else), CONV (a convolution that keeps the size), POOL (2x2 max-pooling), FC (fully connected), and
    RELU, TANH, SIGMOID, BN (batch normalisation), LRN, DROPOUT.

    Parameters
    ----------
    text : str
    seed : int
        Of the first values: `kaiming_normal` where there is a RELU, else `xavier_uniform`; biases 0.
    input_shape : (int, int, int)
    classes : int
        Units of the last FC, with which a pattern ends.
    repeats : dict of str to int, optional
        Numbers for names that stand behind "*".
    maps : int or sequence of int
        Output maps of convolutions before the first pooling, which double behind each one, up to 512; or those before the
        first, before the second and so on, of which the last counts for all that follow.
    kernel_size, hidden : int
        Of convolutions; units of all FC but the last.
    optional : bool or sequence of bool
        Whether what is followed by "?" is there: for all, or for each in the order in which they come when the pattern is
        written out.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        Where the text is no pattern, a layer does not fit where it stands, or numbers are missing or left over; the message
        shows the place.
    """
    if not isinstance(text, str):
        raise TypeError(f"a pattern is a text, not {type(text).__name__}")
    for what, number in (("classes", classes), ("kernel_size", kernel_size), ("hidden", hidden)):
        whole(what, number)
    words = _chosen(text, _Parser(text, dict(repeats or {})).parse(), optional)
    if not words or words[0].name != "INPUT":
        raise _error(text, words[0].place if words else len(text), "a pattern begins with INPUT")
    if words[-1].name != "FC":
        raise _error(text, words[-1].place, "a pattern ends with FC, which gives the classes")
    image = Input(input_shape)
    y: Node = image
    for i, word in enumerate(words[1:], 1):
        units = classes if i == len(words) - 1 else hidden
        for layer in _layers(text, word, y, units, _maps(maps, words[:i]), kernel_size):
            try:
                y = layer(y)
            except ValueError as error:
                raise _error(text, word.place, f"{word.name} does not fit here: {error}") from None
    net = Network(image, y, seed=seed)
    rectified = any(word.name == "RELU" for word in words)
    net.initialise("kaiming_normal" if rectified else "xavier_uniform", "zeros", seed=seed)
    return net


def _layers(text: str, word: _Word, before: Node, units: int, maps: int, kernel_size: int) -> list[Layer]:
    """What a word stands for behind a node."""
    if word.name == "INPUT":
        raise _error(text, word.place, "INPUT stands at the beginning only")
    if word.name == "FC":
        return [*([Flatten()] if len(before.shape) > 1 else []), Linear(units)]
    if word.name == "CONV":
        return [Conv2d(maps, kernel_size, padding="same")]
    if word.name == "BN":
        return [BatchNorm2d() if len(before.shape) == 3 else BatchNorm1d()]
    return [PLAIN[word.name]()]


def _maps(maps: int | Sequence[int], before: Sequence[_Word]) -> int:
    """Output maps of a convolution that stands behind those words."""
    level = sum(word.name == "POOL" for word in before)
    if isinstance(maps, (list, tuple)) and maps:
        found: int = whole("maps", maps[min(level, len(maps) - 1)])
        return found
    first = whole("maps", maps)
    doubled: int = max(first, min(first * 2**level, MOST_MAPS))
    return doubled


def _chosen(text: str, words: Sequence[_Word], optional: bool | Sequence[bool]) -> list[_Word]:
    """Without those optional ones that are not to be there."""
    count = sum(word.optional for word in words)
    answers = [optional] * count if isinstance(optional, bool) else list(optional)
    if len(answers) != count or not all(isinstance(answer, bool) for answer in answers):
        raise ValueError(f"pattern {text!r} has {count} optional layers; optional must be True, False or as many of them")
    rest = iter(answers)
    return [word for word in words if not word.optional or next(rest)]


def _error(text: str, place: int, what: str) -> ValueError:
    return ValueError(f"pattern: {what}, at character {place + 1}:\n    {text}\n    {' ' * place}^")


class _Parser:
    """Reads chains of pieces by recursive descent, writing out what is repeated."""

    def __init__(self, text: str, repeats: dict[str, int]) -> None:
        self.text = text
        self.repeats = repeats
        self.used: set[str] = set()
        self.tokens: list[tuple[str, str, int]] = []
        self.next = 0
        end = len(text.rstrip())
        place = 0
        while place < end:
            found = _TOKEN.match(text, place)
            if not found or found.lastgroup is None:
                place += len(text[place:]) - len(text[place:].lstrip())
                raise _error(text, place, f"{text[place]!r} has no meaning here")
            self.tokens.append((found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)))
            place = found.end()
        self.tokens.append(("end", "the end", end))

    def parse(self) -> list[_Word]:
        words = self.chain()
        if self.tokens[self.next][0] != "end":
            raise self.unexpected("'->' or the end")
        if left := sorted(self.repeats.keys() - self.used):
            raise ValueError(f"pattern {self.text!r} repeats nothing {', '.join(left)} times, which repeats names")
        return words

    def unexpected(self, wanted: str) -> ValueError:
        kind, value, place = self.tokens[self.next]
        return _error(self.text, place, f"{wanted} is expected, not {value if kind == 'end' else repr(value)}")

    def take(self, *values: str) -> bool:
        """Whether the next token is one of these; it is taken then."""
        kind, value, _ = self.tokens[self.next]
        if kind == "end" or value not in values:
            return False
        self.next += 1
        return True

    def chain(self) -> list[_Word]:
        words = self.piece()
        while self.take("->", "→"):
            words = words + self.piece()
            if len(words) > MOST_LAYERS:
                raise ValueError(f"pattern {self.text!r} has more than {MOST_LAYERS:,} layers")
        return words

    def piece(self) -> list[_Word]:
        kind, value, place = self.tokens[self.next]
        if self.take("["):
            words = self.chain()
            if not self.take("]"):
                raise self.unexpected("'->' or ']'")
        elif kind == "word":
            if value not in WORDS:
                close = difflib.get_close_matches(value.upper(), WORDS, 1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise _error(self.text, place, f"unknown layer {value!r}; {hint}known: {', '.join(WORDS)}")
            self.next += 1
            words = [_Word(value, place)]
        else:
            raise self.unexpected("a layer or '['")
        while True:
            if self.take("*"):
                words = words * self.factor(len(words))
            elif self.take("?"):
                words = [_Word(word.name, word.place, True) for word in words]
            else:
                return words

    def factor(self, length: int) -> int:
        kind, value, place = self.tokens[self.next]
        if kind == "number":
            count = int(value)
        elif kind == "word":
            if value not in self.repeats:
                raise _error(self.text, place, f"{value} needs a number: repeats={{{value!r}: 2}}")
            self.used.add(value)
            count = whole(f"repeats[{value!r}]", self.repeats[value], 0)
        else:
            raise self.unexpected("a number, or a name for one,")
        self.next += 1
        if count * length > MOST_LAYERS:
            raise _error(self.text, place, f"{count} times are more than {MOST_LAYERS:,} layers")
        return count
