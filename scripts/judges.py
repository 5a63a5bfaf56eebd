"""Counts for the documentation: how many of other people's test cases pass through chaos.from_onnx and chaos.from_torch.

Runs tests/test_onnx_judges.py and tests/test_torch_judges.py on the installed package, those that are left to the night as
well, and counts; onnx's light models each in a process of its own, which says how long it took and how much memory. With
--json FILE it also writes that, and what was skipped, by reason. Some minutes, 10 GB of memory. Needs onnx, onnxruntime,
torch and expecttest: pip install '.[test,torch]' expecttest
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent / "tests"
JUDGES = {
    "onnx.backend.test, cases of operators": ("test_onnx_judges.py", "test_cases_of"),
    "onnx light models": ("test_onnx_judges.py", "test_light_models"),
    "onnx light models, a training step": ("test_onnx_judges.py", "test_a_training_step_of_the_light_models"),
    "onnx simple and PyTorch-converted models": ("test_onnx_judges.py", "test_stored_case"),
    "torch.testing, module samples": ("test_torch_judges.py", "test_module"),
}


LIGHT = ["onnx light models", "onnx light models, a training step"]
WORDS = ["-q", "--nightly", "--timeout=7200", "-p", "no:xdist", "-p", "no:cacheprovider", "--no-header"]


class Count:
    """A plugin of pytest that keeps the outcomes."""

    def __init__(self):
        self.outcomes = collections.defaultdict(collections.Counter)
        self.reasons = collections.defaultdict(collections.Counter)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.skipped or report.failed:
            name = report.nodeid.rpartition("::")[2].partition("[")[0]
            file = Path(report.nodeid.partition("::")[0]).name
            several = dict(report.user_properties).get("outcomes")
            if several is not None:  # of a test that goes through many cases: None, or why one is not in scope
                self.outcomes[file, name].update("skipped" if reason else "passed" for reason in several)
                self.outcomes[file, name]["failed"] += report.failed
                self.reasons[file, name].update(filter(None, several))
                return
            self.outcomes[file, name][report.outcome] += 1
            if report.skipped:
                self.reasons[file, name][str(report.longrepr[2]).removeprefix("Skipped: ")] += 1


def light_models(count):
    """Runs each test of the light models in a process of its own and counts: {model: {test: seconds and bytes}}."""
    found = {}
    for title in LIGHT:
        file, test = JUDGES[title]
        listed = subprocess.run(
            [sys.executable, "-m", "pytest", *WORDS, "--collect-only", f"{TESTS / file}::{test}"],
            capture_output=True,
            text=True,
        ).stdout
        for name in re.findall(rf"{test}\[(.+)\]$", listed, re.MULTILINE):
            start = time.monotonic()
            words = [sys.executable, "-m", "pytest", *WORDS, f"{TESTS / file}::{test}[{name}]"]
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
                told = process.stdout.read()
                _, _, used = os.wait4(process.pid, 0)
                process.returncode = 0
            outcome = re.search(r"1 (passed|failed|skipped)", told)
            count.outcomes[file, test][outcome[1] if outcome else "failed"] += 1
            row = {"seconds": round(time.monotonic() - start, 1), "peak_bytes": used.ru_maxrss * 1024}
            found.setdefault(name, {})[title] = row
            print(f"{title}: {name}: {outcome[1] if outcome else told}, {row['seconds']} s", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write counts and reasons there")
    arguments = parser.parse_args()
    count = Count()
    files = sorted({str(TESTS / file) for file, _ in JUDGES.values()})
    pytest.main([*WORDS, "-k", "not light_models", *files], plugins=[count])
    models = light_models(count)
    rows = {title: dict(count.outcomes[key]) for title, key in JUDGES.items()}
    print(f"\n{'judge':44} passed  not in scope  failed")
    for title, row in rows.items():
        print(f"{title:44} {row.get('passed', 0):6}  {row.get('skipped', 0):12}  {row.get('failed', 0):6}")
    if arguments.json:
        from chaos.bench import machine

        about = machine()
        for name in ("torch", "onnx", "onnxruntime"):
            if name in sys.modules:
                about[name] = sys.modules[name].__version__
        reasons = {title: dict(count.reasons[key].most_common()) for title, key in JUDGES.items()}
        Path(arguments.json).write_text(
            json.dumps({"about": about, "counts": rows, "light models": models, "not in scope": reasons}, indent=1) + "\n"
        )
    return any(row.get("failed", 0) for row in rows.values())


if __name__ == "__main__":
    sys.exit(main())
