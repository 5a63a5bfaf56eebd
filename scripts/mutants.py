"""Mutation testing: plants faults in a copy of the package, one at a time, and tells which of them no test finds.

    scripts/mutants.py planted [--json FILE]    # the faults listed below, each with the tests that find it
    scripts/mutants.py random chaos/formats/atomic.py --tests tests/test_files.py --count 40 --seed 0

`random` changes comparisons, operators, constants, conditions and statements of a Python or C file. A fault that leaves a
test hanging counts as found. C files are built again for each fault (in a copy of the tree, some minutes each without
ccache). Exit status 1 where a planted fault survives."""

import argparse
import ast
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TREE = Path(__file__).resolve().parent.parent


class Fault(NamedTuple):
    """A text of a file, what stands for it in the fault, and what is to find it."""

    name: str
    file: str
    old: str
    new: str
    tests: str


PLANTED = [
    Fault(
        "a checkpoint is not flushed",
        "chaos/formats/atomic.py",
        "            _flush(file.fileno())\n",
        "",
        "tests/test_files.py",
    ),
    Fault(
        "a renaming is not flushed",
        "chaos/formats/atomic.py",
        "    _flush_directory(path.parent)\n",
        "",
        "tests/test_files.py",
    ),
    Fault(
        "what was written is not read back",
        "chaos/formats/atomic.py",
        "            _check(file.fileno(), memoryview(data))\n",
        "",
        "tests/test_checkpoints.py -k read_back",
    ),
    Fault(
        "the period of cgroup v1 is ignored",
        "chaos/threads.py",
        '_read(group / "cpu.cfs_period_us") or ""',
        '"100000"',
        "tests/test_threads.py -k v1",
    ),
    Fault(
        "pickles of NumPy files are executed",
        "chaos/cli/predict.py",
        "allow_pickle=False",
        "allow_pickle=True",
        "tests/test_cli.py -k executes",
    ),
    Fault(
        "reports hide NaN",
        "chaos/report/run.py",
        "return isinstance(value, (int, float)) and not isinstance(value, bool)",
        "return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value",
        "tests/test_report.py",
    ),
    Fault(
        "a rank that stands still is never named",
        "chaos/cluster/link.py",
        "elif still and not told[-1][0]:",
        "elif False:",
        "tests/test_cluster_failures.py -k get_no_further",
    ),
    Fault(
        "a deadlock is never told",
        "chaos/cluster/link.py",
        "        if resting:\n",
        "        if False:\n",
        "tests/test_cluster_failures.py -k get_no_further",
    ),
    Fault(
        "local: the warm-up is an epoch short",
        "chaos/cluster/local.py",
        'every = 1 if epoch <= self.option["warmup"]',
        'every = 1 if epoch < self.option["warmup"]',
        "tests/test_cluster.py -k warm_up",
    ),
    Fault(
        "easgd: an asynchronous pull is not subtracted",
        "chaos/cluster/easgd.py",
        "        self.door.add_weights(self._e, -1.0)\n",
        "        self.door.add_weights(self._e, 0.0)\n",
        "tests/test_cluster.py -k pull_keeps",
    ),
    Fault(
        "gossip: too small a share of the partners",
        "chaos/cluster/gossip.py",
        "1 / (len(partners) + 1)",
        "1 / (len(partners) + 2)",
        "tests/test_cluster.py -k mixes",
    ),
    Fault(
        "telemetry: maxima are added",
        "chaos/training/records.py",
        'return max(a, b) if key == "staleness_max" else a + b',
        "return a + b",
        "tests/test_telemetry.py -k ranks",
    ),
    Fault(
        "telemetry: other ranks' lock failures are lost",
        "chaos/training/records.py",
        '    return max(a, b) if key == "seconds" else together(key, a, b)\n',
        '    return max(a, b) if key in ("seconds", "lock_failures") else together(key, a, b)\n',
        "tests/test_telemetry.py -k ranks",
    ),
    Fault(
        "the header of safetensors is not padded",
        "chaos/formats/tensors.py",
        '    text += b" " * (-len(text) % 8)\n',
        "",
        "tests/test_network.py -k aligned",
    ),
    Fault(
        "ranks that differ go on",
        "chaos/cluster/link.py",
        '        if text:\n            self.agreed = True\n            raise ClusterError(f"the',
        '        if False:\n            self.agreed = True\n            raise ClusterError(f"the',
        "tests/test_cluster_agreement.py -k differ",
    ),
    Fault(
        "a checkpoint beside workers lacks the update rule's state",
        "chaos/training/state.py",
        "            job.moments[: None if moments else 0].copy(),",
        "            0 * job.moments,",
        "tests/test_checkpoints.py -k no_bit_changes",
    ),
    Fault(
        "Winograd: later images overwrite the weights' gradient",
        "cext/layers/conv2d_winograd.h",
        "t->wino_weights, lanes, outputs, c->first, c->dw + o);",
        "t->wino_weights, lanes, outputs, 1, c->dw + o);",
        "tests/test_winograd.py -k more_images",
    ),
    Fault(
        "gathering 19 vectors gathers 18",
        "cext/simd/tiles.h",
        "gather_16, gather_17, gather_18, gather_19,",
        "gather_16, gather_17, gather_18, gather_18,",
        "tests/test_convolutions.py -k every_length",
    ),
]


class Workshop:
    """Copies in which faults are planted: of the package, of which the compiled part is that of `python`, and where a C file
    is to be changed of the tree."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.python = folder, python
        told = subprocess.run(
            [python, "-c", "import chaos; print(chaos.__file__)"], capture_output=True, text=True, check=True, cwd=folder
        )
        self.package = Path(told.stdout.strip()).parent
        shutil.copytree(TREE / "chaos", folder / "python" / "chaos", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        for core in self.package.glob("_core*.so"):
            shutil.copy(core, folder / "python" / "chaos")

    def found(self, file: str, text: str, tests: str, seconds: float) -> bool:
        """Whether the tests fail when `file` holds `text`; the file is as before afterwards."""
        c = file.startswith("cext/")
        place = self.folder / ("tree" if c else "python")
        if c and not place.exists():
            shutil.copytree(TREE, place, ignore=shutil.ignore_patterns(".git", ".venv*", "build", "*.so", "runs"))
            self._build(place)
        path = place / file
        before = path.read_text()
        path.write_text(text)
        try:
            if c and not self._build(place):
                return True  # it does not compile
            return not self._passes(place, tests, seconds)
        finally:
            path.write_text(before)

    def _build(self, place: Path) -> bool:
        command = [self.python, "setup.py", "-q", "build_ext", "--inplace"]
        return not subprocess.run(command, cwd=place, capture_output=True).returncode

    def _passes(self, place: Path, tests: str, seconds: float) -> bool:
        env = {k: v for k, v in os.environ.items() if not k.startswith("CHAOS_")}
        env |= {"PYTHONPATH": str(place), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        words = re.findall(r"'[^']*'|\S+", tests)
        command = [self.python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(word.strip("'") for word in words)]
        process = subprocess.Popen(
            command, cwd=TREE, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return False


# ---- random faults ----

_C = [
    (r"(?<![<>=!+\-*/&|])<(?![<=])", "<="),
    (r"<=", "<"),
    (r"(?<![->])>(?![>=])", ">="),
    (r"==", "!="),
    (r"!=", "=="),
    (r"(?<![+\w(,=] )\+(?![+=])", "-"),
    (r"\+=", "-="),
    (r"&&", "||"),
    (r"\|\|", "&&"),
    (r"\b0\b", "1"),
    (r"\b1\b", "2"),
]


def faults_of_c(text: str) -> list[tuple[int, str]]:
    """(line, changed text) of all faults of a C file, outside comments and directives."""
    code = re.sub(
        r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*|\"[^\"\n]*\"", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S | re.M
    )
    return [
        (text.count("\n", 0, m.start()) + 1, text[: m.start()] + new + text[m.end() :])
        for pattern, new in _C
        for m in re.finditer(pattern, code)
    ]


_OPERATORS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in",
    ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is", ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.FloorDiv: "*",
    ast.Div: "*", ast.Mod: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip


def faults_of_python(text: str) -> list[tuple[int, str]]:
    """(line, changed text) of all faults of a Python file: operators, numbers, conditions, and statements left out."""
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line.encode()))
    data, found = text.encode(), []

    def at(line: int, column: int) -> int:
        return lines[line - 1] + column

    def change(node: ast.AST, start: int, end: int, new: str) -> None:
        found.append((node.lineno, (data[:start] + new.encode() + data[end:]).decode()))

    def between(left: ast.expr, right: ast.expr, operator: ast.AST) -> None:
        start, end = at(left.end_lineno, left.end_col_offset), at(right.lineno, right.col_offset)
        source = data[start:end].decode()
        words = re.search(r"not in|is not|\b(?:in|is|and|or)\b|[<>=!]=|//|[-+*/%<>]", source)
        if words and type(operator) in _OPERATORS:
            change(left, start + len(source[: words.start()].encode()), start + len(source[: words.end()].encode()),
                   _OPERATORS[type(operator)])  # fmt: skip

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare):
            for left, right, operator in zip([node.left, *node.comparators], node.comparators, node.ops, strict=False):
                between(left, right, operator)
        elif isinstance(node, ast.BinOp):
            between(node.left, node.right, node.op)
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:], strict=False):
                between(left, right, node.op)
        elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
            test = node.test
            start, end = at(test.lineno, test.col_offset), at(test.end_lineno, test.end_col_offset)
            change(test, start, end, f"(not ({data[start:end].decode()}))")
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            new = repr(not node.value) if isinstance(node.value, bool) else repr(node.value + 1)
            change(node, at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset), new)
        elif isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise)) and not (
            isinstance(node, ast.Expr) and isinstance(node.value, (ast.Constant, ast.Yield, ast.YieldFrom))
        ):
            change(node, at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset), "pass")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("planted", "random"))
    parser.add_argument("files", nargs="*", help="of `random`; of `planted` words, to take only faults that have one")
    parser.add_argument("--tests", help="of `random`: pytest's arguments")
    parser.add_argument("--count", type=int, default=40, help="of `random`: faults per file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for the tests of one fault")
    parser.add_argument("--python", default=str(TREE / ".venv-test/bin/python"), help="where chaos and pytest are installed")
    parser.add_argument("--json", help="where the results go")
    asked = parser.parse_args()
    if asked.what == "random" and not (asked.files and asked.tests):
        parser.error("random needs files and --tests")
    rows, start = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), asked.python)
        for name, file, text, tests in chosen(asked):
            found = shop.found(file, text, tests, asked.timeout)
            rows.append({"fault": name, "file": file, "tests": tests, "found": found})
            print(f"{'found   ' if found else 'SURVIVES'} {name} ({file})", flush=True)
    survivors = sum(not row["found"] for row in rows)
    print(f"{len(rows) - survivors} of {len(rows)} faults found")
    if asked.json:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=TREE, capture_output=True, text=True
        ).stdout.strip()
        about = {"commit": commit, "date": time.strftime("%Y-%m-%d"), "machine": platform.machine(), "cpus": os.cpu_count()}
        about |= {"command": " ".join(["scripts/mutants.py", *sys.argv[1:]]), "seconds": round(time.monotonic() - start)}
        Path(asked.json).write_text(json.dumps(about | {"faults": rows}, indent=1) + "\n")
    return 1 if survivors and asked.what == "planted" else 0


def chosen(asked):
    """(name, file, changed text, tests) of the faults."""
    if asked.what == "planted":
        for fault in PLANTED:
            text = (TREE / fault.file).read_text()
            assert text.count(fault.old) == 1, f"{fault.file} holds {text.count(fault.old)} times {fault.old!r}"
            if not asked.files or any(word in fault.name or word in fault.file for word in asked.files):
                yield fault.name, fault.file, text.replace(fault.old, fault.new), fault.tests
        return
    for file in asked.files:
        text = (TREE / file).read_text()
        found = faults_of_python(text) if file.endswith(".py") else faults_of_c(text)
        for line, changed in random.Random(asked.seed).sample(found, min(asked.count, len(found))):
            here, there = text.splitlines(), changed.splitlines()
            now = there[line - 1].strip() if len(there) >= line else ""
            yield f"line {line}: {here[line - 1].strip()} -> {now}", file, changed, asked.tests


if __name__ == "__main__":
    raise SystemExit(main())
