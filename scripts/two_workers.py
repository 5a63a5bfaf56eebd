#!/usr/bin/env python
"""How much faster two workers train than one, strategy by strategy, at batch size 1.

Each turn times one worker, two engines with a worker each that share nothing (what this machine gives two cores at all, the
bound), and two workers with each strategy; told are medians of the ratios within the turns. Two cores that share no cache
hand a line over in more than 60 ns: the distance is measured in every turn.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from front import NETWORKS

from chaos.bench._common import machine
from chaos.bench._throughput import Case
from chaos.distance import distance
from chaos.sync import STRATEGIES

DEFAULT = ("small", "medium", "large", "mlp", "lenet5_modern", "resnet20")
ENTRIES = ("chaos", "chaos:read=publication", "domains:period=16", "domains:period=32")


def timed(case):
    """Seconds per image."""
    return case.train(case.count)[1] / case.count


def independent(pool, one, other):
    """Seconds per image of two engines at once, each with a worker."""
    begin = time.perf_counter()
    beside = pool.submit(other.train, one.count)
    one.train(one.count)
    beside.result()
    return (time.perf_counter() - begin) / one.count / 2


def compare(name, entries, seconds, repeats):
    """Ratios of one network."""
    images = {}

    def case(workers, strategy, options):
        return Case(NETWORKS[name](seed=0), workers, strategy=strategy, images=images, strategy_options=options)

    one, other, *several = (
        case(1, "sequential", {}),
        case(1, "sequential", {}),
        *(case(2, *parse_entry(entry)) for entry in entries),
    )
    for each in (one, other, *several):
        each.prepare(seconds)
    alone, hops, ratios = [], [], {key: [] for key in ("independent", *entries)}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(repeats):
            alone.append(timed(one))
            hops.append(distance()["hop_ns"])
            ratios["independent"].append(alone[-1] / independent(pool, one, other))
            for entry, each in zip(entries, several, strict=True):
                ratios[entry].append(alone[-1] / timed(each))
    return {
        "network": name,
        "us_per_image": statistics.median(alone) * 1e6,
        "hop_ns": [hop for hop in hops if hop is not None],
        "speedup": {key: statistics.median(found) for key, found in ratios.items()},
        "each": ratios,
    }


def parse_entry(text):
    name, _, options = text.partition(":")
    return name, STRATEGIES[name].parse(filter(None, options.split(",")))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", metavar="STRATEGY", nargs="*", default=ENTRIES, help="NAME or NAME:OPTION=VALUE,...")
    parser.add_argument("--networks", nargs="+", default=DEFAULT, help="of the zoo, and mlp: 784-256-128-10 with ReLU")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement (default: 0.3)")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default: 7)")
    parser.add_argument("--json", metavar="FILE", help="write what was found there")
    arguments = parser.parse_args(argv)
    rows = []
    for name in arguments.networks:
        row = compare(name, arguments.entries, arguments.seconds, arguments.repeats)
        rows.append(row)
        told = "  ".join(f"{key} {value:.2f}" for key, value in row["speedup"].items())
        print(f"{name:14}{row['us_per_image']:9.1f} us  {told}", flush=True)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(
                {"seconds": arguments.seconds, "repeats": arguments.repeats, "about": machine(), "rows": rows},
                file,
                indent=1,
            )
            file.write("\n")


if __name__ == "__main__":
    main()
