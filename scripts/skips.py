"""What has been skipped, by reason, from a JUnit file of pytest: scripts/skips.py build/tests.xml

Exit status 1 where more is skipped than is known of here: a reason that no row below has, more tests of one reason than its
row allows, or a tool called missing that is there. So nothing begins to skip in silence: whoever adds a test that skips says
so here."""

import re
import shutil
import sys
import xml.etree.ElementTree as Tree
from collections import Counter
from pathlib import Path


def has_amx():
    return Path("/proc/cpuinfo").is_file() and "amx_bf16" in Path("/proc/cpuinfo").read_text()


def lacks(tool):
    return lambda: not shutil.which(tool)


# Test and reason, as "module: reason"; how many there may be at most (None: any number), and when (None: always).
KNOWN = (
    (r"No module named 'torch'|needs torch", 424, None),  # gigabytes: its tests are run where it is installed
    (r"No module named '(mlflow|wandb|tensorboard)'", 5, None),
    (r"^test_onnx_judges: ", 56, None),  # cases out of scope; docs/judges.json has each with its reason
    (r"^test_groups: real workers do not give the same bits", 7, None),
    (r"^test_estimators: SCIPY_ARRAY_API is not set", 2, None),
    (r"\bAMX\b", None, lambda: not has_amx()),
    (r"\bclang\b|archer|sanitizers", None, lacks("clang")),
    (r"\bstrace is not installed", None, lacks("strace")),
    (r"aarch64", None, lacks("aarch64-linux-gnu-gcc")),
    # what another machine, system or build does not have
    (r"on one CPU|no affinity masks|binds no thread|lets no process filter|strace cannot trace", None, None),
    (r"/dev/full|in /proc|POSIX|on Linux|not glibc|MXCSR|x86|(bash|zsh|fish) is not here", None, None),
    (r"cannot be told apart here|built for this machine alone|without OpenMP|is stripped|no compiler", None, None),
)


def skipped(path):
    """How many tests, by module and reason."""
    reasons = Counter()
    for case in Tree.parse(path).iter("testcase"):
        for one in case.findall("skipped"):
            if one.get("type") != "pytest.xfail":
                why = one.get("message") or "?"
                if why == "collection skipped":  # a whole module
                    why = one.text or why
                module = (case.get("classname") or case.get("name") or "?").removeprefix("tests.").split(".")[0]
                reasons[f"{module}: {why.strip()}"] += 1
    return reasons


def main(path):
    """The exit status."""
    reasons, counts, wrong = skipped(path), Counter(), 0
    for reason, count in reasons.most_common():
        row = next((row for row in KNOWN if re.search(row[0], reason) and (row[2] is None or row[2]())), None)
        counts[row] += count
        if row is None:
            print(f"skips: {count} that should not be: {reason[:200]}")
            wrong += count
    for row, count in counts.items():
        if row is not None and row[1] is not None and count > row[1]:
            print(f"skips: {count} for /{row[0]}/, {row[1]} are known")
            wrong += count - row[1]
    print(f"skips: {sum(reasons.values())} in all; {wrong} that should not be")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
