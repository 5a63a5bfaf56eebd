"""What a calibration keeps in its file, as it is in the JSON. For chaos.perfmodel.calibrate and estimate."""

from __future__ import annotations

from typing import Any, TypedDict

from ..bench import Distance

UNKNOWN: Distance = {"hop_ns": None, "stream_ns": None}


class Hop(TypedDict):
    """The part of a distance by which cores are told to be near or far."""

    hop_ns: float | None


class Transfer(Distance):
    """The cost of a line of a network's weights between two cores at this distance."""

    kind: str
    line_ns: float
    us_one: float
    us_two: float
    repeats: int
    quiet: bool
    date: str


class Cost(Distance):
    """Of a line, for a distance: see `Calibration.costs`."""

    line_ns: float
    hop_ns_then: float | None
    rescaled: float


class Summary(TypedDict):
    """Of repeats of one case: medians, extremes, number; `quiet`: whether enough of them were undisturbed."""

    us_per_image: float
    us_per_image_min: float
    us_per_image_max: float
    repeats: int
    quiet: bool
    distance: Distance


class Measured(Summary):
    load_average: float | None


class Checked(Measured):
    """A measurement that predictions are held to."""

    workers: int
    date: str


class Batch(TypedDict):
    """Of a network at one batch size. `figures`: the arguments of `Figures`."""

    figures: dict[str, Any]
    rounds: int
    spread: float
    quiet: bool
    check: list[Checked] | None
    date: str


class Known(TypedDict):
    """Of a network; `batches` by batch size, as text."""

    name: str
    batches: dict[str, Batch]
    transfer: list[Transfer]


class Host(TypedDict):
    """Of the machine. GB/s, GFLOP/s and MB."""

    cores: int
    sockets: int
    threads_per_core: int
    numa_domains: int
    cache_domains: int
    cache_mb: float
    gflops_one: float
    gflops_all: float
    bandwidth_one: float
    bandwidth_all: float
    date: str
    load_average: float | None


class Found(TypedDict):
    """The whole file; `networks` by digest."""

    key: dict[str, Any]
    machine: Host | None
    networks: dict[str, Known]
