"""Stream: training images that come one batch after the other, from an iterator or a PyTorch DataLoader. For chaos.training,
which takes them into a buffer beside the workers."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..arrays import numbers
from ..errors import DataError
from .dataset import Dataset
from .labels import check_names

Source = Callable[..., Iterable[Any]] | Iterable[Any]


class Stream:
    """Training images that are made, read or augmented while the workers train, and never lie in memory as a whole.

    ``chaos.train(net, chaos.data.Stream(loader), test)``. Two buffers take turns: workers train on one while a thread
    fills the other from the source; they meet where one ends. Test and validation sets are a `Dataset`.

    Parameters
    ----------
    source : callable or iterable
        Gives the batches of an epoch: a function that returns an iterable, called with the epoch's number (1, 2, ...) if it
        takes an argument; or what can be gone through again and again, such as a list or a PyTorch ``DataLoader``. A
        batch is (images, labels) or (images, labels, weights), of any number of images, as a `Dataset` takes them; text
        as labels needs `class_names`.
    length : int, optional
        Images of an epoch, the first ones that the source gives, which may go on for ever. That of a ``DataLoader`` is
        known.
    buffer : int
        Images that each of the two buffers holds; brought to whole steps. With ``shuffle=True`` the images of a buffer are
        drawn in another order each epoch; order beyond that is the source's.
    targets : bool
        Whether the second of a batch are targets of another kind than labels, as ``Dataset(images, targets=...)``.
    class_names : iterable of str, optional
    channels : {"first", "last"}, optional
        As for `Dataset`.
    name : str
        For messages; and what tells a stream from another when a run is continued, beside its shape and length.

    Attributes
    ----------
    shape, length, buffer, class_names, name

    Raises
    ------
    DataError
        A source that can be gone through only once, no length, a first batch that is none. In training: a batch that is none
        or is unlike the first, or a source that ends too early or fails; the error tells the epoch and the image.

    Notes
    -----
    A run that was stopped goes on at the image where it was: the source is gone through again up to there, so the same bits
    come of it only where the source gives the same images for the same epoch.
    """

    def __init__(
        self,
        source: Source,
        *,
        length: int | None = None,
        buffer: int = 4096,
        targets: bool = False,
        class_names: Iterable[str] | None = None,
        channels: str | None = None,
        name: str = "stream",
    ) -> None:
        self.name, self.targets, self.channels = str(name), targets, channels
        self.class_names = None if class_names is None else check_names(class_names)
        self.source = source
        if isinstance(source, Dataset):
            raise DataError("a Dataset needs no Stream: chaos.train takes it as it is")
        if not callable(source) and (not hasattr(source, "__iter__") or iter(source) is source):
            raise DataError(
                f"source is {source!r}, which can be gone through only once; give the function that makes it, "
                "or a list or DataLoader"
            )
        self._numbered = callable(source) and not hasattr(source, "__iter__") and _takes_number(source)
        self.length = _whole("length", _length(source) if length is None else length)
        self.buffer = min(_whole("buffer", buffer), self.length)
        self._waiting: tuple[int, Iterator[Any], Dataset] | None = None
        opened = self._open(1)
        try:
            first = next(opened)
        except StopIteration:
            raise DataError(f"{self.name}: the source gives no batch") from None
        self.first = self.batch(first)
        self._waiting = (1, opened, self.first)

    @property
    def shape(self) -> tuple[Any, ...]:
        """Of one image, as of a Dataset."""
        return self.first.shape

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        pixels = " and ".join(f"{'x'.join(map(str, array.shape[1:]))} {array.dtype}" for array in self.first.inputs)
        return f"<Stream {self.name!r}: {self.length} images {pixels} per epoch, {self.buffer} at a time>"

    def fingerprint(self) -> str:
        """Short hash of what is known of it, for resume checks: name, length, shapes and types."""
        import hashlib

        known = [self.name, self.length, self.class_names]
        known += [(array.shape[1:], array.dtype.str) for array in (*self.first.inputs, *self.first.targets)]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    def batches(self, epoch: int) -> Iterator[Dataset]:
        """The batches of an epoch, checked. Not more than one epoch at a time."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting[0] == epoch:
            _, opened, first = waiting
            yield first
        else:
            if waiting is not None:
                _close(waiting[1])
            opened = self._open(epoch)
        try:
            for content in opened:
                yield self.batch(content)
        finally:
            _close(opened)

    def batch(self, content: Any) -> Dataset:
        """What the source gives, as a data set like the first one; DataError where it is none."""
        if not isinstance(content, (tuple, list)) or len(content) not in (2, 3):
            raise DataError(f"a batch must be (images, labels) or (images, labels, weights), not {_described(content)}")
        images, labels, *weights = content
        if isinstance(images, tuple):
            images = tuple(numbers(one, "images") for one in images)
        # an arbitrary number of classes, which the network knows: a batch need not have images of each
        count = None if self.class_names is not None or self.targets else 2**31 - 1
        known: dict[str, Any] = {"targets": labels} if self.targets else {"labels": labels, "classes": count}
        found = Dataset(
            images,
            weights=weights[0] if weights else None,
            class_names=self.class_names,
            channels=self.channels,
            name=self.name,
            **known,
        )
        first = getattr(self, "first", found)
        for what, mine, other in (
            ("images", _kinds(found.inputs), _kinds(first.inputs)),
            ("labels", _kinds(found.targets), _kinds(first.targets)),
            ("weights", found.weights is not None, first.weights is not None),
        ):
            if mine != other:
                raise DataError(f"{what} are {mine}, and those of the first batch {other}")
        return found

    def _open(self, epoch: int) -> Iterator[Any]:
        source: Any = self.source
        if not callable(source) or hasattr(source, "__iter__"):
            return iter(source)
        return iter(source(epoch) if self._numbered else source())


def _takes_number(source: Callable[..., Any]) -> bool:
    """Whether a function takes the number of an epoch."""
    try:
        parameters = inspect.signature(source).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL) for one in parameters)


def _length(source: Any) -> int:
    """Images of an epoch of a DataLoader; DataError where they are not known."""
    try:
        if getattr(source, "batch_size", None) is None:
            raise TypeError
        count = len(source.sampler)
        return int(count // source.batch_size * source.batch_size if source.drop_last else count)
    except (AttributeError, TypeError):
        raise DataError("length= is needed: how many images an epoch has") from None


def _whole(what: str, value: Any) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise DataError(f"{what} is {value!r}; it must be an int of at least 1") from None
    if number < 1:
        raise DataError(f"{what} is {number}; it must be at least 1")
    return number


def _kinds(arrays: Iterable[np.ndarray]) -> str:
    """Shapes and types of one of each, for messages."""
    return " and ".join(f"{array.dtype} {array.shape[1:]}" for array in arrays)


def _described(content: Any) -> str:
    return f"{type(content).__name__} of {len(content)}" if isinstance(content, (tuple, list)) else type(content).__name__


def _close(opened: Any) -> None:
    """Lets a generator end where it is."""
    if hasattr(opened, "close"):
        opened.close()
