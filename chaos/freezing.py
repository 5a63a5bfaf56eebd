"""Which parameters training leaves as they are: patterns of names, and what follows for layers. For chaos.parameters and
chaos.network."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from .layers import Node
from .layers.base import State, Trained


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a shell pattern (*, ?, [...]) fits; ValueError, which shows what there is, where it fits none."""
    names = list(names)
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern of parameter names must be text such as 'features.*', not {pattern!r}")
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        if any(fnmatchcase(name, inside := f"{pattern}.*") for name in names):
            raise ValueError(f"no parameter is named like {pattern!r}; did you mean {inside!r}?")
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"no parameter is named like {pattern!r}; the network has {shown or 'none'}")
    return found


def parts(node: Node, owner: str) -> dict[str, Trained | State]:
    """{name in the network: part} of a node's layer, whose parts are kept under `owner`."""
    if node.layer is None:
        return {}
    found = node.layer.parts(*(source.shape for source in node.inputs))
    return {node.layer.part_name(owner, part): what for part, what in found.items()}


def check(nodes: Iterable[tuple[Node, str]], frozen: Collection[str]) -> None:
    """ValueError where some but not all running statistics of a layer are frozen: it uses all of them or none."""
    for node, owner in nodes:
        state = _state(node, owner)
        left = [name for name in state if name not in frozen]
        if left and len(left) < len(state):
            missing, all_of_it = ", ".join(left), " and ".join(state)
            raise ValueError(f"{node.layer}: {all_of_it} can be frozen together only; {missing} would not be")


def evaluates(node: Node, owner: str, frozen: Collection[str]) -> bool:
    """Whether a layer, whose parts are kept under `owner`, uses its running statistics in training as well."""
    state = _state(node, owner)
    return bool(state) and all(name in frozen for name in state)


def trains(node: Node, owner: str, frozen: Collection[str]) -> bool:
    """Whether training changes anything of a layer."""
    return any(name not in frozen for name in parts(node, owner))


def _state(node: Node, owner: str) -> list[str]:
    return [name for name, what in parts(node, owner).items() if isinstance(what, State)]
