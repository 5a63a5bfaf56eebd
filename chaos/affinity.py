"""Which CPUs this process may use, also where an OpenMP runtime has bound the thread that loaded it to some of them.

With OMP_PROC_BIND, OMP_PLACES or GOMP_CPU_AFFINITY a runtime leaves the thread that loads it with one CPU, and whoever asks
the system afterwards takes that for a limit. So `import chaos` asks before it loads one; those that are there are asked too.
Standard library only, reads /proc and /sys. For chaos.threads and chaos._load.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

VARIABLES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


class Binding(NamedTuple):
    """What an OpenMP runtime has done to the thread that loaded it.

    Attributes
    ----------
    cpus : set of int
        That the process may use.
    left : set of int
        Those that the thread is left with.
    """

    cpus: frozenset[int]
    left: frozenset[int]


_binding: Binding | None = None  # of the thread that has imported chaos


def cpus() -> set[int]:
    """The CPUs that the calling thread may use; what an OpenMP runtime has bound it to is no limit."""
    found = binding()
    return set(found.cpus) if found else current()


def current() -> set[int]:
    """The calling thread's mask as it is."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def binding() -> Binding | None:
    """The binding that the calling thread's mask shows, None where there is none, or it has got another mask since."""
    return _binding if _binding and current() == _binding.left else None


@contextlib.contextmanager
def observed() -> Iterator[None]:
    """While a library is loaded that loads an OpenMP runtime. A runtime that comes along sees all CPUs that there are, also
    where another one has bound the thread before; what that has done is left as it was found."""
    global _binding
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = current()
    known = _before_runtimes(before)
    try:
        if known != before:
            os.sched_setaffinity(0, known)
        yield
    finally:
        if known != before:
            os.sched_setaffinity(0, before)
        left = current()
        _binding = Binding(frozenset(known), frozenset(left)) if left < known else None


def runtimes(root: str | os.PathLike[str] = "/") -> list[str] | None:
    """Paths of the OpenMP runtimes in this process, None where the system does not tell."""
    try:
        lines = Path(root, "proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return None
    paths = {parts[5].strip() for line in lines if len(parts := line.split(None, 5)) == 6}
    return sorted(path for path in paths if re.search(r"/lib(gomp|omp|iomp5)[^/]*\.so", path))


def places(path: str) -> tuple[int, list[set[int]]]:
    """(How many CPUs a loaded runtime has found, the sets of them to which it binds threads); (0, []) where it does not
    say."""
    import ctypes

    try:
        library, found = ctypes.CDLL(path), []
        for place in range(library.omp_get_num_places()):
            room = (ctypes.c_int * library.omp_get_place_num_procs(place))()
            library.omp_get_place_proc_ids(place, room)
            found.append(set(room))
        return library.omp_get_num_procs(), found
    except (OSError, AttributeError):
        return 0, []


def parse(text: str) -> set[int]:
    """The CPUs of a list as the system writes them: '0-3,8'."""
    spans = (re.fullmatch("([0-9]+)(?:-([0-9]+))?", part.strip()) for part in text.split(","))
    return {cpu for span in spans if span for cpu in range(int(span[1]), int(span[2] or span[1]) + 1)}


def _before_runtimes(mask: set[int]) -> set[int]:
    """The mask that this thread had before the runtimes that are loaded already; `mask` is what it has now."""
    if not any(os.environ.get(name, "").strip() for name in VARIABLES):
        return mask
    for path in runtimes() or ():
        count, bound = places(path)
        if count > len(mask) and mask in bound:
            # it tells how many it has found, and which, unless a variable has named some of them
            for seen in (set().union(*bound), *_masks_around()):
                if len(seen) == count and seen > mask:
                    return seen
    return mask


def _masks_around() -> Iterator[set[int]]:
    """Masks from which this thread's may come: of other threads of the process, of its parent, of the whole machine."""
    others = [str(path) for path in Path("/proc/self/task").glob("*/status")]
    for path in (*others, f"/proc/{os.getppid()}/status"):
        with contextlib.suppress(OSError):
            if found := re.search(r"^Cpus_allowed_list:\s*(\S+)", Path(path).read_text(errors="replace"), re.MULTILINE):
                yield parse(found[1])
    with contextlib.suppress(OSError):
        yield parse(Path("/sys/devices/system/cpu/online").read_text())
