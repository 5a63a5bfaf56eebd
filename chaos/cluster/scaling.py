"""How training scales over nodes, by a performance model of computing, network and exchange mode. For scripts and reports.

The network is the alpha-beta model (Hockney 1994): a message of b bytes takes alpha + beta b seconds; sums over ranks
take what the best known algorithm does (Thakur, Rabenseifner, Gropp 2005). What asynchrony and averaging cost in accuracy
is not part of it: it predicts images/s, not time to accuracy."""

import math
import re
from dataclasses import dataclass

from ..options import check_number

# Published, for comparison; each with its source. Speed-up over one node.
ANCHORS = (
    {"work": "Das et al. 2016", "source": "arXiv:1602.06709", "nodes": 128, "speedup": 90, "what": "synchronous SGD, Xeon"},
    {"work": "Das et al. 2016", "source": "arXiv:1602.06709", "nodes": 64, "speedup": 53, "what": "synchronous SGD, Xeon"},
    {
        "work": "Das et al. 2016",
        "source": "arXiv:1602.06709",
        "nodes": 16,
        "speedup": 14,
        "what": "synchronous SGD, Ethernet",
    },
    {"work": "PCNN", "source": "HiPC 2017", "nodes": 128, "speedup": 62.97, "what": "VGG-A, batch 256"},
    {"work": "PCNN", "source": "HiPC 2017", "nodes": 128, "speedup": 77.97, "what": "VGG-A, batch 512"},
)


@dataclass(frozen=True)
class Link:
    """A network.

    Attributes
    ----------
    alpha : float
        Seconds per message.
    beta : float
        Seconds per byte.
    """

    alpha: float
    beta: float

    @classmethod
    def through(cls, sizes, seconds):
        """The network on which messages of `sizes` bytes took `seconds` one way, right for the smallest and the largest
        of them (links with buffers are faster than their rate in between); ValueError with fewer than two different
        sizes."""
        found = sorted(zip(sizes, seconds, strict=True))
        if len(found) < 2 or found[0][0] == found[-1][0] or not all(size >= 0 and 0 < t < math.inf for size, t in found):
            raise ValueError("a network is known by the times, above 0, of messages of at least two different sizes")
        (small, first), (large, last) = found[0], found[-1]
        beta = max((last - first) / (large - small), 0.0)
        return cls(max(first - beta * small, 0.0), beta)

    @classmethod
    def parse(cls, text):
        """That of so many bits per second in which an empty message takes so long, as "100gbit,2us", or ValueError."""
        found = re.fullmatch(r"([0-9.]+)([gm])bit(?:/s)?,([0-9.]+)(us|ms)", text.lower().replace(" ", ""))
        try:
            rate, many, latency, unit = found.groups()
            alpha, bits = float(latency) * {"us": 1e-6, "ms": 1e-3}[unit], float(rate) * {"g": 1e9, "m": 1e6}[many]
            return cls(alpha, 8 / bits)
        except (AttributeError, ValueError, ZeroDivisionError):
            raise ValueError(f"a network is a rate and the time of an empty message, as 100gbit,2us, not {text!r}") from None

    def message(self, size):
        """Seconds for `size` bytes from one rank to another."""
        return self.alpha + self.beta * size

    def sum(self, size, ranks):
        """Seconds for the sum of vectors of `size` bytes over the ranks, known to all afterwards."""
        return 2 * math.ceil(math.log2(ranks)) * self.alpha + 2 * (ranks - 1) / ranks * size * self.beta

    def barrier(self, ranks):
        return math.ceil(math.log2(ranks)) * self.alpha


def epoch(mode, ranks, link, *, images, rate, size, every=1000, batch=64, overhead=0.0):
    """One epoch's training phase.

    Parameters
    ----------
    mode : str
        local, easgd, gossip, async or allreduce.
    ranks : int
    link : Link
    images : int
        Of all ranks together.
    rate : float
        Images per second of one rank that trains alone.
    size : float
        Bytes of the weights.
    every : int
        Images of a rank between two exchanges.
    batch : int
        Images of one step over all ranks, for allreduce.
    overhead : float
        Seconds of its workers' time that an exchange costs a rank: copying and adding the weights.

    Returns
    -------
    dict
        ranks, seconds, images_per_second, speedup, efficiency; exchange (seconds of one); exchanges (of one rank); keeps_up:
        whether an exchange is over before the next one is due.
    """
    check_number("ranks", ranks, 1, whole=True)
    for name, value in (("images", images), ("rate", rate), ("size", size), ("every", every), ("batch", batch)):
        check_number(name, value, 0, above=True)
    if mode not in ("local", "easgd", "gossip", "async", "allreduce"):
        raise ValueError(f"no model of cluster mode {mode!r}; known: local, easgd, gossip, async, allreduce")
    computing = images / ranks / rate
    if ranks == 1:
        exchange, exchanges, seconds, keeps_up = 0.0, 0, computing, True
    elif mode == "allreduce":
        exchange = link.sum(size, ranks) + link.barrier(ranks)
        exchanges = math.ceil(images / batch)
        seconds, keeps_up = computing + exchanges * (exchange + overhead), True
    else:
        # the last exchange, or the agreement on common weights, is the only one that nothing hides
        last = link.sum(size, ranks)
        exchange = {"gossip": link.message(size), "async": 2 * link.message(size)}.get(mode, last)
        due = images / ranks / every
        exchanges = int(min(due, computing / exchange)) if exchange else int(due)
        keeps_up = exchange <= every / rate
        seconds = computing + (exchanges + 1) * overhead + last + 2 * link.barrier(ranks)
    return {
        "mode": mode,
        "ranks": ranks,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "speedup": images / rate / seconds,
        "efficiency": images / rate / seconds / ranks,
        "exchange": exchange,
        "exchanges": exchanges,
        "keeps_up": keeps_up,
    }


BESIDE = ("local", "easgd", "gossip", "async")  # exchange while workers run


def over_nodes(point, mode, every, nodes, link, *, images, size):
    """Ranks x groups x workers: machines that each train by themselves as `point` says, and exchange by a mode beside their
    workers, one rank on each.

    Parameters
    ----------
    point : dict
        Of one machine: workers, images_per_second, images_behind and speedup, as `perfmodel.estimate_strategy` gives them.
    mode : str
        One of `BESIDE`.
    every : int
        Images of a rank between two exchanges.
    nodes : list of int
    link : Link
    images : int
        Of an epoch, of all ranks together.
    size : float
        Bytes of the weights.

    Returns
    -------
    list of dict
        What `epoch` gives for each number of nodes (speedup: over one node), and nodes; workers of all; over_one: over one
        sequential worker; images_behind: images whose updates are not in the weights that an image reads: those of the rank
        itself and, of each other rank, those since its last exchange and since the own one, each half a period on the
        average; a period is at least as long as an exchange takes.
    """
    rate, rows = point["images_per_second"], []
    for count in nodes:
        row = epoch(mode, count, link, images=images, rate=rate, size=size, every=every)
        period = max(every, row["exchange"] * rate)
        rows.append(
            row
            | {
                "nodes": count,
                "workers": count * point["workers"],
                "over_one": row["speedup"] * point["speedup"],
                "images_behind": point["images_behind"] + (count - 1) * period,
            }
        )
    return rows


def table(mode, link, ranks=tuple(2**i for i in range(11)), **how):
    """`epoch` for 1, 2, 4, ..., 1024 ranks."""
    return [epoch(mode, count, link, **how) for count in ranks]
