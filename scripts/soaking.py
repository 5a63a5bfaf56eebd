"""What the long runs of scripts/soak_*.py and scripts/fuzz_readers.py have in common: what they tell about themselves, and
this process's memory."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent


def parser(text):
    """With the option --json."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", metavar="FILE", help="where the results go")
    return found


def finish(asked, results, wrong):
    """Prints and writes the results, with machine, commit and date; the exit status: 1 where `wrong`, a list of texts, holds
    any."""
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=TREE, capture_output=True, text=True)
    about = {
        "command": " ".join([f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "machine": {"processor": processor(), "cpus": len(os.sched_getaffinity(0)), "python": platform.python_version()},
        "commit": told.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "results": results,
        "wrong": wrong,
    }
    print(json.dumps(about, indent=1))
    if asked.json:
        Path(asked.json).write_text(json.dumps(about, indent=1) + "\n")
    return 1 if wrong else 0


def processor():
    """Its name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def resident():
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
