"""The command that starts one rank per domain (NUMA node, socket, ...) of every machine, bound to its cores, for each MPI
launcher. For the CLI; starts nothing itself."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from .. import threads
from ..options import check_number

# what each launcher calls a domain; Slurm is told numbers of cores instead
DOMAINS = {
    "numa": {"openmpi": "numa", "mpich": "numa", "intelmpi": "numa"},
    "socket": {"openmpi": "package", "mpich": "socket", "intelmpi": "socket"},
    "l3": {"openmpi": "l3cache", "mpich": "l3cache", "intelmpi": "cache3"},
    "node": {"openmpi": "node", "mpich": "machine", "intelmpi": "node"},
}
LAUNCHERS = ("openmpi", "mpich", "intelmpi", "slurm")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Layout:
    """Ranks and cores.

    Attributes
    ----------
    nodes : int
    hosts : tuple of str
        Names of the machines; empty: the launcher, or the batch system, knows them.
    domain : str
        One of DOMAINS.
    domains : int
        Per machine, each with one rank.
    cores : int
        Physical cores, and workers, per domain.
    """

    nodes: int
    hosts: tuple[str, ...]
    domain: str
    domains: int
    cores: int

    @property
    def ranks(self):
        return self.nodes * self.domains


def layout(nodes="1", domain="numa", domains=None, cores=None, machine=None):
    """What is to be started; machines are taken to be alike, and like this one.

    Parameters
    ----------
    nodes : str
        A number, or names with commas between them.
    domain : str
        One of DOMAINS.
    domains, cores : int, optional
        Domains per machine and cores per domain; by default those of this machine.
    machine : dict, optional
        As `chaos.threads.topology` gives it.

    Raises
    ------
    ValueError
        For what is no number or name of machines, unknown domains, and where this machine does not tell.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    text = str(nodes)
    hosts = () if text.isdigit() else tuple(text.split(","))
    count = len(hosts) if hosts else int(text)
    wrong = next((host for host in hosts if not _HOST.fullmatch(host)), None)
    if wrong is not None or len(set(hosts)) < len(hosts) or not count:
        raise ValueError(
            f"nodes must be a number of at least 1, or different machine names with commas between, not {text!r}"
        )
    machine = threads.topology() if machine is None else machine
    if domains is None:
        domains = {
            "numa": machine["numa_nodes"] or machine["sockets"],
            "socket": machine["sockets"],
            "node": 1,
            "l3": machine.get("l3"),
        }[domain]
    if domains is None:
        raise ValueError(f"this machine does not tell how many {domain} domains it has; give their number (--domains)")
    check_number("domains", domains, 1, 1 << 20, whole=True)
    if cores is None:
        total = machine["cores"] or machine["logical_cpus"]
        cores = max(1, (total or 1) // domains)
    check_number("cores", cores, 1, threads.MAX_WORKERS, whole=True)
    return Layout(count, hosts, domain, domains, cores)


def command(launcher, what, program):
    """The command line, a list of words, that starts `program` (likewise) on every rank of the layout `what`.

    Open MPI: one rank per resource with n processing elements (ppr:1:RESOURCE:PE=n), bound to these cores. MPICH: Hydra
    binds each rank to a whole resource. Intel MPI: a pinning domain per rank. Slurm: tasks per node and CPUs per task;
    srun does not take the latter from sbatch since 22.05, so it is told."""
    per_host, cores, ranks, hosts = what.domains, what.cores, str(what.ranks), what.hosts
    workers = str(cores)
    if launcher == "openmpi":
        at = ["--host", ",".join(f"{host}:{per_host}" for host in hosts)] if hosts else []
        return [
            "mpirun",
            *at,
            "-n",
            ranks,
            "--map-by",
            f"ppr:{_per_resource(what)}:PE={cores}",
            "--bind-to",
            "core",
            "-x",
            f"CHAOS_NUM_THREADS={workers}",
            *program,
        ]
    if launcher == "mpich":
        at = ["-hosts", ",".join(hosts)] if hosts else []
        word = DOMAINS[what.domain]["mpich"]
        bind = ["-bind-to", "none"] if what.domain == "node" else ["-bind-to", word, "-map-by", word]
        return ["mpiexec", *at, "-ppn", str(per_host), "-n", ranks, *bind, "-genv", "CHAOS_NUM_THREADS", workers, *program]
    if launcher == "intelmpi":
        at = ["-hosts", ",".join(hosts)] if hosts else []
        return [
            "mpiexec",
            *at,
            "-ppn",
            str(per_host),
            "-n",
            ranks,
            "-genv",
            "I_MPI_PIN_DOMAIN",
            DOMAINS[what.domain]["intelmpi"],
            "-genv",
            "CHAOS_NUM_THREADS",
            workers,
            *program,
        ]
    if launcher == "slurm":
        at = [f"--nodelist={','.join(hosts)}"] if hosts else []
        return [
            "srun",
            "--mpi=pmix",
            f"--nodes={what.nodes}",
            *at,
            f"--ntasks={ranks}",
            f"--ntasks-per-node={per_host}",
            f"--cpus-per-task={cores}",
            "--cpu-bind=cores",
            "--hint=nomultithread",
            f"--export=ALL,CHAOS_NUM_THREADS={workers}",
            *program,
        ]
    raise ValueError(f"unknown launcher {launcher!r}; known: {', '.join(LAUNCHERS)}")


def _per_resource(what):
    """ppr counts per resource; several ranks in one node-wide domain, or fewer than the machine has, are counted per
    node."""
    return f"{what.domains}:node" if what.domain == "node" else f"1:{DOMAINS[what.domain]['openmpi']}"


def which(name):
    """Path of a program on the PATH or in Python's environment, which need not have been activated; None if it is
    nowhere."""
    return shutil.which(name) or shutil.which(name, path=os.path.join(sys.prefix, "bin"))


def find_launcher(environ, which=which):
    """(name in LAUNCHERS, path) of what would start ranks here; (None, None) where there is nothing. Inside a Slurm
    allocation that is srun."""
    if environ.get("SLURM_JOB_ID") and (srun := which("srun")):
        return "slurm", srun
    for name in ("mpiexec", "mpirun", "mpiexec.hydra", "ompirun_wrapper"):
        if (path := which(name)) and (kind := kind_of(path)):
            return kind, path
    return None, None


def kind_of(path):
    """Which of LAUNCHERS an mpiexec is, by what it says of itself; None for none of them."""
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = told.stdout + told.stderr
    for kind, words in (
        ("intelmpi", "Intel(R) MPI"),
        ("openmpi", "Open MPI"),
        ("openmpi", "OpenRTE"),
        ("openmpi", "prterun"),
        ("mpich", "HYDRA"),
    ):
        if words in text:
            return kind
    return None
