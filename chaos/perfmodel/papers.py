"""The performance models of the CHAOS papers, with their constants. Standard library only; for chaos.perfmodel.

P1: Viebke, Memeti, Pllana, Abraham 2017 (arXiv 1702.07908). P3: Viebke, Pllana, Memeti, Kolodziej 2019 (arXiv 1906.01992).
Both describe a Xeon Phi 7120P: 61 cores, 4 hardware threads each. How sure a constant is, is said beside it:

- "confirmed": the published predictions follow from it to three digits;
- "unconfirmed": nothing published depends on it closely enough to check it;
- "derived": not in the papers, calculated from what is.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TypedDict

CLOCK = 1.238e9  # Hz; confirmed
OPERATION_FACTOR = 15  # confirmed
CORES = 61
IMAGES, TEST_IMAGES = 60_000, 10_000
EPOCHS = {"small": 70, "medium": 70, "large": 15}  # confirmed
ACCURACY = {"a": 0.15, "b": 0.11}  # mean deviation from measurements that P3 states

# Operations per image (model a), confirmed. Medium's preparation is also given as 1e10, but only 1e9 leads to the
# published predictions.
FORWARD = {"small": 58e3, "medium": 559e3, "large": 5_349e3}
BACKWARD = {"small": 524e3, "medium": 6_119e3, "large": 73_178e3}
PREPARATION = {"small": 1e9, "medium": 1e9, "large": 1e11}

# Measured on one thread of the Phi (model b), seconds per image and seconds. Confirmed for large only.
FORWARD_SECONDS = {"small": 1.45e-3, "medium": 12.55e-3, "large": 148.88e-3}
BACKWARD_SECONDS = {"small": 5.3e-3, "medium": 69.73e-3, "large": 859.19e-3}
PREPARATION_SECONDS = {"small": 12.56, "medium": 12.7, "large": 13.5}

# {threads: seconds}: MemoryContention(p). From 480 on the papers extrapolate; these are confirmed, as is 240 for small.
CONTENTION = {
    "small": {
        1: 7.10e-6,
        15: 6.40e-4,
        30: 1.36e-3,
        60: 3.07e-3,
        120: 6.76e-3,
        180: 9.95e-3,
        240: 1.40e-2,
        480: 2.78e-2,
        960: 5.60e-2,
        1920: 1.12e-1,
        3840: 2.25e-1,
    },
    "medium": {
        1: 1.56e-4,
        15: 2.00e-3,
        30: 3.97e-3,
        60: 8.03e-3,
        120: 1.65e-2,
        180: 2.50e-2,
        240: 3.83e-2,
        480: 7.31e-2,
        960: 1.47e-1,
        1920: 2.95e-1,
        3840: 5.91e-1,
    },
    "large": {
        1: 8.83e-4,
        15: 8.75e-3,
        30: 1.67e-2,
        60: 3.22e-2,
        120: 6.74e-2,
        180: 1.00e-1,
        240: 1.38e-1,
        480: 2.73e-1,
        960: 5.46e-1,
        1920: 1.09,
        3840: 2.19,
    },
}

# Published predictions of model (a) in minutes; confirmed.
PUBLISHED_THREADS = {
    "small": {480: 6.6, 960: 5.4, 1920: 4.9, 3840: 4.6},
    "medium": {480: 36.8, 960: 23.9, 1920: 17.4, 3840: 14.2},
    "large": {480: 92.9, 960: 60.8, 1920: 44.8, 3840: 36.8},
}
# {(threads, training images, test images, epochs): minutes}, small net.
PUBLISHED_EPOCHS = {
    (threads, i, it, epochs): minutes
    for threads, i, it, row in [
        (240, 60_000, 10_000, (8.9, 17.6, 35.0, 69.7)),
        (240, 120_000, 20_000, (17.6, 35.0, 69.7, 139.3)),
        (240, 240_000, 40_000, (35.0, 69.7, 139.3, 278.3)),
        (480, 60_000, 10_000, (6.6, 12.9, 25.6, 51.1)),
        (480, 120_000, 20_000, (12.9, 25.6, 51.1, 101.9)),
        (480, 240_000, 40_000, (25.6, 51.1, 101.9, 203.6)),
    ]
    for epochs, minutes in zip((70, 140, 280, 560), row, strict=True)
}


class Terms(TypedDict):
    """Seconds, see `model_a`."""

    preparation: float
    training: float
    validation: float
    testing: float
    contention: float
    total: float
    sure: str


def cpi(threads: int) -> float:
    """Cycles per instruction: 1 for up to two threads per core, 1.5 for three, 2 for four and for more than 244 threads."""
    per_core = -(-threads // CORES)
    return 1.0 if per_core <= 2 else 1.5 if per_core == 3 else 2.0


def contention(model: str, threads: int) -> float:
    """MemoryContention(p) in seconds: the papers' table; linear between its entries and proportional beyond (derived)."""
    table = CONTENTION[_known(model)]
    _at_least_one("threads", threads)
    known = sorted(table)
    if threads in table:
        return table[threads]
    if threads > known[-1]:
        return table[known[-1]] * threads / known[-1]
    at = bisect_left(known, threads)
    a, b = known[at - 1], known[at]
    return table[a] + (table[b] - table[a]) * (threads - a) / (b - a)


def contention_per_image(model: str, threads: int = 240) -> float:
    """What contention costs an image, in seconds of run time: MemoryContention(p) / p (derived).

    From some dozens of threads on it is all but constant (58, 160 and 575 us at 240 threads): the models treat the
    publication of weights as fully serialised, so it is a floor of the run time however many threads there are.
    """
    return contention(model, threads) / threads


def floor_seconds(model: str, images: int = IMAGES, epochs: int | None = None, threads: int = 240) -> float:
    """The run time that no number of threads goes below: contention_per_image x images x epochs (derived)."""
    _check(model, threads, images, 0, epochs)
    return contention_per_image(model, threads) * images * _epochs(model, epochs)


def model_a(
    model: str, threads: int, images: int = IMAGES, test_images: int = TEST_IMAGES, epochs: int | None = None
) -> Terms:
    """Model (a) of P1 and P3: counted operations.

    T = Prep OF/s + (4 i + 2 it + 10 ep)/s + [(FProp + BProp) i + FProp i + FProp it] OF/s ep/p CPI + Tmem,
    Tmem = MemoryContention(p) ep i/p. The papers validate on the training images after each epoch.

    Parameters
    ----------
    model : str
        small, medium or large.
    threads : int
        Hardware threads, p.
    images, test_images : int
        i and it, per epoch.
    epochs : int, optional
        ep; 70, 70 and 15 as in the papers by default.

    Returns
    -------
    dict
        preparation, training, validation, testing, contention and their sum, total, in seconds; sure: "confirmed" or
        "unconfirmed", by the least sure constant that was used.

    Raises
    ------
    ValueError
        Unknown names, impossible numbers.
    """
    epochs = _check(model, threads, images, test_images, epochs)
    operation = OPERATION_FACTOR / CLOCK
    preparation = PREPARATION[model] * operation + (4 * images + 2 * test_images + 10 * epochs) / CLOCK
    return _terms(
        model,
        threads,
        images,
        test_images,
        epochs,
        preparation,
        FORWARD[model] * operation,
        BACKWARD[model] * operation,
        True,
    )


def model_b(
    model: str, threads: int, images: int = IMAGES, test_images: int = TEST_IMAGES, epochs: int | None = None
) -> Terms:
    """Model (b) of P3: the shape of `model_a` with times that were measured on one thread.

    Parameters and result are those of `model_a`.
    """
    epochs = _check(model, threads, images, test_images, epochs)
    return _terms(
        model,
        threads,
        images,
        test_images,
        epochs,
        PREPARATION_SECONDS[model],
        FORWARD_SECONDS[model],
        BACKWARD_SECONDS[model],
        model == "large",
    )


def _terms(
    model: str,
    threads: int,
    images: int,
    test_images: int,
    epochs: int,
    preparation: float,
    forward: float,
    backward: float,
    sure: bool,
) -> Terms:
    share = epochs / threads * cpi(threads)
    training, validation = (forward + backward) * images * share, forward * images * share
    testing = forward * test_images * share
    memory = contention(model, threads) * epochs * images / threads
    # At one thread contention is less than 0.2 % of the whole, so that doubts about it do not matter.
    sure = sure and (threads >= 480 or threads == 1 or (model == "small" and threads == 240))
    return {
        "preparation": preparation,
        "training": training,
        "validation": validation,
        "testing": testing,
        "contention": memory,
        "total": preparation + training + validation + testing + memory,
        "sure": "confirmed" if sure else "unconfirmed",
    }


def _check(model: str, threads: int, images: int, test_images: int, epochs: int | None) -> int:
    epochs = _epochs(_known(model), epochs)
    _at_least_one("threads", threads)
    for name, value, least in (("images", images, 1), ("test_images", test_images, 0), ("epochs", epochs, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return epochs


def _epochs(model: str, epochs: int | None) -> int:
    return EPOCHS[model] if epochs is None else epochs


def _at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def _known(model: str) -> str:
    if model not in EPOCHS:
        raise ValueError(f"the papers' models know {', '.join(EPOCHS)}, not {model!r}")
    return model
