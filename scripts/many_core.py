#!/usr/bin/env python
"""How chaos scales on this machine: strategies x numbers of workers x placements, each beside its prediction.

For anyone who has a machine with many cores and wants to know, or to tell others: docs/many_core/ says how to send what is
found. Each case is measured in turns with sequential training, so that a machine that gets slower meets both; its speed-up
is the median of the ratios. Checked is that training computes the right thing, not to which error it leads: that is what
scripts/front.py is for. A case that would begin after --budget is left out, and told.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from chaos import bench, perfmodel, report, threads
from chaos.errors import ChaosError
from chaos.formats.atomic import write_atomically

NAME = "many_core"
INTERLEAVE = "interleave"  # numactl --interleave=all: pages go round the NUMA nodes
KINDS = {"within_domain_ns": "in one cache domain", "across_domains_ns": "in two", "across_sockets_ns": "in two sockets"}
HAD = 0.9  # of the time workers must have had their cores, for a repeat to count
PER_WORKER = 4  # images of a step of `synchronous`


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--model", default="small", help="of the zoo (default: small)")
    parser.add_argument("--workers", help="numbers of workers, such as 2,8,64 (default: powers of 2, domain, all cores)")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="of measuring, after the calibration (default: 480, --quick: 45)"
    )
    parser.add_argument("--quick", action="store_true", help="shorter measurements of fewer cases")
    parser.add_argument("--out", default=NAME, metavar="FOLDER", help=f"where the JSON and the page go (default: {NAME})")
    parser.add_argument("--page", default=f"{NAME}.html", help=f"its name: .html or .md (default: {NAME}.html)")
    parser.add_argument("--cases", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


# ---- what is there ----


def told_by(*command):
    """What a command of the system says; None where there is none."""
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def about():
    """The machine: cores, caches, distances of its cores, and what its tools say."""
    calibration = perfmodel.Calibration()
    pairs = calibration.pairs()
    return {
        "machine": bench.machine(),
        "topology": threads.topology(),
        "distances": {kind: bench.distance(pair) for kind, pair in pairs.items()},
        "numactl": told_by("numactl", "--hardware"),
        "lscpu": told_by("lscpu"),
    }


# ---- what is measured ----


def strategies(domain, workers):
    """(strategy as text, batch size), the most interesting first."""
    small = "stripe_bytes=1024"
    group = f"group={min(domain, max(workers // 2, 1))}"
    return [
        ("chaos", 1),
        (f"domains:{group},period=16,mix=0.3,{small}", 1),
        (f"chaos:read=publication,{small}", 1),
        ("elastic:period=32", 1),
        ("averaging:period=32", 1),
        (f"hogwild:{small}", 1),
        ("synchronous", PER_WORKER * workers),
    ]


def counts(cores, domain):
    """Numbers of workers, the most interesting first: all cores, two, a cache domain, then the others from above."""
    powers = [1 << k for k in range(cores.bit_length()) if 1 << k <= cores]
    found = [cores, 2, domain, *reversed(powers)]
    return [count for count in dict.fromkeys(found) if 1 < count <= cores]


def cases(cores, domain, numa, wanted=None, quick=False):
    """All of them, the most interesting first: model-free dicts of workers, strategy, batch_size, place."""
    found = []
    for count in wanted or counts(cores, domain):
        for text, size in strategies(domain, count)[: 3 if quick else None]:
            found.append({"workers": count, "strategy": text, "batch_size": size, "place": "compact"})
    most = max((case["workers"] for case in found), default=0)
    for place in ("none", "scatter", *([INTERLEAVE] if numa > 1 and shutil.which("numactl") else [])):
        for case in [case for case in found if case["workers"] == most and case["place"] == "compact"][:2]:
            found.append({**case, "place": place})
    return found


def measure(case, model, seconds, repeats):
    """One case beside sequential training: us per image of both, and the median of their ratios."""
    name, options = perfmodel.parse_text(case["strategy"])
    pin = "compact" if case["place"] == INTERLEAVE else case["place"]
    alone = {"model": model, "strategy": "sequential"}
    asked = {"model": model, "strategy": name, "strategy_options": options, "pin": pin}
    asked |= {"workers": case["workers"], "batch_size": case["batch_size"]}
    nothing = {"hop_ns": None}
    one, many = bench.throughputs([alone, asked], seconds, repeats, beside=lambda: nothing)
    pairs = list(zip(one["each"], many["each"], strict=True))
    quiet = [pair for pair in pairs if min(turn["had"] for turn in pair) > HAD]
    pairs = quiet or pairs  # what something else disturbed counts only where there is nothing better
    return {
        **case,
        "sequential_us": statistics.median(a["us_per_image"] for a, _ in pairs),
        "us_per_image": statistics.median(b["us_per_image"] for _, b in pairs),
        "speedup": statistics.median(a["us_per_image"] / b["us_per_image"] for a, b in pairs),
        "speedups": [a["us_per_image"] / b["us_per_image"] for a, b in pairs],
        "quiet": bool(quiet),
    }


def measure_elsewhere(case, model, seconds, repeats):
    """The same in a process whose memory is interleaved."""
    asked = json.dumps({"case": case, "model": model, "seconds": seconds, "repeats": repeats})
    command = ["numactl", "--interleave=all", sys.executable, __file__, "--cases", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChaosError(f"numactl: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return json.loads(done.stdout)


def study(arguments, save):
    """Measures what the budget allows; the rows and what was left out."""
    seconds, repeats = (0.05, 3) if arguments.quick else (0.2, 5)
    topology = threads.topology()
    cores = max(bench.default_workers())
    predictor = perfmodel.Predictor(
        arguments.model,
        calibration=perfmodel.Calibration(seconds=seconds, repeats=repeats, say=lambda line: print(line, flush=True)),
    )
    domain = predictor.machine.cores // predictor.machine.cache_domains
    wanted = [int(count) for count in arguments.workers.split(",")] if arguments.workers else None
    asked = cases(cores, domain, topology["numa_nodes"] or 1, wanted, arguments.quick)
    for size in sorted({min(case["batch_size"], 8) for case in asked}):
        predictor.times(size)  # measured now, if it has not been
    end = time.monotonic() + arguments.budget
    rows, left = [], []
    for number, case in enumerate(asked):
        if time.monotonic() > end:
            left = asked[number:]
            break
        run = measure_elsewhere if case["place"] == INTERLEAVE else measure
        row = run(case, arguments.model, seconds, repeats)
        name, options = perfmodel.parse_text(case["strategy"])
        point = predictor.point(case["workers"], name, options, case["batch_size"])
        row["predicted"] = {key: point[key] for key in ("us_per_image", "speedup", "shares", "staleness", "images_behind")}
        rows.append(row)
        print(
            f"{case['workers']:4} {case['strategy']:54}{case['place']:11}{row['speedup']:8.2f}x, predicted "
            f"{point['speedup']:.2f}x",
            flush=True,
        )
        save(rows, asked[number + 1 :])
    return rows, left


# ---- the page ----


def page(found):
    """The report of a study."""
    machine, topology = found["about"]["machine"], found["about"]["topology"]
    rows = found["rows"]
    made = report.Report(f"chaos on {topology['cpu'] or 'an unknown processor'}", data=found)
    distances = ", ".join(
        f"{there['hop_ns']:.0f} ns {KINDS[kind]}" for kind, there in found["about"]["distances"].items() if there["hop_ns"]
    )
    made.add(
        report.Paragraph(
            f"{topology['cores']} cores, {topology['logical_cpus']} hardware threads, {topology['sockets']} sockets, "
            f"{topology['numa_nodes']} NUMA nodes; {found['model']}; chaos {machine['chaos']}, {machine['date']}."
        ),
        report.Paragraph(f"Handing a cache line from core to core: {distances or 'not known'}."),
        report.Heading("Speed-up over sequential training"),
    )
    compact = [row for row in rows if row["place"] == "compact"]
    families = list(dict.fromkeys(family(row) for row in compact))
    for key, title in (("measured", "Measured"), ("predicted", "Predicted")):
        lines = []
        for one in families:
            points = sorted((row for row in compact if family(row) == one), key=lambda row: row["workers"])
            y = [row["speedup"] if key == "measured" else row["predicted"]["speedup"] for row in points]
            lines.append(report.Line(one, [row["workers"] for row in points], y))
        workers = sorted({row["workers"] for row in compact})
        lines.append(report.Line("ideal", workers, workers, dashed=True, guide=True))
        made.add(report.Plot(title, "workers, pinned compactly", "speed-up", lines, x_log=True, y_log=True))
    made.add(
        report.Table(
            ["strategy", "batch", "workers", "place", "measured", "lowest", "highest", "predicted", "predicted / measured"],
            [
                [
                    row["strategy"],
                    row["batch_size"],
                    row["workers"],
                    row["place"],
                    row["speedup"],
                    min(row["speedups"]),
                    max(row["speedups"]),
                    row["predicted"]["speedup"],
                    row["predicted"]["speedup"] / row["speedup"],
                ]
                for row in rows
            ],
            "Speed-up, medians of repeats beside sequential training",
        )
    )
    ratios = [abs(row["predicted"]["speedup"] / row["speedup"] - 1) for row in rows]
    made.add(report.Paragraph(f"Predictions of the speed-up are off by {statistics.median(ratios):.0%} in the median."))
    if found["left"]:
        made.add(report.Paragraph(f"{len(found['left'])} cases were left out because the time was over."))
    if busy := sum(not row["quiet"] for row in rows):
        made.add(report.Paragraph(f"In {busy} of {len(rows)} cases something else had part of the cores all the time."))
    return made


def family(row):
    """A strategy without the options that depend on the number of workers."""
    name, options = perfmodel.parse_text(row["strategy"])
    return perfmodel.text_of(name, {key: value for key, value in options.items() if key in ("read", "period")})


def main(argv=None):
    arguments = parse(argv)
    if arguments.cases:
        asked = json.loads(arguments.cases)
        print(json.dumps(measure(asked["case"], asked["model"], asked["seconds"], asked["repeats"])))
        return
    report.need_format(arguments.page)
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.budget is None:
        arguments.budget = 45 if arguments.quick else 480
    found = {"model": arguments.model, "quick": arguments.quick, "about": about(), "rows": [], "left": []}

    def save(rows, left):
        found.update(rows=rows, left=left)
        write_atomically(folder / f"{NAME}.json", json.dumps(found, indent=1).encode() + b"\n")

    save(*study(arguments, save))
    if not found["rows"]:
        raise ChaosError(f"nothing was measured in {arguments.budget:g} s; a longer --budget, or --quick")
    print(folder / f"{NAME}.json", *report.write(page(found), folder / arguments.page), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ChaosError) as error:
        sys.exit(f"many_core: {error}")
