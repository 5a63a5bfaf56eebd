#!/usr/bin/env python
"""Makes the page of promises: what is promised, which tests hold it, and what long runs have measured.

scripts/promises_page.py > docs/explanation/promises.md

Figures are those of docs/nightly/, which scripts/nightly.sh writes, and of the other files that a row names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"

HEAD = """# What is promised, and how it is checked

Made by `scripts/promises_page.py`. With several workers an asynchronous strategy's order of updates differs from run to
run, and with it the last digits; everything else here holds for every run.

| promise | tests |
|---|---|
"""
LONG = """
## Long runs

`scripts/nightly.sh` runs all tests, the long ones in full, soak runs, the fuzzing of readers, and planted faults
(`scripts/mutants.py`); `tests/test_soak.py` has short forms. Every run is a JSON file with machine, commit and date.

| promise | command | figure | date, commit |
|---|---|---|---|
"""
FAULTS = """
## Faults that are planted by tests

| fault | what happens | test |
|---|---|---|
"""

# what is promised, and where it is tested
PROMISES = (
    (
        "**One worker is sequential SGD, bit for bit**, under every strategy and update rule that says so, also "
        "across an interruption.",
        ("test_strategies", "test_updates"),
    ),
    (
        "**Resume is exact.** What was cut, at the end of an epoch or within one, and continued has the bits of "
        "what was not: one worker, and `synchronous` and `hybrid` with any number; weights, the update rule's "
        "state, running statistics, schedules, random numbers, the order of images, with augmentation and "
        "dropout.",
        ("test_checkpoints", "test_training", "test_validation"),
    ),
    (
        "**Whatever is done to a network in whatever order** (trained, stopped in the middle, continued by any "
        "number of workers, saved, loaded, frozen, asked meanwhile, trained beside another): its weights are "
        "those of trainings without a break (a state machine whose steps hypothesis draws).",
        ("test_lives",),
    ),
    ("**An epoch visits every image exactly once**, whatever the strategy and the number of workers.", ("test_strategies",)),
    (
        "**No update is lost** where the table of strategies says so: with whole-numbered gradients the final "
        "weights of 8 workers are known, and met, to the last bit. For `hogwild` the loss is measured.",
        ("test_strategies", "test_domains", "test_cluster"),
    ),
    ("**Deterministic strategies equal a plain simulation** of their definition.", ("test_sync_meetings",)),
    ("**Staleness stays within its bound**, and no reader sees a torn 32-bit word.", ("test_strategies",)),
    (
        "**All strategies reach the optimum** of a convex problem within a derived band, and on the digits end at"
        " most 1.5 points of error above `sequential` (95 % interval over 20 seeds, by night; those that average "
        "get workers x epochs and twice the margin; `replicated` with `rule=sum` is known to be worse and left "
        "out).",
        ("test_strategies",),
    ),
    (
        "**Every layer agrees with its definition** in float64 NumPy, which agrees with finite differences, on "
        "every instruction set; in every such check the tolerance is below 5 % of the largest value.",
        ("test_layers", "test_isa"),
    ),
    (
        "**Only the weight vector may race**, through one file, `cext/engine/shared.h`, which says why that is "
        "tolerable. No other race, no stray access, no undefined behaviour in the C core "
        "(`scripts/run_sanitizers.sh`).",
        ("test_sanitizers",),
    ),
    (
        "**An epoch neither allocates nor enters the kernel**; the 512-bit kernels hold nothing beyond AVX-512F, "
        "the portable ones compile for aarch64.",
        ("test_quiet_epoch", "test_isa", "test_cross"),
    ),
    (
        "**A killed run loses at most the time since its last checkpoint** (`checkpoint_every`, 60 s by default):"
        " the state is kept within epochs, too, while workers go on. A run directory is one run's: a second run "
        "is refused while the first lives (its lock ends with it), files are there as a whole or not at all, an "
        "epoch's cost does not grow with the epochs before.",
        ("test_checkpoints", "test_files", "test_training"),
    ),
    (
        "**No silent hang**: exceptions in callbacks, sources of data and workers, signals, memory or threads "
        "that the system refuses, and a rank that stands still end the job with one error.",
        ("test_callbacks", "test_stream", "test_teams", "test_cluster_failures"),
    ),
    (
        "**No silent nonsense**: a loss that is not finite ends the training, or with `--on-diverge rollback` "
        "takes it back to its last good epoch with half the learning rate; ranks that were told different things "
        "do not train; files are what their checksums say.",
        ("test_checkpoints", "test_cluster_agreement", "test_scale"),
    ),
    (
        "**Hostile files are harmless**: what is damaged is refused, by every reader, with the file's name; "
        "nothing that is read is executed, and what is compressed is not inflated beyond what its header says or a bound.",
        ("test_damaged", "test_data_idx", "test_data_named"),
    ),
    (
        "**The process is left as found**: floating-point mode, signal handlers, affinity, BLAS threads. Forked "
        "children work, a second interpreter is refused with an ImportError, scikit-learn and PyTorch do what "
        "they do alone.",
        ("test_teams", "test_threads", "test_many"),
    ),
)


@dataclass(frozen=True)
class Run:
    """A long run. file: below docs/; figure: what is said of its results."""

    promise: str
    file: str
    figure: Callable[[dict[str, Any]], str]


def killed(found: dict[str, Any]) -> str:
    ages = found["seconds since the last checkpoint"]
    return (
        f"{found['kills']} of {found['kills']} newest checkpoints load, none older than the one before; at the "
        f"kill the last one was {ages['median']:.2f} s old in the median, {ages['most']:.2f} s at most "
        f"(`checkpoint_every` {found['checkpoint_every']} s, with other work on the machine)"
    )


def fuzzed(found: dict[str, Any]) -> str:
    readers = found["readers"].values()
    return (
        f"{sum(one['inputs'] for one in readers):,} files for {len(readers)} readers: refused by the documented "
        f"errors or read; the slowest took {max(one['slowest_ms'] for one in readers) / 1e3:.1f} s, all within "
        f"{found['memory_bound'] >> 30} GiB"
    )


def trained(found: dict[str, Any]) -> str:
    return (
        f"resident memory {100 * found['growth']:+.1f} % from the {found['trainings'] // 5:,}th training to the "
        f"{found['trainings']:,}th; threads, files, handlers, affinity as before"
    )


def loaded(found: dict[str, Any]) -> str:
    return (
        f"{sum(found['trainings'].values()):,} trainings with {found['workers']} workers on two cores in "
        f"{found['minutes']:g} minutes: no deadlock, no image lost"
    )


RUNS = (
    Run("a killed run loses at most the time since its last checkpoint", "nightly/soak_kill.json", killed),
    Run("the same of a job of two ranks, MPICH", "nightly/soak_kill_mpich.json", killed),
    Run("the same, Open MPI", "nightly/soak_kill_openmpi.json", killed),
    Run("damaged files are refused within 1 GiB and 5 s", "nightly/fuzz_readers.json", fuzzed),
    Run("trainings leave the process as it was", "nightly/soak_trainings.json", trained),
    Run("far more workers than cores, stopped, continued, moved", "nightly/soak_load.json", loaded),
)

# what fails, what happens then, and the test
PLANTED = (
    ("writing fails for a while", "told; the run goes on and keeps its good state", "test_checkpoints", "a_disk_that_fails"),
    ("the disk stays full", "an error at the end", "test_checkpoints", "a_disk_that_stays_full"),
    ("short reads, short writes, EINTR", "continued", "test_checkpoints", "short_reads_and_writes"),
    ("what was written reads back otherwise", "not kept", "test_checkpoints", "what_is_not_read_back"),
    ("a flush fails", "told", "test_files", "a_flush_that_has_lost"),
    ("the clock jumps", "nothing changes", "test_checkpoints", "clocks_that_jump"),
    ("the thread that writes cannot be started", "the state is kept without it", "test_checkpoints", "where_no_thread"),
    ("threads of workers are refused", "an error, and the process goes on", "test_teams", "stacks_that_cannot_be_had"),
    ("memory is refused", "an error, and the process goes on", "test_teams", "a_limit_on_memory"),
    ("no OpenMP", "told loudly by the build", "test_build", "no_openmp_is_loud"),
    ("a rank is killed", "the job ends", "test_cluster_failures", "a_killed_rank_ends_the_job"),
    ("a rank stands still", "it is named", "test_cluster_failures", "a_rank_that_stands_still_is_named"),
    ("a source of data hangs", "Ctrl-C ends it", "test_stream", "a_source_that_hangs"),
)


def rows() -> list[str]:
    """Those of the long runs that have been made."""
    made = []
    for run in RUNS:
        if not (DOCS / run.file).is_file():
            made.append(f"| {run.promise} | `scripts/nightly.sh` | not run | |")
            continue
        found = json.loads((DOCS / run.file).read_text())
        assert not found["wrong"], run.file
        command = found["command"].partition(" --json")[0]
        made.append(
            f"| {run.promise} | `{command}` ([result](../{run.file})) | {run.figure(found['results'])} | "
            f"{found['date']}, {found['commit']} |"
        )
    return made


def page() -> str:
    text = HEAD
    for promise, tests in PROMISES:
        text += f"| {promise} | {', '.join(f'`tests/{test}.py`' for test in tests)} |\n"
    text += LONG + "\n".join(rows()) + "\n"
    text += FAULTS
    for fault, then, test, words in PLANTED:
        text += f"| {fault} | {then} | `tests/{test}.py -k {words}` |\n"
    return text


if __name__ == "__main__":
    print(page(), end="")
