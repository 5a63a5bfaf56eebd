"""`chaos doctor`: looks at the machine, the environment and MPI, and says what is wrong with them."""

import dataclasses
import os
import textwrap

from ..cluster import launched, look
from ..installation import info
from ..precision import VARIABLE, missing
from .common import add_command, columns, show_json


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "doctor",
        run,
        usage="[--caches] [--json]",
        description="Looks at the instruction set, bfloat16, cores and their limits (affinity, cgroup, environment), OpenMP "
        "libraries, MPI library and launcher, and says of each whether it is as it should be, and what to do. "
        "Under a launcher also at the ranks and their bindings. Exit code 1 where something is wrong.",
        examples=["chaos doctor", "mpirun -n 4 chaos doctor"],
    )
    parser.add_argument(
        "--caches",
        action="store_true",
        help="also measure which CPUs share a cache, two milliseconds for each pair it takes",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    """Runs the command."""
    launch = launched()
    table = look.ranks()
    if launch and launch.ranks > 1 and table is None:
        return  # rank 0 speaks
    facts = info()
    isa, best = facts["isa"], facts["isa_supported"][-1]
    findings = [look.Finding(look.OK, "chaos", f"{facts['chaos']}, Python {facts['python']}, NumPy {facts['numpy']}")]
    if isa == best:
        known = ", ".join(facts["isa_supported"])
        findings.append(look.Finding(look.OK, "instruction set", f"{isa} (this machine supports {known})"))
    else:
        findings.append(
            look.Finding(
                look.NOTE,
                "instruction set",
                f"{isa}, though this machine supports {best}: CHAOS_ISA={os.environ.get('CHAOS_ISA', '')}",
                "unset CHAOS_ISA",
            )
        )
    findings.append(_bf16(facts["bf16"]))
    findings += look.look()
    findings += look.caches() if arguments.caches else []
    if table:
        if table[0].get("ranks", 1) < table[0]["announced"] and launch.rank:
            return  # all are alone; one complaint is enough
        findings += look.of_ranks(table)
    if arguments.json:
        show_json([dataclasses.asdict(one) for one in findings])
    else:
        for one in findings:
            _show(one)
        wrong, notes = (sum(one.level == level for one in findings) for level in (look.WRONG, look.NOTE))
        print(f"{wrong} thing{'s'[: wrong != 1]} wrong, {notes} to note")
    if any(one.level == look.WRONG for one in findings):
        raise SystemExit(1)


def _bf16(unit):
    """What --precision bf16 would compute with."""
    if unit == "amx":
        return look.Finding(look.OK, "precision bf16", "AMX multiplies bfloat16 numbers")
    if unit:
        text = f"plain C multiplies bfloat16 numbers, as {VARIABLE} asks for: the same bits as AMX, slowly"
        return look.Finding(look.NOTE, "precision bf16", text, f"unset {VARIABLE}")
    return look.Finding(look.OK, "precision bf16", f"not here: {missing()}")


def _show(one):
    mark = {look.OK: "  ", look.NOTE: "? ", look.WRONG: "! "}[one.level]
    width = max(columns() - 1, 40)
    print(
        textwrap.fill(
            one.text,
            width,
            initial_indent=mark + f"{one.topic}: ",
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    )
    if one.fix:
        print(
            textwrap.fill(
                one.fix,
                width,
                initial_indent="    -> ",
                subsequent_indent="       ",
                break_on_hyphens=False,
                break_long_words=False,
            )
        )
