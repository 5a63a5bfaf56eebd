#!/usr/bin/env python
"""Whether two installations of chaos give the same bits: scripts/same_bits.py OLD_PYTHON NEW_PYTHON [--json FILE] [--quick]

For anyone who rebuilds something that must not change a result. Small networks are trained, traced, replayed, simulated,
stopped and resumed with both installations, under every strategy, update rule and instruction set that both have, with one
worker, with three where their threads give the same bits again, and with virtual workers everywhere; so are the outputs,
losses and gradients of some networks. Compared are SHA-256 of weights (PyTorch's names and shapes), outputs and metrics
(without what a clock has measured). The new installation also replays traces and resumes runs that the old one has begun.
The cases are scripts/same_cases.py. Prints tables in Markdown; exit status 1 where anything differs or nothing was
compared.
"""

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CASES = Path(__file__).resolve().with_name("same_cases.py")
# columns of the first table, in their order
KINDS = ("outputs", "train, 1 worker", "train, 3 workers", "simulate", "trace", "begin")
LATER = ("replay", "resume")
ENDS = {"old": "the old one's", "new": "its own"}


def run(python, *words, isa=None):
    """What a process of an installation prints, a dict per line; SystemExit where it fails."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("CHAOS_", "OMP_", "GOMP_", "PYTHON"))}
    if isa:
        env["CHAOS_ISA"] = isa
    with tempfile.TemporaryDirectory() as elsewhere:  # where no folder is called chaos
        done = subprocess.run(
            [python, "-P", CASES, *map(str, words)], cwd=elsewhere, env=env, text=True, capture_output=True
        )
    if done.returncode:
        raise SystemExit(f"{python} {' '.join(map(str, words))[:200]}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def common(facts):
    """(names that both know, instruction sets of both), and a line for whatever only one has."""
    old, new = facts["old"], facts["new"]
    lists = {key: [name for name in names if name in new["lists"][key]] for key, names in old["lists"].items()}
    isas = [isa for isa in old["isa"] if isa in new["isa"]]
    alone = []
    for side, other in ((old, new), (new, old)):
        which = "old" if side is old else "new"
        for key, names in {**side["lists"], "isa": side["isa"]}.items():
            known = other["isa"] if key == "isa" else other["lists"][key]
            alone += [f"only the {which} one has {key} {name}" for name in names if name not in known]
    return lists, isas, alone


def gather(pythons, folder, lists, isas, args):
    """{(isa, case): {"about": ..., (side, of): what installation `side` made of files of installation `of`}}: first what
    each begins, then what each makes of it, and the new one of what the old one has begun."""
    found = collections.defaultdict(dict)

    def one(stage, isa, side, of, part):
        place = folder / f"{of}-{isa}"
        own = place if stage == "begin" else folder / f"{side}-{of}-{isa}"
        words = [stage, place, own, part, args.slices, "--lists", json.dumps(lists)]
        words += ["--quick"] if args.quick else []
        if args.perturb and side == "new":
            words += ["--perturb", args.perturb]
        return (isa, side, of), run(pythons[side], *words, isa=isa)

    with ThreadPoolExecutor(args.jobs) as pool:
        for stage, sides in (
            ("begin", (("old", "old"), ("new", "new"))),
            ("continue", (("old", "old"), ("new", "old"), ("new", "new"))),
        ):
            under_way = [
                pool.submit(one, stage, isa, side, of, part)
                for isa in reversed(isas)
                for part in range(args.slices)
                for side, of in sides
            ]
            for future in under_way:
                (isa, side, of), lines = future.result()
                for line in lines:
                    here = found[isa, line["case"]]
                    here["about"] = line["about"]
                    here[side, of] = {key: value for key, value in line.items() if key not in ("case", "about")}
    return found


def differences(old, new):
    """What differs between two digests of a case, in words."""
    if old is None or new is None:
        return ["one has no such case"]
    if "error" in old or "error" in new:
        refusals = old.get("error"), new.get("error")
        return [] if refusals[0] == refusals[1] else [f"refused: {old.get('told')!r}, {new.get('told')!r}"]
    found = ["weights"] if old.get("weights") != new.get("weights") else []
    for part in ("outputs", "metrics"):
        a, b = old.get(part, {}), new.get(part, {})
        found += [f"{part} {key}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return found


def judge(found):
    """A list of rows: isa, case, about, kind (a column), differs (a list), refused, one for each comparison."""
    rows = []
    for (isa, case), here in found.items():
        about = here["about"]
        first = here.get(("old", "old"))
        pairs = {about["kind"]: here.get(("new", "new"))}
        if about["kind"] in LATER:
            pairs = {f"{about['kind']} {ENDS[of]}": here.get(("new", of)) for of in ("old", "new")}
        for kind, second in pairs.items():
            if first == second == {}:  # only the beginning of a later case: an order, or an end, by chance
                continue
            chance = about["kind"] == "replay" and "/3 workers/" in case and kind.endswith(ENDS["new"])
            if chance:  # a real order of its own: the command itself has compared with the weights in the trace
                differs = [] if second and "error" not in second else [f"refused: {(second or {}).get('told')}"]
            else:
                differs = differences(first, second)
            refused = bool(first and "error" in first)
            row = {"isa": isa, "case": case, "kind": kind, "differs": differs, "refused": refused}
            rows.append(row | {key: about.get(key) for key in ("strategy", "update")})
    return rows


def table(rows, down, across, corner):
    """Markdown: how many comparisons there were, and how many of them differ."""
    columns = list(dict.fromkeys(across(row) for row in rows))
    order = [*KINDS, *(f"{kind} {end}" for kind in LATER for end in ENDS.values())]
    columns.sort(key=lambda name: order.index(name) if name in order else -1)
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in dict.fromkeys(down(row) for row in rows):
        cells = []
        for column in columns:
            here = [row for row in rows if down(row) == name and across(row) == column]
            bad = sum(bool(row["differs"]) for row in here)
            cells.append(f"**{bad} of {len(here)} differ**" if bad else f"{len(here)} equal" if here else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(facts, rows, alone):
    """The whole text."""
    bad, refused = [row for row in rows if row["differs"]], [row for row in rows if row["refused"]]
    names = {side: f"{one['chaos']} ({one['commit'] or 'no commit'})" for side, one in facts.items()}
    lines = [
        f"Old: chaos {names['old']}, new: chaos {names['new']}; {facts['old']['cpu']}; "
        f"{len(rows):,} comparisons, {len(bad):,} differ.",
        "",
        table(
            rows, lambda row: f"`{row['strategy']}`" if row["strategy"] else "(none)", lambda row: row["kind"], "strategy"
        ),
        "",
        table(rows, lambda row: f"`{row['update']}`" if row["update"] else "(none)", lambda row: row["isa"], "update rule"),
    ]
    if facts["old"]["build"] != facts["new"]["build"]:
        lines += ["", f"Built differently: {facts['old']['build']} / {facts['new']['build']}"]
    lines += ["", *alone] if alone else []
    for title, some in (("Refused by the old one", refused), ("Different", bad)):
        if some:
            shown = [f"- {row['isa']}: {row['case']} ({row['kind']}) {'; '.join(row['differs'])[:400]}" for row in some[:60]]
            lines += ["", f"{title}: {len(some)}", "", *shown, *(["- ..."] if len(some) > len(shown) else [])]
    return "\n".join(lines)


def main(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD_PYTHON", help="Python of the environment with the old installation")
    parser.add_argument("new", metavar="NEW_PYTHON", help="Python of the one with the new installation")
    parser.add_argument("--json", metavar="FILE", help="also write every comparison to FILE")
    parser.add_argument("--quick", action="store_true", help="a tenth of the cases")
    parser.add_argument("--isa", nargs="+", metavar="NAME", help="instruction sets (default: all that both have here)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes side by side (default: 2)")
    parser.add_argument("--keep", metavar="DIR", help="leave traces and runs in DIR")
    parser.add_argument("--slices", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--perturb", help=argparse.SUPPRESS)  # for the proof that a difference is found
    args = parser.parse_args(given)
    args.slices = args.slices or (1 if args.quick else 2)
    pythons = {"old": args.old, "new": args.new}
    pythons = {side: os.path.abspath(python) if os.sep in python else python for side, python in pythons.items()}
    facts = {side: run(python, "describe")[0] for side, python in pythons.items()}
    lists, isas, alone = common(facts)
    if args.isa:
        isas = [isa for isa in isas if isa in args.isa]
    folder = Path(args.keep or tempfile.mkdtemp(prefix="same-bits-"))
    try:
        rows = judge(gather(pythons, folder, lists, isas, args))
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(report(facts, rows, alone))
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key not in ("json", "perturb", "keep")}
        Path(args.json).write_text(json.dumps({"facts": facts, "settings": settings, "rows": rows}, indent=1) + "\n")
    return not rows or any(row["differs"] for row in rows)


if __name__ == "__main__":
    sys.exit(main())
