"""What every kind of augmentation is: its options, its numbers for the core, its NumPy definition. For the files of this
folder.

The contract with the other half (cext/augment/augment.h): a kind says in `core` which C kind does it, with which options.
Kinds are of one of four sorts: a `Move` gives a matrix or displacements, a `Paint` changes the numbers of an image, a `Mix`
names another image; what of them is random comes from `Draws`, numbers by counter of (seed, epoch, image, step)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..hints import refuse_unknown
from ..layers import random
from ..options import check_number

Array = NDArray[np.float64]
Shape = tuple[int, ...]
Pair = tuple[float, float]

FIRST_STEP, PARTNER = 1 << 32, 1 << 33  # numbers behind those of layers: of the steps, and of the other image of a mixture
PADDING_MODES = ("constant", "edge", "reflect")
KINDS: dict[str, type[Augmentation]] = {}  # by name; a kind is there when its file has been imported


class Draws:
    """The random numbers of one step for one image, as the core draws them."""

    def __init__(self, image_key: NDArray[np.uint64], step: int) -> None:
        self.key = random.key(image_key, FIRST_STEP + step)

    def hashes(self, first: int, count: int = 1) -> NDArray[np.uint64]:
        """Numbers first, first + 1, ... as 64-bit hashes."""
        numbers = np.arange(first + 1, first + 1 + count, dtype=np.uint64)
        return random.mix(self.key + numbers * np.uint64(random.STEP))

    def uniform(self, j: int) -> float:
        """Number j, in [0, 1), a multiple of 2^-24."""
        return float(random.uniform(self.key, 1, j)[0, 0])

    def between(self, j: int, bounds: Pair) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * self.uniform(j)

    def whole(self, j: int, most: int) -> int:
        """One of -most, ..., most."""
        return int(self.uniform(j) * (2 * most + 1)) - most

    def below(self, j: int, n: int) -> int:
        """One of 0, ..., n - 1, from all 64 bits."""
        return int(self.hashes(j)[0]) * n >> 64

    def pairs(self, first: int, count: int) -> tuple[Array, Array]:
        """`count` pairs of numbers in [0, 1), multiples of 2^-24, each from one hash."""
        found = self.hashes(first, count)
        halves = found >> np.uint64(40), found >> np.uint64(16) & np.uint64(0xFFFFFF)
        return halves[0].astype(np.float64) * 2.0**-24, halves[1].astype(np.float64) * 2.0**-24


class Core(NamedTuple):
    """A step as the core takes it: its kind, the kind's options behind the probability, and what lies outside of images."""

    kind: str
    options: tuple[float, ...]
    fill: float = 0.0
    mode: int = 0


@dataclass(frozen=True)
class Augmentation:
    """A step that changes the images on which a network is trained.

    Parameters
    ----------
    p : float
        The probability with which it is done, for each image.
    """

    p: float = dataclasses.field(default=1.0, kw_only=True)

    kind: ClassVar[str] = ""  # in files and on the command line
    spatial: ClassVar[bool] = True  # it is for images (channels, height, width) only

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in vars(cls):
            KINDS[cls.kind] = cls

    def __new__(cls, *_: Any, **named: Any) -> Self:
        """TypeError for options that it does not have."""
        refuse_unknown(cls.__name__, named, (field.name for field in dataclasses.fields(cls) if field.init), {})
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self._set(p=self._number("p", self.p, 0, 1))

    def core(self) -> Core:
        """What the core is told."""
        raise NotImplementedError

    def check(self, shape: Shape) -> None:
        """ValueError where images of that shape cannot be changed so."""
        if self.spatial and len(shape) != 3:
            raise ValueError(f"{self} changes images (channels, height, width), not {shape}")

    def config(self) -> dict[str, Any]:
        """As it is kept in files: its kind and all options."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": self.kind} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in options.items()
        }

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._changed().items())})"

    def _changed(self) -> dict[str, Any]:
        """The options that are not at their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    # ---- checks of options ----

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _number(
        self,
        name: str,
        value: Any,
        least: float = -np.inf,
        most: float = np.inf,
        *,
        whole: bool = False,
        above: bool = False,
    ) -> Any:
        check_number(f"{type(self).__name__}: {name}", value, least, most, whole=whole, above=above)
        return int(value) if whole else float(value)

    def _numbers(self, name: str, value: Any, wanted: str, **bounds: Any) -> tuple[Any, Any]:
        """Two numbers."""
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ValueError(f"{type(self).__name__}: {name} must be a number or {wanted}, not {value!r}")
        return self._number(name, value[0], **bounds), self._number(name, value[1], **bounds)

    def _sides(self, name: str, value: Any, least: float, *, whole: bool = True) -> tuple[Any, Any]:
        """A number for both directions, or (vertical, horizontal)."""
        if isinstance(value, (tuple, list)):
            return self._numbers(name, value, "(vertical, horizontal)", least=least, most=1 << 20, whole=whole)
        return (self._number(name, value, least, 1 << 20, whole=whole),) * 2

    def _range(self, name: str, value: Any, centre: float, least: float, most: float) -> Pair:
        """(low, high), or of one number x: centre - x, centre + x, the former not below `least`."""
        if isinstance(value, (tuple, list)):
            low, high = self._numbers(name, value, "(low, high)", least=least, most=most)
            if low > high:
                raise ValueError(f"{type(self).__name__}: {name} must be (low, high) with low <= high, not {value!r}")
            return low, high
        spread = self._number(name, value, 0, most)
        return max(centre - spread, least), min(centre + spread, most)


@dataclass(frozen=True)
class Move(Augmentation):
    """A step that moves an image. Neighbours among such steps that have the same `fill` and `padding_mode` are one
    resampling: their matrices are multiplied, displacements are added at the end, and every pixel is interpolated once
    (bilinearly), or copied where pixels only change places.

    Parameters
    ----------
    fill : float
        What lies outside of an image, in the images' own numbers (uint8: 0..255).
    padding_mode : str
        "constant": `fill`; "edge": the nearest pixel of the image; "reflect": the image's mirror image about its outermost
        pixels.
    """

    fill: float = dataclasses.field(default=0.0, kw_only=True)
    padding_mode: str = dataclasses.field(default="constant", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(fill=self._number("fill", self.fill, -1e30, 1e30))
        if self.padding_mode not in PADDING_MODES:
            known = ", ".join(PADDING_MODES)
            raise ValueError(f"{type(self).__name__}: padding_mode must be one of {known}, not {self.padding_mode!r}")

    def core(self) -> Core:
        kind, numbers = self._core()
        return Core(kind, (self.p, *numbers), self.fill, PADDING_MODES.index(self.padding_mode))

    def _core(self) -> tuple[str, tuple[float, ...]]:
        """The C kind and its options behind the probability."""
        raise NotImplementedError

    def matrix(self, draws: Draws) -> tuple[Array, Array]:
        """(m (2, 2), t (2,)): the pixel at p = (y, x), counted from the image's centre, comes from m p + t."""
        return np.eye(2), np.zeros(2)

    def field(self, draws: Draws, shape: Shape) -> Array | float:
        """(2, h, w): what is added to where each pixel comes from, in pixels down and to the right."""
        return 0.0


@dataclass(frozen=True)
class Paint(Augmentation):
    """A step that changes the numbers of an image."""

    def paint(self, x: Array, draws: Draws, black: float, unit: float, bounds: Pair) -> Array:
        """`x` as the network sees it, changed: its own number v is seen as black + v * unit, and lies within `bounds`."""
        raise NotImplementedError


class Mixture(NamedTuple):
    """Another image, the share of the image itself in the target, and the pixels that are taken of the other one: None, of
    each a share."""

    partner: int
    share: float
    box: tuple[slice, slice] | None = None


@dataclass(frozen=True)
class Mix(Augmentation):
    """A step that mixes an image and its target with another one, of the same data set, which has gone through the steps
    before with random numbers of its own. At most one step mixes."""

    def mixture(self, draws: Draws, shape: Shape, images: int) -> Mixture | None:
        """With what an image of that shape is mixed, of so many images."""
        raise NotImplementedError
