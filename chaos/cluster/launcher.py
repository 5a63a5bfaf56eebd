"""What the environment says about the launcher that started this process; initialises no MPI. For chaos.cluster and the
CLI."""

import os
from dataclasses import dataclass

# launcher: (number of ranks, this rank, ranks on this node). A variable counts only where all of its launcher's are numbers.
_VARIABLES = {
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    "MVAPICH": ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
    "Hydra (MPICH, Intel MPI)": ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
    "Slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", None),
}


@dataclass(frozen=True)
class Launch:
    """A launcher's word about this process.

    Attributes
    ----------
    launcher : str
    ranks : int
        How many processes it has started.
    rank : int
    local_ranks : int or None
        Those on this machine, where it tells.
    """

    launcher: str
    ranks: int
    rank: int
    local_ranks: int | None


def launched(environ=os.environ):
    """The launcher's word, None where there is none: `Launch` or None. srun sets PMI variables too; Slurm is then named
    last, because the variables of the MPI's own start-up say more."""
    for launcher, (size, rank, local) in _VARIABLES.items():
        found = [environ.get(name or "", "") for name in (size, rank, local)]
        if found[0].isdigit() and found[1].isdigit():
            return Launch(launcher, int(found[0]), int(found[1]), int(found[2]) if found[2].isdigit() else None)
    return None


def fix(launch):
    """What to do where the launcher has started several ranks and MPI sees one."""
    if launch.launcher == "Slurm" or "SLURM_STEP_ID" in os.environ:
        return "start with `srun --mpi=pmix` (or the type that `srun --mpi=list` names for this MPI library)"
    return (
        f"the launcher ({launch.launcher}) and the MPI library that mpi4py has loaded do not belong together; use the "
        "library's own mpiexec, or name the launcher's library with MPI4PY_LIBMPI=/path/to/libmpi.so (`chaos doctor` "
        "shows both)"
    )
