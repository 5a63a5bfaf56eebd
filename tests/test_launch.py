"""`chaos launch`: the right command for each launcher; those that are here understand it."""

import os
import shlex
import subprocess
import sys

import mpi
import pytest

from chaos.cli import main
from chaos.cluster import commands

MACHINE = {"numa_nodes": 4, "sockets": 2, "cores": 64, "logical_cpus": 128}
PROGRAM = ["python", "-m", "chaos", "train", "small"]


def words(launcher, nodes="2", domain="numa", **how):
    return commands.command(launcher, commands.layout(nodes, domain, machine=MACHINE, **how), PROGRAM)


def test_layouts():
    what = commands.layout("3", machine=MACHINE)
    assert (what.nodes, what.domains, what.cores, what.ranks, what.hosts) == (3, 4, 16, 12, ())
    what = commands.layout("a,b.c-d", "socket", machine=MACHINE)
    assert (what.nodes, what.domains, what.cores, what.hosts) == (2, 2, 32, ("a", "b.c-d"))
    assert commands.layout("1", "node", machine=MACHINE).cores == 64
    assert commands.layout("1", "l3", domains=8, cores=8, machine=MACHINE).ranks == 8
    assert commands.layout("1", machine=MACHINE | {"numa_nodes": None}).domains == 2
    assert commands.layout("1", domains=1, cores=7, machine=MACHINE).cores == 7
    # what the launchers of this machine are told by default exists here
    assert commands.layout().ranks >= 1


@pytest.mark.parametrize(
    "how, match",
    [
        (dict(nodes="0"), "nodes"),
        (dict(nodes="a,,b"), "nodes"),
        (dict(nodes="a,a"), "nodes"),
        (dict(nodes="-x"), "nodes"),
        (dict(nodes="a;rm"), "nodes"),
        (dict(domain="rack"), "unknown domain 'rack'; known: numa, socket, l3, node"),
        (dict(domain="l3"), "--domains"),
        (dict(domains=0), "domains"),
        (dict(cores=0), "cores"),
    ],
)
def test_layouts_that_make_no_sense(how, match):
    with pytest.raises(ValueError, match=match):
        commands.layout(**{"nodes": "1", "machine": MACHINE} | how)


def test_open_mpi():
    assert words("openmpi", "a,b") == [
        "mpirun",
        "--host",
        "a:4,b:4",
        "-n",
        "8",
        "--map-by",
        "ppr:1:numa:PE=16",
        "--bind-to",
        "core",
        "-x",
        "CHAOS_NUM_THREADS=16",
        *PROGRAM,
    ]
    assert "ppr:1:package:PE=32" in words("openmpi", domain="socket") and "--host" not in words("openmpi")
    assert "ppr:1:l3cache:PE=8" in words("openmpi", domain="l3", domains=8, cores=8)
    assert "ppr:1:node:PE=64" in words("openmpi", domain="node")


def test_mpich_and_intel():
    assert words("mpich", "a,b") == [
        "mpiexec",
        "-hosts",
        "a,b",
        "-ppn",
        "4",
        "-n",
        "8",
        "-bind-to",
        "numa",
        "-map-by",
        "numa",
        "-genv",
        "CHAOS_NUM_THREADS",
        "16",
        *PROGRAM,
    ]
    assert "-bind-to none" in shlex.join(words("mpich", domain="node"))
    assert words("intelmpi", domain="l3", domains=8, cores=8) == [
        "mpiexec",
        "-ppn",
        "8",
        "-n",
        "16",
        "-genv",
        "I_MPI_PIN_DOMAIN",
        "cache3",
        "-genv",
        "CHAOS_NUM_THREADS",
        "8",
        *PROGRAM,
    ]


def test_slurm():
    assert words("slurm", "a,b") == [
        "srun",
        "--mpi=pmix",
        "--nodes=2",
        "--nodelist=a,b",
        "--ntasks=8",
        "--ntasks-per-node=4",
        "--cpus-per-task=16",
        "--cpu-bind=cores",
        "--hint=nomultithread",
        "--export=ALL,CHAOS_NUM_THREADS=16",
        *PROGRAM,
    ]


def test_the_launcher_is_found_by_what_it_says(tmp_path):
    for name, text in (
        ("mpiexec", "HYDRA build details"),
        ("mpirun", "mpirun (Open MPI) 5.0.11"),
        ("other", "Intel(R) MPI Library for Linux"),
        ("srun", "slurm 24.05"),
        ("odd", "nothing"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{text}'\n")
        (tmp_path / name).chmod(0o755)

    def which(*names):
        return lambda name: str(tmp_path / name) if name in names else None

    assert commands.find_launcher({}, which("mpiexec", "mpirun", "srun")) == ("mpich", str(tmp_path / "mpiexec"))
    assert commands.find_launcher({}, which("mpirun"))[0] == "openmpi"
    assert commands.find_launcher({"SLURM_JOB_ID": "7"}, which("mpirun", "srun"))[0] == "slurm"
    assert commands.find_launcher({}, which("srun")) == (None, None)
    assert commands.kind_of(str(tmp_path / "other")) == "intelmpi" and commands.kind_of(str(tmp_path / "odd")) is None
    assert commands.kind_of(str(tmp_path / "absent")) is None


def test_dry_run_prints_the_command(capsys):
    assert (
        main(
            [
                "launch",
                "--nodes",
                "n1,n2",
                "--mpi",
                "slurm",
                "--domains",
                "2",
                "--cores",
                "32",
                "--dry-run",
                "--",
                "train",
                "large",
                "--run-dir",
                "my runs/l",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and shlex.split(out)[-7:] == [
        sys.executable,
        "-m",
        "chaos",
        "train",
        "large",
        "--run-dir",
        "my runs/l",
    ]
    assert shlex.split(out)[:3] == ["srun", "--mpi=pmix", "--nodes=2"]


def test_without_a_command(capsys):
    assert main(["launch", "--nodes", "2"]) == 2
    assert "COMMAND of chaos is needed" in capsys.readouterr().err


@pytest.mark.parametrize("library", mpi.LIBRARIES)
def test_the_launchers_here_understand_it(library, tmp_path):
    """The printed command, with this machine's launcher: one rank, bound to the cores of the domain, with as many
    workers."""
    mpi.need(library)
    cores = len(os.sched_getaffinity(0))
    what = commands.Layout(1, (), "numa", 1, cores)
    show = "import os; print(sorted(os.sched_getaffinity(0)), os.environ['CHAOS_NUM_THREADS'])"
    command = commands.command(library, what, [sys.executable, "-c", show])
    command[0] = mpi.launcher(library)[0]
    done = subprocess.run(command, env=mpi.environment(library), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert done.stdout.strip() == f"{sorted(os.sched_getaffinity(0))} {cores}"


@pytest.mark.parametrize("library", mpi.LIBRARIES)
def test_launch_trains(library, tmp_path):
    """The whole way, through the launcher that is found on the PATH."""
    mpi.need(library)
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "mpiexec").write_text(f'#!/bin/sh\nexec {mpi.launcher(library)[0]} "$@"\n')
    (bin / "mpiexec").chmod(0o755)
    env = mpi.environment(library, PATH=f"{bin}{os.pathsep}{os.environ['PATH']}")
    train = ["train", "small", "--data", "digits", "--subset", "100", "--epochs", "1", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "launch", "--domains", "1", "--cores", "1", "--", *train],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done
    assert "1 rank, one per numa domain, 1 workers each" in done.stderr and (tmp_path / "run" / "metrics.jsonl").exists()
