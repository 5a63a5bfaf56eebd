"""What has been skipped, by reason, from a JUnit file of pytest: scripts/skips.py build/tests.xml

Exit status 1 where a tool was missing that is there (a compiler, strace, a launcher): that would be tests that skip in
silence; with a tool that is not there the number of its skips is told."""

import re
import shutil
import sys
import xml.etree.ElementTree as Tree
from collections import Counter
from pathlib import Path


def has_amx():
    return Path("/proc/cpuinfo").is_file() and "amx_bf16" in Path("/proc/cpuinfo").read_text()


# what a reason says: the program, or the question about the machine, without which it may say so
TOOLS = {
    r"\bAMX\b": has_amx,
    r"\bclang\b|archer|sanitizers": "clang",
    r"\bstrace\b": "strace",
    r"aarch64": "aarch64-linux-gnu-gcc",
    r"no launcher|cannot run two ranks|mpi4py": None,  # they come with the tests
    r"no module named '?(numpy|matplotlib|PIL|sklearn|onnx)": None,
}


def main(path):
    """The exit status."""
    reasons = Counter()
    for case in Tree.parse(path).iter("testcase"):
        for skipped in case.findall("skipped"):
            if skipped.get("type") != "pytest.xfail":
                reasons[(skipped.get("message") or "?").strip()[:150]] += 1
    wrong = 0
    for reason, count in reasons.most_common():
        for words, tool in TOOLS.items():
            if re.search(words, reason, re.IGNORECASE) and (
                tool is None or (tool() if callable(tool) else shutil.which(tool))
            ):
                print(f"skips: {count} that should not be: {reason}")
                wrong += count
                break
    print(f"skips: {sum(reasons.values())} in all, for {len(reasons)} reasons; {wrong} for want of what is here")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
