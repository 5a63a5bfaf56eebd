"""`chaos estimate`: how long training will take, here or elsewhere; the model is chaos.perfmodel."""

import json
import textwrap
from pathlib import Path

from .. import perfmodel, report
from ..cluster import MODES
from ..cluster.scaling import BESIDE, Link, over_nodes
from ..models import MODELS
from ..sync import STRATEGIES
from .common import add_command, columns, counts_of, percent, print_table, say, show_json, show_us, worker_counts
from .networks import build_model
from .options import parse_options

GOOD = 0.10  # error of a prediction that is not worth a warning
MARKS = {"confirmed": "", "unconfirmed": "?"}


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "estimate",
        run,
        usage="MODEL [options]",
        description="Predicts how long training takes with several numbers of workers, on this machine or another one, and "
        "says what the time consists of: computing, publishing gradients, moving weights from core to core "
        "(transfer), waiting for stripes of the weights, memory bandwidth, evaluation. What it needs to know "
        "of this machine and the network is measured once, for about a minute, and kept; how far the cores "
        "are from each other, which a virtual machine may change, is found out each time. Each prediction comes "
        "with its error on this machine: against one and two workers, measured apart from the calibration.\n\n"
        f"Machines: host (this one), {', '.join(perfmodel.shipped())}, or a .toml file like theirs, which says "
        "of every figure where it comes from. Another machine's cores are assumed to reach the same fraction of "
        "their multiply-add peak as this one's.\n\n"
        "--strategy predicts any strategy, with its staleness and what its time is made of, from the places of the cores; "
        "--plan compares all of them: * marks what nothing is both faster and fresher than. With --errors FILE, the JSON of "
        "scripts/front.py, their test errors stand beside. --nodes goes on from what --strategy predicts of one machine: as "
        "many as it says, a rank on each, that exchange by a mode of --cluster beside their workers.\n\n"
        "--paper shows what the models of the CHAOS papers predict for their Xeon Phi instead, and measures "
        'nothing; "?" marks what rests on constants that published predictions do not confirm.',
        examples=[
            "chaos estimate large",
            "chaos estimate small --machine epyc-9654-2s --workers 1,64,192 --batch-size 8",
            "chaos estimate small --strategy domains --strategy-option group=8 --machine epyc-9654-2s --times nominal",
            "chaos estimate small --plan --machine epyc-9654-2s --times nominal",
            "chaos estimate large --strategy domains --strategy-option group=8 --machine epyc-9654-2s --times nominal "
            "--workers 192 --nodes 1,8,64 --cluster async",
            "chaos estimate large --paper --workers 240,480",
        ],
    )
    parser.add_argument("model", metavar="MODEL", help=f"{', '.join(MODELS)} or a .safetensors file")
    parser.add_argument(
        "--workers",
        action="append",
        metavar="P",
        help="numbers of workers, such as 1,2,8; may be repeated (default: 1, 2, 4, ... up to the cores, "
        "and the hardware threads)",
    )
    parser.add_argument("--machine", metavar="NAME", help="host, a name or a .toml file (default: host)")
    parser.add_argument(
        "--images",
        type=int,
        default=perfmodel.papers.IMAGES,
        metavar="N",
        help="training images per epoch (default: %(default)s)",
    )
    parser.add_argument(
        "--test-images",
        type=int,
        default=perfmodel.papers.TEST_IMAGES,
        metavar="N",
        help="images evaluated after each epoch (default: %(default)s)",
    )
    parser.add_argument("--validate", action="store_true", help="evaluate the training images too, as the papers do")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs (default: 1; with --paper as many as there)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images per update (default: 1)")
    parser.add_argument("--strategy", metavar="NAME", choices=tuple(STRATEGIES), help=f"{', '.join(STRATEGIES)}")
    parser.add_argument("--strategy-option", action="append", metavar="NAME=VALUE", help="of the strategy; may be repeated")
    parser.add_argument("--plan", action="store_true", help="all strategies, the fastest first (default: with all cores)")
    parser.add_argument("--errors", metavar="FILE", help="of --plan: what scripts/front.py --json wrote")
    parser.add_argument(
        "--times",
        metavar="NAME",
        choices=perfmodel.TIMES,
        help=f"of --strategy and --plan: {' or '.join(perfmodel.TIMES)}, those of a core of round numbers, which need no "
        "measurement on a named machine (default: calibrated)",
    )
    parser.add_argument("--nodes", action="append", metavar="N", help="of --strategy: machines like that, such as 1,2,64")
    parser.add_argument("--cluster", metavar="MODE", choices=BESIDE, help=f"{', '.join(BESIDE)} (default: async)")
    parser.add_argument("--cluster-option", action="append", metavar="NAME=VALUE", help="of the mode; may be repeated")
    parser.add_argument(
        "--network", metavar="RATE,TIME", help="of --nodes: its rate and the time of an empty message (default: 100gbit,2us)"
    )
    parser.add_argument("--calibrate", action="store_true", help="measure again, whatever is known")
    parser.add_argument("--paper", action="store_true", help="the papers' models, for their Xeon Phi")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--out", metavar="FILE", help=f"write a report with plots as well, {', '.join(report.FORMATS)} (needs matplotlib)"
    )


def run(arguments):
    """Runs the command."""
    workers = worker_counts(arguments)
    _check_together(arguments, workers)
    if arguments.out:
        report.need_format(arguments.out)
    if arguments.paper:
        found, show = _papers(arguments, workers), _show_papers
    elif arguments.plan:
        found, show = _plan(arguments, workers), _show_plan
    elif arguments.nodes:
        found, show = _nodes(arguments, workers), _show_nodes
    elif arguments.strategy:
        found, show = _strategy(arguments, workers), _show_strategy
    else:
        found, show = _chaos(arguments, workers), _show
        _warn(found)
        if arguments.out:
            report.write(report.estimate_report(found), arguments.out)
    if arguments.json:
        show_json(found)
    else:
        show(found)


def _check_together(arguments, workers):
    """Ends the program where options do not fit each other."""

    def refuse(options, when, why):
        for option in options:
            given = getattr(arguments, option)
            if given is not None and given is not False:  # a 0 is given
                arguments.parser.error(f"argument --{option.replace('_', '-')}: {when}{why}")

    if arguments.paper:
        about = ", which is about one machine and batch size 1, and validates as the papers do"
        refuse(("machine", "batch_size", "calibrate", "validate", "out"), "not with --paper", about)
        refuse(("strategy", "strategy_option", "plan", "errors", "times"), "not with --paper", ", which shows their models")
    several = ("cluster", "cluster_option", "network")
    if arguments.nodes:
        if not arguments.strategy:
            arguments.parser.error("argument --nodes: needs --strategy, which trains on each of them")
        if workers and len(workers) > 1:
            arguments.parser.error("argument --workers: one number with --nodes, the workers of each")
    else:
        refuse(several, "only with --nodes", "")
    if arguments.plan:
        refuse(("strategy", "strategy_option", "batch_size", "epochs"), "not with --plan", ", which compares all strategies")
        if workers and len(workers) > 1:
            arguments.parser.error("argument --workers: one number with --plan")
    else:
        refuse(("errors",), "only with --plan", "")
    if arguments.plan or arguments.strategy:
        other = ("validate", "epochs", "out", "calibrate")
        refuse(other, "not with --strategy or --plan", ", which predict training phases")
    else:
        refuse(("strategy_option",), "needs --strategy", "")
        refuse(("times",), "only with --strategy or --plan", "")


def _model(arguments):
    return arguments.model if arguments.model in MODELS else build_model(arguments.model)


def _papers(arguments, workers):
    return perfmodel.paper_predictions(arguments.model, workers, arguments.images, arguments.test_images, arguments.epochs)


def _chaos(arguments, workers):
    return perfmodel.estimate(
        _model(arguments),
        workers,
        arguments.machine or "host",
        arguments.images,
        arguments.test_images,
        1 if arguments.epochs is None else arguments.epochs,
        1 if arguments.batch_size is None else arguments.batch_size,
        arguments.validate,
        arguments.calibrate,
        perfmodel.Calibration(say=say),
    )


def _strategy(arguments, workers):
    return perfmodel.estimate_strategy(
        _model(arguments),
        arguments.strategy,
        STRATEGIES[arguments.strategy].parse(arguments.strategy_option or []),
        workers,
        arguments.machine or "host",
        1 if arguments.batch_size is None else arguments.batch_size,
        arguments.images,
        arguments.times or "calibrated",
        perfmodel.Calibration(say=say),
    )


def _nodes(arguments, workers):
    """What --strategy finds, of one number of workers, and nodes: {mode, options, network, rows}."""
    mode = arguments.cluster or "async"
    modes = {name: MODES[name]({}) for name in BESIDE}
    options = modes[mode].resolve(parse_options(modes, mode, arguments.cluster_option or [], "--cluster "))
    network = arguments.network or "100gbit,2us"
    link, counts = Link.parse(network), counts_of(arguments, "nodes")
    if options.get("epochs"):
        arguments.parser.error("argument --cluster-option: exchanges beside workers are predicted, not those of epochs")
    found = _strategy(arguments, workers)
    point = found["points"][-1]
    rows = over_nodes(point, mode, options["every"], counts, link, images=found["images"], size=found["weight_bytes"])
    about = {"mode": mode, "options": options, "network": network, "rows": rows}
    return {**found, "points": [point], "nodes": about}


def _plan(arguments, workers):
    errors = None
    if arguments.errors:
        try:
            errors = json.loads(Path(arguments.errors).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{arguments.errors}: no JSON: {error}") from None
    found = perfmodel.Predictor(
        _model(arguments),
        arguments.machine or "host",
        arguments.times or "calibrated",
        arguments.images,
        perfmodel.Calibration(say=say),
    )
    return perfmodel.plan(found, workers[0] if workers else found.machine.cores, errors)


def _about(found):
    """The first line of what was found about strategies."""
    machine = found["machine"]
    lines = dict.fromkeys(f"{ns:.3g}" for ns in machine["line_ns"].values() if ns is not None)
    return (
        f"{found['images']:,} images, {found['times']} times; {machine['name']}, {machine['cores']} cores in "
        f"{machine['cache_domains']} cache domains, {' or '.join(lines) or 'no'} ns per line of weights between cores"
    )


def _count(number):
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _show_strategy(found):
    """Prints the points of one strategy."""
    text = perfmodel.text_of(found["strategy"], found["options"])
    print(f"{found['model']}, {text}, batch size {found['batch_size']}; {_about(found)}\n")
    terms = list(found["points"][0]["terms"])
    rows = [("workers", "us/image", *terms, "images/s", "speed-up", "efficiency", "staleness", "behind", "lines/image")]
    for p in found["points"]:
        rows.append(
            (
                str(p["workers"]),
                show_us(p["us_per_image"]),
                *(f"{p['shares'][term]:.0%}" for term in terms),
                f"{p['images_per_second']:,.0f}",
                f"{p['speedup']:.2f}",
                f"{p['efficiency']:.1%}",
                _count(p["staleness"]),
                _count(p["images_behind"]),
                _count(p["lines_per_image"]),
            )
        )
    print_table(rows)
    _show_notes(["behind: images whose updates are not in the weights that an image reads", *found["notes"]])


def _show_nodes(found):
    """Prints the machines beside each other."""
    about, point = found["nodes"], found["points"][0]
    text = perfmodel.text_of(found["strategy"], found["options"])
    print(
        f"{found['model']}, {text}, batch size {found['batch_size']}; nodes with {point['workers']} workers each, "
        f"{about['mode']} every {about['options']['every']} images over {about['network']}; {_about(found)}\n"
    )
    rows = [("nodes", "workers", "images/s", "speed-up", "efficiency", "over one worker", "exchange ms", "behind")]
    for row in about["rows"]:
        rows.append(
            (
                str(row["nodes"]),
                f"{row['workers']:,}",
                f"{row['images_per_second']:,.0f}",
                f"{row['speedup']:.2f}",
                f"{row['efficiency']:.1%}",
                f"{row['over_one']:,.0f}",
                f"{1e3 * row['exchange']:.3g}{'' if row['keeps_up'] else '!'}",
                _count(row["images_behind"]),
            )
        )
    print_table(rows)
    notes = [
        "behind: images whose updates are not in the weights that an image reads",
        "speed-up is over one node; an epoch ends with an exchange that nothing hides",
        *found["notes"],
    ]
    if not all(row["keeps_up"] for row in about["rows"]):
        notes.insert(0, "! takes longer than the time between two exchanges, which come that much later")
    _show_notes(notes)


def _show_plan(found):
    """Prints the front."""
    rows = found["rows"]
    print(f"{found['model']}, {found['workers']} workers; {_about(found)}\n")
    known = any(row["error"] is not None for row in rows)
    table = [("strategy", "batch", "speed-up", "", "behind", "compute", "transfer", "waiting")]
    table[0] += ("error", "simulated") if known else ()
    for row in rows:
        mark = ("*" if row["best"] else "") + ("!" if row["best_error"] else "")
        line = [row["strategy"], str(row["batch_size"]), f"{row['speedup']:.1f}", mark, _count(row["images_behind"])]
        line += [f"{row['shares'][name]:.0%}" for name in ("compute", "transfer", "waiting")]
        if known:
            line += ["" if row["error"] is None else percent(row["error"])]
            line += ["" if row["simulated"] is None else f"{row['simulated']:.1f}"]
        table.append(tuple(line))
    print_table(table)
    words = ["* nothing is both faster and less far behind"]
    words += ["! nothing whose error is known is both faster and better"] if known else []
    _show_notes([*words, *found["notes"]])


def _show_notes(notes):
    print()
    for note in notes:
        print(textwrap.fill(f"- {note}", columns() - 1, subsequent_indent="  ", break_on_hyphens=False))


def _warn(found):
    wrong = [error for error in found["errors"] if abs(error["error"]) > GOOD]
    if wrong:
        say(
            f"warning: the prediction is wrong by {wrong[0]['error']:+.0%} for {wrong[0]['workers']} "
            f"worker{'s' if wrong[0]['workers'] > 1 else ''} on this machine; if it was busy while it was measured, measure "
            "again with --calibrate"
        )


def _show(found):
    """Prints what was found, from top to bottom as it appears."""
    machine = found["machine"]
    lines = dict.fromkeys(f"{ns:.3g}" for ns in machine["transfer_ns"].values() if ns is not None)
    print(
        f"{found['model']}, batch size {found['batch_size']}, {found['images']:,} images, {found['test_images']:,} test "
        f"images{', validation' if found['validate'] else ''}; {machine['name']}, {machine['peak_gflops']:,.0f} GFLOP/s, "
        f"{' or '.join(lines) or 'no'} ns per line of weights between cores"
    )
    for there in found["distance"].values():
        print(f"this machine now: {there['words']}")
    print()
    rows = [
        (
            "workers",
            "us/image",
            "compute",
            "publication",
            "transfer",
            "waiting",
            "bandwidth",
            "images/s",
            "speed-up",
            "efficiency",
            "eval s",
            "s/epoch",
        )
    ]
    for p in found["points"]:
        rows.append(
            (
                f"{p['workers']}{'!' if p['oversubscribed'] else ''}",
                show_us(p["us_per_image"]),
                *map(show_us, p["terms"].values()),
                f"{p['images_per_second']:,.0f}",
                f"{p['speedup']:.2f}",
                f"{p['efficiency']:.1%}",
                f"{p['evaluation_seconds']:.3g}",
                f"{p['epoch_seconds']:.4g}",
            )
        )
    print_table(rows)
    if found["epochs"] > 1:
        print(
            f"\n{found['epochs']} epochs: "
            + ", ".join(f"{_duration(p['seconds'])} with {p['workers']}" for p in found["points"])
        )
    if len(found["points"]) > 1:
        print(f"\nfastest: {found['best_workers']} worker{'s' if found['best_workers'] > 1 else ''}")
    print("\nerror on this machine, against measurement:")
    for error in found["errors"]:
        print(
            f"  {error['workers']} worker{'s' if error['workers'] > 1 else ' '}  {error['error']:+.1%}  (predicted "
            f"{show_us(error['predicted_us'])} us/image, measured {show_us(error['measured_us'])}"
            + (f" as with {error['transfer_ns']:.3g} ns per line" if error["transfer_ns"] is not None else "")
            + (f", cores {error['hop_ns']:.0f} ns apart" if error["workers"] > 1 and error["hop_ns"] else "")
            + (", rescaled" if error["workers"] > 1 and error["rescaled"] != 1 else "")
            + f", {error['date'][:10]})"
        )
    _show_contention(found)
    if found["notes"]:
        _show_notes(found["notes"])


def _show_contention(found):
    cost, epochs = found["contention"], found["epochs"]
    run = f"in {epochs} epoch{'s' if epochs > 1 else ''}"
    rows = [
        ("what sharing the weights costs", "us/image", run),
        (
            f"transfer and waiting with {cost['workers']} worker{'s' if cost['workers'] > 1 else ''}",
            show_us(cost["us_per_image"]),
            _duration(cost["us_per_image"] * found["images"] * epochs * 1e-6),
        ),
        ("floor with all cores busy", show_us(cost["floor_us_per_image"]), _duration(cost["floor_seconds"])),
        (
            "the same if one lock guarded all weights",
            show_us(cost["one_lock_floor_us_per_image"]),
            _duration(cost["one_lock_floor_seconds"]),
        ),
    ]
    if cost["paper_us_per_image"] is not None:
        rows.append(
            (
                f"the papers' model, Xeon Phi, {cost['paper_threads']} threads ({cost['paper_sure']})",
                show_us(cost["paper_us_per_image"]),
                _duration(cost["paper_floor_seconds"]),
            )
        )
    print()
    print_table(rows)


def _show_papers(found):
    print(
        f"{found['model']}, {found['images']:,} images, {found['test_images']:,} test images, {found['epochs']} epochs; "
        f"{found['machine']}\n"
    )
    rows = [("threads", "model (a)", "model (b)", "contention us/image")]
    for p in found["points"]:
        rows.append(
            (
                str(p["threads"]),
                *(f"{_duration(p[key]['total'])}{MARKS[p[key]['sure']]}" for key in "ab"),
                show_us(p["contention_us_per_image"]),
            )
        )
    print_table(rows)
    accuracy = perfmodel.papers.ACCURACY
    print(
        f"\nmean error that the papers state: (a) {accuracy['a']:.0%}, (b) {accuracy['b']:.0%}\n"
        f"floor of the run time by contention (derived): {_duration(found['floor_seconds'])}"
    )
    if any(MARKS[p[key]["sure"]] for p in found["points"] for key in "ab"):
        print("? rests on constants that published predictions do not confirm")


def _duration(seconds):
    """A time for people."""
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length or unit == "s":
            return f"{seconds / length:.{1 if seconds >= 10 * length else 2}f} {unit}"
