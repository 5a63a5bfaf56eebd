"""The build: what setup.py asks and answers, and a wheel that trains where no source tree is left.

Needs the source tree around this file; chaos itself is only imported inside the fresh environment.
"""

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
if not (TREE / "setup.py").is_file() or not (TREE / "cext").is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """ask(CC shell script=None, **switches): what setup.py decides, with what it printed as the last item."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext  # first, it puts setuptools' own distutils in place
    from setuptools._distutils.ccompiler import new_compiler  # isort: skip
    from setuptools._distutils.sysconfig import customize_compiler

    module = runpy.run_path(str(TREE / "setup.py"), run_name="setup_of_chaos")

    def ask(script=None, **environ):
        for name in ("CC", "CFLAGS", "LDFLAGS"):
            monkeypatch.delenv(name, raising=False)
        if script is not None:
            cc = tmp_path / "cc"
            cc.write_text(f"#!/bin/sh\n{script}\n")
            cc.chmod(0o755)
            monkeypatch.setenv("CC", str(cc))
        compiler = new_compiler()
        customize_compiler(compiler)
        compiler.set_include_dirs(build_ext_includes(build_ext(Distribution())))
        capsys.readouterr()
        flags, link, macros = module["ask"](compiler, environ)
        return flags, link, dict(macros), capsys.readouterr().err

    def build_ext_includes(command):
        command.finalize_options()
        return command.include_dirs

    return ask


def refusal(ask, script):
    with pytest.raises(SystemExit) as caught:
        ask(script)
    (line,) = str(caught.value).splitlines()
    assert "apt-get install build-essential python3-dev" in line
    return line


def test_default_flags_are_portable(ask):
    flags, link, macros, _ = ask()
    assert not [f for f in flags + link if f.startswith(("-march", "-mtune", "-mavx", "-Ofast"))]
    assert not [f for f in flags + link if "fast-math" in f or "finite-math" in f or "associative" in f]
    assert "-O3" in flags and "-Wall" in flags
    assert " ".join(flags) in macros["CHAOS_BUILD_INFO"]


def test_native_says_that_it_is_not_portable(ask):
    flags, _, macros, said = ask(CHAOS_NATIVE="1")
    assert "-march=native" in flags and "-march=native" in macros["CHAOS_BUILD_INFO"]
    assert "NOT PORTABLE" in said
    assert "-march=native" not in ask(CHAOS_NATIVE="0")[0]


def test_debug_and_sanitizers(ask):
    flags, link, _, _ = ask(CHAOS_DEBUG="1", CHAOS_SANITIZE="address,undefined")
    assert [f for f in flags if f.startswith("-O")][-1] == "-O0" and "-g" in flags
    assert "-fsanitize=address,undefined" in flags and "-fsanitize=address,undefined" in link


def test_no_openmp_is_loud(ask):
    flags, link, macros, said = ask(CHAOS_OPENMP="0")
    assert "-fopenmp" not in flags + link
    assert macros["CHAOS_OPENMP"] == "0" and "OpenMP no" in macros["CHAOS_BUILD_INFO"]
    assert "OpenMP is NOT used" in said and "*" * 40 in said


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            'case "$*" in *-fopenmp*) echo "error: no -fopenmp here" >&2; exit 1;; esac; exec gcc "$@"',
            "error: no -fopenmp here",
        ),
        # Compiles and links, yet starts no second thread: only running the program shows it.
        ('exec gcc "$@" "-Dnum_threads(x)=num_threads(1)"', "exit status 1"),
    ],
)
def test_openmp_is_probed_by_running(ask, script, reason):
    flags, _, macros, said = ask(script)
    assert "-fopenmp" not in flags and macros["CHAOS_OPENMP"] == "0"
    assert f"OpenMP is NOT used: {reason}" in said


def test_missing_compiler_is_one_line(ask):
    assert "no working C compiler" in refusal(ask, "exit 127")


def test_missing_libc_headers_are_one_line(ask):
    assert "stdio.h" in refusal(ask, 'exec gcc -nostdinc "$@"')


def test_missing_python_headers_are_one_line(ask):
    without = 'for a in "$@"; do shift; case "$a" in -I*) ;; *) set -- "$@" "$a";; esac; done; exec gcc "$@"'
    assert "Python.h" in refusal(ask, without)


TRAIN = """
import json, numpy as np, chaos
rng = np.random.default_rng(0)
data = chaos.data.Dataset(rng.random((20, 1, 29, 29), dtype=np.float32), rng.integers(0, 10, 20))
run = chaos.train(chaos.models.small(seed=0), data, None, workers=2, epochs=1, lr=0.01, seed=0)
print(json.dumps({"file": chaos.__file__, "loss": run.history[-1]["train_loss"]}))
"""


@pytest.mark.slow
def test_installed_wheel_trains_without_the_source(tmp_path):
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "*.so", "__pycache__")
    shutil.copytree(TREE, source, ignore=skipped)
    # What scripts/test.sh has compiled, with the answers that it was compiled for: newer than all sources, it is not
    # compiled again where setup.py comes to the same answers here.
    for folder in ("build/cython", "build/generated"):
        if (TREE / folder).is_dir():
            shutil.copytree(TREE / folder, source / folder)
    for made in TREE.glob("build/lib.*/chaos/*.so"):
        (source / made.relative_to(TREE)).parent.mkdir(parents=True)
        shutil.copy2(made, source / made.relative_to(TREE))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CHAOS_") and k not in ("PYTHONPATH", "CC", "CFLAGS")}
    if shutil.which("ccache"):
        environ |= {"CC": f"ccache {sysconfig.get_config_var('CC') or 'cc'}"}

    def run(*command, **options):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, **options)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    # With the tools of this environment no network is needed.
    tools = all(importlib.util.find_spec(name) for name in ("setuptools", "Cython"))
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--quiet",
        "--wheel-dir",
        str(tmp_path),
        *(["--no-build-isolation"] if tools else []),
        cwd=source,
    )
    (wheel,) = tmp_path.glob("chaos_sgd-*.whl")
    shutil.rmtree(source)
    assert wheel.stat().st_size < 3e6

    names = set(zipfile.ZipFile(wheel).namelist())
    python_files = {p.relative_to(TREE).as_posix() for p in (TREE / "chaos").rglob("*.py")}
    assert python_files <= names
    assert len([n for n in names if n.endswith(".so")]) == 1
    assert "chaos/py.typed" in names
    assert not [n for n in names if not re.match(r"chaos/|chaos_sgd-[^/]+\.dist-info/", n)]
    assert not [n for n in names if n.endswith((".c", ".h", ".pyx"))]

    # A fresh environment that borrows numpy and its like from this one; its own packages come first.
    run(sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv"))
    python = tmp_path / "venv/bin/python"
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(wheel))
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join({sysconfig.get_path(k) for k in ("purelib", "platlib")}))

    empty = tmp_path / "empty"
    empty.mkdir()
    found = json.loads(run(str(python), "-c", TRAIN, cwd=empty).splitlines()[-1])
    assert Path(found["file"]).is_relative_to(site)
    assert 0 < found["loss"] < 100
