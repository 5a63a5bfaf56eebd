"""Builds the one extension module, chaos._core: asks the compiler, collects cext/, declares the extension.

A questionnaire, not a program; metadata is in pyproject.toml. The switches are environment variables:
CHAOS_NATIVE=1, CHAOS_DEBUG=1, CHAOS_SANITIZE=address,undefined, CHAOS_OPENMP=0.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The result must run on every machine of its kind and must not change the floating-point mode of the process:
# no -march and no -ffast-math here. The instruction-set files raise their target themselves, by pragma.
BASELINE = [
    "-O3",
    "-g0",
    "-std=gnu11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
]
OPENMP = ["-fopenmp"]
GENERATED = "build/cython"
LISTS = "build/generated/lists"
ROW = re.compile(r"^[A-Z]+_ROW\((\w+)[,)]", re.M)

OPENMP_PROBE = """
#include <omp.h>
int main(void) {
    int n = 0;
    omp_set_dynamic(0);
    #pragma omp parallel num_threads(2) reduction(+:n)
    n += 1;
    return n == 2 ? 0 : 1;
}
"""


VECTOR_PROBE = """
typedef float v4 __attribute__((vector_size(16)));
int main(void) {
    volatile v4 a = {0, 1, 2, 3};
    v4 b = a;
    b = __builtin_shufflevector(b, b, 3, 2, 1, 0);
    return b[0] != 3;
}
"""


def sources():
    """The files that are compiled; the bodies in simd, layers, losses, updates, augment are #included by cext/isa."""
    return ["cext/_core.pyx"] + [
        f
        for room in (".", "isa", "bf16", "engine", "replay", "sync", "virtual", "virtual/orders")
        for f in sorted(glob(os.path.normpath(f"cext/{room}/*.c")))
    ]


def depends():
    """Every file under cext whose change must rebuild the extension."""
    return sorted(f for f in glob("cext/**/*", recursive=True) if f.endswith((".c", ".h", ".pxd", ".pxi")))


def write_lists(folder=LISTS):
    """Writes what registers a kind: NAME.h with KIND(x) for every x.c in folder NAME, or for each of its rows where it holds
    several kinds; NAME_bodies.h with the file's #include."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for room in ("layers", "losses", "updates", "augment", "sync", "virtual/orders"):
        files, last = sorted(glob(f"cext/{room}/*.c")), Path(room).name
        stems = [Path(f).stem for f in files]
        kinds = [kind for f in files for kind in ROW.findall(Path(f).read_text()) or [Path(f).stem]]
        for name, line, names in ((last, "KIND({})", kinds), (f"{last}_bodies", f'#include "{room}/{{}}.c"', stems)):
            text = f"/* Written by setup.py: the files of cext/{room}. */\n" + "".join(line.format(s) + "\n" for s in names)
            file = Path(folder, f"{name}.h")
            if not file.is_file() or file.read_text() != text:  # what is newer than an object is compiled again
                file.write_text(text)


def say(*lines):
    # The fixed prefix lets scripts/setup_env.sh find these lines in pip's log.
    for line in lines:
        print(f"chaos build: {line}", file=sys.stderr, flush=True)


def box(*lines):
    rule = "*" * 88
    say(rule, *(f"** {line}" for line in lines), rule)


def refuse(reason, remedy="on Debian/Ubuntu: apt-get install build-essential python3-dev"):
    sys.exit(f"chaos build: stopped, {reason}; {remedy}")


def try_program(command, text, *flags, run=False):
    """Compile and link `text` (and run it); None when that worked, else one line that says why it did not."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "probe.c"), os.path.join(folder, "probe")
        Path(source).write_text(text)
        calm = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
        calm["LC_ALL"] = "C"
        steps = [[*command, source, "-o", program, *flags]] + ([[program]] if run else [])
        for step in steps:
            try:
                done = subprocess.run(step, capture_output=True, text=True, errors="replace", env=calm, timeout=60)
            except FileNotFoundError:
                return f"{step[0]} not found"
            except (OSError, subprocess.TimeoutExpired) as error:
                return str(error)
            if done.returncode:
                lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
                errors = [line for line in lines if "error" in line]
                return (errors or lines)[0].replace(source, "probe.c")
    return None


def ask(compiler, environ=os.environ):
    """Ask the compiler and the environment; (compile flags, link flags, macros), with one line printed."""

    def switch(name, default=""):
        return environ.get(name, default) not in ("", "0")

    if compiler.compiler_type != "unix":
        refuse("only GCC and Clang can build the C core")
    command = list(compiler.compiler)
    why = try_program(command, '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n')
    if why:
        refuse(f"no working C compiler ({why})")
    include = [f"-I{folder}" for folder in compiler.include_dirs]
    why = try_program(command, "#include <Python.h>\n", "-fsyntax-only", *include)
    if why:
        refuse(f"the headers of Python are missing ({why})")

    why = try_program(command, VECTOR_PROBE)
    if why:
        refuse(f"the compiler is too old, GCC 12 or Clang 14 is needed ({why})")

    flags, link = list(BASELINE), []
    if switch("CHAOS_DEBUG"):
        flags += ["-O0", "-g", "-UNDEBUG"]
    if environ.get("CHAOS_SANITIZE"):
        link.append(f"-fsanitize={environ['CHAOS_SANITIZE']}")
        flags += [*link, "-fno-omit-frame-pointer", "-g"]
    if switch("CHAOS_NATIVE"):
        flags.append("-march=native")
        box(
            "CHAOS_NATIVE=1: compiled with -march=native. The result is NOT PORTABLE:",
            "on another processor it may stop with 'illegal instruction'. Do not distribute it.",
        )

    if switch("CHAOS_OPENMP", "1"):
        missing = try_program(command, OPENMP_PROBE, *OPENMP, run=True)
    else:
        missing = "switched off by CHAOS_OPENMP=0"
    if missing:
        box(
            f"OpenMP is NOT used: {missing}",
            "chaos will train with ONE worker, however many cores there are.",
            "To have it: build with GCC (apt-get install build-essential), CHAOS_OPENMP unset.",
        )
    else:
        flags += OPENMP
        link += OPENMP

    version = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace").stdout
    info = "; ".join(
        [(version.splitlines() or command)[0], f"flags {shlex.join(flags)}", "OpenMP no" if missing else "OpenMP yes"]
    )
    say(info)
    quoted = info.replace("\\", "\\\\").replace('"', '\\"')
    return flags, link, [("CHAOS_OPENMP", "0" if missing else "1"), ("CHAOS_BUILD_INFO", f'"{quoted}"')]


def generated_c(pyx):
    """Run Cython on `pyx` when it is newer than its C file; the path of that file, in the build directory."""
    from setuptools.modified import newer_group

    made = f"{GENERATED}/{Path(pyx).stem}.c"
    if not newer_group([pyx, "setup.py", *glob("cext/**/*.px[di]", recursive=True)], made):
        return made
    try:
        from Cython.Compiler.Main import compile as cython
        from Cython.Compiler.Options import get_directive_defaults
    except ImportError:
        refuse("Cython is missing", "pip install 'cython>=3.1'")
    directives = {"language_level": 3, "embedsignature": True}
    if "freethreading_compatible" in get_directive_defaults():
        directives["freethreading_compatible"] = True
    # Not cythonize(): it copies headers beside the C file, where an old copy hides the real one.
    result = cython(
        pyx, full_module_name="chaos._core", output_file=made, include_path=["cext"], compiler_directives=directives
    )
    if result.num_errors:
        Path(made).unlink(missing_ok=True)
        sys.exit(f"Cython refused {pyx}; its messages are above")
    return made


class build_core(build_ext):  # noqa: N801, the name setuptools prints
    def build_extensions(self):
        flags, link, macros = ask(self.compiler)
        # Objects of an earlier build are only reused when every answer is still the same.
        answers = Path(GENERATED, "answers.txt")
        answers.parent.mkdir(parents=True, exist_ok=True)
        text = repr((flags, link, macros))
        if not answers.is_file() or answers.read_text() != text:
            answers.write_text(text)

        write_lists()
        (core,) = self.extensions
        core.sources = [generated_c(f) if f.endswith(".pyx") else f for f in core.sources]
        core.depends = [*core.depends, str(answers), *sorted(glob(f"{LISTS}/*.h"))]
        core.define_macros, core.extra_compile_args, core.extra_link_args = macros, flags, link

        compile_list = self.compiler.compile

        def compile_in_parallel(files, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [o for made in pool.map(lambda f: compile_list([f], **options), files) for o in made]

        self.compiler.compile = compile_in_parallel
        super().build_extensions()


if __name__ == "__main__":
    setup(
        ext_modules=[Extension("chaos._core", sources(), include_dirs=["cext", os.path.dirname(LISTS)], depends=depends())],
        cmdclass={"build_ext": build_core},
    )
